"""What the table of rates says was found by algebra or by an exact example: each one shown again."""

import itertools
import math

import numpy as np
import pytest
import sympy
import torch

from gatewise.model import MixtureOfExperts
from gatewise.theory.rate_table import rate_table

ROWS = torch.from_numpy(np.random.default_rng(0).uniform(-1.5, 1.5, size=(200, 2)))


def theorem(identifier):
    return next(t for t in rate_table().theorems if t.id == identifier)


def random_model(gate, experts, family="gaussian", seed=0, **options):
    model = MixtureOfExperts.build(gate, experts, family, n_features=2, n_experts=3, **options).double()
    generator = torch.Generator().manual_seed(seed)
    for part in (model.gate, model.experts):
        own = part.own_parameters()
        part.assign_parameters(
            {name: torch.randn(value.shape, generator=generator, dtype=torch.float64) for name, value in own.items()}
        )
    return model.requires_grad_(False)


def split(own, first=0, second=1):
    """Gate parameters in which the atoms `first` and `second` are one, each with half of its weight."""
    changed = {}
    for name, value in own.items():
        value = value.clone()
        if value.shape[0] == 3:
            value[second] = value[first]
            if name in ("bias", "log_weight"):
                value[first] -= math.log(2.0)
                value[second] -= math.log(2.0)
        changed[name] = value
    return changed


def displaced(own, names, by, first=0, second=1):
    """Expert parameters in which the two atoms stand at ±Δ from the first one's."""
    changed = {}
    for name, value in own.items():
        value = value.clone()
        value[second] = value[first]
        if name in names:
            step = by * torch.arange(1, value[first].numel() + 1, dtype=torch.float64).reshape(value[first].shape)
            value[first], value[second] = value[first] + step, value[second] - step
        changed[name] = value
    return changed


@pytest.mark.parametrize("gate", theorem("least-squares-linear-in-parameters").gates)
@pytest.mark.parametrize("experts", theorem("least-squares-linear-in-parameters").experts)
def test_experts_that_are_linear_in_their_parameters_are_flat_in_least_squares(gate, experts):
    model = random_model(gate, experts)
    model.gate.assign_parameters(split(model.gate.own_parameters()))
    own = model.experts.own_parameters()
    means = []
    for by in (0.0, 0.7):
        model.experts.assign_parameters(displaced(own, ("weight", "bias"), by))
        means.append(model.mean(ROWS))
    assert torch.allclose(means[0], means[1], rtol=0.0, atol=1e-12)
    # The Gaussian likelihood tells them apart.
    y = torch.zeros(len(ROWS), dtype=torch.float64)
    densities = []
    for by in (0.0, 0.7):
        model.experts.assign_parameters(displaced(own, ("weight", "bias"), by))
        densities.append(model.log_prob(ROWS, y))
    assert (densities[0] - densities[1]).abs().max() > 1e-3


def test_an_output_weight_is_flat_in_least_squares():
    """softmax-least-squares-strong, witness v; without one (v = 1 displaced in a and b) it is not."""
    assert any(f.kind == "witness" and f.parameter == "v" for f in theorem("softmax-least-squares-strong").findings)
    options = {"expert_options": {"hidden": 1, "activation": "tanh"}}
    model = random_model("softmax", "feed_forward", **options)
    model.gate.assign_parameters(split(model.gate.own_parameters()))
    own = model.experts.own_parameters()
    model.experts.assign_parameters(displaced(own, (), 0.0))
    truth = model.mean(ROWS)
    model.experts.assign_parameters(displaced(own, ("outer_weight",), 0.7))
    assert torch.allclose(model.mean(ROWS), truth, rtol=0.0, atol=1e-12)
    model.experts.assign_parameters(displaced(own, ("inner_weight", "inner_bias"), 0.7))
    assert (model.mean(ROWS) - truth).abs().max() > 1e-2


