"""Trees of gates: the shared checks, brute force, the orders that a tree allows, and plain data."""

import itertools
import json
import math

import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.gates import (
    CosineGate,
    GaussianGate,
    HierarchicalGate,
    LaplaceGate,
    QuadraticGate,
    SoftmaxGate,
    TopKGate,
    build_gate,
)
from gatewise.gates.base import Gate
from tests.gates.helpers import (
    check_all,
    check_atoms,
    check_basis,
    check_finite,
    check_gradients,
    check_identified_matches_quantities,
    check_normalised,
    check_null_space,
    check_options_round_trip,
    check_permutations,
    check_route,
    check_shapes,
    check_symmetries,
    check_unstandardise,
    inputs,
    log_weights_at,
    randomise,
)


class Unnormalised(SoftmaxGate):
    normaliser = "none"


def softmax_tree(d, sizes):
    return HierarchicalGate(SoftmaxGate(d, len(sizes)), [SoftmaxGate(d, size) for size in sizes])


def mixed_tree(d):
    """Three levels, softmax and Laplace, and groups of one, three and two experts."""
    deep = HierarchicalGate(LaplaceGate(d, 2), [SoftmaxGate(d, 2), SoftmaxGate(d, 1)])
    return HierarchicalGate(SoftmaxGate(d, 3), [LaplaceGate(d, 1), deep, LaplaceGate(d, 2)])


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("sizes", [[2], [1, 1], [1, 2], [2, 2]])
def test_contract_of_softmax_trees(d, sizes):
    gate = randomise(softmax_tree(d, sizes))
    alone = tuple(f"inner.{g}.{name}" for g, size in enumerate(sizes) if size == 1 for name in ("weight", "bias"))
    outer = ("outer.weight", "outer.bias") if len(sizes) == 1 else ()
    check_all(gate, inputs(gate), exempt=(*alone, *outer))
    assert sum(symmetry.dimension for symmetry in gate.symmetries()) == (1 + d) * (1 + len(sizes))


@pytest.mark.parametrize(
    ("outer", "inner", "translations"),
    [("softmax", "laplace", 4 + 2), ("laplace", "softmax", 1 + 8), ("laplace",) * 2 + (3,)],
)
def test_contract_with_laplace_levels(outer, inner, translations):
    gate = randomise(HierarchicalGate.of(3, 4, outer=outer, inner=inner))
    check_all(gate, inputs(gate, n=150))
    assert sum(symmetry.dimension for symmetry in gate.symmetries()) == translations
    assert gate.affine_equivariant is False


def test_contract_of_a_deep_tree_with_different_parts():
    gate = randomise(mixed_tree(2))
    x = inputs(gate, n=150)
    lonely = ("inner.0.centre", "inner.0.bias", "inner.1.inner.1.weight", "inner.1.inner.1.bias")
    check_shapes(gate)
    check_gradients(gate, x[:9], exempt=lonely)
    for check in (check_normalised, check_symmetries, check_null_space, check_permutations, check_unstandardise):
        check(gate, x)
    check_basis(gate, x)
    check_route(gate, x)
    check_options_round_trip(gate)
    check_identified_matches_quantities(gate)


@pytest.mark.parametrize("k", [2, 3])
def test_null_space_with_many_features(k):
    gate = randomise(HierarchicalGate.of(8, k), scale=0.3)
    check_null_space(gate, inputs(gate, n=100, scale=1.0))


