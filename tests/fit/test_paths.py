"""Which path evaluates a combination, and that the paths agree: compiled, fused by channels, plain formula."""

import numpy as np
import pytest
import torch

from gatewise.experts import EXPERTS
from gatewise.families import FAMILIES
from gatewise.fit import FitOptions, channel_gradient
from gatewise.fit.build import build_problem, path_of
from gatewise.fit.least_squares import LeastSquaresProblem
from gatewise.fit.linear_channels import LinearChannels
from gatewise.fit.plain_rows import PlainRows
from gatewise.fit.problem import Problem
from gatewise.fit.rows import checked_rows
from gatewise.fit.squared_channels import SquaredChannels, SquaredRows, has_squared_channels
from gatewise.gates import GATES
from tests.contract import combinations
from tests.contract.combinations import all_combinations, build, inputs, targets

NORMALISED = [name for name in combinations.GATES if build(name, "linear", "gaussian").gate.normaliser == "softmax"]
OTHERWISE = ("laplace", "likelihood")


def problem_and_point(gate, experts, family, weight=None, **options):
    """The general problem of a combination on 60 rows, and a point near a first start."""
    model = build(gate, experts, family)
    x = inputs(60)
    rows = checked_rows(model, x.numpy(), targets(model, x).numpy(), None, weight)
    problem = Problem(model, rows, FitOptions(**options), None)
    responsibilities = np.random.default_rng(0).dirichlet(np.ones(model.n_experts), 60).T
    theta = problem.begin(responsibilities, 0, 0)
    return problem, problem.bounds.clip(theta + 0.1 * np.random.default_rng(1).normal(size=len(theta)))


def plain_value_and_gradient(problem, theta):
    """By the plain formula and automatic differentiation."""
    point = torch.tensor(theta, requires_grad=True)
    value = problem.evaluator.total(point) / problem.total_weight
    (gradient,) = torch.autograd.grad(value, point)
    return value.item(), gradient.numpy()


@pytest.fixture
def sweeps(monkeypatch):
    """The sweeps of the fused pass, by what they were told about normalisation."""
    seen = []
    original = channel_gradient.joint_pass

    def counted(logits, log_density, weight, normalised, n_threads):
        seen.append(normalised)
        return original(logits, log_density, weight, normalised, n_threads)

    monkeypatch.setattr(channel_gradient, "joint_pass", counted)
    return seen


def test_every_gate_is_here():
    assert {name.split(",")[0] for name in combinations.GATES} == set(GATES)
    assert [name for name in combinations.GATES if name not in NORMALISED] == ["sigmoid, unnormalised"]


@pytest.mark.parametrize("family", ["gaussian", "poisson", "categorical"])
@pytest.mark.parametrize("gate", NORMALISED)
def test_normalised_gates_go_through_the_fused_pass_or_the_compiled_sweep(gate, family, sweeps):
    model = build(gate, "linear", family)
    is_compiled = family == "gaussian" and model.gate.basis(inputs(2)) is not None
    assert path_of(model) == ("compiled" if is_compiled else "fused")
    problem, theta = problem_and_point(gate, "linear", family, weight=np.linspace(0.1, 2.0, 60))
    sweeps.clear()
    value, gradient = problem.value_and_gradient(theta)
    assert sweeps == ([] if is_compiled else [not problem.prototype.gate.is_joint])
    plain_value, plain_gradient = plain_value_and_gradient(problem, theta)
    assert value == pytest.approx(plain_value, rel=1e-12)
    np.testing.assert_allclose(gradient, plain_gradient, rtol=1e-12, atol=1e-12 * np.abs(plain_gradient).max())


@pytest.mark.parametrize(
    ("experts", "family"),
    [(experts, family) for gate, experts, family, objective in all_combinations() if (gate, objective) == OTHERWISE],
)
def test_any_experts_and_family_go_through_the_fused_pass(experts, family, sweeps):
    assert path_of(build("laplace", experts, family)) == "fused"
    problem, theta = problem_and_point("laplace", experts, family)
    sweeps.clear()
    value, gradient = problem.value_and_gradient(theta)
    assert sweeps == [True]
    plain_value, plain_gradient = plain_value_and_gradient(problem, theta)
    assert value == pytest.approx(plain_value, rel=1e-12)
    np.testing.assert_allclose(gradient, plain_gradient, rtol=1e-11, atol=1e-12 * np.abs(plain_gradient).max())


def test_the_compiled_path_is_a_pass_of_its_own(sweeps):
    model = build("softmax", "linear", "gaussian")
    x = inputs(60)
    y = targets(model, x)
    problem = build_problem(model, checked_rows(model, x.numpy(), y.numpy(), None, None), FitOptions())
    assert problem.runs_in_threads is False
    assert problem.regressions is problem.evaluator
    theta = problem.begin(np.random.default_rng(0).dirichlet(np.ones(3), 60).T, 0, 0)
    value, _ = problem.value_and_gradient(theta)
    assert sweeps == []
    plain = problem.build_model(theta).log_prob(x, y).mean().item()
    assert problem.log_likelihood(theta) / 60 == pytest.approx(plain, rel=1e-12)
    assert value == pytest.approx(plain + np.log(problem.unit), rel=1e-12)


