"""Fits of the general path equal those of other programs, of closed-form EM, and of models that are the same."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import gammaln

from gatewise.datasets import load
from gatewise.fit import FitOptions, FitStatus, fit
from gatewise.fit.build import path_of
from gatewise.gates import HierarchicalGate, LaplaceGate, SoftmaxGate, TopKGate, build_gate
from gatewise.inference import Names, covariance, parameter_table, quantity_covariance
from gatewise.model import MixtureOfExperts

FOLDER = Path(__file__).parents[1] / "reference"
REFERENCE = json.loads((FOLDER / "reference.json").read_text(encoding="utf-8"))
MNLOGIT = json.loads((FOLDER / "mnlogit.json").read_text(encoding="utf-8"))

# Data set, experts' features, gate's features, target, number of experts, flexmix's fit, best log-likelihood.
POISSON = {
    "patent, Patents ~ lgRD, Poisson, gate ~ RDS, k=3": (
        ("patent", ["lgRD"], ["RDS"], "Patents", 3),
        "flexmix_patent_poisson_k3_concomitant_RDS",
        -197.675021430,
    ),
    "NPreg, yp ~ x, Poisson, constant weights": (
        ("npreg", ["x"], [], "yp", 2),
        "flexmix_NPreg_poisson_k2",
        -440.640294320,
    ),
}


def poisson_table(case):
    name, features, gate_features, target, k = POISSON[case][0]
    frame = load(name).frame
    model = MixtureOfExperts.build("softmax", "linear", "poisson", len(features), k, n_gate_features=len(gate_features))
    x, gate_x = frame[features].to_numpy(float), frame[gate_features].to_numpy(float)
    return model, x, gate_x, frame[target].to_numpy(float), Names(features, gate_features, target)


def poisson_responsibilities(reference, x, gate_x, y):
    gate = np.vstack([reference["gate"], np.zeros(1 + gate_x.shape[1])])
    location = np.column_stack([np.ones(len(y)), x]) @ np.array(reference["experts"]).T
    joint = np.column_stack([np.ones(len(y)), gate_x]) @ gate.T + y[:, None] * location - np.exp(location)
    joint = np.exp(joint - joint.max(axis=1, keepdims=True))
    return joint / joint.sum(axis=1, keepdims=True)


def in_reference_order(result, names, reference):
    """Our gate contrasts and coefficients in the reference's order of the experts, with their standard errors."""
    k, q = result.model.n_experts, 1 + len(names.gate_features)
    estimates = parameter_table(result, names)["estimate"].to_numpy()
    matrix = covariance(result, names).to_numpy()
    experts = estimates[(k - 1) * q :].reshape(k, -1)
    # order[j]: which of ours is expert j of the reference.
    order = [int(np.argmin(np.abs(experts - row).sum(axis=1))) for row in np.array(reference)]
    assert sorted(order) == list(range(k))
    # Contrasts against the reference's last expert as a linear function of ours, which are against our last.
    change = np.zeros(((k - 1) * q, (k - 1) * q))
    for j in range(k - 1):
        for term in range(q):
            for sign, mine in ((1.0, order[j]), (-1.0, order[-1])):
                if mine < k - 1:
                    change[j * q + term, mine * q + term] += sign
    gate_count = (k - 1) * q
    gate_error = np.sqrt(np.diag(change @ matrix[:gate_count, :gate_count] @ change.T))
    expert_error = np.sqrt(np.diag(matrix))[gate_count:].reshape(k, -1)[order]
    return (
        (change @ estimates[:gate_count]).reshape(k - 1, q),
        experts[order],
        gate_error.reshape(k - 1, q),
        expert_error,
    )


def poisson_optima():
    for case in POISSON:
        for number in range(len(REFERENCE["maximum_likelihood"][case])):
            yield pytest.param(case, number, id=f"{case} #{number + 1}")


