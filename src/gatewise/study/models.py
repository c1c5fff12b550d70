"""The models of a study: its truth, what a method fits, and where a fit starts."""

import copy
import functools
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from gatewise.exceptions import InputError
from gatewise.fit import Constraints
from gatewise.gates import Gate
from gatewise.messages import shown
from gatewise.model import MixtureOfExperts
from gatewise.parts.component import Component
from gatewise.spec.model import Part, build
from gatewise.study.design import StudyDesign
from gatewise.study.tables import Method, Starts
from gatewise.theory.splitting import fitted_at_truth

__all__ = ["allocation", "at_truth", "constraints_of", "holds", "near", "prototype", "true_model"]

_DRAWS = ("normal", "half_normal", "log_half_normal_root")
_DRAWN = 2
"""The first entry of the key of the truth's own draws; 0 and 1 are those of data and of starts."""


def true_model(design: StudyDesign) -> MixtureOfExperts:
    """The truth, with its drawn parameters drawn.

    Raises:
        InputError: a name, an option or a parameter is unknown or has another shape.
    """
    truth = design.truth
    return _built(design, truth.gate, truth.experts, truth.n_experts)


def prototype(design: StudyDesign, method: Method) -> MixtureOfExperts:
    """What a method fits: the truth's parts, or its own, with k experts.

    Raises:
        InputError: as `true_model`.
    """
    truth = design.truth
    gate = method.gate or truth.gate.model_copy(update={"parameters": {}})
    experts = method.experts or truth.experts.model_copy(update={"parameters": {}})
    return _built(design, gate, experts, method.n_experts)


def _built(design: StudyDesign, gate: Part, experts: Part, n_experts: int) -> MixtureOfExperts:
    return build(
        gate, experts, design.truth.family, design.n_features, n_experts, functools.partial(_drawn, design.seed)
    )


