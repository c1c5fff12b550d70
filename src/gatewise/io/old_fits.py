"""Fits of the default model as they were saved until 30 November 2026, read as the coordinates of today.

Their θ = (contrasts, coefficients, log-scales) is that of today; what it is counted from stood in fields of its own.
"""

from typing import Any

import numpy as np
import torch

from gatewise.exceptions import InputError
from gatewise.fit.coordinates import Coordinates, InternalUnits
from gatewise.fit.regression import channel_places, counted_from
from gatewise.fit.standardisation import Standardisation
from gatewise.io.pack import Unpacker
from gatewise.model import MixtureOfExperts

__all__ = ["old_coordinates", "old_layout"]

_LAYOUT = {"n_experts": int, "gate_size": int, "expert_size": int, "shared_scale": bool}


def old_layout(packed: dict[str, Any], unpacker: Unpacker) -> dict[str, Any]:
    """The sizes of θ."""
    fields = packed["fields"]
    if fields.keys() != _LAYOUT.keys() or any(type(fields[name]) is not kind for name, kind in _LAYOUT.items()):
        raise InputError("the layout is none of a mixture of regressions")
    return fields


def old_coordinates(packed: dict[str, Any], unpacker: Unpacker) -> Coordinates:
    """What θ means, from units, layout and one-expert fit."""
    fields = {name: unpacker.unpack(entry) for name, entry in packed["fields"].items()}
    layout, scale, slope = fields["layout"], fields["target_scale"], fields["baseline_slope"]
    features, gate_features = fields["features"], fields["gate_features"]
    if not isinstance(features, Standardisation) or not isinstance(gate_features, Standardisation):
        raise InputError("the inputs have no units")
    d, size = len(features.mean), layout["expert_size"]
    if layout["gate_size"] != 1 + len(gate_features.mean) or size not in (1, 1 + d) or slope.shape != (size - 1,):
        raise InputError("the coordinates do not fit their layout")
    model = MixtureOfExperts.build(
        "softmax",
        "linear" if size == 1 + d else "constant",
        "gaussian",
        d,
        layout["n_experts"],
        n_gate_features=len(gate_features.mean),
        shared_scale=layout["shared_scale"],
    )
    intercept = fields["baseline_intercept"] + slope @ features.mean[: size - 1]
    places = channel_places(model)
    assert places is not None
    column, origin = counted_from(model, places, np.append(intercept, slope * features.scale[: size - 1]) / scale)
    gate, experts = (
        (torch.from_numpy(units.mean), torch.from_numpy(units.scale)) if len(units.mean) else None
        for units in (gate_features, features)
    )
    target = torch.zeros(1, dtype=torch.float64), torch.tensor([scale], dtype=torch.float64)
    units = InternalUnits(gate, experts, False, False, target)
    return Coordinates(model.double(), units, column, np.zeros(len(origin)), origin=origin)
