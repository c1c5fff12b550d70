"""Which splits of an atom are hidden at second order: closed forms, and steps that do or do not cancel."""

import numpy as np
import pytest

from gatewise.theory.identifiability.atom import orders_up_to
from gatewise.theory.identifiability.squares import hidden_squares
from tests.theory.identifiability.cached import identify


def rows(*relations, p):
    """Null vectors from {order: coefficient}."""
    orders = orders_up_to(p, 2)
    return np.array([[relation.get(order, 0.0) for order in orders] for relation in relations]), orders


def test_a_square_that_a_first_derivative_replaces():
    null, orders = rows({(1, 1): 1.0, (0,): -2.0}, p=2)
    found = hidden_squares(null, orders, ["s", "b"])
    assert found.seen is False
    assert found.hidden == ("b",)
    assert found.certificate < 1e-3


def test_a_mixed_derivative_alone_hides_nothing():
    null, orders = rows({(0, 1): 1.0, (0,): -1.0}, p=2)
    found = hidden_squares(null, orders, ["a", "b"])
    # M with zeros on its diagonal is positive semidefinite only if it is 0: W = identity is the certificate.
    assert found.seen is True
    assert found.certificate == pytest.approx(1.0)


def test_squares_of_opposite_sign_hide_nothing_and_of_the_same_sign_do():
    null, orders = rows({(0, 0): 1.0, (1, 1): -1.0}, p=2)
    assert hidden_squares(null, orders, ["a", "b"]).seen is True
    null, orders = rows({(0, 0): 1.0, (1, 1): 3.0}, p=2)
    assert hidden_squares(null, orders, ["a", "b"]).hidden == ("a", "b")


def test_a_hidden_direction_between_the_axes():
    # (∂a − ∂b)² = 0: M = (1, −1)(1, −1)ᵀ.
    null, orders = rows({(0, 0): 1.0, (0, 1): -2.0, (1, 1): 1.0}, p=3)
    assert hidden_squares(null, orders, ["a", "b", "c"]).hidden == ("a", "b")


def test_without_dependences_every_split_is_seen():
    orders = orders_up_to(2, 2)
    assert hidden_squares(np.empty((0, len(orders))), orders, ["a", "b"]).seen is True


@pytest.mark.parametrize(
    ("gate", "experts", "family", "hidden"),
    [
        ("softmax", "linear", "gaussian", ("b",)),
        ("softmax", "linear", None, ("a", "b")),
        pytest.param("softmax", "linear", "bernoulli", (), marks=pytest.mark.slow),
        ("softmax", "ridge", None, ()),
    ],
)
def test_of_models_with_one_input(gate, experts, family, hidden):
    found = identify(gate, experts, family, n_features=1)
    assert found.squares.hidden == hidden
    assert found.squares.seen is (not hidden)


def test_the_location_of_a_gaussian_splits_without_being_seen_to_third_order():
    # What "hidden" says, by hand: two atoms at b ± t with variance s − t² and weights ½ against one at b.
    y = np.linspace(-8.0, 8.0, 4001)

    def density(b, s):
        return np.exp(-((y - b) ** 2) / (2.0 * s)) / np.sqrt(2.0 * np.pi * s)

    def distance(t, compensated):
        s = 1.0 - t * t if compensated else 1.0
        return np.abs(0.5 * (density(t, s) + density(-t, s)) - density(0.0, 1.0)).max()

    assert distance(0.1, True) / distance(0.05, True) == pytest.approx(16.0, rel=0.1)
    assert distance(0.1, False) / distance(0.05, False) == pytest.approx(4.0, rel=0.1)


def test_the_other_atom_is_not_held():
    # With both constants held at 1 the mixture would be constant, and everything hidden.
    assert identify("softmax", "constant", n_features=1, at={"b": 1.0}).squares.hidden == ("b",)


def test_a_cauchy_density_is_harmonic_in_location_and_scale():
    # Of atoms on a regular polygon around (b, σ) the mean is the centre up to the number of corners.
    assert identify("softmax", "linear", "student_t", n_features=1, family_options={"df": 1.0}).squares.hidden == (
        "b",
        "σ",
    )
    y = np.linspace(-30.0, 30.0, 6001)

    def density(b, s):
        return s / (np.pi * (s * s + (y - b) ** 2))

    def distance(t, corners):
        angles = 2.0 * np.pi * np.arange(corners) / corners
        mean = sum(density(t * np.sin(a), 1.0 + t * np.cos(a)) for a in angles) / corners
        return np.abs(mean - density(0.0, 1.0)).max()

    for corners in (3, 4, 5):
        assert np.log2(distance(0.02, corners) / distance(0.01, corners)) == pytest.approx(corners, abs=0.1)


def test_an_output_weight_is_hidden_in_least_squares_and_seen_in_a_likelihood():
    options = {"n_features": 1, "expert_options": {"hidden": 1, "activation": "tanh"}}
    assert identify("softmax", "feed_forward", **options).squares.hidden == ("v",)
    assert identify("softmax", "feed_forward", "gaussian", **options).squares.seen is True
