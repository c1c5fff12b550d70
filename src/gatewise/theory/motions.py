"""What a gate's translations do to the atoms of a mixing measure: found by making them."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from scipy.special import expit

from gatewise.exceptions import InputError
from gatewise.gates import GATES, Gate
from gatewise.gates.base import WEIGHTS
from gatewise.parts.component import Atoms, Component
from gatewise.parts.options import part_options
from gatewise.parts.parameters import Parameters, Symmetry

__all__ = ["Motions", "atoms_at", "gate_named", "motions_of", "weights_of"]

_STEP, _SEEN, _SAME = 0.01, 1e-6, 1e-9


@dataclass(frozen=True)
class Motions:
    """Which numbers of all atoms may be moved together.

    Attributes:
        entries: "bias" if one number may be added to all log-weights, and entries to which one vector may.
        blocks: blocks of the gate's coordinates to which one vector may be added.
    """

    entries: tuple[str, ...]
    blocks: tuple[str, ...]


_FOUND: WeakKeyDictionary[type[Gate], dict[str, Motions]] = WeakKeyDictionary()


def motions_of(gate: Gate) -> Motions:
    """The translations of a gate of this kind and size, whatever its parameters.

    Raises:
        InputError: a translation adds no vector to an entry or a coordinate, or a scale is not divided out.

    Example:
        >>> from gatewise.gates import build_gate
        >>> motions_of(build_gate("quadratic", 1, 2)).entries
        ('bias', 'gate_slope', 'gate_quadratic')
        >>> motions_of(build_gate("perturbed_cosine", 2, 2))
        Motions(entries=('bias',), blocks=('gate_slope',))
    """
    known = _FOUND.setdefault(type(gate), {})
    if repr(gate) not in known:
        plain, mixed = _made(gate, 1.0), _made(gate, -1.0)
        # A gate may have a translation while all slopes have one sign: it moves coordinates then, and no entries.
        known[repr(gate)] = Motions(tuple(n for n in plain.entries if n in mixed.entries), plain.blocks)
    return known[repr(gate)]


def _made(gate: Gate, sign: float) -> Motions:
    """Each declared translation, made by a small amount at different parameters: positive, with every other's sign."""
    # The weight of a single expert is 1: two show what the gate's kind is.
    several = gate.n_experts > 1
    probe = (deepcopy(gate) if several else type(gate).of(gate.n_features, 2, **gate.options())).double()
    start: Parameters = {}
    for name, value in probe.own_parameters().items():
        places = torch.arange(value.numel(), dtype=torch.float64)
        size = 0.3 + 0.4 * torch.frac(0.6180339887498949 * (places + 1.0))
        start[name] = torch.where(places % 2 == 1, sign * size, size).reshape(value.shape)
    views: dict[str, Callable[[Atoms], Atoms]] = {
        "weights": lambda atoms: {"bias": _log_weights(atoms)} if "gate_bias" in atoms else {},
        "entries": lambda atoms: Component.coordinates(probe, _points(atoms)).blocks,
        "blocks": lambda atoms: _blocks(probe, _points(atoms)),
    }
    moved: dict[str, list[str]] = {name: [] for name in ("weights", "entries", "blocks")}
    before = atoms_at(probe, start)
    for symmetry in probe.symmetries():
        if symmetry.kind == "scale" and type(probe).coordinates is Component.coordinates:
            raise InputError(_refusal(gate, symmetry, "a gate with a scale divides it out in"))
        if symmetry.kind != "translation":
            continue
        steps = _STEP * torch.arange(1, 1 + symmetry.dimension, dtype=torch.float64) / symmetry.dimension
        after = atoms_at(probe, symmetry.act(start, steps))
        found, anything = 0, False
        for what, view in views.items():
            old, new = view(before), view(after)
            for name in old:
                change = (new[name] - old[name]).reshape(len(old[name]), -1)
                anything |= bool(np.abs(change).max(initial=0.0) > _SEEN)
                if change.size and np.abs(change[0]).max() > _SEEN and np.abs(change - change[0]).max() < _SAME:
                    moved[what].append(name)
                    found += 1
        if anything and not found:
            raise InputError(_refusal(gate, symmetry, "a translation adds one vector to all atoms in"))
    return Motions((*moved["weights"], *moved["entries"]), tuple(moved["blocks"]))


def _points(atoms: Atoms) -> Atoms:
    return {name: value for name, value in atoms.items() if name not in WEIGHTS}


def _blocks(gate: Gate, atoms: Atoms) -> Atoms:
    try:
        return gate.coordinates(atoms).blocks
    except InputError:
        # That there are none is said where a loss is asked for.
        return {}


def _refusal(gate: Gate, symmetry: Symmetry, rule: str) -> str:
    return (
        f"the {gate.name} gate declares the symmetry {symmetry.name!r}, {symmetry.sentence}: {rule} `coordinates`, and "
        "this one does not; write them, or declare the symmetry to be of the kind 'orbit'"
    )


def atoms_at(gate: Gate, parameters: Parameters) -> dict[str, np.ndarray]:
    """The atoms of a gate at these parameters, which it keeps."""
    gate.assign_parameters(parameters)
    return {name: value.double().cpu().numpy() for name, value in gate.atoms().items()}


def _log_weights(atoms: Atoms) -> np.ndarray:
    return atoms["gate_bias"] / atoms["gate_temperature"] if "gate_temperature" in atoms else atoms["gate_bias"]


def weights_of(gate: Gate, atoms: Atoms) -> np.ndarray:
    """The weights of the atoms as the papers have them.

    Raises:
        InputError: a weight is not finite, or the atoms have none.
    """
    if "gate_log_weight" in atoms:
        return np.exp(atoms["gate_log_weight"])
    if "gate_bias" not in atoms:
        raise InputError(f"the {gate.name} gate has no `gate_bias` among its atoms, of which the weights are made")
    if gate.weight_link == "logit":
        return expit(atoms["gate_bias"])
    with np.errstate(over="ignore"):
        weights = np.exp(_log_weights(atoms))
    if not np.isfinite(weights).all():
        raise InputError(
            f"the largest bias is {atoms['gate_bias'].max():g}, whose exponential is no number: subtract one number "
            "from all"
        )
    return weights


def gate_named(name: str, options: Mapping[str, Any], atoms: Atoms, n_atoms: int) -> Gate | None:
    """A gate of that name, as large as the atoms say, whose parameters do not matter; None if there is no such one."""
    if name not in GATES:
        return None
    known = part_options(GATES[name])
    own = {option: value for option, value in options.items() if known is None or option in known}
    first = next(iter(atoms.values()), np.empty((n_atoms, 0)))
    try:
        gate = GATES[name].of(first.shape[-1] if first.ndim > 1 else 1, n_atoms, **own)
    except InputError:
        return None
    return None if gate.branches or gate.dense is not gate else gate.double()
