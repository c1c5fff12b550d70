"""The objective of a model whose gate selects K experts: smooth within a partition of the rows, with jumps between."""

import contextlib
from collections.abc import Generator

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.fit.boundary import boundary_intervals
from gatewise.fit.channel_gradient import Channels
from gatewise.fit.least_squares import LeastSquaresProblem
from gatewise.fit.options import FitOptions
from gatewise.fit.problem import Problem
from gatewise.fit.result import Baseline, BoundaryInterval
from gatewise.fit.rows import FitRows
from gatewise.fit.working_regression import experts_start
from gatewise.gates import Gate
from gatewise.model import MixtureOfExperts
from gatewise.ops.derivatives import hessian, jacobian
from gatewise.parts.parameters import within

__all__ = ["PartitionedProblem", "PartitionedSquares", "selects"]


def selects(gate: Gate) -> bool:
    """Whether the gate leaves experts out."""
    return gate.own_top_k is not None and gate.own_top_k < gate.n_experts


class _PartitionedChannels(Channels):
    """The channels; with k more columns of the gate's inputs these say which experts a row keeps, whatever the scores.

    Without them the gate selects.
    """

    def logits(self, gate_x: Tensor) -> Tensor:
        """The gate's logits (n, k), −∞ for the experts that a row does not keep."""
        d = self.gate.n_features
        if gate_x.shape[-1] == d:
            return self.gate.logits(gate_x)
        return self.gate.dense.logits(gate_x[:, :d]).masked_fill(gate_x[:, d:] == 0.0, -torch.inf)


