"""What every benchmark shares: parameters, the one log-likelihood they are compared by, clock, machine and output."""

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import scipy
from scipy.special import gammaln

__all__ = [
    "OUTPUT",
    "GeneralParameters",
    "Parameters",
    "cpu_seconds",
    "general_log_likelihood",
    "log_likelihood",
    "machine",
    "write_json",
]

OUTPUT = Path(__file__).parent / "out"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Parameters:
    """A softmax-gated mixture of linear Gaussian regressions in the units of the data.

    Attributes:
        gate: (k, 1 + d), intercept first.
        experts: (k, 1 + d), intercept first.
        scale: standard deviations, (k,).
    """

    gate: np.ndarray
    experts: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class GeneralParameters:
    """A softmax-gated mixture of linear experts without dispersions, in the units of the data.

    Attributes:
        gate: (k, 1 + d), intercept first.
        experts: (k, m, 1 + d), intercept first: m = 1 for counts, m = C − 1 logits for classes.
    """

    gate: np.ndarray
    experts: np.ndarray


def general_log_likelihood(family: str, parameters: GeneralParameters, x: np.ndarray, y: np.ndarray) -> float:
    """Σ log Σᵢ πᵢ(x) f(y | hᵢ(x)), f Poisson or categorical with the last class as reference."""
    with_one = np.column_stack([np.ones(len(y)), x])
    logits = with_one @ parameters.gate.T
    log_weights = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
    locations = np.einsum("np,kmp->nkm", with_one, parameters.experts)
    if family == "poisson":
        log_density = y[:, None] * locations[..., 0] - np.exp(locations[..., 0]) - gammaln(y + 1.0)[:, None]
    else:
        every = np.concatenate([locations, np.zeros((*locations.shape[:2], 1))], axis=2)
        log_probabilities = every - np.logaddexp.reduce(every, axis=2)[..., None]
        log_density = np.take_along_axis(log_probabilities, y.astype(int)[:, None, None], axis=2)[..., 0]
    return float(np.logaddexp.reduce(log_weights + log_density, axis=1).sum())


def log_likelihood(parameters: Parameters, x: np.ndarray, y: np.ndarray) -> float:
    """Σ log Σᵢ πᵢ(x) N(y | aᵢᵀx + bᵢ, σᵢ²): the only log-likelihood by which programs are compared."""
    with_one = np.column_stack([np.ones(len(y)), x])
    logits = with_one @ parameters.gate.T
    log_weights = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
    standardised = (y[:, None] - with_one @ parameters.experts.T) / parameters.scale
    log_density = -0.5 * standardised**2 - np.log(parameters.scale) - 0.5 * np.log(2 * np.pi)
    return float(np.logaddexp.reduce(log_weights + log_density, axis=1).sum())


def cpu_seconds(call: Callable[[], Result]) -> tuple[float, Result]:
    """CPU seconds of this process (all its threads) that a call takes, and what it returns."""
    begin = time.process_time()
    result = call()
    return time.process_time() - begin, result


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, load, versions."""
    details = Path("/proc/cpuinfo").read_text(encoding="utf-8") if platform.system() == "Linux" else ""
    names = (line.partition(":")[2].strip() for line in details.splitlines() if line.startswith("model name"))
    model = next(names, platform.processor())
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


def write_json(name: str, content: dict[str, Any]) -> Path:
    """Write `benchmarks/out/<name>` whole or not at all."""
    OUTPUT.mkdir(exist_ok=True)
    path = OUTPUT / name
    sibling = OUTPUT / f".{name}.{os.getpid()}"
    with sibling.open("w", encoding="utf-8") as handle:
        json.dump(content, handle, indent=1, allow_nan=False)
        handle.flush()
        os.fsync(handle.fileno())
    sibling.replace(path)
    return path