@pytest.mark.parametrize(
    ("gate", "experts", "family"),
    [
        ("softmax", "linear", "poisson"),
        ("softmax", "linear", "categorical"),
        ("quadratic", "polynomial_basis", "gamma"),
        ("modified_softmax", "constant", "multivariate_gaussian"),
        ("softmax", "linear", "student_t"),
        ("softmax", "linear", "gaussian"),
        ("quadratic", "polynomial_basis", "gaussian"),
        ("modified_softmax", "constant", "gaussian"),
    ],
)
def test_linear_channels_agree_with_automatic_differentiation(gate, experts, family):
    weight = np.linspace(0.1, 2.0, 60)
    problem, theta = problem_and_point(
        gate, experts, family, weight=weight, expert_ridge=0.3 if experts == "linear" else 0.0
    )
    assert isinstance(problem.evaluator, LinearChannels)

    def everything():
        value, gradient = problem.value_and_gradient(theta)
        return {
            "value": value,
            "gradient": gradient,
            "hessian": problem.exact_hessian(theta),
            "scores": problem.scores(theta),
            "score_gram": problem.score_gram(theta),
            "log_likelihood": problem.log_likelihood(theta),
            "responsibilities": problem.responsibilities(theta),
        }

    by_channels = everything()
    problem.evaluator = PlainRows(problem.coordinates, problem.internal)
    for name, expected in everything().items():
        scale = np.abs(expected).max()
        # PyTorch's trigamma, which the plain path of the gamma family needs, is right to 1e-8.
        close = 1e-8 if family == "gamma" and name == "hessian" else 1e-12
        np.testing.assert_allclose(by_channels[name], expected, rtol=10.0 * close, atol=close * scale, err_msg=name)


@pytest.mark.parametrize(
    ("gate", "experts", "family"),
    [
        ("softmax", "linear", "gaussian"),
        ("quadratic", "polynomial_basis", "laplace"),
        ("softmax", "constant", "gaussian"),
    ],
)
def test_least_squares_by_channels_agree_with_automatic_differentiation(gate, experts, family):
    model = build(gate, experts, family)
    x = inputs(60)
    rows = checked_rows(model, x.numpy(), targets(model, x).numpy(), None, np.linspace(0.1, 2.0, 60))
    options = FitOptions(objective="least_squares", expert_ridge=0.3 if experts == "linear" else 0.0)
    problem = LeastSquaresProblem(model, rows, options, None)
    assert isinstance(problem.evaluator, SquaredChannels)
    theta = problem.begin(np.random.default_rng(0).dirichlet(np.ones(model.n_experts), 60).T, 0, 0)

    def everything():
        value, gradient = problem.value_and_gradient(theta)
        return {
            "value": value,
            "gradient": gradient,
            "hessian": problem.exact_hessian(theta),
            "gauss_newton": problem.gauss_newton(theta),
            "scores": problem.scores(theta),
            "residual_variance": problem.residual_variance(theta),
        }

    by_channels = everything()
    problem.evaluator = SquaredRows(problem.coordinates, problem.internal)
    for name, expected in everything().items():
        np.testing.assert_allclose(
            by_channels[name], expected, rtol=1e-11, atol=1e-12 * np.abs(expected).max(), err_msg=name
        )


def test_squares_by_channels_need_locations_that_are_means():
    assert has_squared_channels(build("softmax", "linear", "gaussian"))
    assert not has_squared_channels(build("softmax", "linear", "poisson"))
    assert not has_squared_channels(build("softmax", "linear", "multivariate_gaussian"))
    assert not has_squared_channels(build("sigmoid, unnormalised", "linear", "gaussian"))


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({}, "fused"),
        ({"n_threads": 2}, "fused"),
        ({"dtype": "float32"}, "plain"),
        ({"objective": "least_squares"}, "plain"),
    ],
)
def test_options_that_change_the_path(options, path):
    assert path_of(build("laplace", "linear", "poisson"), FitOptions(**options)) == path


def test_what_takes_the_compiled_path_away():
    model = build("softmax", "linear", "gaussian")
    assert path_of(model) == "compiled"
    assert path_of(model, has_offset=True) == "fused"
    assert path_of(model, FitOptions(expert_ridge=0.1)) == "compiled"
    assert path_of(model, FitOptions(gate_ridge=0.1)) == "compiled"
    assert path_of(model, FitOptions(dtype="float32")) == "plain"
    assert set(combinations.EXPERTS) == set(EXPERTS)
    assert set(combinations.FAMILIES) == set(FAMILIES)
