"""What the information does not see is what the declared symmetries move, as counted by hand; the rest has errors."""

import math

import numpy as np
import pytest
import torch

from gatewise.experts import CallableExperts
from gatewise.families import build_family
from gatewise.fit import FitOptions, FitStatus, fit
from gatewise.fit.build import build_problem
from gatewise.fit.null_space import find_null_space
from gatewise.fit.rows import checked_rows
from gatewise.gates import Gate, SoftmaxGate
from gatewise.gates.contrasts import contrast_quantities, contrasts, translation
from gatewise.inference import Names, parameter_table, quantity_covariance
from gatewise.model import MixtureOfExperts
from gatewise.parts.parameters import Quantity

N = 1500


class OtherSoftmax(SoftmaxGate):
    """The same gate under another class, which the compiled path, with its contrasts, does not take."""


def quadratic_functions(d):
    return 1 + d + d * (d + 1) // 2


# Name, options, and the number of null directions for k experts and d inputs.
GATES = {
    "softmax": ("softmax", {}, lambda k, d: 1 + d),
    "modified softmax": ("modified_softmax", {}, lambda k, d: 1 + d),
    "dense-to-sparse, free": ("dense_to_sparse", {}, lambda k, d: 1 + d + 1),
    "dense-to-sparse, fixed": ("dense_to_sparse", {"free_temperature": False}, lambda k, d: 1 + d),
    "activation dense-to-sparse": ("activation_dense_to_sparse", {}, lambda k, d: 1),
    # k scales, the biases' translation, and the shifts of all directions that keep their lengths.
    "cosine": ("cosine", {}, lambda k, d: k + max(d - k, 0) + 1),
    "perturbed cosine": ("perturbed_cosine", {"tau1": 0.5}, lambda k, d: d + 1),
    "sigmoid": ("sigmoid", {}, lambda k, d: 0),
    "Laplace": ("laplace", {}, lambda k, d: 1),
    "Gaussian, conditional": ("gaussian", {"joint": False}, lambda k, d: quadratic_functions(d)),
    "Gaussian, joint": ("gaussian", {}, lambda k, d: 1),
    "quadratic": ("quadratic", {}, lambda k, d: quadratic_functions(d)),
}


def truth(case, k, d):
    """A mixture of well separated experts with a gate of that kind, float64."""
    name, options, _ = GATES[case]
    generator = torch.Generator().manual_seed(100 * k + d)
    gate = OtherSoftmax(d, k) if name == "softmax" else name
    own = None if name == "softmax" else options
    model = MixtureOfExperts.build(gate, "linear", "gaussian", d, k, gate_options=own).double()

    def normal(like, scale):
        return scale * torch.randn(like.shape, generator=generator, dtype=torch.float64)

    # Logits of about the same size for any number of inputs.
    size = 0.3 if name in ("quadratic", "gaussian") else 1.0
    model.gate.assign_parameters(
        {
            key: value + normal(value, size / math.sqrt(d) if value.ndim == 2 else 0.3)
            for key, value in model.gate.own_parameters().items()
        }
    )
    experts = model.experts.own_parameters()
    level = 6.0 * torch.arange(k, dtype=torch.float64)
    model.experts.assign_parameters(
        {
            "weight": normal(experts["weight"], 0.5),
            "bias": level - level.mean(),
            "log_scale": torch.full((k,), math.log(0.5), dtype=torch.float64),
        }
    )
    return model.requires_grad_(False)


def table(case, k, d):
    model = truth(case, k, d)
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(N, d, generator=generator, dtype=torch.float64)
    return model, x, model.sample(x, generator=generator)


def fit_near(model, x, y, **options):
    """The fit that begins at the responsibilities of a model."""
    start = model.responsibilities(x, y).numpy()
    return fit(model, x.numpy(), y.numpy(), options=FitOptions(n_starts=1, init=start, **options))


