"""The kinds of value that a fit consists of: results, their coordinates, models and their parts, constraints."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from pydantic import JsonValue, ValidationError

from gatewise.exceptions import InputError
from gatewise.experts import Experts
from gatewise.families import Family
from gatewise.fit.constraints import Constraints
from gatewise.fit.coordinates import Coordinates, InternalUnits
from gatewise.fit.result import (
    Baseline,
    BoundaryInterval,
    FitResult,
    NullSpace,
    Optimum,
    Search,
    StartRecord,
)
from gatewise.fit.standardisation import Standardisation
from gatewise.fit.status import Finding, FitStatus
from gatewise.gates import Gate
from gatewise.inference import Names, SquaredErrors
from gatewise.io.model_arrays import DTYPES, first_mismatch, put_together, refuse_other_class, take_apart
from gatewise.io.old_fits import old_coordinates, old_layout
from gatewise.io.pack import Packer, Unpacker, register, register_record, register_unpacking
from gatewise.model import MixtureOfExperts
from gatewise.spec.parts import (
    ExpertsConfig,
    FamilyConfig,
    GateConfig,
    PartsConfig,
    build_experts,
    build_family,
    build_gate,
    describe_experts,
    describe_family,
    describe_gate,
)

__all__ = ["check_result"]

_SOURCE = "the file of the fit's arrays"


def check_result(result: FitResult, model: MixtureOfExperts) -> None:
    """Refuse a result whose arrays do not fit each other, or that is of another model.

    Raises:
        InputError: they do not.
    """
    size, k = result.coordinates.size, model.n_experts
    optima, space = result.optima, result.null_space
    members = [result.on_floor, result.tight, *(optimum.on_floor for optimum in optima)]
    members += [optimum.tight for optimum in optima]
    spaces = [space.explained, space.further, space.by_selection]
    score_gram = np.empty((size, size)) if result.score_gram is None else result.score_gram
    conditions = {
        "it is of another model": result.model is model and all(found.model.n_experts == k for found in optima),
        "it is of no known kind": result.kind in ("likelihood", "least_squares"),
        "it has no finding": len(result.findings) > 0,
        "the estimate has another length": result.theta.shape == (size,),
        "the information has another size": result.information.shape == score_gram.shape == (size, size),
        "a direction has another length": all(part.ndim == 2 and part.shape[1] == size for part in spaces),
        "the scales are not one for each expert": all(
            scale.shape in ((0,), (k,)) for scale in (result.scale, *(optimum.scale for optimum in optima))
        ),
        "the rows are not one number for each expert": all(
            rows.shape == (k,) for rows in (result.effective_rows, *(optimum.effective_rows for optimum in optima))
        ),
        "an expert is not there": all(0 <= expert < k for experts in members for expert in experts),
        # A rival has the starts that ended there, but not the optima that they are counted among.
        "an optimum is not there": not optima
        or all(start.optimum is None or 0 <= start.optimum < len(optima) for start in result.starts),
        "a parameter is not there": result.separated.ndim == 1
        and bool(((result.separated >= 0) & (result.separated < size)).all())
        and 0 <= result.n_gate_parameters <= size,
    }
    for reason, holds in conditions.items():
        if not holds:
            raise InputError(f"the result of the fit does not fit together: {reason}")
    for rival in result.rivals:
        check_result(rival, rival.model)


def _pack_model(model: MixtureOfExperts, packer: Packer) -> dict[str, JsonValue]:
    parts, arrays, dtype = take_apart(model)
    named: JsonValue = {name: packer.keep(array.numpy()) for name, array in arrays.items()}
    return {"parts": parts.model_dump(mode="json"), "dtype": dtype, "arrays": named}


def _unpack_model(packed: dict[str, Any], unpacker: Unpacker) -> MixtureOfExperts:
    parts = _configured(PartsConfig, packed["parts"])
    if packed["dtype"] not in DTYPES:
        raise InputError(f"no model is of type {packed['dtype']!r}")
    model = put_together(parts, _arrays(packed, unpacker), packed["dtype"], _SOURCE)
    model.requires_grad_(False)
    return model


def _pack_part(part: Gate | Experts, config: GateConfig, shell: Gate | Experts, packer: Packer) -> dict[str, JsonValue]:
    """A part that a user gave as a prototype: its configuration and its arrays."""
    refuse_other_class(shell, part)
    dtypes = {str(parameter.dtype).removeprefix("torch.") for parameter in part.parameters()} or {"float64"}
    if len(dtypes) != 1 or not dtypes <= set(DTYPES):
        raise InputError(f"a part is saved in float64 or float32, {part!r} is in {', '.join(sorted(dtypes))}")
    arrays = {name: array.detach().cpu() for name, array in part.state_dict().items()}
    named: JsonValue = {name: packer.keep(array.numpy()) for name, array in arrays.items()}
    return {"config": config.model_dump(mode="json"), "dtype": dtypes.pop(), "arrays": named}


def _unpack_part(build: Callable[[], Gate | Experts], packed: dict[str, Any], unpacker: Unpacker) -> Gate | Experts:
    """A part with the arrays that it had; memory is taken when it is known that they are there."""
    dtype, arrays = DTYPES[packed["dtype"]], _arrays(packed, unpacker)
    with torch.device("meta"):
        mismatch = first_mismatch(build(), arrays, dtype)
    if mismatch is not None:
        raise InputError(f"{_SOURCE} holds {mismatch}")
    part = build().to(dtype)
    part.load_state_dict(arrays, assign=True)
    return part


def _arrays(packed: dict[str, Any], unpacker: Unpacker) -> dict[str, Any]:
    return {name: unpacker.unpack({"$": "tensor", "name": place}) for name, place in packed["arrays"].items()}


def _configured(cls: Any, packed: Any) -> Any:
    try:
        return cls.model_validate(packed)
    except ValidationError as error:
        raise InputError(f"{cls.__name__}: {error.errors()[0]['msg']}") from None


def _pack_coordinates(coordinates: Coordinates, packer: Packer) -> dict[str, JsonValue]:
    return {
        "prototype": packer.pack(coordinates.prototype),
        "units": packer.pack(coordinates.units),
        "column": packer.keep(coordinates.column.numpy()),
        "base": packer.keep(coordinates.base.numpy()),
        "has_dispersion": coordinates.has_dispersion,
        "origin": None if coordinates.origin is None else packer.keep(coordinates.origin.numpy()),
    }


def _unpack_coordinates(packed: dict[str, Any], unpacker: Unpacker) -> Coordinates:
    prototype, units = unpacker.unpack(packed["prototype"]), unpacker.unpack(packed["units"])
    if not isinstance(prototype, MixtureOfExperts) or not isinstance(units, InternalUnits):
        raise InputError("coordinates need a model and its units")
    column, base = unpacker.array(packed["column"]), unpacker.array(packed["base"])
    # Files of before 1 December 2026 have no origin here.
    origin = None if packed.get("origin") is None else unpacker.array(packed["origin"])
    parts = (*prototype.gate.parameters(), *prototype.experts.parameters())
    n_entries = sum(value.numel() for value in parts)
    arrays = [base] if origin is None else [base, origin]
    shapes_fit = all(each.shape == column.shape == (n_entries,) and each.dtype == np.float64 for each in arrays)
    if not shapes_fit or column.dtype.kind != "i" or set(np.unique(column)) - {-1} != set(range(column.max() + 1)):
        raise InputError("the coordinates do not fit their model")
    return Coordinates(prototype, units, column, base, packed["has_dispersion"] is True, origin)


register(
    "FitStatus",
    FitStatus,
    lambda status, packer: {"name": status.name},
    lambda packed, unpacker: FitStatus[packed["name"]],
)
for _record in (
    Finding,
    StartRecord,
    Search,
    Standardisation,
    InternalUnits,
    NullSpace,
    BoundaryInterval,
    Baseline,
    Optimum,
    FitResult,
    Names,
    SquaredErrors,
):
    register_record(_record)
register("model", MixtureOfExperts, _pack_model, _unpack_model, once=True)
register_unpacking("Layout", old_layout)
register_unpacking("LinearCoordinates", old_coordinates)
register("coordinates", Coordinates, _pack_coordinates, _unpack_coordinates, once=True)
register(
    "gate",
    Gate,
    lambda gate, packer: _pack_part(gate, describe_gate(gate), build_gate(describe_gate(gate)), packer),
    lambda packed, unpacker: _unpack_part(
        partial(build_gate, _configured(GateConfig, packed["config"])), packed, unpacker
    ),
)
register(
    "experts",
    Experts,
    lambda bank, packer: _pack_part(bank, describe_experts(bank), build_experts(describe_experts(bank)), packer),
    lambda packed, unpacker: _unpack_part(
        partial(build_experts, _configured(ExpertsConfig, packed["config"])), packed, unpacker
    ),
)
register(
    "family",
    Family,
    lambda family, packer: {"config": describe_family(family).model_dump(mode="json")},
    lambda packed, unpacker: build_family(_configured(FamilyConfig, packed["config"])),
)
register(
    "constraints",
    Constraints,
    lambda constraints, packer: {
        "frozen": packer.pack(dict(constraints.frozen)),
        "tied": packer.pack(constraints.tied),
    },
    lambda packed, unpacker: Constraints(unpacker.unpack(packed["frozen"]), unpacker.unpack(packed["tied"])),
)
