"""Where a start begins: an M-step from its responsibilities, closed where gate and experts are regressions."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gatewise.fit.bounds import Bounds
from gatewise.fit.coordinates import Coordinates
from gatewise.fit.gaussian_channels import GaussianChannels
from gatewise.fit.internal_rows import InternalRows
from gatewise.fit.linear_channels import LinearChannels
from gatewise.fit.options import FitOptions
from gatewise.fit.plain_rows import PlainRows
from gatewise.fit.quasi_newton import ascend
from gatewise.fit.working_regression import experts_start
from gatewise.model import MixtureOfExperts
from gatewise.parts.draws import Draws
from gatewise.parts.parameters import within

__all__ = ["first_step"]

_EXPECTATION_STEPS = 12


class Begun(Protocol):
    """What is asked of a problem."""

    prototype: MixtureOfExperts
    coordinates: Coordinates
    evaluator: PlainRows
    options: FitOptions
    bounds: Bounds
    kind: str

    def value_and_gradient(
        self, theta: np.ndarray, responsibilities: Tensor | None = None
    ) -> tuple[float, np.ndarray]: ...

    def draws(self, generator: np.random.Generator) -> tuple[Draws, Draws]: ...


def first_step(
    problem: Begun, responsibilities: np.ndarray, rows: InternalRows, generator: np.random.Generator
) -> np.ndarray:
    """θ by weighted regressions where they are, and ascent of the expected complete log-likelihood.

    Args:
        problem: what is to be maximised.
        responsibilities: r (k, n).
        rows: in internal units, in float64 on the CPU.
        generator: of the start's first values.
    """
    model, coordinates = problem.prototype, problem.coordinates
    # Copied into torch's own memory: sums of matrix products depend on how their arrays are aligned.
    shares = torch.tensor((responsibilities * rows.weight.numpy()).T)
    gate_draws, draws = problem.draws(generator)
    gate = model.gate.start(rows.gate_x, shares, gate_draws)
    experts = experts_start(model.experts, model.family, rows.x, rows.y, shares, rows.offset, draws)
    theta = problem.bounds.clip(coordinates.collapse(coordinates.flat(gate, experts).numpy()))
    is_linear = isinstance(problem.evaluator, LinearChannels) and problem.kind == "likelihood"
    if is_linear and isinstance(problem.evaluator, GaussianChannels):
        return _with_scales(problem, theta, problem.evaluator.closed_scales(theta, shares.numpy()))
    # Regressions of gate and experts are the whole M-step.
    at_maximum = is_linear and not model.gate.is_joint and model.family.n_dispersion == 0
    if model.gate.own_top_k is not None or model.n_experts == 1 or (at_maximum and problem.options.constraints is None):
        return theta
    target = torch.tensor(responsibilities.T).to(problem.evaluator.x)
    return ascend(lambda at: problem.value_and_gradient(at, target), theta, problem.bounds, _EXPECTATION_STEPS)


def _with_scales(problem: Begun, theta: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
    """θ with other log-scales (k,), as far as they are free."""
    coordinates = problem.coordinates
    named = coordinates.parameters(coordinates.full(torch.from_numpy(theta)))
    own = named["experts.log_scale"]
    named["experts.log_scale"] = torch.from_numpy(log_scale[: len(own)]).reshape(own.shape)
    full = coordinates.flat(within("gate", named), within("experts", named)).numpy()
    return problem.bounds.clip(coordinates.collapse(full))
