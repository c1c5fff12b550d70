"""What every family promises: derivatives, batches, options, starts, extremes, units."""

import math

import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.experts import LinearExperts
from gatewise.families import (
    FAMILIES,
    Bernoulli,
    Binomial,
    Categorical,
    Family,
    Gamma,
    Gaussian,
    Laplace,
    MultivariateGaussian,
    NegativeBinomial,
    Poisson,
    StudentT,
    build_family,
)
from gatewise.gates import SoftmaxGate
from gatewise.model import MixtureOfExperts
from tests.families.cases import ALL, random_problem, tensor


class _LogProb(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, y):
        return self.model.log_prob(x, y)


families = pytest.mark.parametrize("family", ALL.values(), ids=ALL)


def test_every_registered_family_is_tested():
    assert {family.name for family in ALL.values()} == set(FAMILIES)


@families
def test_derivatives_agree_with_finite_differences_to_the_second_order(family):
    y, location, log_scale = random_problem(family, batch=(3,))
    inputs = (location.requires_grad_(), log_scale.requires_grad_())

    def density(h, s):
        return family.log_density(y, h, s)

    assert torch.autograd.gradcheck(density, inputs)
    if not isinstance(family, Laplace):
        assert torch.autograd.gradgradcheck(density, inputs)


@families
def test_forward_reverse_and_batched_derivatives_agree(family):
    y, location, log_scale = random_problem(family, batch=(4,))

    def density(h, s, value):
        return family.log_density(value, h, s).sum()

    def joint(row):
        def of(flat):
            return density(
                flat[: location[0].numel()].reshape(location[0].shape),
                flat[location[0].numel() :].reshape(log_scale.shape),
                y[row],
            )

        return of

    batched = torch.func.vmap(torch.func.hessian(density), in_dims=(0, None, 0))(location, log_scale, y)
    for row in range(4):
        flat = torch.cat([location[row].flatten(), log_scale.flatten()])
        forward_over_reverse = torch.func.hessian(joint(row))(flat)
        torch.testing.assert_close(forward_over_reverse, torch.autograd.functional.hessian(joint(row), flat))
        size = location[row].numel()
        torch.testing.assert_close(batched[row].reshape(size, size), forward_over_reverse[:size, :size])
        gradient = torch.func.grad(joint(row))(flat)
        torch.testing.assert_close(torch.func.jacfwd(joint(row))(flat), gradient)


@families
def test_leading_axes_are_kept(family):
    y, location, log_scale = random_problem(family, batch=(6,))
    grid_y, grid_location = (value.reshape(2, 3, *value.shape[1:]) for value in (y, location))
    flat = family.log_density(y, location, log_scale)
    assert flat.shape == (6, 3)
    torch.testing.assert_close(family.log_density(grid_y, grid_location, log_scale).flatten(0, 1), flat)
    torch.testing.assert_close(family.log_density(y[0], location[0], log_scale), flat[0])
    torch.testing.assert_close(family.log_density(y[0], location, log_scale)[0], flat[0])
    for name in ("mean", "variance", "information", "at_boundary"):
        arguments = (log_scale,) if name != "at_boundary" else ()
        method = getattr(family, name)
        torch.testing.assert_close(method(grid_location, *arguments).flatten(0, 1), method(location, *arguments))
        assert method(location[0], *arguments).shape == method(location, *arguments).shape[1:]
    assert family.information_factor(grid_y).shape == (2, 3)
    if family != Binomial():
        event = (family.event_size,) if family.event_size else ()
        assert family.sample(grid_location, log_scale).shape == (2, 3, 3, *event)
        assert family.sample(location[0], log_scale).shape == (3, *event)


@families
def test_information_is_symmetric_and_positive_definite_of_the_documented_shape(family):
    _, location, log_scale = random_problem(family, batch=(4,))
    information = family.information(location, log_scale)
    if family.n_outputs == 1:
        assert information.shape == (4, 3)
        assert (information > 0.0).all()
    else:
        assert information.shape == (4, 3, family.n_outputs, family.n_outputs)
        torch.testing.assert_close(information, information.mT)
        assert (torch.linalg.eigvalsh(information) > 0.0).all()


