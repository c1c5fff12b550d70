"""The top-K gate around every gate: the shared checks, selection, ties, and what K = 1 leaves to be known."""

import itertools

import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.gates import (
    GATES,
    GaussianGate,
    HierarchicalGate,
    LaplaceGate,
    QuadraticGate,
    SoftmaxGate,
    TopKGate,
    build_gate,
)
from tests.gates.helpers import (
    check_all,
    check_finite,
    check_gradients,
    check_null_space,
    check_shapes,
    check_symmetries,
    check_unstandardise,
    features,
    flatten,
    inputs,
    log_weights_at,
    move,
    numerical_rank,
    randomise,
    unflatten,
)

INNER_OPTIONS = {"gaussian": {"joint": False}}
WITHOUT_SLOPE = {"gaussian", "hierarchical"}
INNER = sorted(set(GATES) - {"top_k"})
INNER_AND_SCORE = [
    (name, on) for name in INNER for on in ("slope", "logit") if on == "logit" or name not in WITHOUT_SLOPE
]


class Unnormalised(SoftmaxGate):
    normaliser = "none"


class Score(torch.nn.Module):
    def __init__(self, gate):
        super().__init__()
        self.gate = gate

    def forward(self, x):
        return self.gate.selection(x)


def selection_at(gate, parameters, x):
    return torch.func.functional_call(Score(gate), {f"gate.{n}": v for n, v in parameters.items()}, (x,))


def around(name, d, k, n_active, select_on):
    inner = build_gate(name, d, k, **INNER_OPTIONS.get(name, {}))
    return randomise(TopKGate(inner, n_active, select_on), scale=0.5)


def far_from_boundaries(gate, n):
    """The inputs whose last selected score leads most, so that no difference quotient crosses a boundary."""
    x = inputs(gate, n=20 * n)
    ordered = gate.selection_score(x).sort(-1, descending=True).values
    lead = ordered[:, gate.n_active - 1] - ordered[:, gate.n_active]
    return x[lead.argsort(descending=True)[:n]]


@pytest.mark.parametrize("select_on", ["slope", "logit"])
@pytest.mark.parametrize(("d", "k", "n_active"), [(1, 3, 2), (3, 3, 2), (3, 4, 3), (3, 2, 2)])
def test_contract_around_a_softmax_gate(d, k, n_active, select_on):
    gate = randomise(TopKGate(SoftmaxGate(d, k), n_active, select_on))
    check_all(gate, inputs(gate, n=150))
    assert sum(symmetry.dimension for symmetry in gate.symmetries()) == 1 + d
    assert gate.own_top_k == n_active
    assert gate.selected_only() == ()


@pytest.mark.parametrize("select_on", ["slope", "logit"])
@pytest.mark.parametrize("k", [3, 4])
def test_null_space_with_many_features(k, select_on):
    gate = randomise(TopKGate(SoftmaxGate(8, k), 2, select_on), scale=0.3)
    check_null_space(gate, inputs(gate, n=200))


@pytest.mark.parametrize("n_active", [1, 2])
@pytest.mark.parametrize(("name", "select_on"), INNER_AND_SCORE)
def test_symmetries_of_every_inner_gate_leave_the_selection(name, n_active, select_on):
    gate = around(name, 3, 3, n_active, select_on)
    x = inputs(gate, n=300)
    check_symmetries(gate, x)
    own, before = gate.own_parameters(), gate.selection(x)
    assert before.sum(-1).eq(n_active).all()
    for symmetry in gate.symmetries():
        moved = move(symmetry, own, torch.Generator().manual_seed(1), 0.7)
        assert torch.equal(selection_at(gate, moved, x), before), symmetry.name


@pytest.mark.parametrize("name", INNER)
def test_around_every_inner_gate(name):
    gate = around(name, 3, 3, 2, "logit")
    x = inputs(gate, n=200)
    check_shapes(gate)
    check_null_space(gate, x)
    check_unstandardise(gate, x)
    lonely = [parameter for parameter in gate.own_parameters() if "inner.inner.1" in parameter]
    check_gradients(gate, far_from_boundaries(gate, 9), rtol=1e-6, atol=1e-6, exempt=lonely)


@pytest.mark.parametrize(("name", "select_on"), INNER_AND_SCORE)
def test_all_experts_are_the_dense_gate_exactly(name, select_on):
    for k in (1, 3):
        gate = around(name, 2, k, k, select_on)
        x = inputs(gate)
        assert torch.equal(gate.logits(x), gate.inner.logits(x))
        assert torch.equal(gate(x), gate.inner(x))
        assert torch.equal(gate.identified(gate.own_parameters()), gate.inner.identified(gate.inner.own_parameters()))
        assert [s.dimension for s in gate.symmetries()] == [s.dimension for s in gate.inner.symmetries()]
        assert gate.affine_equivariant == gate.inner.affine_equivariant
        assert gate.selected_only() == ()