class _Scores(nn.Module):
    """What the selection looks at, the logits of all experts, and the selection."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, gate_x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.gate.selection_score(gate_x), self.gate.dense.logits(gate_x), self.gate.selection(gate_x)


class PartitionedProblem(Problem):
    """The likelihood with a top-K gate, K < k: also with the partition held, and what moves the partition.

    Args:
        model: the prototype, with a top-K gate.
        rows: the checked rows.
        options: priors, floor, device, dtype, threads, constraints.
        baseline: the one-expert fit.

    Raises:
        InputError: the gate is of another kind, or as `Problem`.
    """

    def __init__(self, model: MixtureOfExperts, rows: FitRows, options: FitOptions, baseline: Baseline | None) -> None:
        gate = model.gate
        if gate.own_top_k is None or gate.dense is gate:
            raise InputError(
                f"the {gate.name} gate keeps {gate.own_top_k} experts in a way of its own, which the search does not "
                "know: wrap a dense gate in a TopKGate, or say in `dense` what is selected from"
            )
        if gate.own_top_k == 1 and options.gate_ridge > 0.0:
            raise InputError(
                "gate_ridge has nothing to hold where one expert is selected: the gate's slopes act through the "
                "selection only, which no common factor of them changes; leave it at 0"
            )
        super().__init__(model, rows, options, baseline)
        self.gate = gate = self.prototype.gate
        self.n_active = gate.own_top_k or gate.n_experts
        self.evaluator.channels = _PartitionedChannels(self.prototype)
        self._scores = _Scores(gate)
        self.is_linear = gate.dense.basis(self.internal.gate_x[:1]) is not None
        self.moving = self._moving()

    def _moving(self) -> np.ndarray:
        """Entries of θ that the selection score uses, by what the columns contain."""
        point = self.evaluator.point(np.random.default_rng(0).normal(size=self.size), requires_grad=True)
        score = self._rows_of_gate(point, slice(None))[0]
        mixed = torch.linspace(0.5, 1.5, score.numel(), dtype=score.dtype, device=score.device).reshape(score.shape)
        (gradient,) = torch.autograd.grad((score * mixed).sum(), point, allow_unused=True, materialize_grads=True)
        order = self.entry_order
        return order[gradient.cpu().numpy()[order] != 0.0]

    # --- the partition

    def _rows_of_gate(self, theta: Tensor, rows: slice | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        named = {name: value for name, value in self.evaluator.named(theta).items() if name.startswith("gate.")}
        return torch.func.functional_call(self._scores, named, (self.internal.gate_x[rows],))

    @torch.no_grad()
    def gate_rows(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Selection scores and logits of all experts, (n, k) each."""
        score, logits, _ = self._rows_of_gate(self.evaluator.point(theta), slice(None))
        return score.cpu().numpy().astype(float), logits.cpu().numpy().astype(float)

    def score_slopes(self, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The derivatives of the scores of some rows by θ, (rows, k, size)."""
        index = torch.from_numpy(rows).to(self.internal.x.device)
        point = self.evaluator.point(theta)
        slopes = jacobian(lambda at: self._rows_of_gate(at, index)[0], point)
        return slopes.cpu().numpy().astype(float)

    def score_curvature(self, theta: np.ndarray, rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The Hessian by θ of the weighted sum of the scores of some rows, weights (rows, k), (size, size)."""
        index = torch.from_numpy(rows).to(self.internal.x.device)
        point = self.evaluator.point(theta)
        factor = torch.from_numpy(weight).to(point)
        second = hessian(lambda at: (factor * self._rows_of_gate(at, index)[0]).sum(), point)
        return second.cpu().numpy().astype(float)

    @torch.no_grad()
    def partition(self, theta: np.ndarray) -> Tensor:
        """Which experts each row keeps, bool (n, k)."""
        return self._rows_of_gate(self.evaluator.point(theta), slice(None))[2]

    @contextlib.contextmanager
    def held(self, partition: Tensor) -> Generator[None, None, None]:
        """Values and derivatives within are those with this partition, wherever θ goes."""
        evaluator, before = self.evaluator, self.internal.gate_x
        evaluator.gate_x = torch.cat([before, partition.to(before)], dim=-1)
        try:
            yield
        finally:
            evaluator.gate_x = before

    @property
    def rows_are_mixtures(self) -> bool:
        """Whether Σ w log Σ π exp(`densities`) is the objective; with K = 1 it always is."""
        return True

    def towards(self, theta: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """θ with the gate that a start would have, if each row's experts were known by their densities alone."""
        density = self.evaluator.densities(theta)
        shares = np.exp(density - density.max(axis=1, keepdims=True))
        shares *= (self.rows.weight / shares.sum(axis=1))[:, None]
        gate_x = self.internal.in_float64().gate_x
        gate = self.prototype.gate.start(gate_x, torch.from_numpy(shares), self.draws(generator)[0])
        experts = within("experts", self._named(theta))
        found = self.coordinates.collapse(self.coordinates.flat(gate, experts).numpy())
        return np.concatenate([found[: self.n_gate], theta[self.n_gate :]])

    def regressed(self, theta: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """θ with experts regressed on the rows that they would have, where experts are linear; else θ itself."""
        bank = self.prototype.experts
        found = self.internal.in_float64()
        x, y, offset = found.x, found.y, found.offset
        if bank.basis(x[:1]) is None:
            return theta
        shares = torch.from_numpy((self.responsibilities(theta) * self.rows.weight).T.copy())
        experts = experts_start(bank, self.prototype.family, x, y, shares, offset, self.draws(generator)[1])
        gate = within("gate", self._named(theta))
        found = self.bounds.clip(self.coordinates.collapse(self.coordinates.flat(gate, experts).numpy()))
        return np.concatenate([theta[: self.n_gate], found[self.n_gate :]])

    # --- the verdict

    @property
    def selection_entries(self) -> np.ndarray:
        """The gate's entries with K = 1, which act through the selection only."""
        return np.arange(self.n_gate) if self.n_active == 1 else np.empty(0, dtype=int)

    def boundary(self, theta: np.ndarray) -> tuple[BoundaryInterval, ...]:
        """The intervals in the user's units, or in those of the gate's stored standardisation."""
        model = self.build_model(theta)
        x = torch.tensor(self.rows.gate_x)
        names = [f"z({name})" for name in self.rows.names.gate_features]
        names = names if self.coordinates.units.gate_is_stored else self.rows.names.gate_features
        gate_x = x if model.gate_scaler is None else model.gate_scaler(x)
        return boundary_intervals(model.gate, gate_x, names)

    def gate_direction(
        self, theta: np.ndarray, information: np.ndarray, responsibilities: np.ndarray
    ) -> np.ndarray | None:
        """As for a dense gate with K ≥ 2; with K = 1 there are no weights that could separate."""
        return None if self.n_active == 1 else super().gate_direction(theta, information, responsibilities)


class PartitionedSquares(PartitionedProblem, LeastSquaresProblem):
    """Least squares with a top-K gate, K < k.

    Args:
        model: the prototype, with a top-K gate.
        rows: the checked rows.
        options: device, dtype, constraints.
        baseline: the one-expert fit.

    Raises:
        InputError: as `PartitionedProblem` and `LeastSquaresProblem`.
    """

    @property
    def rows_are_mixtures(self) -> bool:
        """With K = 1 only: the square of a mean of several experts is no mixture of their squares."""
        return self.n_active == 1
