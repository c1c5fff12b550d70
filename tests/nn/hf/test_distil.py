import copy

import pytest
import torch

pytest.importorskip("transformers")

from gatewise.exceptions import InputError
from gatewise.nn.hf import restore_routers, swap_routers
from tests.nn.hf.tiny_models import tiny_model, tiny_tokens


def logits_of(model, ids):
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.parametrize(
    ("model_type", "gate", "options"),
    [
        ("mixtral", "laplace", {}),
        ("deepseek_v3", "laplace", {}),
        # The logits are the cosine times 8, the length of the tokens here.
        ("deepseek_v3", "cosine", {"temperature": 0.125}),
        ("ernie4_5_moe", "matching", {}),
    ],
)
def test_distilling_comes_nearer_to_the_old_router(model_type, gate, options):
    model = tiny_model(model_type)
    batches = [tiny_tokens(8, 32, seed) for seed in range(3)]
    ids = tiny_tokens(8, 32, seed=9)
    before = logits_of(model, ids)
    fresh = copy.deepcopy(model)
    swap_routers(
        fresh, gate, init="orthonormal", gate_options=options, std=0.1, generator=torch.Generator().manual_seed(0)
    )
    swapped = swap_routers(model, gate, init="distil", gate_options=options, data=batches, steps=100)
    assert (logits_of(model, ids) - before).norm() < 0.5 * (logits_of(fresh, ids) - before).norm()
    assert set(swapped.agreement) == set(swapped.names)
    # By chance 1 of 28 pairs.
    assert all(share > 0.7 for share in swapped.agreement.values())
    assert "of tokens keep their experts" in str(swapped)


def test_distilling_leaves_the_model_and_its_modes_as_they_were():
    model = tiny_model("mixtral").train()
    model.model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    swap_routers(model, "cosine", init="distil", data=tiny_tokens(), steps=2)
    restore_routers(model)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(value.grad is None for value in model.parameters())


def test_a_start_from_tokens_leaves_padding_out():
    model, ids = tiny_model("mixtral"), tiny_tokens(2, 16)
    mask = torch.ones_like(ids)
    mask[:, 6:] = 0
    swap_routers(model, "laplace", init="data", data={"input_ids": ids, "attention_mask": mask})
    with pytest.raises(InputError, match="2 different finite tokens"):
        swap_routers(
            tiny_model("mixtral"),
            "laplace",
            init="data",
            data={"input_ids": ids[:1], "attention_mask": mask[:1, :] * 0 + (torch.arange(16) < 2)},
        )
