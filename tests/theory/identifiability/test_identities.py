"""The identities that must be found, and those that must not, with the algebra that confirms them."""

import math

import mpmath
import pytest
import sympy

from gatewise.theory.identifiability import Formula, inputs, vector
from gatewise.theory.identifiability.confirm import vanishes
from tests.theory.identifiability.cached import identify


def texts(identities):
    return {identity.text for identity in identities}


@pytest.fixture(scope="module")
def gaussian():
    return identify("softmax", "linear", "gaussian", n_features=1)


def test_gate_and_linear_expert_and_location_and_scale(gaussian):
    assert gaussian.rank.rank == 12
    assert gaussian.rank.n_functions == 15
    assert gaussian.n_distinct == 14
    expected = {"∂²u/∂β₁∂b = ∂u/∂a", "∂²u/∂b² = 2 ∂u/∂s", "∂²u/∂a∂b = 2 ∂²u/∂β₁∂s"}
    assert texts(gaussian.identities) == expected
    assert all(identity.confirmed == "sympy" and identity.residual < 1e-45 for identity in gaussian.identities)
    assert gaussian.find(("b", "b"), ("s",)).source.startswith("location and scale of the Gaussian")
    assert gaussian.find(("β₁", "b"), ("a",)).source.startswith("gate and expert")
    assert gaussian.find(("b", "b"), ("a",)) is None


def test_the_same_density_by_hand():
    # The three identities once more, straight from u, so that they do not rest on this package's derivatives.
    x, y, beta, a, b = sympy.symbols("x y beta a b", real=True)
    s = sympy.Symbol("s", positive=True)
    u = sympy.exp(beta * x) * sympy.exp(-((y - a * x - b) ** 2) / (2 * s)) / sympy.sqrt(s)
    assert vanishes((u.diff(beta, b) - u.diff(a)) / u)
    assert vanishes((u.diff(b, 2) - 2 * u.diff(s)) / u)
    assert vanishes((u.diff(a, b) - 2 * u.diff(beta, s)) / u)


def test_singular_values_have_a_wide_gap(gaussian):
    assert gaussian.rank.is_clear
    assert gaussian.rank.smallest_kept > 1e-3
    assert 0.0 < gaussian.rank.largest_dropped < 1e-45
    assert len(gaussian.rank.singular_values) == 15


def test_none_for_a_tanh_unit_beyond_repetitions():
    found = identify("softmax", "ridge", n_features=2, expert_options={"activation": "tanh"})
    assert found.dependences == ()
    assert texts(found.identities) == {
        "∂²F/∂β₁[1]∂b = ∂F/∂a[1]",
        "∂²F/∂β₁[2]∂b = ∂F/∂a[2]",
        "∂²F/∂β₁[2]∂a[1] = ∂²F/∂β₁[1]∂a[2]",
    }
    assert found.rank.rank == found.n_distinct == 18


def constant_between(identity, labels, values):
    """C of ∂F/∂labels[0] = C ∂F/∂labels[1] at some values of the parameters."""
    letters = {name: sympy.Symbol(f"p{i}", real=True) for i, name in enumerate(values)}
    numbers = {}
    for derivative, text in zip(identity.derivatives, identity.coefficients, strict=True):
        for name, letter in letters.items():
            text = text.replace(name, str(letter))
        expression = sympy.sympify(text, locals={str(letter): letter for letter in letters.values()})
        numbers[derivative[0]] = float(expression.subs({letters[name]: value for name, value in values.items()}))
    return -numbers[labels[1]] / numbers[labels[0]]


def test_the_input_free_expert():
    found = identify("softmax", "ridge", n_features=1)
    (point,) = found.special
    assert point.where == "a = 0"
    between = found.find(("a",), ("β₁",))
    assert between.confirmed == "sympy"
    assert between.where == "a = 0"
    # F = exp(β₁x) tanh(ax + b): x tanh′(b) over x tanh(b).
    expected = (1.0 - math.tanh(0.4) ** 2) / math.tanh(0.4)
    assert constant_between(between, ("a", "β₁"), {"b": 0.4}) == pytest.approx(expected, rel=1e-12)


def test_the_input_free_expert_of_the_sigmoid_gate_has_the_published_constant():
    found = identify("sigmoid", "ridge", n_features=1, at={"a": 0.0, "β₁": 0.0})
    between = found.find(("a",), ("β₁",))
    # ∂F/∂β₁ = C ∂F/∂a with C = sinh(2b)/(2(e^β₀ + 1)).
    expected = math.sinh(0.8) / (2.0 * (math.exp(-0.3) + 1.0))
    assert constant_between(between, ("β₁", "a"), {"b": 0.4, "β₀": -0.3}) == pytest.approx(expected, rel=1e-12)


def test_a_free_temperature():
    found = identify("dense_to_sparse", "linear", "gaussian", n_features=1)
    identity = found.find(("β₁",), ("τ",))
    assert identity.text == "∂u/∂τ = −(β₁/τ) ∂u/∂β₁"
    assert identity.confirmed == "sympy"
    assert "temperature" in identity.source
    assert found.find(("a",), ("β₁", "b")).text == "∂u/∂a = τ ∂²u/∂β₁∂b"


