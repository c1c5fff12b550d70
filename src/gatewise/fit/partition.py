"""The objective of a model whose gate selects K experts: smooth within a partition of the rows, with jumps between."""

import contextlib
from collections.abc import Generator
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.fit.boundary import boundary_intervals
from gatewise.fit.channel_gradient import Channels
from gatewise.fit.least_squares import LeastSquaresProblem
from gatewise.fit.module_problem import ModuleProblem
from gatewise.fit.options import FitOptions
from gatewise.fit.result import Baseline, BoundaryInterval
from gatewise.fit.rows import FitRows
from gatewise.fit.working_regression import experts_start
from gatewise.gates import Gate
from gatewise.model import MixtureOfExperts
from gatewise.ops.derivatives import hessian
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


class PartitionedProblem(ModuleProblem):
    """The likelihood with a top-K gate, K < k: also with the partition held, and what moves the partition.

    Args:
        model: the prototype, with a top-K gate.
        rows: the checked rows.
        options: priors, floor, device, dtype, threads, constraints.
        baseline: the one-expert fit.

    Raises:
        InputError: the gate is of another kind, or as `ModuleProblem`.
    """

    def __init__(self, model: MixtureOfExperts, rows: FitRows, options: FitOptions, baseline: Baseline | None) -> None:
        super().__init__(model, rows, options, baseline)
        gate = self.prototype.gate
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
        self.gate = gate
        self.n_active = gate.own_top_k
        self._channels = _PartitionedChannels(self.prototype)
        self._scores = _Scores(gate)
        self.is_linear = gate.dense.basis(self._gate_x) is not None
        self.moving = self._moving()

    def _moving(self) -> np.ndarray:
        """Entries of θ that the selection score uses, by what the columns contain."""
        point = self._tensors(np.random.default_rng(0).normal(size=self.size), requires_grad=True)
        score = self._rows_of_gate(point, slice(None))[0]
        mixed = torch.linspace(0.5, 1.5, score.numel(), dtype=score.dtype, device=score.device).reshape(score.shape)
        (gradient,) = torch.autograd.grad((score * mixed).sum(), point, allow_unused=True, materialize_grads=True)
        order = self.entry_order
        return order[gradient.cpu().numpy()[order] != 0.0]

    # --- the partition

    def _rows_of_gate(self, theta: Tensor, rows: slice | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        named = {name: value for name, value in self._named(theta).items() if name.startswith("gate.")}
        return torch.func.functional_call(self._scores, named, (self._gate_x[rows],))

    @torch.no_grad()
    def gate_rows(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Selection scores and logits of all experts, (n, k) each."""
        score, logits, _ = self._rows_of_gate(self._tensors(theta, requires_grad=False), slice(None))
        return score.cpu().numpy().astype(float), logits.cpu().numpy().astype(float)

    def score_slopes(self, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The derivatives of the scores of some rows by θ, (rows, k, size)."""
        index = torch.from_numpy(rows).to(self._x.device)
        point = self._tensors(theta, requires_grad=False)
        slopes = torch.func.jacrev(lambda at: self._rows_of_gate(at, index)[0])(point)
        return cast(Tensor, slopes).detach().cpu().numpy().astype(float)

    def score_curvature(self, theta: np.ndarray, rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The Hessian by θ of the weighted sum of the scores of some rows, weights (rows, k), (size, size)."""
        index = torch.from_numpy(rows).to(self._x.device)
        point = self._tensors(theta, requires_grad=False)
        factor = torch.from_numpy(weight).to(point)
        second = hessian(lambda at: (factor * self._rows_of_gate(at, index)[0]).sum(), point)
        return second.cpu().numpy().astype(float)

    @torch.no_grad()
    def partition(self, theta: np.ndarray) -> Tensor:
        """Which experts each row keeps, bool (n, k)."""
        return self._rows_of_gate(self._tensors(theta, requires_grad=False), slice(None))[2]

    @contextlib.contextmanager
    def held(self, partition: Tensor) -> Generator[None, None, None]:
        """Values and derivatives within are those with this partition, wherever θ goes."""
        before = self._gate_x
        self._gate_x = torch.cat([before, partition.to(before)], dim=-1)
        try:
            yield
        finally:
            self._gate_x = before

    @torch.no_grad()
    def value(self, theta: np.ndarray) -> float:
        """The mean objective."""
        self.n_evaluations += 1
        point = self._tensors(theta, requires_grad=False)
        return float(self._fused_sum(point) + self._log_prior(point)) / self.total_weight

    @torch.no_grad()
    def densities(self, theta: np.ndarray) -> np.ndarray:
        """What a row adds to the mean objective, times Σ w, if one expert has it alone, (n, k)."""
        return self._evaluate(self._tensors(theta, requires_grad=False))[1].cpu().numpy().astype(float)

    @property
    def rows_are_mixtures(self) -> bool:
        """Whether Σ w log Σ π exp(`densities`) is the objective; with K = 1 it always is."""
        return True

    def towards(self, theta: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """θ with the gate that a start would have, if each row's experts were known by their densities alone."""
        density = self.densities(theta)
        shares = np.exp(density - density.max(axis=1, keepdims=True))
        shares *= (self.rows.weight / shares.sum(axis=1))[:, None]
        gate_x = self._gate_x.detach().cpu().double()
        gate = self.prototype.gate.start(gate_x, torch.from_numpy(shares), self.draws(generator)[0])
        experts = within("experts", self._named(torch.from_numpy(theta)))
        found = self.coordinates.collapse(self.coordinates.flat(gate, experts).numpy())
        return np.concatenate([found[: self.n_gate], theta[self.n_gate :]])

    def regressed(self, theta: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """θ with experts regressed on the rows that they would have, where experts are linear; else θ itself."""
        bank = self.prototype.experts
        x, y, offset = (t.detach().cpu().double() for t in (self._x, self._y, self._offset))
        if bank.basis(x[:1]) is None:
            return theta
        shares = torch.from_numpy((self.responsibilities(theta) * self.rows.weight).T.copy())
        experts = experts_start(bank, self.prototype.family, x, y, shares, offset, self.draws(generator)[1])
        gate = within("gate", self._named(torch.from_numpy(theta)))
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

    @torch.no_grad()
    def densities(self, theta: np.ndarray) -> np.ndarray:
        """−½ ‖y − hᵢ(x)‖², (n, k)."""
        named = self._named(self._tensors(theta, requires_grad=False))
        arguments = (self._gate_x, self._x, self._offset)
        _, location, log_scale = torch.func.functional_call(self._channels, named, arguments)
        means = self.prototype.family.mean(location, log_scale).reshape(self.n_rows, self.n_experts, -1)
        residual = self._y.reshape(self.n_rows, 1, -1) - means
        return -0.5 * residual.square().sum(-1).cpu().numpy().astype(float)

    @property
    def rows_are_mixtures(self) -> bool:
        """With K = 1 only: the square of a mean of several experts is no mixture of their squares."""
        return self.n_active == 1
