"""Truths and quick designs for the tests of the modulus."""

import torch

from gatewise import MixtureOfExperts
from gatewise.theory.modulus import BoxInputs, ModulusDesign, Search, TargetGrid, Window

LINE = {"weight": [[-1.5], [1.0]], "bias": [1.0, -1.0], "log_scale": [-0.35, -0.25]}
SLOPE = {"weight": [[1.0], [0.0]], "bias": [0.5, 0.0]}


def mixture(gate, gate_values, experts="linear", expert_values=None, d=1, gate_options=None, expert_options=None):
    values = (gate_values, LINE if expert_values is None else expert_values)
    k = len(next(iter(gate_values.values())))
    model = MixtureOfExperts.build(
        gate, experts, "gaussian", d, k, gate_options=gate_options, expert_options=expert_options
    ).double()
    for part, given in zip((model.gate, model.experts), values, strict=True):
        tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in given.items()}
        part.assign_parameters({**part.own_parameters(), **tensors})
    return model


def quick(distance="hellinger", nodes=8, **window):
    return ModulusDesign(
        distance=distance,
        inputs=BoxInputs(nodes=nodes),
        targets=TargetGrid(nodes=31),
        window=Window(**{"largest": 0.1, "smallest": 3e-3, "per_decade": 3, **window}),
        search=Search(starts=3, polish=3),
    )
