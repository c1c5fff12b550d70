"""The general likelihood: derivatives, units, equivalence with the compiled path, priors, constraints, determinism."""

import dataclasses

import numpy as np
import pytest

from gatewise.exceptions import InputError
from gatewise.fit import FitOptions, FitStatus, fit
from gatewise.fit.build import build_problem
from gatewise.fit.constraints import Constraints
from gatewise.fit.rows import checked_rows
from gatewise.gates import SoftmaxGate
from gatewise.inference import Names, parameter_table, quantity_covariance
from gatewise.model import MixtureOfExperts

NAMES = Names(["a", "b"], ["a", "b"], "y")


class OtherSoftmax(SoftmaxGate):
    """The same gate under another class, which the compiled path does not take."""


@pytest.fixture(scope="module")
def table():
    generator = np.random.default_rng(5)
    x = generator.normal(size=(400, 2)) * [1.0, 30.0] + [0.0, 500.0]
    z = (x - [0.0, 500.0]) / [1.0, 30.0]
    first = generator.uniform(size=400) < 1.0 / (1.0 + np.exp(-2.0 * z[:, 0] + z[:, 1]))
    y = np.where(first, 1.0 + z[:, 0], -1.0 - 0.5 * z[:, 1]) + 0.3 * generator.normal(size=400)
    # The weights of a Laplace gate with centres at (±1.5, 0) in standardised inputs.
    distance = [np.hypot(z[:, 0] - place, z[:, 1]) for place in (1.5, -1.5)]
    first = generator.uniform(size=400) < 1.0 / (1.0 + np.exp(distance[0] - distance[1]))
    counts = generator.poisson(np.exp(np.where(first, 2.5 + 0.3 * z[:, 0], 0.2 - 0.4 * z[:, 1]))).astype(float)
    return x, y, counts


def general(model):
    """The model with a gate of another class."""
    gate = OtherSoftmax(model.gate.n_features, model.n_experts)
    return MixtureOfExperts(gate, model.experts, model.family)


def problem_of(model, x, y, weight=None, **options):
    # Few steps of the fit of one expert with which a problem begins; what is looked at does not depend on it.
    return build_problem(model, checked_rows(model, x, y, None, weight), FitOptions(**{"max_iter": 2, **options}))


