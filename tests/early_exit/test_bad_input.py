"""Every refusal has its sentence."""

import pytest
import torch
from torch import nn

from gatewise.early_exit import EarlyExitModel
from gatewise.early_exit.blocks import find_blocks
from gatewise.early_exit.evaluation import evaluate
from gatewise.exceptions import InputError, NonFiniteWarning
from tests.early_exit.conftest import small_network

EXAMPLE = torch.zeros(2, 1, 8, 8)


def model_of(backbone=None, **options):
    return EarlyExitModel(
        small_network() if backbone is None else backbone,
        **{"exits": [0, 1], "n_classes": 10, "example": EXAMPLE, **options},
    )


class NoTensor(nn.Module):
    def forward(self, x):
        return "nothing"


class Lists(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList([nn.Identity(), nn.Identity()])})
        self.unused = nn.Linear(1, 1)

    def forward(self, x):
        for each in self.encoder["layer"]:
            x = each(x)
        return x


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"exits": "encoder.layr.*"}, r"no module's name matches 'encoder.layr.\*': did you mean 'encoder.layer.\*'\?"),
        ({"exits": ["encoder.layers"]}, "has no module 'encoder.layers': did you mean 'encoder.layer'"),
        ({"exits": [7]}, "exit 7 is not there: the backbone has 2 children"),
        ({"exits": []}, "exits is empty"),
        ({"exits": [None]}, "the name or the number of a block, not None"),
        ({"exits": ["unused"]}, "'unused' does not run when the backbone does"),
    ],
)
def test_exits_that_are_not_there(options, said):
    with pytest.raises(InputError, match=said):
        model_of(Lists(), **{"example": torch.zeros(2, 3), **options})


def test_patterns_match_part_by_part():
    net = nn.ModuleDict({"a": nn.ModuleList([nn.ModuleList([nn.Identity()]), nn.Identity()])})
    assert find_blocks(net, "a.*") == ["a.0", "a.1"]
    assert find_blocks(net, ["a.*.*"]) == ["a.0.0"]
    assert find_blocks(nn.Sequential(nn.Identity(), nn.Identity()), [-1, 0]) == ["0", "1"]


class Flat(nn.Module):
    """Puts samples and tokens on one axis."""

    def forward(self, x):
        return x.reshape(-1, 8)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])

    def forward(self, x):
        n = len(x)
        for each in self.blocks:
            x = each(x).reshape(n, 3)
        return x


class Mixing(nn.Module):
    def forward(self, x):
        return x - x.mean(0, keepdim=True)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Linear(3, 3)

    def forward(self, x):
        return self.block(self.block(x))


@pytest.mark.parametrize(
    ("backbone", "options", "said"),
    [
        (nn.Sequential(NoTensor(), nn.Identity()), {}, "gives str, which holds no tensor"),
        (None, {"example": torch.zeros(2, 7)}, "the backbone cannot take the example"),
        (None, {"example": "text"}, "must be a tensor, or a tuple or mapping of them, not str"),
        (None, {"n_classes": 1}, "n_classes must be a whole number from 2 on"),
        (None, {"last": "none"}, "last must be one of"),
        (None, {"pool": "max"}, "pool must be one of 'auto', 'mean', 'cls' or a function, not 'max'"),
        (None, {"pool": "cls"}, "takes the first of the tokens"),
        (None, {"pool": lambda h, m: h}, "must give one vector for each of the 2 samples"),
        (None, {"head": "big"}, "head must be one of"),
        (None, {"head": [nn.Linear(4, 10)]}, "there are 1 heads for 2 exits"),
        (None, {"n_classes": 7, "last": "own"}, 'no logits of 7 classes: take last="head"'),
        (nn.Sequential(Flat(), nn.Linear(8, 8), nn.Linear(8, 2)), {}, "samples must have an axis of their own"),
        (Counting(), {"exits": "blocks", "example": torch.zeros(2, 3)}, "what follows fails without them"),
        (
            nn.Sequential(nn.Linear(3, 3), Mixing(), nn.Linear(3, 3)),
            {"example": torch.eye(3), "last": "head", "exits": [0, 1, 2]},
            "its blocks mix samples",
        ),
        (Twice(), {"exits": ["block"], "example": torch.zeros(2, 3)}, "'block' runs 2 times in one pass"),
        (nn.Sequential(nn.Linear(3, 3)), {"exits": [0], "example": torch.zeros(2, 3), "last": "head"}, "only one exit"),
        ([], {}, "must be a module or a list of modules"),
        (len, {}, "must be a module or a list of modules"),
        (None, {"example": EXAMPLE[:0]}, "the example has no samples"),
        (None, {"exits": None}, "exits must be a pattern, or a list of names and numbers"),
    ],
)
def test_backbones_and_examples_that_do_not_fit(backbone, options, said):
    with pytest.raises(InputError, match=said):
        model_of(backbone, **options)


