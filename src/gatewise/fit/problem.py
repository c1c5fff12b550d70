"""What a start and a verdict ask of a fit: where to begin, and what an end point means."""

import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gatewise.fit.expert_order import ConstrainedExperts, FreeExperts
from gatewise.fit.gaussian_channels import GaussianChannels
from gatewise.fit.linear_channels import LinearChannels
from gatewise.fit.names import Names
from gatewise.fit.objective import Objective
from gatewise.fit.options import FitOptions
from gatewise.fit.quasi_newton import ascend
from gatewise.fit.rays import separated_experts, separating_ray
from gatewise.fit.result import Baseline, BoundaryInterval
from gatewise.fit.rows import FitRows
from gatewise.fit.start_rows import StartRows, working_start_rows
from gatewise.fit.working_regression import experts_start
from gatewise.model import MixtureOfExperts
from gatewise.parts.draws import Draws, is_of_features
from gatewise.parts.parameters import within

__all__ = ["Problem"]

_COMPARED_ROWS = 256
# Quasi-Newton steps toward an M-step that is not closed.
_EXPECTATION_STEPS = 12


class Problem(Objective):
    """An objective with its starts, its canonical points, and what may have gone to infinity there.

    Args:
        model: the prototype.
        rows: the checked rows.
        options: priors, floor, device, dtype, threads, constraints.
        baseline: the one-expert fit, or None for the one-expert problem itself.
    """

    def __init__(self, model: MixtureOfExperts, rows: FitRows, options: FitOptions, baseline: Baseline | None) -> None:
        super().__init__(model, rows, options, baseline)
        self._start_rows: StartRows | None = None
        kind = ConstrainedExperts if options.constraints is not None else FreeExperts
        self._experts = kind(self.prototype, self.coordinates, self._matters)

    @property
    def names(self) -> Names:
        """What the columns are called."""
        return self.rows.names

    @cached_property
    def is_one_regression(self) -> bool:
        """Whether there is one expert, linear in its parameters."""
        return self.n_experts == 1 and self.prototype.experts.basis(self.example_input()) is not None

    @property
    def has_one_maximum(self) -> bool:
        """Whether this is one regression with one maximum, so that there is nothing to search."""
        return self.is_one_regression and (self.kind == "least_squares" or self.prototype.family.is_log_concave)

    @cached_property
    def compared_rows(self) -> np.ndarray:
        """Numbers of up to 256 rows, spread over all of them as sorted by their contents."""
        order = self.start_rows.sorted_rows
        places = np.linspace(0, len(order) - 1, min(len(order), _COMPARED_ROWS)).round().astype(int)
        return np.sort(order[places])

    # --- starts

    @property
    def start_rows(self) -> StartRows:
        """Standardised covariates and the one-expert residuals of the rows: what the strategies look at."""
        if self._start_rows is None:
            self._start_rows = self._make_start_rows()
        return self._start_rows

    def _make_start_rows(self) -> StartRows:
        # One regression that may have several maxima begins on one of two groups of rows.
        two = self.is_one_regression and not self.has_one_maximum
        return working_start_rows(self.prototype.family, self.rows, 2 if two else self.n_experts)

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
        """The entries of θ, those that belong to features in the columns' canonical order, (size,).

        Of parameters whose last axis runs over something made of several features the entries stay where they are.
        """
        data, found, start = self.start_rows, [], 0
        for part, columns in ((self.prototype.gate, data.gate_columns), (self.prototype.experts, data.columns)):
            for name, value in part.named_parameters():
                owner, _, leaf = name.rpartition(".")
                places = start + np.arange(value.numel()).reshape(value.shape)
                if is_of_features(part.get_submodule(owner), leaf, tuple(value.shape)):
                    places = places[..., columns]
                found.append(places.reshape(-1))
                start += value.numel()
        entries = self.coordinates.column.numpy()[np.concatenate(found)]
        entries = entries[entries >= 0]
        return entries[np.sort(np.unique(entries, return_index=True)[1])]

    def begin(self, responsibilities: np.ndarray, index: int, seed: int) -> np.ndarray:
        """θ from the responsibilities (k, n) of start number `index`: an M-step.

        By weighted regressions where they are, and ascent of the expected complete log-likelihood. One regression
        begins on all rows at first, later on the first of two groups.
        """
        if self.is_one_regression:
            responsibilities = responsibilities[:1] if index else np.ones_like(responsibilities[:1])
        generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index, 1)))
        model, coordinates, rows = self.prototype, self.coordinates, self.internal.in_float64()
        # Copied into torch's own memory: sums of matrix products depend on how their arrays are aligned.
        shares = torch.tensor((responsibilities * self.rows.weight).T)
        gate_draws, draws = self.draws(generator)
        gate = model.gate.start(rows.gate_x, shares, gate_draws)
        experts = experts_start(model.experts, model.family, rows.x, rows.y, shares, rows.offset, draws)
        theta = self.bounds.clip(coordinates.collapse(coordinates.flat(gate, experts).numpy()))
        is_linear = isinstance(self.evaluator, LinearChannels) and self.kind == "likelihood"
        if is_linear and isinstance(self.evaluator, GaussianChannels):
            return self._with_scales(theta, self.evaluator.closed_scales(theta, shares.numpy()))
        # Regressions of gate and experts are the whole M-step.
        whole = is_linear and not model.gate.is_joint and model.family.n_dispersion == 0
        if model.gate.own_top_k is not None or self.n_experts == 1 or (whole and self.options.constraints is None):
            return theta
        target = torch.tensor(responsibilities.T).to(self.evaluator.x)
        return ascend(lambda at: self.value_and_gradient(at, target), theta, self.bounds, _EXPECTATION_STEPS)

    def _with_scales(self, theta: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        """θ with other log-scales (k,), as far as they are free."""
        named = self._named(theta)
        own = named["experts.log_scale"]
        named["experts.log_scale"] = torch.from_numpy(log_scale[: len(own)]).reshape(own.shape)
        full = self.coordinates.flat(within("gate", named), within("experts", named)).numpy()
        return self.bounds.clip(self.coordinates.collapse(full))

    def improve(self, theta: np.ndarray, steps: int, check: Callable[[], None]) -> np.ndarray:
        """θ after some EM steps, where they are closed; `check` may raise to end them."""
        return theta

    def locate(self, model: MixtureOfExperts) -> np.ndarray:
        """θ of a model of the same parts: the inverse of `build_model`, up to symmetries.

        Raises:
            InputError: the model's numbers are in other units than those that this problem's models store.
        """
        return self.coordinates.collapse(self.coordinates.locate(model))

    # --- the verdict

    def canonical_order(self, theta: np.ndarray, key: np.ndarray | None = None) -> np.ndarray:
        """θ with experts by mean responsibility, or by a key, as the gate and constraints allow, and settled."""
        if key is None:
            key = np.round(self.responsibilities(theta) @ self.rows.weight / self.total_weight, 9)
        return self._sorted(theta, key)

    def _sorted(self, theta: np.ndarray, key: np.ndarray) -> np.ndarray:
        return self._experts.sorted(theta, key)

    def settled(self, theta: np.ndarray) -> np.ndarray:
        """The representative of θ's orbit under the symmetries that have one: a reference at 0, a length of 1."""
        return theta if self.options.constraints is not None else self._experts.settled(theta)

    def build_model(self, theta: np.ndarray) -> MixtureOfExperts:
        """A copy of the prototype, in float64 on the CPU, with the user-unit parameters of θ."""
        return self.coordinates.build(theta)

    def as_baseline(self, theta: np.ndarray) -> Baseline:
        """This problem's own fit, as what another one is compared with."""
        scale = math.nan
        if self.prototype.family.has_scale:
            units = self.coordinates.units.target
            size = 1.0 if units is None else float(torch.exp(units[1].log().mean()))
            scale = size * float(torch.exp(self._named(theta)["experts.log_scale"].reshape(-1)[0]))
        identified = self.size - len(self.explained(theta))
        values = scale, self.log_likelihood(theta), self.objective(theta)
        return Baseline(*values, identified, self.build_model(theta))

    def labels(self) -> list[str]:
        """Parameter names with indices."""
        return self.coordinates.labels()

    def gate_direction(
        self, theta: np.ndarray, information: np.ndarray, responsibilities: np.ndarray
    ) -> np.ndarray | None:
        """A direction of the gate's parameters along which the likelihood does not fall while the logits move apart."""
        if self.n_experts < 2 or self.n_gate == 0 or self.options.gate_ridge > 0.0:
            return None
        return self._separating_ray(theta, information, responsibilities)

    def _separating_ray(
        self, theta: np.ndarray, information: np.ndarray, responsibilities: np.ndarray
    ) -> np.ndarray | None:
        # What a floor holds is said by ON_FLOOR; a gate separates in what is free.
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
        return self.evaluator.channels_at(self.evaluator.point(theta))

    @property
    def selection_entries(self) -> np.ndarray:
        """Entries of θ that act only through which experts a row keeps, so that nothing has a derivative by them."""
        return np.empty(0, dtype=int)

    def boundary(self, theta: np.ndarray) -> tuple[BoundaryInterval, ...] | None:
        """How far each coefficient of a gate that selects experts can move until a row changes its own; else None."""
        return None
