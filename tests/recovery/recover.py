"""Fit what a truth has simulated, and compare every identified quantity with the truth's in its standard errors."""

import itertools
import time
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import chi2

from gatewise.fit import FitOptions, FitResult, fit
from gatewise.gates import Gate
from gatewise.inference import quantity_covariance
from gatewise.model import MixtureOfExperts
from gatewise.parts.parameters import Parameters
from tests.recovery.truths import NOISE, Truth

# A group of discrete symmetries with more elements than this would be none of ours.
_MOST_IMAGES = 256
# Starts on the first rows only have to find the right hill.
ROUGH_ITERATIONS = 100
ROUGH_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Recovery:
    """One simulated table and its fit.

    Attributes:
        z: (estimate − truth) / standard error of each quantity.
        gain: twice what the fitted log-likelihood is above the truth's: χ² with `n_parameters` degrees of freedom. For
            least squares the sum of squares that the fit saves, over the errors' variance.
        n_parameters: identified ones.
        status: of the fit.
        seconds: processor time of the fit.
    """

    z: np.ndarray
    gain: float
    n_parameters: int
    status: str
    seconds: float


def recover(truth: Truth, n: int, seed: int) -> Recovery:
    """Simulate n rows with this seed, fit them without a look at the truth, and compare."""
    x, y = truth.simulate(n, seed)
    began = time.process_time()
    result = fitted(truth, x, y, seed)
    seconds = time.process_time() - began
    estimates = result.coordinates.estimates(result.theta)
    covariance = quantity_covariance(result)
    true = nearest_image(truth.model(), estimates)
    error = np.sqrt(np.diag(covariance))
    return Recovery(
        (estimates - true) / error, _gain(truth, result, x, y), result.n_parameters, result.status.name, seconds
    )


def _gain(truth: Truth, result: FitResult, x: np.ndarray, y: np.ndarray) -> float:
    model, rows, targets = truth.model(), torch.from_numpy(x), torch.from_numpy(y)
    if truth.objective == "least_squares":
        squares = float((targets - model.mean(rows)).square().sum())
        return (squares + 2.0 * result.objective) / NOISE**2
    density = model.log_joint_density if model.gate.is_joint else model.log_prob
    return 2.0 * (result.log_likelihood - float(density(rows, targets).sum()))


def fitted(truth: Truth, x: np.ndarray, y: np.ndarray, seed: int) -> FitResult:
    """The fit from default starts, on all rows or on the first of them and then on all."""
    options = {"objective": truth.objective, "standardise": truth.standardise, "seed": seed}
    prototype = truth.prototype()
    if truth.start_share == 1.0:
        return fit(prototype, x, y, options=FitOptions(n_starts=truth.n_starts, **options))
    few = int(truth.start_share * len(y))
    rough = FitOptions(
        n_starts=truth.n_starts, solver="quasi-newton", max_iter=ROUGH_ITERATIONS, tol=ROUGH_TOLERANCE, **options
    )
    first = fit(prototype, x[:few], y[:few], options=rough)
    with torch.no_grad():
        inputs = torch.from_numpy(x)
        if truth.objective == "least_squares":
            shares = torch.softmax(first.model.gate.logits(inputs), -1)
        else:
            shares = first.model.responsibilities(inputs, torch.from_numpy(y))
    return fit(prototype, x, y, options=FitOptions(n_starts=1, init=shares.numpy(), **options))


def nearest_image(truth: MixtureOfExperts, estimates: np.ndarray) -> np.ndarray:
    """The truth's quantities under the permutation and discrete symmetry that brings them nearest to the estimates."""
    gate, experts = truth.gate, truth.experts
    candidates = []
    for order in itertools.permutations(range(truth.n_experts)):
        if not gate.allows(order):
            continue
        bank = dict(experts.permute(experts.own_parameters(), order))
        log_scale = bank.pop("log_scale")
        tail = torch.cat([experts.identified(bank), truth.family.natural_dispersion(log_scale).reshape(-1)])
        for image in images(gate, gate.permute(gate.own_parameters(), order)):
            # The dispersions stand at the end, and are no part of least squares.
            candidates.append(torch.cat([gate.identified(image), tail]).numpy()[: len(estimates)])
    return min(candidates, key=lambda whole: float(np.linalg.norm(whole - estimates)))


def images(gate: Gate, parameters: Parameters) -> list[Parameters]:
    """The parameters under all products of the gate's discrete symmetries."""
    generators = [symmetry for symmetry in gate.symmetries() if symmetry.dimension == 0]
    found = [parameters]
    for known in found:
        for generator in generators:
            moved = generator.act(known, next(iter(known.values())).new_zeros(0))
            if not any(_same(gate, moved, other) for other in found):
                found.append(moved)
        assert len(found) <= _MOST_IMAGES
    return found


def _same(gate: Gate, one: Parameters, other: Parameters) -> bool:
    return torch.allclose(gate.identified(one), gate.identified(other), rtol=1e-9, atol=1e-9)


def plausible_range(degrees: int, tail: float = 1e-5) -> tuple[float, float]:
    """Where a χ² variable with so many degrees of freedom lies, but for a probability of `tail` on either side."""
    return float(chi2.ppf(tail, degrees)), float(chi2.isf(tail, degrees))
