"""Maxima at kinks: known functions, least absolute deviations by linear programming, ReLU experts, Laplace gates."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from gatewise.experts import LinearExperts, build_experts
from gatewise.families import Gaussian, Laplace
from gatewise.fit import FitOptions, FitStatus, fit
from gatewise.fit.bounds import Bounds
from gatewise.fit.build import build_problem
from gatewise.fit.gradient_sampling import gradient_sampling, has_kink, shortest_in_hull
from gatewise.fit.monitor import Monitor, SolverStopped
from gatewise.fit.rows import checked_rows
from gatewise.fit.start import run_start
from gatewise.gates import LaplaceGate, SoftmaxGate
from gatewise.inference import Names, parameter_table
from gatewise.model import MixtureOfExperts


class Function:
    """A function with gradient and Hessian of the piece at hand."""

    def __init__(self, value, gradient, hessian, size, lower=-np.inf, upper=np.inf):
        self.parts = value, gradient, hessian
        self.bounds = Bounds(np.full(size, lower), np.full(size, upper))

    def value_and_gradient(self, theta):
        return self.parts[0](theta), np.array(self.parts[1](theta), dtype=float)

    def hessian(self, theta):
        return np.array(self.parts[2](theta), dtype=float)

    exact_hessian = hessian

    def bend(self, theta, hessian):
        return hessian

    def information_at_kink(self, theta):
        return np.eye(len(theta))


def climb(function, theta):
    monitor = Monitor(300)
    found = gradient_sampling(function, np.array(theta, dtype=float), monitor, 1e-8, np.random.default_rng(0))
    assert (np.diff(monitor.trace) >= -1e-14).all()
    return found


PYRAMID = Function(
    lambda t: -abs(t[0] - 1.0) - 2.0 * abs(t[1] + 3.0) - (t[2] - t[0]) ** 2,
    lambda t: [-np.sign(t[0] - 1.0) + 2.0 * (t[2] - t[0]), -2.0 * np.sign(t[1] + 3.0), -2.0 * (t[2] - t[0])],
    lambda t: [[-2.0, 0.0, 2.0], [0.0, 0.0, 0.0], [2.0, 0.0, -2.0]],
    3,
)
# The kink is the parabola y = x², along which the maximum is to be found.
VALLEY = Function(
    lambda t: -8.0 * abs(t[1] - t[0] ** 2) - (1.0 - t[0]) ** 2,
    lambda t: [16.0 * t[0] * np.sign(t[1] - t[0] ** 2) + 2.0 * (1.0 - t[0]), -8.0 * np.sign(t[1] - t[0] ** 2)],
    lambda t: [[16.0 * np.sign(t[1] - t[0] ** 2) - 2.0, 0.0], [0.0, 0.0]],
    2,
)
# Its kink at 0 is a minimum along x.
UPWARD = Function(
    lambda t: abs(t[0]) - t[0] ** 2 - t[1] ** 2,
    lambda t: [np.sign(t[0]) - 2.0 * t[0], -2.0 * t[1]],
    lambda t: [[-2.0, 0.0], [0.0, -2.0]],
    2,
)
SMOOTH = Function(
    lambda t: -((t[0] - 1.0) ** 2) - 100.0 * (t[1] - t[0]) ** 2,
    lambda t: [-2.0 * (t[0] - 1.0) + 200.0 * (t[1] - t[0]), -200.0 * (t[1] - t[0])],
    lambda t: [[-202.0, 200.0], [200.0, -200.0]],
    2,
)


def test_shortest_vector_of_a_hull():
    weights, _ = shortest_in_hull(np.array([[2.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(weights, [0.2, 0.8], atol=1e-12)
    around = np.array([[1.0, -1.0, 0.0], [-1.0, -1.0, 1.0]]) * 1e-5
    weights, _ = shortest_in_hull(around)
    np.testing.assert_allclose(around @ weights, 0.0, atol=1e-18)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-14)


def test_shortest_vector_with_a_cone_that_takes_a_part_away():
    weights, push = shortest_in_hull(np.array([[-3.0], [4.0]]), np.array([[0.5], [0.0]]))
    np.testing.assert_allclose(weights, [1.0])
    np.testing.assert_allclose(push, [6.0])
    _, push = shortest_in_hull(np.array([[3.0], [4.0]]), np.array([[0.5], [0.0]]))
    np.testing.assert_allclose(push, [0.0])


@pytest.mark.parametrize(
    ("function", "start", "end"),
    [
        (PYRAMID, [0.3, 0.7, -2.0], [1.0, -3.0, 1.0]),
        (VALLEY, [-1.0, 2.0], [1.0, 1.0]),
        (SMOOTH, [-5.0, 3.0], [1.0, 1.0]),
    ],
)
def test_known_maxima(function, start, end):
    theta, status, slope = climb(function, start)
    assert status is FitStatus.CONVERGED
    assert slope <= 1e-8
    np.testing.assert_allclose(theta, end, atol=1e-7)


def test_a_kink_that_opens_upward_is_left():
    theta, status, _ = climb(UPWARD, [1e-9, 0.4])
    assert status is FitStatus.CONVERGED
    np.testing.assert_allclose(np.abs(theta), [0.5, 0.0], atol=1e-7)


def test_bounds_hold_and_their_push_is_not_a_slope():
    bounded = Function(*PYRAMID.parts, 3, lower=-1.0)
    theta, status, slope = climb(bounded, [0.3, 0.7, 0.0])
    assert status is FitStatus.CONVERGED
    assert slope <= 1e-8
    np.testing.assert_allclose(theta, [1.0, -1.0, 1.0], atol=1e-7)


def test_the_monitor_ends_it():
    monitor = Monitor(2)
    with pytest.raises(SolverStopped):
        gradient_sampling(VALLEY, np.array([-1.0, 2.0]), monitor, 1e-8, np.random.default_rng(0))
    assert monitor.n_iterations == 2


def laplace_table(seed, n=300):
    generator = np.random.default_rng(seed)
    x = generator.uniform(-1.0, 1.0, size=(n, 2))
    first = generator.uniform(size=n) < 1.0 / (1.0 + np.exp(-1.0 - 2.0 * x[:, 0]))
    y = np.where(first, 1.0 + x @ [1.0, 2.0], -1.0 - x @ [2.0, 0.5]) + 0.3 * generator.laplace(size=n)
    return x, y


def laplace_mixture(k, d=2):
    return MixtureOfExperts(SoftmaxGate(d if k > 1 else 0, k), LinearExperts(d, k), Laplace())


@pytest.mark.parametrize("seed", range(3))
def test_one_expert_is_least_absolute_deviations(seed):
    x, y = laplace_table(seed)
    weight = np.random.default_rng(seed).integers(1, 4, size=len(y)).astype(float)
    result = fit(laplace_mixture(1), x, y, sample_weight=weight)
    design = np.column_stack([np.ones(len(y)), x])
    programme = linprog(
        np.concatenate([np.zeros(3), weight, weight]),
        A_eq=np.hstack([design, np.eye(len(y)), -np.eye(len(y))]),
        b_eq=y,
        bounds=[(None, None)] * 3 + [(0.0, None)] * (2 * len(y)),
    )
    scale = programme.fun / weight.sum()
    assert result.status is FitStatus.CONVERGED
    assert result.relative_gradient <= 1e-8
    assert result.log_likelihood == pytest.approx(-weight.sum() * (np.log(2.0 * scale) + 1.0), abs=1e-6)
    deviations = np.abs(y - result.model.mean(torch.from_numpy(x)).numpy())
    assert weight @ deviations == pytest.approx(programme.fun, rel=1e-9)


def test_two_laplace_experts_end_at_one_kink_from_every_start():
    x, y = laplace_table(0)
    result = fit(laplace_mixture(2), x, y, options=FitOptions(n_starts=4))
    assert result.status is FitStatus.WEAK_SEARCH
    assert "at a kink" in result.findings[0].message
    assert result.findings[0].evidence["at_kink"]
    assert len(result.optima) == 1
    assert [record.status for record in result.starts] == [FitStatus.CONVERGED] * 4
    assert result.relative_gradient <= 1e-8
    assert (np.diff(result.trace) >= -1e-12).all()
    # Locations of an expert are determined by as many rows without a residual as they have coefficients.
    location = result.model.experts(torch.from_numpy(x))[0].numpy()
    assert (np.abs(y[:, None] - location) < 1e-9).sum(axis=0).tolist() == [3, 3]


def test_the_same_seed_gives_the_same_bits():
    x, y = laplace_table(1)
    one, other = (fit(laplace_mixture(2), x, y, options=FitOptions(n_starts=1, seed=3)) for _ in range(2))
    np.testing.assert_array_equal(one.theta, other.theta)


def test_standard_errors_of_one_laplace_expert_are_those_of_the_asymptotic_formula():
    generator = np.random.default_rng(5)
    x = generator.normal(size=(2000, 2))
    y = 1.0 + x @ [2.0, -1.0] + 0.7 * generator.laplace(size=2000)
    result = fit(laplace_mixture(1), x, y)
    found = parameter_table(result, Names(["a", "b"], [], "y"))
    design = np.column_stack([np.ones(2000), x])
    scale = float(result.scale[0])
    expected = scale * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    # Rows without a residual have no score; there are 3 of 2000. Cross terms with the scale vanish on average only.
    np.testing.assert_allclose(found["standard_error"][:3], expected, rtol=5e-3)
    assert found["standard_error"][3] == pytest.approx(scale / np.sqrt(2000.0), rel=0.1)


def problem_of(model, x, y):
    return build_problem(model, checked_rows(model, x, y, None, None), FitOptions())


def relu_problem(seed):
    generator = np.random.default_rng(seed)
    x = generator.uniform(-1.0, 1.0, size=(200, 1))
    first = generator.uniform(size=200) < 0.5
    bent = np.where(first, np.abs(2.0 * x[:, 0]), -1.0 - 2.0 * np.maximum(x[:, 0] - 0.3, 0.0))
    y = bent + 0.2 * generator.normal(size=200)
    experts = build_experts("feed_forward", 1, 2, hidden=2, activation="relu")
    return problem_of(MixtureOfExperts(SoftmaxGate(0, 2), experts, Gaussian()), x, y)


def laplace_gate_problem(seed):
    generator = np.random.default_rng(seed)
    x = generator.uniform(-8.0, 8.0, size=(200, 1))
    logits = -np.abs(x - [-4.0, 3.0]) + generator.gumbel(size=(200, 2))
    y = np.where(logits.argmax(1) == 0, 1.0 + x[:, 0] / 8.0, -1.0 - x[:, 0] / 8.0) + 0.3 * generator.normal(size=200)
    return problem_of(MixtureOfExperts(LaplaceGate(1, 2), LinearExperts(1, 2), Gaussian()), x, y)


def neighbours_gain(problem, theta, evaluations):
    """What no gradient is needed to find beside the end point: small simplexes and random points within 0.01.

    An end point is a maximum among its neighbours, no more: with units of a ReLU layer that are dead a simplex of size
    0.1 reaches other maxima, some of them higher.
    """

    def descent(point):
        inside = np.array_equal(problem.bounds.clip(point), point)
        value = problem.value_and_gradient(point)[0] if inside else -np.inf
        return -value if np.isfinite(value) else np.inf

    best = here = -descent(theta)
    for size in (1e-3, 1e-5):
        simplex = np.vstack([theta, theta + size * np.eye(len(theta))])
        options = {"initial_simplex": simplex, "maxfev": evaluations, "adaptive": True, "xatol": 1e-12, "fatol": 1e-15}
        best = max(best, -minimize(descent, theta, method="Nelder-Mead", options=options).fun)
    generator = np.random.default_rng(0)
    for radius in (1e-2, 1e-4, 1e-6):
        steps = generator.normal(size=(evaluations // 3, len(theta)))
        steps *= radius / np.linalg.norm(steps, axis=1, keepdims=True)
        best = max(best, -min(descent(theta + step) for step in steps))
    return (best - here) * problem.total_weight


BOWL = Function(
    lambda t: -50.0 * (t[0] - 1.0) ** 2 - 1e-3 * (t[1] + 2.0) ** 2 - (t[0] - 1.0) ** 4,
    lambda t: [-100.0 * (t[0] - 1.0) - 4.0 * (t[0] - 1.0) ** 3, -2e-3 * (t[1] + 2.0)],
    lambda t: [[-100.0 - 12.0 * (t[0] - 1.0) ** 2, 0.0], [0.0, -2e-3]],
    2,
)


@pytest.mark.parametrize(
    ("function", "theta", "kinked"),
    [
        (PYRAMID, [1.0, -3.0, 1.0], True),
        (PYRAMID, [1.5, -2.0, 1.0], False),
        (VALLEY, [1.0, 1.0], True),
        (VALLEY, [1.0, 0.5], False),
        # A smooth climb that stalled before its top has a gradient of its own, which bends as its Hessian says.
        (BOWL, [1.0 + 1e-7, -2.0], False),
        (BOWL, [1.3, 4.0], False),
    ],
)
@pytest.mark.parametrize("unit", [1.0, 1e3, 1e-3])
def test_a_gradient_that_jumps_is_told_from_one_that_bends(function, theta, kinked, unit):
    theta = unit * np.array(theta)
    assert has_kink(in_units(function, unit), theta, np.random.default_rng(0)) is kinked
    # A climb ends beside a kink: by less than its last radius, which has no unit but the information's.
    assert has_kink(in_units(function, unit), theta + unit * 1e-9, np.random.default_rng(0)) is kinked


def in_units(function, unit):
    """The function by t · unit; lengths by its information stay what they are."""
    value, gradient, hessian = function.parts
    rescaled = Function(
        lambda t: value(t / unit),
        lambda t: np.array(gradient(t / unit)) / unit,
        lambda t: np.array(hessian(t / unit)) / unit**2,
        len(function.bounds.lower),
    )
    rescaled.information_at_kink = lambda theta: np.eye(len(theta)) / unit**2
    return rescaled


@pytest.mark.parametrize("kind", [pytest.param("relu", marks=pytest.mark.slow), "laplace gate"])
def test_kinks_of_experts_and_gates(kind):
    problem = relu_problem(0) if kind == "relu" else laplace_gate_problem(0)
    end = run_start(problem, FitOptions(), 0)
    assert end.status is FitStatus.CONVERGED
    assert end.relative_gradient <= 1e-8
    assert neighbours_gain(problem, end.theta, 300) < 1e-7


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", ["laplace", "relu", "laplace gate"])
def test_no_neighbour_is_higher(kind, seed):
    problem = {
        "laplace": lambda: problem_of(laplace_mixture(2), *laplace_table(seed)),
        "relu": lambda: relu_problem(seed),
        "laplace gate": lambda: laplace_gate_problem(seed),
    }[kind]()
    for index in range(2):
        end = run_start(problem, FitOptions(), index)
        assert end.status is FitStatus.CONVERGED
        assert neighbours_gain(problem, end.theta, 3000) < 1e-6


@pytest.mark.slow
def test_intervals_of_laplace_experts_cover_the_truth():
    truth = np.array([[1.0, 1.0, 2.0], [-1.0, -2.0, -0.5]])
    hits = []
    for seed in range(100):
        x, y = laplace_table(seed, 1000)
        result = fit(laplace_mixture(2), x, y, options=FitOptions(n_starts=2))
        table = parameter_table(result, Names(["a", "b"], ["a", "b"], "y"))[3:9]
        upper_first = bool(result.model.experts.bias[0] > 0.0)
        expected = (truth if upper_first else truth[::-1]).ravel()
        hits.append((table["lower"] <= expected) & (expected <= table["upper"]))
    # 600 intervals at 95 %; as if independent, two standard errors are 1.8 %.
    assert np.mean(hits) == pytest.approx(0.95, abs=0.03)
