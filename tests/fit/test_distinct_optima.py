"""Which end point is kept, and which end points are one optimum."""

import itertools

import numpy as np
import pytest
import torch

from gatewise import MixtureOfExperts
from gatewise.fit import FitOptions, FitStatus, fit
from gatewise.fit.constraints import Constraints
from gatewise.fit.expert_order import ExpertOrders
from tests.helpers import mixture, simulate

GATE = np.array([[0.5, 3.0], [0.0, -1.0], [0.0, 0.0]])
EXPERTS = np.array([[1.0, 2.0], [-1.0, 0.0], [3.0, -1.0]])
SCALE = np.array([0.8, 0.8, 0.8])
X, Y, _ = simulate(np.random.default_rng(3), 90, GATE, EXPERTS, SCALE)


def moved(model, step):
    copy = mixture(1, 1, model.n_experts).double()
    copy.load_state_dict(model.state_dict())
    with torch.no_grad():
        copy.experts.bias += step
    return copy


@pytest.fixture(scope="module")
def interior():
    result = fit(mixture(1, 1, 3), X, Y, options=FitOptions(n_starts=12, seed=1))
    found = [optimum for optimum in result.optima if not optimum.on_floor]
    assert len(found) > 1
    return found


def test_what_is_no_first_order_point_does_not_win(interior):
    best, lesser = interior[0], interior[-1]
    options = FitOptions(n_starts=2, init=[moved(best.model, 0.02), lesser.model], max_iter=1, em_steps=0)
    result = fit(mixture(1, 1, 3), X, Y, options=options)
    unfinished, finished = result.starts
    assert (unfinished.status, finished.status) == (FitStatus.MAX_ITER, FitStatus.CONVERGED)
    assert unfinished.log_likelihood > finished.log_likelihood + 1.0
    assert result.log_likelihood == pytest.approx(lesser.log_likelihood, rel=1e-12)
    assert result.status not in (FitStatus.MAX_ITER, FitStatus.STALLED)
    gap = f"{unfinished.log_likelihood - finished.log_likelihood:.3g}"
    assert f"Start 1 ended {gap} higher, but at no first-order point (MAX_ITER)" in result.findings[0].message
    assert "raise max_iter" in result.findings[0].message


def test_without_a_first_order_point_the_best_of_the_rest(interior):
    near, nearer = moved(interior[0].model, 0.02), moved(interior[0].model, 0.01)
    options = FitOptions(n_starts=2, init=[near, nearer], max_iter=0, em_steps=0)
    result = fit(mixture(1, 1, 3), X, Y, options=options)
    assert result.status is FitStatus.MAX_ITER
    assert result.log_likelihood == max(start.log_likelihood for start in result.starts)
    assert "higher" not in result.findings[0].message


def orders_of(model):
    for order in itertools.permutations(range(3)):
        other = mixture(1, 1, 3).double()
        other.gate.assign_parameters(model.gate.permute(model.gate.own_parameters(), order))
        other.experts.assign_parameters(model.experts.permute(model.experts.own_parameters(), order))
        yield other


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_all_orders_of_the_experts_are_one_optimum(interior, dtype):
    starts = [order for optimum in interior[:2] for order in orders_of(optimum.model)]
    tol = 1e-8 if dtype == "float64" else 1e-3
    result = fit(mixture(1, 1, 3), X, Y, options=FitOptions(n_starts=12, init=starts, dtype=dtype, tol=tol, em_steps=0))
    assert [optimum.n_starts for optimum in result.optima] == [6, 6]


def tied_slopes(k):
    return Constraints(tied=[[("experts.weight", (i, 0)) for i in range(k)]])


@pytest.mark.parametrize("objective", ["likelihood", pytest.param("least_squares", marks=pytest.mark.slow)])
def test_three_tied_experts_are_one_optimum_in_canonical_order(objective):
    """Every start ended at one of six orders of the same experts, and each order was an optimum of its own."""
    parallel = np.column_stack([[2.0, -1.0, -4.0], np.ones(3)])
    x, y, _ = simulate(np.random.default_rng(5), 200, GATE, parallel, SCALE)
    # A start of least squares costs twelve of the likelihood.
    n_starts = 8 if objective == "likelihood" else 2
    options = FitOptions(n_starts=n_starts, constraints=tied_slopes(3), objective=objective)
    result = fit(mixture(1, 1, 3), x, y, options=options)
    best = result.optima[0]
    share = best.effective_rows / best.effective_rows.sum()
    assert (np.diff(share) <= 1e-9).all()
    weight = result.model.experts.weight
    torch.testing.assert_close(weight, weight[:1].expand_as(weight))
    others = [optimum.objective for optimum in result.optima[1:]]
    assert all(best.objective - other > 1e-6 * abs(best.objective) for other in others)
    if objective == "likelihood":
        assert best.n_starts >= 2


