"""Time one evaluation, value and gradient, for every gate: the path that a fit takes against the plain formula.

    python benchmarks/paths.py

n = 100,000, d = 8, k = 4, linear experts, Gaussian and Poisson. The plain way is PyTorch throughout: logits, locations,
log-densities, log-sum-exp, and automatic differentiation of all of it; both at the same parameters, those of a first
M-step, on one thread. The least of five calls, the median of five rounds; the two values must agree to 1e-11.
"""

import os

# Read once, when the libraries are loaded: these have to stand before the imports.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", NUMBA_NUM_THREADS="1")

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from common import machine, write_json
from gatewise.fit import FitOptions
from gatewise.fit.build import build_problem, path_of
from gatewise.fit.rows import checked_rows
from gatewise.model import MixtureOfExperts
from gatewise.ops.joint_torch import plain_log_mixture

N, D, K = 100_000, 8, 4
ROUNDS = 5
CALLS = 5
AGREEMENT = 1e-11
GATES: dict[str, tuple[str, dict[str, Any]]] = {
    "softmax": ("softmax", {}),
    "modified softmax (tanh)": ("modified_softmax", {"transform": "tanh"}),
    "dense-to-sparse": ("dense_to_sparse", {}),
    "activation dense-to-sparse (tanh)": ("activation_dense_to_sparse", {"activation": "tanh"}),
    "hierarchical (softmax, softmax)": ("hierarchical", {"groups": [2, 2]}),
    "cosine": ("cosine", {}),
    "perturbed cosine": ("perturbed_cosine", {}),
    "sigmoid, normalised": ("sigmoid", {}),
    "Laplace": ("laplace", {}),
    "Gaussian, joint": ("gaussian", {}),
    "Gaussian, conditional": ("gaussian", {"joint": False}),
    "quadratic": ("quadratic", {}),
    "quadratic, monomial": ("quadratic", {"monomial": True}),
    "top-K of softmax (K = 2)": ("top_k", {"inner": "softmax", "n_active": 2}),
}


@dataclass(frozen=True)
class Timing:
    """CPU seconds of one evaluation.

    Attributes:
        gate: with its options.
        family: its name.
        path: which one a fit takes.
        taken: by that path.
        plain: by the plain formula.
        ratio: plain / taken, round by round, the median of the rounds.
    """

    gate: str
    family: str
    path: str
    taken: float
    plain: float
    ratio: float


def fastest(call: Callable[[], object]) -> float:
    """The least CPU seconds of several calls."""
    seconds = []
    for _ in range(CALLS):
        begin = time.process_time()
        call()
        seconds.append(time.process_time() - begin)
    return min(seconds)


def rows_of(family: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, targets and responsibilities of a start."""
    random = np.random.default_rng(3)
    x = random.normal(size=(N, D))
    expert = random.integers(0, K, N)
    location = 0.3 * x[:, 0] + 0.5 * expert
    y = random.poisson(np.exp(location)).astype(float) if family == "poisson" else location + random.normal(size=N)
    responsibilities = np.full((K, N), 0.1)
    responsibilities[expert, np.arange(N)] = 1.0 - 0.1 * (K - 1)
    return x, y, responsibilities


def measure(label: str, family: str) -> Timing:
    """Time one gate with one family."""
    name, gate_options = GATES[label]
    x, y, responsibilities = rows_of(family)
    model = MixtureOfExperts.build(name, "linear", family, D, K, gate_options=gate_options)
    options = FitOptions(standardise="off")
    problem = build_problem(model, checked_rows(model, x, y, None, None), options)
    theta = problem.begin(responsibilities, 0, 0)
    fitted = problem.build_model(theta).requires_grad_(True)
    parameters = [parameter for parameter in fitted.parameters() if parameter.numel()]
    features, target, weight = torch.from_numpy(x), torch.from_numpy(y), torch.ones(N, dtype=torch.float64)

    def taken() -> object:
        return problem.value_and_gradient(theta)

    def plain() -> torch.Tensor:
        location, log_scale = fitted.experts(features)
        density = fitted.family.log_density(target, location, log_scale)
        value = plain_log_mixture(fitted.gate.logits(features), density, weight, not fitted.gate.is_joint)
        torch.autograd.grad(value, parameters, allow_unused=True)
        return value.detach()

    value, expected = problem.log_likelihood(theta), float(plain())
    if abs(value - expected) > AGREEMENT * abs(expected):
        raise RuntimeError(f"{label}, {family}: the path gives {value}, the plain formula {expected}")
    taken()
    rounds = [(fastest(taken), fastest(plain)) for _ in range(ROUNDS)]
    return Timing(
        label,
        family,
        path_of(model, options),
        median(own for own, _ in rounds),
        median(other for _, other in rounds),
        median(other / own for own, other in rounds),
    )


def main() -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    console = Console(width=None if sys.stdout.isatty() else 120)
    timings = [measure(label, family) for family in ("gaussian", "poisson") for label in GATES]
    table = Table(title=f"One evaluation, value and gradient, n={N:,} d={D} k={K}: CPU milliseconds, one thread")
    for heading in ("gate", "family", "path"):
        table.add_column(heading)
    for heading in ("this path", "plain", "plain / this path"):
        table.add_column(heading, justify="right")
    for row in timings:
        seconds = (f"{1e3 * row.taken:.1f}", f"{1e3 * row.plain:.1f}")
        table.add_row(row.gate, row.family, row.path, *seconds, f"{row.ratio:.1f}")
    console.print(table)
    content = {"machine": machine() | {"torch": torch.__version__}, "timings": [asdict(row) for row in timings]}
    console.print(f"Written to {write_json('paths.json', content)}")


if __name__ == "__main__":
    main()