@pytest.mark.parametrize("gate", ["softmax", "modified_softmax"])
def test_constant_class_experts_mix_exactly(gate):
    """multinomial-modified-over, witness b: a = 0, one gate slope, different b, the same class probabilities."""
    assert any(f.kind == "witness" for f in theorem("multinomial-modified-over").findings)
    model = random_model(gate, "linear", "categorical", family_options={"n_classes": 3})
    model.gate.assign_parameters(split(model.gate.own_parameters()))
    own = {name: value.clone() for name, value in model.experts.own_parameters().items()}
    own["weight"][:2] = 0.0
    target = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    step = torch.tensor([0.1, -0.15, 0.05], dtype=torch.float64)

    def logits(shares):
        return (shares[:2] / shares[2]).log()

    y = torch.arange(len(ROWS)) % 3
    densities = []
    for first, second in ((target, target), (target + step, target - step)):
        own["bias"][0], own["bias"][1] = logits(first), logits(second)
        model.experts.assign_parameters(own)
        densities.append(model.log_prob(ROWS, y))
    assert torch.allclose(densities[0], densities[1], rtol=0.0, atol=1e-12)
    # Where the expert depends on x, the same displacement shows.
    own["weight"][:2] = 0.5
    model.experts.assign_parameters(own)
    shown = model.log_prob(ROWS, y)
    own["bias"][0], own["bias"][1] = logits(target), logits(target)
    model.experts.assign_parameters(own)
    assert (shown - model.log_prob(ROWS, y)).abs().max() > 1e-3


@pytest.mark.parametrize("gate", ["softmax", "modified_softmax"])
def test_slopes_of_class_experts_mix_exactly_where_half_of_the_probability_lies_in_some_classes(gate):
    """multinomial-over-regime-2 and -modified-over, witness a: σ(z) + σ(−z) = 1."""
    for name in ("multinomial-over-regime-2", "multinomial-modified-over"):
        assert any(f.kind == "witness" and f.parameter == "a" for f in theorem(name).findings)
    model = random_model(gate, "linear", "categorical", family_options={"n_classes": 3})
    model.gate.assign_parameters(split(model.gate.own_parameters()))
    own = {name: value.clone() for name, value in model.experts.own_parameters().items()}
    y = torch.arange(len(ROWS)) % 3
    # Class probabilities (1/2, 1/4, 1/4), and others none of which add up to a half.
    for bias, same in (([math.log(2.0), 0.0], True), ([0.3, -0.4], False)):
        own["bias"][:2] = torch.tensor(bias, dtype=torch.float64)
        densities = []
        for by in (0.0, 0.5):
            own["weight"][:2] = 0.0
            own["weight"][0, 0], own["weight"][1, 0] = by, -by
            model.experts.assign_parameters(own)
            densities.append(model.log_prob(ROWS, y))
        gap = (densities[0] - densities[1]).abs().max()
        assert gap < 1e-12 if same else gap > 1e-3


def test_the_second_order_of_a_doubled_constant_class_expert():
    """multinomial-over-regime-2, algebra: p_s ((a_s − ā)² − Var a), 0 for all s only between groups of probability ½.

    The sum over classes of what is of second order in Δβ₁ and a is Σ w Δβ₁², so Δβ₁ = 0 before anything else.
    """
    beta, x, *slopes = sympy.symbols("beta x a1 a2 a3", real=True)
    p = sympy.symbols("p1 p2 p3", positive=True)
    scores = [share * sympy.exp(slope * x) for share, slope in zip(p, slopes, strict=True)]
    atom = [sympy.exp(beta * x) * score / sum(scores) for score in scores]
    one = {p[2]: 1 - p[0] - p[1]}
    second = [sympy.diff(each, x, 2).subs(x, 0).subs(one) for each in atom]
    assert sympy.simplify(sum(second) - beta**2) == 0
    shares = [each.subs(one) for each in p]
    mean = sum(share * slope for share, slope in zip(shares, slopes, strict=True))
    variance = sum(share * (slope - mean) ** 2 for share, slope in zip(shares, slopes, strict=True))
    for share, slope, each in zip(shares, slopes, second, strict=True):
        assert sympy.simplify(each.subs(beta, 0) - share * ((slope - mean) ** 2 - variance)) == 0

    def least(probabilities):
        """Of the norm of the second-order term over slopes of length 1, the last class's slope being 0."""
        weights = np.array(probabilities)
        angle = np.linspace(0.0, np.pi, 100_001)
        slope = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)])
        centred = slope - weights @ slope
        return np.linalg.norm(weights[:, None] * (centred**2 - weights @ centred**2), axis=0).min()

    assert least([0.5, 0.25, 0.25]) < 1e-12
    assert least([0.447, 0.222, 0.331]) > 1e-2
    assert least([0.62, 0.15, 0.23]) > least([0.447, 0.222, 0.331])


