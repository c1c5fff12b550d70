"""What a solver climbs: θ ↦ a likelihood with its priors and derivatives, in internal units."""

import copy
import math
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.fit.bounds import Bounds
from gatewise.fit.coordinates import Coordinates
from gatewise.fit.curved_channels import CurvedChannels
from gatewise.fit.gaussian_channels import GaussianChannels, has_compiled_sweep
from gatewise.fit.internal_rows import (
    InternalRows,
    internal_rows,
    internal_units,
    refuse_columns,
    refuse_constant_target,
)
from gatewise.fit.linear_channels import LinearChannels
from gatewise.fit.options import FitOptions
from gatewise.fit.plain_rows import PlainRows
from gatewise.fit.priors import LogPrior
from gatewise.fit.result import Baseline
from gatewise.fit.rows import FitRows
from gatewise.fit.spreads import FloorEntry, RelativeSpread, SpreadsOfModel
from gatewise.fit.tangents import declared_tangents, span
from gatewise.model import MixtureOfExperts
from gatewise.parts.parameters import Parameters

__all__ = ["Objective"]

# With more parameters the scores of all rows are not formed for the sake of a sandwich that is rarely asked for.
_MOST_SCORES = 300
# How near to its bound a logarithm of a spread is on it.
_ON_FLOOR = 1e-9


