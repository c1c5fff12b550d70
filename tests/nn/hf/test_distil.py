import copy

import pytest
import torch

pytest.importorskip("transformers")

from gatewise.exceptions import InputError
from gatewise.nn.hf import restore_routers, swap_routers
from gatewise.nn.hf.sites import swapped_in
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


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (5, "data must be batches of token ids, not 5"),
        ([5], "a batch of data must be token ids"),
        (torch.full((2, 12), 1000), "from 1000 to 1000, and the model knows"),
        (torch.full((2, 12), -1), "from -1 to -1, and the model knows"),
        (torch.zeros(2, 0, dtype=torch.int64), "there is no token in data"),
        ({"input_ids": tiny_tokens(), "attention_mask": torch.ones(2, 1, 12, 12)}, "attention_mask of a batch"),
        ({"input_ids": tiny_tokens(), "attention_mask": torch.ones(2, 24)}, "attention_mask of a batch"),
        ({"input_ids": tiny_tokens(), "attention_mask": [1]}, "attention_mask of a batch"),
    ],
)
def test_data_that_are_no_tokens_change_nothing(data, reason):
    model = tiny_model("mixtral")
    for init in ("distil", "data"):
        with pytest.raises(InputError, match=reason):
            swap_routers(model, "laplace", init=init, data=data, steps=1)
    assert not swapped_in(model)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"selection": 5}, "selection must be one of 'from_old', not 5"),
        ({"selection": None}, "selection must be one of 'from_old', not None"),
        ({"gate_options": 5}, "gate_options must be a dictionary"),
    ],
)
def test_options_that_are_none(options, reason):
    with pytest.raises(InputError, match=reason):
        swap_routers(tiny_model("mixtral"), **options)