@families
def test_options_rebuild_the_family(family):
    again = build_family(family.name, **family.options())
    assert again == family
    assert hash(again) == hash(family)
    assert again.options() == family.options()
    with pytest.raises(InputError, match="has no option 'nothing'"):
        build_family(family.name, nothing=1)


@families
def test_descriptions_are_consistent(family):
    _, location, log_scale = random_problem(family)
    terms = family.dispersion_terms()
    natural = family.natural_dispersion(log_scale)
    assert natural.shape == (3, family.n_dispersion) == (3, len(terms))
    for place, (_, positive) in enumerate(terms):
        assert not positive or (natural[:, place] > 0.0).all()
    assert len(set(terms)) == len(terms)
    assert len(family.output_names("y")) == family.n_outputs == (1 if location.ndim == 2 else location.shape[-1])
    assert family.formula
    assert family.source
    assert family.log_link == isinstance(family, Poisson | NegativeBinomial | Gamma)
    assert family.has_scale == isinstance(family, Gaussian | StudentT | Laplace)
    assert family.is_location_scale == isinstance(family, Gaussian | StudentT | Laplace | MultivariateGaussian)
    if family.log_link:
        torch.testing.assert_close(family.mean(location, log_scale).log(), location)


@families
def test_location_scale_families_follow_a_change_of_units(family):
    y, location, log_scale = random_problem(family)
    e = family.n_outputs
    scale = tensor(np.linspace(0.02, 50.0, e)) if e > 1 else tensor(7.0)
    if not family.is_location_scale:
        with pytest.raises(InputError, match="no location-scale family"):
            family.rescale_dispersion(log_scale, scale)
        return
    changed = family.rescale_dispersion(log_scale, scale)
    moved = family.log_density(-3.0 + scale * y, -3.0 + scale * location, changed)
    volume = scale.log().sum() if e > 1 else scale.log()
    torch.testing.assert_close(moved, family.log_density(y, location, log_scale) - volume)
    once = family.rescale_dispersion(log_scale, tensor(2.0))
    torch.testing.assert_close(family.variance(location, once), 4.0 * family.variance(location, log_scale))


@families
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_extreme_locations_have_finite_derivatives(family, dtype):
    y, location, log_scale = random_problem(family, dtype=dtype)
    for value in (-700.0, -100.0, 100.0, 700.0, 800.0, 1e5):
        signs = tensor(np.resize([1.0, -1.0], location.shape[1:]), dtype)
        h, s = (value * signs).expand_as(location).clone().requires_grad_(), log_scale.clone().requires_grad_()
        density = family.log_density(y, h, s)
        assert not density.isnan().any()
        assert (density < math.inf).all()
        for gradient in torch.autograd.grad(density.sum(), (h, s), materialize_grads=True):
            assert torch.isfinite(gradient).all(), value
        for name in ("mean", "variance", "information"):
            assert torch.isfinite(getattr(family, name)(h, log_scale)).all(), (name, value)


@families
def test_extreme_dispersions_have_finite_derivatives(family):
    y, location, log_scale = random_problem(family)
    if not isinstance(family, Gamma | NegativeBinomial) and family != StudentT():
        return
    place = 1 if family == StudentT() else slice(None)
    for value in (-800.0, -100.0, 100.0, 800.0):
        s = log_scale.clone()
        s[..., place] = value
        h = location.clone().requires_grad_()
        s.requires_grad_()
        density = family.log_density(y, h, s)
        assert not density.isnan().any()
        for gradient in torch.autograd.grad(density.sum(), (h, s), materialize_grads=True):
            assert torch.isfinite(gradient).all(), value


