"""The likelihood of any gate, experts and family: the fused pass, and derivatives by automatic differentiation."""

import copy
import math
from collections.abc import Callable
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.fit.channel_gradient import Channels, channel_gradient
from gatewise.fit.coordinates import Coordinates
from gatewise.fit.curved_channels import CurvedChannels
from gatewise.fit.entry_order import entry_order
from gatewise.fit.expectation_maximisation import em_step, expectation, maximise_expectation
from gatewise.fit.expert_order import ConstrainedExperts, FreeExperts
from gatewise.fit.gaussian_channels import GaussianChannels, has_compiled_sweep
from gatewise.fit.internal_rows import internal_rows, internal_units, refuse_columns, refuse_constant_target
from gatewise.fit.linear_channels import LinearChannels
from gatewise.fit.names import Names
from gatewise.fit.options import FitOptions
from gatewise.fit.priors import log_prior
from gatewise.fit.problem import Problem, StartRows
from gatewise.fit.quasi_newton import ascend
from gatewise.fit.rays import linear_ray, separated_experts, separating_ray
from gatewise.fit.regression import Regression
from gatewise.fit.result import Baseline
from gatewise.fit.rows import FitRows
from gatewise.fit.spreads import RelativeSpread, SpreadsOfModel
from gatewise.fit.tangents import declared_tangents, span
from gatewise.fit.working_regression import experts_start
from gatewise.fit.working_residual import working_start_rows
from gatewise.model import MixtureOfExperts
from gatewise.ops.derivatives import hessian, jacobian
from gatewise.ops.joint_torch import fused_log_mixture, log_mixture_rows, plain_log_mixture
from gatewise.ops.log_space import log_softmax
from gatewise.parts.draws import Draws
from gatewise.parts.parameters import Parameters, within

__all__ = ["ModuleProblem"]

# What the chunks of a Hessian may hold at once: rows × experts × directions.
_CHUNK = 3_000_000
_EXPECTATION_STEPS = 12
# With more parameters the scores of all rows are not formed for the sake of a sandwich that is rarely asked for.
_MOST_SCORES = 300
# Newton steps on the gate of a start that is counted from one regression.
_GATE_STEPS = 3
# With fewer rows the interpreter's part of a climb is too large for threads.
_ROWS_FOR_THREADS = 20_000


