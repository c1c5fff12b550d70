"""Coordinates in which losses are taken: what a gate's symmetries leave alone, or the raw parameters.

A symmetry is dealt with in one of three ways. A scale is divided out: the temperature, the length of a cosine gate's
β₁. A translation stays, as a vector t that the infimum runs over. A symmetry of another kind (signs, the shift of a
cosine gate's directions) makes copies of the truth, see `copies`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gatewise.exceptions import InputError
from gatewise.theory.mixing_measure import MixingMeasure

__all__ = ["Chart", "chart_of"]

# σ(cz) = c^degree σ(z) for c > 0.
_DEGREE = {"identity": 1.0, "relu": 1.0, "cube": 3.0}


@dataclass(frozen=True)
class Chart:
    """A measure in coordinates: blocks of numbers for each atom.

    Attributes:
        blocks: arrays (k, p) by name, the gate's first.
        labels: what a block is called, where that is not its name: "gate_slope/τ".
        translated: the blocks to which one vector t may be added for all atoms together.
        free_scale: whether all weights may be multiplied by one number.
    """

    blocks: dict[str, np.ndarray]
    labels: dict[str, str]
    translated: tuple[str, ...]
    free_scale: bool

    def label(self, name: str) -> str:
        """The name of a block for a reader."""
        return self.labels.get(name, name)


_Gate = tuple[dict[str, np.ndarray], dict[str, str], tuple[str, ...]]


def chart_of(measure: MixingMeasure, raw: bool, dispersions: bool, by_class: bool = False) -> Chart:
    """A measure in coordinates; of a nested one the outer gate.

    Args:
        measure: the measure.
        raw: whether to take the gate's parameters as they are, without dividing scales out.
        dispersions: whether the variance and other dispersions belong to the atoms, as in a likelihood.
        by_class: whether each output of the experts is a block of its own, "expert_slope[0]".

    Raises:
        InputError: the gate has a symmetry for which there are no coordinates.
    """
    name = measure.options.get("outer", measure.gate)
    gate, labels, translated = _raw(measure) if raw else _QUOTIENT.get(name, _raw)(measure)
    rest: dict[str, np.ndarray] = {}
    for name, value in measure.parameters.items():
        if name.startswith("gate_") or not (dispersions or name.startswith("expert_")):
            continue
        outputs = {"expert_slope": 3, "expert_intercept": 2}
        if by_class and value.ndim == outputs.get(name):
            rest |= {f"{name}[{c}]": _rows(value[:, c]) for c in range(value.shape[1])}
        else:
            rest[name] = _rows(value)
    return Chart({**gate, **rest}, labels, translated, "bias" in (measure.translations or ()))


def _rows(value: np.ndarray) -> np.ndarray:
    return value.reshape(len(value), -1)


def _isometric(matrix: np.ndarray) -> np.ndarray:
    """A symmetric matrix (k, d, d) as (k, d(d + 1)/2) numbers whose Euclidean length is its Frobenius norm."""
    if matrix.ndim < 3:
        return _rows(matrix)
    row, column = np.triu_indices(matrix.shape[-1])
    return matrix[:, row, column] * np.where(row == column, 1.0, np.sqrt(2.0))


def _raw(measure: MixingMeasure) -> _Gate:
    symmetric = ("gate_covariance", "gate_quadratic")
    blocks = {
        name: _isometric(value) if name in symmetric else _rows(value)
        for name, value in measure.parameters.items()
        if name.startswith("gate_")
    }
    fixed = measure.options.get("free_temperature") is False
    if fixed:
        blocks.pop("gate_temperature", None)
    translated = tuple(name for name in measure.translations or () if name != "bias")
    return blocks, {}, translated


def _dense_to_sparse(measure: MixingMeasure) -> _Gate:
    slope = _rows(measure.parameters["gate_slope"]) / _rows(_temperature(measure))
    return {"gate_slope": slope}, {"gate_slope": "gate_slope/τ"}, ("gate_slope",)


def _activation(measure: MixingMeasure) -> _Gate:
    name, slope = measure.options.get("activation", "tanh"), _rows(measure.parameters["gate_slope"])
    degree = _DEGREE.get(name)
    if degree is None:
        return _raw(measure)
    temperature = _rows(_temperature(measure))
    if name == "relu" and slope.shape[1] == 1:
        halves = np.concatenate([np.maximum(slope, 0.0), np.minimum(slope, 0.0)], axis=1) / temperature
        return {"gate_slope": halves}, {"gate_slope": "half-line slopes/τ"}, ("gate_slope",)
    if name == "cube" and slope.shape[1] == 1:
        return {"gate_slope": slope**3 / temperature}, {"gate_slope": "gate_slope³/τ"}, ("gate_slope",)
    label = "gate_slope/τ" if degree == 1.0 else "gate_slope/τ^(1/3)"
    translated = ("gate_slope",) if name == "identity" else ()
    return {"gate_slope": slope / temperature ** (1.0 / degree)}, {"gate_slope": label}, translated


def _temperature(measure: MixingMeasure) -> np.ndarray:
    return measure.parameters.get("gate_temperature", np.ones(measure.n_atoms))


def _cosine(measure: MixingMeasure) -> _Gate:
    if "gate_projection" in measure.parameters:
        raise InputError(
            "the cosine gate has a projection: no loss is known for it; write the measure with the directions "
            "Pᵀβ₁/‖β₁‖ as `gate_slope`"
        )
    slope = _rows(measure.parameters["gate_slope"])
    length = np.linalg.norm(slope, axis=1, keepdims=True)
    return {"gate_slope": slope / np.where(length > 0.0, length, 1.0)}, {"gate_slope": "gate_slope/‖gate_slope‖"}, ()


def _perturbed(measure: MixingMeasure) -> _Gate:
    tau = float(measure.options.get("tau1", 0.1))
    if tau == 0.0:
        return _cosine(measure)
    slope = _rows(measure.parameters["gate_slope"])
    short = slope / (np.linalg.norm(slope, axis=1, keepdims=True) + tau)
    return {"gate_slope": short}, {"gate_slope": "gate_slope/(‖gate_slope‖ + τ₁)"}, ("gate_slope",)


_QUOTIENT: dict[str, Callable[[MixingMeasure], _Gate]] = {
    "dense_to_sparse": _dense_to_sparse,
    "activation_dense_to_sparse": _activation,
    "cosine": _cosine,
    "perturbed_cosine": _perturbed,
}