def test_an_expert_without_input_is_flat_behind_a_sigmoid_gate_of_one_half():
    """sigmoid-sparse-input-free, witness: ½ tanh b = w tanh(b + δᵀx) + σ(−2b − 2δᵀx) tanh b with w = ½ tanh b."""
    assert any(f.kind == "witness" for f in theorem("sigmoid-sparse-input-free").findings)
    options = {"gate_options": {"normalised": False}, "expert_options": {"hidden": 1, "activation": "tanh"}}
    model = MixtureOfExperts.build("sigmoid", "feed_forward", "gaussian", n_features=2, n_experts=2, **options)
    model.double().requires_grad_(False)
    b, delta = 0.4, torch.tensor([0.3, -0.2], dtype=torch.float64)
    own = model.experts.own_parameters()
    moved = torch.stack([delta, torch.zeros(2, dtype=torch.float64)]).reshape(own["inner_weight"].shape)
    model.experts.assign_parameters(
        {
            **own,
            "inner_weight": moved,
            "inner_bias": torch.full_like(own["inner_bias"], b),
            "outer_weight": torch.ones_like(own["outer_weight"]),
        }
    )
    ranges = []
    for weight in (0.5 * math.tanh(b), 0.6 * math.tanh(b)):
        bias = torch.tensor([math.log(weight / (1.0 - weight)), -2.0 * b], dtype=torch.float64)
        model.gate.assign_parameters({"weight": torch.stack([torch.zeros_like(delta), -2.0 * delta]), "bias": bias})
        mean = model.mean(ROWS)
        ranges.append(float(mean.max() - mean.min()))
        if weight == 0.5 * math.tanh(b):
            assert torch.allclose(mean, torch.full_like(mean, 0.5 * math.tanh(b)), rtol=0.0, atol=1e-12)
    # With another weight it depends on x.
    assert ranges[0] < 1e-12
    assert ranges[1] > 1e-3


def test_gate_and_class_experts_do_not_interact_over_all_classes():
    """multinomial-over-regime-2, algebra: ∂u/∂β₁ = C ∂u/∂a at a = 0 class by class, with a factor for each."""
    assert any(f.kind == "algebra" for f in theorem("multinomial-over-regime-2").findings)
    x, beta, *rest = sympy.symbols("x beta a1 a2 b1 b2", real=True)
    slopes, intercepts = rest[:2], rest[2:]
    scores = [*(sympy.exp(a * x + b) for a, b in zip(slopes, intercepts, strict=True)), sympy.Integer(1)]
    u = [sympy.exp(beta * x) * score / sum(scores) for score in scores]
    constant = dict.fromkeys(slopes, 0)
    by_gate = [sympy.diff(each, beta).subs(constant) for each in u]
    for slope in slopes:
        by_slope = [sympy.diff(each, slope).subs(constant) for each in u]
        ratios = [sympy.simplify(one / other) for one, other in zip(by_gate, by_slope, strict=True)]
        assert all(x not in ratio.free_symbols for ratio in ratios)
        assert sympy.simplify(sum(by_slope)) == 0
    assert sympy.simplify(sum(by_gate) - x * sympy.exp(beta * x)) == 0
    # Nor is it a combination of the derivatives in both slopes.
    columns = sympy.Matrix(
        [[*row] for row in zip(*([sympy.diff(e, a).subs(constant) for e in u] for a in slopes), by_gate, strict=True)]
    )
    assert columns.subs({x: 1, beta: 0, intercepts[0]: sympy.log(2), intercepts[1]: sympy.log(3)}).rank() == 3


def test_the_temperature_is_flat():
    """temperature-slow, witness β₁, τ; and dividing by τ gives the softmax gate."""
    model = random_model("dense_to_sparse", "linear")
    own = model.gate.own_parameters()
    before = model.log_weights(ROWS)
    c = 1.7
    model.gate.assign_parameters(
        {
            "weight": c * own["weight"],
            "bias": c * own["bias"],
            "log_temperature": own["log_temperature"] + math.log(c),
        }
    )
    assert torch.allclose(model.log_weights(ROWS), before, rtol=0.0, atol=1e-12)
    softmax = random_model("softmax", "linear")
    tau = own["log_temperature"].exp()
    softmax.gate.assign_parameters({"weight": own["weight"] / tau, "bias": own["bias"] / tau})
    assert torch.allclose(softmax.log_weights(ROWS), before, rtol=0.0, atol=1e-12)


