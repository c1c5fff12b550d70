"""The contract table: every gate with all experts, families and both objectives, less what makes no sense."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch

from gatewise.experts import register_function
from gatewise.model import MixtureOfExperts

N_FEATURES = 2
N_EXPERTS = 3

GATES = {
    "softmax": {},
    "modified_softmax": {"transform": "tanh"},
    "dense_to_sparse": {},
    "activation_dense_to_sparse": {"activation": "tanh"},
    "hierarchical": {"groups": [2, 2], "outer": "laplace", "inner": "softmax"},
    "cosine": {},
    "perturbed_cosine": {},
    "sigmoid": {},
    "sigmoid, unnormalised": {"normalised": False},
    "laplace": {},
    "gaussian": {},
    "gaussian, conditional": {"joint": False},
    "quadratic": {},
    "quadratic, monomial": {"monomial": True},
    "top_k": {"n_active": 2, "inner": "softmax"},
}
"""Options by the gate's name, and what distinguishes it from another of that name."""

EXPERTS = {
    "constant": {},
    "linear": {},
    "polynomial": {"power": 2},
    "polynomial_basis": {"degree": 2},
    "feed_forward": {"hidden": 2, "activation": "gelu"},
    "callable": {"function": "contract_bump"},
}

FAMILIES = {
    "gaussian": {},
    "multivariate_gaussian": {"n_targets": 2},
    "categorical": {"n_classes": 3},
    "bernoulli": {},
    "binomial": {"trials": 5},
    "poisson": {},
    "negative_binomial": {},
    "gamma": {},
    "student_t": {"df": 5.0},
    "laplace": {},
}

OBJECTIVES = ("likelihood", "least_squares")


@dataclass(frozen=True)
class Exclusion:
    """Combinations that are refused, and why."""

    reason: str
    gate: str | None = None
    experts: str | None = None
    family: str | None = None
    objective: str | None = None

    def covers(self, combination: tuple[str, str, str, str]) -> bool:
        own = (self.gate, self.experts, self.family, self.objective)
        return all(mine is None or mine == theirs for mine, theirs in zip(own, combination, strict=True))


EXCLUSIONS = (
    Exclusion("weights that do not sum to 1 give no density", gate="sigmoid, unnormalised", objective="likelihood"),
    Exclusion("a joint model of x and y is fitted by its likelihood", gate="gaussian", objective="least_squares"),
    Exclusion("classes are no numbers to take squares of", family="categorical", objective="least_squares"),
    Exclusion("the test's function has one output", experts="callable", family="multivariate_gaussian"),
    Exclusion("the test's function has one output", experts="callable", family="categorical"),
)


def _bump(x, parameters):
    return parameters["height"] * torch.exp(-0.5 * (x - parameters["place"]).square().sum(-1)) + parameters["level"]


register_function(
    "contract_bump",
    _bump,
    shapes={"height": (), "place": (N_FEATURES,), "level": ()},
    initial={"height": np.array(1.0), "place": np.zeros(N_FEATURES), "level": np.array(0.1)},
)


def all_combinations() -> list[tuple[str, str, str, str]]:
    """Every valid (gate, experts, family, objective)."""
    table = itertools.product(GATES, EXPERTS, FAMILIES, OBJECTIVES)
    return [row for row in table if not any(exclusion.covers(row) for exclusion in EXCLUSIONS)]


def pairwise_combinations() -> list[tuple[str, str, str, str]]:
    """Valid combinations in which every valid pair of two entries occurs: greedy, in a fixed order."""
    rows = all_combinations()
    pairs = {row: {(i, row[i], j, row[j]) for i, j in itertools.combinations(range(4), 2)} for row in rows}
    open_pairs = set().union(*pairs.values())
    chosen = []
    while open_pairs:
        best = max(rows, key=lambda row: len(pairs[row] & open_pairs))
        chosen.append(best)
        open_pairs -= pairs[best]
    return chosen


def build(gate: str, experts: str, family: str) -> MixtureOfExperts:
    """The model of a combination, its parameters drawn from a fixed generator, in float64.

    A tree has four experts: in a group of one the inner gate would have no effect.
    """
    model = MixtureOfExperts.build(
        gate.split(",")[0],
        experts,
        family,
        N_FEATURES,
        4 if gate == "hierarchical" else N_EXPERTS,
        gate_options=GATES[gate],
        expert_options=EXPERTS[experts],
        family_options=FAMILIES[family],
    ).double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return model


def inputs(n: int, seed: int = 3) -> torch.Tensor:
    """Standard normal inputs (n, d)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, N_FEATURES, dtype=torch.float64, generator=generator)


def targets(model: MixtureOfExperts, x: torch.Tensor, seed: int = 5) -> torch.Tensor:
    """Targets that depend on x and have a positive density under the family."""
    n, family = len(x), model.family
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, 2, dtype=torch.float64, generator=generator)
    plain = 0.8 * x[:, 0] + torch.where(x[:, 1] > 0.0, 1.0, -1.0) + 0.3 * noise[:, 0]
    if family.name == "multivariate_gaussian":
        return torch.stack([plain, plain + noise[:, 1]], dim=-1)
    if family.name in ("bernoulli", "categorical", "binomial"):
        levels = {"bernoulli": 2, "categorical": 3, "binomial": 6}[family.name]
        return (levels * torch.sigmoid(1.5 * noise[:, 1] + 0.5 * plain)).floor().clamp(max=levels - 1)
    if family.name in ("poisson", "negative_binomial"):
        return torch.floor(torch.exp(0.7 + 0.4 * plain + 0.3 * noise[:, 1]))
    return torch.exp(0.5 * plain) if family.name == "gamma" else plain