# The gates with more null directions than a translation of the logits' own parameters.
REMARKABLE = ("dense-to-sparse, free", "cosine", "perturbed cosine", "Gaussian, conditional")


def combinations(fits):
    for case in GATES:
        for k in (2, 3):
            for d in (1, 3, 8):
                # With one input the cosine is sign(x), a step that no derivative sees.
                if case == "cosine" and d == 1:
                    continue
                # A fit of two or three quadratic functions of eight inputs needs more rows than these.
                if fits and d == 8 and case in ("Gaussian, conditional", "quadratic"):
                    continue
                quick = case in REMARKABLE and (d < 8 or not fits)
                marks = [] if quick else [pytest.mark.slow]
                yield pytest.param(case, k, d, id=f"{case}, k={k}, d={d}", marks=marks)


@pytest.mark.parametrize(("case", "k", "d"), list(combinations(fits=False)))
def test_scores_at_the_truth_span_all_but_the_counted_directions(case, k, d):
    """The scores of rows do not move along a symmetry at any point, so that their rank needs no fit."""
    model, x, y = table(case, k, d)
    rows = checked_rows(model, x.numpy(), y.numpy(), None, None)
    problem = build_problem(model, rows, FitOptions(standardise="off"))
    theta = problem.coordinates.flat(model.gate.own_parameters(), model.experts.own_parameters()).numpy()
    scores = problem.scores(theta)
    values = np.linalg.svd(scores, compute_uv=False)
    expected = GATES[case][2](k, d)
    rank = len(values) - expected
    assert values[rank - 1] > 1e-6 * values[0]
    assert (values[rank:] < 1e-11 * values[0]).all()
    null_space = find_null_space(problem, theta, scores.T @ scores / N, np.ones(len(theta), dtype=bool))
    assert len(null_space.explained) == expected
    assert len(null_space.further) == 0
    assert np.abs(scores @ null_space.explained.T).max(initial=0.0) < 1e-9 * np.abs(scores).max()


@pytest.mark.parametrize(("case", "k", "d"), list(combinations(fits=True)))
def test_fit_finds_and_explains_the_counted_directions(case, k, d):
    model, x, y = table(case, k, d)
    result = fit_near(model, x, y, standardise="off")
    expected = GATES[case][2](k, d)
    assert result.status is FitStatus.CONVERGED
    values = np.linalg.eigvalsh(result.information)
    # Along a curved orbit the second derivative is that of the orbit times the gradient, which is not quite zero.
    assert (np.abs(values) < 1e-8 * values[-1]).sum() == expected
    assert (values > 1e-7 * values[-1]).sum() == len(values) - expected
    assert result.null_space.explained.shape == (expected, len(result.theta))
    assert len(result.null_space.further) == 0
    assert sum(count for _, count in result.null_space.sentences) == expected
    assert np.abs(result.information @ result.null_space.explained.T).max(initial=0.0) < 1e-8 * values[-1]
    assert result.n_parameters == len(result.theta) - expected
    assert np.isfinite(np.diag(quantity_covariance(result))).all()


def sorted_table(result, d):
    """Estimates and standard errors of all quantities."""
    names = Names([f"x{j}" for j in range(d)], [f"x{j}" for j in range(d)], "y")
    return parameter_table(result, names)


