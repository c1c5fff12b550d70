"""Every status is reached by data or options that deserve it, with its evidence; good fits raise no alarm."""

import dataclasses
import os
import signal
import threading
import time

import numpy as np
import pytest

from gatewise.fit import FitOptions, FitStatus, fit
from gatewise.fit import start as start_module
from gatewise.fit.interrupt import deferred_interrupt
from gatewise.inference import Names, parameter_table, summarise
from tests.helpers import mixture, simulate

NAMES = Names(["x"], ["x"], "y")
GATE = np.array([[0.0, 4.0], [0.0, 0.0]])
EXPERTS = np.array([[1.0, 2.0], [-1.0, 1.0]])
SCALE = np.array([0.2, 0.3])


@pytest.fixture(scope="module")
def table():
    return simulate(np.random.default_rng(14), 400, GATE, EXPERTS, SCALE)[:2]


def errors_of(result, names=NAMES):
    return parameter_table(result, names)["standard_error"]


def test_converged_finds_the_truth_with_evidence(table):
    result = fit(mixture(1, 1, 2), *table)
    assert result.status is FitStatus.CONVERGED
    assert result.relative_gradient < 1e-8
    assert result.smallest_eigenvalue > 0.0
    found = parameter_table(result, NAMES)
    experts = (
        EXPERTS[np.argsort(-EXPERTS[:, 0])] if result.model.experts.bias[0] > 0 else EXPERTS[np.argsort(EXPERTS[:, 0])]
    )
    distance = (found["estimate"][2:6] - experts.ravel()) / found["standard_error"][2:6]
    # Four standard errors: exceeded by a correct fit with probability 3e-4; the data are fixed.
    assert np.abs(distance).max() < 4.0
    assert result.starts[0].optimum is not None
    assert sum(optimum.n_starts for optimum in result.optima) == sum(s.optimum is not None for s in result.starts)
    assert result.log_likelihood == pytest.approx(result.model.log_prob(*map(_tensor, table)).sum().item(), rel=1e-12)


def _tensor(array):
    import torch

    return torch.from_numpy(array)


def test_max_iter_is_named_and_withholds_errors(table):
    result = fit(mixture(1, 1, 2), *table, options=FitOptions(n_starts=1, max_iter=1, init="partition", em_steps=0))
    assert result.status is FitStatus.MAX_ITER
    assert "raise max_iter" in result.findings[0].message
    assert errors_of(result).isna().all()


def test_max_iter_zero_is_the_start_itself(table):
    result = fit(mixture(1, 1, 2), *table, options=FitOptions(n_starts=1, max_iter=0))
    assert result.status is FitStatus.MAX_ITER
    assert result.starts[0].n_iterations == 0


def test_time_limit_returns_the_best_so_far(table):
    # The first fit of a fresh installation compiles; that is not the search's time.
    fit(mixture(1, 1, 2), *table, options=FitOptions(n_starts=1))
    began = time.monotonic()
    result = fit(mixture(1, 1, 2), *table, options=FitOptions(n_starts=100000, time_limit=0.3))
    assert time.monotonic() - began < 20.0
    assert result.status is FitStatus.TIME_LIMIT
    assert 1 <= len(result.starts) < 100000
    assert np.isfinite(result.log_likelihood)


def test_interrupt_returns_the_best_so_far(table, monkeypatch):
    calls = {"n": 0}
    solver = start_module.newton

    def interrupted(objective, theta, monitor, tol):
        calls["n"] += 1
        if calls["n"] == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return solver(objective, theta, monitor, tol)

    monkeypatch.setattr(start_module, "newton", interrupted)
    result = fit(mixture(1, 1, 2), *table, options=FitOptions(n_starts=10))
    assert result.status is FitStatus.INTERRUPTED
    assert len(result.starts) == 3
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert result.log_likelihood == pytest.approx(fit(mixture(1, 1, 2), *table).log_likelihood, rel=1e-9)


def test_second_interrupt_is_not_deferred(table, monkeypatch):
    def impatient(objective, theta, monitor, tol):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(start_module, "newton", impatient)
    with pytest.raises(KeyboardInterrupt):
        fit(mixture(1, 1, 2), *table)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_fits_run_outside_the_main_thread(table):
    results = []
    thread = threading.Thread(target=lambda: results.append(fit(mixture(1, 1, 2), *table)))
    thread.start()
    thread.join()
    assert results[0].status is FitStatus.CONVERGED