@pytest.mark.parametrize("select_on", ["slope", "logit"])
def test_weights_equal_the_formula(select_on):
    gate = randomise(TopKGate(SoftmaxGate(2, 4), 2, select_on))
    x = inputs(gate, n=40)
    slope = x @ gate.inner.weight.T
    logits = slope + gate.inner.bias
    score = slope if select_on == "slope" else logits
    differs = 0
    for row in range(len(x)):
        best = max(itertools.combinations(range(4), 2), key=lambda pair: score[row, list(pair)].sum().item())
        share = logits[row, list(best)].exp()
        expected = torch.zeros(4, dtype=torch.float64)
        expected[list(best)] = (share / share.sum()).detach()
        torch.testing.assert_close(gate(x[row]).exp().detach(), expected, rtol=1e-13, atol=0.0)
        differs += set(best) != set(logits[row].topk(2).indices.tolist())
    assert (differs > 0) == (select_on == "slope")


def test_selection_of_the_papers_example_depends_on_the_bias():
    gates = {on: TopKGate(SoftmaxGate(1, 2), 1, on) for on in ("slope", "logit")}
    x = torch.linspace(0.005, 0.995, 100).unsqueeze(-1)
    for gate in gates.values():
        gate.inner.assign_parameters({"weight": torch.tensor([[25.0], [0.0]]), "bias": torch.tensor([-8.0, 0.0])})
    assert gates["slope"].selection(x)[:, 0].all()
    assert torch.equal(gates["logit"].selection(x)[:, 0], x[:, 0] > 0.32)


def test_ties_go_to_the_lowest_index_in_batches_too():
    gate = TopKGate(SoftmaxGate(2, 40), 3)
    expected = torch.arange(40) < 3
    assert torch.equal(gate.selection(torch.ones(2)), expected)
    assert torch.equal(gate.selection(torch.ones(500, 2)), expected.expand(500, 40))
    with torch.no_grad():
        gate.inner.weight[30:] = 1.0
    assert gate.selection(torch.ones(4, 2)).nonzero()[:, 1].tolist() == [30, 31, 32] * 4


@pytest.mark.parametrize("select_on", ["slope", "logit"])
@pytest.mark.parametrize("n_active", [1, 2, 3])
def test_derivatives_are_finite_where_experts_are_left_out(n_active, select_on):
    gate = randomise(TopKGate(SoftmaxGate(2, 3), n_active, select_on))
    x = inputs(gate, n=8).requires_grad_(True)
    weights = gate(x).exp()
    loss = (weights * torch.arange(3.0)).sum()
    gradients = torch.autograd.grad(loss, [x, *gate.parameters()], create_graph=True)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    again = torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), [x, *gate.parameters()])
    assert all(torch.isfinite(gradient).all() for gradient in again)
    if n_active == 1:
        assert all((gradient == 0.0).all() for gradient in gradients)
    own = gate.own_parameters()

    def value(vector):
        return (log_weights_at(gate, unflatten(vector, own), x.detach()).exp() * torch.arange(3.0)).sum()

    assert torch.isfinite(torch.func.hessian(value)(flatten(own))).all()


def test_left_out_experts_get_no_gradient():
    gate = randomise(TopKGate(SoftmaxGate(2, 3), 2))
    x = inputs(gate, n=1)
    left_out = ~gate.selection(x)[0]
    gate(x)[0, gate.selection(x)[0]][0].backward()
    assert (gate.inner.weight.grad[left_out] == 0.0).all()
    assert (gate.inner.weight.grad[~left_out] != 0.0).all()


@pytest.mark.parametrize("d", [1, 3, 8])
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("select_on", ["slope", "logit"])
def test_one_active_softmax_expert(d, k, select_on):
    """No derivative: the null space is counted on what the boundaries are made of, the direction of the contrasts."""
    gate = randomise(TopKGate(SoftmaxGate(d, k), 1, select_on))
    names = ("inner.weight", "inner.bias")
    check_all(gate, inputs(gate), exempt=names, further=k * (1 + d) - sum(s.dimension for s in gate.symmetries()))
    assert gate.selected_only() == names
    expected = {"slope": [d, k, 1], "logit": [1, d, 1]}[select_on]
    assert [symmetry.dimension for symmetry in gate.symmetries()] == expected
    own = gate.own_parameters()
    jacobian = torch.func.jacrev(lambda vector: gate.identified(unflatten(vector, own)))(flatten(own))
    # The identified functions and the symmetries make up all parameters.
    assert numerical_rank(jacobian) == k * (1 + d) - sum(expected)
    terms = {quantity.term for quantity in gate.quantities(features(gate))}
    assert terms == {*features(gate), *(["(intercept)"] if select_on == "logit" else [])}
    assert gate.identified(own).norm().item() == pytest.approx(1.0, abs=1e-12)
    nothing = TopKGate(SoftmaxGate(d, k), 1, select_on)
    assert (nothing.identified(nothing.own_parameters()) == 0.0).all()


