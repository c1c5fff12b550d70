"""The Hessian by curved channels is that of automatic differentiation of the whole objective, for parts of any kind."""

import numpy as np
import pytest
import torch

from gatewise.fit import FitOptions
from gatewise.fit.build import build_problem
from gatewise.fit.constraints import Constraints
from gatewise.fit.curved_channels import CurvedChannels
from gatewise.fit.rows import checked_rows
from gatewise.model import MixtureOfExperts

N = 150
# Steps of the fit of one expert with which a problem begins; what is looked at does not depend on it.
FEW = 2


def rows(family):
    generator = np.random.default_rng(3)
    x = generator.normal(size=(N, 2))
    gaussian = generator.normal(size=N) + x[:, 0]
    targets = {
        "poisson": generator.poisson(3.0, N),
        "negative_binomial": generator.poisson(3.0, N),
        "bernoulli": generator.integers(0, 2, N),
        "categorical": generator.integers(0, 3, N),
        "gamma": generator.gamma(2.0, size=N),
        "multivariate_gaussian": np.stack([gaussian, generator.normal(size=N)], 1),
    }
    return x, targets.get(family, gaussian).astype(float)


def automatic(problem, point):
    return torch.func.hessian(problem.evaluator.total)(point)


def check(problem):
    assert type(problem.evaluator) is CurvedChannels
    theta = np.random.default_rng(7).normal(size=problem.size) * 0.4
    theta = problem.bounds.clip(theta)
    point = torch.from_numpy(theta)
    expected = automatic(problem, point)
    found = problem.evaluator.chunk_hessian(point, slice(None))
    # Sums of a few hundred terms in another order; PyTorch's trigamma, which these families need, is right to 1e-8.
    close = 1e-8 if problem.prototype.family.name in ("gamma", "negative_binomial", "student_t") else 1e-11
    torch.testing.assert_close(found, expected, rtol=0.0, atol=close * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("gate", "experts", "family", "options"),
    [
        ("laplace", "linear", "gaussian", {}),
        ("dense_to_sparse", "linear", "gaussian", {}),
        ("activation_dense_to_sparse", "constant", "poisson", {}),
        ("perturbed_cosine", "feed_forward", "gaussian", {"experts": {"activation": "tanh", "hidden": 2}}),
        ("cosine", "polynomial", "student_t", {}),
        ("hierarchical", "linear", "gamma", {}),
        ("gaussian", "linear", "negative_binomial", {}),
        ("sigmoid", "linear", "categorical", {"family": {"n_classes": 3}}),
        ("softmax", "feed_forward", "bernoulli", {"experts": {"activation": "gelu", "hidden": 1}}),
        ("laplace", "linear", "multivariate_gaussian", {"family": {"n_targets": 2}}),
        ("laplace", "linear", "multivariate_gaussian", {"family": {"n_targets": 2, "covariance": "full"}}),
        ("top_k", "feed_forward", "gaussian", {"gate": {"n_active": 1}, "experts": {"activation": "tanh"}}),
        ("top_k", "linear", "poisson", {"gate": {"inner": "cosine", "n_active": 2}}),
    ],
)
def test_hessians_agree(gate, experts, family, options):
    x, y = rows(family)
    model = MixtureOfExperts.build(
        gate,
        experts,
        family,
        2,
        4 if gate == "hierarchical" else 3,
        gate_options=options.get("gate"),
        expert_options=options.get("experts"),
        family_options=options.get("family"),
    )
    weight = np.random.default_rng(1).integers(0, 3, N).astype(float)
    check(build_problem(model, checked_rows(model, x, y, None, weight), FitOptions(standardise="off", max_iter=FEW)))


@pytest.mark.parametrize("shared_scale", [False, True])
def test_held_and_tied_parameters(shared_scale):
    x, y = rows("gaussian")
    model = MixtureOfExperts.build("laplace", "linear", "gaussian", 2, 3, shared_scale=shared_scale)
    constraints = Constraints(
        frozen={"gate.bias": [True, False, True], "gate.centre": True},
        tied=[[("experts.weight", (0, 0)), ("experts.weight", (2, 1))]],
    )
    check(
        build_problem(model, checked_rows(model, x, y, None, None), FitOptions(constraints=constraints, max_iter=FEW))
    )
    everything = Constraints(frozen={"gate.bias": True, "gate.centre": True})
    check(build_problem(model, checked_rows(model, x, y, None, None), FitOptions(constraints=everything, max_iter=FEW)))


def test_experts_that_see_other_columns_with_offsets():
    x, y = rows("poisson")
    model = MixtureOfExperts.build("laplace", "linear", "poisson", 2, 2)
    offset = np.linspace(-0.5, 0.5, N)
    check(build_problem(model, checked_rows(model, x, y, x[:, :2] ** 2, None, offset=offset), FitOptions(max_iter=FEW)))


def test_where_a_density_vanishes_its_derivatives_do_not_count():
    """An expert whose rate overflows has no part in any row: the others' curvature is as if they were alone."""
    x, y = rows("poisson")
    problems = []
    for k in (3, 2):
        model = MixtureOfExperts.build("laplace", "linear", "poisson", 2, k)
        problems.append(
            build_problem(model, checked_rows(model, x, y, None, None), FitOptions(standardise="off", max_iter=FEW))
        )
    names = [np.repeat(problem.coordinates.names, problem.coordinates.sizes) for problem in problems]
    theta = np.random.default_rng(7).normal(size=problems[0].size) * 0.4
    lost = np.zeros(len(theta), dtype=bool)
    for name in set(names[0]):
        own = np.flatnonzero(names[0] == name)
        lost[own[2 * len(own) // 3 :]] = True
    theta[lost & (names[0] == "experts.bias")] = 800.0
    hessian = problems[0].exact_hessian(theta)
    assert np.isfinite(hessian).all()
    experts = np.array([name.startswith("experts") for name in names[0]])
    assert (hessian[lost & experts] == 0.0).all()
    block = hessian[np.ix_(~lost & experts, ~lost & experts)]
    alone = problems[1].exact_hessian(theta[~lost])
    own = np.array([name.startswith("experts") for name in names[1]])
    np.testing.assert_allclose(block, alone[np.ix_(own, own)], rtol=1e-10, atol=1e-12)