@pytest.mark.parametrize("shared_scale", [False, True])
def test_the_general_path_equals_the_compiled_one(table, shared_scale):
    x, y, _ = table
    model = MixtureOfExperts.build("softmax", "linear", "gaussian", 2, 2, shared_scale=shared_scale)
    options = FitOptions(n_starts=3)
    compiled, plain = fit(model, x, y, options=options), fit(general(model), x, y, options=options)
    assert plain.status is compiled.status is FitStatus.WEAK_SEARCH
    assert plain.log_likelihood == pytest.approx(compiled.log_likelihood, rel=1e-12)
    mine, theirs = parameter_table(plain, NAMES), parameter_table(compiled, NAMES)
    assert mine["component"].tolist() == theirs["component"].tolist()
    assert mine["term"].tolist() == theirs["term"].tolist()
    np.testing.assert_allclose(mine["estimate"], theirs["estimate"], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(mine["standard_error"], theirs["standard_error"], rtol=1e-5)
    assert plain.n_parameters == compiled.n_parameters
    assert plain.baseline.log_likelihood == pytest.approx(compiled.baseline.log_likelihood, rel=1e-9)
    assert plain.baseline.n_parameters == compiled.baseline.n_parameters
    assert plain.baseline.scale == pytest.approx(compiled.baseline.scale, rel=1e-6)
    np.testing.assert_allclose(plain.scale, compiled.scale, rtol=1e-6)


@pytest.mark.parametrize(
    ("gate", "experts", "family"),
    [
        ("softmax", "linear", "poisson"),
        ("laplace", "feed_forward", "gaussian"),
        ("gaussian", "polynomial_basis", "negative_binomial"),
        ("cosine", "polynomial", "student_t"),
        ("hierarchical", "linear", "poisson"),
    ],
)
def test_derivatives_agree_with_finite_differences(table, gate, experts, family):
    x, y, counts = table
    target = counts if family in ("poisson", "negative_binomial") else y
    bank = {"activation": "tanh", "hidden": 2} if experts == "feed_forward" else None
    model = MixtureOfExperts.build(gate, experts, family, 2, 4, expert_options=bank)
    problem = problem_of(model, x, target, weight=np.random.default_rng(1).integers(1, 4, 400).astype(float))
    theta = problem.begin(np.random.default_rng(2).dirichlet(np.ones(4), 400).T, 0, 0)
    theta = theta + 0.05 * np.random.default_rng(3).normal(size=len(theta))
    value, gradient = problem.value_and_gradient(theta)
    hessian = problem.exact_hessian(theta)
    step = 1e-5
    size = max(1.0, np.abs(gradient).max())
    for j in range(problem.size):
        ahead, behind = theta.copy(), theta.copy()
        ahead[j], behind[j] = theta[j] + step, theta[j] - step
        up, down = problem.value_and_gradient(ahead), problem.value_and_gradient(behind)
        # Truncation of the central difference is of order step², rounding of order 1e-16 / step.
        assert gradient[j] == pytest.approx((up[0] - down[0]) / (2.0 * step), abs=1e-7 * size * max(1.0, abs(value)))
        np.testing.assert_allclose(hessian[j], (up[1] - down[1]) / (2.0 * step), atol=1e-5 * np.abs(hessian).max())


def test_scores_add_up_to_the_gradient(table):
    x, _, counts = table
    weight = np.random.default_rng(1).integers(1, 4, 400).astype(float)
    problem = problem_of(MixtureOfExperts.build("laplace", "linear", "poisson", 2, 2), x, counts, weight=weight)
    theta = 0.2 * np.random.default_rng(3).normal(size=problem.size)
    gradient = problem.value_and_gradient(theta)[1]
    np.testing.assert_allclose(weight @ problem.scores(theta) / weight.sum(), gradient, rtol=1e-10, atol=1e-12)


def test_weights_count_as_repeated_rows(table):
    x, _, counts = table
    x, counts = x[:120], counts[:120]
    weight = np.random.default_rng(4).integers(0, 4, 120)
    model = MixtureOfExperts.build("softmax", "linear", "poisson", 2, 2)
    options = FitOptions(n_starts=2)
    weighted = fit(model, x, counts, sample_weight=weight.astype(float), options=options)
    repeated = fit(model, np.repeat(x, weight, axis=0), np.repeat(counts, weight), options=options)
    assert weighted.log_likelihood == pytest.approx(repeated.log_likelihood, rel=1e-12)
    np.testing.assert_allclose(
        parameter_table(weighted, NAMES)["standard_error"],
        parameter_table(repeated, NAMES)["standard_error"],
        rtol=1e-6,
    )


@pytest.mark.parametrize("gate", ["softmax", "laplace"])
def test_fits_do_not_depend_on_the_units_of_the_inputs(table, gate):
    """The softmax gate is equivariant; the Laplace gate stores its standardisation, which undoes the units."""
    x, _, counts = table
    model = MixtureOfExperts.build(gate, "linear", "poisson", 2, 2)
    options = FitOptions(n_starts=2)
    first = fit(model, x, counts, options=options)
    second = fit(model, 3.0 + 0.01 * x, counts, options=options)
    assert second.log_likelihood == pytest.approx(first.log_likelihood, rel=1e-10)
    assert (first.model.gate_scaler is not None) is (gate == "laplace")
    mine, theirs = parameter_table(first, NAMES), parameter_table(second, NAMES)
    terms = mine["term"].isin(["a", "b"]) & mine["component"].str.startswith("expert")
    np.testing.assert_allclose(theirs["estimate"][terms], 100.0 * mine["estimate"][terms], rtol=1e-5)
    np.testing.assert_allclose(theirs["standard_error"][terms], 100.0 * mine["standard_error"][terms], rtol=1e-5)


def test_standardise_off_keeps_the_model_in_the_units_of_the_data(table):
    x, _, counts = table
    model = MixtureOfExperts.build("laplace", "linear", "poisson", 2, 2)
    z = (x - [0.0, 500.0]) / [1.0, 30.0]
    result = fit(model, z, counts, options=FitOptions(n_starts=2, standardise="off"))
    assert result.model.gate_scaler is None
    table_ = parameter_table(result, NAMES)
    assert table_["term"].tolist()[:2] == ["a", "b"]
    stored = parameter_table(fit(model, z, counts, options=FitOptions(n_starts=2)), NAMES)
    assert stored["term"].tolist()[:2] == ["z(a)", "z(b)"]


def test_the_same_bits_with_workers(table):
    x, _, counts = table
    model = MixtureOfExperts.build("laplace", "linear", "poisson", 2, 2)
    options = FitOptions(n_starts=2)
    alone, together = (fit(model, x[:80], counts[:80], options=dataclasses.replace(options, n_jobs=n)) for n in (1, 2))
    assert alone.log_likelihood == together.log_likelihood
    assert np.array_equal(alone.theta, together.theta)


def test_single_precision_comes_near(table):
    x, _, counts = table
    model = MixtureOfExperts.build("softmax", "linear", "poisson", 2, 2)
    double = fit(model, x, counts, options=FitOptions(n_starts=2))
    single = fit(model, x, counts, options=FitOptions(n_starts=2, dtype="float32", tol=1e-4))
    assert single.log_likelihood == pytest.approx(double.log_likelihood, rel=1e-5)


def test_held_and_tied_parameters(table):
    x, y, _ = table
    z = (x - [0.0, 500.0]) / [1.0, 30.0]
    model = MixtureOfExperts.build("softmax", "linear", "gaussian", 2, 2)
    constraints = Constraints(
        frozen={"gate.bias": True}, tied=[[("experts.log_scale", (0,)), ("experts.log_scale", (1,))]]
    )
    result = fit(model, z, y, options=FitOptions(n_starts=3, constraints=constraints))
    assert result.status in (FitStatus.CONVERGED, FitStatus.WEAK_SEARCH)
    assert result.model.gate.bias.tolist() == [0.0, 0.0]
    assert result.scale[0] == result.scale[1]
    shared = fit(MixtureOfExperts.build("softmax", "linear", "gaussian", 2, 2, shared_scale=True), z, y)
    # One parameter fewer, and it was estimated near its value: the likelihood ratio is that of one degree of freedom.
    assert result.n_parameters == shared.n_parameters - 1
    assert 0.0 <= 2.0 * (shared.log_likelihood - result.log_likelihood) < 20.0
    free = fit(model, z, y, options=FitOptions(n_starts=3))
    assert result.log_likelihood < free.log_likelihood


def test_an_offset_is_an_exposure(table):
    """Ten times the exposure is an intercept that is log 10 lower."""
    x, _, counts = table
    model = MixtureOfExperts.build("softmax", "linear", "poisson", 2, 2)
    exposure = np.random.default_rng(8).uniform(0.5, 2.0, len(x))
    options = FitOptions(n_starts=3)
    first = fit(model, x, counts, offset=np.log(exposure), options=options)
    second = fit(model, x, counts, offset=np.log(10.0 * exposure), options=options)
    assert second.log_likelihood == pytest.approx(first.log_likelihood, rel=1e-10)
    mine, theirs = parameter_table(first, NAMES), parameter_table(second, NAMES)
    intercepts = mine["component"].str.startswith("expert") & (mine["term"] == "(intercept)")
    np.testing.assert_allclose(theirs["estimate"][intercepts], mine["estimate"][intercepts] - np.log(10.0), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variance_prior": (1.0, 0.1)}, "variance_prior needs one scale"),
        ({"objective": "squares"}, "unknown objective 'squares'"),
        ({"standardise": True}, "unknown standardise True"),
        ({"expert_ridge": -1.0}, "expert_ridge must be a non-negative number"),
    ],
)
def test_options_that_do_not_fit_are_refused(table, options, message):
    x, _, counts = table
    with pytest.raises(InputError, match=message):
        fit(MixtureOfExperts.build("softmax", "linear", "poisson", 2, 2), x, counts, options=FitOptions(**options))


def test_an_offset_without_a_log_link_is_refused(table):
    x, y, _ = table
    with pytest.raises(InputError, match="the gaussian family has no offset"):
        fit(MixtureOfExperts.build("softmax", "linear", "gaussian", 2, 2), x, y, offset=np.zeros(len(y)))


def test_targets_outside_the_family_are_refused(table):
    x, y, _ = table
    with pytest.raises(InputError, match="row 0"):
        fit(MixtureOfExperts.build("softmax", "linear", "poisson", 2, 2), x, -1.0 - np.abs(y))


def test_the_sandwich_of_a_likelihood_is_near_the_observed_information_where_the_model_is_true(table):
    x, _, counts = table
    result = fit(
        MixtureOfExperts.build("softmax", "linear", "poisson", 2, 2), x, counts, options=FitOptions(n_starts=3)
    )
    observed, sandwich = (np.sqrt(np.diag(quantity_covariance(result, kind))) for kind in ("observed", "sandwich"))
    # 400 rows: the two estimates of one matrix differ by some 10 or 20 %.
    np.testing.assert_allclose(sandwich, observed, rtol=0.5)
