"""Experts that run away: every family's floor, floors that are too high, and rows that agree exactly."""

import dataclasses
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gatewise.experts import LinearExperts
from gatewise.families import (
    FAMILIES,
    Binomial,
    Categorical,
    Gamma,
    Gaussian,
    Laplace,
    MultivariateGaussian,
    StudentT,
)
from gatewise.fit import FitOptions, FitStatus, fit
from gatewise.fit.bounds import Bounds
from gatewise.fit.build import build_problem
from gatewise.fit.floors import settle_floors
from gatewise.fit.monitor import Monitor
from gatewise.fit.newton import newton
from gatewise.fit.quasi_newton import quasi_newton
from gatewise.fit.rows import checked_rows
from gatewise.fit.start import run_start
from gatewise.gates import GaussianGate, SoftmaxGate
from gatewise.model import MixtureOfExperts

FIELD = Path(__file__).parent / "field"
FLOORED = {
    "gaussian": Gaussian(),
    "student_t": StudentT(df=4.0),
    "laplace": Laplace(),
    "gamma": Gamma(),
    "multivariate_gaussian": MultivariateGaussian(2),
}


def mixture(family, d=1, k=2, gate=None):
    experts = LinearExperts(d, k, n_outputs=family.n_outputs, n_dispersion=family.n_dispersion)
    return MixtureOfExperts(SoftmaxGate(0, k) if gate is None else gate, experts, family)


def group(family, n, size, spread, seed=0, apart=0.0):
    """Rows of one expert, but for the first few, which agree with another one up to a spread; and whose they are.

    The other rows may stand apart in two halves, which makes them an ordinary mixture of their own.
    """
    generator = np.random.default_rng(seed)
    x, noise = generator.uniform(size=(n, 1)), generator.normal(size=n)
    own = np.arange(n) < size
    half = np.where(np.arange(n) % 2, apart, -apart)
    if isinstance(family, Gamma):
        y = np.exp(0.5 + x[:, 0] + half) * generator.gamma(4.0, 0.25, size=n)
        y[own] = np.exp(0.2 - 0.5 * x[own, 0] + spread * noise[own])
    elif isinstance(family, MultivariateGaussian):
        # Each column alone varies as much as in the other rows: what is narrow is a direction.
        y = generator.normal(size=(n, 2)) @ np.array([[1.0, 0.9], [0.0, 0.4]])
        y += 2.5 * half[:, None]
        y[own] = np.column_stack([noise[own], 1.0 - noise[own] + spread * generator.normal(size=size)])
    else:
        y = -1.0 - x[:, 0] + half + 0.6 * noise
        y[own] = 1.0 + 2.0 * x[own, 0] + spread * generator.normal(size=size)
    return x, y, np.column_stack([own, ~own]).astype(float)


def lines(step=1):
    table = pd.read_csv(FIELD / "two_precise_lines.csv").iloc[::step]
    return table[["x"]].to_numpy(), table["y"].to_numpy()


def constant_weights(model, x, y, options):
    return fit(model, x, y, gate_x=x[:, :0], options=options)


def codes(result):
    return [finding.code for finding in result.findings]


# --- what runs away


@pytest.mark.parametrize("family", FLOORED.values(), ids=FLOORED.keys())
def test_a_density_grows_as_the_inverse_of_each_spread(family):
    """At its centre, where log f = −Σ log spread + a constant, so that a factor of 1000 is log 1000 more."""
    spread = family.spread
    shape = (1,) if family.n_dispersion == 1 else (1, family.n_dispersion)
    narrow = torch.zeros(shape, dtype=torch.float64)
    narrow.reshape(1, -1)[0, : spread.count] = math.log(1e-4) / spread.power
    narrower = narrow.clone()
    narrower.reshape(1, -1)[0, : spread.count] = math.log(1e-7) / spread.power
    location = torch.zeros((1, *([2] if family.n_outputs == 2 else [])), dtype=torch.float64)
    y = torch.zeros(2, dtype=torch.float64) if family.event_size else torch.tensor(1.0 if family.log_link else 0.0)
    gained = family.log_density(y.double(), location, narrower) - family.log_density(y.double(), location, narrow)
    assert float(gained) == pytest.approx(spread.count * math.log(1000.0), rel=1e-8)
    ratio = spread.relative({"log_scale": narrower}, {"log_scale": narrow})
    assert ratio.tolist() == pytest.approx([1e-3], rel=1e-9)


