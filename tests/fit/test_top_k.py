"""Fits of top-K gates: brute force, the truth's own likelihood, the dense gate at K = k, cells and their borders."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, nnls

from gatewise.exceptions import InputError
from gatewise.experts import LinearExperts
from gatewise.families import Gaussian, Laplace
from gatewise.fit import FitOptions, FitStatus, fit
from gatewise.fit.boundary import boundary_intervals
from gatewise.fit.build import build_problem
from gatewise.fit.cell import climb_in_cell, edge_of_cell, middle_of_cell, shortest_step
from gatewise.fit.monitor import Monitor
from gatewise.fit.rows import checked_rows
from gatewise.gates import LaplaceGate, SoftmaxGate, TopKGate, build_gate
from gatewise.inference import Names, parameter_table
from gatewise.kernels.selection_lines import best_on_line, crossings, line_values
from gatewise.model import MixtureOfExperts

NAMES = Names(["a", "b"], ["a", "b"], "y")


def mixture(d, k, n_active, select_on="logit", family=None, inner=None):
    gate = TopKGate(inner or SoftmaxGate(d, k), n_active, select_on)
    return MixtureOfExperts(gate, LinearExperts(d, k), family or Gaussian())


def truth(n_active, select_on="logit"):
    """Three linear experts in two dimensions, of which a row sees K."""
    model = mixture(2, 3, n_active, select_on).double().requires_grad_(False)
    slopes = torch.tensor([[3.0, 1.0], [-2.0, 2.0], [0.0, -3.0]], dtype=torch.float64)
    bias = torch.tensor([0.3, 0.2, 0.0], dtype=torch.float64)
    model.gate.assign_parameters({"inner.weight": slopes, "inner.bias": bias})
    model.experts.assign_parameters(
        {
            "weight": torch.tensor([[1.0, 2.0], [-2.0, 0.5], [0.0, -1.0]], dtype=torch.float64),
            "bias": torch.tensor([1.0, -1.0, 3.0], dtype=torch.float64),
            "log_scale": torch.tensor([0.3, 0.4, 0.25], dtype=torch.float64).log(),
        }
    )
    return model


def draw(model, seed, n):
    x = torch.from_numpy(np.random.default_rng(seed).uniform(-1.0, 1.0, size=(n, 2)))
    y = model.sample(x, generator=torch.Generator().manual_seed(seed))
    return x.numpy(), y.numpy(), float(model.log_prob(x, y).sum())


def options_for(select_on, **others):
    # Borders of slopes alone pass through the origin: standardised inputs would be another model.
    return FitOptions(standardise="auto" if select_on == "logit" else "off", **others)


def codes(result):
    return [finding.code for finding in result.findings]


# --- along lines


def line(seed, n=40, k=4):
    generator = np.random.default_rng(seed)
    arrays = [generator.normal(size=(n, k)) for _ in range(5)]
    return (*arrays, generator.integers(1, 4, size=n).astype(float))


def plain_value(score, score_step, logit, logit_step, density, weight, n_active, t):
    total = 0.0
    for r in range(len(score)):
        chosen = np.argsort(-(score[r] + t * score_step[r]), kind="stable")[:n_active]
        gate = np.exp(logit[r] + t * logit_step[r])[chosen]
        total += weight[r] * np.log((gate * np.exp(density[r, chosen])).sum() / gate.sum())
    return total


@pytest.mark.parametrize("n_active", [1, 2, 3])
def test_values_along_a_line_are_those_of_the_formula(n_active):
    arrays = line(0)
    lengths = np.array([-3.0, -0.1, 0.0, 0.7, 20.0])
    expected = [plain_value(*arrays, n_active, t) for t in lengths]
    np.testing.assert_allclose(line_values(*arrays, n_active, lengths), expected, rtol=1e-12)


@pytest.mark.parametrize("n_active", [1, 2, 3])
def test_crossings_are_all_jumps_and_their_sizes(n_active):
    arrays = line(1)
    places, jumps = crossings(*arrays, n_active)
    order = np.argsort(places)
    places, jumps = places[order], jumps[order]
    near = 1e-9 * (1.0 + np.abs(places))
    before = np.array([plain_value(*arrays, n_active, t) for t in places - near])
    after = np.array([plain_value(*arrays, n_active, t) for t in places + near])
    np.testing.assert_allclose(after - before, jumps, atol=1e-5)
    if n_active == 1:
        middle = np.array([plain_value(*arrays, 1, t) for t in 0.5 * (places[1:] + places[:-1])])
        np.testing.assert_allclose(middle, after[:-1], atol=1e-9)


@pytest.mark.parametrize("n_active", [1, 2])
def test_the_best_of_a_line(n_active):
    arrays = line(2)
    lengths, gains = best_on_line(*arrays, n_active)
    here = plain_value(*arrays, n_active, 0.0)
    np.testing.assert_allclose(gains, [plain_value(*arrays, n_active, t) - here for t in lengths], atol=1e-9)
    places = np.sort(crossings(*arrays, n_active)[0])
    middles = [places[0] - 1.0, *(0.5 * (places[1:] + places[:-1])), places[-1] + 1.0]
    best = max(plain_value(*arrays, n_active, t) for t in middles)
    # For K = 1 it is the best of all intervals; otherwise the smooth part is interpolated.
    assert gains[0] >= best - here - (1e-9 if n_active == 1 else 0.5)


def test_the_shortest_step_is_the_solution_of_the_quadratic_programme():
    generator = np.random.default_rng(3)
    for _ in range(20):
        root = generator.normal(size=(4, 4))
        model = root @ root.T + 0.1 * np.eye(4)
        gradient, slopes = generator.normal(size=4), generator.normal(size=(6, 4))
        least = -generator.uniform(0.0, 0.5, size=6)
        step = shortest_step(np.linalg.cholesky(model), gradient, slopes, least)
        assert (slopes @ step >= least - 1e-9).all()

        def descent(d, model=model, gradient=gradient):
            return 0.5 * d @ model @ d - gradient @ d

        constraint = {"type": "ineq", "fun": lambda d, a=slopes, b=least: a @ d - b}
        other = minimize(descent, np.zeros(4), constraints=[constraint], options={"ftol": 1e-14, "maxiter": 500})
        assert descent(step) <= other.fun + 1e-8


# --- whole fits


def brute_force(x, y, floor):
    """The best likelihood of two lines on either side of a border, of all borders that leave none on the floor."""
    order = np.argsort(x[:, 0])
    x, y = x[order], y[order]
    n, best = len(y), -np.inf
    for middle in range(1, n):
        total = 0.0
        for side in (slice(0, middle), slice(middle, n)):
            design = np.column_stack([np.ones(len(y[side])), x[side]])
            residual = y[side] - design @ np.linalg.lstsq(design, y[side], rcond=None)[0]
            variance = residual @ residual / len(residual)
            total += -0.5 * len(residual) * (np.log(2.0 * np.pi * variance) + 1.0) if variance > floor**2 else -np.inf
        best = max(best, total)
    return best


def two_lines(seed, n=30):
    generator = np.random.default_rng(seed)
    x = generator.uniform(-1.0, 1.0, size=(n, 1))
    border = generator.uniform(-0.5, 0.5)
    y = np.where(x[:, 0] > border, 1.0 + generator.normal() * x[:, 0], -generator.normal() * x[:, 0])
    return x, y + 0.4 * generator.normal(size=n)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_one_of_two_lines_is_the_best_border_of_all(seed):
    x, y = two_lines(seed)
    result = fit(mixture(1, 2, 1), x, y, options=FitOptions(n_starts=4))
    assert result.log_likelihood == pytest.approx(brute_force(x, y, 1e-3 * result.baseline.scale), abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_default_starts_find_the_best_border_of_all(seed):
    x, y = two_lines(seed)
    result = fit(mixture(1, 2, 1), x, y)
    assert result.log_likelihood == pytest.approx(brute_force(x, y, 1e-3 * result.baseline.scale), abs=1e-7)


def test_two_constants_are_divided_at_the_best_of_all_borders():
    generator = np.random.default_rng(1)
    x = np.sort(generator.uniform(-1.0, 1.0, 30))
    y = np.where(x > 0.3, 2.0, 0.0) + 0.5 * generator.normal(size=30)
    squares = min(
        np.sum((y[:cut] - y[:cut].mean()) ** 2) + np.sum((y[cut:] - y[cut:].mean()) ** 2) for cut in range(1, 30)
    )
    gate = {"n_active": 1, "select_on": "logit"}
    model = MixtureOfExperts.build("top_k", "constant", "gaussian", 1, 2, shared_scale=True, gate_options=gate)
    result = fit(model, x[:, None], y, options=FitOptions(n_starts=3))
    assert result.log_likelihood == pytest.approx(-15.0 * (np.log(2.0 * np.pi * squares / 30.0) + 1.0), rel=1e-9)
    weights = result.model.log_weights(torch.from_numpy(x[:, None])).exp().numpy()
    assert np.isin(weights, [0.0, 1.0]).all()


@pytest.fixture(scope="module")
def one_of_two():
    generator = np.random.default_rng(7)
    x = generator.uniform(10.0, 30.0, size=(200, 1))
    y = np.where(x[:, 0] > 21.0, 3.0 + 0.5 * x[:, 0], 40.0 - x[:, 0]) + 0.5 * generator.normal(size=200)
    return x, y, fit(mixture(1, 2, 1), x, y, options=FitOptions(n_starts=2))


def test_the_border_lies_between_the_rows_that_it_separates(one_of_two):
    x, _, result = one_of_two
    assert codes(result) == [FitStatus.WEAK_SEARCH, FitStatus.PARTITION]
    assert FitStatus.PARTITION.is_maximum
    intercept, slope = result.boundary
    assert (intercept.component, intercept.term, slope.term) == ("gate 1 vs 2", "(intercept)", "x0")
    ordered = np.sort(x[:, 0])
    below, above = ordered[ordered < 21.0].max(), ordered[ordered > 21.0].min()
    ends = sorted(-end / slope.estimate for end in (intercept.lower, intercept.upper))
    np.testing.assert_allclose(ends, [below, above], rtol=1e-9)
    # The middle of the cell: as far from the one as from the other.
    assert -intercept.estimate / slope.estimate == pytest.approx(0.5 * (below + above), rel=1e-9)
    assert intercept.width == intercept.upper - intercept.lower
    assert "has no standard errors" in result.findings[1].message


def test_a_gate_that_only_selects_has_no_standard_errors_and_the_experts_have_those_of_their_rows(one_of_two):
    x, _, result = one_of_two
    table = parameter_table(result, Names(["x"], ["x"], "y"))
    assert table["standard_error"][:2].isna().all()
    assert len(result.null_space.further) == 0
    assert len(result.null_space.by_selection) == 1
    assert result.n_parameters == 2 * 3 + 1
    chosen = result.model.gate.selection(torch.from_numpy(x)).numpy()
    for i in range(2):
        design = np.column_stack([np.ones(chosen[:, i].sum()), x[chosen[:, i]]])
        expected = result.scale[i] * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
        np.testing.assert_allclose(table["standard_error"][2 + 2 * i : 4 + 2 * i], expected, rtol=1e-6)


def test_the_border_does_not_depend_on_units(one_of_two):
    x, y, result = one_of_two
    moved = fit(mixture(1, 2, 1), 1e3 - 50.0 * x, 2.0 * y, options=FitOptions(n_starts=2))
    intercept, slope = result.boundary
    other_intercept, other_slope = moved.boundary
    border, other = -intercept.estimate / slope.estimate, -other_intercept.estimate / other_slope.estimate
    assert other == pytest.approx(1e3 - 50.0 * border, rel=1e-9)
    assert moved.log_likelihood == pytest.approx(result.log_likelihood - 200.0 * np.log(2.0), abs=1e-8)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("select_on", ["logit", "slope"])
def test_two_of_three_beat_the_truth(select_on, seed):
    x, y, at_truth = draw(truth(2, select_on), seed, 150)
    result = fit(mixture(2, 3, 2, select_on), x, y, options=options_for(select_on, n_starts=1))
    assert codes(result) == [FitStatus.WEAK_SEARCH, FitStatus.PARTITION]
    assert result.log_likelihood > at_truth
    assert result.relative_gradient <= 1e-8
    assert (np.diff(result.trace) >= -1e-13).all()
    found = result.model.log_prob(torch.from_numpy(x), torch.from_numpy(y)).sum().item()
    assert found == pytest.approx(result.log_likelihood, rel=1e-12)
    assert np.isfinite(parameter_table(result, NAMES)["standard_error"]).all()
    terms = {interval.term for interval in result.boundary}
    assert ("(intercept)" in terms) == (select_on == "logit")


@pytest.mark.slow
@pytest.mark.parametrize("select_on", ["logit", "slope"])
@pytest.mark.parametrize("seed", range(10))
def test_two_of_three_beat_the_truth_every_time(seed, select_on):
    x, y, at_truth = draw(truth(2, select_on), seed, 2000)
    result = fit(mixture(2, 3, 2, select_on), x, y, options=options_for(select_on))
    assert result.status in (FitStatus.CONVERGED, FitStatus.WEAK_SEARCH)
    assert result.log_likelihood > at_truth


def test_all_of_k_is_the_dense_gate():
    x, y, _ = draw(truth(2), 1, 300)
    options = FitOptions(n_starts=4)
    sparse = fit(mixture(2, 3, 3), x, y, options=options)
    dense = fit(MixtureOfExperts(SoftmaxGate(2, 3), LinearExperts(2, 3), Gaussian()), x, y, options=options)
    assert sparse.log_likelihood == pytest.approx(dense.log_likelihood, abs=1e-8)
    assert sparse.boundary is None
    assert FitStatus.PARTITION not in codes(sparse)


def problem_of(model, x, y):
    return build_problem(model, checked_rows(model, x, y, None, None), FitOptions())


@pytest.mark.parametrize(("inner", "seed"), [(SoftmaxGate, 2), (LaplaceGate, 2), (LaplaceGate, 4)])
def test_the_end_of_a_climb_in_a_cell_is_its_maximum(inner, seed):
    x, y, _ = draw(truth(2), seed, 60)
    problem = problem_of(mixture(2, 3, 2, inner=inner(2, 3)), x, y)
    generator = np.random.default_rng(0)
    # Somewhere with a partition of its own, not at a maximum.
    theta = problem.begin(generator.dirichlet(np.ones(3), size=60).T, 0, 0)
    theta[problem.moving] += generator.normal(size=len(problem.moving))
    end, status, slope = climb_in_cell(problem, theta, Monitor(500), 1e-8)
    assert status is FitStatus.CONVERGED
    assert slope <= 1e-8
    here = problem.value(end)
    partition = problem.partition(theta)
    assert torch.equal(problem.partition(end), partition)
    gradient = problem.value_and_gradient(end)[1]
    assert np.abs(gradient).max() > 1e-4
    # What is left of the gradient points over the edges, and over those only.
    barred, bend = edge_of_cell(problem, end, 1e-8)
    found, missing = nnls(barred.T, -gradient)
    assert missing <= 1e-7
    assert (found > 0.0).all()
    assert (bend == 0.0).all() == (inner is SoftmaxGate)
    inside = 0
    for size in (1e-1, 1e-2, 1e-3, 1e-4):
        for _ in range(100):
            other = end + size * generator.normal(size=problem.size)
            if torch.equal(problem.partition(other), partition):
                inside += 1
                # The margin that keeps rounding out is worth less than this.
                assert problem.value(other) <= here + 1e-7
    assert inside > 10


def test_the_middle_of_a_cell_is_the_widest_margin():
    x, y, _ = draw(truth(1), 3, 60)
    problem = problem_of(mixture(2, 3, 1), x, y)
    theta = np.random.default_rng(1).normal(size=problem.size)
    middle = middle_of_cell(problem, theta)
    partition = problem.partition(theta)
    assert torch.equal(problem.partition(middle), partition)

    def margin(at):
        ordered = np.sort(problem.gate_rows(at)[0], axis=1)
        return (ordered[:, -1] - ordered[:, -2]).min() / np.linalg.norm(at[problem.moving])

    assert margin(middle) > margin(theta)
    generator = np.random.default_rng(2)
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(50):
            other = middle.copy()
            other[problem.moving] += size * generator.normal(size=len(problem.moving))
            if torch.equal(problem.partition(other), partition):
                assert margin(other) <= margin(middle) * (1.0 + 1e-7)


# --- intervals of the borders


def moved_selection(gate, x, name, index, amount):
    parameters = {key: value.clone() for key, value in gate.own_parameters().items()}
    parameters[name][index] += amount
    other = TopKGate(build_gate(gate.inner.name, 2, 3, **gate.inner.options()), gate.n_active, gate.select_on).double()
    other.assign_parameters(parameters)
    return other.selection(x)


@pytest.mark.parametrize(("n_active", "select_on"), list(itertools.product([1, 2], ["slope", "logit"])))
def test_within_its_interval_a_coefficient_changes_no_selection(n_active, select_on):
    model = truth(n_active, select_on)
    x = torch.from_numpy(np.random.default_rng(5).uniform(-1.0, 1.0, size=(80, 2)))
    before = model.gate.selection(x)
    weight, bias = model.gate.inner.weight, model.gate.inner.bias
    contrasts = torch.cat([(bias[:2] - bias[2]).unsqueeze(-1), weight[:2] - weight[2]], dim=-1)
    kept = contrasts if select_on == "logit" else contrasts[:, 1:]
    length = float(kept.norm()) if n_active == 1 else 1.0
    intervals = boundary_intervals(model.gate, x, ["a", "b"])
    assert len(intervals) == kept.numel()
    for interval, value in zip(intervals, (kept / length).reshape(-1).tolist(), strict=True):
        assert interval.estimate == pytest.approx(value, rel=1e-12)
        expert = int(interval.component.split()[1]) - 1
        name, index = {
            "(intercept)": ("inner.bias", expert),
            "a": ("inner.weight", (expert, 0)),
            "b": ("inner.weight", (expert, 1)),
        }[interval.term]
        for end in (interval.lower, interval.upper):
            amount = (end - interval.estimate) * length
            if np.isfinite(amount):
                assert torch.equal(moved_selection(model.gate, x, name, index, amount * (1.0 - 1e-9)), before)
                assert not torch.equal(moved_selection(model.gate, x, name, index, amount * (1.0 + 1e-9)), before)
            else:
                assert torch.equal(moved_selection(model.gate, x, name, index, np.sign(amount) * 1e6), before)


def test_intervals_of_scores_that_are_not_linear():
    gate = TopKGate(LaplaceGate(2, 3), 1, "logit").double().requires_grad_(False)
    generator = np.random.default_rng(6)
    gate.assign_parameters(
        {"inner.centre": torch.from_numpy(generator.normal(size=(3, 2))), "inner.bias": torch.zeros(3).double()}
    )
    x = torch.from_numpy(generator.uniform(-1.0, 1.0, size=(50, 2)))
    before = gate.selection(x)
    intervals = boundary_intervals(gate, x, ["a", "b"])
    assert {(i.component, i.term) for i in intervals} >= {("gate 1", "centre[a]"), ("gate 3", "bias")}
    for interval in intervals:
        expert = int(interval.component.split()[1]) - 1
        place = {"centre[a]": (expert, 0), "centre[b]": (expert, 1), "bias": expert}[interval.term]
        name = "inner." + interval.term.split("[")[0]
        for end in (interval.lower, interval.upper):
            if np.isfinite(end):
                away = end - interval.estimate
                assert torch.equal(moved_selection(gate, x, name, place, away * (1.0 - 1e-6)), before)
                assert not torch.equal(moved_selection(gate, x, name, place, away * (1.0 + 1e-6)), before)


# --- other parts


@pytest.mark.parametrize("n_active", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_scores_that_are_not_linear_are_searched_too(n_active):
    k = n_active + 1
    x, y, _ = draw(truth(n_active), 4, 60)
    result = fit(mixture(2, k, n_active, inner=LaplaceGate(2, k)), x, y, options=FitOptions(n_starts=1))
    assert result.status in (FitStatus.CONVERGED, FitStatus.WEAK_SEARCH, FitStatus.TIGHT)
    assert result.findings[-1].code is FitStatus.PARTITION
    assert (np.diff(result.trace) >= -1e-13).all()
    assert result.boundary
    # On an edge the piece may curve upward across it, and then there are no standard errors.
    definite = result.findings[-1].evidence["definite"]
    assert ("there are no standard errors" in result.findings[-1].message) == (not definite)
    error = parameter_table(result, NAMES)["standard_error"]
    assert error.isna().all() if not definite else (error.dropna() > 0.0).all()


def test_kinks_within_a_partition():
    x, y = two_lines(3, 80)
    result = fit(mixture(1, 2, 1, family=Laplace()), x, y, options=FitOptions(n_starts=1))
    assert result.status in (FitStatus.CONVERGED, FitStatus.WEAK_SEARCH)
    chosen = result.model.gate.selection(torch.from_numpy(x)).numpy()
    location = result.model.experts(torch.from_numpy(x))[0].numpy()
    # Least absolute deviations on either side: two rows of each have no residual.
    for i in range(2):
        assert (np.abs(y - location[:, i])[chosen[:, i]] < 1e-9).sum() == 2


def test_least_squares_with_one_expert_a_row_is_the_best_border_too():
    x, y = two_lines(4)
    result = fit(mixture(1, 2, 1), x, y, options=FitOptions(n_starts=4, objective="least_squares"))
    order = np.argsort(x[:, 0])
    best = np.inf
    for middle in range(2, len(y) - 1):
        total = 0.0
        for side in (order[:middle], order[middle:]):
            design = np.column_stack([np.ones(len(side)), x[side]])
            total += np.sum((y[side] - design @ np.linalg.lstsq(design, y[side], rcond=None)[0]) ** 2)
        best = min(best, total)
    assert result.findings[-1].code is FitStatus.PARTITION
    assert -2.0 * result.objective == pytest.approx(best, rel=1e-9)


def test_a_ridge_on_a_gate_that_only_selects_is_refused():
    x, y = two_lines(0)
    with pytest.raises(InputError, match="selection only"):
        fit(mixture(1, 2, 1), x, y, options=FitOptions(gate_ridge=1.0))


@pytest.mark.slow
def test_intervals_of_two_of_three_cover_at_least_as_often_as_they_say():
    model = truth(2)
    own = {name: value for name, value in model.experts.own_parameters().items() if name != "log_scale"}
    parts = [model.gate.identified(model.gate.own_parameters()), model.experts.identified(own)]
    expected = torch.cat(parts).numpy()
    hits = []
    for seed in range(60):
        x, y, _ = draw(model, seed, 1000)
        result = fit(mixture(2, 3, 2), x, y, options=FitOptions(n_starts=2))
        found = result.model.experts.bias.numpy()
        order = [int(np.argmin(np.abs(found - value))) for value in (1.0, -1.0, 3.0)]
        reordered = result.model.gate.permute(result.model.gate.own_parameters(), order)
        if order == [0, 1, 2]:
            table = parameter_table(result, NAMES)[: len(expected)]
            hits.append((table["lower"] <= expected) & (expected <= table["upper"]))
        assert torch.isfinite(reordered["inner.weight"]).all()
    gate, experts = np.mean(hits, axis=0)[:6], np.mean(hits, axis=0)[6:]
    # Borders are known better than the smooth part tells, so that intervals of the gate are too wide if anything.
    assert gate.mean() >= 0.93
    assert experts.mean() == pytest.approx(0.95, abs=0.05)
