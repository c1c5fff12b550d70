import numpy as np

from gatewise.ops.linalg import dependent_columns, solve_symmetric, weighted_least_squares


def test_solve_symmetric_is_the_pseudo_inverse(generator):
    factor = generator.normal(size=(3, 5))
    matrix = factor.T @ factor
    right = generator.normal(size=(5, 2))
    np.testing.assert_allclose(solve_symmetric(matrix, right), np.linalg.pinv(matrix, rcond=1e-10) @ right, atol=1e-9)


def test_weighted_least_squares_equals_lstsq_on_repeated_rows(generator):
    design, y = generator.normal(size=(3, 40)), generator.normal(size=40)
    weight = generator.integers(1, 4, size=40)
    repeated = np.repeat(np.arange(40), weight)
    expected = np.linalg.lstsq(design[:, repeated].T, y[repeated])[0]
    np.testing.assert_allclose(weighted_least_squares(design, y, weight.astype(float)), expected, rtol=1e-11)


def test_weighted_least_squares_of_minimum_norm(generator):
    design, y = generator.normal(size=(6, 4)), generator.normal(size=4)
    expected = np.linalg.lstsq(design.T, y)[0]
    np.testing.assert_allclose(weighted_least_squares(design, y, np.ones(4)), expected, rtol=1e-8)


def test_dependent_columns_are_named_by_position(generator):
    design = generator.normal(size=(4, 60))
    weight = np.ones(60)
    assert dependent_columns(design, weight, 1e-10) == []
    design[2] = 0.5 * design[0] - design[1]
    assert dependent_columns(design, weight, 1e-10) == [2]
    design[2] += 1e-7 * generator.normal(size=60)
    assert dependent_columns(design, weight, 1e-10) == []