def test_a_cosine_gate_does_not_see_lengths_and_a_perturbed_one_does():
    for gate, seen in (("cosine", False), ("perturbed_cosine", True)):
        model = random_model(gate, "linear")
        own = model.gate.own_parameters()
        before = model.log_weights(ROWS)
        longer = own["weight"] * torch.tensor([[2.0], [1.0], [1.0]], dtype=torch.float64)
        model.gate.assign_parameters({**own, "weight": longer})
        assert bool((model.log_weights(ROWS) - before).abs().max() > 1e-3) is seen


def test_a_perturbed_cosine_gate_sees_only_differences():
    """perturbed-cosine-exact, modulus differs: β ↦ β/(‖β‖ + τ₁) moved by one vector for all experts."""
    model = random_model("perturbed_cosine", "linear", gate_options={"tau1": 0.3, "tau2": 0.1})
    own = model.gate.own_parameters()
    before = model.log_weights(ROWS)
    beta = 0.3 * own["weight"]
    model.gate.assign_parameters({**own, "weight": beta})
    before = model.log_weights(ROWS)
    length = beta.norm(dim=1, keepdim=True)
    moved = beta / (length + 0.3) + torch.tensor([0.05, -0.03], dtype=torch.float64)
    size = moved.norm(dim=1, keepdim=True)
    assert size.max() < 1.0
    back = moved / size * (0.3 * size / (1.0 - size))
    model.gate.assign_parameters({**own, "weight": back})
    assert torch.allclose(model.log_weights(ROWS), before, rtol=0.0, atol=1e-12)
    assert (back - beta).abs().max() > 1e-2


def test_the_sigmoid_gates_identities():
    """sigmoid-sparse-input-free and sigmoid-sparse-polynomial."""
    x, b1, b0, a, b = sympy.symbols("x b1 b0 a b")

    def sigmoid(z):
        return 1 / (1 + sympy.exp(-z))

    linear = sigmoid(b1 * x + b0) * (a * x + b)
    assert sympy.simplify(sympy.diff(linear, b1, b) - sympy.diff(linear, a, b0)) == 0
    input_free = sigmoid(b1 * x + b0) * sympy.tanh(a * x + b)
    ratio = sympy.simplify((sympy.diff(input_free, b1) / sympy.diff(input_free, a)).subs({b1: 0, a: 0}))
    assert x not in ratio.free_symbols
    assert (
        sympy.simplify(ratio.rewrite(sympy.exp) - (sympy.sinh(2 * b) / (2 * (sympy.exp(b0) + 1))).rewrite(sympy.exp))
        == 0
    )


def test_the_quadratic_gates_identity():
    """quadratic-polynomial: ∂(Eh)/∂A = ∂²(Eh)/∂b∂b for every expert."""
    x, second, first, c = sympy.symbols("x A b c")
    h = sympy.Function("h")(x)
    weighted = sympy.exp(second * x**2 + first * x + c) * h
    assert sympy.simplify(sympy.diff(weighted, second) - sympy.diff(weighted, first, first)) == 0


def test_softmax_and_linear_experts_interact():
    """The identity behind softmax-gaussian-over: ∂u/∂a = ∂²u/∂β₁∂b, and ∂²f/∂b² = 2 ∂f/∂σ²."""
    x, y, beta, a, b = sympy.symbols("x y beta a b", real=True)
    variance = sympy.Symbol("v", positive=True)
    u = sympy.exp(beta * x) * sympy.exp(-((y - a * x - b) ** 2) / (2 * variance)) / sympy.sqrt(variance)
    assert sympy.simplify(sympy.diff(u, a) - sympy.diff(u, beta, b)) == 0
    assert sympy.simplify(sympy.diff(u, b, b) - 2 * sympy.diff(u, variance)) == 0


