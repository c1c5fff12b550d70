"""Every model type from a tiny random model: swapped, run, trained, saved, loaded in a fresh process, restored."""

import json
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

pytest.importorskip("transformers")

from gatewise.nn.hf import restore_routers, save_routers, swap_routers
from gatewise.nn.hf.sites import sites_of, swapped_in
from gatewise.nn.known import CONTRACTS
from gatewise.nn.readers import readers_of
from tests.nn.hf.tiny_models import MORE_TYPES, TYPES, E, routers_of, tiny_model, tiny_tokens

EVERY = TYPES + MORE_TYPES


def test_there_are_the_types_that_were_asked_for():
    known = {name for contract in CONTRACTS for name in contract.routers}
    assert len(TYPES) == 31
    assert set(EVERY) <= known


@contextmanager
def outputs_of(model, names):
    """What the modules of these names gave, by name."""
    found: dict[str, tuple] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda module, arguments, outputs, name=name: found.__setitem__(name, outputs)
        )
        for name in names
    ]
    yield found
    for handle in handles:
        handle.remove()


def router_logits_of(model, ids):
    """The router logits that the model collects, and its own auxiliary loss; None where it has none."""
    outputs = model(ids, labels=ids, output_router_logits=True)
    return getattr(outputs, "router_logits", None), getattr(outputs, "aux_loss", None)


@pytest.mark.parametrize("model_type", EVERY)
def test_a_type_goes_all_the_way(model_type):
    model, ids = tiny_model(model_type), tiny_tokens()
    names = [site.name for site in sites_of(model) if not site.contract.skipped]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad(), outputs_of(model, names) as old:
        before = model(ids).logits

    swapped = swap_routers(model)
    assert swapped.names == tuple(names)
    assert bool(swapped.skipped) == (model_type == "deepseek_v4")
    with torch.no_grad(), outputs_of(model, names) as new:
        after = model(ids).logits
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
    for name in names:
        for ours, theirs in zip(new[name], old[name], strict=True):
            assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        order, own = new[name][2].argsort(-1), old[name][2].argsort(-1)
        torch.testing.assert_close(new[name][0], old[name][0], rtol=0, atol=1e-5)
        assert torch.equal(new[name][2].gather(-1, order), old[name][2].gather(-1, own))
        torch.testing.assert_close(new[name][1].gather(-1, order), old[name][1].gather(-1, own), rtol=0, atol=1e-5)

    losses = []
    for implementation in ("eager", "grouped_mm", "gatewise_sorted"):
        model.set_experts_implementation(implementation)
        loss = model(ids, labels=ids).loss
        loss.backward()
        losses.append(loss.item())
        for name, router in routers_of(model).items():
            assert router.gate.weight.grad is not None, name
            assert bool(router.gate.weight.grad.abs().sum() > 0), name
        model.zero_grad()
    # Float32 sums in another order.
    assert max(losses) - min(losses) < 1e-5

    assert model.generate(ids[:1], max_new_tokens=3, do_sample=False).shape[1] > ids.shape[1]
    logits, auxiliary = router_logits_of(model, ids)
    assert len(logits) == len(names)
    assert torch.equal(torch.cat([part.reshape(-1, E) for part in logits]), torch.cat([new[name][0] for name in names]))

    assert restore_routers(model) == tuple(names)
    assert not swapped_in(model)
    found = model.state_dict()
    assert set(found) == set(state)
    assert all(torch.equal(found[name], value) for name, value in state.items())
    model.set_experts_implementation("grouped_mm")
    with torch.no_grad():
        assert torch.equal(model(ids).logits, before)
    # It records on as before, and its own auxiliary loss is what it was with the matching gate.
    own_logits, own_auxiliary = router_logits_of(model, ids)
    assert len(own_logits) == len(names)
    assert (own_auxiliary is None) == (auxiliary is None)
    if auxiliary is not None:
        torch.testing.assert_close(auxiliary, own_auxiliary, rtol=1e-5, atol=1e-6)


_FRESH = """
import json, sys
import torch, transformers
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)
from gatewise.nn.hf import load_with_routers
from gatewise.nn.readers import readers_of
found = {}
for folder in sys.argv[2:]:
    model = load_with_routers(folder)
    with torch.no_grad():
        logits = model(torch.load(sys.argv[1], weights_only=True)).logits
    expected = torch.load(folder + "/expected.pt", weights_only=True)
    biases = [r.correction_bias for r in readers_of(model).values() if r.correction_bias is not None]
    same = len(biases) == len(expected["biases"]) and all(map(torch.equal, biases, expected["biases"]))
    found[folder] = [float((logits - expected["logits"]).abs().max()), same]
print(json.dumps(found))
"""


# With and without correction biases, shared experts, groups, tables of tokens and softmaxes after the selection.
SAVED = ("mixtral", "qwen2_moe", "deepseek_v2", "deepseek_v3", "deepseek_v4", "gpt_oss", "minimax_m2", "granitemoe")


@pytest.mark.parametrize("types", [SAVED, pytest.param(TYPES, marks=pytest.mark.slow)], ids=["some", "all"])
def test_saved_models_are_the_same_in_a_fresh_process(tmp_path, types):
    ids, generator = tiny_tokens(), torch.Generator().manual_seed(3)
    torch.save(ids, tmp_path / "ids.pt")
    for model_type in types:
        model, folder = tiny_model(model_type), tmp_path / model_type
        swap_routers(model)
        with torch.no_grad():
            # Trained, and balanced by the bias: neither is what the old router has.
            for router in routers_of(model).values():
                router.gate.weight.add_(0.05 * torch.randn(router.gate.weight.shape, generator=generator))
                router.gate.bias.add_(0.1 * torch.randn(E, generator=generator))
                if router.correction_bias is not None:
                    router.correction_bias.add_(0.2 * torch.randn(E, generator=generator))
            logits = model(ids).logits
        model.save_pretrained(folder)
        save_routers(model, folder)
        biases = [reader.correction_bias for reader in readers_of(model).values()]
        torch.save(
            {"logits": logits, "biases": [bias.clone() for bias in biases if bias is not None]}, folder / "expected.pt"
        )
    folders = [str(tmp_path / model_type) for model_type in types]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _FRESH, str(tmp_path / "ids.pt"), *folders],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for folder, (difference, same_biases) in json.loads(done.stdout.splitlines()[-1]).items():
        # Weights read from a file lie elsewhere in memory, and the last bit of a product may differ.
        assert difference < 1e-6, folder
        assert same_biases, folder
