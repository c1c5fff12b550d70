"""Families that meet each other in a limit or a special case, and vectors and classes against SciPy."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import gammaln, softmax

from gatewise.exceptions import InputError
from gatewise.families import (
    Bernoulli,
    Binomial,
    Categorical,
    Gamma,
    Gaussian,
    MultivariateGaussian,
    NegativeBinomial,
    Poisson,
    StudentT,
)
from gatewise.families.elementwise import gamma_below, gamma_quantile
from gatewise.families.smooth import log_gamma_increment, stirling_rest
from tests.families.cases import random_problem, tensor

NONE = torch.zeros(3, 0, dtype=torch.float64)
H = tensor([-2.0, 0.3, 5.0])


def test_two_classes_are_bernoulli_with_the_other_sign():
    y = tensor([0.0, 1.0])
    two = Categorical(2)
    torch.testing.assert_close(two.log_density(y, H, NONE), Bernoulli().log_density(y, -H, NONE))
    torch.testing.assert_close(two.mean(H, NONE)[..., 1], Bernoulli().mean(-H, NONE))
    torch.testing.assert_close(two.variance(H, NONE)[..., 0], Bernoulli().variance(H, NONE))
    torch.testing.assert_close(two.information(H, NONE), Bernoulli().information(H, NONE))
    start, other = (
        family.moment_start(tensor([1.0, 0.0, 1.0, 1.0]), torch.ones(4).double()) for family in (two, Bernoulli())
    )
    torch.testing.assert_close(start[0], -other[0])


@pytest.mark.parametrize("h", [-300.0, -50.0, -1.0, 0.0, 21.0, 50.0, 300.0])
def test_logistic_derivatives_are_exact_in_both_tails(h):
    """A residual 1 − p of 1e-22 must not become 0, or a separating expert would look converged."""
    with mpmath.workdps(300):
        p, q = (1 / (1 + mpmath.exp(sign * mpmath.mpf(h))) for sign in (-1, 1))
        for family, y in ((Bernoulli(), 1.0), (Binomial(1), 1.0), (Binomial(), [1.0, 1.0]), (Categorical(2), 0.0)):

            def density(value, family=family, y=y):
                return family.log_density(tensor(y), value.reshape(1), NONE[:1]).sum()

            at = tensor(h)
            assert density(at).item() == pytest.approx(float(mpmath.log(p)), rel=1e-13, abs=0.0)
            slope = torch.func.grad(density)(at).item()
            assert slope == pytest.approx(float(q), rel=1e-12, abs=0.0)
            curvature = torch.func.hessian(density)(at).item()
            assert curvature == pytest.approx(-float(p * q), rel=1e-12, abs=0.0)
            information = family.information(at.reshape(1), NONE[:1]).item()
            assert information == pytest.approx(float(p * q), rel=1e-12, abs=0.0)


def test_one_trial_is_bernoulli_and_pairs_are_counts():
    y = tensor([0.0, 1.0])
    one, pairs = Binomial(1), Binomial()
    expected = Bernoulli().log_density(y, H, NONE)
    torch.testing.assert_close(one.log_density(y, H, NONE), expected)
    torch.testing.assert_close(pairs.log_density(torch.stack([y, torch.ones(2)], -1), H, NONE), expected)
    for name in ("mean", "variance", "information"):
        for family in (one, pairs):
            torch.testing.assert_close(getattr(family, name)(H, NONE), getattr(Bernoulli(), name)(H, NONE))
    level = tensor([0.05, 0.5, 0.95])
    torch.testing.assert_close(one.quantile(level, H, NONE), Bernoulli().quantile(level, H, NONE))
    counts = tensor([0.0, 3.0, 9.0])
    both = torch.stack([counts, tensor([9.0, 9.0, 9.0])], -1)
    torch.testing.assert_close(pairs.log_density(both, H, NONE), Binomial(9).log_density(counts, H, NONE))
    with pytest.raises(InputError, match="trials=10"):
        pairs.sample(H, NONE)


def test_a_negative_binomial_of_large_size_is_poisson():
    y = tensor([0.0, 1.0, 7.0, 300.0])
    for log_size in (35.0, 80.0, 300.0, 700.0):
        size = torch.full((3,), log_size, dtype=torch.float64)
        for name in ("log_density", "distribution_function"):
            ours = getattr(NegativeBinomial(), name)(y, H, size)
            torch.testing.assert_close(ours, getattr(Poisson(), name)(y, H, NONE), rtol=1e-10, atol=1e-12)
        level = tensor([0.01, 0.6, 0.999])
        ours = NegativeBinomial().quantile(level, H, size)
        torch.testing.assert_close(ours, Poisson().quantile(level, H, NONE), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("log_size", [-30.0, -3.0, 2.0, 2.9, 9.0, 23.0, 45.0])
def test_the_negative_binomial_keeps_its_digits_at_every_size(log_size):
    """Against 60 digits, with the derivative in the log size, which a fit follows to infinity."""

    def exact(y, h, s):
        r, mean = mpmath.exp(s), mpmath.exp(h)
        choices = mpmath.loggamma(y + r) - mpmath.loggamma(r) - mpmath.loggamma(y + 1)
        return choices + r * mpmath.log(r / (r + mean)) + y * mpmath.log(mean / (r + mean))

    with mpmath.workdps(60):
        for y in (0, 1, 6, 400):
            s = tensor([log_size]).requires_grad_()
            density = NegativeBinomial().log_density(tensor([y]), tensor([1.25]), s)
            (slope,) = torch.autograd.grad(density.sum(), s)
            assert density.item() == pytest.approx(
                float(exact(y, mpmath.mpf(1.25), mpmath.mpf(log_size))), rel=1e-12, abs=1e-15
            )
            derivative = mpmath.diff(lambda t, y=y: exact(y, mpmath.mpf(1.25), t), mpmath.mpf(log_size))
            assert slope.item() == pytest.approx(float(derivative), rel=1e-6, abs=1e-13 * (1 + y))


def test_the_negative_binomial_distribution_function_sums_the_density_at_every_size():
    y = torch.arange(0.0, 40.0).double()
    for log_size in (-250.0, -100.0, -20.0, -2.0, 2.0, 20.0, 250.0):
        size = torch.full((3,), log_size, dtype=torch.float64)
        summed = NegativeBinomial().log_density(y, H, size).exp().cumsum(0)
        torch.testing.assert_close(NegativeBinomial().distribution_function(y, H, size), summed, rtol=1e-9, atol=0.0)


def test_many_degrees_of_freedom_are_gaussian():
    y, log_sigma = tensor([-30.0, -1.0, 0.0, 2.5]), tensor([0.4, -0.2, 0.0])
    expected = Gaussian().log_density(y, H, log_sigma)
    for df in (1e13, 1e20, 1e200):
        torch.testing.assert_close(StudentT(df).log_density(y, H, log_sigma), expected, rtol=1e-9, atol=0.0)
    torch.testing.assert_close(StudentT(1e20).variance(H, log_sigma), Gaussian().variance(H, log_sigma))
    draws = StudentT(1e20).sample(tensor([0.0]).expand(20_000, 1), tensor([0.0]), torch.Generator().manual_seed(1))
    assert abs(draws.var().item() - 1.0) < 5.0 * math.sqrt(2.0 / 20_000)


def test_fixed_and_free_degrees_of_freedom_agree():
    y, log_sigma = tensor([-3.0, 0.2]), tensor([0.4, -0.2, 0.0])
    free = torch.stack([log_sigma, torch.full((3,), math.log(4.5), dtype=torch.float64)], -1)
    for name in ("log_density", "distribution_function"):
        torch.testing.assert_close(getattr(StudentT(), name)(y, H, free), getattr(StudentT(4.5), name)(y, H, log_sigma))
    torch.testing.assert_close(StudentT().natural_dispersion(free)[:, 0], log_sigma.exp())
    assert StudentT(4.5).natural_dispersion(log_sigma).shape == (3, 1)


def test_a_far_outlier_under_t_does_not_overflow():
    h = tensor([0.0]).requires_grad_()
    density = StudentT(3.0).log_density(tensor([1e250]), h, tensor([0.0]))
    # Far out the density is C |y|^-4 with C = 3² Γ(2)/(Γ(3/2) √(3π)) for three degrees of freedom.
    constant = 2.0 * math.log(3.0) + gammaln(2.0) - gammaln(1.5) - 0.5 * math.log(3.0 * math.pi)
    assert density.item() == pytest.approx(constant - 4.0 * 250.0 * math.log(10.0), rel=1e-13)
    assert torch.autograd.grad(density.sum(), h)[0].item() == pytest.approx(4e-250)


def test_quantiles_of_heavy_tails_reach_as_far_as_numbers_do():
    for df, level in ((0.3, 1e-8), (1.0, 1e-200), (2.5, 1e-30), (2.5, 1e-300), (40.0, 1e-300)):
        found = StudentT(df).quantile(tensor([level]), tensor([0.0]), tensor([0.0])).item()
        with mpmath.workdps(40):
            nu, z = mpmath.mpf(df), mpmath.mpf(found)
            below = mpmath.betainc(nu / 2, mpmath.mpf(0.5), 0, nu / (nu + z * z), regularized=True) / 2
        assert found < 0.0
        assert float(below / level) == pytest.approx(1.0, rel=1e-9)
    upper = StudentT(0.3).quantile(tensor([1.0 - 2.0**-53]), tensor([0.0]), tensor([0.0])).item()
    lower = StudentT(0.3).quantile(tensor([2.0**-53]), tensor([0.0]), tensor([0.0])).item()
    assert upper == pytest.approx(-lower, rel=1e-12)


@pytest.mark.parametrize("log_shape", [-20.0, 0.3, 2.8, 12.0, 30.0])
def test_the_gamma_density_keeps_its_digits_at_every_shape(log_shape):
    with mpmath.workdps(60):
        a = mpmath.exp(mpmath.mpf(log_shape))
        for step in (-3.0, 0.4, 5.0):
            y = math.exp(1.5) * (1.0 + step * math.exp(-0.5 * max(log_shape, 5.0)))
            ratio = mpmath.log(mpmath.mpf(y)) - mpmath.mpf(1.5)
            exact = a * mpmath.log(a) - mpmath.loggamma(a) + a * (ratio - mpmath.exp(ratio)) - mpmath.log(mpmath.mpf(y))
            ours = Gamma().log_density(tensor([y]), tensor([1.5]), tensor([log_shape])).item()
            # The logarithm of y is rounded, and the density feels that through the square root of the shape.
            assert ours == pytest.approx(float(exact), rel=1e-12, abs=1e-14 * math.exp(0.5 * log_shape))


def test_stirling_and_the_increment_of_log_gamma_are_exact():
    with mpmath.workdps(60):
        for a in (1e-30, 0.3, 15.999999, 16.0, 16.5, 1e3, 1e9, 1e20):
            exact = mpmath.loggamma(mpmath.mpf(a)) - mpmath.mpf(a) * (mpmath.log(mpmath.mpf(a)) - 1)
            assert stirling_rest(tensor(a)).item() == pytest.approx(float(exact), rel=1e-13, abs=1e-15)
            for y in (0.0, 0.5, 1.0, 1000.0):
                big, step = mpmath.mpf(a), mpmath.mpf(y)
                exact = mpmath.loggamma(big + step) - mpmath.loggamma(big) - step * mpmath.log(big)
                ours = log_gamma_increment(tensor(a), tensor(y)).item()
                assert ours == pytest.approx(float(exact), rel=1e-12, abs=1e-15 * (10.0 + y))


def test_incomplete_gamma_of_large_shapes_has_right_tails():
    """SciPy's own stops its series early there; references by numerical integration with 30 digits."""
    with mpmath.workdps(30):
        for a in (2e6, 1e9, 1e13):
            for z in (-9.0, -5.0, 5.0, 9.0):
                ratio = 1.0 + z / math.sqrt(a)
                big, start = mpmath.mpf(a), mpmath.mpf(ratio)

                def density(u, big=big):
                    return mpmath.exp(big * (mpmath.log(u) - u + 1) - mpmath.log(u))

                scale = mpmath.exp(big * mpmath.log(big) - big - mpmath.loggamma(big))
                far = start + mpmath.sign(z) * 25 / mpmath.sqrt(big)
                points = mpmath.linspace(start, far, 9)
                tail = abs(mpmath.quad(density, points)) * scale
                ours = gamma_below(np.array([a]), np.array([ratio]), upper=z > 0.0)[0]
                # Near 1 a ratio has 16 digits, which leaves z²/2 with an error of z √a units of rounding.
                assert ours == pytest.approx(float(tail), rel=1e-8)
                if z < 0.0:
                    found = gamma_quantile(np.array([a]), np.array([float(tail)]))[0]
                    assert found == pytest.approx(ratio, abs=1e-3 * abs(z) ** 5 * a**-2.5 + 1e-14)


