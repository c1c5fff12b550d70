"""What a fit can be told, checked once."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gatewise.exceptions import InputError
from gatewise.fit.constraints import Constraints
from gatewise.fit.rows import LARGEST
from gatewise.messages import choose, shown
from gatewise.model import MixtureOfExperts
from gatewise.spec.options import PlainFitOptions

__all__ = ["FitOptions", "Init"]

Init = str | np.ndarray | MixtureOfExperts | Sequence[MixtureOfExperts]
"""Where to start: the name of a strategy, responsibilities, or models."""


@dataclass(frozen=True, eq=False)
class FitOptions(PlainFitOptions):
    """How to look for the maximum.

    Attributes:
        n_starts: how many starts are followed to their end, the best being kept; "auto" goes on until the evidence is
            in that no better optimum is left, up to a limit of counted work.
        init: "auto" (all strategies in turn), the name of one of `gatewise.fit.STRATEGIES`, responsibilities (n, k),
            or a model or several, of the same parts as the prototype: with an array the first start is exactly there,
            with models the first starts are at their parameters, and the others are "auto".
        em_steps: EM steps before the second-order solver takes over.
        solver: "newton" (exact Hessian, trust region), "quasi-newton" (L-BFGS-B), or "auto": Newton; above 600
            parameters after an approach by L-BFGS-B; above 3,000 L-BFGS-B alone.
        tol: bound on the largest component of the gradient of the mean objective, in internal units.
        max_iter: solver iterations per start.
        time_limit: seconds for the whole fit, after which the best so far is returned; without a limit by default.
        scale_floor: smallest spread of an expert (σ, or what the family has for it), as a share of that of the
            one-expert fit; lowered, and said so, where many rows agree more closely.
        gate_ridge: λ of the log prior −λ/2 Σᵢ ‖βᵢ − β̄‖² on the gate's slopes in standardised units, for gates that
            separate.
        expert_ridge: λ of the log prior −λ/2 Σ a² on the experts' slopes in standardised units, or on all weights of a
            network's experts, for experts that separate.
        variance_prior: a pair (a, b): an inverse-gamma prior on each σ² relative to the one-expert residual variance,
            density ∝ (σ²)^(−a−1) exp(−b/σ²), for scales that shrink without end; none by default.
        n_jobs: workers for the starts, −1 for all cores; the result does not depend on them.
        n_threads: threads for one pass over the data; the bits of the result do not depend on it.
        device: torch device; other than "cpu" takes the plain torch path.
        dtype: "float64", or "float32" by the plain torch path.
        objective: "likelihood", or "least_squares" on the mixture's mean Σᵢ πᵢ(x) E[y | expert i].
        standardise: "auto": gate and experts are fitted on standardised inputs, which is undone where they are
            equivariant and stored as a layer of the model where they are not; "off": they are fitted on the inputs as
            they are. The default model is standardised in any case, without effect on the result.
        constraints: parameters held or tied, or None; with constraints nothing is standardised.
        seed: the key of everything random.
        verbose: print a line per start to the standard error: on a terminal, in a notebook, into a log.

    Raises:
        InputError: an option is outside its range.
    """

    init: Init = "auto"
    constraints: Constraints | None = None

    def __post_init__(self) -> None:
        if self.n_starts != "auto":
            _at_least("n_starts", self.n_starts, 1, ', or "auto"')
        _at_least("em_steps", self.em_steps, 0)
        _at_least("max_iter", self.max_iter, 0)
        _at_least("n_threads", self.n_threads, 1)
        _at_least("seed", self.seed, 0)
        for option in dataclasses.fields(self):
            if choices := option.metadata.get("choices"):
                _one_of(option.name, getattr(self, option.name), choices)
        if not _is_device(self.device):
            raise InputError(
                f"unknown device {shown(self.device)}: use cpu, or a device that torch has on this machine"
            )
        if not (_is_number(self.tol) and self.tol > 0.0):
            raise InputError(f"tol must be a positive number, not {shown(self.tol)}")
        if self.time_limit is not None and not (_is_number(self.time_limit) and self.time_limit > 0.0):
            raise InputError(f"time_limit must be a positive number of seconds or None, not {shown(self.time_limit)}")
        if not (_is_number(self.scale_floor) and 0.0 < self.scale_floor < 1.0):
            raise InputError(f"scale_floor must lie strictly between 0 and 1, not {shown(self.scale_floor)}")
        for name, ridge in (("gate_ridge", self.gate_ridge), ("expert_ridge", self.expert_ridge)):
            if not (_is_number(ridge) and ridge >= 0.0):
                raise InputError(f"{name} must be a non-negative number, not {shown(ridge)}")
            _below_overflow(name, ridge)
        if self.variance_prior is not None:
            prior = self.variance_prior
            pair = isinstance(prior, Sequence | np.ndarray) and len(prior) == 2
            if not (pair and all(_is_number(value) and value > 0.0 for value in prior)):
                raise InputError(f"variance_prior must be two positive numbers (a, b), not {shown(prior)}")
            _below_overflow("variance_prior", max(prior))
        if self.constraints is not None and not isinstance(self.constraints, Constraints):
            raise InputError(
                f"constraints must be gatewise.fit.constraints.Constraints or None, not {shown(self.constraints)}"
            )
        if self.n_jobs is not None and (not _is_whole(self.n_jobs) or self.n_jobs == 0):
            raise InputError(f"n_jobs must be a whole number other than 0, or None, not {shown(self.n_jobs)}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
        return False
    return bool(abs(value) <= sys.float_info.max)


def _below_overflow(name: str, value: float) -> None:
    if value >= LARGEST:
        raise InputError(
            f"{name} has the value {shown(value)}: take one below {LARGEST:g}, whose products do not overflow"
        )


def _is_device(name: str) -> bool:
    # Torch knows names of devices that this machine does not have: only an allocation tells.
    try:
        torch.empty(0, device=name).cpu()
    except (RuntimeError, AssertionError, TypeError, ValueError):
        return False
    return isinstance(name, str)


def _at_least(name: str, value: object, smallest: int, other: str = "") -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < smallest:
        raise InputError(f"{name} must be a whole number of at least {smallest}{other}, not {shown(value)}")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"unknown {name} {shown(value)}: {choose(value, choices)}")