def _drawn(seed: int, what: str, module: Component, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, with numbers in the place of instructions to draw them."""
    found = dict(values)
    own = module.own_parameters()
    for name, value in values.items():
        if isinstance(value, Mapping) and name in own:
            found[name] = _draw(seed, f"{what}.{name}", tuple(own[name].shape), value)
    return found


def _draw(seed: int, name: str, shape: tuple[int, ...], table: Mapping[str, Any]) -> list[Any]:
    unknown = sorted(set(table) - {"draw", "scale", "rows"})
    kind, scale, rows = table.get("draw"), table.get("scale"), table.get("rows", shape[0])
    if unknown or kind not in _DRAWS or not isinstance(scale, int | float) or scale < 0.0:
        raise InputError(
            f"{name} must be numbers, or {{draw = one of {', '.join(_DRAWS)}, scale = a number, rows = how many experts"
            f"}}, not {shown(dict(table))}"
        )
    if isinstance(rows, bool) or not isinstance(rows, int) or not 0 <= rows <= shape[0]:
        raise InputError(f"{name}: rows must be a whole number between 0 and {shape[0]}, not {shown(rows)}")
    key = (_DRAWN, zlib.crc32(name.encode()))
    values = scale * np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key)).normal(size=shape)
    if kind != "normal":
        values = np.abs(values)
    if kind == "log_half_normal_root":
        return (0.5 * np.log(values)).tolist()
    values[rows:] = 0.0
    return values.tolist()


def allocation(n_true: int, n_fitted: int, generator: np.random.Generator) -> list[int]:
    """The true atom of each fitted atom: each at least once, at random, the last to the last.

    Example:
        >>> allocation(2, 2, np.random.default_rng(0))
        [0, 1]
    """
    if n_fitted < n_true:
        raise InputError(f"{n_fitted} fitted experts cannot start near {n_true} true ones: start from the data")
    extra = generator.integers(n_true, size=n_fitted - n_true).tolist()
    cells = [*range(n_true - 1), *extra]
    generator.shuffle(cells)
    # An exact fit keeps the truth's order, so that parameters can be compared one by one.
    return [*(range(n_true - 1) if n_fitted == n_true else cells), n_true - 1]


def at_truth(design: StudyDesign, truth: MixtureOfExperts, method: Method, cells: Sequence[int]) -> MixtureOfExperts:
    """The method's model at the truth's parameters; atoms of one cell share its weight, or all have it.

    Raises:
        InputError: the fitted parts have other parameters than the truth's, so that there is no such model; a method
            may then give the parameters of a start itself, or start from the data.
    """
    model = prototype(design, method)
    if any(part is not None and part.parameters for part in (method.gate, method.experts)):
        return model
    gate, inner = model.gate, truth.gate
    if inner.branches and method.n_experts != truth.n_experts:
        raise InputError(
            f"method {method.name}: a tree can be enlarged in several ways: give the gate's parameters, or start from "
            "the data (starts.near = 0)"
        )
    if gate.dense is not gate and inner.dense is not inner:
        dense = _enlarged(MixtureOfExperts(inner.dense, truth.experts, truth.family), cells, method.starts.share_weight)
        found = MixtureOfExperts(_selecting(gate, dense), dense.experts, truth.family)
    else:
        found = _enlarged(truth, cells, method.starts.share_weight)
    for what, own, wanted in (("gate", found.gate, model.gate), ("experts", found.experts, model.experts)):
        if type(own) is not type(wanted) or repr(own) != repr(wanted):
            raise InputError(
                f"method {method.name}: the fitted {what}, {shown(wanted)}, have other parameters than the truth's, "
                f"{shown(own)}: give the {what}' parameters, or start from the data (starts.near = 0)"
            )
    return found


def _enlarged(truth: MixtureOfExperts, cells: Sequence[int], share_weight: bool) -> MixtureOfExperts:
    found = fitted_at_truth(truth, cells)
    if not share_weight:
        own = truth.gate.own_parameters()
        copies = {name: own[name][list(cells)] for name in truth.gate.per_expert}
        found.gate.assign_parameters({**found.gate.own_parameters(), **copies})
    return found.requires_grad_(False)


def _selecting(gate: Gate, enlarged: MixtureOfExperts) -> Gate:
    """The method's sparse gate around an enlarged dense one."""
    found = copy.deepcopy(gate)
    found.dense.assign_parameters(enlarged.gate.own_parameters())
    return found


def near(
    model: MixtureOfExperts,
    starts: Starts,
    held: Mapping[str, np.ndarray],
    n: int,
    generator: np.random.Generator,
) -> MixtureOfExperts:
    """The model with normal numbers added to all parameters that are not held."""
    moved = copy.deepcopy(model)
    shrink = n**-starts.power
    with torch.no_grad():
        for name, value in moved.named_parameters():
            if name.endswith("log_scale"):
                deviation = starts.scale_noise
            else:
                deviation = starts.gate_noise if name.startswith("gate.") else starts.expert_noise
            step = deviation * shrink * generator.normal(size=tuple(value.shape))
            if name in held:
                step = np.where(held[name], 0.0, step)
            value.add_(torch.from_numpy(np.asarray(step)))
    return moved


def holds(method: Method, model: MixtureOfExperts) -> dict[str, np.ndarray]:
    """For each parameter that is held in part or whole a mask of its shape.

    Raises:
        InputError: a name is not one of the model's, or an expert is not.
    """
    own = dict(model.named_parameters())
    found: dict[str, np.ndarray] = {}
    for text in method.hold:
        match = re.fullmatch(r"([a-z0-9_.]+?)(?:\[(\d+)\])?", text)
        name = match.group(1) if match else text
        if match is None or name not in own:
            raise InputError(f"method {method.name} holds {shown(text)}: there are {', '.join(own)}")
        mask = found.setdefault(name, np.zeros(tuple(own[name].shape), dtype=bool))
        if match.group(2) is None:
            mask[...] = True
        elif int(match.group(2)) < len(mask):
            mask[int(match.group(2))] = True
        else:
            raise InputError(f"method {method.name} holds {shown(text)}: {name} has {len(mask)} rows")
    return found


def constraints_of(held: Mapping[str, np.ndarray]) -> Constraints | None:
    """What a fit takes to hold them."""
    return Constraints(frozen=dict(held)) if held else None