def test_time_limit_holds_with_workers(table):
    # The workers stay: that they begin is not the search's time.
    fit(mixture(1, 1, 2), *table, options=FitOptions(n_starts=4, n_jobs=2))
    began = time.monotonic()
    options = FitOptions(n_starts=100000, time_limit=1.0, n_jobs=2)
    result = fit(mixture(1, 1, 2), *table, options=options)
    assert time.monotonic() - began < 120.0
    assert result.status is FitStatus.TIME_LIMIT
    assert 1 <= len(result.starts) < 100000


def test_saturated(generator):
    x, y = generator.normal(size=(6, 3)), generator.normal(size=6)
    result = fit(mixture(3, 3, 2), x, y)
    assert result.status is FitStatus.SATURATED
    assert parameter_table(result, Names(list("abc"), list("abc"), "y"))["standard_error"].isna().all()


def test_floor_never_beats_an_interior_optimum_and_is_reported(generator):
    """Ten equal targets invite σ → 0; the interior optimum must be kept although the spike's likelihood is higher."""
    x = generator.uniform(size=(60, 1))
    y = np.where(generator.uniform(size=60) < 0.5, 2.0 * x[:, 0], -1.0 - x[:, 0]) + 0.3 * generator.normal(size=60)
    y[:10] = 0.25
    spike = np.zeros((60, 2))
    spike[:10, 0], spike[10:, 1] = 1.0, 1.0
    floor = FitOptions(n_starts=1, init=spike)
    alone = fit(mixture(1, 0, 2), x, y, gate_x=x[:, :0], options=floor)
    assert alone.status is FitStatus.ON_FLOOR
    assert alone.on_floor
    assert alone.scale.min() == pytest.approx(1e-3 * alone.baseline.scale, rel=1e-6)
    assert parameter_table(alone, Names(["x"], [], "y"))["standard_error"].isna().all()
    among = fit(mixture(1, 0, 2), x, y, gate_x=x[:, :0], options=dataclasses.replace(floor, n_starts=12))
    assert among.status in (FitStatus.CONVERGED, FitStatus.WEAK_SEARCH, FitStatus.TIGHT)
    assert not among.on_floor
    assert among.log_likelihood < alone.log_likelihood
    assert among.starts[0].status is FitStatus.ON_FLOOR
    # The kept optimum leads the list and is the one that is counted, although the spike's likelihood is higher.
    assert among.optima[0].log_likelihood == pytest.approx(among.log_likelihood, rel=1e-12)
    assert among.optima[-1].on_floor
    assert among.optima[-1].log_likelihood > among.log_likelihood
    assert among.search.n_optima == sum(not optimum.on_floor and not optimum.tight for optimum in among.optima)
    assert f"{among.search.n_optima} distinct opti" in among.findings[0].message
    prior = dataclasses.replace(floor, variance_prior=(1.0, 0.1))
    assert not fit(mixture(1, 0, 2), x, y, gate_x=x[:, :0], options=prior).on_floor


def test_separated_gate_has_conditional_expert_errors(generator):
    x = np.sort(generator.uniform(-1.0, 1.0, size=(80, 1)), axis=0)
    y = np.where(x[:, 0] < 0.1, 3.0 + x[:, 0], -3.0 - x[:, 0]) + 0.05 * generator.normal(size=80)
    result = fit(mixture(1, 1, 2), x, y)
    assert result.status is FitStatus.SEPARATED
    assert result.separation is not None
    errors = errors_of(result)
    assert errors[:2].isna().all()
    # Far apart, each expert is a regression on its own rows: ML standard errors of ordinary least squares.
    for expert, rows in enumerate(
        [x[:, 0] >= 0.1, x[:, 0] < 0.1] if result.model.experts.bias[0] < 0 else [x[:, 0] < 0.1, x[:, 0] >= 0.1]
    ):
        design = np.column_stack([np.ones(rows.sum()), x[rows]])
        expected = result.scale[expert] * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
        np.testing.assert_allclose(errors[2 + 2 * expert : 4 + 2 * expert], expected, rtol=1e-4)