def test_weights_are_products_of_outer_and_inner_weights():
    gate = randomise(softmax_tree(2, [2, 3]))
    x = inputs(gate, n=5)

    def softmax(module, row):
        scores = [
            math.exp(sum(w * v for w, v in zip(weight, row, strict=True)) + bias)
            for weight, bias in zip(module.weight.tolist(), module.bias.tolist(), strict=True)
        ]
        return [score / sum(scores) for score in scores]

    for row in x.tolist():
        outer = softmax(gate.outer, row)
        expected = [outer[g] * weight for g in range(2) for weight in softmax(gate.inner[g], row)]
        result = gate(torch.tensor(row, dtype=torch.float64)).exp()
        torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float64), rtol=1e-13, atol=0.0)
    torch.testing.assert_close(gate.logits(x), gate(x), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("inner", [SoftmaxGate, LaplaceGate])
def test_one_expert_per_group_is_the_outer_gate(inner):
    gate = randomise(HierarchicalGate(SoftmaxGate(2, 3), [inner(2, 1) for _ in range(3)]))
    plain = SoftmaxGate(2, 3).double()
    plain.assign_parameters({"weight": gate.outer.weight.detach(), "bias": gate.outer.bias.detach()})
    x = inputs(gate)
    torch.testing.assert_close(gate(x), plain(x), rtol=1e-14, atol=1e-14)
    assert torch.equal(gate.identified(gate.own_parameters()), plain.identified(plain.own_parameters()))
    parts = {(q.component.removeprefix("outer "), q.term) for q in gate.quantities(["x", "z"])}
    assert parts == {(q.component, q.term) for q in plain.quantities(["x", "z"])}


def test_a_tree_allows_the_orders_of_the_tree_only():
    def allowed(gate):
        return {order for order in itertools.permutations(range(gate.n_experts)) if gate.allows(order)}

    # 2 orders in each of two groups, and their exchange.
    assert len(allowed(softmax_tree(1, [2, 2]))) == 8
    assert (2, 3, 0, 1) in allowed(softmax_tree(1, [2, 2]))
    assert (0, 2, 1, 3) not in allowed(softmax_tree(1, [2, 2]))
    # Groups of different sizes stay at their places.
    assert allowed(softmax_tree(1, [1, 2])) == {(0, 1, 2), (0, 2, 1)}
    # So do groups of different kinds.
    kinds = HierarchicalGate(SoftmaxGate(1, 2), [SoftmaxGate(1, 2), LaplaceGate(1, 2)])
    assert allowed(kinds) == {(0, 1, 2, 3), (1, 0, 2, 3), (0, 1, 3, 2), (1, 0, 3, 2)}
    # Options and buffers make a difference of kind too.
    quadratic = [QuadraticGate(1, 1), QuadraticGate(1, 1, monomial=True)]
    assert allowed(HierarchicalGate(SoftmaxGate(1, 2), quadratic)) == {(0, 1)}
    tempered = HierarchicalGate.of(1, 2, inner="dense_to_sparse", inner_options={"free_temperature": False})
    assert len(allowed(tempered)) == 2
    tempered.inner[0].set_temperature(0.5)
    assert allowed(tempered) == {(0, 1)}
    # Groups of one are reordered freely, but not with a pair.
    assert len(allowed(softmax_tree(1, [1, 2, 1]))) == 4
    nested = HierarchicalGate(SoftmaxGate(1, 2), [softmax_tree(1, [1, 1]), softmax_tree(1, [1, 1])])
    assert len(allowed(nested)) == 8
    with pytest.raises(InputError, match="breaks the tree"):
        kinds.permute(kinds.own_parameters(), [2, 3, 0, 1])


@pytest.mark.parametrize("sizes", [[2, 2], [1, 2, 1], [2, 1, 2]])
def test_sorted_order_is_the_same_from_every_allowed_order(sizes):
    gate = softmax_tree(1, sizes)
    k = gate.n_experts
    key = np.random.default_rng(5).uniform(size=k)
    found = gate.sorted_order(key)
    assert gate.allows(found)
    for order in itertools.permutations(range(k)):
        if gate.allows(order):
            again = gate.sorted_order(key[list(order)])
            assert [order[i] for i in again] == found
    ordered = key[found]
    starts = np.cumsum([0, *sizes])
    groups = [ordered[a:b] for a, b in itertools.pairwise(starts)]
    assert all((np.diff(group) <= 0.0).all() for group in groups)
    for one, other in itertools.combinations(range(len(sizes)), 2):
        if sizes[one] == sizes[other]:
            assert groups[one].sum() >= groups[other].sum()


def test_sorted_order_with_a_tree_as_outer_gate_keeps_that_tree():
    outer = softmax_tree(1, [2, 1])
    inner = [SoftmaxGate(1, 1) for _ in range(3)]
    key = np.array([0.1, 0.2, 0.9])
    assert HierarchicalGate(outer, inner).sorted_order(key) == [1, 0, 2]
    # Its order and the kinds of groups cannot both be kept: the groups stay, experts are sorted within them.
    odd = HierarchicalGate(softmax_tree(1, [2, 2]), [SoftmaxGate(1, size) for size in (1, 1, 2, 1)])
    key = np.array([0.1, 0.2, 0.1, 0.3, 0.9])
    found = odd.sorted_order(key)
    assert odd.allows(found)
    assert found == [0, 1, 3, 2, 4]


def test_unstandardise_needs_equivariant_parts():
    assert softmax_tree(2, [2, 2]).affine_equivariant is True
    assert HierarchicalGate(SoftmaxGate(1, 2), [SoftmaxGate(1, 2), LaplaceGate(1, 2)]).affine_equivariant is False
    gate = randomise(HierarchicalGate.of(2, 4, outer="softmax", inner="quadratic"))
    check_unstandardise(gate, inputs(gate))


def test_names_of_quantities_say_where_in_the_tree():
    names = list(dict.fromkeys(q.component for q in mixed_tree(1).quantities(["x"])))
    assert names == [
        "outer gate 1 vs 3",
        "outer gate 2 vs 3",
        "inner gate 2: outer gate 1",
        "inner gate 2: outer gate 2",
        "inner gate 2: outer gate 1 vs 2",
        "inner gate 2: inner gate 1: 1 vs 2",
        "inner gate 3: 1",
        "inner gate 3: 2",
        "inner gate 3: 1 vs 2",
    ]


def test_atoms_have_one_row_per_expert():
    gate = randomise(softmax_tree(2, [1, 2]))
    atoms = gate.atoms()
    assert torch.equal(atoms["gate_outer_slope"], gate.outer.weight[[0, 1, 1]])
    assert torch.equal(atoms["gate_inner_bias"], torch.cat([gate.inner[0].bias, gate.inner[1].bias]))
    check_atoms(gate)
    kinds = HierarchicalGate(SoftmaxGate(2, 2), [SoftmaxGate(2, 1), LaplaceGate(2, 2)]).atoms()
    assert set(kinds) == {
        "gate_outer_bias",
        "gate_outer_slope",
        "gate_inner_1_bias",
        "gate_inner_1_slope",
        "gate_inner_2_bias",
        "gate_inner_2_centre",
    }


def test_plain_data_build_trees_of_any_depth():
    assert [gate.n_experts for gate in HierarchicalGate.of(1, 5).inner] == [3, 2]
    assert [gate.n_experts for gate in HierarchicalGate.of(1, 1).inner] == [1]
    gate = build_gate("hierarchical", 2, 6, groups=[1, 3, 2], inner="laplace")
    assert [type(part) for part in gate.inner] == [LaplaceGate] * 3
    tables = [
        {"name": "quadratic", "n_experts": 2, "options": {"monomial": True}},
        {"name": "hierarchical", "n_experts": 3, "options": {"groups": [2, 1], "outer": "laplace"}},
    ]
    gate = build_gate("hierarchical", 2, 5, inner=tables)
    assert gate.inner[0].monomial is True
    assert isinstance(gate.inner[1].outer, LaplaceGate)
    plain = json.loads(json.dumps(gate.options()))
    again = build_gate("hierarchical", 2, 5, **plain)
    assert list(again.own_parameters()) == list(gate.own_parameters())
    assert again.options() == plain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": [2, 2]}, "hold 4 experts, not 3"),
        ({"groups": [3, 0]}, "at least one expert, not 0"),
        ({"groups": [1.5, 1.5]}, "at least one expert, not 1.5"),
        ({"outer": "nothing"}, "unknown gate 'nothing'"),
        ({"inner": "nothing"}, "unknown gate 'nothing'"),
        ({"inner": [{"name": "softmax"}]}, "name, n_experts and options"),
        ({"inner": [{"name": "softmax", "n_experts": 3, "bias": 1}]}, "name, n_experts and options"),
        ({"inner": [{"name": "softmax", "n_experts": 3}], "groups": [3]}, "leave out the others"),
        ({"inner_options": {"unknown": 1}}, "cannot take the options"),
        ({"inner_options": {"n_features": 1}}, "the whole gate's sizes say it"),
        ({"outer_options": [1]}, "must be a table"),
        ({"inner": "top_k", "inner_options": {"n_active": 1}}, "put a top-K gate around the tree"),
        ({"inner": "gaussian"}, "joint model of the inputs"),
    ],
)
def test_wrong_plain_data_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        HierarchicalGate.of(2, 3, **options)