def test_families_without_a_spread_have_probabilities_of_at_most_one():
    bounded = {name for name in FAMILIES if FAMILIES[name].is_discrete}
    assert bounded | FLOORED.keys() == set(FAMILIES)
    for family in (
        Binomial(trials=3),
        Categorical(3),
        *(FAMILIES[name]() for name in bounded - {"binomial", "categorical"}),
    ):
        assert family.spread is None


def test_the_narrowest_direction_counts_and_correlation_alone_does_not():
    family = MultivariateGaussian(2)

    def dispersions(covariance):
        factor = np.linalg.cholesky(covariance)
        return torch.tensor([[math.log(factor[0, 0]), math.log(factor[1, 1]), factor[1, 0]]])

    def relative(covariance, reference):
        parameters = {"log_scale": dispersions(covariance)}, {"log_scale": dispersions(reference)}
        return float(family.spread.relative(*parameters))

    correlated = np.array([[1.0, 0.9999], [0.9999, 1.0]])
    assert relative(correlated, correlated) == pytest.approx(1.0)
    narrow = np.diag(correlated.diagonal()) * 1e-4 + (1.0 - 1e-4) * np.ones((2, 2))
    # By hand: the smallest generalised eigenvalue of (Σ, identity) is 1e-4.
    assert relative(narrow, np.eye(2)) == pytest.approx(1e-2, rel=1e-6)
    mixing = np.array([[2.0, 0.3], [-0.7, 0.4]])
    assert relative(mixing @ narrow @ mixing.T, mixing @ mixing.T) == pytest.approx(1e-2, rel=1e-6)


# --- bounds


def test_bounds_by_their_properties(generator):
    lower = np.where(generator.uniform(size=40) < 0.5, generator.normal(size=40), -np.inf)
    upper = np.where(generator.uniform(size=40) < 0.5, np.maximum(lower, -2.0) + generator.uniform(size=40), np.inf)
    bounds = Bounds(lower, upper)
    point = bounds.clip(3.0 * generator.normal(size=40))
    gradient = generator.normal(size=40)
    # The projected gradient is where a short step along the gradient leads that stays within.
    moved = bounds.clip(point + 1e-6 * gradient) - point
    np.testing.assert_allclose(bounds.projected(point, gradient), moved / 1e-6, atol=1e-8)
    assert bounds.held(point).any()
    for inward in bounds.inward(point).T:
        np.testing.assert_array_equal(bounds.clip(point + 1e-6 * inward), point + 1e-6 * inward)
        assert not np.array_equal(bounds.clip(point - 1e-6 * inward), point - 1e-6 * inward)
    slopes, limits = bounds.as_inequalities(point)
    for step in 0.3 * generator.normal(size=(50, 40)):
        inside = np.allclose(bounds.clip(point + step), point + step, atol=1e-12)
        assert inside == bool((slopes @ step >= limits - 1e-12).all())


class Bowl:
    """−½ ‖θ − c‖² within bounds, whose maximum is c clipped."""

    def __init__(self, centre, bounds):
        self.centre, self.bounds = centre, bounds

    def value_and_gradient(self, theta):
        return -0.5 * float((theta - self.centre) @ (theta - self.centre)), self.centre - theta

    def hessian(self, theta):
        return -np.eye(len(theta))


