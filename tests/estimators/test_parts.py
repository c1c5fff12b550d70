"""Coefficients of parts that are linear in them."""

import numpy as np

from gatewise.experts import ConstantExperts, LinearExperts, PolynomialExperts
from gatewise.gates import LaplaceGate, SoftmaxGate
from gatewise.parts.coefficients import linear_coefficients


def test_coefficients_of_linear_parts():
    np.testing.assert_array_equal(linear_coefficients(SoftmaxGate(2, 3)), np.zeros((3, 3)))
    np.testing.assert_array_equal(linear_coefficients(ConstantExperts(2, 3)), np.zeros((3, 1)))
    assert linear_coefficients(LinearExperts(2, 3, n_outputs=2)).shape == (3, 2, 3)
    assert linear_coefficients(LaplaceGate(2, 3)) is None
    assert linear_coefficients(PolynomialExperts(2, 3)) is None