def test_a_search_that_is_not_complete_is_said_beside_other_statuses(generator):
    x = np.sort(generator.uniform(-1.0, 1.0, size=(80, 1)), axis=0)
    y = np.where(x[:, 0] < 0.1, 3.0 + x[:, 0], -3.0 - x[:, 0]) + 0.05 * generator.normal(size=80)
    result = fit(mixture(1, 1, 2), x, y, options=FitOptions(n_starts=2))
    assert not result.search.complete
    assert result.status is FitStatus.SEPARATED
    assert result.findings[-1].code is FitStatus.WEAK_SEARCH
    assert result.findings[-1].message.startswith("The search is not complete either. ")
    # A point that is no first-order point says nothing of how often it would be found again.
    early = fit(mixture(1, 1, 2), x, y, options=FitOptions(n_starts=2, max_iter=1))
    assert early.status is FitStatus.MAX_ITER
    assert FitStatus.WEAK_SEARCH not in {finding.code for finding in early.findings}


@pytest.mark.parametrize("seed", range(8))
def test_no_alarm_where_experts_overlap(seed):
    x, y, _ = simulate(np.random.default_rng(seed), 120, 1.5 * GATE, 0.5 * EXPERTS, SCALE)
    result = fit(mixture(1, 1, 2), x, y, options=FitOptions(n_starts=8))
    assert result.separation is None


def test_singular_information_is_named():
    """A strong prior makes both experts equal: with constant weights their shares can be shifted at no cost."""
    x = np.arange(60.0)[:, None]
    y = 1.0 + 0.05 * x[:, 0] + np.cos(2.4 * x[:, 0])
    options = FitOptions(variance_prior=(5.0, 20.0))
    result = fit(mixture(1, 0, 2, shared_scale=True), x, y, gate_x=x[:, :0], options=options)
    assert result.status is FitStatus.SINGULAR
    assert abs(result.smallest_eigenvalue) < 1e-10
    assert "Smallest eigenvalue per row" in result.findings[0].message
    # The share is not identified; what is, has its standard error.
    assert errors_of(result, Names(["x"], [], "y")).isna().tolist() == [True] + [False] * 5


def test_tight_expert_is_flagged(generator):
    x = generator.uniform(-1.0, 1.0, size=(200, 1))
    y = np.concatenate([1.0 + 0.004 * generator.normal(size=80), 2.0 * x[80:, 0] + 0.8 * generator.normal(size=120)])
    result = fit(mixture(1, 1, 2), x, y)
    assert result.status is FitStatus.TIGHT
    assert len(result.tight) == 1
    assert result.scale[result.tight[0]] < 0.05 * result.baseline.scale
    assert summarise(result, NAMES).experts["flags"].tolist().count("tight") == 1
    assert errors_of(result).notna().all()


def test_one_expert_is_ordinary_least_squares(table):
    x, y = table
    result = fit(mixture(1, 1, 1), x, y)
    design = np.column_stack([np.ones(len(y)), x])
    coefficients, *_ = np.linalg.lstsq(design, y)
    scale = np.sqrt(np.mean((y - design @ coefficients) ** 2))
    found = parameter_table(result, NAMES)
    np.testing.assert_allclose(found["estimate"], [*coefficients, scale], rtol=1e-10)
    errors = scale * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    np.testing.assert_allclose(found["standard_error"], [*errors, scale / np.sqrt(2 * len(y))], rtol=1e-8)
    assert result.log_likelihood == pytest.approx(result.baseline.log_likelihood, rel=1e-12)
    assert result.status is FitStatus.CONVERGED


def test_constant_experts_and_shared_scales(table):
    x, y = table
    constant = fit(mixture(1, 1, 2, constant=True), x, y)
    assert constant.n_parameters == 2 + 2 + 2
    shared = fit(mixture(1, 1, 2, shared_scale=True), x, y)
    assert shared.n_parameters == 2 + 4 + 1
    assert np.ptp(shared.scale) == 0.0
    assert parameter_table(shared, NAMES)["component"].iloc[-1] == "all experts"
    free = fit(mixture(1, 1, 2), x, y)
    assert free.log_likelihood > shared.log_likelihood > constant.baseline.log_likelihood


def test_canonical_order_and_reference(table):
    result = fit(mixture(1, 1, 2), *table)
    assert (np.diff(result.effective_rows) <= 0).all()
    assert result.model.gate.bias[-1] == 0.0
    assert (result.model.gate.weight[-1] == 0.0).all()


def test_of_nested_blocks_the_outermost_is_told():
    with deferred_interrupt() as outer:
        with deferred_interrupt() as inner:
            os.kill(os.getpid(), signal.SIGINT)
            assert (outer(), inner()) == (True, False)
        with pytest.raises(KeyboardInterrupt), deferred_interrupt():
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_where_sigint_is_ignored_it_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred_interrupt() as interrupted:
            os.kill(os.getpid(), signal.SIGINT)
            assert not interrupted()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
