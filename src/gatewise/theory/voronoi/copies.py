"""Copies of the truth by symmetries of its gate that are neither translations nor scales: discrete ones, and orbits."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.gates import Gate
from gatewise.gates.base import WEIGHTS
from gatewise.parts.parameters import Parameters, Symmetry
from gatewise.theory.mixing_measure import MixingMeasure
from gatewise.theory.motions import atoms_at
from gatewise.theory.voronoi.charts import Chart, gate_coordinates

__all__ = ["Copies", "copies_of"]

_MOST = 2**16
_ROWS = 20
# A declared symmetry counts if the weights agree, up to what rounding makes of a pseudo-inverse.
_SAME = 1e-6


@dataclass(frozen=True)
class Copies:
    """What other parameters of the truth's gate give the same weights.

    Attributes:
        gate: the truth's, a copy whose parameters may be set.
        start: its parameters.
        chart: the truth in coordinates.
        raw: whether these are the parameters as they are.
        discrete: symmetries that are one map each.
        orbits: those with real coordinates.
    """

    gate: Gate
    start: Parameters
    chart: Chart
    raw: bool
    discrete: tuple[Symmetry, ...]
    orbits: tuple[Symmetry, ...]

    @property
    def dimension(self) -> int:
        """How many numbers say where on the orbits a copy is."""
        return sum(symmetry.dimension for symmetry in self.orbits)

    def at(self, parameters: Parameters) -> Chart:
        """The truth with these parameters of its gate, in coordinates."""
        atoms = {n: value for n, value in atoms_at(self.gate, parameters).items() if n not in WEIGHTS}
        moved = gate_coordinates(self.gate, atoms, self.raw).blocks
        return replace(self.chart, blocks={name: moved.get(name, block) for name, block in self.chart.blocks.items()})

    def moved(self, parameters: Parameters, amount: np.ndarray) -> Parameters:
        """Along the orbits by amounts (dimension,)."""
        sizes = [symmetry.dimension for symmetry in self.orbits]
        for symmetry, part in zip(self.orbits, torch.from_numpy(amount).split(sizes), strict=True):
            parameters = symmetry.act(parameters, part)
        return parameters

    def all(self) -> list[tuple[Parameters, Chart]]:
        """The copies that discrete symmetries make, one after the other in any order, the truth itself first.

        Raises:
            InputError: there are more than 65,536.
        """
        found = [(self.start, self.chart)]
        seen = {_key(self.chart)}
        for parameters, _ in found:
            for symmetry in self.discrete:
                other = symmetry.act(parameters, torch.zeros(0, dtype=torch.float64))
                chart = self.at(other)
                if _key(chart) in seen:
                    continue
                if len(found) == _MOST:
                    raise InputError(f"the {self.gate.name} gate has more than {_MOST:,} copies: take symmetry='none'")
                seen.add(_key(chart))
                found.append((other, chart))
        return found

    def nearest(self, parameters: Parameters, points: Chart) -> list[np.ndarray]:
        """For each atom and each true atom where on the orbits the one is nearest to the other, (dimension,)."""
        names = [name for name in self.at(parameters).blocks if name.startswith("gate_")]
        mine = np.concatenate([points.blocks[name] for name in names], axis=1)

        def away(amount: np.ndarray, i: int, j: int) -> np.ndarray:
            there = self.at(self.moved(parameters, amount)).blocks
            return mine[i] - np.concatenate([there[name][j] for name in names])

        pairs = np.ndindex(len(mine), self.gate.n_experts)
        start = np.zeros(self.dimension)
        return [least_squares(away, start, args=pair, ftol=1e-15, xtol=1e-15, gtol=1e-15).x for pair in pairs]


def copies_of(truth: MixingMeasure, chart: Chart, raw: bool) -> Copies | None:
    """The copies of a truth that losses look at, None if there are no others; raw ones are by discrete symmetries.

    Example:
        >>> from gatewise.theory.voronoi.charts import chart_of
        >>> truth = MixingMeasure([1.0, 2.0], {"gate_slope": [[1.0], [3.0]]}, gate="activation_dense_to_sparse")
        >>> found = copies_of(truth, chart_of(truth, raw=False, dispersions=True), raw=False)
        >>> [copy.blocks["gate_slope"].ravel().tolist() for _, copy in found.all()]
        [[1.0, 3.0], [-3.0, -1.0]]
    """
    template = truth.parts[0]
    if template is None or truth.n_atoms == 1 or not _looked_at(template.symmetries(), raw):
        return None
    atoms = {"gate_bias": np.zeros(truth.n_atoms), **truth.parameters}
    gate = deepcopy(template).double()
    start = gate.parameters_of({n: v for n, v in atoms.items() if n.startswith("gate_")})
    gate.assign_parameters(start)
    kept = [symmetry for symmetry in _looked_at(gate.symmetries(), raw) if _holds(gate, start, symmetry)]
    discrete = tuple(symmetry for symmetry in kept if symmetry.dimension == 0)
    return Copies(gate, start, chart, raw, discrete, tuple(symmetry for symmetry in kept if symmetry.dimension))


def _looked_at(symmetries: Sequence[Symmetry], raw: bool) -> list[Symmetry]:
    return [symmetry for symmetry in symmetries if symmetry.kind in (("discrete",) if raw else ("discrete", "orbit"))]


def _holds(gate: Gate, start: Parameters, symmetry: Symmetry) -> bool:
    """Whether the weights stay as they are: where parameters are special the formula of a symmetry may not hold."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_ROWS, gate.n_features, generator=generator, dtype=torch.float64)

    def weights(parameters: Parameters) -> Tensor:
        gate.assign_parameters(parameters)
        with torch.no_grad():
            return gate(x).exp()

    moved = weights(symmetry.act(start, torch.full((symmetry.dimension,), 0.1, dtype=torch.float64)))
    return bool((moved - weights(start)).abs().amax() < _SAME)


def _key(chart: Chart) -> bytes:
    """The gate's numbers to nine digits of the largest, so that rounding makes no copy of its own."""
    flat = np.concatenate([block.ravel() for name, block in chart.blocks.items() if name.startswith("gate_")])
    return (np.round(flat / max(float(np.abs(flat).max(initial=0.0)), 1e-300), 9) + 0.0).tobytes()