X, Y = torch.zeros(40, 1, 8, 8), torch.arange(40) % 10


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((X, Y, None, None), {}, "x_val is missing"),
        ((X, Y + 1, X, Y), {}, "classes must lie between 0 and 9, and sample 9 is of 10"),
        ((X, Y - 1, X, Y), {}, "sample 0 is of -1"),
        ((X, Y.float(), X, Y), {}, "classes must be whole numbers"),
        ((X, Y[:7], X, Y), {}, "there are 40 samples and 7 classes"),
        ((X, Y, X[:9], Y[:9]), {}, "no sample of class 9: what is fitted"),
        ((X, Y, X[:8], Y[:8]), {}, "no sample of class 8 and of 1 more"),
        ((X, None, X, Y), {}, "the classes are missing"),
        ((X, Y, X, Y), {"lam": [-1.0]}, "lam must be a number from 0 on"),
        ((X, Y, X, Y), {"lam": []}, "lam must be a number from 0 on"),
        ((X, Y, X, Y), {"jointly": True}, "there is no option 'jointly' of training"),
        ((X, Y, X, Y), {"decoding": "mean"}, "decoding must be one of"),
        ((X, Y, X, Y), {"patience": 0}, "patience must be a whole number"),
        ((X, ["a"] * 40, X, Y), {}, "number them from 0 on"),
        ((X[:0], Y[:0], X, Y), {}, "there are no samples"),
        (([], None, X, Y), {}, "there are no samples"),
        ((X, Y, X, Y), {"weight_decay": -1.0}, "weight_decay must be a positive number"),
        ((X, Y, X, Y), {"seed": "a"}, "seed must be a whole number from 0 on"),
        ((3, None, X, Y), {}, "data must be inputs or a loader"),
        (([(X, Y)], Y, X, Y), {}, "a loader gives its classes itself"),
    ],
)
def test_training_that_cannot_begin(arguments, options, said):
    model = model_of()
    with pytest.raises(InputError, match=said):
        model.fit(*arguments, **{"lam": 0.1, **options})
    assert model.sweep is None


def test_what_comes_too_early_is_said():
    model = model_of()
    with pytest.raises(InputError, match="there is no policy yet: call fit"):
        model.infer(X)
    with pytest.raises(InputError, match="nothing has been fitted yet: call model"):
        model.set_policy("jei", lam=0.1)
    with pytest.raises(InputError, match="nothing has been fitted yet"):
        evaluate(model, X, Y)


def test_policies_that_are_not_there(frozen, joint, digits):
    with pytest.raises(InputError, match="did you mean 'max_prob'"):
        frozen.set_policy("maxprob", budget=0.5)
    with pytest.raises(InputError, match=r"no heads were trained for lam = 0.7: fitted were 0.05, 0.5, 1e"):
        joint.set_policy("jei", lam=0.7)
    with pytest.raises(InputError, match="the margin policy has no option 'folds'"):
        frozen.set_policy("margin", budget=0.5, folds=3)
    with pytest.raises(InputError, match="pass 'decoding' to fit"):
        joint.set_policy("jei", lam=0.05, decoding="paper")
    with pytest.raises(InputError, match="needs the classes: pass y"):
        frozen.set_policy("oracle", setting=0).simulate(digits["test"][0])
    with pytest.raises(InputError, match="there is no policy 'best'"):
        evaluate(frozen, *digits["test"], policies=["best"])
    with pytest.raises(InputError, match="budget_ms needs measured costs"):
        frozen.set_policy("margin", budget_ms=3.0)


