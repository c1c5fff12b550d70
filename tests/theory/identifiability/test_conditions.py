"""Ranks of the families that the papers ask to be independent, at d = 2 and with two atoms."""

import pytest

from tests.theory.identifiability.cached import identify


def counts(gate, activation, which=0, experts="ridge", **options):
    expert_options = {"activation": activation} if experts == "ridge" else None
    verdict = identify(gate, experts, n_features=2, expert_options=expert_options, **options).conditions[which]
    return verdict.rank.rank, verdict.rank.n_functions, verdict.n_distinct


_OTHERS = [("relu", 18), ("sigmoid", 36), ("cube", 20), ("identity", 10)]


# Counted once before by another program, with exact arithmetic on polynomials and double precision otherwise.
@pytest.mark.parametrize(
    ("activation", "rank"),
    [
        ("tanh", 36),
        *(pytest.param(name, rank, marks=pytest.mark.slow) for name, rank in _OTHERS),
    ],
)
def test_strong_identifiability_behind_a_softmax_gate(activation, rank):
    found = counts("softmax", activation)
    assert found[:2] == (rank, 42)
    if rank == 36:
        # Every dependence is a repetition: the printed family is dependent, the set of its functions is not.
        assert found[2] == 36


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "rank"), [("gelu", 36), ("silu", 36)])
def test_strong_identifiability_of_other_smooth_units(activation, rank):
    assert counts("softmax", activation) == (rank, 42, rank)


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "rank"), [("tanh", 34), ("gelu", 34), ("relu", 18), ("identity", 10)])
def test_first_class_of_the_sigmoid_gate(activation, rank):
    assert counts("sigmoid", activation)[:2] == (rank, 40)


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "strong", "weak"), [("tanh", 40, 12), ("relu", 22, 10), ("cube", 28, 10)])
def test_both_definitions_of_the_perturbed_cosine(activation, strong, weak):
    assert counts("perturbed_cosine", activation)[:2] == (strong, 42)
    assert counts("perturbed_cosine", activation, which=1)[:2] == (weak, 12)


def test_what_the_paper_says_of_its_own_example_stands_beside_what_is_found():
    found = identify("softmax", "ridge", n_features=1)
    (verdict,) = found.conditions
    assert not verdict.literally
    assert verdict.as_set
    assert verdict.condition.status == "recalled"
    assert "to be checked against the paper" in verdict.condition.source
    assert "read literally it fails for the paper's own example, tanh(aᵀx + b), with rank 18 of 20" in verdict.remark
    linear = identify("softmax", "linear", n_features=1).conditions[0]
    assert not linear.as_set
    assert linear.remark.startswith("the paper says so too (fails)")


def test_the_condition_of_the_likelihood_fails_for_its_own_example():
    (verdict,) = identify("softmax", "linear", "gaussian", n_features=1).conditions
    assert "2505.10860, Definition 1" in verdict.condition.source
    # η₂ GELU(η₁x): ∂²h/∂η₂² = 0 and ∂h/∂η₁ = η₂ ∂²h/∂η₁∂η₂.
    assert verdict.example_rank.rank < verdict.example_distinct
    assert "its 13 different functions are dependent too" in verdict.remark


def test_a_combination_without_published_condition_is_asked_the_same_question():
    found = identify("laplace", "linear", "gaussian", n_features=1)
    assert [verdict.condition.title for verdict in found.conditions] == [
        "independence at order 1",
        "independence at order 2",
    ]
    assert all(verdict.condition.source.startswith("ours") for verdict in found.conditions)
