import mpmath
import numpy as np
from numba import njit

from gatewise.kernels.mixture_pass import ELEMENTWISE
from gatewise.kernels.vector_math import exp, log


@njit(fastmath=ELEMENTWISE, error_model="numpy")
def exp_all(x):
    out = np.empty_like(x)
    for i in range(x.size):
        out[i] = exp(x[i])
    return out


@njit(fastmath=ELEMENTWISE, error_model="numpy")
def log_all(x):
    out = np.empty_like(x)
    for i in range(x.size):
        out[i] = log(x[i])
    return out


def units_in_last_place(found, function, x):
    with mpmath.workprec(200):
        truth = [function(mpmath.mpf(float(value))) for value in x]
        errors = [abs(mpmath.mpf(float(f)) - t) for f, t in zip(found, truth, strict=True)]
        return max(float(e / np.spacing(abs(float(t)))) for e, t in zip(errors, truth, strict=True))


def test_exp_is_within_two_units_in_the_last_place_of_mpmath(generator):
    x = np.concatenate([generator.uniform(-708, 0, 3000), generator.uniform(-1, 1, 3000), [0.0, -708.0, 700.0]])
    assert units_in_last_place(exp_all(x), mpmath.exp, x) <= 2.0


def test_log_is_within_two_units_in_the_last_place_of_mpmath(generator):
    x = np.concatenate(
        [
            np.exp(generator.uniform(-700, 700, 3000)),
            generator.uniform(0.5, 2.0, 3000),
            1.0 + generator.normal(size=500) * 1e-8,
        ]
    )
    assert units_in_last_place(log_all(x), mpmath.log, x) <= 2.0


def test_special_values():
    found = exp_all(np.array([-np.inf, -709.0, -0.0, np.nan]))
    np.testing.assert_array_equal(found, [0.0, 0.0, 1.0, np.nan])
    found = log_all(np.array([0.0, 1.0, np.nan, np.inf]))
    np.testing.assert_array_equal(found, [-np.inf, 0.0, np.nan, np.nan])
