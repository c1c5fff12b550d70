"""One seed, the same bits: whatever the number of workers and threads, and without touching global state."""

import dataclasses

import numpy as np
import pytest
import torch

from gatewise.fit import FitOptions, FitStatus, fit, regression_problem
from gatewise.fit import search as searching
from tests.helpers import mixture, simulate

GATE = np.array([[0.5, 3.0], [0.0, 0.0]])
EXPERTS = np.array([[1.0, 2.0], [-1.0, 0.0]])
X, Y, _ = simulate(np.random.default_rng(3), 700, GATE, EXPERTS, np.array([0.3, 0.4]))
OPTIONS = FitOptions(n_starts=6, seed=11)


def bits(result):
    ends = [(start.log_likelihood, start.n_iterations, start.strategy) for start in result.starts]
    return result.theta.tobytes(), result.information.tobytes(), ends


def test_same_seed_same_bits_and_other_seeds_other_starts():
    first, second = (fit(mixture(1, 1, 2), X, Y, options=OPTIONS) for _ in range(2))
    assert bits(first) == bits(second)
    other = fit(mixture(1, 1, 2), X, Y, options=dataclasses.replace(OPTIONS, seed=12))
    assert [s.n_iterations for s in other.starts] != [s.n_iterations for s in first.starts]


def test_workers_and_threads_do_not_change_a_bit():
    alone = bits(fit(mixture(1, 1, 2), X, Y, options=OPTIONS))
    assert bits(fit(mixture(1, 1, 2), X, Y, options=dataclasses.replace(OPTIONS, n_jobs=2))) == alone
    assert bits(fit(mixture(1, 1, 2), X, Y, options=dataclasses.replace(OPTIONS, n_threads=3))) == alone


def test_workers_that_are_threads_do_not_change_a_bit(monkeypatch):
    options = dataclasses.replace(OPTIONS, time_limit=600.0)
    alone = fit(mixture(1, 1, 2), X, Y, options=options)
    monkeypatch.setattr(regression_problem, "_ROWS_FOR_THREADS", len(Y))
    monkeypatch.setattr(searching, "_run_start_in_worker", None)
    together = fit(mixture(1, 1, 2), X, Y, options=dataclasses.replace(options, n_jobs=3))
    assert bits(together) == bits(alone)
    limited = dataclasses.replace(options, n_jobs=2, n_starts=100_000, time_limit=0.5)
    assert fit(mixture(1, 1, 2), X, Y, options=limited).status is FitStatus.TIME_LIMIT


def test_a_start_does_not_depend_on_how_many_there_are():
    few = fit(mixture(1, 1, 2), X, Y, options=dataclasses.replace(OPTIONS, n_starts=3))
    many = fit(mixture(1, 1, 2), X, Y, options=OPTIONS)
    assert bits(few)[2] == bits(many)[2][:3]


def test_global_random_state_and_prototype_are_left_alone():
    model = mixture(1, 1, 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    fit(model, X, Y, options=OPTIONS)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])  # noqa: NPY002
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_line_per_start_where_it_is_asked_for(capsys, monkeypatch, terminal):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    fit(mixture(1, 1, 2), X, Y, options=dataclasses.replace(OPTIONS, n_starts=2))
    assert capsys.readouterr().err == ""
    fit(mixture(1, 1, 2), X, Y, options=dataclasses.replace(OPTIONS, verbose=True, n_starts=2))
    printed = capsys.readouterr().err
    assert printed.count("start ") == 2
    if not terminal:
        first, second = printed.splitlines()
        assert first.startswith("start 1/2 ")
        assert second.startswith("start 2/2 ")


def test_a_log_that_cannot_be_written_does_not_end_a_fit(monkeypatch):
    import sys

    monkeypatch.setattr(sys, "stderr", _Full())
    fit(mixture(1, 1, 2), X, Y, options=dataclasses.replace(OPTIONS, verbose=True, n_starts=1))


class _Full:
    """A stream that takes nothing."""

    def isatty(self):
        return False

    def write(self, text):
        raise OSError("no space left")

    def flush(self):
        raise OSError("no space left")
