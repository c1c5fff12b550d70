"""The rows as an objective computes with them: tensors in internal units, and the volume of the change."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.fit.coordinates import InternalUnits
from gatewise.fit.options import FitOptions
from gatewise.fit.rows import EPSILON, FitRows, check_columns
from gatewise.fit.standardisation import Standardisation
from gatewise.messages import shown
from gatewise.model import MixtureOfExperts
from gatewise.parts.component import Component
from gatewise.parts.standardiser import Standardiser

__all__ = [
    "InternalRows",
    "internal_inputs",
    "internal_rows",
    "internal_units",
    "refuse_columns",
    "refuse_constant_target",
]


def internal_units(
    model: MixtureOfExperts, rows: FitRows, standardise: bool, common_scale: bool = False
) -> InternalUnits:
    """The units in which the rows are fitted.

    Args:
        model: the prototype; a part that brings a standardisation of its own gets no other, and one that keeps the
            inputs' units gets none.
        rows: the rows in the user's units.
        standardise: whether anything may be changed at all.
        common_scale: whether all columns of the target keep their ratios, as the sum of their squares asks.
    """

    def change(part: Component, own: Standardiser | None, is_gate: bool) -> tuple[Tensor, Tensor] | None:
        if not standardise or own is not None or part.n_features == 0 or part.keeps_units:
            return None
        units = rows.gate_units if is_gate else rows.units
        return torch.from_numpy(units.mean), torch.from_numpy(units.scale)

    gate = change(model.gate, model.gate_scaler, is_gate=True)
    experts = change(model.experts, model.expert_scaler, is_gate=False)
    return InternalUnits(
        gate,
        experts,
        gate is not None and not model.gate.affine_equivariant,
        experts is not None and not model.experts.affine_equivariant,
        _target_units(model, rows, common_scale) if standardise else None,
    )


def _target_units(model: MixtureOfExperts, rows: FitRows, common_scale: bool) -> tuple[Tensor, Tensor] | None:
    if not model.family.is_location_scale or model.experts.output_change == "none":
        return None
    columns = rows.y.reshape(len(rows.y), -1)
    units = Standardisation.of(columns, rows.weight)
    # A shift of all experts shifts the mixture only where the weights sum to 1.
    if model.experts.output_change == "affine" and model.gate.normaliser == "softmax":
        scale = np.full_like(units.scale, units.scale.mean()) if common_scale else units.scale
        return torch.from_numpy(units.mean), torch.from_numpy(scale)
    # Factors about zero only; such experts have no shift, or the weights do not carry it to the mean.
    size = np.sqrt(rows.weight @ (columns**2) / rows.weight.sum())
    size = np.where(size > 0.0, size, 1.0)
    size = np.full_like(size, size.mean()) if common_scale or model.experts.n_outputs == 1 else size
    return torch.zeros(len(size), dtype=torch.float64), torch.from_numpy(size)


def internal_inputs(model: MixtureOfExperts, rows: FitRows, units: InternalUnits) -> tuple[Tensor, Tensor]:
    """The inputs (x − shift)/scale of experts and gate, after the scalers that the model stores."""

    def changed(x: np.ndarray, own: Standardiser | None, change: tuple[Tensor, Tensor] | None) -> Tensor:
        if own is None and change is not None:
            return torch.from_numpy((x - change[0].numpy()) / change[1].numpy())
        found = torch.tensor(x)
        found = found if own is None else own(found)
        return found if change is None else (found - change[0]) / change[1]

    x = changed(rows.x, model.expert_scaler, units.experts)
    is_same = rows.gate_x is rows.x and model.gate_scaler is model.expert_scaler
    is_same = is_same and (units.gate is None) == (units.experts is None)
    return x, x if is_same else changed(rows.gate_x, model.gate_scaler, units.gate)


@dataclass(frozen=True)
class InternalRows:
    """Inputs and targets in internal units; densities there differ by the volume of the change.

    Attributes:
        x: the experts' inputs (n, d).
        gate_x: the gate's inputs (n, d').
        y: targets (n,) or (n, m).
        offset: what is added to every location (n,).
        weight: row weights (n,).
        log_volume: what the log-density in internal units is above that in the user's units, per row.
        is_fused: whether the compiled passes take these tensors.
        designs: what logits and locations are linear in, (n, q) and (n, p) with contiguous columns, if it is known.
    """

    x: Tensor
    gate_x: Tensor
    y: Tensor
    offset: Tensor
    weight: Tensor
    log_volume: float
    is_fused: bool
    designs: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def of(
        cls, x: Tensor, gate_x: Tensor, y: Tensor, log_volume: float, rows: FitRows, options: FitOptions
    ) -> "InternalRows":
        """In the number type and on the device that the options say."""
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

    def in_float64(self) -> "InternalRows":
        """The same on the CPU in float64, which starts and compiled passes compute in."""
        if self.is_fused:
            return self
        x, gate_x, y, offset, weight = (
            each.detach().cpu().double() for each in (self.x, self.gate_x, self.y, self.offset, self.weight)
        )
        return InternalRows(x, gate_x, y, offset, weight, self.log_volume, is_fused=True)


def internal_rows(model: MixtureOfExperts, rows: FitRows, units: InternalUnits, options: FitOptions) -> InternalRows:
    """The rows in these units."""
    x, gate_x = internal_inputs(model, rows, units)
    y, log_volume = torch.tensor(rows.y), 0.0
    if units.target is not None:
        shift, scale = units.target
        y = (y - shift) / scale if y.ndim == 2 else (y - shift[0]) / scale[0]
        log_volume += float(scale.log().sum())
    if model.gate.is_joint and units.gate is not None:
        log_volume += float(units.gate[1].log().sum())
    return InternalRows.of(x, gate_x, y, log_volume, rows, options)


def refuse_columns(model: MixtureOfExperts, rows: FitRows, size: int) -> None:
    """Refuse columns that a fit of so many parameters cannot use, where there are rows enough to tell.

    Raises:
        InputError: a column is constant or a linear combination of others.
    """
    if len(rows.weight) < size:
        return
    if rows.x.shape[1] and model.experts.n_features:
        check_columns(rows.x, rows.units, rows.units.design(rows.x), rows.weight, rows.names.features)
    if rows.gate_x is not rows.x and rows.gate_x.shape[1] and model.gate.n_features:
        design = rows.gate_units.design(rows.gate_x)
        check_columns(rows.gate_x, rows.gate_units, design, rows.weight, rows.names.gate_features)


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