@pytest.mark.parametrize(("case", "number"), list(poisson_optima()))
def test_poisson_fit_from_near_each_reference_optimum_equals_it(case, number):
    reference = REFERENCE["maximum_likelihood"][case][number]
    model, x, gate_x, y, names = poisson_table(case)
    k = model.n_experts
    start = 0.999 * poisson_responsibilities(reference, x, gate_x, y) + 0.001 / k
    result = fit(model, x, y, gate_x=gate_x, options=FitOptions(n_starts=1, init=start))
    assert result.status is FitStatus.CONVERGED
    assert result.log_likelihood == pytest.approx(reference["loglik"], rel=1e-9)
    assert result.n_parameters == (k - 1) * (1 + gate_x.shape[1]) + 2 * k
    gate, experts, gate_error, expert_error = in_reference_order(result, names, reference["experts"])
    np.testing.assert_allclose(gate, reference["gate"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(experts, reference["experts"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gate_error, reference["se_gate"], rtol=1e-5)
    np.testing.assert_allclose(expert_error, reference["se_experts"], rtol=1e-5)


@pytest.mark.parametrize("case", POISSON)
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])
def test_default_starts_of_poisson_mixtures_are_never_below_the_best_known_fit(case, seed):
    model, x, gate_x, y, _ = poisson_table(case)
    result = fit(model, x, y, gate_x=gate_x, options=FitOptions(seed=seed))
    assert result.status is FitStatus.CONVERGED
    # The bounds are printed to nine decimals.
    assert result.log_likelihood >= POISSON[case][2] - 1e-9


@pytest.mark.parametrize("case", POISSON)
def test_poisson_fit_equals_flexmix(case):
    """Its `refit` to 1e-2: flexmix stops its EM for the patent data after 1,500 iterations, before convergence."""
    reference = REFERENCE[POISSON[case][1]][0]
    model, x, gate_x, y, names = poisson_table(case)
    k, q = model.n_experts, 1 + gate_x.shape[1]
    result = fit(model, x, y, gate_x=gate_x)
    assert result.log_likelihood == pytest.approx(reference["logLik"], abs=1e-5)
    value, error = np.array(reference["coef_refit"]), np.array(reference["se_refit"])
    experts, expert_errors = value[: 2 * k].reshape(k, 2), error[: 2 * k].reshape(k, 2)
    # Its concomitant model has the first component as the reference: turn the components round.
    gate, gate_errors = value[2 * k :].reshape(k - 1, q)[::-1], error[2 * k :].reshape(k - 1, q)[::-1]
    mine, coefficients, mine_errors, coefficient_errors = in_reference_order(result, names, experts[::-1])
    np.testing.assert_allclose(coefficients, experts[::-1], rtol=1e-2)
    np.testing.assert_allclose(coefficient_errors, expert_errors[::-1], rtol=1e-2)
    np.testing.assert_allclose(mine, gate, rtol=1e-2)
    np.testing.assert_allclose(mine_errors, gate_errors, rtol=1e-2)


class OtherSoftmax(SoftmaxGate):
    """The same gate under another class, which is not the default model's."""


@pytest.mark.parametrize(
    ("name", "target", "feature"), [("tone", "tuned", "stretchratio"), ("ethanol", "Equivalence", "NO")]
)
@pytest.mark.parametrize("constant", [False, True])
def test_the_sweeps_behind_the_map_find_the_default_model_s_fit(name, target, feature, constant):
    frame = load(name).frame
    x, y = frame[[feature]].to_numpy(float), frame[target].to_numpy(float)
    names = Names([feature], [] if constant else [feature], target)
    compiled, general = (
        MixtureOfExperts.build(
            gate(0 if constant else 1, 2), "linear", "gaussian", 1, 2, n_gate_features=0 if constant else 1
        )
        for gate in (SoftmaxGate, OtherSoftmax)
    )
    assert (path_of(compiled), path_of(general)) == ("compiled", "compiled")
    one, other = (fit(model, x, y, options=FitOptions(n_starts=8)) for model in (compiled, general))
    assert one.status is other.status is FitStatus.WEAK_SEARCH
    assert other.log_likelihood == pytest.approx(one.log_likelihood, rel=1e-10)
    for kind in ("observed", "sandwich"):
        mine, theirs = parameter_table(other, names, kind=kind), parameter_table(one, names, kind=kind)
        np.testing.assert_allclose(mine["estimate"], theirs["estimate"], rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(mine["standard_error"], theirs["standard_error"], rtol=1e-6)


@pytest.mark.parametrize("case", MNLOGIT["fits"])
def test_one_categorical_expert_is_multinomial_logistic_regression(case):
    reference, tolerance = MNLOGIT["fits"][case], MNLOGIT["tolerance"]
    x, y = np.array(reference["x"]), np.array(reference["y"], dtype=float)
    d, n_classes = x.shape[1], int(y.max()) + 1
    model = MixtureOfExperts.build("softmax", "linear", "categorical", d, 1, family_options={"n_classes": n_classes})
    result = fit(model, x, y)
    assert result.status is FitStatus.CONVERGED
    assert result.log_likelihood == pytest.approx(reference["loglik"], rel=tolerance["loglik"])
    names = Names([f"x{j}" for j in range(d)], [], "y")
    found = parameter_table(result, names)
    shape = (n_classes - 1, 1 + d)
    estimates, errors = found["estimate"].to_numpy(), found["standard_error"].to_numpy()
    np.testing.assert_allclose(
        estimates.reshape(shape), reference["coefficients"], rtol=tolerance["coefficients"], atol=1e-9
    )
    np.testing.assert_allclose(errors.reshape(shape), reference["standard_errors"], rtol=tolerance["standard_errors"])


def regimes(n=400, d=2, k=2, seed=3, freedom=None):
    """Inputs, targets of k crossing planes of which one is chosen by the inputs, and which one it was."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, d))
    logits = x @ np.array([[1.5, -1.0], [-0.5, 0.5], [0.0, 0.0]])[:k, :d].T + np.array([0.3, -0.3, 0.0])[:k]
    chosen = (logits + generator.gumbel(size=(n, k))).argmax(axis=1)
    slopes = np.array([[1.0, 0.5], [-1.0, 1.0], [0.5, -1.0]])[:k, :d]
    means = x @ slopes.T + np.array([1.5, -1.5, 5.0])[:k]
    noise = generator.normal(size=n) if freedom is None else generator.standard_t(freedom, size=n)
    return x, means[np.arange(n), chosen] + 0.4 * noise, chosen


def near(chosen, k):
    """Responsibilities near the true ones, without the identity of any row."""
    return 0.9 * np.eye(k)[chosen] + 0.1 / k


def assert_same_fit(one, other, estimates=1e-6, errors=1e-6):
    """Log-likelihoods to 1e-10, quantities and standard errors of the same names."""
    assert one.status is other.status is FitStatus.CONVERGED
    assert one.log_likelihood == pytest.approx(other.log_likelihood, rel=1e-10)
    assert one.n_parameters == other.n_parameters
    np.testing.assert_allclose(
        one.coordinates.estimates(one.theta), other.coordinates.estimates(other.theta), rtol=estimates, atol=estimates
    )
    np.testing.assert_allclose(quantity_covariance(one), quantity_covariance(other), rtol=errors, atol=1e-3 * errors)


def fits(models, x, y, chosen, **options):
    start = near(chosen, models[0].n_experts)
    return [fit(model, x, y, options=FitOptions(n_starts=1, init=start, **options)) for model in models]


def linear_gaussian(gate, d=2):
    return MixtureOfExperts.build(gate, "linear", "gaussian", d, gate.n_experts)


def test_a_tree_with_one_expert_in_each_group_is_its_outer_gate():
    x, y, chosen = regimes(k=3)
    tree = HierarchicalGate(SoftmaxGate(2, 3), [SoftmaxGate(2, 1) for _ in range(3)])
    assert_same_fit(*fits([linear_gaussian(tree), linear_gaussian(SoftmaxGate(2, 3))], x, y, chosen))


def test_a_tree_with_one_group_is_its_inner_gate():
    x, y, chosen = regimes(k=3)
    tree = HierarchicalGate(SoftmaxGate(2, 1), [LaplaceGate(2, 3)])
    models = [linear_gaussian(tree), linear_gaussian(LaplaceGate(2, 3))]
    assert_same_fit(*fits(models, x, y, chosen, standardise="off"))


@pytest.mark.parametrize("inner", ["softmax", "laplace"])
def test_top_k_with_all_experts_is_the_dense_gate(inner):
    x, y, chosen = regimes(k=3)
    dense = build_gate(inner, 2, 3)
    sparse = TopKGate(build_gate(inner, 2, 3), n_active=3)
    assert_same_fit(*fits([linear_gaussian(sparse), linear_gaussian(dense)], x, y, chosen, standardise="off"))


def test_perturbed_cosine_without_perturbation_is_the_cosine_gate():
    x, y, chosen = regimes(k=3)
    perturbed = build_gate("perturbed_cosine", 2, 3, tau1=0.0, tau2=0.0)
    models = [linear_gaussian(perturbed), linear_gaussian(build_gate("cosine", 2, 3))]
    assert_same_fit(*fits(models, x, y, chosen, standardise="off"))


def test_a_small_temperature_approaches_top_one():
    """The weight of all experts but the largest is at most Σ exp(−gap/τ)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 2, generator=generator, dtype=torch.float64)
    parameters = {
        "weight": torch.randn(4, 2, generator=generator, dtype=torch.float64),
        "bias": torch.randn(4, generator=generator, dtype=torch.float64),
    }
    softmax = SoftmaxGate(2, 4).double()
    softmax.assign_parameters(parameters)
    chosen = TopKGate(softmax, n_active=1, select_on="logit")(x).exp()
    scores = softmax.logits(x).detach().sort(dim=-1, descending=True).values
    gap = scores[:, :1] - scores[:, 1:]
    before = math.inf
    for temperature in (1.0, 0.1, 0.01, 0.001):
        gate = build_gate("dense_to_sparse", 2, 4, temperature=temperature, free_temperature=False).double()
        gate.assign_parameters(parameters)
        distance = (gate(x).exp() - chosen).detach().abs().sum(-1)
        assert bool((distance <= 2.0 * torch.exp(-gap / temperature).sum(-1) + 1e-12).all())
        assert float(distance.mean()) < before
        before = float(distance.mean())
    assert before < 1e-2


def closed_form_em(x, y, responsibilities):
    """EM of the mixture of πᵢ N(x; cᵢ, Γᵢ) N(y; aᵢᵀx + bᵢ, σᵢ²), every M-step in closed form, until nothing moves."""
    n = len(x)
    design = np.column_stack([np.ones(n), x])
    before = -np.inf
    while True:
        total = responsibilities.sum(axis=0)
        weight = total / n
        centre = (responsibilities.T @ x) / total[:, None]
        joint, shapes, regressions, scales = [], [], [], []
        for r, c, p, count in zip(responsibilities.T, centre, weight, total, strict=True):
            away = x - c
            shape = (r[:, None] * away).T @ away / count
            coefficients = np.linalg.solve((r[:, None] * design).T @ design, design.T @ (r * y))
            residual = y - design @ coefficients
            variance = r @ residual**2 / count
            square = np.einsum("ni,ij,nj->n", away, np.linalg.inv(shape), away)
            of_x = -0.5 * (square + np.linalg.slogdet(2.0 * np.pi * shape)[1])
            joint.append(np.log(p) + of_x - 0.5 * (residual**2 / variance + np.log(2.0 * np.pi * variance)))
            shapes.append(shape)
            regressions.append(coefficients)
            scales.append(math.sqrt(variance))
        joint = np.column_stack(joint)
        top = joint.max(axis=1, keepdims=True)
        row = top[:, 0] + np.log(np.exp(joint - top).sum(axis=1))
        value = float(row.sum())
        responsibilities = np.exp(joint - row[:, None])
        if value - before <= 1e-12 * abs(value):
            return value, weight, centre, np.array(shapes), np.array(regressions), np.array(scales)
        before = value


@pytest.mark.parametrize(("d", "k"), [(1, 2), (2, 3)])
def test_the_joint_gaussian_gate_equals_em_in_closed_form(d, k):
    x, y, chosen = regimes(n=600, d=d, k=k)
    start = near(chosen, k)
    value, weight, centre, shape, regression, scale = closed_form_em(x, y, start)
    model = MixtureOfExperts.build("gaussian", "linear", "gaussian", d, k)
    result = fit(model, x, y, options=FitOptions(n_starts=1, init=start))
    assert result.status is FitStatus.CONVERGED
    assert result.log_likelihood == pytest.approx(value, rel=1e-8)
    order = np.argsort(-weight)
    atoms = result.model.gate.atoms()
    np.testing.assert_allclose(atoms["gate_log_weight"].exp(), weight[order], rtol=1e-5)
    np.testing.assert_allclose(atoms["gate_centre"], centre[order], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(atoms["gate_covariance"], shape[order], rtol=1e-5, atol=1e-5)
    experts = result.model.experts
    found = experts.coefficients(experts.own_parameters()).numpy()
    np.testing.assert_allclose(found, regression[order], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result.scale, scale[order], rtol=1e-5)
    # No program of ours: the density of (x, y) itself, from the definition.
    density = result.model.log_joint_density(torch.from_numpy(x), torch.from_numpy(y)).sum()
    assert float(density) == pytest.approx(value, rel=1e-8)


def successes(trials):
    """Inputs, numbers of successes in two regimes with odds of their own, and the regimes."""
    x, _, chosen = regimes()
    odds = np.where(chosen == 0, 1.0 + x[:, 0], -2.0 + x[:, 1])
    return x, np.random.default_rng(8).binomial(trials, 1.0 / (1.0 + np.exp(-odds))).astype(float), chosen


def test_two_classes_by_three_families_are_one_model():
    x, y, _ = successes(1)
    bernoulli, categorical, binomial = (
        fit(MixtureOfExperts.build("softmax", "linear", family, 2, 1, family_options=options), x, target)
        for family, options, target in (
            ("bernoulli", {}, y),
            # Its logit is that of class 0.
            ("categorical", {"n_classes": 2}, 1.0 - y),
            ("binomial", {"trials": 1}, y),
        )
    )
    assert_same_fit(bernoulli, categorical)
    assert_same_fit(bernoulli, binomial)


def test_trials_may_be_told_by_the_family_or_by_the_targets():
    x, y, chosen = successes(10)
    told = MixtureOfExperts.build("softmax", "linear", "binomial", 2, 2, family_options={"trials": 10})
    asked = MixtureOfExperts.build("softmax", "linear", "binomial", 2, 2)
    options = FitOptions(n_starts=1, init=near(chosen, 2))
    targets = np.column_stack([y, np.full(len(y), 10.0)])
    assert_same_fit(fit(told, x, y, options=options), fit(asked, x, targets, options=options))


def test_a_poisson_fit_is_the_limit_of_the_negative_binomial_at_the_same_parameters():
    case = "NPreg, yp ~ x, Poisson, constant weights"
    model, x, gate_x, y, _ = poisson_table(case)
    result = fit(model, x, y, gate_x=gate_x, options=FitOptions(n_starts=4))
    other = MixtureOfExperts.build("softmax", "linear", "negative_binomial", 1, 2, n_gate_features=0).double()
    other.gate.assign_parameters(result.model.gate.own_parameters())
    own = {**result.model.experts.own_parameters(), "log_scale": torch.full((2,), math.log(1e7), dtype=torch.float64)}
    other.experts.assign_parameters(own)
    inputs = torch.tensor(x), torch.tensor(y)
    other.requires_grad_(False)
    difference = other.log_prob(*inputs) - result.model.log_prob(*inputs)
    # log NB − log Poisson = ((y − μ)² − y)/(2r) to first order in 1/r.
    assert float(difference.abs().max()) < 1e-4
    # The Poisson density itself from the definition.
    location = result.model.experts.location(inputs[0]).numpy()
    log_pi = result.model.log_weights(inputs[0], torch.tensor(gate_x)).numpy()
    terms = log_pi + y[:, None] * location - np.exp(location) - gammaln(y + 1.0)[:, None]
    assert result.log_likelihood == pytest.approx(np.logaddexp(*terms.T).sum(), rel=1e-12)


# Gate, experts, family, and options of gate and experts.
COMBINATIONS = {
    "softmax, linear, Student t": ("softmax", "linear", "student_t", {}, {}),
    "quadratic, polynomial basis, Gaussian": ("quadratic", "polynomial_basis", "gaussian", {}, {"degree": 2}),
    "joint Gaussian, linear, Gaussian": ("gaussian", "linear", "gaussian", {}, {}),
    "Laplace, linear, Gaussian": ("laplace", "linear", "gaussian", {}, {}),
    "cosine, linear, Gaussian": ("cosine", "linear", "gaussian", {"temperature": 0.25}, {}),
    "sigmoid, linear, least squares": ("sigmoid", "linear", "gaussian", {"normalised": False}, {}),
}


def combination(case, n=250):
    """A model, its objective, and a table that it fits without going to a boundary."""
    gate, experts, family, gate_options, expert_options = COMBINATIONS[case]
    model = MixtureOfExperts.build(
        gate, experts, family, 2, 2, gate_options=gate_options, expert_options=expert_options
    )
    x, y, chosen = regimes(n=n, freedom=3 if family == "student_t" else None)
    if case != "sigmoid, linear, least squares":
        return model, "likelihood", x, y, chosen
    sigmoid = 1.0 / (1.0 + np.exp(-(x @ np.array([[1.5, -0.5], [0.5, 1.5]]).T + np.array([0.5, -0.5]))))
    means = x @ np.array([[1.0, -1.0], [-1.0, 0.5]]).T + np.array([1.0, -1.0])
    noise = 0.1 * np.random.default_rng(6).normal(size=n)
    return model, "least_squares", x, (sigmoid * means).sum(axis=1) + noise, sigmoid.argmax(axis=1)


@pytest.mark.parametrize("case", COMBINATIONS)
def test_a_weight_is_a_number_of_rows(case):
    model, objective, x, y, chosen = combination(case)
    weight = np.random.default_rng(4).integers(1, 4, size=len(y))
    start = near(chosen, 2)
    repeated = np.repeat(np.arange(len(y)), weight)
    weighted = fit(model, x, y, sample_weight=weight, options=FitOptions(n_starts=1, init=start, objective=objective))
    options = FitOptions(n_starts=1, init=start[repeated], objective=objective)
    copied = fit(model, x[repeated], y[repeated], options=options)
    assert weighted.status is copied.status
    assert weighted.objective == pytest.approx(copied.objective, rel=1e-9)
    assert weighted.n_parameters == copied.n_parameters
    assert weighted.total_weight == copied.total_weight
    one, other = weighted.coordinates.estimates(weighted.theta), copied.coordinates.estimates(copied.theta)
    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
    # The sandwich counts a weight as that many rows too.
    for kind in ("observed", "sandwich"):
        pair = quantity_covariance(weighted, kind), quantity_covariance(copied, kind)
        np.testing.assert_allclose(*pair, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("case", COMBINATIONS)
def test_a_fit_does_not_depend_on_units(case):
    """With inputs a + b x and targets c + d y densities, weights and means are the same, and slopes over errors too."""
    model, objective, x, y, chosen = combination(case)
    shift, scale, level, unit = np.array([1e3, -20.0]), np.array([50.0, 0.01]), -300.0, 1e-3
    options = FitOptions(n_starts=1, init=near(chosen, 2), objective=objective)
    own = fit(model, x, y, options=options)
    # Least squares of weights that do not sum to one has no free level: a shift of the target is no unit of it.
    moved_y = unit * y if objective == "least_squares" else level + unit * y
    moved_x = shift + scale * x
    moved = fit(model, moved_x, moved_y, options=options)
    assert moved.status is own.status
    assert moved.n_parameters == own.n_parameters
    if objective == "least_squares":
        assert moved.objective == pytest.approx(unit**2 * own.objective, rel=1e-8)
    else:
        volume = len(y) * math.log(unit) + (len(y) * np.log(scale).sum() if model.gate.is_joint else 0.0)
        assert moved.log_likelihood == pytest.approx(own.log_likelihood - volume, rel=1e-9)
    here, there = torch.from_numpy(x), torch.from_numpy(moved_x)
    np.testing.assert_allclose(moved.model.log_weights(there), own.model.log_weights(here), rtol=1e-5, atol=1e-6)
    expected = unit * own.model.mean(here).numpy() + (0.0 if objective == "least_squares" else level)
    np.testing.assert_allclose(moved.model.mean(there), expected, rtol=1e-7, atol=1e-6 * unit)
    if model.experts.name == "linear":
        names = Names(["a", "b"], ["a", "b"], "y")
        mine, theirs = (parameter_table(result, names) for result in (own, moved))
        slopes = mine["component"].str.startswith("expert") & mine["term"].isin(["a", "b"])
        np.testing.assert_allclose(theirs.loc[slopes, "z"], mine.loc[slopes, "z"], rtol=1e-4)
        assert (moved.model.gate_scaler is None) == model.gate.affine_equivariant
