"""Which problem a model and its rows pose: a likelihood, counted from one regression or not, or least squares."""

import copy
import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from gatewise.experts import Experts
from gatewise.fit.gaussian_channels import has_compiled_sweep
from gatewise.fit.interrupt import never
from gatewise.fit.least_squares import LeastSquaresProblem
from gatewise.fit.options import FitOptions
from gatewise.fit.partition import PartitionedProblem, PartitionedSquares, selects
from gatewise.fit.problem import Problem
from gatewise.fit.regression import one_regression
from gatewise.fit.regression_problem import RegressionProblem
from gatewise.fit.result import Baseline
from gatewise.fit.rows import FitRows
from gatewise.fit.search import search
from gatewise.fit.start_rows import rows_of_one_regression
from gatewise.gates import Gate, SoftmaxGate
from gatewise.model import MixtureOfExperts

__all__ = ["build_problem", "path_of"]

_BASELINE_STARTS = 3
_BASELINE_ITERATIONS = 200


def path_of(model: MixtureOfExperts, options: FitOptions | None = None, has_offset: bool = False) -> str:
    """Which path evaluates the objective: "compiled", "fused" or "plain".

    Compiled: Gaussian with one output, softmax of logits that are linear in the parameters as the locations are:
    channels, likelihood, Hessian and scores in one compiled sweep. Fused: channels by PyTorch, the mixture's likelihood
    and its derivatives by channels in one compiled sweep; any normalised or joint gate, any experts, any family. Plain:
    PyTorch throughout; least squares, single precision and other devices.
    """
    options = options or FitOptions()
    if options.device != "cpu" or options.dtype != "float64" or options.objective == "least_squares":
        return "plain"
    is_linear = _is_linear(model.gate) and _is_linear(model.experts)
    return "compiled" if is_linear and has_compiled_sweep(model) and not has_offset else "fused"


def build_problem(
    model: MixtureOfExperts,
    rows: FitRows,
    options: FitOptions,
    deadline: float | None = None,
    interrupted: Callable[[], bool] = never,
) -> Problem:
    """The problem, with its one-expert baseline fitted; the user and the clock may end a search for that early.

    Raises:
        InputError: the model and the objective do not go together, or a column cannot be used.
    """
    kind = LeastSquaresProblem if options.objective == "least_squares" else Problem
    kind.check_model(model)
    regression = one_regression(model, rows, options)
    if regression is not None:
        return RegressionProblem(model, rows, options, regression)
    baseline = _baseline(kind, model, rows, options, deadline, interrupted)
    if selects(model.gate):
        kind = PartitionedSquares if options.objective == "least_squares" else PartitionedProblem
    return kind(model, rows, options, baseline)


def _baseline(
    kind: type[Problem],
    model: MixtureOfExperts,
    rows: FitRows,
    options: FitOptions,
    deadline: float | None,
    interrupted: Callable[[], bool],
) -> Baseline:
    """The best that a search finds for the same model with one expert."""
    gate = type(model.gate).of(model.gate.n_features, 1, **model.gate.options()) if model.gate.is_joint else None
    gate_rows = rows
    if gate is None:
        gate = SoftmaxGate(0, 1)
        gate_rows = dataclasses.replace(
            rows, gate_x=rows.gate_x[:, :0], names=dataclasses.replace(rows.names, gate_features=[])
        )
    alone = MixtureOfExperts(
        gate,
        one_expert(model.experts),
        model.family,
        gate_scaler=model.gate_scaler if gate.n_features else None,
        expert_scaler=model.expert_scaler,
    )
    plain = dataclasses.replace(
        options,
        constraints=None,
        gate_ridge=0.0,
        expert_ridge=0.0,
        variance_prior=None,
        init="auto",
        n_starts="auto" if _is_linear(model.experts) else _BASELINE_STARTS,
        n_jobs=None,
        verbose=False,
        max_iter=min(options.max_iter, _BASELINE_ITERATIONS),
        dtype="float64",
        device="cpu",
    )
    problem = kind(alone, gate_rows, plain, None)
    if problem.has_one_maximum and problem.is_smooth:
        problem.start_rows = rows_of_one_regression(gate_rows)
    # One climb, or a few, are always made: the floors under the spreads rest on them.
    is_long = problem.is_one_regression and not problem.has_one_maximum
    ends = search(problem, plain, *((deadline, interrupted) if is_long else (None, never))).ends
    best = max(ends, key=lambda end: end.value if np.isfinite(end.value) else -np.inf)
    return problem.as_baseline(best.theta)


def _is_linear(part: Gate | Experts) -> bool:
    """Whether a part is linear in its parameters."""
    return part.basis(torch.zeros(1, part.n_features).double()) is not None


def one_expert(experts: Experts) -> Experts:
    """A bank of the same kind with the first expert only."""
    alone = copy.deepcopy(experts)
    alone.n_experts = 1
    for name in (*experts.per_expert, "log_scale"):
        owner_name, _, leaf = name.rpartition(".")
        owner = alone.get_submodule(owner_name)
        value = getattr(owner, leaf, None)
        if value is not None:
            setattr(owner, leaf, nn.Parameter(value.detach()[:1].clone()))
    return alone