@pytest.mark.parametrize(
    ("name", "aim", "said"),
    [
        ("max_prob", {"budget": "half"}, "budget must be a number, not 'half'"),
        ("max_prob", {"budget": 1.5}, "a share of the network's cost, above 0 and at most 1, not 1.5"),
        ("max_prob", {"setting": float("nan")}, "setting must be a number, not nan"),
        (
            "max_prob",
            {"setting": 0.5, "lam": 0.1},
            "give one of lam, budget, budget_ms and setting, not lam and setting",
        ),
        ("fixed", {"setting": 1.5}, "is a whole number, not 1.5"),
        ("patience", {"setting": 1.5}, "is a whole number, not 1.5"),
        ("fixed", {"setting": 9}, "there are exits 0 to 4, not 9"),
        ("geometric", {"setting": -1.0}, "the ratio of shares, must be a positive number"),
    ],
)
def test_aims_that_are_none(frozen, name, aim, said):
    with pytest.raises(InputError, match=said):
        frozen.set_policy(name, **aim)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_two_classes_in_other_precisions_and_batches(dtype):
    torch.manual_seed(0)
    x = torch.randn(120, 48)
    y = (x[:, 0] > 0).long()
    net = nn.Sequential(*(nn.Sequential(nn.Linear(48, 48), nn.Tanh()) for _ in range(3)), nn.Linear(48, 2)).to(dtype)
    model = EarlyExitModel(net, exits=[0, 1, 2], n_classes=2, example=x[:1].to(dtype))
    # A loader of ragged batches.
    loader = [(x[a:b].to(dtype), y[a:b]) for a, b in ((0, 7), (7, 60), (60, 61))]
    model.fit(loader, None, x[60:].to(dtype), y[60:], lam=[0.1], joint_epochs=1, warmup_epochs=1)
    for name, aim in (("jei", {"lam": 0.1}), ("optimal_stopping", {"lam": 0.1}), ("margin", {"budget": 0.9})):
        model.set_policy(name, **aim)
        output = model.infer(x.to(dtype))
        assert output.logits.shape == (120, 2)
        assert output.logits.dtype == torch.float32
    assert model.infer(x[:0].to(dtype)).logits.shape == (0, 2)


def test_losses_that_are_not_numbers_are_named(digits):
    model = model_of()
    with pytest.raises(InputError, match=r"the heads' loss became (nan|inf): take a smaller learning_rate"):
        model.fit(*digits["train"], *digits["val"], lam=0.1, learning_rate=1e30)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_samples_that_are_not_numbers_are_named(digits, value):
    model = model_of()
    x = digits["train"][0].clone()
    x[303] = value
    with pytest.raises(InputError, match=r"sample 303 is NaN or infinite behind the block '.*', 1 of 256 of its batch"):
        model.fit(x, digits["train"][1], *digits["val"], lam=0.1)


def test_answers_that_are_not_numbers_are_named(frozen, digits):
    x = digits["test"][0][:9].clone()
    frozen.set_policy("max_prob", setting=0.9)
    whole = frozen.infer(x)
    assert whole.is_finite.all()
    x[4] = float("nan")
    with pytest.warns(
        NonFiniteWarning, match="the answers of 1 of 9 samples are NaN or infinite, the first is sample 4"
    ):
        output = frozen.infer(x)
    others = torch.arange(9) != 4
    assert output.is_finite.tolist() == others.tolist()
    assert torch.equal(output.exit_index[others], whole.exit_index[others])
    torch.testing.assert_close(output.logits[others], whole.logits[others])


def test_a_tensor_that_was_not_there_with_the_example_is_refused():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(3))

        def forward(self, x):
            extra = x.sum(1, keepdim=True) if len(x) > 5 else None
            for each in self.blocks:
                x = each(x, extra)
            return x

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x, extra):
            return self.linear(x) + (0.0 if extra is None else extra)

    torch.manual_seed(0)
    model = EarlyExitModel(Sometimes(), exits="blocks", n_classes=2, example=torch.zeros(2, 3))
    x, y = torch.randn(40, 3), torch.arange(40) % 2
    model.fit(x, y, x, y, lam=0.1, joint=False, warmup_epochs=2)
    model.set_policy("max_prob", setting=float(model.all_logits(x).statistics[:, 0, 0].median()))
    with pytest.raises(InputError, match=r"gets a tensor\.1 that it did not get with the example"):
        model.infer(x)