def test_counts_beyond_all_integers_still_have_quantiles():
    location = tensor([math.log(1e8), math.log(1e20), 400.0])
    found = Poisson().quantile(tensor([0.5]), location, NONE)[0]
    torch.testing.assert_close(found, Poisson().mean(location, NONE), rtol=1e-7, atol=0.0)


def test_classes_are_softmax_with_the_last_logit_zero():
    family = Categorical(4)
    _, location, none = random_problem(family)
    full = np.concatenate([location.numpy(), np.zeros((5, 3, 1))], -1)
    probabilities = softmax(full, axis=-1)
    np.testing.assert_allclose(family.mean(location, none).numpy(), probabilities, rtol=1e-13)
    np.testing.assert_allclose(family.variance(location, none).numpy(), probabilities * (1 - probabilities), rtol=1e-12)
    for code in range(4):
        y = torch.full((5,), float(code), dtype=torch.float64)
        ours = family.log_density(y, location, none).numpy()
        np.testing.assert_allclose(ours, np.log(probabilities[..., code]), rtol=1e-12)
    score = np.eye(4)[:, None, None, :3] - probabilities[None, ..., :3]
    information = np.einsum("nkc,cnki,cnkj->nkij", probabilities, score, score)
    np.testing.assert_allclose(family.information(location, none).numpy(), information, rtol=1e-12, atol=1e-15)
    y = torch.arange(4).double()
    for far in (40.0, 300.0):
        # All but the first class together have the probability 3 exp(−far), and so has the score.
        h = tensor([[far, 0.0, 0.0]]).requires_grad_()
        density = family.log_density(y[:1], h, none[:1])
        assert density.item() == pytest.approx(-3.0 * math.exp(-far), rel=1e-12, abs=0.0)
        assert torch.autograd.grad(density.sum(), h)[0][0, 0].item() == pytest.approx(3.0 * math.exp(-far), rel=1e-12)
    outside = family.log_density(tensor([4.0, -1.0, 0.5, math.nan, 1e30]), location, none)
    assert (outside == -math.inf).all()
    assert family.output_names("y") == ["y=0", "y=1", "y=2"]


