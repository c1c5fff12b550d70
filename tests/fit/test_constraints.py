import pickle

import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.fit.constraints import Constraints
from tests.helpers import mixture, problem_of


def model_of(k=3, d=2, seed=0):
    """In the order gate.weight (k, d) and .bias (k,), experts.log_scale (k,), .weight (k, d) and .bias (k,)."""
    model = mixture(d, d, k).double().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return model


def flat(model):
    return np.concatenate([value.detach().numpy().ravel() for value in model.parameters()])


def flat_mask(model, names):
    return np.concatenate([np.full(value.numel(), name in names) for name, value in model.named_parameters()])


def test_without_constraints_all_is_free():
    model = model_of()
    free = Constraints().free_map(model)
    assert free.n_free == 21
    np.testing.assert_array_equal(free.column, np.arange(21))
    np.testing.assert_array_equal(free.base, 0.0)


def test_a_frozen_array_keeps_its_values():
    model = model_of()
    constraints = Constraints(frozen={"experts.bias": True, "gate.weight": False})
    free = constraints.free_map(model)
    held = flat_mask(model, {"experts.bias"})
    np.testing.assert_array_equal(free.column < 0, held)
    np.testing.assert_array_equal(free.base[held], flat(model)[held])


@pytest.mark.parametrize("as_list", [False, True])
def test_a_mask_freezes_entries(as_list):
    model = model_of()
    mask = np.array([[True, False], [False, False], [False, True]])
    free = Constraints(frozen={"gate.weight": mask.tolist() if as_list else mask}).free_map(model)
    np.testing.assert_array_equal(free.column[:6], [-1, 0, 1, 2, 3, -1])
    np.testing.assert_array_equal(free.base[[0, 5]], model.gate.weight.numpy().ravel()[[0, 5]])


def test_tied_entries_are_one_number():
    model = model_of()
    entries = [("gate.weight", (0, 1)), ("gate.weight", (1, 1)), ("experts.bias", (2,))]
    constraints = Constraints(tied=[entries])
    free = constraints.free_map(model)
    assert free.n_free == 19
    assert free.column[1] == free.column[3] == free.column[20] == 1


def test_groups_that_share_an_entry_are_one_group():
    a, b, c, d = (("experts.weight", (i, j)) for i in range(2) for j in range(2))
    chained = Constraints(tied=[[a, b], [c, d], [b, c]]).free_map(model_of())
    at_once = Constraints(tied=[[a, b, c, d]]).free_map(model_of())
    np.testing.assert_array_equal(chained.column, at_once.column)
    assert chained.n_free == 18


def constrained():
    return Constraints(
        frozen={"experts.log_scale": True, "gate.bias": np.array([False, True, False])},
        tied=[
            [("gate.weight", (0, 1)), ("experts.weight", (2, 0))],
            [("experts.bias", (0,)), ("experts.bias", (1,)), ("experts.bias", (2,))],
        ],
    )


def test_derivatives_are_those_of_the_constrained_likelihood(generator):
    """Against finite differences of log p itself."""
    x, y = generator.normal(size=(40, 2)), generator.normal(size=40)
    problem = problem_of(model_of(), x, y, constraints=constrained())
    theta = 0.5 * generator.normal(size=problem.size)
    assert problem.size == 14

    def likelihood(at):
        return problem.build_model(at).log_prob(torch.from_numpy(x), torch.from_numpy(y)).mean().item()

    value, gradient = problem.value_and_gradient(theta)
    assert value == pytest.approx(likelihood(theta), rel=1e-12)
    hessian, step = problem.exact_hessian(theta), 1e-5
    for j in range(problem.size):
        up, down = (theta + sign * step * np.eye(problem.size)[j] for sign in (1.0, -1.0))
        assert gradient[j] == pytest.approx((likelihood(up) - likelihood(down)) / (2 * step), rel=1e-6, abs=1e-8)
        column = (problem.value_and_gradient(up)[1] - problem.value_and_gradient(down)[1]) / (2 * step)
        np.testing.assert_allclose(hessian[:, j], column, rtol=1e-5, atol=1e-7)


def test_all_may_be_frozen():
    model = model_of()
    free = Constraints(frozen={name: True for name, _ in model.named_parameters()}).free_map(model)
    assert free.n_free == 0
    np.testing.assert_array_equal(free.base, flat(model))


def test_later_changes_of_the_model_do_not_reach_the_map():
    model = model_of()
    free = Constraints(frozen={"experts.bias": True}).free_map(model)
    before = free.base.copy()
    model.experts.bias.fill_(99.0)
    np.testing.assert_array_equal(free.base, before)


def test_constraints_travel_to_other_processes():
    again = pickle.loads(pickle.dumps(constrained()))
    np.testing.assert_array_equal(again.free_map(model_of()).column, constrained().free_map(model_of()).column)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frozen": {"experts.slope": True}}, "no parameter 'experts.slope': its parameters are gate.weight"),
        ({"frozen": {"experts.bias": [True, False]}}, r"mask of 'experts.bias' has the shape \(2,\)"),
        ({"tied": [[("gate.slope", (0,)), ("gate.bias", (0,))]]}, "no parameter 'gate.slope'"),
        ({"tied": [[("gate.bias", (0,)), ("gate.bias", (3,))]]}, r"shape \(3,\) and no entry \(3,\)"),
        ({"tied": [[("gate.bias", (0,)), ("gate.bias", (-1,))]]}, r"no entry \(-1,\)"),
        ({"tied": [[("gate.bias", (0,)), ("gate.weight", (1,))]]}, r"shape \(3, 2\) and no entry \(1,\)"),
        (
            {"frozen": {"gate.bias": True}, "tied": [[("gate.weight", (0, 0)), ("gate.bias", (1,))]]},
            r"gate.bias\[1\] is both frozen and tied",
        ),
    ],
)
def test_what_does_not_fit_the_model_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        Constraints(**options).free_map(model_of())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frozen": {"gate.bias": 1}}, "must be True, False or a mask"),
        ({"frozen": {"gate.bias": [0, 1, 1]}}, "must be True, False or a mask"),
        ({"tied": [[("gate.bias", (0,))]]}, "needs two different entries"),
        ({"tied": [[("gate.bias", (0,)), ("gate.bias", (0,))]]}, "needs two different entries"),
        ({"tied": [[("gate.bias", (0,)), ("gate.bias", 1)]]}, "a name with an index"),
        ({"tied": [["gate.bias", "gate.weight"]]}, "a name with an index"),
        ({"tied": [[("gate.bias", (0.0,)), ("gate.bias", (1,))]]}, "a name with an index"),
    ],
)
def test_what_is_no_constraint_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        Constraints(**options)