def test_homogeneous_experts_fail_the_literal_condition():
    """perturbed-cosine-over, algebra: h = a ∂h/∂a + b ∂h/∂b for ReLU (where it is smooth) and, over p, for powers."""
    x, a, b = sympy.symbols("x a b")
    for power in (1, 2, 3):
        h = (a * x + b) ** power
        assert sympy.expand(a * sympy.diff(h, a) + b * sympy.diff(h, b) - power * h) == 0


def test_an_expert_that_is_selected_nowhere_changes_nothing():
    """top-k-density-over, witness: three experts of which one is active have the density of two, with a cell of two."""
    densities, x = [], torch.linspace(-1.0, 1.0, 400, dtype=torch.float64).unsqueeze(-1)
    y = torch.from_numpy(np.random.default_rng(2).normal(size=400))
    for k in (2, 3):
        model = MixtureOfExperts.build(
            "top_k", "linear", "gaussian", 1, k, gate_options={"inner": "softmax", "n_active": 1}
        ).double()
        slopes = torch.tensor([[25.0], [0.0], [10.0]], dtype=torch.float64)[:k]
        model.gate.assign_parameters({"inner.weight": slopes, "inner.bias": torch.zeros(k, dtype=torch.float64)})
        # The third expert is near the first, so that the first true one has a cell of two.
        weight = torch.tensor([[-2.0], [2.0], [-1.9]], dtype=torch.float64)[:k]
        model.experts.assign(torch.cat([weight, weight], 1), torch.zeros(k, dtype=torch.float64))
        with torch.no_grad():
            densities.append(model.log_prob(x, y))
    torch.testing.assert_close(densities[0], densities[1], rtol=0.0, atol=0.0)
    assert "selected nowhere" in theorem("top-k-density-over").findings[0].text


def test_the_orders_on_which_the_proof_of_exponent_2_rests():
    """softmax-gaussian-over, algebra: in the expansion by x^ℓ₁ exp(β₁x) ∂^ℓ₂f, the coefficients (2, 0), (2, 2), (0, ℓ).

    The first is ½Δβ₁², the second ½Δa² + Δβ₁ΔaΔb + ½Δβ₁²(Δb² + Δσ²)/2, and the last ones have neither Δβ₁ nor Δa.
    """
    x, y, beta, a, b = sympy.symbols("x y beta a b", real=True)
    variance = sympy.Symbol("v", positive=True)
    density = sympy.exp(-((y - b) ** 2) / (2 * variance)) / sympy.sqrt(2 * sympy.pi * variance)
    steps = sympy.symbols("db da dc dv", real=True)
    order, coefficients = 4, {}
    for alpha in itertools.product(range(order + 1), repeat=4):
        if 0 < sum(alpha) <= order:
            place = (alpha[0] + alpha[1], alpha[1] + alpha[2] + 2 * alpha[3])
            term = sympy.prod(step**n / sympy.factorial(n) for step, n in zip(steps, alpha, strict=True))
            coefficients[place] = coefficients.get(place, 0) + term / 2 ** alpha[3]
    db, da, dc, dv = steps
    assert sympy.expand(coefficients[2, 0] - db**2 / 2) == 0
    assert sympy.expand(coefficients[2, 2] - (da**2 / 2 + db * da * dc + db**2 / 2 * (dc**2 + dv) / 2)) == 0
    for (first, _), coefficient in coefficients.items():
        assert first or not {db, da} & coefficient.free_symbols
    # That these are the coefficients: derivatives of one atom against ∂^ℓ₂f, at one point.
    atom = sympy.exp(beta * x) * density.subs(b, a * x + b)
    at = {x: sympy.Rational(3, 10), y: sympy.Rational(7, 10), beta: 1, a: -1, b: sympy.Rational(1, 2), variance: 2}
    for alpha in ((2, 0, 0, 0), (0, 2, 0, 0), (1, 1, 1, 0), (2, 0, 0, 1), (0, 1, 1, 1)):
        variables = [v for v, n in zip((beta, a, b, variance), alpha, strict=True) for _ in range(n)]
        place = (alpha[0] + alpha[1], alpha[1] + alpha[2] + 2 * alpha[3])
        wanted = x ** place[0] * sympy.exp(beta * x) * sympy.diff(density, b, place[1]).subs(b, a * x + b)
        difference = sympy.diff(atom, *variables) - wanted / 2 ** alpha[3]
        assert abs(float(difference.subs(at))) < 1e-12
