import numpy as np
import pytest

from gatewise.experts import LinearExperts
from gatewise.families import Gaussian
from gatewise.gates import SoftmaxGate
from gatewise.model import MixtureOfExperts
from tests.helpers import problem_of


def objective_and_start(generator, n=400, k=3, shared_scale=False, **options):
    x = generator.uniform(-1.0, 1.0, size=(n, 2))
    y = np.where(x[:, 0] > 0.2, 2.0 * x[:, 1], 1.0 - x[:, 0]) + 0.2 * generator.normal(size=n)
    model = MixtureOfExperts(SoftmaxGate(2, k), LinearExperts(2, k, shared_scale), Gaussian())
    objective = problem_of(model, x, y, **options)
    responsibilities = generator.dirichlet(np.ones(k), size=n).T
    theta = objective.maximise_expectation(responsibilities, np.zeros(objective.size), gate_steps=3)
    return objective, theta


@pytest.mark.parametrize("shared_scale", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"gate_ridge": 3.0}, {"variance_prior": (2.0, 0.5)}],
    ids=["plain", "ridge", "prior"],
)
def test_the_experts_of_an_em_step_are_the_maximum_given_the_responsibilities(generator, options, shared_scale):
    objective, theta = objective_and_start(generator, shared_scale=shared_scale, **options)
    responsibilities = objective.responsibilities(theta)
    expected = objective.maximise_expectation(responsibilities, theta, gate_steps=1)
    found = objective.em_step(objective.expectation(theta)).theta
    # Both solve the same normal equations, one for the coefficients and one for their change.
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_em_steps_never_descend_and_report_the_objective_they_reach(generator):
    objective, theta = objective_and_start(generator)
    state = objective.expectation(theta)
    for _ in range(30):
        following = objective.em_step(state)
        assert following.value >= state.value
        state = following
    np.testing.assert_allclose(state.value, objective.value_and_gradient(state.theta)[0], rtol=1e-12)


def test_an_empty_expert_keeps_its_coefficients(generator):
    objective, theta = objective_and_start(generator)
    gate, coefficients, log_scale = objective.regressions.unpack(theta)
    gate[1, 0] -= 800.0
    reached = objective.em_step(objective.expectation(objective.regressions.pack(gate, coefficients, log_scale)))
    _, new_coefficients, new_log_scale = objective.regressions.unpack(reached.theta)
    np.testing.assert_array_equal(new_coefficients[1], coefficients[1])
    assert new_log_scale[1] == log_scale[1]
