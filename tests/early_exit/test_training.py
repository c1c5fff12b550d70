"""Caches, warm-up, the alternation, end to end, and how long a sweep takes."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gatewise.early_exit import EarlyExitModel, FeatureCache, load_features
from gatewise.early_exit.decoding import best_exits
from gatewise.exceptions import InputError, ModelFolderError
from tests.early_exit.conftest import small_network


def test_cached_features_are_those_of_the_backbone(frozen, digits, tmp_path):
    x, y = digits["test"]
    loader = DataLoader(TensorDataset(x, y), batch_size=50)
    in_memory = frozen.cache_features(x, y, batch_size=33)
    on_disk = frozen.cache_features(loader, folder=tmp_path / "cache")
    assert all(isinstance(part.numpy().base, np.memmap) or part.numpy().base is not None for part in on_disk.features)
    for a, b in zip([*in_memory.features, in_memory.own], [*on_disk.features, on_disk.own], strict=True):
        # Convolutions of batches of other sizes round differently.
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert torch.equal(on_disk.y, y)
    again = load_features(tmp_path / "cache", frozen)
    assert all(torch.equal(a, b) for a, b in zip(again.features, on_disk.features, strict=True))
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".json"] * 2 + [".npy"] * 6
    expected = frozen.all_logits(x)
    torch.testing.assert_close(frozen.all_logits(again).logits, expected.logits, rtol=1e-4, atol=1e-4)


def test_caches_of_others_and_damaged_ones_are_refused(frozen, digits, tmp_path):
    frozen.cache_features(digits["test"][0], folder=tmp_path / "cache")
    other = EarlyExitModel(small_network(seed=5), exits=[0, 1, 2, 3], n_classes=10, example=digits["test"][0][:2])
    with pytest.raises(InputError, match="are of another backbone than the model's: cache them anew"):
        load_features(tmp_path / "cache", other)
    fewer = EarlyExitModel(small_network(seed=5), exits=[0, 1], n_classes=10, example=digits["test"][0][:2])
    with pytest.raises(InputError, match="are of the exits"):
        load_features(tmp_path / "cache", fewer)
    np.save(tmp_path / "cache" / "features_0.npy", np.zeros((3, 2), np.float32))
    with pytest.raises(ModelFolderError, match=r"features_0\.npy has 3 rows"):
        load_features(tmp_path / "cache", frozen)
    config = (tmp_path / "cache" / "config.json").read_text().replace("features_0", "../../x")
    (tmp_path / "cache" / "config.json").write_text(config)
    with pytest.raises(ModelFolderError, match="was changed after it was written"):
        load_features(tmp_path / "cache")


def test_frozen_heads_are_shared_and_joint_ones_are_not(frozen, joint):
    assert all(point.heads is frozen.sweep.warm_up for point in frozen.sweep.points.values())
    sets = [point.heads.state["0.linear.weight"] for point in joint.sweep.points.values()]
    assert not torch.equal(sets[0], sets[1])
    assert not torch.equal(sets[0], joint.sweep.warm_up.state["0.linear.weight"])


def test_a_sweep_goes_on_from_the_lambda_before(network, digits):
    """Warm start: heads of two λ are those of fitting the second after the first, not of fitting it alone."""

    def heads(lam):
        model = EarlyExitModel(network, exits=[1], n_classes=10, example=digits["train"][0][:2])
        model.fit(*digits["train"], *digits["val"], lam=lam, warmup_epochs=1, joint_epochs=1)
        return model.sweep.points[max(lam)].heads.state["0.linear.weight"]

    assert torch.equal(heads([0.1, 1.0]), heads([1.0, 0.1]))
    assert not torch.equal(heads([0.1, 1.0]), heads([1.0]))


def test_a_fit_does_not_depend_on_the_one_before(network, digits):
    model = EarlyExitModel(network, exits=[1], n_classes=10, example=digits["train"][0][:2])
    found = []
    for _ in range(2):
        model.fit(*digits["train"], *digits["val"], lam=0.1, warmup_epochs=1, joint_epochs=1)
        found.append(model.sweep.points[0.1].heads.state["0.linear.weight"])
    assert torch.equal(*found)


def test_released_weighting_trains_as_the_uniform_one(network, digits):
    """The defect of the released code, through the whole training."""
    states = {}
    for weighting in ("masses", "released", "uniform"):
        model = EarlyExitModel(network, exits=[0, 2], n_classes=10, example=digits["train"][0][:2])
        model.fit(*digits["train"], *digits["val"], lam=0.3, warmup_epochs=1, joint_epochs=1, weighting=weighting)
        states[weighting] = model.sweep.points[0.3].heads.state["0.linear.weight"]
    # Adam divides by the gradient's size: float32 rounding of gradients of 1e-3 moves weights by about 1e-5.
    torch.testing.assert_close(states["released"], states["uniform"], rtol=0, atol=2e-4)
    assert float((states["masses"] - states["uniform"]).abs().max()) > 2e-3


def test_warmed_up_heads_are_at_their_best_epoch(frozen, digits):
    best = np.array(frozen.sweep.warmup_accuracies).max(0)
    now = frozen.sweep.warm_up.validation.correct().double().mean(0).numpy()
    np.testing.assert_allclose(now, best, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"decoding": "paper"},
        {"target_loss": "zero_one"},
        {"target_loss": "probability"},
        {"positive_weight": True},
        {"gate_data": "training"},
        {"weighting": "single"},
    ],
)
def test_options_change_the_fit(network, digits, options):
    model = EarlyExitModel(network, exits=[0, 1, 2], n_classes=10, example=digits["train"][0][:2])
    model.fit(*digits["train"], *digits["val"], lam=0.3, warmup_epochs=1, joint_epochs=1, **options)
    model.set_policy("jei", lam=0.3)
    other = EarlyExitModel(network, exits=[0, 1, 2], n_classes=10, example=digits["train"][0][:2])
    other.fit(*digits["train"], *digits["val"], lam=0.3, warmup_epochs=1, joint_epochs=1)
    ours, theirs = (each.sweep.points[0.3] for each in (model, other))
    same_heads = torch.equal(ours.heads.state["0.linear.weight"], theirs.heads.state["0.linear.weight"])
    assert not (same_heads and torch.equal(ours.gates[True].bias, theirs.gates[True].bias))


def test_mean_cost_of_fitted_targets_does_not_rise(frozen):
    costs = torch.tensor(frozen.costs.relative(), dtype=torch.float64)
    losses = frozen.sweep.warm_up.validation.cross_entropies()
    found = [float(costs[best_exits(losses, costs, lam)].mean()) for lam in frozen.sweep.points]
    assert all(after <= before for before, after in itertools.pairwise(found))


def test_end_to_end_moves_the_backbone_and_is_saved_with_it(digits, tmp_path):
    net = small_network()
    model = EarlyExitModel(net, exits=[1, 2], n_classes=10, example=digits["train"][0][:2])
    before = net[0][0].weight.clone()
    x, y = (part[:300] for part in digits["train"])
    model.fit(x, y, *digits["val"], lam=0.1, train_backbone=True, warmup_epochs=2, joint_epochs=1, backbone_rate=1e-3)
    model.set_policy("jei", lam=0.1)
    assert not torch.equal(net[0][0].weight, before)
    expected = model.infer(digits["test"][0])
    model.save(tmp_path / "model")
    new = EarlyExitModel(small_network(), exits=[1, 2], n_classes=10, example=digits["train"][0][:2])
    found = new.load(tmp_path / "model").infer(digits["test"][0])
    assert torch.equal(found.logits, expected.logits)


@pytest.mark.parametrize(("head", "pool"), [("norm_linear", "mean"), (lambda d, c: nn.Linear(d, c), "auto")])
def test_other_heads_are_trained(network, digits, head, pool):
    model = EarlyExitModel(network, exits=[1, 3], n_classes=10, example=digits["train"][0][:2], head=head, pool=pool)
    model.fit(*digits["train"], *digits["val"], lam=0.1, joint=False, warmup_epochs=6)
    assert model.sweep.warm_up.validation.correct().double().mean(0)[1] > 0.5


def many_features():
    generator = torch.Generator().manual_seed(0)
    n, d, n_classes = 10_000, 64, 10
    y = torch.randint(n_classes, (n,), generator=generator)
    centres = torch.randn(n_classes, d, generator=generator)
    features = [0.15 * (exit + 1) * centres[y] + torch.randn(n, d, generator=generator) for exit in range(6)]
    backbone = nn.Sequential(*(nn.Linear(d, d) for _ in range(6)))
    model = EarlyExitModel(backbone, exits=list(range(6)), n_classes=n_classes, example=torch.zeros(2, d), last="head")
    data = FeatureCache(features, None, y)
    return model, data.select(torch.arange(7_000)), data.select(torch.arange(7_000, n))


LAMBDAS = [0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0]


def test_gates_of_nine_lambdas_over_cached_features_take_seconds():
    """Six exits, 10,000 samples, frozen heads: at most 5 CPU s."""
    model, train, held = many_features()
    model.fit(train, None, held, lam=LAMBDAS, joint=False, warmup_epochs=1)
    assert model.sweep.seconds["sweep"] <= 5.0


@pytest.mark.slow
def test_nine_jointly_trained_lambdas_take_half_a_minute():
    """Six exits, 10,000 samples, two passes for each λ: at most 30 CPU s."""
    model, train, held = many_features()
    model.fit(train, None, held, lam=LAMBDAS, joint=True, joint_epochs=2, warmup_epochs=1)
    assert model.sweep.seconds["sweep"] <= 30.0
