"""Fits in concurrent threads, and for callers who have switched derivatives off, have the bits of a serial fit."""

import threading

import joblib
import numpy as np
import pytest
import torch

from gatewise import GatedClassifier, GatedRegressor
from gatewise.experts import LinearExperts
from gatewise.families import Gaussian
from gatewise.fit import FitOptions, fit
from gatewise.gates import LaplaceGate
from gatewise.model import MixtureOfExperts
from gatewise.ops.threads import single_threaded

# How these short fits end does not matter.
pytestmark = pytest.mark.filterwarnings("ignore::gatewise.exceptions.FitWarning")

# Gates and experts that are curved in their parameters, least squares, and the compiled path.
KINDS = {
    "softmax": {},
    "cosine": {"gate": "cosine"},
    "laplace": {"gate": "laplace"},
    "gaussian gate": {"gate": "gaussian"},
    "top-K": {"gate": "top_k", "gate_options": {"n_active": 1}},
    "hierarchical": {"gate": "hierarchical", "n_experts": 3, "gate_options": {"inner": "laplace", "groups": [1, 2]}},
    "networks": {"expert": "feed_forward", "expert_options": {"hidden": 2}},
    "least squares": {"objective": "least_squares", "gate": "laplace"},
}


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(7)
    x = generator.normal(size=(80, 2))
    return x, np.where(x[:, 0] > 0.0, 1.0, -1.0) * x[:, 1] + 0.3 * generator.normal(size=80)


def fitted(kind, rows, **options):
    """A short fit."""
    short = {"n_experts": 2, "n_starts": 2, "max_iter": 4, "random_state": 0}
    return GatedRegressor(**{**short, **KINDS[kind], **options}).fit(*rows)


def bits(estimator):
    """Everything a fit has found, standard errors included."""
    parameters = [value.numpy().tobytes() for value in estimator.model_.parameters()]
    return parameters, estimator.covariance_.to_numpy().tobytes(), estimator.result_.objective


@pytest.fixture(scope="module")
def fits(rows):
    return {kind: fitted(kind, rows) for kind in KINDS}


@pytest.fixture(scope="module")
def serial(fits):
    return {kind: bits(estimator) for kind, estimator in fits.items()}


def test_eight_threads_with_mixed_gates(rows, serial):
    names = list(KINDS)
    before = torch.get_num_threads()
    found, after = {}, {}
    everybody = threading.Barrier(len(names))

    def work(place):
        own = torch.get_num_threads()
        everybody.wait()
        # Each thread has another kind at a time, and several have the same one one after another.
        for kind in (names[place], names[(place + 3) % len(names)]):
            found[place, kind] = bits(fitted(kind, rows))
        after[place] = own, torch.get_num_threads()

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(names))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 * len(names)
    assert [key for key, value in found.items() if value != serial[key[1]]] == []
    assert torch.get_num_threads() == before
    assert all(own == left for own, left in after.values())


# Inference mode switches off what the other does, and more.
@pytest.mark.parametrize("mode", [pytest.param(torch.no_grad, marks=pytest.mark.slow), torch.inference_mode])
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_that_the_caller_has_switched_off(rows, fits, serial, kind, mode):
    with mode():
        estimator = fitted(kind, rows)
        shown = estimator.summary().to_text()
    assert bits(estimator) == serial[kind]
    assert shown == fits[kind].summary().to_text()
    assert not any(value.is_inference() for value in estimator.model_.parameters())


def test_without_gradients(rows, serial):
    with torch.no_grad():
        assert bits(fitted("laplace", rows)) == serial["laplace"]


def test_classes_in_inference_mode(rows):
    x, y = rows
    kinds = {"n_experts": 2, "gate": "cosine", "n_starts": 1, "max_iter": 5, "random_state": 0}
    plain = GatedClassifier(**kinds).fit(x, y > 0.0)
    with torch.inference_mode():
        estimator = GatedClassifier(**kinds).fit(x, y > 0.0)
    assert bits(estimator) == bits(plain)


def test_a_prototype_made_in_inference_mode(rows):
    x, y = rows
    with torch.inference_mode():
        model = MixtureOfExperts(LaplaceGate(2, 2), LinearExperts(2, 2), Gaussian())
    result = fit(model, x, y, options=FitOptions(n_starts=1, max_iter=5))
    assert np.isfinite(result.log_likelihood)


def test_starts_in_threads_of_the_callers_joblib(rows, serial):
    with joblib.parallel_config("threading"):
        estimator = fitted("laplace", rows, n_jobs=2)
    assert bits(estimator) == serial["laplace"]


def test_blocks_of_one_thread_in_several_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))
        seen = {}

        def first():
            with single_threaded():
                first_is_in.set()
                second_is_in.wait(60.0)
            seen["first, after its own"] = torch.get_num_threads()
            first_is_out.set()

        def second():
            first_is_in.wait(60.0)
            with single_threaded():
                second_is_in.set()
                first_is_out.wait(60.0)
                with single_threaded():
                    pass
                seen["second, after the first has left"] = torch.get_num_threads()
            seen["second, after both"] = torch.get_num_threads()

        threads = [threading.Thread(target=work) for work in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert torch.get_num_threads() == 2
        fresh = []
        thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert fresh == [2]
    finally:
        torch.set_num_threads(before)
    assert seen == {
        "first, after its own": 2,
        "second, after the first has left": 1,
        "second, after both": 2,
    }