def test_the_boundary_determines_the_reported_contrasts():
    """With three regions that touch pairwise in the plane, boundary normals give the contrasts up to one factor."""
    gate = TopKGate(SoftmaxGate(2, 3), 1).double()
    angles = torch.tensor([0.3, 2.5, 4.4], dtype=torch.float64)
    slopes = torch.stack([angles.cos(), 1.5 * angles.sin()], dim=-1)
    gate.inner.assign_parameters({"weight": slopes, "bias": torch.tensor([3.0, 0.0, -3.0], dtype=torch.float64)})
    turn = torch.linspace(0.0, 2.0 * torch.pi, 200_001, dtype=torch.float64)
    circle = torch.stack([turn.cos(), turn.sin()], dim=-1)
    chosen = gate.selection(circle).to(torch.int8).argmax(-1)
    switches = (chosen[1:] != chosen[:-1]).nonzero()[:, 0]
    normals = {}
    for at in switches.tolist():
        pair = (chosen[at].item(), chosen[at + 1].item())
        away = torch.stack([-turn[at].sin(), turn[at].cos()])
        normals[tuple(sorted(pair))] = away if pair[0] > pair[1] else -away
    assert len(normals) == 3
    # c₀ − c₂ = s (normal of 0|2), c₁ − c₂ = t (normal of 1|2), and their difference is along the normal of 0|1.
    system = torch.stack([normals[0, 2], -normals[1, 2], -normals[0, 1]], dim=-1)
    factors = torch.linalg.svd(system).Vh[-1]
    factors = factors * torch.sign(factors[0])
    recovered = torch.cat([factors[0] * normals[0, 2], factors[1] * normals[1, 2]])
    expected = gate.identified(gate.own_parameters())
    torch.testing.assert_close(recovered / recovered.norm(), expected, rtol=1e-3, atol=1e-3)


def test_one_active_expert_of_other_gates_reports_nothing():
    gate = randomise(TopKGate(LaplaceGate(2, 3), 1))
    assert gate.quantities(["x", "z"]) == []
    assert gate.identified(gate.own_parameters()).shape == (0,)
    # The bias is not looked at; the bias translation of the inner gate is part of that.
    assert [(s.name, s.dimension) for s in gate.symmetries()] == [("no effect", 3)]
    check_symmetries(gate, inputs(gate))
    whole = randomise(TopKGate(LaplaceGate(2, 3), 1, "logit"))
    assert [(s.name, s.dimension) for s in whole.symmetries()] == [("translation", 1)]


def test_equivariance_depends_on_the_score():
    assert TopKGate(SoftmaxGate(2, 3), 2, "logit").affine_equivariant is True
    assert TopKGate(SoftmaxGate(2, 3), 2, "slope").affine_equivariant is False
    assert TopKGate(LaplaceGate(2, 3), 2, "logit").affine_equivariant is False


@pytest.mark.parametrize("name", ["softmax", "quadratic", "hierarchical"])
def test_built_by_name(name):
    gate = build_gate("top_k", 2, 4, inner=name, n_active=2, select_on="logit")
    assert gate.options() == {
        "inner": name,
        "n_active": 2,
        "select_on": "logit",
        "inner_options": build_gate(name, 2, 4).options(),
    }
    rebuilt = build_gate("top_k", 2, 4, **gate.options())
    assert list(rebuilt.own_parameters()) == list(gate.own_parameters())
    assert all(parameter.startswith("inner.") for parameter in gate.own_parameters())


def test_a_tree_inside_keeps_its_orders():
    gate = TopKGate(HierarchicalGate.of(1, 4), 2, "logit")
    assert gate.allows([2, 3, 0, 1])
    assert not gate.allows([0, 2, 1, 3])


def test_finite_at_singular_points():
    gate = randomise(TopKGate(LaplaceGate(2, 3), 3, "logit"))
    check_finite(gate, gate.inner.centre.detach())


@pytest.mark.parametrize("n_active", [0, 4, 1.5, True])
def test_impossible_k_is_refused(n_active):
    with pytest.raises(InputError, match="between 1 and 3"):
        TopKGate(SoftmaxGate(1, 3), n_active)


def test_wrong_inner_gates_and_options_are_refused():
    with pytest.raises(InputError, match="keeps 2 experts already"):
        TopKGate(TopKGate(SoftmaxGate(1, 3), 2), 1)
    with pytest.raises(InputError, match="not normalised"):
        TopKGate(Unnormalised(1, 3), 1)
    with pytest.raises(InputError, match="joint model"):
        TopKGate(GaussianGate(1, 3), 1, "logit")
    for name in WITHOUT_SLOPE:
        with pytest.raises(InputError, match=r"no score without bias.*select_on='logit'"):
            TopKGate(build_gate(name, 1, 3, **INNER_OPTIONS.get(name, {})), 1)
    with pytest.raises(InputError, match="'slope' or 'logit', not 'bias'"):
        TopKGate(SoftmaxGate(1, 3), 1, "bias")
    with pytest.raises(InputError, match="cannot take the options"):
        TopKGate.of(1, 3, inner_options={"monomial": True})
    assert TopKGate(QuadraticGate(1, 3), 1).select_on == "slope"
