"""Ranks, sparse dependences and the recognition of coefficients, on functions whose answers are known."""

import mpmath
import numpy as np
import pytest
import sympy

from gatewise.theory.identifiability.coefficients import coefficient_text, monomial, recognised
from gatewise.theory.identifiability.confirm import ratio_without, vanishes
from gatewise.theory.identifiability.rank import Span, circuits, distinct, examine, null_space, null_vector

T = [mpmath.mpf(n) / 7 for n in range(1, 15)]


def table(*functions):
    return np.array([[function(t) for function in functions] for t in T], dtype=object)


@pytest.fixture(autouse=True)
def many_digits():
    with mpmath.workdps(50):
        yield


def test_functions_that_double_precision_cannot_tell_apart():
    close = table(lambda t: t, lambda t: t + mpmath.mpf(10) ** -20 * t**2, mpmath.exp)
    assert examine(close, 40).rank == 3
    assert np.linalg.matrix_rank(close.astype(float)) == 2


def test_the_gap_is_that_of_the_singular_values():
    columns = table(lambda t: t, mpmath.exp, lambda t: t - mpmath.exp(t))
    rank = examine(columns, 40)
    assert rank.rank == 2
    units = columns.astype(float) / np.abs(columns.astype(float)).max(axis=1, keepdims=True)
    units /= np.linalg.norm(units, axis=0)
    np.testing.assert_allclose(rank.singular_values[:2], np.linalg.svd(units, compute_uv=False)[:2], rtol=1e-10)
    assert rank.largest_dropped < 1e-45
    assert rank.is_clear
    assert rank.smallest_kept == rank.singular_values[1]


def test_a_rank_without_gap_says_so():
    noisy = table(lambda t: t, lambda t: t + mpmath.mpf(10) ** -9 * mpmath.sin(t), mpmath.exp)
    assert "NO CLEAR GAP" in examine(noisy, 15).sentence


def test_functions_that_vanish_and_repeat():
    columns = table(lambda t: t, lambda t: 0 * t, lambda t: t, lambda t: 2 * t)
    assert examine(columns, 40).rank == 1
    assert distinct(columns, 40) == 3
    assert circuits(columns, 40) == [(1,), (0, 2), (0, 3), (2, 3)] or (1,) in circuits(columns, 40)


def test_sparse_dependences():
    # 1, t, t², (1 + t)², 1 + t: the shortest dependences have three terms.
    columns = table(lambda t: t**0, lambda t: t, lambda t: t * t, lambda t: (1 + t) ** 2, lambda t: 1 + t)
    found = circuits(columns, 40)
    span = Span(columns, 40)
    taken = [support for support in found if span.add(support)]
    assert len(taken) == 2
    assert taken[0] == (0, 1, 4)
    vector = null_vector(columns[:, [0, 1, 4]], 40)
    np.testing.assert_allclose((vector / vector[2]).astype(float), [-1.0, -1.0, 1.0], rtol=1e-30)
    assert null_vector(columns, 40) is None
    null = null_space(columns, 40)
    assert null.shape == (2, 5)
    assert max(abs(value) for value in (columns @ null.T).reshape(-1)) < mpmath.mpf(10) ** -40


def test_coefficients_are_recognised_or_not():
    a, b = sympy.symbols("a b")
    points = [[mpmath.mpf(n * n % 11 + 1) / 5, mpmath.mpf(3 * n % 7 + 2) / 3] for n in range(9)]
    small = mpmath.mpf(10) ** -30

    def found(function, tool=recognised):
        return tool([function(*point) for point in points], points, [a, b], small)

    assert found(lambda p, q: -3 * p / (7 * q * q)) == -3 * a / (7 * b**2)
    assert found(lambda p, q: 2 * p * p + 2 * q) == 2 * a**2 + 2 * b
    assert found(lambda p, q: (1 - q) / p) == 1 / a - b / a
    assert found(lambda p, q: 2 * p * p + 2 * q, monomial) is None
    assert found(lambda p, q: mpmath.tanh(q)) is None
    assert found(lambda p, q: mpmath.sqrt(2) * p) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [("1", ""), ("-1", ""), ("2", "2"), ("1/2", "½"), ("-a/t", "(a/t)"), ("2*a**2*t", "2a²t"), ("a + 1", "(a + 1)")],
)
def test_coefficients_are_written(text, shown):
    assert coefficient_text(sympy.sympify(text)) == shown


def test_algebra_sees_both_sides_of_a_kink():
    z = sympy.Symbol("z", real=True)
    relu = sympy.Piecewise((z, z > 0), (0, True))
    assert vanishes(z * relu.diff(z) - relu)
    assert not vanishes(relu - z)
    assert not vanishes(relu)


def test_a_ratio_must_be_free_of_the_inputs():
    x, b = sympy.symbols("x b", real=True)
    assert ratio_without(x * sympy.cos(b), x, {x}) == sympy.cos(b)
    assert ratio_without(x * sympy.cos(b), x**2, {x}) is None
    assert ratio_without(x, sympy.Integer(0), {x}) is None
