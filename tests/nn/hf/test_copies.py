"""Swapped models that are copied, moved, wrapped or watched."""

import copy
import pickle
from operator import attrgetter

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from gatewise.exceptions import InputError
from gatewise.nn import RouterMonitor
from gatewise.nn.balance import BiasBalancer
from gatewise.nn.hf import (
    AuxiliaryLoss,
    load_routers,
    restore_routers,
    save_routers,
    swap_routers,
    train_routers_only,
)
from gatewise.nn.hf.sites import swapped_in
from gatewise.nn.readers import layer_around, readers_of
from tests.nn.hf.tiny_models import tiny_model, tiny_tokens

# A buffer, an argument that is a buffer, a submodule, a parameter, an argument that is a parameter.
PLACES = ("deepseek_v3", "minimax_m2", "ernie4_5_moe", "laguna", "afmoe")


def logits_of(model):
    with torch.no_grad():
        return model(tiny_tokens()).logits


def own_biases(model):
    """The model's own correction biases, by the names of the routers of Gatewise."""
    found = {}
    for name, adapter in swapped_in(model).items():
        bias = adapter.contract.bias
        holder = layer_around(model, name) if bias.place == "argument" else adapter
        found[f"{name}.router"] = attrgetter(bias.path)(holder).detach().reshape(-1)
    return found


@pytest.mark.parametrize("model_type", PLACES)
@pytest.mark.parametrize(
    "made",
    [
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: copy.deepcopy(model).double().float(),
    ],
    ids=("deepcopy", "pickle", "moved"),
)
def test_a_copy_has_one_bias_and_not_two(model_type, made, tmp_path):
    model = tiny_model(model_type)
    swap_routers(model)
    before = logits_of(model)
    again = made(model)
    for name, reader in readers_of(again).items():
        # Before any forward pass: what moves a bias moves the model's.
        reader.correction_bias.add_(1.0)
        torch.testing.assert_close(own_biases(again)[name], reader.correction_bias, rtol=0, atol=0)
        reader.correction_bias.sub_(1.0)
    torch.testing.assert_close(logits_of(again).to(before.dtype), before, rtol=0, atol=1e-4)
    torch.testing.assert_close(logits_of(model), before, rtol=0, atol=0)
    for bias in own_biases(again).values():
        bias.fill_(0.25)
    save_routers(again, tmp_path)
    loaded = tiny_model(model_type)
    load_routers(loaded, tmp_path)
    assert all(bool((bias == 0.25).all()) for bias in own_biases(loaded).values())


# PEFT asks transformers 5.24 by an old name.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("model_type", ["mixtral", "minimax_m2", "afmoe"])
@pytest.mark.parametrize("swapped", [True, False])
def test_adapters_of_peft_that_keep_a_copy_of_the_routers(model_type, swapped, tmp_path):
    peft = pytest.importorskip("peft")
    model = tiny_model(model_type)
    if swapped:
        swap_routers(model)
    before = logits_of(model)
    saved = "gate" if model_type != "afmoe" else "mlp.router"
    model = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], modules_to_save=[saved]))
    with RouterMonitor(model) as monitor:
        torch.testing.assert_close(logits_of(model), before, rtol=0, atol=1e-5)
    seen = monitor.summary()["tokens"]
    assert sorted(set(seen)) == [0, 24]
    assert (seen > 0).sum() == (seen == 0).sum()
    if model_type != "mixtral":
        balancer = BiasBalancer(model.train(), rate=0.5)
        model(tiny_tokens())
        balancer.step()
        balancer.remove()
        model.eval()
        assert not torch.allclose(logits_of(model), before, rtol=0, atol=1e-3)
    if swapped:
        with pytest.raises(InputError, match=r"something has been put around the router .*merge_and_unload"):
            save_routers(model, tmp_path)
        assert not list(tmp_path.iterdir())
        assert restore_routers(model)
        torch.testing.assert_close(logits_of(model), before, rtol=0, atol=1e-5)


def test_names_are_the_models_own_where_it_is_compiled(tmp_path):
    model = tiny_model("mixtral")
    swap_routers(model, "laplace", init="normal", std=1.0)
    save_routers(torch.compile(model, backend="eager"), tmp_path)
    again = tiny_model("mixtral")
    load_routers(again, tmp_path)
    torch.testing.assert_close(logits_of(again), logits_of(model), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "watched",
    [lambda model: RouterMonitor(model).start(), BiasBalancer, AuxiliaryLoss],
    ids=["monitor", "bias", "loss"],
)
def test_a_router_that_is_watched_is_not_taken_away(watched):
    model = tiny_model("deepseek_v3")
    before = logits_of(model)
    watch = watched(model)
    with pytest.raises(InputError, match="is being watched"):
        swap_routers(model)
    assert not swapped_in(model)
    # A copy is not watched.
    swap_routers(copy.deepcopy(model))
    getattr(watch, "remove", getattr(watch, "stop", None))()
    swap_routers(model)
    restore_routers(model)
    torch.testing.assert_close(logits_of(model), before, rtol=0, atol=0)


def test_a_router_that_layers_share_is_refused():
    model = tiny_model("mixtral")
    model.model.layers[1].mlp.gate = model.model.layers[0].mlp.gate
    with pytest.raises(InputError, match=r"is shared with 'model\.layers\.1\.mlp\.gate'"):
        swap_routers(model)
    with pytest.raises(InputError, match=r"is shared with 'model\.layers\.0\.mlp\.gate'"):
        swap_routers(model, layers=[1])
    assert swap_routers(model, layers=[2]).names == ("model.layers.2.mlp.gate",)


@pytest.mark.parametrize("what", [5, None, "mixtral", [nn.Linear(2, 2)]])
def test_what_is_no_model(what, tmp_path):
    for act in (
        swap_routers,
        restore_routers,
        train_routers_only,
        AuxiliaryLoss,
        BiasBalancer,
        readers_of,
        lambda model: save_routers(model, tmp_path),
        lambda model: load_routers(model, tmp_path),
    ):
        with pytest.raises(InputError, match="pass a model, not"):
            act(what)