def test_wrong_parts_are_refused():
    def refused(message, outer, inner):
        with pytest.raises(InputError, match=message):
            HierarchicalGate(outer, inner)

    two = [SoftmaxGate(1, 2), SoftmaxGate(1, 2)]
    refused("has 3 groups, but there are 2 inner gates", SoftmaxGate(1, 3), two)
    refused("takes 2 inputs and the outer gate 1", SoftmaxGate(1, 2), [SoftmaxGate(1, 2), SoftmaxGate(2, 2)])
    refused("inner gate 2 has no experts", SoftmaxGate(1, 2), [SoftmaxGate(1, 2), SoftmaxGate(1, 0)])
    refused("is not normalised", SoftmaxGate(1, 2), [SoftmaxGate(1, 2), Unnormalised(1, 2)])
    refused("joint model", GaussianGate(1, 2), two)
    refused("around the tree", TopKGate(SoftmaxGate(1, 2), 1), two)
    refused("must be a Gate", SoftmaxGate(1, 2), [SoftmaxGate(1, 2), torch.nn.Linear(1, 2)])
    shared = SoftmaxGate(1, 2)
    refused("inner gate 1 and inner gate 2 share", SoftmaxGate(1, 2), [shared, shared])
    refused("the outer gate and inner gate 1 share", shared, [shared, SoftmaxGate(1, 2)])
    tied = SoftmaxGate(1, 2)
    tied.bias = shared.bias
    refused("inner gate 1 and inner gate 2 share", SoftmaxGate(1, 2), [shared, tied])