def test_class_samples_follow_the_probabilities():
    location = tensor([[0.5, -1.0], [-50.0, 50.0], [3.0, 3.0]])
    family, n = Categorical(3), 20_000
    draws = family.sample(location.expand(n, 3, 2), NONE, torch.Generator().manual_seed(8))
    probabilities = family.mean(location, NONE)
    share = torch.stack([(draws == code).double().mean(0) for code in range(3)], -1)
    allowed = 5.0 * torch.sqrt(probabilities * (1.0 - probabilities) / n) + 1e-12
    assert ((share - probabilities).abs() <= allowed).all()
    assert torch.equal(draws, family.sample(location.expand(n, 3, 2), NONE, torch.Generator().manual_seed(8)))


def _covariance(family, row):
    e = family.n_targets
    factor = np.diag(np.exp(row[:e]))
    factor[np.tril_indices(e, -1)] = row[e:]
    return factor @ factor.T


@pytest.mark.parametrize("e", [2, 4])
def test_vectors_equal_scipys_multivariate_normal(e):
    family = MultivariateGaussian(e)
    y, location, log_scale = random_problem(family)
    sigma = [_covariance(family, row) for row in log_scale.numpy()]
    theirs = np.array(
        [
            [stats.multivariate_normal(h, s).logpdf(v) for h, s in zip(row, sigma, strict=True)]
            for v, row in zip(y.numpy(), location.numpy(), strict=True)
        ]
    )
    np.testing.assert_allclose(family.log_density(y, location, log_scale).numpy(), theirs, rtol=1e-11)
    np.testing.assert_allclose(family.covariance_matrix(log_scale).numpy(), sigma, rtol=1e-13)
    np.testing.assert_allclose(family.variance(location, log_scale)[0].numpy(), [np.diag(s) for s in sigma], rtol=1e-13)
    information = family.information(location, log_scale)[2].numpy()
    np.testing.assert_allclose(information, np.linalg.inv(sigma), rtol=1e-9)
    natural = family.natural_dispersion(log_scale).numpy()
    for row, s in zip(natural, sigma, strict=True):
        deviation = np.sqrt(np.diag(s))
        correlation = s / np.outer(deviation, deviation)
        np.testing.assert_allclose(row, [*deviation, *correlation[np.tril_indices(e, -1)]], rtol=1e-11, atol=1e-14)
    assert family.dispersion_terms()[: e + 1][-2:] == [(f"scale[{e - 1}]", True), ("correlation[0,1]", False)]


