"""A user's own parts, the weights of all experts, and what is refused."""

import ast
import json
import math
import sys

import pytest
import sympy
import torch
from torch import nn

from gatewise.exceptions import InputError
from gatewise.experts import CallableExperts, build_experts
from gatewise.gates import SoftmaxGate, build_gate
from gatewise.theory.identifiability import Formula, inputs, parameter
from gatewise.theory.identifiability.weights import study_weights
from tests.theory.identifiability.cached import fresh, identify


class OwnSoftmax(SoftmaxGate):
    """A softmax gate that computes its logits itself, so that the formula of its parent is not taken for its own."""

    name = "own softmax"

    def logits(self, x):
        return super().logits(x)


class ScaledSoftmax(SoftmaxGate):
    """A gate with a parameter that no data determine, and that is not declared."""

    name = "scaled softmax"
    per_expert = ("weight", "bias", "stretch")

    def __init__(self, n_features, n_experts):
        super().__init__(n_features, n_experts)
        self.stretch = nn.Parameter(torch.ones(n_experts))

    def logits(self, x):
        return (x @ self.weight.T) * self.stretch + self.bias


class Entangled(SoftmaxGate):
    """A gate whose logits depend on all experts."""

    name = "entangled"

    def logits(self, x):
        return x @ self.weight.T + self.bias + self.weight.sum() ** 2


def texts(identities):
    return {identity.text for identity in identities}


def own_linear(d):
    return CallableExperts(d, 3, function=lambda x, eta: x @ eta["a"] + eta["b"], shapes={"a": (d,), "b": ()})


def test_automatic_derivatives_find_what_formulas_do():
    formula = identify("softmax", "linear", "gaussian", n_features=1)
    automatic = identify(OwnSoftmax(1, 3), own_linear(1), "gaussian")
    assert automatic.digits == 15
    assert automatic.parameters == ("weight", "a", "b", "s")
    assert automatic.rank.rank == formula.rank.rank
    assert automatic.rank.is_clear
    renamed = {text.replace("β₁", "weight") for text in texts(formula.identities)}
    assert texts(automatic.identities) == renamed
    assert all(identity.confirmed == "numerically" and identity.residual < 1e-11 for identity in automatic.identities)
    assert any("bias" in note and "weight of an atom" in note for note in automatic.notes)
    assert automatic.squares.hidden == ("b",)


@pytest.mark.slow
def test_automatic_families_too():
    options = {"n_targets": 2, "covariance": "diagonal"}
    found = identify("softmax", "constant", "multivariate_gaussian", n_features=1, family_options=options)
    assert found.digits == 15
    # By log σ instead of the variance.
    assert found.find(("dispersion[0]",), ("b[1]", "b[1]")) is not None
    assert found.find(("dispersion[1]",), ("b[2]", "b[2]")) is not None
    assert found.find(("dispersion[1]",), ("b[1]", "b[1]")) is None
    assert any("torch" in note for note in found.notes)


def test_an_undeclared_symmetry_of_a_users_gate_is_found_twice():
    found = identify(ScaledSoftmax(1, 3), "ridge")
    identity = found.find(("weight",), ("stretch",))
    assert identity.text == "∂F/∂stretch = (weight/stretch) ∂F/∂weight"
    # One for each expert, and the common slope; the translation of `weight`, declared by the parent, is none any more.
    assert found.weights.further == 4
    assert found.weights.broken == 1
    assert found.weights.null == found.weights.n_parameters - found.weights.rank


def test_an_atom_must_have_a_score_of_its_own():
    with pytest.raises(InputError, match="depends on 'weight' of the others"):
        identify(Entangled(1, 2), "linear")


def test_a_formula_of_a_users_own():
    x, rate, top = inputs(1), parameter("r"), parameter("t")
    decay = Formula("decay", x, (rate, top), (top.symbol * sympy.exp(-rate.symbol * x[0]),))
    found = identify("softmax", decay)
    # exp(β₁x) exp(−rx): the gate's slope and the rate do the same.
    assert found.find(("β₁",), ("r",)).text == "∂F/∂r = −∂F/∂β₁"
    assert found.digits == 50
    gate = Formula("own", x, (parameter("k"),), (sympy.tanh(parameter("k").symbol * x[0]),))
    assert identify(gate, "ridge", n_features=1).weights is None


def test_parameters_can_be_held():
    found = identify("softmax", "ridge", n_features=1, at={"a": 0.0})
    assert found.identities[0].where == "a = 0"
    assert found.special == ()
    assert found.rank.rank < identify("softmax", "ridge", n_features=1).rank.rank


