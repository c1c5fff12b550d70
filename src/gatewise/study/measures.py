"""What is measured of a fit: the losses of the design, and how far each kind of parameter is from the truth."""

import copy

import numpy as np
import torch

from gatewise.exceptions import InputError
from gatewise.model import MixtureOfExperts
from gatewise.study.tables import LossTable
from gatewise.theory import MixingMeasure, VoronoiLoss, voronoi_loss

__all__ = ["MEASURES", "anchored", "measure_fit", "measure_model"]

MEASURES = ("loss.", "exact.", "over.", "weighted.")
"""How names of measured columns begin.

"loss.NAME" is a loss. "exact.PARAMETER" is the largest distance of this parameter from its true value in cells of one
fitted atom, "over.PARAMETER" in cells of several, both without weights and powers, at the translation of the first
loss. "exact.weight" and "over.weight" are the differences of the cells' weights. "weighted.PARAMETERS" is the largest
(Σᵢ wᵢ ‖Δᵢ‖^r)^(1/r) of a cell of several atoms, a term of the first loss with its weights w and its power r: where the
loss falls like n^(−1/2), this falls at least like n^(−1/(2r)), also if an atom without weight stands far away.
"""


def measure_model(
    model: MixtureOfExperts, truth: MixingMeasure, losses: list[LossTable]
) -> tuple[dict[str, float], tuple[int, ...]]:
    """The measures of a fitted model, and the sizes of the cells of the first loss.

    A gate that nearly separates can have biases whose exponentials are no numbers. Then the largest is set to 0, which
    is the same model, and only losses that do not depend on such a shift (symmetry "estimate") are measured.
    """
    try:
        return measure_fit(MixingMeasure.of(model), truth, losses)
    except InputError:
        free = [table for table in losses if table.symmetry == "estimate"]
        if "bias" not in model.gate.own_parameters() or not free:
            raise
        shifted = copy.deepcopy(model)
        bias = shifted.gate.own_parameters()["bias"]
        with torch.no_grad():
            bias.sub_(bias.max().clone())
        return measure_fit(MixingMeasure.of(shifted), truth, free)


def measure_fit(
    estimate: MixingMeasure, truth: MixingMeasure, losses: list[LossTable]
) -> tuple[dict[str, float], tuple[int, ...]]:
    """The measures by name, and the sizes of the cells of the first loss."""
    found: dict[str, float] = {}
    cells: tuple[int, ...] = ()
    for place, table in enumerate(losses):
        loss = _loss(estimate, truth, table)
        found[f"loss.{table.name}"] = loss.value
        if place == 0:
            cells = tuple(len(cell) for cell in loss.cells)
            found.update(_distances(loss))
    return found, cells


def _loss(estimate: MixingMeasure, truth: MixingMeasure, table: LossTable) -> VoronoiLoss:
    options = {"kind": table.kind, "r": table.exponents(), "top_k": table.top_k, "cells": table.cells}
    if table.symmetry == "anchored":
        return voronoi_loss(anchored(estimate, truth), truth, symmetry="none", **options)
    return voronoi_loss(estimate, truth, symmetry=table.symmetry, **options)


def _distances(loss: VoronoiLoss) -> dict[str, float]:
    """The largest distance by parameter, in cells of one atom and of several, and the weighted ones of the latter."""
    found: dict[str, float] = {}

    def note(size: int, parameter: str, value: float) -> None:
        name = f"{'exact' if size == 1 else 'over'}.{parameter}"
        found[name] = max(found.get(name, 0.0), value)

    for (cell, parameter), distance in loss.distances.items():
        if len(loss.cells[cell]):
            note(len(loss.cells[cell]), parameter, float(distance))
    for term in loss.terms:
        if term.parameter == "weight":
            if term.size > 0 and term.inner is None:
                note(term.size, "weight", term.value)
        elif term.size > 1 and term.counted:
            name = f"weighted.{term.parameter.replace(' and ', '+')}"
            found[name] = max(found.get(name, 0.0), term.value ** (1.0 / term.exponent))
    return found


def anchored(estimate: MixingMeasure, truth: MixingMeasure) -> MixingMeasure:
    """The estimate, translated so that the gate of one atom is that of the last true atom.

    The atom is the one with weight whose expert is nearest to the last true one. Authors who fix the last fitted
    expert, and start it at the last true one, compare parameters so, without an infimum over translations.
    """
    experts = [name for name in truth.parameters if not name.startswith("gate_")]
    distance = np.where(estimate.weights > 0.0, 0.0, np.inf)
    for name in experts:
        distance += ((estimate.parameters[name] - truth.parameters[name][-1]) ** 2).reshape(estimate.n_atoms, -1).sum(1)
    reference = int(distance.argmin())
    moves = [name for name in (estimate.translations or ()) if name != "bias"]
    shifts = {name: truth.parameters[name][-1] - estimate.parameters[name][reference] for name in moves}
    bias = 0.0
    if "bias" in (estimate.translations or ()):
        bias = float(np.log(truth.weights[-1]) - np.log(estimate.weights[reference]))
    return estimate.translated(bias=bias, **shifts)