@pytest.mark.parametrize("solver", [newton, quasi_newton])
def test_solvers_stop_at_bounds_on_either_side(solver):
    bounds = Bounds(np.array([0.0, -np.inf, 0.0, -np.inf]), np.array([np.inf, 1.0, 1.0, np.inf]))
    bowl = Bowl(np.array([-1.0, 2.0, 0.4, 5.0]), bounds)
    found, status = solver(bowl, np.full(4, 0.5), Monitor(100), 1e-10)
    assert status is FitStatus.CONVERGED
    np.testing.assert_allclose(found, [0.0, 1.0, 0.4, 5.0], atol=1e-9)


# --- few rows


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, id=name, marks=pytest.mark.slow if name == "multivariate_gaussian" else ())
        for name, family in FLOORED.items()
    ],
)
def test_an_expert_on_a_few_rows_is_stopped_and_does_not_win(family):
    """Six rows agree exactly: the start that gives them to one expert ends on the floor, higher, and is passed over."""
    x, y, shares = group(family, 60, 6, 0.0, apart=1.2)
    result = constant_weights(mixture(family), x, y, FitOptions(n_starts=3, init=shares))
    spike = result.starts[0]
    assert spike.status is FitStatus.ON_FLOOR
    assert spike.on_floor == (0,)
    assert not result.on_floor
    assert spike.log_likelihood > result.log_likelihood
    assert result.status is not FitStatus.ON_FLOOR
    assert not {FitStatus.FLOOR_LOWERED, FitStatus.TIED_ROWS} & set(codes(result))
    assert any(optimum.on_floor for optimum in result.optima)


@pytest.mark.parametrize("family", FLOORED.values(), ids=FLOORED.keys())
def test_a_narrow_expert_off_the_floor_is_reported_as_tight(family):
    x, y, shares = group(family, 60, 20, 3e-3)
    result = constant_weights(mixture(family), x, y, FitOptions(n_starts=1, init=shares))
    assert FitStatus.TIGHT in codes(result)
    assert not result.on_floor
    (tight,) = result.tight
    assert result.effective_rows[tight] == pytest.approx(20.0, abs=1.0)
    message = next(finding.message for finding in result.findings if finding.code is FitStatus.TIGHT)
    assert f"{family.spread.name} = 0." in message


# --- many rows


@pytest.mark.parametrize("family", FLOORED.values(), ids=FLOORED.keys())
def test_rows_that_agree_exactly_are_counted(family):
    x, y, shares = group(family, 60, 20, 0.0)
    result = constant_weights(mixture(family), x, y, FitOptions(n_starts=1, init=shares))
    assert result.status is FitStatus.ON_FLOOR
    finding = result.findings[0]
    assert "20 rows agree exactly." in finding.message
    assert finding.evidence["scale_floor"] == 1e-3
    assert finding.evidence["agreement"]["within"] == 0.0


def test_rows_that_agree_exactly_are_told_beside_an_estimate_that_is_off_the_floor():
    """One start in five finds a maximum off the floor: it wins, and the start that is higher is named."""
    x, y, shares = group(Gaussian(), 100, 30, 0.0, seed=3)
    y[:30] += np.where(np.arange(30) < 18, 0.0, 0.8)
    shares = np.column_stack([np.arange(100) < 18, np.arange(100) >= 18]).astype(float)
    result = constant_weights(mixture(Gaussian()), x, y, FitOptions(n_starts=12, init=shares))
    assert not result.on_floor
    told = next(finding for finding in result.findings if finding.code is FitStatus.TIED_ROWS)
    assert "18 rows agree exactly" in told.message
    assert result.status is not FitStatus.TIED_ROWS