@families
def test_a_hopeless_expert_does_not_spoil_the_gradient_of_a_mixture(family):
    y, _, log_scale = random_problem(family, batch=(4,), k=2)
    outputs, dispersions = family.n_outputs, family.n_dispersion
    experts = LinearExperts(1, 2, n_outputs=outputs, n_dispersion=dispersions)
    model = MixtureOfExperts(SoftmaxGate(1, 2), experts, family).double()
    with torch.no_grad():
        model.experts.log_scale.copy_(log_scale)
        model.experts.bias[0] = 800.0
    x = tensor([[-1.0], [0.0], [0.5], [1.0]])
    model.log_prob(x, y).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.numel() == 0 or torch.isfinite(parameter.grad).all(), name

    def log_likelihood(bias):
        return torch.func.functional_call(_LogProb(model), {"model.experts.bias": bias}, (x, y)).sum()

    assert torch.isfinite(torch.func.hessian(log_likelihood)(model.experts.bias.detach())).all()


@families
def test_starts_are_finite_and_explain_the_targets_better_than_neighbours(family):
    y, _, _ = random_problem(family, batch=(300,), seed=4)
    weight = torch.rand(300, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight[:20] = 0.0
    location, log_scale = family.moment_start(y, weight)
    assert location.shape == (() if family.n_outputs == 1 else (family.n_outputs,))
    assert log_scale.shape == (() if family.n_dispersion == 1 else (family.n_dispersion,))

    def fit(h):
        return (weight @ family.log_density(y, h.unsqueeze(0), log_scale.unsqueeze(0))).item()

    best = fit(location)
    for direction in torch.eye(family.n_outputs, dtype=torch.float64):
        step = 0.3 * (direction[0] if family.n_outputs == 1 else direction)
        # The median of a t distribution is not its maximum likelihood, but near it.
        slack = 0.01 * abs(best) if isinstance(family, StudentT) else 0.0
        assert best > max(fit(location + step), fit(location - step)) - slack
    torch.testing.assert_close(family.moment_start(y, 3.0 * weight), (location, log_scale))
    single = family.moment_start(y.float(), weight.float())
    assert single[0].dtype is torch.float32


@families
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_starts_are_finite_for_targets_that_do_not_vary(family, dtype):
    values = [0.0, 1.0] if isinstance(family, Categorical | Bernoulli) else [0.0, 1.0, 5.0]
    for value in values:
        y = torch.full((30,), value + (1e-30 if isinstance(family, Gamma) and value == 0.0 else 0.0), dtype=dtype)
        if family.event_size:
            y = torch.stack([y, torch.full_like(y, 5.0)] + [y] * (family.event_size - 2), -1)
        for weight in (torch.ones(30, dtype=dtype), torch.eye(30, dtype=dtype)[3], 1e-20 * torch.ones(30, dtype=dtype)):
            location, log_scale = family.moment_start(y, weight)
            assert torch.isfinite(location).all()
            assert torch.isfinite(log_scale).all()
            density = family.log_density(y[:1], location.unsqueeze(0), log_scale.unsqueeze(0))
            assert torch.isfinite(density).all()


BAD = [
    (Gaussian(), [0.0, math.nan], "row 1", "finite"),
    (Laplace(), [math.inf], "inf in row 0", "finite"),
    (StudentT(), [0.0, -math.inf], "row 1", "finite"),
    (Poisson(), [0.0, 2.5], "2.5 in row 1", "counts"),
    (Poisson(), [0.0, 1.0, -1.0], "-1.0 in row 2", "counts"),
    (Poisson(), [math.inf], "inf in row 0", "counts"),
    (NegativeBinomial(), [3.0, math.nan], "nan in row 1", "counts"),
    (Gamma(), [1.0, 0.0], "0.0 in row 1", "positive"),
    (Gamma(), [1.0, math.inf], "inf in row 1", "positive"),
    (Bernoulli(), [1.0, 0.0, 2.0], "2.0 in row 2", "0 or 1"),
    (Categorical(3), [0.0, 3.0], "3.0 in row 1", "class codes 0, …, 2"),
    (Categorical(3), [0.5], "0.5 in row 0", "class codes"),
    (Binomial(4), [4.0, 5.0], "5.0 in row 1", "counts 0, …, 4"),
    (Binomial(), [[1.0, 2.0], [3.0, 2.0]], r"\[3.0, 2.0\] in row 1", "successes"),
    (Binomial(), [[0.0, 0.0]], "row 0", "trials ≥ 1"),
    (Binomial(), [1.0, 2.0, 3.0], r"shape \(3,\)", "two columns"),
    (MultivariateGaussian(2), [[1.0, 2.0], [math.nan, 0.0]], r"row \(1, 0\)", "finite"),
    (MultivariateGaussian(2), [[1.0, 2.0, 3.0]], r"shape \(1, 3\)", "2 columns"),
]


@pytest.mark.parametrize(("family", "values", "place", "rule"), BAD)
def test_impossible_targets_are_refused_with_place_and_rule(family, values, place, rule):
    with pytest.raises(InputError, match=place) as caught:
        family.check_target(tensor(values))
    assert rule in str(caught.value)


@families
def test_possible_targets_are_accepted(family):
    y, _, _ = random_problem(family)
    family.check_target(y)
    family.check_target(y.float())
    if family.is_discrete:
        family.check_target(y.long())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Categorical(1), "n_classes"),
        (lambda: Categorical(2.0), "n_classes"),
        (lambda: Binomial(0), "trials"),
        (lambda: Binomial(True), "trials"),
        (lambda: StudentT(0.0), "df"),
        (lambda: StudentT(math.inf), "df"),
        (lambda: MultivariateGaussian(1), "use the gaussian family"),
        (lambda: MultivariateGaussian(2, "banded"), "full"),
    ],
)
def test_options_out_of_range_are_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()