def test_a_diagonal_covariance_is_a_full_one_without_correlations_and_a_product_of_gaussians():
    full, diagonal = MultivariateGaussian(3), MultivariateGaussian(3, "diagonal")
    y, location, log_scale = random_problem(diagonal)
    padded = torch.cat([log_scale, torch.zeros(3, 3, dtype=torch.float64)], -1)
    ours = diagonal.log_density(y, location, log_scale)
    torch.testing.assert_close(ours, full.log_density(y, location, padded))
    product = sum(Gaussian().log_density(y[:, j], location[..., j], log_scale[:, j]) for j in range(3))
    torch.testing.assert_close(ours, product)
    for name in ("variance", "information"):
        one, other = (getattr(f, name)(location, s) for f, s in ((diagonal, log_scale), (full, padded)))
        torch.testing.assert_close(one, other)


def test_vector_samples_have_the_covariance():
    family, n = MultivariateGaussian(2), 20_000
    log_scale = tensor([[0.5, -0.3, 1.1]])
    draws = family.sample(tensor([[1.0, -2.0]]).expand(n, 1, 2), log_scale, torch.Generator().manual_seed(3))[:, 0]
    sigma = family.covariance_matrix(log_scale)[0]
    # Var of an entry of the sample covariance is (σᵢᵢ σⱼⱼ + σᵢⱼ²)/n.
    error = torch.sqrt((torch.outer(sigma.diag(), sigma.diag()) + sigma**2) / n)
    assert ((torch.cov(draws.T) - sigma).abs() < 5.0 * error).all()
    assert ((draws.mean(0) - tensor([1.0, -2.0])).abs() < 5.0 * torch.sqrt(sigma.diag() / n)).all()


def test_the_start_of_vectors_is_their_covariance_even_where_columns_depend_on_each_other():
    y = torch.randn(50, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) @ tensor(
        [[1.0, 2.0, 0.0], [0.0, 1.0, 3.0], [0.0, 0.0, 0.5]]
    )
    weight = torch.linspace(0.0, 1.0, 50, dtype=torch.float64)
    family = MultivariateGaussian(3)
    location, log_scale = family.moment_start(y, weight)
    np.testing.assert_allclose(location.numpy(), np.average(y.numpy(), axis=0, weights=weight), rtol=1e-12)
    theirs = np.cov(y.T.numpy(), aweights=weight.numpy(), ddof=0)
    np.testing.assert_allclose(family.covariance_matrix(log_scale[None])[0].numpy(), theirs, rtol=1e-6, atol=1e-7)
    dependent = torch.stack([y[:, 0], 2.0 * y[:, 0], torch.full((50,), 4.0).double()], -1)
    _, log_scale = family.moment_start(dependent, weight)
    natural = family.natural_dispersion(log_scale[None])[0]
    assert natural[2].item() == pytest.approx(1.0)
    assert natural[3].item() == pytest.approx(1.0, abs=1e-6)
    assert natural[4:].abs().max().item() < 1e-12
