"""The mixture's formulas against brute-force sums over SciPy's distributions, for every family."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.families import FAMILIES
from tests.mixture_reference import (
    DISCRETE,
    FAMILY_CASES,
    ORDERED,
    expert_distributions,
    inputs,
    log_density,
    random_mixture,
    targets,
)

EVERY = list(FAMILY_CASES)
UNORDERED = [name for name in EVERY if name not in ORDERED]


def reference_parts(model, case, x):
    """Weights (n, k), and means and variances (n, k) or (n, k, e), by SciPy."""
    distributions = expert_distributions(model, case, x)
    weights = model.log_weights(x).exp().numpy()
    means = np.array([[d.mean() for d in row] for row in distributions])
    variances = np.array([[d.var() for d in row] for row in distributions])
    shape = (*weights.shape, *(1 for _ in means.shape[2:]))
    return weights.reshape(shape), means, variances


def test_every_registered_family_is_among_the_cases_and_in_the_documentation():
    assert {family for family, _, _, _ in FAMILY_CASES.values()} == set(FAMILIES)
    page = (Path(__file__).parents[1] / "docs" / "model.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(FAMILIES)


@pytest.mark.parametrize("case", EVERY)
def test_density_and_responsibilities_are_brute_force_sums(case):
    model = random_mixture(case=case)
    x, y = inputs(model), targets(case)
    weights = model.log_weights(x).exp().numpy()
    rows = zip(expert_distributions(model, case, x), y.numpy(), strict=True)
    joint = weights * np.exp([[log_density(d, value) for d in row] for row, value in rows])
    # SciPy's densities are good to about 1e-13 relative, its negative binomial and t less so.
    np.testing.assert_allclose(model.log_prob(x, y).numpy(), np.log(joint.sum(1)), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(model.responsibilities(x, y).numpy(), joint / joint.sum(1, keepdims=True), rtol=1e-10)
    np.testing.assert_allclose(model.log_joint(x, y).numpy(), np.log(joint), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", EVERY)
def test_moments_follow_the_laws_of_total_expectation_and_variance(case):
    model = random_mixture(case=case)
    x = inputs(model)
    weights, means, variances = reference_parts(model, case, x)
    mean = (weights * means).sum(1)
    np.testing.assert_allclose(model.mean(x).numpy(), mean, rtol=1e-12, atol=1e-12)
    second = (weights * (variances + means**2)).sum(1)
    np.testing.assert_allclose(model.variance(x).numpy(), second - mean**2, rtol=1e-9)


@pytest.mark.parametrize("case", ORDERED)
def test_distribution_function_is_the_sum_of_those_of_the_experts(case):
    model = random_mixture(case=case)
    x, y = inputs(model), targets(case)
    weights = model.log_weights(x).exp().numpy()
    rows = zip(expert_distributions(model, case, x), y.numpy(), strict=True)
    below = np.array([[d.cdf(value) for d in row] for row, value in rows])
    np.testing.assert_allclose(model.distribution_function(x, y).numpy(), (weights * below).sum(1), rtol=1e-11)
    assert model.has_quantiles


@pytest.mark.parametrize("probability", [1e-4, 0.1, 0.5, 0.9, 0.9999])
@pytest.mark.parametrize("case", ORDERED)
def test_quantiles_invert_the_distribution_function(case, probability):
    model = random_mixture(case=case)
    x = inputs(model, n=25)
    y = model.quantile(x, probability)
    reached = model.distribution_function(x, y)
    if case not in DISCRETE:
        torch.testing.assert_close(reached, torch.full_like(reached, probability), rtol=1e-8, atol=0.0)
        return
    assert torch.equal(y, y.floor())
    assert (reached >= probability * (1.0 - 1e-13)).all()
    assert (model.distribution_function(x, y - 1.0) < probability).all()


def test_a_discrete_quantile_lies_between_those_of_its_experts_and_is_found_far_out():
    model = random_mixture(case="poisson", d=1)
    model.experts.bias.copy_(torch.tensor([0.0, 5.0, 14.0]))
    x = inputs(model, n=40)
    for probability in (0.05, 0.5, 0.95):
        y = model.quantile(x, probability)
        each = np.array([[d.ppf(probability) for d in row] for row in expert_distributions(model, "poisson", x)])
        assert (each.min(1) <= y.numpy()).all()
        assert (y.numpy() <= each.max(1)).all()
        assert (model.distribution_function(x, y) >= probability * (1.0 - 1e-13)).all()
        assert (model.distribution_function(x, y - 1.0) < probability).all()
    assert y.max() > 1e5


@pytest.mark.parametrize("k", [1, 3, 7])
def test_a_discrete_quantile_of_equal_experts_is_theirs_at_a_jump(k):
    model = random_mixture(case="bernoulli", k=k)
    model.gate.weight.zero_()
    model.gate.bias.zero_()
    model.experts.weight.zero_()
    model.experts.bias.zero_()
    # P(Y ≤ 0) is ½ exactly; three weights of ⅓ add up to a little less than 1 in floating point.
    assert model.quantile(inputs(model, n=2), 0.5).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("case", UNORDERED)
def test_targets_without_an_order_have_no_distribution_function(case):
    model = random_mixture(case=case)
    x, y = inputs(model), targets(case)
    assert not model.has_quantiles
    with pytest.raises(InputError, match="has no distribution function"):
        model.distribution_function(x, y)
    with pytest.raises(InputError, match="quantile"):
        model.quantile(x, 0.5)


@pytest.mark.parametrize("case", [name for name in EVERY if name != "proportion"])
def test_sampling_frequencies_agree_with_the_moments(case):
    model = random_mixture(case=case)
    x = inputs(model, n=1).expand(20000, -1)
    draws = model.sample(x, generator=torch.Generator().manual_seed(3))
    if case in ("two classes", "three classes"):
        draws = torch.nn.functional.one_hot(draws.long(), model.mean(x[:1]).shape[-1]).double()
    mean, variance = model.mean(x[0]), model.variance(x[0])
    assert draws.dtype == torch.float64
    assert draws.shape == (20000, *mean.shape)
    # Five standard errors of a mean; of a variance with the sampled fourth moment.
    assert ((draws.mean(0) - mean).abs() < 5.0 * (variance / 20000).sqrt()).all()
    squares = (draws - mean) ** 2
    if not case.startswith("student"):
        assert ((squares.mean(0) - variance).abs() < 5.0 * (squares.var(0) / 20000).sqrt()).all()


@pytest.mark.parametrize("case", EVERY)
def test_shapes_types_and_batches(case):
    model = random_mixture(case=case)
    x, y = inputs(model, n=6), targets(case, n=6)
    event = model.mean(x).shape[1:]
    flat = {"mean": model.mean(x), "variance": model.variance(x), "log_prob": model.log_prob(x, y)}
    grid_x, grid_y = x.reshape(2, 3, 2), y.reshape(2, 3, *y.shape[1:])
    assert model.mean(grid_x).shape == (2, 3, *event)
    torch.testing.assert_close(model.mean(grid_x).flatten(0, 1), flat["mean"])
    torch.testing.assert_close(model.variance(grid_x).flatten(0, 1), flat["variance"])
    torch.testing.assert_close(model.log_prob(grid_x, grid_y).flatten(), flat["log_prob"])
    torch.testing.assert_close(model.log_prob(x[:1], y[:1]), flat["log_prob"][:1])
    torch.testing.assert_close(model.log_prob(x[0], y[0]), flat["log_prob"][0])
    assert model.mean(x[:0]).shape == (0, *event)
    assert model.log_prob(x[:0], y[:0]).shape == (0,)
    single = random_mixture(case=case, dtype=torch.float32)
    values = single.log_prob(x.float(), y.float())
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), flat["log_prob"], rtol=1e-4, atol=1e-4)
    assert single.mean(x.float()).dtype == torch.float32
    if case in ORDERED:
        assert model.quantile(grid_x, 0.5).shape == (2, 3)
        assert single.quantile(x.float(), 0.5).dtype == torch.float32
        assert model.quantile(x[0], 0.5).shape == ()
        assert model.quantile(x[:0], 0.5).shape == (0,)


@pytest.mark.parametrize("case", EVERY)
def test_whole_numbers_may_come_as_integers(case):
    model = random_mixture(case=case)
    y = targets(case)
    if torch.equal(y, y.floor()):
        x = inputs(model)
        torch.testing.assert_close(model.log_prob(x, y.long()), model.log_prob(x, y), rtol=1e-15, atol=0.0)


@pytest.mark.parametrize("case", EVERY)
def test_targets_of_another_shape_are_refused(case):
    model = random_mixture(case=case)
    x, y = inputs(model), targets(case)
    with pytest.raises(InputError, match=r"the targets have shape \(3, .*needs \(3,"):
        model.log_prob(x, y.unsqueeze(1))


@pytest.mark.parametrize("case", EVERY)
def test_dispersions_stand_among_the_atoms_by_name(case):
    model = random_mixture(case=case)
    atoms = model.atoms()
    assert list(atoms.dispersion) == [name for name, _ in model.family.dispersion_terms()]
    assert all(values.shape == (3,) for values in atoms.dispersion.values())
    if model.family.has_scale:
        np.testing.assert_allclose(atoms.variance, atoms.dispersion["scale"] ** 2)
    else:
        assert atoms.variance.shape == (0,)


def test_free_degrees_of_freedom_are_reported():
    model = random_mixture(case="student t")
    np.testing.assert_allclose(
        model.atoms().dispersion["degrees of freedom"], np.exp(model.experts.log_scale[:, 1].numpy())
    )


@pytest.mark.parametrize("case", ["poisson", "negative binomial", "gamma"])
def test_an_offset_is_added_to_every_location(case):
    model = random_mixture(case=case)
    x, y = inputs(model), targets(case)
    shifted = random_mixture(case=case)
    shifted.experts.bias += 0.7
    offset = torch.full((3,), 0.7, dtype=torch.float64)
    for name in ("log_prob", "responsibilities", "log_joint", "distribution_function"):
        torch.testing.assert_close(getattr(model, name)(x, y, offset=offset), getattr(shifted, name)(x, y))
    for name in ("mean", "variance"):
        torch.testing.assert_close(getattr(model, name)(x, offset=offset), getattr(shifted, name)(x))
    torch.testing.assert_close(model.quantile(x, 0.4, offset=offset), shifted.quantile(x, 0.4))
    # A mean is proportional to the exposure.
    exposure = torch.tensor([0.5, 2.0, 10.0], dtype=torch.float64)
    torch.testing.assert_close(model.mean(x, offset=exposure.log()), exposure * model.mean(x))
    draws = [m.sample(x, generator=torch.Generator().manual_seed(2), **o) for m, o in
             ((model, {"offset": offset}), (shifted, {}))]  # fmt: skip
    torch.testing.assert_close(*draws)


@pytest.mark.parametrize("case", [name for name in EVERY if name not in ("poisson", "negative binomial", "gamma")])
def test_other_families_take_no_offset(case):
    model = random_mixture(case=case)
    with pytest.raises(InputError, match=f"the {model.family.name} family takes no offset: .* log link"):
        model.mean(inputs(model), offset=torch.zeros(3, dtype=torch.float64))


def test_offsets_that_cannot_be_used_are_refused():
    model = random_mixture(case="poisson")
    x = inputs(model)
    with pytest.raises(InputError, match="an offset is not finite"):
        model.mean(x, offset=torch.tensor([0.0, -torch.inf, 0.0], dtype=torch.float64))
    with pytest.raises(InputError, match=r"the offset has shape \(3, 1\) and the inputs \(3,\)"):
        model.mean(x, offset=torch.zeros(3, 1, dtype=torch.float64))
    with pytest.raises(InputError, match=r"the offset has shape \(2,\) and the inputs \(3,\)"):
        model.mean(x, offset=torch.zeros(2, dtype=torch.float64))
