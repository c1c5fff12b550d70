"""Small builders and brute-force formulas shared by the tests."""

import math

import numpy as np

from gatewise.experts import ConstantExperts, LinearExperts
from gatewise.families import Gaussian
from gatewise.fit import FitOptions
from gatewise.fit.build import build_problem
from gatewise.fit.rows import checked_rows
from gatewise.gates import SoftmaxGate
from gatewise.model import MixtureOfExperts


def mixture(n_features, n_gate_features, n_experts, shared_scale=False, constant=False):
    experts = ConstantExperts if constant else LinearExperts
    return MixtureOfExperts(
        SoftmaxGate(n_gate_features, n_experts), experts(n_features, n_experts, shared_scale), Gaussian()
    )


def problem_of(model, x, y, weight=None, **options):
    """The problem that a model, its rows and options pose."""
    return build_problem(model, checked_rows(model, x, y, None, weight), FitOptions(**options))


def brute_force_log_likelihood(gate, coefficients, log_scale, gate_design, design, y, weight):
    """Σ w log Σ π f by a plain double loop with Python floats."""
    total = 0.0
    for r in range(len(y)):
        logits = [math.fsum(gate[i] * gate_design[:, r]) for i in range(len(gate))]
        top = max(logits)
        normaliser = top + math.log(math.fsum(math.exp(value - top) for value in logits))
        terms = []
        for i in range(len(gate)):
            z = (y[r] - math.fsum(coefficients[i] * design[:, r])) / math.exp(log_scale[i])
            terms.append(logits[i] - normaliser - 0.5 * z * z - log_scale[i] - 0.5 * math.log(2.0 * math.pi))
        top = max(terms)
        total += weight[r] * (top + math.log(math.fsum(math.exp(value - top) for value in terms)))
    return total


def simulate(generator, n, gate, coefficients, scale):
    """x uniform on [-1, 1]^d and y from the mixture with (k, 1 + d) gate and expert coefficients."""
    d = coefficients.shape[1] - 1
    x = generator.uniform(-1.0, 1.0, size=(n, d))
    design = np.column_stack([np.ones(n), x])
    logits = design @ gate.T
    chosen = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    y = (design @ coefficients.T)[np.arange(n), chosen] + scale[chosen] * generator.normal(size=n)
    return x, y, chosen