class Objective:
    """θ ↦ (Σ w log p(y | x; θ) + log prior(θ)) / Σ w, to be maximised; log p(x, y; θ) with a joint gate.

    θ is in internal units; its first entries are the gate's.

    Args:
        model: the prototype.
        rows: the checked rows.
        options: priors, floor, device, dtype, threads, constraints.
        baseline: the one-expert fit, or None for the one-expert problem itself.

    Attributes:
        prototype: the model whose parameters are sought.
        size: the length of θ.
        n_gate: how many of its entries are the gate's.
        n_rows: rows with a positive weight.
        total_weight: Σ w.
        evaluator: who evaluates the rows' part of the objective.
        bounds: of θ, from the floors of the spreads.
        n_evaluations: passes over the data so far.
        baseline: the one-expert fit.
        scale_floor: the smallest spread of an expert, as a share of that of the one-expert fit.
        floor_entries: the entries of θ that this bounds.
        row_need: rows an expert needs for its own parameters and two more; with fewer it is tight.
        is_smooth: whether the objective has two derivatives wherever a solver may stand.
        may_have_kinks: whether a smooth solver that stalls may have met a kink, which gradient sampling would tell.
        unit: user units of y per internal unit of a scale, 1 where there is none.
        internal: the rows in internal units.
        coordinates: what θ means to the user.
        prior: the log priors.
        runs_in_threads: whether copies of this problem can climb in threads at the same time, and nearly all time is
            spent where Python's lock is not held: then a worker needs neither imports nor data of its own.
        kind: "likelihood" or "least_squares".

    Raises:
        InputError: the model has no such objective, or a column cannot be used.
    """

    kind: str = "likelihood"
    most_cheap: int = 600
    unit: float = 1.0
    may_have_kinks: bool = True
    runs_in_threads: bool = False

    def __init__(
        self,
        model: MixtureOfExperts,
        rows: FitRows,
        options: FitOptions,
        baseline: Baseline | None,
    ) -> None:
        self.check_model(model)
        self.prototype = copy.deepcopy(model).to(device="cpu", dtype=torch.float64).requires_grad_(False)
        self.rows, self.options = rows, options
        self.n_evaluations = 0
        self.n_rows, self.total_weight = len(rows.weight), float(rows.weight.sum())
        self._take_rows()
        self.size, self.n_gate = self.coordinates.size, self.coordinates.n_gate_parameters
        self.evaluator = self._evaluator()
        self._null_of_channels: np.ndarray | None = None
        self.row_need = self._row_need()
        self.is_smooth = self.prototype.family.is_smooth
        self.baseline = baseline or Baseline(math.nan, math.nan, math.nan, 0)
        self._spreads = self._spreads_in_theta()
        self._base_scale = math.nan
        if self.prototype.family.has_scale and self._spreads.reference:
            target = self.coordinates.units.target
            self._base_scale = self._spreads.base_scale()
            self.unit = self._base_scale * (1.0 if target is None else float(target[1].log().mean().exp()))
        self.prior = LogPrior(options, self.coordinates, self._base_scale)
        self._set_floor(options.scale_floor)

    @classmethod
    def check_model(cls, model: MixtureOfExperts) -> None:
        """Refuse a model that has no such objective.

        Raises:
            InputError: it has none.
        """
        if model.gate.normaliser == "none":
            raise InputError(
                f"the weights of the {model.gate.name} gate are not normalised, so the model has no likelihood: fit it "
                'with objective="least_squares", or normalise the gate'
            )

    def _take_rows(self) -> None:
        """What θ means, and the rows in internal units."""
        options, model = self.options, self.prototype
        standardise = options.standardise == "auto" and options.constraints is None
        units = internal_units(model, self.rows, standardise, self.kind == "least_squares")
        self.coordinates = Coordinates(model, units, *self._free(options), self.kind == "likelihood")
        refuse_columns(model, self.rows, self.coordinates.size)
        self.internal: InternalRows = internal_rows(model, self.rows, units, options)

    def _evaluator(self) -> PlainRows:
        """Who evaluates: compiled passes where parts, device and number type let them, else the plain formula."""
        kind = CurvedChannels if self.internal.is_fused else PlainRows
        if self.internal.is_fused and self._is_linear:
            kind = GaussianChannels if has_compiled_sweep(self.prototype) else LinearChannels
        return kind(self.coordinates, self.internal, self.options.n_threads)

    @property
    def _is_linear(self) -> bool:
        """Whether gate and experts are linear in their parameters."""
        parts = ((self.prototype.gate, self.internal.gate_x), (self.prototype.experts, self.internal.x))
        return all(part.basis(x[:1]) is not None for part, x in parts)

    def _free(self, options: FitOptions) -> tuple[np.ndarray, np.ndarray]:
        """For each entry of the full vector the free one that it stands for, −1 if it is held, and what it holds."""
        parts = (("gate", self.prototype.gate), ("experts", self.prototype.experts))
        values = [value.detach().reshape(-1) for _, part in parts for value in part.parameters()]
        base = torch.cat(values).numpy().copy()
        if options.constraints is None:
            return np.arange(len(base)), base
        return options.constraints.free_map(self.prototype).column, base

    @property
    def _matters(self) -> np.ndarray:
        """Which entries of the full vector the objective knows of, a mask."""
        return np.ones(len(self.coordinates.column), dtype=bool)

    def _row_need(self) -> int:
        experts, spread = self.prototype.experts, self.prototype.gate.spread
        own = sum(value.numel() for name, value in experts.named_parameters() if name != "log_scale")
        # So many inputs an expert needs for a covariance of its own, and one more.
        return max(own // self.n_experts + 2, 0 if spread is None else spread.count + 2)

    @property
    def cheap_hessian_size(self) -> int:
        """Above this many parameters a Hessian costs more than the gradients it saves, until close to the maximum."""
        return self.most_cheap if isinstance(self.evaluator, LinearChannels) and self.kind == "likelihood" else 0

    @property
    def n_experts(self) -> int:
        """The number of experts."""
        return self.prototype.n_experts

    @property
    def is_saturated(self) -> bool:
        """Whether there are fewer rows than parameters."""
        return self.n_rows < self.size

    @property
    def weight(self) -> np.ndarray:
        """Row weights (n,)."""
        return self.rows.weight

    def example_input(self) -> Tensor:
        """The first row as the experts see it, in float64 (1, d)."""
        return self.internal.x[:1].cpu().double()

    # --- the spreads

    def _spreads_in_theta(self) -> SpreadsOfModel:
        found = {"experts": self.prototype.family.spread, "gate": self.prototype.gate.spread}
        parts = {part: spread for part, spread in found.items() if spread is not None}
        internal = self.internal.in_float64()
        if "experts" in parts:
            refuse_constant_target(internal.y, self.rows)
        alone = self.baseline.model
        known: dict[str, Parameters] | None = None
        if alone is not None:
            log_scale = self.coordinates.internal_dispersions(alone.experts.log_scale.detach().double())
            gate = self.coordinates.internal_gate(alone.gate) if alone.gate.is_joint else {}
            known = {"experts": {"log_scale": log_scale}, "gate": gate}
        rows, weight = {"experts": internal.y, "gate": internal.gate_x}, torch.tensor(self.rows.weight)
        return SpreadsOfModel(parts, self.coordinates, self.n_experts, rows, weight, known)

    def _set_floor(self, floor: float) -> None:
        """Bound the spreads from below: by a share of the one-expert ones, and those of one expert by rounding."""
        self.scale_floor = floor
        self.floor_entries: dict[int, FloorEntry] = self._spreads.entries
        self.bounds: Bounds = self._spreads.bounds(self.size, floor)

    def with_floor(self, scale_floor: float) -> Self:
        """The same problem with another floor under the spreads."""
        other = copy.copy(self)
        other.n_evaluations = 0
        other._set_floor(scale_floor)
        return other

    def floored(self, theta: np.ndarray) -> tuple[int, ...]:
        """Experts with a spread on the floor."""
        return tuple(sorted({i for known in self.entries_on_floor(theta).values() for i in known.experts}))

    def entries_on_floor(self, theta: np.ndarray) -> dict[int, FloorEntry]:
        """The entries of θ that the floor holds."""
        held = self.bounds.held(theta, _ON_FLOOR)
        return {entry: known for entry, known in self.floor_entries.items() if held[entry]}

    def relative_scales(self, theta: np.ndarray) -> np.ndarray | None:
        """First scale of each expert (k,) over that of the one-expert fit, or None if the family has none."""
        if not self.prototype.family.has_scale:
            return None
        log_scale = self._named(theta)["experts.log_scale"].numpy()
        first = log_scale.reshape(len(log_scale), -1)[:, 0]
        return np.broadcast_to(np.exp(first) / self._base_scale, (self.n_experts,)).copy()

    def relative_spreads(self, theta: np.ndarray) -> tuple[RelativeSpread, ...]:
        """The spreads of the experts, and of the gate where it has a density, over those of the one-expert fit."""
        return self._spreads.relative(self._named(theta))

    # --- the objective

    def _named(self, theta: np.ndarray) -> Parameters:
        return self.coordinates.parameters(self.coordinates.full(torch.from_numpy(theta)))

    def value_and_gradient(self, theta: np.ndarray, responsibilities: Tensor | None = None) -> tuple[float, np.ndarray]:
        """The mean objective and its gradient by θ; with responsibilities (n, k) that of complete data, expected."""
        self.n_evaluations += 1
        value, gradient = self.evaluator.value_and_gradient(theta, responsibilities)
        if not self.prior.is_flat:
            prior, slope = self.prior.value_and_gradient(theta)
            value, gradient = value + prior, gradient + slope
        return value / self.total_weight, gradient / self.total_weight

    def value(self, theta: np.ndarray) -> float:
        """The mean objective."""
        self.n_evaluations += 1
        return (self.evaluator.value(theta) + self.log_prior(theta)) / self.total_weight

    def log_prior(self, theta: np.ndarray) -> float:
        """The log priors at θ."""
        return 0.0 if self.prior.is_flat else self.prior.value_and_gradient(theta)[0]

    def gate_precision(self) -> np.ndarray:
        """The negative Hessian of the gate's log prior by its entries of θ."""
        return -self.prior.hessian(np.zeros(self.size))[: self.n_gate, : self.n_gate]

    def _with_prior(self, matrix: np.ndarray, theta: np.ndarray, sign: float = 1.0) -> np.ndarray:
        """A sum over the rows, with the Hessian of the priors, per unit of weight."""
        return (matrix if self.prior.is_flat else matrix + sign * self.prior.hessian(theta)) / self.total_weight

    def exact_hessian(self, theta: np.ndarray) -> np.ndarray:
        """The Hessian of the mean objective."""
        self.n_evaluations += 1
        total = self._with_prior(self.evaluator.hessian(theta), theta)
        return total if self.evaluator.has_linear_channels else 0.5 * (total + total.T)

    def hessian(self, theta: np.ndarray) -> np.ndarray:
        """The Hessian, curved downward along the symmetries, so that a solver does not drift along them."""
        return self.bend(theta, self.exact_hessian(theta))

    def bend(self, theta: np.ndarray, hessian: np.ndarray) -> np.ndarray:
        """A Hessian without curvature along the declared symmetries ↦ one that curves downward along them."""
        flat = self.explained(theta)
        if not len(flat):
            return hessian
        return hessian - float(np.abs(np.diag(hessian)).mean()) * flat.T @ flat

    def information(self, theta: np.ndarray) -> np.ndarray:
        """The negative Hessian; for a family without two derivatives the mean outer product of the scores."""
        return -self.exact_hessian(theta) if self.is_smooth else self.information_at_kink(theta)

    def information_at_kink(self, theta: np.ndarray) -> np.ndarray:
        """The mean outer product of the scores, which needs no second derivatives, less the Hessian of the priors."""
        return self._with_prior(self.evaluator.score_gram(theta), theta, -1.0)

    def curvature_matrix(self, theta: np.ndarray, information: np.ndarray) -> np.ndarray:
        """Per unit of weight what must be positive at a maximum: the information, unless that cannot be otherwise."""
        return information

    def scores(self, theta: np.ndarray) -> np.ndarray:
        """The gradient of each row's part of the objective, (n, size)."""
        return self.evaluator.scores(theta)

    def score_gram(self, theta: np.ndarray) -> np.ndarray | None:
        """Σ w s sᵀ of the rows' scores, for all but very large models."""
        return None if self.size > _MOST_SCORES else self.evaluator.score_gram(theta)

    def residual_variance(self, theta: np.ndarray) -> float | None:
        """The factor that makes the inverse information a covariance, for least squares."""
        return None

    def objective(self, theta: np.ndarray) -> float:
        """The sum that is maximised, with priors, in the user's units."""
        return self.total_weight * (self.value_and_gradient(theta)[0] - self.internal.log_volume)

    def log_likelihood(self, theta: np.ndarray) -> float:
        """The log-likelihood, without priors, in the user's units; NaN for least squares."""
        return self.evaluator.value(theta) - self.total_weight * self.internal.log_volume

    def responsibilities(self, theta: np.ndarray) -> np.ndarray:
        """P(expert | row) (k, n)."""
        return self.evaluator.responsibilities(theta).T

    def mixture_at(self, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """What the mixture says of some rows, in internal units: log-densities (rows,), or fitted means (rows, e)."""
        return self.evaluator.mixture_at(theta, rows)

    @cached_property
    def _scratch(self) -> MixtureOfExperts:
        """A model whose parameters may change; those of the prototype are where every start begins."""
        return copy.deepcopy(self.prototype)

    def symmetry_tangents(self, theta: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """For each declared continuous symmetry what it does, and the directions (·, size) in which it moves θ."""
        return declared_tangents(self._scratch, self._named(theta), self.coordinates.column.numpy())

    def explained(self, theta: np.ndarray) -> np.ndarray:
        """Orthonormal directions (·, size) in which the declared symmetries move θ."""
        if not self.evaluator.has_linear_channels:
            return span(self.symmetry_tangents(theta), self.size)
        # What leaves linear channels alone is the same everywhere.
        if self._null_of_channels is None:
            self._null_of_channels = span(self.symmetry_tangents(theta), self.size)
        return self._null_of_channels
