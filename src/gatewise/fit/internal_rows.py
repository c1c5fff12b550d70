"""The rows as the general objective computes with them: tensors in internal units, and the volume of the change."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.fit.coordinates import Standardisation
from gatewise.fit.module_coordinates import InternalUnits
from gatewise.fit.options import FitOptions
from gatewise.fit.rows import EPSILON, FitRows
from gatewise.messages import shown
from gatewise.model import MixtureOfExperts

__all__ = ["InternalRows", "refuse_constant_target"]


@dataclass(frozen=True)
class InternalRows:
    """Inputs (x − shift)/scale and targets likewise; densities in internal units differ by the volume of the change.

    Attributes:
        x: the experts' inputs (n, d).
        gate_x: the gate's inputs (n, d').
        y: targets (n,) or (n, m).
        offset: what is added to every location (n,).
        weight: row weights (n,).
        log_volume: what the log-density in internal units is above that in the user's units, per row.
        is_fused: whether the compiled passes take these tensors.
    """

    x: Tensor
    gate_x: Tensor
    y: Tensor
    offset: Tensor
    weight: Tensor
    log_volume: float
    is_fused: bool

    @classmethod
    def of(cls, model: MixtureOfExperts, rows: FitRows, units: InternalUnits, options: FitOptions) -> "InternalRows":
        """The rows in these units, after the scalers that the model stores."""
        x, gate_x, y = (torch.tensor(array) for array in (rows.x, rows.gate_x, rows.y))
        if model.expert_scaler is not None:
            x = model.expert_scaler(x)
        if model.gate_scaler is not None:
            gate_x = model.gate_scaler(gate_x)
        if units.experts is not None:
            x = (x - units.experts[0]) / units.experts[1]
        if units.gate is not None:
            gate_x = (gate_x - units.gate[0]) / units.gate[1]
        log_volume = 0.0
        if units.target is not None:
            shift, scale = units.target
            y = (y - shift) / scale if y.ndim == 2 else (y - shift[0]) / scale[0]
            log_volume += float(scale.log().sum())
        if model.gate.is_joint and units.gate is not None:
            log_volume += float(units.gate[1].log().sum())
        offset = torch.zeros(len(y), dtype=torch.float64) if rows.offset is None else torch.tensor(rows.offset)
        kind: dict[str, Any] = {"dtype": getattr(torch, options.dtype), "device": options.device}
        return cls(
            x=x.to(**kind),
            gate_x=gate_x.to(**kind),
            y=y.to(**kind),
            offset=offset.to(**kind),
            weight=torch.tensor(rows.weight, **kind),
            log_volume=log_volume,
            is_fused=kind == {"dtype": torch.float64, "device": "cpu"},
        )


def refuse_constant_target(y: Tensor, rows: FitRows) -> None:
    """Refuse a target (in internal units) that does not vary, where a family's density could grow without bound.

    Raises:
        InputError: a column of the target is constant.
    """
    columns = y.detach().cpu().double().numpy().reshape(len(rows.weight), -1)
    deviation = Standardisation.of(columns, rows.weight)
    constant = np.ptp(columns, axis=0) <= 8.0 * EPSILON * np.abs(deviation.mean)
    if constant.any():
        column = int(np.flatnonzero(constant)[0])
        value = rows.y.reshape(len(rows.weight), -1)[0, column]
        name = rows.names.target if rows.y.ndim == 1 else f"{rows.names.target}[{column}]"
        raise InputError(f"the target {shown(name)} is constant at {value:g}: there is nothing to explain")
