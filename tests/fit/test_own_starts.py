"""A gate or a bank of experts that brings a start of its own begins a fit there, and no other file knows of it."""

import numpy as np
import torch

from gatewise.experts import LinearExperts
from gatewise.families import Poisson
from gatewise.fit import FitOptions
from gatewise.fit.build import build_problem
from gatewise.fit.rows import checked_rows
from gatewise.gates import SoftmaxGate
from gatewise.model import MixtureOfExperts


class _SteepGate(SoftmaxGate):
    """Begins at slopes that are the experts' shares of the rows."""

    def start(self, x, shares, draws):
        own = self.own_parameters()
        return {**own, "weight": (shares.mean(0) - shares.mean()).unsqueeze(-1).expand_as(own["weight"])}


class _LevelExperts(LinearExperts):
    """Regresses the targets on a constant alone, and begins at those levels."""

    def start_design(self, x):
        return torch.ones_like(x[:, :1])

    def start(self, x, shares, coefficients, draws):
        assert coefficients.shape == (self.n_experts, 1)
        return {"bias": coefficients[:, 0], "weight": torch.full_like(self.weight.detach(), 0.25)}


def test_a_start_of_ones_own_is_where_the_fit_begins():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(40, 2))
    y = generator.poisson(3.0, size=40).astype(float)
    model = MixtureOfExperts(_SteepGate(2, 2), _LevelExperts(2, 2, n_dispersion=0), Poisson()).double()
    problem = build_problem(model, checked_rows(model, x, y, None, None), FitOptions(standardise="off"))
    first = generator.uniform(size=40)
    built = problem.build_model(problem.begin(np.stack([first, 1.0 - first]), index=0, seed=0))
    slopes = built.gate.weight.detach().numpy()
    np.testing.assert_allclose(slopes[0] - slopes[1], np.full(2, 2.0 * first.mean() - 1.0), atol=1e-14)
    np.testing.assert_allclose(built.experts.weight.detach().numpy(), 0.25, atol=1e-14)
    # The likeliest constant rate of weighted counts is their mean.
    means = [np.average(y, weights=share) for share in (first, 1.0 - first)]
    np.testing.assert_allclose(built.experts.bias.detach().numpy(), np.log(means), rtol=1e-6)