def test_errors_with_a_free_temperature_are_those_with_a_fixed_one():
    free, x, y = table("dense-to-sparse, free", 3, 3)
    fixed = MixtureOfExperts.build(
        "dense_to_sparse", "linear", "gaussian", 3, 3, gate_options={"free_temperature": False}
    )
    start = free.responsibilities(x, y).numpy()
    options = FitOptions(n_starts=1, init=start)
    one, other = (fit(model, x.numpy(), y.numpy(), options=options) for model in (free, fixed))
    assert one.log_likelihood == pytest.approx(other.log_likelihood, rel=1e-12)
    assert one.n_parameters == other.n_parameters
    mine, theirs = sorted_table(one, 3), sorted_table(other, 3)
    np.testing.assert_allclose(mine["estimate"], theirs["estimate"], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(mine["standard_error"], theirs["standard_error"], rtol=1e-6)


@pytest.mark.parametrize(("k", "d"), [(2, 1), (3, 1), (2, 3)])
def test_the_conditional_gaussian_gate_is_the_quadratic_one(k, d):
    model, x, y = table("Gaussian, conditional", k, d)
    quadratic = MixtureOfExperts.build("quadratic", "linear", "gaussian", d, k)
    start = model.responsibilities(x, y).numpy()
    options = FitOptions(n_starts=1, init=start)
    one, other = (fit(each, x.numpy(), y.numpy(), options=options) for each in (model, quadratic))
    assert one.status is other.status is FitStatus.CONVERGED
    assert one.log_likelihood == pytest.approx(other.log_likelihood, rel=1e-12)
    assert one.n_parameters == other.n_parameters
    mine, theirs = sorted_table(one, d), sorted_table(other, d)
    assert mine["term"].tolist() == theirs["term"].tolist()
    np.testing.assert_allclose(mine["estimate"], theirs["estimate"], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(mine["standard_error"], theirs["standard_error"], rtol=1e-6)


class RedundantGate(Gate):
    """A softmax gate whose slopes are multiplied by one number more, of which nothing is declared."""

    name = "redundant"
    formula = "c β₁ᵀx + β₀"
    source = "this test"

    def __init__(self, n_features, n_experts):
        super().__init__(n_features, n_experts)
        self.weight = torch.nn.Parameter(torch.ones(n_experts, n_features))
        self.bias = torch.nn.Parameter(torch.zeros(n_experts))
        self.factor = torch.nn.Parameter(torch.ones(1))

    def logits(self, x):
        return self.factor * (x @ self.weight.T) + self.bias

    def atoms(self):
        return {"gate_bias": self.bias.detach().clone(), "gate_slope": self.weight.detach().clone()}

    def symmetries(self):
        return (translation("bias", 1), translation("weight", self.n_features))

    def identified(self, parameters):
        return torch.cat([contrasts(parameters["bias"]), contrasts(parameters["weight"]), parameters["factor"]])

    def quantities(self, features):
        intercepts = contrast_quantities(self.n_experts, ["(intercept)"])
        return [*intercepts, *contrast_quantities(self.n_experts, features), Quantity("gate", "factor")]


def test_an_undeclared_null_direction_is_named_and_its_quantities_have_no_error():
    true, x, y = table("softmax", 3, 2)
    model = MixtureOfExperts(RedundantGate(2, 3), true.experts, true.family)
    start = true.responsibilities(x, y).numpy()
    options = FitOptions(n_starts=1, init=start, standardise="off")
    result = fit(model, x.numpy(), y.numpy(), options=options)
    assert result.status is FitStatus.SINGULAR
    assert len(result.null_space.explained) == 3
    assert len(result.null_space.further) == 1
    assert result.null_space.dimension == 4
    assert "gate: factor" in result.findings[0].message
    assert "gate 2 vs 3: x1" in result.findings[0].message
    # The direction itself: slopes as they are, the factor down.
    direction = dict(zip(result.coordinates.labels(), result.null_space.further[0], strict=True))
    gate = result.model.gate.own_parameters()
    slopes = (gate["weight"][:2] - gate["weight"][2]).numpy()
    moved = np.array([[direction[f"gate.weight[{i}, {j}]"] for j in range(2)] for i in range(3)])
    ratio = -direction["gate.factor[0]"] / float(gate["factor"])
    np.testing.assert_allclose(moved[:2] - moved[2], ratio * slopes, rtol=1e-5)
    assert max(abs(direction[f"gate.bias[{i}]"]) for i in range(3)) < 1e-6

    found = sorted_table(result, 2)
    flat = found["component"].str.startswith("gate") & (found["term"] != "(intercept)")
    assert flat.sum() == 5
    assert found.loc[flat, "standard_error"].isna().all()
    assert np.isfinite(found.loc[~flat, "standard_error"]).all()

    # The others have the errors that they have without the factor.
    plain = MixtureOfExperts(OtherSoftmax(2, 3), true.experts, true.family)
    reference = sorted_table(fit(plain, x.numpy(), y.numpy(), options=options), 2).set_index(["component", "term"])
    known = found[~flat].set_index(["component", "term"])
    expected = reference.loc[known.index]
    np.testing.assert_allclose(known["standard_error"], expected["standard_error"], rtol=1e-6)
    np.testing.assert_allclose(known["estimate"], expected["estimate"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("n_seeds", [2, pytest.param(6, marks=pytest.mark.slow)])
def test_a_ridge_of_maxima_is_climbed_to_its_top_whichever_start_leads_there(n_seeds):
    """Two parameters of which only the product counts: far from a maximum their Hessian curves upward along the ridge.

    A climb that gave up there was once taken for one that ends at a kink, with errors from score outer products.
    """

    def line(x, eta):
        return eta["height"] + eta["gain"] * eta["slope"] * x[..., 0]

    generator = np.random.default_rng(0)
    x = generator.uniform(1.0, 3.0, size=(150, 1))
    y = np.where(generator.uniform(size=150) < 0.6, x[:, 0], 2.0) + 0.05 * generator.normal(size=150)
    shapes, initial = {"height": (), "gain": (), "slope": ()}, {"gain": 1.0, "slope": 1.0}
    experts = CallableExperts(1, 2, function=line, shapes=shapes, initial=initial)
    model = MixtureOfExperts(SoftmaxGate(0, 2), experts, build_family("gaussian"))
    errors = []
    for seed in range(n_seeds):
        result = fit(model, x, y, gate_x=np.empty((150, 0)), options=FitOptions(n_starts=2, seed=seed))
        assert all(start.status is FitStatus.CONVERGED for start in result.starts)
        assert result.relative_gradient <= 1e-8
        assert len(result.null_space.further) == 2
        errors.append(parameter_table(result, Names(["x"], [], "y"))["standard_error"].to_numpy())
    assert np.isfinite(errors[0]).sum() == 5
    np.testing.assert_allclose(errors[1:], [errors[0]] * (n_seeds - 1), rtol=1e-5)


@pytest.mark.parametrize("seed", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(2, marks=pytest.mark.slow)])
def test_cosine_directions_do_not_drift_to_lengths_that_look_singular(seed):
    options = {"gate_options": {"temperature": 0.25}}
    truth = MixtureOfExperts.build("cosine", "linear", "gaussian", 2, 3, **options).double()
    truth.requires_grad_(False)
    directions = torch.tensor([[1.0, 0.0], [-0.5, 0.9], [-0.6, -0.8]])
    truth.gate.assign_parameters({"weight": directions, "bias": torch.tensor([0.5, -0.5, 0.0])})
    truth.experts.assign(torch.tensor([[1.5, 1.0, 0.5], [-1.5, -1.0, 1.0], [5.0, 0.5, -1.0]]), torch.full((3,), -1.0))
    x = np.random.default_rng(seed).uniform(-3.0, 3.0, size=(800, 2))
    y = truth.sample(torch.from_numpy(x), generator=torch.Generator().manual_seed(seed)).numpy()
    model = MixtureOfExperts.build("cosine", "linear", "gaussian", 2, 3, **options)
    result = fit(model, x, y, options=FitOptions(n_starts=3, standardise="off"))
    assert result.status in (FitStatus.CONVERGED, FitStatus.WEAK_SEARCH)
    np.testing.assert_allclose(result.model.gate.weight.norm(dim=1), 1.0, rtol=1e-12)
    assert result.log_likelihood >= float(truth.log_prob(torch.from_numpy(x), torch.from_numpy(y)).sum())