@pytest.mark.parametrize(
    ("family", "spread", "floor"),
    [(Gaussian(), 3e-5, 1e-5), pytest.param(Laplace(), 1e-4, 1e-5, marks=pytest.mark.slow)],
)
def test_rows_that_agree_too_closely_for_the_tolerance_are_named_and_the_remedy_works(family, spread, floor):
    x, y, shares = group(family, 60, 20, spread)
    options = FitOptions(n_starts=1, init=shares)
    result = constant_weights(mixture(family), x, y, options)
    assert result.status is FitStatus.ON_FLOOR
    message = result.findings[0].message
    assert "20 rows agree to within" in message
    assert f"set scale_floor={floor:g} and a larger tol" in message
    followed = dataclasses.replace(options, scale_floor=floor, tol=1e-6)
    remedied = constant_weights(mixture(family), x, y, followed)
    assert remedied.status is FitStatus.TIGHT
    assert remedied.log_likelihood > result.log_likelihood


SMOOTH = {name: family for name, family in FLOORED.items() if family.is_smooth}


@pytest.mark.parametrize("family", SMOOTH.values(), ids=SMOOTH.keys())
def test_a_floor_that_is_too_high_is_lowered(family):
    """Twenty rows that agree to 3e-4 are an ordinary maximum, the same as with a lower floor from the beginning."""
    x, y, shares = group(family, 60, 20, 3e-4)
    options = FitOptions(n_starts=1, init=shares)
    result = constant_weights(mixture(family), x, y, options)
    assert not result.on_floor
    assert FitStatus.TIGHT in codes(result)
    lowered = next(finding for finding in result.findings if finding.code is FitStatus.FLOOR_LOWERED)
    assert "set scale_floor=0.0001 to run them with the new one" in lowered.message
    assert lowered.evidence == {"scale_floor": 1e-4, "asked": 1e-3}
    asked = constant_weights(mixture(family), x, y, dataclasses.replace(options, scale_floor=1e-4))
    assert FitStatus.FLOOR_LOWERED not in codes(asked)
    assert result.log_likelihood == pytest.approx(asked.log_likelihood, rel=1e-9)


def test_free_degrees_of_freedom_do_not_hide_the_scale():
    x, y, shares = group(StudentT(), 60, 20, 0.0)
    result = constant_weights(mixture(StudentT()), x, y, FitOptions(n_starts=1, init=shares))
    assert result.on_floor == (1,)
    assert "20 rows agree exactly." in result.findings[0].message


def test_the_gate_of_a_joint_model_has_a_floor_too():
    """Inputs that agree make the density of (x, y) unbounded: exactly, closely, and in a direction only."""
    generator = np.random.default_rng(1)
    own = np.arange(60) < 20
    x, noise = generator.normal(size=(60, 2)), generator.normal(size=20)
    y = np.where(own, 1.0, -1.0) + 0.3 * generator.normal(size=60)
    model = mixture(Gaussian(), d=2, gate=GaussianGate(2, 2))
    options = FitOptions(n_starts=1, init=np.column_stack([own, ~own]).astype(float))
    x[own, 0] = 0.3 + 0.5 * x[own, 1]
    exact = fit(model, x, y, options=options)
    assert exact.status is FitStatus.ON_FLOOR
    assert "standard deviation of the inputs in some direction on the floor" in exact.findings[0].message
    assert "20 rows agree exactly" in exact.findings[0].message
    x[own, 0] += 3e-4 * noise
    close = fit(model, x, y, options=options)
    assert not close.on_floor
    assert FitStatus.FLOOR_LOWERED in codes(close)
    assert FitStatus.TIGHT in codes(close)


# --- the search as a whole


@pytest.mark.parametrize(("k", "best"), [(2, 1128.99888), (3, 3992.35910)])
def test_two_precise_lines(k, best):
    x, y = lines()
    result = constant_weights(mixture(Gaussian(), k=k), x, y, FitOptions())
    assert result.log_likelihood == pytest.approx(best, abs=2e-5)
    assert codes(result) == [FitStatus.TIGHT, FitStatus.FLOOR_LOWERED]
    assert not any(start.on_floor for start in result.starts)
    precise = np.sort(result.effective_rows[list(result.tight)])
    np.testing.assert_allclose(precise, [721.4] if k == 2 else [479.7, 721.5], atol=0.1)


