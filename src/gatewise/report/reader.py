"""A fitted model read at points of a table: weights, experts, mixture and bands as arrays for figures."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gatewise.fit.result import FitResult
from gatewise.model import MixtureOfExperts
from gatewise.report.targets import TargetKind, target_kind

__all__ = ["BAND_LEVEL", "Reader"]

BAND_LEVEL = 0.95
_TAIL = (1.0 - BAND_LEVEL) / 2.0


@dataclass(frozen=True)
class Reader:
    """A fitted model as a function of the columns of a table (n, d).

    The *centre* of an expert is what its line in a figure is: its mean, the probabilities of the classes, or its median
    where the family has no mean (Student's t with one degree of freedom or less).

    Attributes:
        model: the fitted model.
        kind: of its targets.
        is_likelihood: whether it was fitted by likelihood, so that its distribution means something; least squares
            determines a mean and nothing else.
        expert_columns: the columns of the table that the experts see.
        gate_columns: those that the gate sees.
        uses_median: whether centres are medians.
    """

    model: MixtureOfExperts
    kind: TargetKind
    is_likelihood: bool
    expert_columns: tuple[int, ...]
    gate_columns: tuple[int, ...]
    uses_median: bool = False

    @classmethod
    def of(cls, result: FitResult, expert_columns: list[int], gate_columns: list[int], inputs: np.ndarray) -> "Reader":
        """A reader that draws medians if some expert that has weight at one of these inputs (n, d) has no mean."""
        reader = cls(
            result.model,
            target_kind(result),
            result.kind == "likelihood",
            tuple(expert_columns),
            tuple(gate_columns),
        )
        if reader.kind is not TargetKind.NUMBER or not reader.has_quantiles:
            return reader
        present = reader.weights(inputs) > 0.0
        return replace(reader, uses_median=bool(np.isnan(reader.experts(inputs)[present]).any()))

    @property
    def has_quantiles(self) -> bool:
        """Whether there are bands, and a distribution function."""
        return self.is_likelihood and self.kind is not TargetKind.CLASS and self.model.has_quantiles

    @property
    def centre_name(self) -> str:
        """What the centres are called."""
        if self.kind in (TargetKind.CLASS, TargetKind.SHARE):
            return "probability"
        return "median" if self.uses_median else "mean"

    @property
    def n_classes(self) -> int:
        """C, 0 if targets are no classes."""
        return self.model.family.n_codes if self.kind is TargetKind.CLASS else 0

    @torch.no_grad()
    def weights(self, inputs: np.ndarray) -> np.ndarray:
        """πᵢ(x), (n, d) ↦ (n, k)."""
        x, gate_x, _ = self._tensors(inputs, None)
        return _array(self.model.log_weights(x, gate_x).exp())

    @torch.no_grad()
    def responsibilities(self, inputs: np.ndarray, target: np.ndarray, offset: np.ndarray | None) -> np.ndarray:
        """P(expert i | x, y), (n, k); for least squares each expert's share of the weights at x."""
        x, gate_x, added = self._tensors(inputs, offset)
        if self.is_likelihood:
            return _array(self.model.responsibilities(x, self._tensor(target), gate_x, added))
        return _array(torch.softmax(self.model.log_weights(x, gate_x), dim=-1))

    @torch.no_grad()
    def experts(self, inputs: np.ndarray, offset: np.ndarray | None = None) -> np.ndarray:
        """The experts' centres, (n, d) ↦ (n, k), (n, k, e) or (n, k, C)."""
        x, _, added = self._tensors(inputs, offset)
        parameters = self.model.expert_parameters(x, added)
        if self.uses_median:
            return _array(self.model.family.quantile(self._level(0.5, len(x)), *parameters))
        return self._all_classes(_array(self.model.family.mean(*parameters)), 2)

    @torch.no_grad()
    def mixture(self, inputs: np.ndarray, offset: np.ndarray | None = None) -> np.ndarray:
        """The mixture's centre, (n, d) ↦ (n,), (n, e) or (n, C)."""
        x, gate_x, added = self._tensors(inputs, offset)
        if self.uses_median:
            return _array(self.model.quantile(x, 0.5, gate_x, added))
        return self._all_classes(_array(self.model.mean(x, gate_x, added)), 1)

    @torch.no_grad()
    def deviation(self, inputs: np.ndarray, target: np.ndarray, offset: np.ndarray | None) -> np.ndarray:
        """The mixture's standard deviation of what is observed at each row, shaped as `mixture`.

        It is infinite or NaN where the family has none. A row's share of successes among n trials has the variance
        Σ πᵢ pᵢ(1 − pᵢ)/n + Σ πᵢ (pᵢ − p)², since all its trials are made by one expert.
        """
        x, gate_x, added = self._tensors(inputs, offset)
        if self.kind is TargetKind.CLASS:
            share = np.clip(self.mixture(inputs, offset), 0.0, 1.0)
            return np.sqrt(share * (1.0 - share))
        if self.kind is not TargetKind.SHARE:
            return _array(self.model.variance(x, gate_x, added).sqrt())
        weights = self.weights(inputs)
        parameters = self.model.expert_parameters(x, added)
        means, within = (_array(value(*parameters)) for value in (self.model.family.mean, self.model.family.variance))
        centre = (weights * means).sum(axis=1, keepdims=True)
        variance = (weights * (within / target[:, 1:] + (means - centre) ** 2)).sum(axis=1)
        return np.sqrt(variance)

    @torch.no_grad()
    def below(self, inputs: np.ndarray, target: np.ndarray, offset: np.ndarray | None) -> np.ndarray:
        """P(Y ≤ y | x), (n,)."""
        x, gate_x, added = self._tensors(inputs, offset)
        return _array(self.model.distribution_function(x, self._tensor(target), gate_x, added))

    @torch.no_grad()
    def expert_band(self, inputs: np.ndarray, offset: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The experts' 5% and 95% quantiles, (n, k) each."""
        x, _, added = self._tensors(inputs, offset)
        parameters = self.model.expert_parameters(x, added)
        low, high = (
            _array(self.model.family.quantile(self._level(p, len(x)), *parameters)) for p in (_TAIL, 1.0 - _TAIL)
        )
        return low, high

    @torch.no_grad()
    def mixture_band(self, inputs: np.ndarray, offset: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The mixture's 5% and 95% quantiles, (n,) each."""
        x, gate_x, added = self._tensors(inputs, offset)
        low, high = (_array(self.model.quantile(x, p, gate_x, added)) for p in (_TAIL, 1.0 - _TAIL))
        return low, high

    def _all_classes(self, means: np.ndarray, n_axes: int) -> np.ndarray:
        """Means with an axis of classes, also where the mean is the probability of the second of two alone."""
        return np.stack([1.0 - means, means], axis=-1) if self.n_classes and means.ndim == n_axes else means

    def _level(self, probability: float, n: int) -> Tensor:
        like = self.model.experts.log_scale
        return torch.full((n,), probability, dtype=like.dtype, device=like.device)

    def _tensor(self, values: np.ndarray) -> Tensor:
        like = self.model.experts.log_scale
        return torch.as_tensor(values, dtype=like.dtype, device=like.device)

    def _tensors(self, inputs: np.ndarray, offset: np.ndarray | None) -> tuple[Tensor, Tensor, Tensor | None]:
        x = self._tensor(inputs)
        added = None if offset is None else self._tensor(offset)
        return x[:, list(self.expert_columns)], x[:, list(self.gate_columns)], added


def _array(values: Tensor) -> np.ndarray:
    return values.cpu().double().numpy()