class ModuleProblem(Problem):
    """θ ↦ (Σ w log p(y | x; θ) + log prior(θ)) / Σ w for a model of any parts; of (x, y) with a joint gate.

    Args:
        model: the prototype.
        rows: the checked rows.
        options: priors, floor, device, dtype, threads, constraints.
        baseline: the one-expert fit, or None for the one-expert problem itself.
        regression: the one-expert fit that θ is counted from, or None where it is not.

    Raises:
        InputError: the model has no likelihood, or a column cannot be used.
    """

    def __init__(
        self,
        model: MixtureOfExperts,
        rows: FitRows,
        options: FitOptions,
        baseline: Baseline | None,
        regression: Regression | None = None,
    ) -> None:
        self.check_model(model)
        self.prototype = copy.deepcopy(model).to(device="cpu", dtype=torch.float64).requires_grad_(False)
        self._scratch = copy.deepcopy(self.prototype)
        self._start_rows: StartRows | None = None
        self.rows = rows
        self.options = options
        self.n_rows, self.total_weight = len(rows.weight), float(rows.weight.sum())
        self._regression = regression
        if regression is None:
            standardise = options.standardise == "auto" and options.constraints is None
            units = internal_units(self.prototype, rows, standardise, self.kind == "least_squares")
            column, base = self._free(options)
            self._coordinates = Coordinates(self.prototype, units, column, base, self.kind == "likelihood")
            refuse_columns(self.prototype, rows, self._coordinates.size)
            found = internal_rows(self.prototype, rows, units, options)
        else:
            baseline, found, origin = regression.baseline, regression.rows, regression.origin
            units, column, base = regression.units, regression.column, np.zeros(len(origin))
            self._coordinates = Coordinates(self.prototype, units, column, base, origin=origin)
        self.size, self.n_gate = self.coordinates.size, self.coordinates.n_gate_parameters
        self._x, self._gate_x, self._y = found.x, found.gate_x, found.y
        self._offset, self._weight = found.offset, found.weight
        self._log_volume, self._is_fused = found.log_volume, found.is_fused
        self._channels = Channels(self.prototype)
        self._linear = self._linear_channels()
        self._curved = self._curved_channels()
        kind = ConstrainedExperts if options.constraints is not None else FreeExperts
        self._experts = kind(self.prototype, self.coordinates, self._matters)
        self._null_of_channels: np.ndarray | None = None
        self._ridge_hessian: Tensor | None = None
        experts = self.prototype.experts
        own = sum(value.numel() for name, value in experts.named_parameters() if name != "log_scale")
        self.row_need = own // self.n_experts + 2
        if self.prototype.gate.spread is not None:
            # So many inputs an expert needs for a covariance of its own, and one more.
            self.row_need = max(self.row_need, self.prototype.gate.spread.count + 2)
        self.cheap_hessian_size = 0 if self._linear is None and regression is None else Problem.cheap_hessian_size
        self.is_smooth = self.prototype.family.is_smooth
        self.may_have_kinks = regression is None
        self.runs_in_threads = regression is not None and self._is_fused and self.n_rows >= _ROWS_FOR_THREADS
        self.baseline = baseline or Baseline(math.nan, math.nan, math.nan, 0)
        self._spreads = self._spreads_in_theta()
        self._base_scale = math.nan
        if self.prototype.family.has_scale and self._spreads.reference:
            target = self.coordinates.units.target
            self._base_scale = self._spreads.base_scale()
            self.unit = self._base_scale * (1.0 if target is None else float(target[1].log().mean().exp()))
        self._set_floor(options.scale_floor)

    @property
    def coordinates(self) -> Coordinates:
        """From free internal parameters to identified quantities."""
        return self._coordinates

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

    def _linear_channels(self) -> LinearChannels | None:
        """The channels' exact curvature, where logits and locations are linear in the parameters."""
        gate, bank = self.prototype.gate, self.prototype.experts
        bases = gate.basis(self._gate_x), bank.basis(self._x)
        if bases[0] is None or bases[1] is None or not self._is_fused or self.kind != "likelihood":
            return None
        arrays = (self._y, self._offset, self._weight, bases[0], bases[1])
        kind = GaussianChannels if has_compiled_sweep(self.prototype) else LinearChannels
        return kind(self.coordinates, *arrays, self.options.n_threads)

    @cached_property
    def regressions(self) -> GaussianChannels:
        """The compiled sweeps of a problem that is counted from one regression, whoever evaluates the objective."""
        if isinstance(self._linear, GaussianChannels):
            return self._linear
        x, gate_x, *arrays = (
            each.cpu().double() for each in (self._x, self._gate_x, self._y, self._offset, self._weight)
        )
        bases = self.prototype.gate.basis(gate_x), self.prototype.experts.basis(x)
        assert bases[0] is not None
        assert bases[1] is not None
        return GaussianChannels(self.coordinates, *arrays, bases[0], bases[1], self.options.n_threads)

    def _curved_channels(self) -> CurvedChannels | None:
        """Their exact curvature where they are not linear, and the compiled passes take the rows."""
        if self._linear is not None or not self._is_fused or self.kind != "likelihood":
            return None
        arrays = (self._y, self._offset, self._weight, self._gate_x, self._x)
        return CurvedChannels(self.coordinates, *arrays, self.options.n_threads)

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

    # --- the rows

    def _spreads_in_theta(self) -> SpreadsOfModel:
        found = {"experts": self.prototype.family.spread, "gate": self.prototype.gate.spread}
        parts = {part: spread for part, spread in found.items() if spread is not None}
        if "experts" in parts and self._regression is None:
            refuse_constant_target(self._y, self.rows)
        rows = {"experts": self._y.detach().cpu().double(), "gate": self._gate_x.detach().cpu().double()}
        alone = self.baseline.model
        known: dict[str, Parameters] | None = None
        if self._regression is not None:
            known = {"experts": {"log_scale": torch.zeros(1, dtype=torch.float64)}}
        elif alone is not None:
            log_scale = self.coordinates.internal_dispersions(alone.experts.log_scale.detach().double())
            gate = self.coordinates.internal_gate(alone.gate) if alone.gate.is_joint else {}
            known = {"experts": {"log_scale": log_scale}, "gate": gate}
        weight = torch.tensor(self.rows.weight)
        return SpreadsOfModel(parts, self.coordinates, self.n_experts, rows, weight, known)

    def _set_floor(self, floor: float) -> None:
        """Bound the spreads from below: by a share of the one-expert ones, and those of one expert by rounding."""
        self.scale_floor = floor
        self.floor_entries = self._spreads.entries
        self.bounds = self._spreads.bounds(self.size, floor)

    def with_floor(self, scale_floor: float) -> Self:
        """The same problem with another floor under the spreads."""
        other = copy.copy(self)
        other.n_evaluations = 0
        other._set_floor(scale_floor)
        return other

    # --- the objective

    def _tensors(self, theta: np.ndarray, requires_grad: bool) -> Tensor:
        point = torch.tensor(theta, dtype=self._x.dtype, device=self._x.device)
        return point.requires_grad_(requires_grad)

    def _named(self, theta: Tensor) -> dict[str, Tensor]:
        return self.coordinates.parameters(self.coordinates.full(theta))

    def _evaluate(self, theta: Tensor, rows: slice | Tensor = slice(None)) -> tuple[Tensor, Tensor]:
        """Gate logits and log-densities (n, k) of some rows; differentiable in θ."""
        arguments = (self._gate_x[rows], self._x[rows], self._offset[rows])
        logits, location, log_scale = torch.func.functional_call(self._channels, self._named(theta), arguments)
        return logits, self.prototype.family.log_density(self._y[rows], location, log_scale)

    def _log_prior(self, theta: Tensor) -> Tensor:
        """The log priors, () and differentiable."""
        zero = theta.new_zeros(())
        return log_prior(self.options, self.prototype, self._named(theta), self._base_scale, zero)

    def log_prior(self, theta: np.ndarray) -> float:
        """The log priors at θ."""
        return float(self._log_prior(torch.from_numpy(theta))) if self._has_prior else 0.0

    def gate_precision(self) -> np.ndarray:
        """The negative Hessian of the gate's log prior by its entries of θ."""
        gate = slice(0, self.n_gate)
        return -self._prior_hessian(torch.zeros(self.size, dtype=torch.float64)).numpy()[gate, gate]

    @property
    def _has_prior(self) -> bool:
        """Whether there are any log priors; most fits have none."""
        options = self.options
        return options.gate_ridge > 0.0 or options.expert_ridge > 0.0 or options.variance_prior is not None

    def _prior_hessian(self, theta: Tensor) -> Tensor:
        """The Hessian of the log priors, (size, size)."""
        if not self._has_prior:
            return theta.new_zeros(self.size, self.size)
        options = self.options
        if options.variance_prior is not None:
            return hessian(self._log_prior, theta)
        # Ridges are quadratic: their Hessian is the same everywhere.
        known = self._ridge_hessian
        if known is None:
            known = self._ridge_hessian = hessian(self._log_prior, theta)
        return known

    def _sum(self, theta: Tensor, rows: slice = slice(None)) -> Tensor:
        """Σ w ℓ over some rows by the plain formula, differentiable to any order."""
        logits, density = self._evaluate(theta, rows)
        return plain_log_mixture(logits, density, self._weight[rows], normalised=not self.prototype.gate.is_joint)

    def _fused_sum(self, theta: Tensor) -> Tensor:
        if not self._is_fused:
            return self._sum(theta)
        logits, density = self._evaluate(theta)
        normalised = not self.prototype.gate.is_joint
        return fused_log_mixture(
            logits.contiguous(), density.contiguous(), self._weight, normalised, self.options.n_threads
        )

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """The mean objective and its gradient by θ."""
        return self._value_and_gradient(theta)

    def _value_and_gradient(
        self, theta: np.ndarray, responsibilities: Tensor | None = None
    ) -> tuple[float, np.ndarray]:
        """Also of the expected complete log-likelihood Σ w Σᵢ rᵢ (log πᵢ + log fᵢ), with responsibilities (n, k)."""
        self.n_evaluations += 1
        if self._linear is not None and not self._has_prior:
            value, gradient = self._linear.value_and_gradient(theta, responsibilities)
            return value / self.total_weight, gradient / self.total_weight
        point = self._tensors(theta, requires_grad=True)
        if self._linear is not None:
            value, gradient = self._linear.value_and_gradient(theta, responsibilities)
        elif responsibilities is not None:
            total = self._expected(point, responsibilities)
            (slope,) = torch.autograd.grad(total, point)
            value, gradient = float(total.detach()), slope.cpu().numpy().astype(float)
        else:
            value, gradient = self._rows_value_and_gradient(point)
        prior = self._log_prior(point) if self._has_prior else None
        if prior is not None and prior.requires_grad:
            value += float(prior.detach())
            gradient = gradient + torch.autograd.grad(prior, point)[0].cpu().numpy().astype(float)
        return value / self.total_weight, gradient / self.total_weight

    def _rows_value_and_gradient(self, point: Tensor) -> tuple[float, np.ndarray]:
        """The rows' part of the objective and its gradient: from channel to channel by the fused pass where it goes."""
        if not self._is_fused or self.kind != "likelihood":
            total = self._sum(point)
            (gradient,) = torch.autograd.grad(total, point)
            return float(total.detach()), gradient.cpu().numpy().astype(float)
        arguments = (self._gate_x, self._x, self._offset)
        logits, location, log_scale = torch.func.functional_call(self._channels, self._named(point), arguments)
        channels = (logits, location, log_scale)
        normalised, threads = not self.prototype.gate.is_joint, self.options.n_threads
        found = channel_gradient(self.prototype.family, self._y, *channels, self._weight, normalised, threads)
        slopes = (found.logits, found.location, found.log_scale)
        used = [(channel, slope) for channel, slope in zip(channels, slopes, strict=True) if channel.requires_grad]
        outputs, upstream = zip(*used, strict=True)
        (gradient,) = torch.autograd.grad(outputs, point, upstream)
        return found.value, gradient.numpy()

    @property
    def chunk_rows(self) -> int:
        """How many rows are differentiated at once in all directions."""
        return max(256, _CHUNK // max(1, self.size * self.n_experts * self.prototype.family.n_outputs))

    def exact_hessian(self, theta: np.ndarray) -> np.ndarray:
        """The Hessian of the mean objective, by channels; on other devices and dtypes by automatic differentiation.

        The rows are taken in chunks that bound the memory.
        """
        self.n_evaluations += 1
        point = self._tensors(theta, requires_grad=False)
        step = self.chunk_rows
        found = self._prior_hessian(point)
        if self._linear is not None:
            return (self._linear.hessian(theta) + found.numpy()) / self.total_weight
        for low in range(0, self.n_rows, step):
            rows = slice(low, low + step)
            if self._curved is not None:
                found = found + self._curved.hessian(point, rows)
            else:
                found = found + hessian(lambda at, rows=rows: self._sum(at, rows), point)
        total = found.cpu().numpy().astype(float) / self.total_weight
        return 0.5 * (total + total.T)

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
        scores = self.scores(theta)
        prior = self._prior_hessian(self._tensors(theta, requires_grad=False))
        gram = (scores.T * self.rows.weight) @ scores
        return (gram - prior.cpu().numpy().astype(float)) / self.total_weight

    def scores(self, theta: np.ndarray) -> np.ndarray:
        """The gradient of each row's log-likelihood, (n, size)."""
        if self._linear is not None:
            return self._linear.scores(theta)
        point = self._tensors(theta, requires_grad=False)
        normalised = not self.prototype.gate.is_joint
        step = self.chunk_rows

        def rows_of(at: Tensor, rows: slice) -> Tensor:
            return log_mixture_rows(*self._evaluate(at, rows), normalised)

        pieces = [
            jacobian(lambda at, low=low: rows_of(at, slice(low, low + step)), point)
            for low in range(0, self.n_rows, step)
        ]
        return torch.cat(pieces).cpu().numpy().astype(float)

    def score_gram(self, theta: np.ndarray) -> np.ndarray | None:
        """Σ w s sᵀ of the rows' scores, for all but very large models."""
        if self._regression is not None:
            return self.regressions.score_gram(theta)
        if self.size > _MOST_SCORES:
            return None
        if self._linear is not None:
            return self._linear.score_gram(theta)
        scores = self.scores(theta)
        return (scores.T * self.rows.weight) @ scores

    def objective(self, theta: np.ndarray) -> float:
        """The log-likelihood plus log priors, in the user's units."""
        return self.total_weight * (self.value_and_gradient(theta)[0] - self._log_volume)

    @torch.no_grad()
    def log_likelihood(self, theta: np.ndarray) -> float:
        """The log-likelihood, without priors, in the user's units."""
        if self._linear is not None:
            value = self._linear.log_likelihood(theta)
        else:
            value = float(self._fused_sum(self._tensors(theta, requires_grad=False)))
        return value - self.total_weight * self._log_volume

    @torch.no_grad()
    def responsibilities(self, theta: np.ndarray) -> np.ndarray:
        """Responsibilities (k, n)."""
        if self._linear is not None:
            return self._linear.responsibilities(theta).T
        logits, density = self._evaluate(self._tensors(theta, requires_grad=False))
        return log_softmax(logits + density).exp().T.cpu().numpy().astype(float)

    def example_input(self) -> Tensor:
        """The first row as the experts see it, (1, d)."""
        return self._x[:1]

    def as_baseline(self, theta: np.ndarray) -> Baseline:
        """This problem's own fit, as what another one is compared with."""
        named = self._named(torch.from_numpy(theta))
        scale = math.nan
        if self.prototype.family.has_scale:
            units = self.coordinates.units.target
            size = 1.0 if units is None else float(torch.exp(units[1].log().mean()))
            scale = size * float(torch.exp(named["experts.log_scale"].reshape(-1)[0]))
        identified = self.size - len(self.explained(theta))
        values = scale, self.log_likelihood(theta), self.objective(theta)
        return Baseline(*values, identified, self.build_model(theta))

    # --- starts

    @property
    def weight(self) -> np.ndarray:
        """Row weights (n,)."""
        return self.rows.weight

    @property
    def start_rows(self) -> StartRows:
        """Standardised covariates and the one-expert residuals of the rows."""
        if self._start_rows is None:
            regressed = self._regression is not None
            alike = regressed and bool(self.prototype.experts.basis(self._x[:1]).shape[-1] == 1)
            self._start_rows = working_start_rows(
                self.prototype.family, self.rows, self.n_experts, alike, with_gate=not regressed
            )
        return self._start_rows

    @start_rows.setter
    def start_rows(self, rows: StartRows) -> None:
        self._start_rows = rows

    def draws(self, generator: np.random.Generator) -> tuple[Draws, Draws]:
        """Random first values for the gate and for the experts, in turn from one generator."""
        data = self.start_rows
        rows = (data.sorted_rows, data.weight)
        return Draws(generator, data.gate_columns, *rows), Draws(generator, data.columns, *rows)

    @cached_property
    def entry_order(self) -> np.ndarray:
        """The entries of θ in an order that does not depend on that of the columns, as far as it is known."""
        return entry_order(self.coordinates, self.start_rows)

    def begin(self, responsibilities: np.ndarray, index: int, seed: int) -> np.ndarray:
        """An M-step: weighted regressions where they are, and ascent of the expected complete log-likelihood."""
        if self._regression is not None:
            return maximise_expectation(self, responsibilities, np.zeros(self.size), gate_steps=_GATE_STEPS)
        generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index, 1)))
        model = self.prototype
        x, gate_x, y, offset = (t.detach().cpu().double() for t in (self._x, self._gate_x, self._y, self._offset))
        # Copied into torch's own memory: sums of matrix products depend on how their arrays are aligned.
        shares = torch.tensor((responsibilities * self.rows.weight).T)
        gate_draws, draws = self.draws(generator)
        gate = model.gate.start(gate_x, shares, gate_draws)
        experts = experts_start(model.experts, model.family, x, y, shares, offset, draws)
        full = self.coordinates.flat(gate, experts).numpy()
        theta = self.bounds.clip(self.coordinates.collapse(full))
        scales = None if self._linear is None else self._linear.closed_scales(theta, shares.numpy())
        if scales is not None:
            return self._with_scales(theta, scales)
        if model.gate.own_top_k is not None or self.n_experts == 1 or self._starts_at_maximum:
            return theta
        target = torch.tensor(responsibilities.T).to(self._x)
        return ascend(lambda point: self._value_and_gradient(point, target), theta, self.bounds, _EXPECTATION_STEPS)

    def improve(self, theta: np.ndarray, steps: int, check: Callable[[], None]) -> np.ndarray:
        """θ after EM steps, where they are closed."""
        if self._regression is None:
            return theta
        state = expectation(self, theta)
        for _ in range(steps):
            state = em_step(self, state)
            check()
        return state.theta

    def _with_scales(self, theta: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        """θ with other log-scales (k,), as far as they are free."""
        named = self._named(torch.from_numpy(theta))
        own = named["experts.log_scale"]
        named["experts.log_scale"] = torch.from_numpy(log_scale[: len(own)]).reshape(own.shape)
        full = self.coordinates.flat(within("gate", named), within("experts", named)).numpy()
        return self.bounds.clip(self.coordinates.collapse(full))

    def locate(self, model: MixtureOfExperts) -> np.ndarray:
        """θ of a model of the same parts."""
        return self.coordinates.locate(model)

    @property
    def _starts_at_maximum(self) -> bool:
        """Whether regressions of gate and experts are the whole M-step."""
        regressions = self._linear is not None and not self.prototype.gate.is_joint
        return regressions and self.prototype.family.n_dispersion == 0 and self.options.constraints is None

    def _expected(self, theta: Tensor, responsibilities: Tensor) -> Tensor:
        """Σ w Σᵢ rᵢ (log πᵢ + log fᵢ)."""
        logits, density = self._evaluate(theta)
        weights = logits if self.prototype.gate.is_joint else log_softmax(logits)
        share = self._weight.unsqueeze(-1) * responsibilities
        term = torch.where(share > 0.0, weights + density, torch.zeros_like(density))
        return (share * term).sum()

    # --- the verdict

    def canonical_order(self, theta: np.ndarray, key: np.ndarray | None = None) -> np.ndarray:
        """θ with experts by mean responsibility, or by a key, as the gate and constraints allow, and settled."""
        if key is None:
            key = np.round(self.responsibilities(theta) @ self.rows.weight / self.total_weight, 9)
        if self._regression is not None:
            # Of experts with the same key the one with the smaller constant comes first.
            constants = self.regressions.unpack(theta)[1][:, 0]
            key = -np.argsort(np.lexsort([constants, -key])).astype(float)
        return self._experts.sorted(theta, key)

    def settled(self, theta: np.ndarray) -> np.ndarray:
        """The representative of θ's orbit under the symmetries that have one: a reference at 0, a length of 1."""
        return theta if self.options.constraints is not None else self._experts.settled(theta)

    def build_model(self, theta: np.ndarray) -> MixtureOfExperts:
        """A copy of the prototype, in float64 on the CPU, with the user-unit parameters of θ."""
        return self.coordinates.build(theta)

    def relative_scales(self, theta: np.ndarray) -> np.ndarray | None:
        """First scale of each expert (k,) over that of the one-expert fit, or None if the family has none."""
        if not self.prototype.family.has_scale:
            return None
        log_scale = self._named(torch.from_numpy(theta))["experts.log_scale"].numpy()
        first = log_scale.reshape(len(log_scale), -1)[:, 0]
        return np.broadcast_to(np.exp(first) / self._base_scale, (self.n_experts,)).copy()

    def relative_spreads(self, theta: np.ndarray) -> tuple[RelativeSpread, ...]:
        """The spreads of the experts, and of the gate where it has a density, over those of the one-expert fit."""
        return self._spreads.relative(self._named(torch.from_numpy(theta)))

    @torch.no_grad()
    def mixture_at(self, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The log-densities log p(y | x) (rows,); log p(x, y) with a joint gate."""
        found = self._evaluate(self._tensors(theta, requires_grad=False), torch.from_numpy(rows))
        return log_mixture_rows(*found, not self.prototype.gate.is_joint).cpu().numpy().astype(float)

    @property
    def names(self) -> Names:
        """What the columns are called."""
        return self.rows.names

    def labels(self) -> list[str]:
        """Parameter names with indices."""
        return self.coordinates.labels()

    def symmetry_tangents(self, theta: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """The declared symmetries of gate and experts as far as constraints leave them."""
        if self._regression is not None:
            return []
        # The scratch model, not the prototype, whose values are where every start begins.
        named = self._named(torch.from_numpy(theta))
        return declared_tangents(self._scratch, named, self.coordinates.column.numpy())

    @property
    def _has_linear_channels(self) -> bool:
        """Whether the objective sees logits and locations that are linear in θ."""
        return self._linear is not None

    def explained(self, theta: np.ndarray) -> np.ndarray:
        """Orthonormal directions (·, size) in which the declared symmetries move θ."""
        if not self._has_linear_channels:
            return span(self.symmetry_tangents(theta), self.size)
        # What leaves linear channels alone is the same everywhere.
        if self._null_of_channels is None:
            self._null_of_channels = span(self.symmetry_tangents(theta), self.size)
        return self._null_of_channels

    def gate_direction(
        self, theta: np.ndarray, information: np.ndarray, responsibilities: np.ndarray
    ) -> np.ndarray | None:
        """A direction of the gate's parameters along which the likelihood does not fall while the logits move apart."""
        if self.n_experts < 2 or self.n_gate == 0 or self.options.gate_ridge > 0.0:
            return None
        # What a floor holds is said by ON_FLOOR; a gate separates in what is free.
        if self._regression is not None:
            return linear_ray(self, theta, information, self.regressions.sweep.gate_design, responsibilities)
        free = np.setdiff1d(np.arange(self.n_gate), list(self.entries_on_floor(theta)))
        return separating_ray(self, theta, information, free)

    def expert_directions(self, theta: np.ndarray, information: np.ndarray) -> dict[int, np.ndarray]:
        """Experts some of whose fitted probabilities or means are at the boundary, with the direction they go."""
        if not self.prototype.family.is_discrete:
            return {}
        return separated_experts(self, self.prototype.family, theta, information)

    @torch.no_grad()
    def channels_at(self, theta: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Gate logits (n, k), locations (n, k) or (n, k, m), and dispersions of all rows."""
        named = self._named(self._tensors(theta, requires_grad=False))
        return torch.func.functional_call(self._channels, named, (self._gate_x, self._x, self._offset))
