"""Measures for the tests of losses."""

import numpy as np

from gatewise.theory import MixingMeasure


def gaussian_linear(k, d, generator, gate="softmax", **options):
    """A random measure of a gate with slopes, linear experts and the Gaussian family."""
    return MixingMeasure(
        np.exp(generator.normal(size=k)),
        {
            "gate_slope": generator.normal(size=(k, d)),
            "expert_slope": generator.normal(size=(k, d)),
            "expert_intercept": generator.normal(size=k),
            "variance": generator.uniform(0.1, 1.0, k),
        },
        gate=gate,
        **options,
    )


def published_truth():
    """The truth of the simulation of arXiv:2305.03288, as its authors' program has it; scales are variances."""
    return MixingMeasure(
        np.exp([-8.0, 0.0]),
        {
            "gate_slope": [[25.0], [0.0]],
            "expert_slope": [[-20.0], [20.0]],
            "expert_intercept": [15.0, -5.0],
            "variance": [0.09, 0.16],
        },
    )


def split(truth, atom, share, **moves):
    """The truth with one atom in two parts, the new one, which comes first, moved by the given amounts."""
    index = [atom, *range(truth.n_atoms)]
    weights = truth.weights[index].copy()
    weights[0] *= share
    weights[1 + atom] *= 1.0 - share
    parameters = {name: value[index].copy() for name, value in truth.parameters.items()}
    for name, amount in moves.items():
        parameters[name][0] += amount
    return MixingMeasure(
        weights,
        parameters,
        gate=truth.gate,
        experts=truth.experts,
        family=truth.family,
        options=truth.options,
        n_active=truth.n_active,
        translations=truth.translations,
    )