@families
def test_families_without_order_say_so(family):
    y, location, log_scale = random_problem(family)
    half = torch.full((5,), 0.5, dtype=torch.float64)
    if isinstance(family, Categorical | MultivariateGaussian) or family == Binomial():
        for method, argument in ((family.distribution_function, y), (family.quantile, half)):
            with pytest.raises(InputError, match="has no"):
                method(argument, location, log_scale)
    else:
        assert family.distribution_function(y, location, log_scale).shape == (5, 3)
        assert family.quantile(half, location, log_scale).shape == (5, 3)


def test_the_boundary_of_the_means_is_seen():
    edge = math.log(1e-8)
    near, beyond = edge + 0.1, edge - 0.1
    for family in (Bernoulli(), Binomial(), Binomial(3), Categorical(2)):
        mask = family.at_boundary(tensor([near, beyond, -near, -beyond, 0.0]))
        assert mask.tolist() == [False, True, False, True, False], family
    for family in (Poisson(), NegativeBinomial()):
        assert family.at_boundary(tensor([near, beyond, -near, -beyond])).tolist() == [False, True, False, False]
    three = Categorical(3).at_boundary(tensor([[0.0, 0.0], [0.0, beyond], [-beyond - 1.0, 0.0], [-beyond + 1.0, 0.0]]))
    assert three.tolist() == [False, True, False, True]
    for family in (Gaussian(), Gamma(), StudentT(), Laplace()):
        assert family.at_boundary(tensor([-1e5, 1e5])).tolist() == [False, False]
    assert MultivariateGaussian(2).at_boundary(torch.zeros(4, 3, 2)).shape == (4, 3)


def test_information_of_pairs_counts_their_trials():
    family: Family = Binomial()
    y = tensor([[1.0, 2.0], [0.0, 7.0]])
    assert family.information_factor(y).tolist() == [2.0, 7.0]
    h = tensor([[0.4]])
    curvature = torch.autograd.functional.hessian(lambda v: family.log_density(y[1], v, torch.zeros(1, 0)).sum(), h)
    torch.testing.assert_close(-curvature.reshape(1, 1), 7.0 * family.information(h, torch.zeros(1, 0)))
    assert Poisson().information_factor(torch.tensor([1, 2])).tolist() == [1.0, 1.0]
