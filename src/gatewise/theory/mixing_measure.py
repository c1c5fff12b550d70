"""Mixing measures: weights at points of the parameter space, which is what the theory compares."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike

from gatewise.exceptions import InputError
from gatewise.experts import Experts
from gatewise.gates import Gate
from gatewise.messages import shown
from gatewise.model import MixtureOfExperts
from gatewise.parts.standardiser import Standardiser
from gatewise.theory.motions import gate_named, motions_of, weights_of

__all__ = ["MixingMeasure"]

Units = tuple[tuple[float, ...], tuple[float, ...]]
Part = TypeVar("Part", Gate, Experts)


@dataclass(frozen=True, eq=False)
class MixingMeasure:
    """G = Σᵢ wᵢ δ_θᵢ: a weight and a point θᵢ, the parameters of gate, expert and family, for each expert.

    The weights are those of the papers and need not sum to 1: exp(β₀) of a softmax, exp(β₀/τ) with a temperature,
    1/(1 + exp(−β₀)) of a sigmoid gate, π of a Gaussian gate. A scale is held as the variance, as the theory does. The
    measure of a hierarchical gate is nested: the atoms are the groups, with the outer gate's weights and parameters,
    and each group has a measure of its own with the inner gate's and the experts'.

    Arrays are copied and read-only.

    Args:
        weights: w (k,), not negative, one of them positive.
        parameters: arrays with a leading axis of length k. Names begin with "gate_", "expert_" or "dispersion_", or are
            "variance"; those of the built-in parts are the names that `atoms()` has, "gate_slope" and so on.
        gate: the registered name of the gate; of a top-K gate that of the gate inside.
        experts: the registered name of the experts.
        family: the registered name of the family, or None.
        bias: β₀ (k,) of a sigmoid gate, whose weights round to 1; None to take it from the weights.
        options: what else the gate is made with: "tau1" of a perturbed cosine, "activation", "free_temperature".
        n_active: K of a top-K gate, else None.
        groups: of a hierarchical gate the measure of each group.
        translations: which entries may be moved by one vector for all atoms together, "bias" for the biases; None for
            those that the gate declares.
        units: shift and scale of a stored standardisation of the gate's and of the experts' inputs where the numbers
            are in its units; None for the user's.
        parts: the gate and the experts, which know their symmetries; without a gate that of the name is asked.

    Raises:
        InputError: a shape or a number does not fit.

    Example:
        >>> from gatewise.theory import MixingMeasure
        >>> G = MixingMeasure([1.0, 0.5], {"gate_slope": [2.0, 0.0], "expert_intercept": [1.0, -1.0]})
        >>> G
        MixingMeasure(2 atoms, gate='softmax', experts='linear', family='gaussian')
        >>> G.parameters["gate_slope"]
        array([2., 0.])
    """

    weights: np.ndarray
    parameters: Mapping[str, np.ndarray]
    gate: str = "softmax"
    experts: str = "linear"
    family: str | None = "gaussian"
    bias: np.ndarray | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    n_active: int | None = None
    groups: tuple["MixingMeasure", ...] = ()
    translations: tuple[str, ...] | None = None
    units: tuple[Units | None, Units | None] = (None, None)
    parts: tuple[Gate | None, Experts | None] = field(default=(None, None), repr=False)

    def __post_init__(self) -> None:
        weights = _read_only("weights", self.weights)
        if weights.ndim != 1 or not len(weights) or (weights < 0.0).any() or not (weights > 0.0).any():
            raise InputError(
                f"weights must be one axis of numbers that are not negative and not all 0, not {weights.tolist()}"
            )
        parameters = {name: _read_only(name, value) for name, value in self.parameters.items()}
        bias = None if self.bias is None else _read_only("bias", self.bias)
        for name, value in {**parameters, **({} if bias is None else {"bias": bias})}.items():
            if value.ndim == 0 or len(value) != len(weights):
                raise InputError(
                    f"{name} has the shape {value.shape}: there are {len(weights)} atoms, one row for each"
                )
        for name in parameters:
            if name != "variance" and not name.startswith(("gate_", "expert_", "dispersion_")):
                raise InputError(
                    f"unknown entry {shown(name)}: names begin with 'gate_', 'expert_' or 'dispersion_', or are "
                    "'variance'"
                )
        if (parameters.get("variance", np.ones(1)) < 0.0).any():
            raise InputError("a variance is negative: give the square of the scale, not its logarithm")
        if self.groups and len(self.groups) != len(weights):
            raise InputError(f"there are {len(weights)} weights and {len(self.groups)} groups: give one for each")
        gate, experts = self.parts
        if gate is None:
            atoms = {name: value for name, value in parameters.items() if name.startswith("gate_")}
            gate = gate_named(self.options.get("outer", self.gate), self.options, atoms, len(weights))
        translations = self.translations
        if translations is None:
            declared = () if gate is None else motions_of(gate).entries
            translations = tuple(name for name in declared if name == "bias" or name in parameters)
        for name, value in (
            ("weights", weights),
            ("parameters", MappingProxyType(parameters)),
            ("bias", bias),
            ("options", MappingProxyType(dict(self.options))),
            ("groups", tuple(self.groups)),
            ("translations", translations),
            ("parts", (gate, experts)),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, model: MixtureOfExperts) -> Self:
        """The mixing measure of a model, in the user's units, with scales as variances.

        A stored standardisation is undone where the part can do that; other parts keep its units, and `units` says so.
        A gate that is another one in other parameters, as the Gaussian gate of inputs that are given (`joint=False`) is
        a quadratic gate, becomes that, see `Gate.reduced`.

        Raises:
            InputError: a weight is not finite, or the tree has more than two levels.

        Example:
            >>> from gatewise.model import MixtureOfExperts
            >>> model = MixtureOfExperts.build("softmax", "linear", "gaussian", n_features=1, n_experts=2)
            >>> dict(MixingMeasure.of(model).parameters)["variance"]
            array([1., 1.])
        """
        gate, gate_units = _in_user_units(model.gate, model.gate_scaler)
        experts, expert_units = _in_user_units(model.experts, model.expert_scaler)
        own = _expert_entries(model, experts)
        common = {"experts": experts.name, "family": model.family.name, "units": (gate_units, expert_units)}
        dense, n_active = gate.dense, gate.own_top_k
        if dense.branches:
            return cls._nested(dense, experts, own, n_active, common)
        entries = _gate_entries(dense, experts)
        if n_active is not None:
            entries["options"] = {**entries["options"], "select_on": gate.selects_on}
        return cls(**entries, **common, n_active=n_active).with_parameters(own)

    @classmethod
    def _nested(
        cls,
        gate: Gate,
        experts: Experts,
        own: Mapping[str, np.ndarray],
        n_active: int | None,
        common: dict[str, Any],
    ) -> Self:
        groups: list[MixingMeasure] = []
        start = 0
        for inner in gate.branches:
            if inner.branches:
                raise InputError("a group is a tree itself: the mixing measure of a tree is defined for two levels")
            rows = slice(start, start + inner.n_experts)
            inside = {name: value[rows] for name, value in own.items()}
            groups.append(cls(**_gate_entries(inner, experts), **common).with_parameters(inside))
            start += inner.n_experts
        if gate.root.branches:
            raise InputError("the outer gate is a tree itself: the mixing measure of a tree is defined for two levels")
        outer = _gate_entries(gate.root, None)
        outer |= {"gate": gate.name, "options": {**outer["options"], "outer": outer["gate"]}}
        return cls(**outer, **common, n_active=n_active, groups=tuple(groups))

    @property
    def n_atoms(self) -> int:
        """The number of atoms: experts, or of a nested measure groups."""
        return len(self.weights)

    def with_parameters(self, parameters: Mapping[str, ArrayLike]) -> Self:
        """The measure with these entries added or exchanged."""
        return replace(self, parameters={**self.parameters, **{k: np.asarray(v) for k, v in parameters.items()}})

    def permuted(self, order: Sequence[int]) -> Self:
        """The same measure with its atoms (or groups) in another order.

        Raises:
            InputError: the order is no permutation.
        """
        index = list(order)
        if sorted(index) != list(range(self.n_atoms)):
            raise InputError(f"{index} is no order of {self.n_atoms} atoms")
        return replace(
            self,
            weights=self.weights[index],
            parameters={name: value[index] for name, value in self.parameters.items()},
            bias=None if self.bias is None else self.bias[index],
            groups=tuple(self.groups[i] for i in index) if self.groups else (),
        )

    def translated(self, bias: float = 0.0, **vectors: ArrayLike) -> Self:
        """All log-weights raised by `bias`, and one vector added to an entry of all atoms, for each entry named.

        Raises:
            InputError: the gate does not allow this translation: it would be another model.

        Example:
            >>> G = MixingMeasure([1.0, 0.5], {"gate_slope": [2.0, 0.0]})
            >>> G.translated(bias=np.log(2.0), gate_slope=1.0).parameters["gate_slope"]
            array([3., 1.])
        """
        asked = (*(("bias",) if bias else ()), *vectors)
        refused = [name for name in asked if name not in (self.translations or ())]
        if refused:
            raise InputError(f"the {self.gate} gate has no translation of {', '.join(refused)}: it is another model")
        moved = {name: self.parameters[name] + np.asarray(vector) for name, vector in vectors.items()}
        own = None if self.bias is None or bias else self.bias
        return replace(self, weights=self.weights * np.exp(bias), bias=own, parameters={**self.parameters, **moved})

    def __reduce__(self) -> tuple[Any, ...]:
        """Plain dictionaries instead of views of them, which cannot be pickled."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain = {**values, "parameters": dict(self.parameters), "options": dict(self.options)}
        return type(self), tuple(plain.values())

    def __repr__(self) -> str:
        kept = f", n_active={self.n_active}" if self.n_active else ""
        what = "groups" if self.groups else "atoms"
        return (
            f"MixingMeasure({self.n_atoms} {what}, gate={self.gate!r}, experts={self.experts!r}, "
            f"family={self.family!r}{kept})"
        )