def test_a_few_rows_never_win_also_where_the_floor_is_lowered():
    """Under the new floor the start that the old one held would count as interior: it stays marked."""
    x, y = lines(8)
    y = y.copy()
    shares = np.zeros((len(y), 2))
    chosen = np.argsort(-y)[:4]
    y[chosen] = y[chosen].mean() + 2.0 * x[chosen, 0]
    shares[:, 0] = 1.0
    shares[chosen] = [0.0, 1.0]
    options = FitOptions(n_starts=4, init=shares)
    result = constant_weights(mixture(Gaussian()), x, y, options)
    assert FitStatus.FLOOR_LOWERED in codes(result)
    assert result.starts[0].status is FitStatus.ON_FLOOR
    assert result.starts[0].on_floor == (1,)
    assert not result.on_floor
    assert result.effective_rows.min() > 50.0
    assert sum(bool(optimum.on_floor) for optimum in result.optima) == 1
    assert result.optima[-1].effective_rows.min() == pytest.approx(4.0, abs=0.1)


@pytest.mark.slow
def test_the_floor_is_lowered_alike_whatever_the_number_of_workers():
    x, y = lines(8)
    one, two = (constant_weights(mixture(Gaussian()), x, y, FitOptions(n_starts=4, n_jobs=n)) for n in (1, 2))
    assert FitStatus.FLOOR_LOWERED in codes(one)
    assert one.log_likelihood == two.log_likelihood
    np.testing.assert_array_equal(one.theta, two.theta)


def test_a_shared_scale_is_lowered_too():
    generator = np.random.default_rng(0)
    x = generator.uniform(size=(120, 1))
    y = np.where(np.arange(120) < 60, 1.0 + 2.0 * x[:, 0], -x[:, 0]) + 5e-4 * generator.normal(size=120)
    model = MixtureOfExperts(SoftmaxGate(0, 2), LinearExperts(1, 2, shared_scale=True), Gaussian())
    result = constant_weights(model, x, y, FitOptions(n_starts=4))
    assert FitStatus.FLOOR_LOWERED in codes(result)
    assert result.scale == pytest.approx([5e-4, 5e-4], rel=0.2)


def test_a_time_limit_ends_the_lowering_and_is_told():
    x, y = lines(8)
    model, options = mixture(Gaussian()), FitOptions(n_starts=2)
    problem = build_problem(model, checked_rows(model, x, y, x[:, :0], None), options)
    ends = [run_start(problem, options, index) for index in range(2)]
    assert any(end.on_floor for end in ends)
    settled = settle_floors(problem, options, ends, deadline=time.monotonic() - 1.0)
    assert not settled.is_lowered
    assert FitStatus.TIME_LIMIT in {end.status for end in settled.ends}


# --- gamma in the field


def gamma_case(name):
    case = np.load(FIELD / f"{name}.npz")
    x, k = case["X"], int(case["k"])
    return MixtureOfExperts(SoftmaxGate(x.shape[1], k), LinearExperts(x.shape[1], k), Gamma()), x, case["y"]


@pytest.mark.parametrize("n_starts", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_gamma_26(n_starts):
    result = fit(*gamma_case("gamma_26"), options=FitOptions(n_starts=n_starts))
    assert result.log_likelihood >= -2208.66
    assert float(result.model.experts.log_scale.exp().max()) < 1e4


@pytest.mark.slow
def test_gamma_32():
    result = fit(*gamma_case("gamma_32"), options=FitOptions())
    narrowest = float((-0.5 * result.model.experts.log_scale).exp().min())
    assert not (result.status is FitStatus.CONVERGED and narrowest < 1e-3)
    assert not result.on_floor