def test_an_activation_ends_the_identity_of_the_temperature_unless_it_is_homogeneous():
    bounded = identify("activation_dense_to_sparse", "constant", n_features=1)
    assert bounded.find(("β₁",), ("τ",)) is None
    cube = identify("activation_dense_to_sparse", "constant", n_features=1, gate_options={"activation": "cube"})
    assert cube.find(("β₁",), ("τ",)).text == "∂F/∂τ = −(β₁/3τ) ∂F/∂β₁"


def test_the_length_of_beta_in_the_cosine_and_its_absence_in_the_perturbed_one():
    vanilla = identify("cosine", "constant", n_features=2)
    identity = vanilla.find(("β₁[1]",), ("β₁[2]",))
    assert identity.text == "∂F/∂β₁[2] = −(β₁[1]/β₁[2]) ∂F/∂β₁[1]"
    assert identity.confirmed == "sympy"
    assert vanilla.weights.translation is None
    perturbed = identify("perturbed_cosine", "constant", n_features=2)
    first_order = [one for one in perturbed.identities if all(len(by) <= 1 for by in one.derivatives)]
    # All that is left at first order belongs to the expert: h is linear in b.
    assert [one.text for one in first_order] == ["F = b ∂F/∂b"]


@pytest.mark.slow
def test_without_the_first_constant_the_perturbed_cosine_has_the_identity_again():
    found = identify("perturbed_cosine", "linear", n_features=2, gate_options={"tau1": 0.0})
    assert found.find(("β₁[1]",), ("β₁[2]",)) is not None


@pytest.mark.slow
def test_in_the_coordinates_of_its_translation_the_perturbed_cosine_has_repetitions_only():
    x, v = inputs(2), vector("v", 2)
    length = sympy.sqrt(x[0] ** 2 + x[1] ** 2) + sympy.Rational(1, 10)
    gate = Formula("v", x, v, ((v[0].symbol * x[0] + v[1].symbol * x[1]) / length,))
    found = identify(gate, "ridge", n_features=2)
    assert texts(found.identities) == {"∂²F/∂v[2]∂a[1] = ∂²F/∂v[1]∂a[2]"}
    assert found.dependences == ()
    # In β₁ it is no repetition: arXiv:2405.14131, Definition 1, fails for its own example.
    own = identify("perturbed_cosine", "ridge", n_features=2)
    assert len(own.dependences) == 1
    assert own.rank.rank == 20


def test_a_linear_expert_in_least_squares():
    found = identify("softmax", "linear", n_features=1)
    assert {
        "∂²F/∂b² = 0",
        "∂²F/∂a∂b = 0",
        "∂²F/∂a² = 0",
        "F = a ∂F/∂a + b ∂F/∂b",
        "∂²F/∂β₁∂b = ∂F/∂a",
    } < texts(found.identities)


def test_linear_experts_behind_a_sigmoid_gate():
    found = identify("sigmoid", "linear", n_features=1)
    identity = found.find(("β₁", "b"), ("β₀", "a"))
    assert identity.text == "∂²F/∂β₀∂a = ∂²F/∂β₁∂b"
    assert "2405.13997" in identity.source


@pytest.mark.slow
def test_the_gaussian_gate_and_a_quadratic_one():
    joint = identify("gaussian", "linear", "gaussian", n_features=1)
    assert "∂²u/∂c² = 2 ∂u/∂Γ" in texts(joint.identities)
    assert "∂u/∂a = c ∂u/∂b + Γ ∂²u/∂c∂b" in texts(joint.identities)
    (centred,) = [point for point in joint.special if point.where == "c = 0"]
    assert centred.rank.rank == joint.rank.rank
    quadratic = identify("quadratic", "ridge", n_features=1)
    assert quadratic.find(("A",), ("b₁", "b₁")).text == "∂²F/∂b₁² = ∂F/∂A"
    monomial = identify("quadratic", "ridge", n_features=1, gate_options={"monomial": True})
    assert monomial.identities == ()


@pytest.mark.slow
def test_location_and_scale_of_student_t_and_none_for_the_gamma_family():
    student = identify("softmax", "linear", "student_t", n_features=1, family_options={"df": 3.0})
    (identity,) = student.dependences
    # A Poisson kernel: with three degrees of freedom f_σσ − (2/σ) f_σ + 3 f_hh = 0.
    assert identity.text == "2 ∂u/∂σ = 3σ ∂²u/∂b² + σ ∂²u/∂σ²" or identity.confirmed == "sympy"
    assert {tuple(sorted(by)) for by in identity.derivatives} == {("σ",), ("b", "b"), ("σ", "σ")}
    gamma = identify("softmax", "linear", "gamma", n_features=1)
    assert gamma.dependences == ()


def test_relu_is_homogeneous_and_has_no_second_derivatives():
    found = identify("softmax", "ridge", n_features=1, expert_options={"activation": "relu"})
    assert {"∂²F/∂b² = 0", "F = a ∂F/∂a + b ∂F/∂b"} < texts(found.identities)
    assert any("kink" in note for note in found.notes)


def test_working_precision_is_left_as_it_was():
    before = mpmath.mp.dps
    identify("softmax", "constant", n_features=1)
    assert mpmath.mp.dps == before
