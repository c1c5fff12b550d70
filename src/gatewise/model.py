"""The mixture of experts: a gate, a bank of experts and a family, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.experts import EXPERTS, Experts, build_experts
from gatewise.families import Family, build_family
from gatewise.gates import Gate, build_gate
from gatewise.messages import shown
from gatewise.ops.log_space import log_softmax, logsumexp
from gatewise.ops.mixture_quantile import continuous_quantile, discrete_quantile
from gatewise.parts.options import checked_options, given_or_named
from gatewise.parts.standardiser import Standardiser

__all__ = ["Atoms", "MixtureOfExperts"]


@dataclass(frozen=True)
class Atoms:
    """The mixing measure G = Σᵢ exp(β₀ᵢ) δ_(β₁ᵢ, ηᵢ, σᵢ²): one row per expert in every array.

    Attributes:
        gate: the gate's arrays by name (`gate_bias` β₀, `gate_slope` β₁ for a softmax gate).
        expert: the experts' arrays by name (`expert_slope` a, `expert_intercept` b for linear experts).
        variance: exp(2 log σ), the theory's scale parameter σ² (k,); empty for a family without a scale.
        dispersion: the family's dispersions as a reader knows them, by the name of the term, (k,) each.
    """

    gate: dict[str, np.ndarray]
    expert: dict[str, np.ndarray]
    variance: np.ndarray
    dispersion: dict[str, np.ndarray] = field(default_factory=dict)


class MixtureOfExperts(nn.Module):
    """p(y | x) = Σᵢ πᵢ(x) f(y | h(x, ηᵢ), σᵢ): a gate π, a bank of experts h and a family f.

    Inputs are (…, d) and targets (…,), or (…, e) for families whose targets have an axis. The gate may see other inputs
    than the experts: pass them as `gate_x`; without it the gate sees x, or nothing if it has no features. For families
    with a log link an `offset` (…,), the logarithm of an exposure, is added to the location of every expert.

    The weights of a gate without normaliser (`gate.normaliser == "none"`) need not sum to 1. Such a model is a
    regression function, `mean`, for least squares; it has no density, and everything that needs one refuses.

    An expert whose log-weight is −∞ at an input has no part in anything there: its location and density may be infinite
    or NaN, and no gradient reaches its parameters from that input.

    Args:
        gate: x ↦ log π(x).
        experts: x ↦ locations, and dispersions.
        family: log f(y | location, dispersion).
        gate_scaler: a stored change of the gate's inputs, or None.
        expert_scaler: a stored change of the experts' inputs, or None.

    Raises:
        InputError: the sizes of the parts do not fit each other.

    Example:
        >>> import torch
        >>> from gatewise.experts import LinearExperts
        >>> from gatewise.families import Gaussian
        >>> from gatewise.gates import SoftmaxGate
        >>> model = MixtureOfExperts(SoftmaxGate(1, 2), LinearExperts(1, 2), Gaussian())
        >>> model.log_prob(torch.zeros(3, 1), torch.zeros(3)).detach()
        tensor([-0.9189, -0.9189, -0.9189])
    """

    gate_scaler: Standardiser | None
    expert_scaler: Standardiser | None

    def __init__(
        self,
        gate: Gate,
        experts: Experts,
        family: Family,
        *,
        gate_scaler: Standardiser | None = None,
        expert_scaler: Standardiser | None = None,
    ) -> None:
        super().__init__()
        if gate.n_experts != experts.n_experts:
            raise InputError(
                f"the gate has {gate.n_experts} experts and the bank {experts.n_experts}: make both the same"
            )
        if (experts.n_outputs, experts.n_dispersion) != (family.n_outputs, family.n_dispersion):
            raise InputError(
                f"the experts give {experts.n_outputs} outputs and {experts.n_dispersion} dispersions, and the "
                f"{family.name} family takes {family.n_outputs} and {family.n_dispersion}: build the experts with "
                f"n_outputs={family.n_outputs}, n_dispersion={family.n_dispersion}"
            )
        for what, part, scaler in (("gate", gate, gate_scaler), ("experts", experts, expert_scaler)):
            if scaler is not None and scaler.n_features != part.n_features:
                raise InputError(
                    f"the standardiser of the {what} has {scaler.n_features} columns, for {part.n_features} features: "
                    "make both the same"
                )
        self.gate = gate
        self.experts = experts
        self.family = family
        self.gate_scaler = gate_scaler
        self.expert_scaler = expert_scaler

    @classmethod
    def build(
        cls,
        gate: str | Gate,
        experts: str | Experts,
        family: str | Family,
        n_features: int,
        n_experts: int,
        *,
        n_gate_features: int | None = None,
        shared_scale: bool = False,
        gate_options: Mapping[str, Any] | None = None,
        expert_options: Mapping[str, Any] | None = None,
        family_options: Mapping[str, Any] | None = None,
    ) -> Self:
        """A mixture from registered names, or from parts that exist already.

        Args:
            gate: a gate or its name.
            experts: a bank of experts or its name; it gets the outputs and dispersions that the family needs.
            family: a family or its name.
            n_features: d, of the experts' inputs.
            n_experts: k.
            n_gate_features: of the gate's inputs; None for as many as the experts'.
            shared_scale: whether one dispersion serves all experts; experts that exist already know it.
            gate_options: of a gate named by a string, as plain data.
            expert_options: of experts named by a string.
            family_options: of a family named by a string.

        Raises:
            InputError: a name or an option is unknown, a part has other sizes, or options come with a part that exists.

        Example:
            >>> MixtureOfExperts.build("softmax", "linear", "gaussian", n_features=1, n_experts=2).n_experts
            2
        """
        d_gate = n_features if n_gate_features is None else n_gate_features
        family = given_or_named("family", family, Family, family_options, build_family)

        def gate_of(name: str, **options: Any) -> Gate:
            return build_gate(name, d_gate, n_experts, **options)

        def experts_of(name: str, **options: Any) -> Experts:
            own = checked_options("expert", EXPERTS[name], options)
            sizes = {"shared_scale": shared_scale, "n_outputs": family.n_outputs, "n_dispersion": family.n_dispersion}
            return build_experts(name, n_features, n_experts, **sizes, **own)

        gate = given_or_named("gate", gate, Gate, gate_options, gate_of)
        experts = given_or_named("expert", experts, Experts, expert_options, experts_of)
        asked = ((gate, d_gate, gate.n_experts), (experts, n_features, experts.n_experts))
        for part, d, k in asked:
            if (part.n_features, k) != (d, n_experts):
                raise InputError(
                    f"{shown(part)} has {part.n_features} features and {k} experts, and {d} and {n_experts} are asked "
                    "for"
                )
        if shared_scale and not experts.shared_scale:
            raise InputError(f"shared_scale=True is asked for, and these experts have a scale each: {shown(experts)}")
        return cls(gate, experts, family)

    @property
    def n_experts(self) -> int:
        """k, the number of experts."""
        return self.gate.n_experts

    @property
    def is_normalised(self) -> bool:
        """Whether the weights are probabilities, so that there is a density; otherwise `mean` is all there is."""
        return self.gate.normaliser != "none"

    @property
    def has_quantiles(self) -> bool:
        """Whether there are a distribution function and quantiles: targets are ordered, and the weights probabilities.

        The family is asked at one location, which it refuses if its targets have no order.
        """
        m, s = self.family.n_outputs, self.family.n_dispersion
        location = torch.zeros(1, 1) if m == 1 else torch.zeros(1, 1, m)
        try:
            self.family.quantile(torch.full((1,), 0.5), location, torch.zeros(1) if s == 1 else torch.zeros(1, s))
        except InputError:
            return False
        return self.is_normalised

    def gate_input(self, x: Tensor, gate_x: Tensor | None = None) -> Tensor:
        """What the gate itself sees, (…, d) ↦ (…, d_gate): `gate_x`, x or nothing, standardised if that is stored.

        Raises:
            InputError: an input is no tensor, or has not the gate's features on its last axis.
        """
        _check_input("x", x, None if gate_x is not None or self.gate.n_features == 0 else self.gate.n_features)
        seen = gate_x if gate_x is not None else x[..., :0] if self.gate.n_features == 0 else x
        _check_input("gate_x", seen, self.gate.n_features)
        return seen if self.gate_scaler is None else self.gate_scaler(seen)

    def log_weights(self, x: Tensor, gate_x: Tensor | None = None) -> Tensor:
        """Log πᵢ(x), (…, d) ↦ (…, k)."""
        return self.gate(self.gate_input(x, gate_x))

    def expert_parameters(self, x: Tensor, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The family's parameters under each expert: locations (…, k) or (…, k, m), and dispersions (k,) or (k, s).

        Args:
            x: inputs (…, d).
            offset: added to every location (…,), for families with a log link: the logarithm of an exposure.

        Raises:
            InputError: x is no tensor, or has not the experts' features on its last axis; the family takes no offset,
                or it is not one finite number for each input.
        """
        _check_input("x", x, self.experts.n_features)
        location, dispersion = self.experts(x if self.expert_scaler is None else self.expert_scaler(x))
        if offset is None:
            return location, dispersion
        if not self.family.log_link:
            raise InputError(
                f"the {self.family.name} family takes no offset: only families with a log link do, where it is "
                "log(exposure)"
            )
        batch = x.shape[:-1]
        sizes = zip(reversed(offset.shape), reversed(batch), strict=False)
        if offset.ndim > len(batch) or not all(size in (1, whole) for size, whole in sizes):
            raise InputError(f"the offset has shape {tuple(offset.shape)} and the inputs {tuple(batch)}: give one each")
        if not torch.isfinite(offset).all():
            raise InputError("an offset is not finite: it is the logarithm of an exposure, which must be positive")
        return location + offset.reshape(*offset.shape, *(1 for _ in location.shape[len(batch) :])), dispersion

    def log_joint(self, x: Tensor, y: Tensor, gate_x: Tensor | None = None, offset: Tensor | None = None) -> Tensor:
        """Log πᵢ(x) + log f(y | h(x, ηᵢ)), (…, k): its logsumexp is `log_prob`, its softmax `responsibilities`.

        Raises:
            InputError: the weights are no probabilities, the targets do not have the shape of the batch, or the offset
                cannot be used.
        """
        self._need_probabilities("density")
        return self._scored(self.log_weights(x, gate_x), x, y, offset)

    def log_prob(self, x: Tensor, y: Tensor, gate_x: Tensor | None = None, offset: Tensor | None = None) -> Tensor:
        """Log p(y | x), shape (…).

        Raises:
            InputError: as `log_joint`.
        """
        return logsumexp(self.log_joint(x, y, gate_x, offset))

    def log_joint_density(
        self, x: Tensor, y: Tensor, gate_x: Tensor | None = None, offset: Tensor | None = None
    ) -> Tensor:
        """Log p(x, y) = log Σᵢ exp(logitᵢ(x)) f(y | h(x, ηᵢ)), shape (…), for gates that are a density of x.

        x stands for what the gate sees; a stored standardisation counts with its volume.

        Raises:
            InputError: the gate is no density of x; otherwise as `log_joint`.
        """
        if not self.gate.is_joint:
            raise InputError(
                f"the {self.gate.name} gate, {shown(self.gate)}, is no density of x: there is no joint density"
            )
        density = logsumexp(self._scored(self.gate.logits(self.gate_input(x, gate_x)), x, y, offset))
        return density if self.gate_scaler is None else density - self.gate_scaler.log_volume()

    def responsibilities(
        self, x: Tensor, y: Tensor, gate_x: Tensor | None = None, offset: Tensor | None = None
    ) -> Tensor:
        """P(expert i | x, y) = πᵢ f(y | h(x, ηᵢ)) / p(y | x), (…, k).

        Raises:
            InputError: as `log_joint`.
        """
        return log_softmax(self.log_joint(x, y, gate_x, offset)).exp()

    def mean(self, x: Tensor, gate_x: Tensor | None = None, offset: Tensor | None = None) -> Tensor:
        """Σᵢ πᵢ(x) E[y | expert i], of shape (…), (…, e), or (…, C) as probabilities of C classes.

        Where the weights are probabilities this is E[y | x]; otherwise it is the regression function of least squares.
        """
        weights, location, dispersion = self._weighted(x, gate_x, offset)
        return _mixed(weights, self.family.mean(location, dispersion))

    def variance(self, x: Tensor, gate_x: Tensor | None = None, offset: Tensor | None = None) -> Tensor:
        """Var[y | x] = Σᵢ πᵢ (vᵢ + (mᵢ − m)²) with m the mixture's mean, of each component alone, shaped as `mean`.

        Raises:
            InputError: the weights are no probabilities.
        """
        self._need_probabilities("variance")
        weights, location, dispersion = self._weighted(x, gate_x, offset)
        means = self.family.mean(location, dispersion)
        centre = _mixed(weights, means).unsqueeze(weights.ndim - 1)
        return _mixed(weights, self.family.variance(location, dispersion) + (means - centre) ** 2)

    def distribution_function(
        self, x: Tensor, y: Tensor, gate_x: Tensor | None = None, offset: Tensor | None = None
    ) -> Tensor:
        """P(Y ≤ y | x) = Σᵢ πᵢ(x) Fᵢ(y), shape (…); at continuous data it is the probability integral transform.

        Raises:
            InputError: the weights are no probabilities, or targets of this family are not ordered.
        """
        self._need_probabilities("distribution function")
        weights, location, dispersion = self._weighted(x, gate_x, offset)
        below = self.family.distribution_function(self._target(y, x, location), location, dispersion)
        return _mixed(weights, below)

    @torch.no_grad()
    def quantile(
        self, x: Tensor, probability: float, gate_x: Tensor | None = None, offset: Tensor | None = None
    ) -> Tensor:
        """The mixture's own quantile: the smallest y with P(Y ≤ y | x) ≥ `probability`, shape (…).

        The mixture's quantile lies between the smallest and the largest of its experts' quantiles; within this bracket
        it is found to the last digits, or to the whole number for discrete targets.

        Raises:
            InputError: `probability` does not lie strictly between 0 and 1, the weights are no probabilities, or
                targets of this family are not ordered.
        """
        self._need_probabilities("quantile")
        if not 0.0 < probability < 1.0:
            raise InputError(f"a quantile's probability must lie strictly between 0 and 1, not {probability}")
        weights, location, dispersion = self._weighted(x, gate_x, offset)
        batch = weights.shape[:-1]
        weights, location = weights.reshape(-1, self.n_experts), location.reshape(-1, *location.shape[len(batch) :])
        level = torch.full((len(location),), probability, dtype=location.dtype, device=location.device)
        each = self.family.quantile(level, location, dispersion)
        low = torch.where(weights > 0.0, each, torch.inf).amin(-1).cpu().numpy()
        high = torch.where(weights > 0.0, each, -torch.inf).amax(-1).cpu().numpy()

        def distribution(y: np.ndarray, rows: np.ndarray) -> np.ndarray:
            index = torch.as_tensor(rows, device=location.device)
            target = torch.as_tensor(y, dtype=location.dtype, device=location.device)
            below = self.family.distribution_function(target, location[index], dispersion)
            return _mixed(weights[index], below).cpu().numpy()

        if self.family.is_discrete:
            answer = discrete_quantile(distribution, low, high, probability, torch.finfo(location.dtype).eps)
        else:
            answer = continuous_quantile(distribution, low, high, probability)
        return torch.as_tensor(answer, dtype=location.dtype, device=location.device).reshape(batch)

    @torch.no_grad()
    def sample(
        self,
        x: Tensor,
        gate_x: Tensor | None = None,
        generator: torch.Generator | None = None,
        offset: Tensor | None = None,
    ) -> Tensor:
        """One draw of y at each input, (…) or (…, e), codes for classes: first the expert, then its target.

        Raises:
            InputError: the weights are no probabilities.
        """
        self._need_probabilities("sample")
        log_weights = self.log_weights(x, gate_x)
        location, dispersion = self.expert_parameters(x, offset)
        uniform = torch.rand(log_weights.shape, generator=generator, dtype=log_weights.dtype, device=log_weights.device)
        # A uniform 0 would make the Gumbel variable −∞, as small as the log-weight of an expert that must not be drawn.
        gumbel = -torch.log(-torch.log(uniform.clamp_min(torch.finfo(uniform.dtype).tiny)))
        chosen = (log_weights + gumbel).argmax(-1, keepdim=True)
        drawn = self.family.sample(_silenced(location, log_weights.isneginf()), dispersion, generator=generator)
        if drawn.ndim == chosen.ndim:
            return drawn.gather(-1, chosen).squeeze(-1)
        index = chosen.unsqueeze(-1).expand(*chosen.shape, drawn.shape[-1])
        return drawn.gather(-2, index).squeeze(-2)

    def atoms(self) -> Atoms:
        """The mixing measure, with scales as variances, in the units of the data, or of a stored standardisation."""
        log_scale = self.experts.log_scale.detach()
        log_scale = log_scale.expand(self.n_experts, *log_scale.shape[1:])
        scale = log_scale if self.family.n_dispersion == 1 else log_scale[:, :1].squeeze(-1)
        natural = self.family.natural_dispersion(log_scale).cpu().numpy()
        terms = [name for name, _ in self.family.dispersion_terms()]
        return Atoms(
            gate={name: array.cpu().numpy() for name, array in self.gate.atoms().items()},
            expert={name: array.cpu().numpy() for name, array in self.experts.atoms().items()},
            variance=torch.exp(2.0 * scale).cpu().numpy() if self.family.has_scale else np.empty(0),
            dispersion={name: natural[:, place].copy() for place, name in enumerate(terms)},
        )

    def extra_repr(self) -> str:
        """The family, which is no module, for printing."""
        return f"(family): {self.family!r}"

    def _need_probabilities(self, what: str) -> None:
        if not self.is_normalised:
            raise InputError(
                f"the {self.gate.name} gate is not normalised: its weights are no probabilities, so there is no {what}"
                "; use `mean` as a regression function, fitted by least squares, or normalise the gate"
            )

    def _target(self, y: Tensor, x: Tensor, location: Tensor) -> Tensor:
        """The targets as floating numbers, if their shape cannot be mistaken for another."""
        event = self.family.event_size
        batch = y.shape[:-1] if event else y.shape
        if len(batch) > x.ndim - 1 or (event and y.shape[-1:] != (event,)):
            wanted = (*x.shape[:-1], event) if event else tuple(x.shape[:-1])
            raise InputError(
                f"the targets have shape {tuple(y.shape)}; for these inputs the {self.family.name} family needs "
                f"{wanted}"
            )
        return y if y.is_floating_point() else y.to(location.dtype)

    def _scored(self, log_weights: Tensor, x: Tensor, y: Tensor, offset: Tensor | None) -> Tensor:
        """Log-weights plus log densities, (…, k); −∞ where the log-weight is, with gradient 0 to that expert."""
        location, dispersion = self.expert_parameters(x, offset)
        absent = log_weights.isneginf()
        density = self.family.log_density(self._target(y, x, location), _silenced(location, absent), dispersion)
        return log_weights + torch.where(absent, torch.zeros_like(density), density)

    def _weighted(self, x: Tensor, gate_x: Tensor | None, offset: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Weights (…, k), and the experts' parameters, harmless where an expert has weight 0."""
        weights = self.log_weights(x, gate_x).exp()
        location, dispersion = self.expert_parameters(x, offset)
        return weights, _silenced(location, weights == 0.0), dispersion


def _check_input(name: str, x: Any, n_features: int | None) -> None:
    """Refuse an input that is no tensor, or has not so many features on its last axis, if that is told."""
    size = "d" if n_features is None else str(n_features)
    if not isinstance(x, Tensor):
        raise InputError(
            f"{name} must be a torch tensor (…, {size}) of the features in their order, not a {type(x).__name__}: give "
            "torch.tensor(…) of the numbers, or load the folder as an estimator, whose `predict` takes tables"
        )
    if x.ndim == 0 or (n_features is not None and x.shape[-1] != n_features):
        raise InputError(f"{name} has the shape {tuple(x.shape)}, and the model takes (…, {size})")


def _silenced(location: Tensor, absent: Tensor) -> Tensor:
    """The locations, with a 0 for experts without weight: no infinity of theirs can meet a weight of 0."""
    absent = absent.reshape(*absent.shape, *(1 for _ in location.shape[absent.ndim :]))
    return torch.where(absent, torch.zeros_like(location), location)


def _mixed(weights: Tensor, values: Tensor) -> Tensor:
    """Σᵢ wᵢ vᵢ over experts, for values (…, k), or (…, k, e); an expert of weight 0 may have any value, NaN too."""
    spread = weights.reshape(*weights.shape, *(1 for _ in values.shape[weights.ndim :]))
    return (spread * torch.where(spread == 0.0, torch.zeros_like(values), values)).sum(weights.ndim - 1)