def test_experts_with_held_values_stay():
    """Expert 1 has its intercept held; the two others may change places."""
    parallel = np.column_stack([[2.0, -1.0, -4.0], np.ones(3)])
    x, y, _ = simulate(np.random.default_rng(5), 200, GATE, parallel, SCALE)
    model = mixture(1, 1, 3).double()
    with torch.no_grad():
        model.experts.bias[0] = -4.0
    held = Constraints(frozen={"experts.bias": [True, False, False]})
    result = fit(model, x, y, options=FitOptions(n_starts=6, constraints=held))
    assert float(result.model.experts.bias[0]) == -4.0
    assert result.effective_rows[1] >= result.effective_rows[2]


def test_a_held_reference_is_settled():
    """The last expert's gate row is held at 0, which any order of the experts leads back to."""
    held = Constraints(frozen={"gate.weight": [[False], [False], [True]], "gate.bias": [False, False, True]})
    result = fit(mixture(1, 1, 3), X, Y, options=FitOptions(n_starts=8, constraints=held))
    assert (np.diff(result.effective_rows) <= 1e-6).all()
    assert float(result.model.gate.bias[2]) == float(result.model.gate.weight[2, 0]) == 0.0
    values = [optimum.objective for optimum in result.optima]
    assert all(one - other > 1e-6 * abs(one) for one, other in itertools.pairwise(values))


def test_orders_among_many_experts():
    orders = ExpertOrders(7, lambda order: sorted(order[:3]) == [0, 1, 2] and list(order[5:]) == [5, 6])
    assert orders.sorted(np.array([0.1, 0.3, 0.2, 0.0, 0.5, 0.7, 0.9])) == [1, 2, 0, 4, 3, 5, 6]
    assert orders.sorted(np.zeros(7)) == list(range(7))


def test_a_separated_gate_is_one_optimum_however_far_its_coefficients_went():
    x = np.linspace(-1.0, 1.0, 60)[:, None]
    y = np.where(x[:, 0] > 0.0, 2.0 + x[:, 0], -2.0 - x[:, 0]) + 0.1 * np.cos(np.arange(60.0) ** 2)
    result = fit(mixture(1, 1, 2), x, y, options=FitOptions(n_starts=8))
    assert result.status is FitStatus.SEPARATED
    best = [optimum for optimum in result.optima if optimum.objective > result.objective - 1.0]
    assert len(best) == 1


def test_separated_experts_are_one_optimum():
    """An expert whose mean is zero wherever it matters: its coefficients run to the boundary at random."""
    generator = np.random.default_rng(2)
    x = generator.integers(0, 2, size=(80, 2)).astype(float)
    mean = np.where(generator.uniform(size=80) < 0.5, np.exp(1.5 + x[:, 0]), 0.0)
    y = generator.poisson(mean).astype(float)
    model = MixtureOfExperts.build("softmax", "linear", "poisson", n_features=2, n_experts=2, n_gate_features=0)
    result = fit(model, x, y, gate_x=x[:, :0], options=FitOptions(n_starts=8))
    values = np.array([optimum.objective for optimum in result.optima])
    assert (np.diff(values) < -1e-6 * np.abs(values[:-1])).all()


def test_mirrored_optima_stay_apart():
    """A model and its mirror image have the same likelihood of symmetric data, and are two optima."""
    half = np.random.default_rng(4).normal(size=(40, 2))
    x = np.concatenate([half[:, :1], -half[:, :1]])
    y = np.concatenate([half[:, 1] ** 3, half[:, 1] ** 3]) + 0.5 * x[:, 0] ** 2
    result = fit(mixture(1, 1, 2), x, y, options=FitOptions(n_starts=12, scale_floor=0.05))
    slopes = [optimum.model.experts.weight.numpy().ravel() for optimum in result.optima]
    values = [optimum.objective for optimum in result.optima]
    pairs = [
        (i, j)
        for i, j in itertools.combinations(range(len(values)), 2)
        if abs(values[i] - values[j]) < 1e-7 * abs(values[i])
    ]
    assert pairs
    for i, j in pairs:
        np.testing.assert_allclose(np.sort(slopes[i]), np.sort(-slopes[j]), atol=1e-4)