@pytest.mark.parametrize("name", ["softmax", "cosine", "perturbed_cosine", "dense_to_sparse", "laplace", "quadratic"])
def test_declared_symmetries_explain_all_null_directions_of_the_weights(name):
    weights = study_weights(build_gate(name, 2, 3), None, 0)
    assert weights.further == weights.broken == 0
    assert weights.null == sum(dimension for _, dimension in weights.declared)


@pytest.mark.parametrize(("name", "options"), [("top_k", {"n_active": 2}), ("gaussian", {}), ("hierarchical", {})])
def test_and_those_of_gates_with_regions_densities_and_trees(name, options):
    weights = study_weights(build_gate(name, 2, 3, **options), None, 0)
    assert weights.broken == 0
    assert weights.null == sum(dimension for _, dimension in weights.declared)


def test_the_translation_of_the_perturbed_cosine():
    found = identify("perturbed_cosine", "constant", n_features=2)
    assert found.weights.translation.text.startswith("Σᵢ ∂log π/∂vᵢ = 0 with v = β₁/(‖β₁‖ + τ₁)")
    assert found.weights.translation.dimension == 2
    assert identify("cosine", "constant", n_features=2).weights.translation is None


def test_the_result_as_data_and_as_text():
    found = identify("softmax", "ridge", n_features=1)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["rank"]["rank"] == found.rank.rank
    assert data["identities"][0]["text"] in found.text()
    assert data["special"][0]["where"] == "a = 0"
    assert data["conditions"][0]["outcome"].startswith("holds for the set")
    assert isinstance(ast.parse(found.call, mode="eval").body, ast.Call)
    assert str(found) == found.text()
    assert max(len(line) for line in found.text().splitlines() if "∂" not in line) <= 100


def test_the_same_seed_gives_the_same_result():
    assert identify("softmax", "constant", n_features=1) == fresh("softmax", "constant", n_features=1)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("softmax", "linear", "gaussian"), {"objective": "least_squares"}, "least squares has no family"),
        (("softmax", "linear"), {"objective": "likelihood"}, "needs a family"),
        (("softmax", "linear"), {"objective": "other"}, "objective must be"),
        (("softmax", "linear"), {"digits": 3}, "digits must be"),
        (("softmax", "linear"), {"digits": True}, "digits must be"),
        (("softmax", "linear"), {"n_features": 0}, "n_features must be"),
        (("unknown", "linear"), {}, "unknown gate"),
        (("softmax", "unknown"), {}, "unknown expert"),
        (("softmax", "linear", "unknown"), {}, "unknown family"),
        (("softmax", "ridge"), {"expert_options": {"hidden": 2}}, "have the option activation"),
        (("softmax", "linear"), {"at": {"c": 1.0}}, "no parameter 'c'"),
        (("softmax", "linear"), {"at": {"b": math.inf}}, "finite number"),
        ((SoftmaxGate(1, 2), build_experts("linear", 2, 2)), {}, "same inputs"),
        (("softmax", build_experts("linear", 1, 2, n_outputs=2)), {}, "2 outputs, and 1 are needed"),
        (("softmax", "feed_forward"), {"expert_options": {"hidden": 5}}, "at most 14"),
        ((3, "linear"), {"n_features": 1}, "gate must be"),
    ],
)
def test_what_is_refused(arguments, options, message):
    with pytest.raises(InputError, match=message):
        identify(*arguments, **options)


def test_two_parameters_of_one_name_are_refused():
    experts = CallableExperts(1, 1, function=lambda x, eta: eta["weight"] * x[..., 0], shapes={"weight": ()})
    with pytest.raises(InputError, match="both have a parameter called 'weight'"):
        identify(OwnSoftmax(1, 1), experts)


def test_values_that_are_not_finite_are_refused():
    experts = CallableExperts(1, 1, function=lambda x, eta: torch.log(eta["b"] - 5.0) * x[..., 0], shapes={"b": ()})
    with pytest.raises(InputError, match="hold the parameters"):
        identify("softmax", experts)


def test_a_long_study_says_where_it_is(monkeypatch):
    """Networks take minutes: every step is named before it begins, and small atoms are quiet."""
    module = sys.modules["gatewise.theory.identifiability.identify"]
    lines = []
    module.identify("softmax", "linear", n_features=1, progress=lines.append)
    assert lines == []
    monkeypatch.setattr(module, "_QUICK", 0)
    module.identify("softmax", "linear", n_features=1, progress=lines.append)
    assert lines[0] == "10 derivatives at all parameters, with 50 digits"
    assert any(line.startswith("identity 1 of ") for line in lines)
    assert any("at a = 0" in line for line in lines)
    assert lines[-1] == "rank, weights and splits"