def _read_only(name: str, value: ArrayLike) -> np.ndarray:
    array = np.array(value, dtype=np.float64)
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds a number that is not finite: {array.tolist()}")
    array.setflags(write=False)
    return array


def _in_user_units(part: Part, scaler: Standardiser | None) -> tuple[Part, Units | None]:
    """The part with parameters for inputs as they are, if it can have them; else as it is, and the units."""
    if scaler is None:
        return part, None
    if not part.affine_equivariant:
        return part, (tuple(scaler.mean.tolist()), tuple(scaler.scale.tolist()))
    own = part.own_parameters()
    dtype = next(iter(own.values())).dtype
    changed = deepcopy(part)
    changed.assign_parameters(part.unstandardise(own, scaler.mean.to(dtype), scaler.scale.to(dtype)))
    return changed, None


def _expert_entries(model: MixtureOfExperts, experts: Experts) -> dict[str, np.ndarray]:
    """The experts' and the family's arrays, the scale as a variance."""
    own = {name: _plain(value) for name, value in experts.atoms().items()}
    family = model.family
    log_scale = experts.log_scale.detach().expand(experts.n_experts, *experts.log_scale.shape[1:])
    natural = _plain(family.natural_dispersion(log_scale.double()))
    for place, (term, _) in enumerate(family.dispersion_terms()):
        if family.has_scale and place == 0 and term == "scale":
            own["variance"] = natural[:, place] ** 2
        else:
            own[f"dispersion_{term}"] = natural[:, place]
    return own


def _gate_entries(gate: Gate, experts: Experts | None) -> dict[str, Any]:
    """Weights, parameters and what else describes a flat gate, as arguments of a measure."""
    gate = gate.reduced()
    atoms = {name: _plain(value) for name, value in gate.atoms().items()}
    entries: dict[str, Any] = {"gate": gate.name, "options": gate.options(), "weights": weights_of(gate, atoms)}
    bias = atoms.pop("gate_bias", None)
    atoms.pop("gate_log_weight", None)
    if gate.weight_link == "logit":
        entries["bias"] = bias
    return {**entries, "parameters": atoms, "parts": (deepcopy(gate), experts)}


def _plain(value: torch.Tensor) -> np.ndarray:
    return value.detach().double().cpu().numpy()
