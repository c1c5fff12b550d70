"""Families of one number against SciPy's distributions, sums and integrals."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate

from gatewise.families import Gamma, Laplace, Poisson, StudentT
from tests.families.cases import SCALAR, tensor

LEVELS = (1e-9, 0.01, 0.3, 0.5, 0.77, 0.999, 1.0 - 1e-9)
cases = pytest.mark.parametrize("case", SCALAR.values(), ids=SCALAR)


@cases
def test_log_density_equals_scipy_in_the_tails_too(case):
    location, log_scale = case.parameters()
    ours = case.family.log_density(tensor(case.y), location, log_scale).numpy()
    name = "logpmf" if case.family.is_discrete else "logpdf"
    theirs = np.column_stack([getattr(expert, name)(case.y) for expert in case.experts()])
    np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


@cases
def test_distribution_function_equals_scipy(case):
    location, log_scale = case.parameters()
    y = np.concatenate([case.y, np.asarray(case.y) + 0.5, [-2.0, -1e-3, np.inf, -np.inf]])
    ours = case.family.distribution_function(tensor(y), location, log_scale).numpy()
    np.testing.assert_allclose(ours, np.column_stack([e.cdf(y) for e in case.experts()]), rtol=1e-10, atol=1e-300)


@cases
def test_quantile_equals_scipy(case):
    location, log_scale = case.parameters()
    ours = case.family.quantile(tensor(LEVELS), location, log_scale).numpy()
    np.testing.assert_allclose(ours, np.column_stack([e.ppf(LEVELS) for e in case.experts()]), rtol=1e-9, atol=1e-12)


@cases
def test_quantiles_at_0_and_1_are_the_ends_of_the_support(case):
    location, log_scale = case.parameters()
    ends = case.family.quantile(tensor([0.0, 1.0]), location, log_scale).numpy()
    for j, expert in enumerate(case.experts()):
        np.testing.assert_array_equal(ends[:, j], expert.support())


@pytest.mark.parametrize("name", ["bernoulli", "binomial", "poisson", "negative_binomial"])
def test_a_discrete_quantile_is_the_smallest_count_that_reaches_the_probability(name):
    case = SCALAR[name]
    location, log_scale = case.parameters()
    counts = torch.arange(0.0, 2.0 if name == "bernoulli" else 8.0, dtype=torch.float64)
    levels = case.family.distribution_function(counts, location, log_scale)
    # Where the distribution function is 1 to the last digit, no count but the last one may be named.
    inside = levels < 1.0
    for shift, expected in ((0.0, counts), (1e-13, counts + 1.0)):
        for j in range(3):
            at = levels[inside[:, j], j] + shift
            found = case.family.quantile(at, location, log_scale)[:, j]
            wanted = expected[inside[:, j]]
            keep = at < 1.0 - 1e-12
            torch.testing.assert_close(found[keep], wanted[keep], rtol=0.0, atol=0.0)


@cases
def test_mean_and_variance_equal_scipy(case):
    location, log_scale = case.parameters()
    for name, method in (("mean", "mean"), ("variance", "var")):
        ours = getattr(case.family, name)(location, log_scale).numpy()
        np.testing.assert_allclose(ours, [getattr(expert, method)() for expert in case.experts()], rtol=1e-12)


def _expectation(expert, function):
    """E[function(y)] by a sum over all counts that matter, or by integration between quantiles."""
    if hasattr(expert.dist, "pmf"):
        counts = np.arange(0.0, min(expert.support()[1], expert.ppf(1.0 - 1e-15) + 60.0) + 1.0)
        return float(expert.pmf(counts) @ np.array([function(y) for y in counts]))
    points = [expert.support()[0], *expert.ppf((0.1, 0.5, 0.9)), expert.support()[1]]
    return sum(
        integrate.quad(lambda y: expert.pdf(y) * function(y), low, high, limit=200, epsabs=1e-12, epsrel=1e-10)[0]
        for low, high in itertools.pairwise(points)
    )


@cases
def test_information_is_the_expected_square_of_the_score(case):
    location, log_scale = case.parameters()
    information = case.family.information(location, log_scale).numpy()
    for j, expert in enumerate(case.experts()):

        def score(y, j=j):
            h = location.clone().requires_grad_()
            density = case.family.log_density(torch.tensor(y, dtype=torch.float64), h, log_scale)[j]
            return torch.autograd.grad(density, h)[0][j].item()

        assert information[j] == pytest.approx(_expectation(expert, lambda y: score(y) ** 2), rel=1e-7)


@cases
def test_samples_follow_the_distribution_and_the_generator(case):
    location, log_scale = case.parameters()
    n = 20_000
    draws = case.family.sample(location.expand(n, 3), log_scale, torch.Generator().manual_seed(5))
    again = case.family.sample(location.expand(n, 3), log_scale, torch.Generator().manual_seed(5))
    other = case.family.sample(location.expand(n, 3), log_scale, torch.Generator().manual_seed(6))
    assert torch.equal(draws, again)
    assert not torch.equal(draws, other)
    case.family.check_target(draws)
    # Dvoretzky, Kiefer and Wolfowitz: exceeded with a probability below 1e-8, for discrete distributions too.
    bound = math.sqrt(math.log(2.0 / 1e-8) / (2.0 * n))
    for j, expert in enumerate(case.experts()):
        values = np.unique(draws[:, j].numpy())
        empirical = np.searchsorted(np.sort(draws[:, j].numpy()), values, side="right") / n
        assert np.abs(empirical - expert.cdf(values)).max() < bound
        mean, variance, kurtosis = (float(value) for value in expert.stats("mvk"))
        assert abs(draws[:, j].mean().item() - mean) < 5.0 * math.sqrt(variance / n)
        if math.isfinite(kurtosis):
            error = variance * math.sqrt((kurtosis + 2.0) / n)
            # A t distribution's eighth moment may be infinite: the variance then needs more room than the normal law.
            room = 12.0 if isinstance(case.family, StudentT) else 5.0
            assert abs(draws[:, j].var().item() - variance) < room * error


@cases
def test_log_density_is_minus_infinity_outside_the_support_with_gradient_zero(case):
    if case.family.is_location_scale:
        assert torch.isfinite(case.family.log_density(tensor([1e10, -1e10]), *case.parameters())).all()
        return
    location, log_scale = case.parameters()
    location.requires_grad_()
    outside = [-1.0, -math.inf] if isinstance(case.family, Gamma) else [-1.0, 0.5, 1e9 + 0.5, -math.inf]
    for value in outside:
        density = case.family.log_density(tensor([value]), location, log_scale)
        assert (density == -math.inf).all()
        assert (torch.autograd.grad(density.sum(), location)[0] == 0.0).all()


@cases
def test_float32_agrees_and_stays_float32(case):
    single, double = case.parameters(torch.float32), case.parameters()
    y = tensor(case.y, torch.float32)
    family = case.family
    for name in ("log_density", "distribution_function"):
        answer = getattr(family, name)(y, *single)
        assert answer.dtype is torch.float32
        torch.testing.assert_close(answer.double(), getattr(family, name)(y.double(), *double), rtol=2e-5, atol=2e-6)
    level = torch.tensor([0.25, 0.6])
    torch.testing.assert_close(
        family.quantile(level, *single).double(), family.quantile(level.double(), *double), rtol=2e-5, atol=2e-6
    )
    for name in ("mean", "variance", "information"):
        answer = getattr(family, name)(*single)
        assert answer.dtype is torch.float32
        torch.testing.assert_close(answer.double(), getattr(family, name)(*double), rtol=2e-5, atol=0.0)
    assert family.sample(*single, torch.Generator().manual_seed(0)).dtype is torch.float32


@cases
def test_whole_numbers_may_be_integers(case):
    location, log_scale = case.parameters()
    whole = torch.tensor([0, 1]) if not isinstance(case.family, Gamma) else torch.tensor([1, 3])
    torch.testing.assert_close(
        case.family.log_density(whole, location, log_scale),
        case.family.log_density(whole.double(), location, log_scale),
    )


def test_means_of_heavy_tails_are_infinite_or_not_there():
    family = StudentT()
    log_scale = tensor([[0.2, math.log(0.9)], [0.2, math.log(1.5)], [0.2, math.log(2.0)], [0.2, math.log(3.0)]])
    location = tensor([4.0, 4.0, 4.0, 4.0])
    np.testing.assert_array_equal(family.mean(location, log_scale).numpy(), [math.nan, 4.0, 4.0, 4.0])
    variance = family.variance(location, log_scale).numpy()
    np.testing.assert_array_equal(variance[:2], [math.nan, math.inf])
    assert variance[2] > 1e12  # exp(log 2) may be 2 or its neighbour.
    assert variance[3] == pytest.approx(3.0 * math.exp(0.4))
    h = location.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(family.mean(h, log_scale)[3], h)[0], tensor([0.0, 0.0, 0.0, 1.0]))


def test_the_kink_of_laplace_has_gradient_zero():
    h = tensor([1.0, 1.0]).requires_grad_()
    density = Laplace().log_density(tensor([1.0]), h, tensor([0.0, 1.0])).sum()
    assert (torch.autograd.grad(density, h)[0] == 0.0).all()


def test_huge_poisson_means_can_be_sampled():
    location = torch.full((4000, 1), math.log(1e17), dtype=torch.float64)
    draws = Poisson().sample(location, torch.zeros(1, 0), torch.Generator().manual_seed(2))
    z = (draws - 1e17) / math.sqrt(1e17)
    assert abs(z.mean().item()) < 5.0 / math.sqrt(4000)
    assert abs(z.var().item() - 1.0) < 5.0 * math.sqrt(2.0 / 4000)


def test_a_tiny_gamma_shape_still_gives_positive_draws():
    draws = Gamma().sample(tensor([[0.0]]).expand(1000, 1), tensor([-6.0]), torch.Generator().manual_seed(3))
    Gamma().check_target(draws)
    assert draws.min().item() == torch.finfo(torch.float64).tiny