def test_directions_of_a_part_settle_at_length_one():
    gate = randomise(HierarchicalGate(SoftmaxGate(2, 2), [CosineGate(2, 2), SoftmaxGate(2, 1)]))
    own, x = gate.own_parameters(), inputs(gate)
    scales = [symmetry for symmetry in gate.symmetries() if symmetry.settles is not None]
    assert [symmetry.name for symmetry in scales] == ["scale"]
    settled = scales[0].act(own, scales[0].settling(own))
    torch.testing.assert_close(settled["inner.0.weight"].norm(dim=1), torch.ones(2).double())
    assert not torch.allclose(own["inner.0.weight"].norm(dim=1), torch.ones(2).double(), rtol=1e-2)
    torch.testing.assert_close(log_weights_at(gate, settled, x), gate(x).detach(), rtol=1e-12, atol=1e-12)


def test_translations_pin_the_last_expert_of_each_part():
    gate = randomise(mixed_tree(2))
    parameters, x = gate.own_parameters(), inputs(gate)
    pinned = [symmetry for symmetry in gate.symmetries() if symmetry.pins is not None]
    assert [symmetry.pins for symmetry in pinned] == [
        "outer.bias",
        "outer.weight",
        "inner.1.outer.bias",
        "inner.1.inner.0.bias",
        "inner.1.inner.0.weight",
        "inner.1.inner.1.bias",
        "inner.1.inner.1.weight",
        "inner.2.bias",
    ]
    for symmetry in pinned:
        parameters = symmetry.act(parameters, -parameters[symmetry.pins][-1].reshape(-1))
    assert all((parameters[symmetry.pins][-1] == 0.0).all() for symmetry in pinned)
    torch.testing.assert_close(log_weights_at(gate, parameters, x), gate(x).detach(), rtol=1e-12, atol=1e-12)


def test_a_tree_of_laplace_gates_is_finite_at_its_centres():
    gate = randomise(HierarchicalGate.of(2, 4, outer="laplace", inner="laplace"))
    check_finite(gate, torch.cat([gate.outer.centre, gate.inner[0].centre]).detach())
    assert isinstance(gate.outer, Gate)
