import copy

import pytest
import torch

pytest.importorskip("transformers")

from gatewise.nn.balance import BiasBalancer, recording
from gatewise.nn.hf import restore_routers, swap_routers
from gatewise.nn.known import CONTRACTS
from gatewise.nn.readers import readers_of
from tests.nn.hf.tiny_models import E, routers_of, tiny_model, tiny_tokens


def logits_of(model, ids):
    with torch.no_grad():
        return model(ids).logits


def _contract(model_type):
    return next(contract for contract in CONTRACTS if model_type in contract.routers)


# One for each place: a buffer, a submodule, a parameter, an argument that is a buffer and one that is a parameter.
BIASED = ("deepseek_v3", "ernie4_5_moe", "laguna", "minimax_m2", "afmoe")


@pytest.mark.parametrize("model_type", BIASED)
def test_the_correction_bias_stays_where_the_model_keeps_it(model_type):
    model, ids = tiny_model(model_type), tiny_tokens()
    old = {name: reader.correction_bias.clone() for name, reader in readers_of(model).items()}
    keys = set(model.state_dict())
    before = logits_of(model, ids)
    swap_routers(model)
    added = set(model.state_dict()) - keys
    assert {name.rpartition(".")[2] for name in added} == {"weight", "bias"}
    assert keys <= set(model.state_dict())
    place = next(name for name in sorted(keys) if name.endswith(_contract(model_type).bias.path))

    # What moves the router's bias moves the model's, and the other way round.
    router = next(iter(routers_of(model).values()))
    first = model.state_dict()[place]
    router.correction_bias.add_(1.0)
    assert torch.equal(model.state_dict()[place].reshape(-1), router.correction_bias)
    with torch.no_grad():
        first.sub_(1.0)
    assert torch.equal(model.state_dict()[place].reshape(-1), router.correction_bias)
    torch.testing.assert_close(logits_of(model, ids), before, rtol=0, atol=1e-5)

    # Also after casts, after loading by assignment, and in a copy.
    model.double().float()
    model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()}, assign=True)
    twin = copy.deepcopy(model)
    for other in (model, twin):
        logits_of(other, ids)
        balancer = BiasBalancer(other, rate=0.5)
        other.train()
        other(ids)
        other.eval()
        balancer.step()
        balancer.remove()
        moved = other.state_dict()[place].reshape(-1)
        assert torch.equal(moved, next(iter(routers_of(other).values())).correction_bias)
        assert not torch.equal(moved, next(iter(old.values())))
        assert not torch.allclose(logits_of(other, ids), before, rtol=0, atol=1e-4)

    # And the old one comes back.
    restore_routers(model)
    for name, reader in readers_of(model).items():
        torch.testing.assert_close(reader.correction_bias, old[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("model_type", ["mixtral", "gpt_oss"])
def test_models_without_a_correction_bias_can_get_one(model_type):
    model, ids = tiny_model(model_type), tiny_tokens(4, 24)
    before = logits_of(model, ids)
    swap_routers(model, correction_bias=True)
    torch.testing.assert_close(logits_of(model, ids), before, rtol=0, atol=1e-5)
    balancer = BiasBalancer(model, rate=0.02)
    model.train()
    for _ in range(60):
        with recording(model) as calls, torch.no_grad():
            model(ids)
        balancer.step()
    (routing,) = next(iter(calls.values()))
    counts = torch.bincount(routing.indices.reshape(-1), minlength=E)
    assert counts.max() < 1.7 * counts.float().mean()
    restore_routers(model)
    assert torch.equal(logits_of(model.eval(), ids), before)
