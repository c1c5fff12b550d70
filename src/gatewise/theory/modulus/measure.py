"""The modulus of a mixture of experts, coordinate by coordinate."""

import dataclasses
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.model import MixtureOfExperts
from gatewise.ops.derivatives import differentiable
from gatewise.ops.threads import single_threaded
from gatewise.theory.global_copies import copies_of
from gatewise.theory.modulus.coordinates import Label
from gatewise.theory.modulus.design import Extrapolation, ModulusDesign
from gatewise.theory.modulus.distance import check_truth
from gatewise.theory.modulus.exponent import Exponent, fit_exponent
from gatewise.theory.modulus.kinks import Places
from gatewise.theory.modulus.minimise import minimise
from gatewise.theory.modulus.null_directions import Orbit
from gatewise.theory.modulus.problem import Problem
from gatewise.theory.modulus.profile import Profile, Space, profile
from gatewise.theory.modulus.result import CoordinateModulus, ModulusResult, Witness
from gatewise.theory.modulus.special import LONG
from gatewise.theory.modulus.store import read_row, write_row
from gatewise.theory.splitting import allocations, fitted_at_truth

__all__ = ["measure_coordinate", "modulus", "refitted"]

_COARSE = 0.05
_FINER = "on a finer grid"


@differentiable()
def modulus(
    truth: MixtureOfExperts,
    fit_k: int | None = None,
    parameters: Sequence[str] | None = None,
    *,
    design: ModulusDesign | None = None,
    cells: Sequence[int] | None = None,
    fitted: MixtureOfExperts | None = None,
    hold: Sequence[str] = (),
    kinks: Places | None = None,
    jobs: int = 1,
    out: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> ModulusResult:
    """w(δ) = min distance(G, G*) over G with one coordinate displaced by exactly ±δ, and α of w(δ) ~ δ^α as δ → 0.

    If the distance is estimated at n^(−1/2), then the coordinate is learned at n^(−1/(2α)). The minimum is over all
    other displacements within K √δ, with weights in a cell bounded away from 0. Every distance that is found is an
    upper bound of the minimum, so that agreement with algebra and scaling is support, not proof.

    What no data can tell is settled first. Translations are settled by holding one row (β₁ of one atom, the mass of its
    cell), as the papers do. A coordinate that moves along any other declared symmetry is reported flat with the
    symmetry as witness, and then measured again with as few coordinates held as settle the symmetry. A flat direction
    that nobody declared is found by the search, and its minimiser is the witness.

    Where one coordinate is flat, an estimate may be far from the truth in it, and the exponents of the others near the
    truth are no rates: set the flat one free (`Locality.free`) and measure again. Mixtures far from the truth that are
    the same function are looked for in `copies`.

    Args:
        truth: the true mixture, in double precision, of any gate, experts and family, one's own too.
        fit_k: the number of fitted atoms; None for as many as the truth has.
        parameters: coordinates such as "experts.bias[0]", "gate.bias.mass[1]", or names without index for the first
            atom of each cell of several atoms; None for all of these.
        design: what is fixed before; None for the defaults.
        cells: the true atom of each fitted atom; None for every allocation of the extra atoms.
        fitted: a mixture that equals the truth, for gates that cannot be enlarged in one way only; needs `cells`.
        hold: parameters, with or without index, that are known and stay at the truth.
        kinks: where one's own gate or experts are not smooth, see `gatewise.theory.modulus.kinks`.
        jobs: worker processes, one thread each; results are the same for any number.
        out: a folder in which every finished coordinate is kept and from which it is taken when asked again.
        progress: takes a line of text for every finished coordinate.

    Raises:
        InputError: something cannot be measured; the message says what and why.

    Example:
        >>> import torch
        >>> from gatewise.theory.modulus import ModulusDesign, Search, Window
        >>> truth = MixtureOfExperts.build("softmax", "linear", "gaussian", n_features=1, n_experts=2).double()
        >>> truth.gate.assign(torch.tensor([[0.5, 1.0], [0.0, 0.0]]))
        >>> truth.experts.assign(torch.tensor([[1.0, -1.5], [-1.0, 1.0]]), torch.log(torch.tensor([0.7, 0.8])))
        >>> design = ModulusDesign(window=Window(largest=0.1, smallest=1e-3, per_decade=3), search=Search(starts=2))
        >>> found = modulus(truth, parameters=["experts.weight[0,0]"], design=design)
        >>> round(found["experts.weight[0,0]"].exponent, 2), found["experts.weight[0,0]"].rate
        (1.0, 'n^(-1/2)')
    """
    design = design or ModulusDesign()
    check_truth(truth, design)
    pairs = _pairs(truth, fit_k, cells, fitted)
    token = uuid.uuid4().hex
    tasks: list[_Task] = []
    directions: list[dict[str, float]] = []
    with single_threaded():
        for place, (allocation, mixture) in enumerate(pairs):
            problem = Problem(truth, mixture, allocation, design, kinks, hold)
            names = _names(problem, parameters, strict=len(pairs) == 1)
            key = f"{token} {place}"
            if jobs == 1 and len(pairs) == 1:
                _held.key, _held.problem = key, problem
            tasks += [_Task(key, truth, mixture, allocation, design, kinks, tuple(hold), name) for name in names]
            if len(set(allocation)) == len(allocation):
                directions = _further(problem)
    if parameters is not None:
        measured = {task.name.split("[")[0] for task in tasks} | {task.name for task in tasks}
        missing = [name for name in parameters if name not in measured]
        if missing:
            raise InputError(f"no allocation has the coordinate {shown(missing[0])}")
    stored = {i: read_row(out, task.identity) for i, task in enumerate(tasks)}
    done = {i: refitted(row, design.extrapolation) for i, row in stored.items() if row is not None}
    rest = [i for i in range(len(tasks)) if i not in done]
    workers = Parallel(n_jobs=min(jobs, max(len(rest), 1)), return_as="generator")
    fresh: Any = workers(delayed(_finish)(tasks[i], out) for i in rest)
    for i, row in zip(rest, fresh, strict=True):
        done[i] = row
        if progress is not None:
            progress(f"{row.name} {list(row.cells)}: {row.verdict()}, {row.seconds:.0f} s")
    _held.key, _held.problem = "", None
    copies = copies_of(truth, len(pairs[0][0]), hold) if design.distance == "l2" else ()
    return ModulusResult(tuple(done[i] for i in range(len(tasks))), tuple(directions), copies)


@dataclass(frozen=True)
class _Task:
    key: str
    truth: MixtureOfExperts
    fitted: MixtureOfExperts
    cells: tuple[int, ...]
    design: ModulusDesign
    kinks: Places | None
    hold: tuple[str, ...]
    name: str

    @property
    def identity(self) -> dict[str, object]:
        """What a stored row must have been measured with."""
        parameters = {
            f"{which}.{name}": value.tolist()
            for which, model in (("truth", self.truth), ("fitted", self.fitted))
            for name, value in model.state_dict().items()
        }
        described = [repr(self.truth), repr(self.fitted)]
        return {
            "name": self.name,
            "cells": list(self.cells),
            "hold": list(self.hold),
            "models": described,
            "parameters": parameters,
            # How the exponent is read off is applied to a stored row when it is taken up.
            "design": self.design.model_dump(mode="json", exclude={"extrapolation"}),
        }


class _Held(threading.local):
    """The problem of the allocation that this thread works on."""

    key: str = ""
    problem: Problem | None = None


_held = _Held()


def _finish(task: _Task, out: Path | None) -> CoordinateModulus:
    with single_threaded(), differentiable():
        problem = _held.problem
        if problem is None or _held.key != task.key:
            problem = Problem(task.truth, task.fitted, task.cells, task.design, task.kinks, task.hold)
            _held.key, _held.problem = task.key, problem
        row = measure_coordinate(problem, problem.coordinates.index(task.name))
    write_row(out, task.identity, row)
    return row


def _pairs(
    truth: MixtureOfExperts, fit_k: int | None, cells: Sequence[int] | None, fitted: MixtureOfExperts | None
) -> list[tuple[tuple[int, ...], MixtureOfExperts]]:
    k = truth.n_experts if fit_k is None else fit_k
    if fitted is not None:
        k = fitted.n_experts if fit_k is None else fit_k
        if cells is None and k == truth.n_experts:
            cells = range(k)
        if cells is None:
            raise InputError("say which true atom each atom of the fitted mixture stands for, by cells")
        if fitted.n_experts != k:
            raise InputError(f"the fitted mixture has {fitted.n_experts} atoms, and fit_k is {k}: make both the same")
        return [(tuple(cells), fitted)]
    if k < truth.n_experts:
        raise InputError(f"fit_k must be at least {truth.n_experts}, the number of true atoms, not {k}")
    if cells is None:
        return [(allocation, fitted_at_truth(truth, allocation)) for allocation in allocations(truth.n_experts, k)]
    if fit_k is not None and len(cells) != fit_k:
        raise InputError(f"cells has {len(cells)} entries, and fit_k is {fit_k}: make both the same")
    if set(cells) != set(range(truth.n_experts)):
        raise InputError(f"cells must name each true atom from 0 to {truth.n_experts - 1} at least once: {list(cells)}")
    return [(tuple(cells), fitted_at_truth(truth, cells))]


def _names(problem: Problem, parameters: Sequence[str] | None, *, strict: bool) -> list[str]:
    """Full names; unless strict, those that this allocation does not have are left out."""
    if parameters is None:
        return problem.default_names()
    found: list[str] = []
    for name in parameters:
        try:
            found += [str(problem.labels[i]) for i in problem.named(name)]
        except InputError:
            if strict:
                raise
    return list(dict.fromkeys(found))


def _further(problem: Problem) -> list[dict[str, float]]:
    """Null directions at an exactly specified truth that nobody declared."""
    jacobian = problem.distance.jacobian(np.zeros(problem.coordinates.size, LONG))
    held = problem.pinned(0)
    found = problem.null.further(jacobian, held)
    names = [str(label) for label in problem.labels]
    return [
        {name: float(value) for name, value in zip(names, direction, strict=True) if abs(value) > 1e-6}
        for direction in found.T
    ]


def refitted(row: CoordinateModulus, rule: Extrapolation) -> CoordinateModulus:
    """The same distances, and the exponent by this rule."""
    if row.modulo is not None:
        row = dataclasses.replace(row, modulo=refitted(row.modulo, rule))
    if not row.slopes or row.is_flat:
        return row
    found = fit_exponent(row.deltas, row.distances, row.distances[0] / row.above_floor[0], rule)
    kept = tuple(flag for flag in row.flags if _FINER in flag)
    return dataclasses.replace(
        row,
        exponent=found.value,
        low=found.low,
        high=found.high,
        is_flat=found.is_flat,
        scaled=found.scaled,
        flags=(*found.flags, *kept),
    )


def measure_coordinate(problem: Problem, displaced: int) -> CoordinateModulus:
    """The modulus of one coordinate, with a witness if it is flat."""
    begun = time.process_time()
    held = problem.pinned(displaced)
    orbit = problem.null.orbit(held)
    if orbit.moves(displaced):
        return _along_orbit(problem, displaced, held, orbit, begun)
    return _searched(problem, displaced, held, begun)


def _searched(problem: Problem, displaced: int, held: list[int], begun: float) -> CoordinateModulus:
    design = problem.design
    found = profile(problem.distance, problem.space(displaced, held), design)
    exponent = fit_exponent(found.deltas, found.values, problem.distance.floor, design.extrapolation)
    if exponent.is_flat:
        longest = int(np.argmax(np.array(exponent.above_floor) <= design.extrapolation.floor_ratio))
        witness = _witness(problem, found.points[longest], found.deltas[longest], None)
        return _row(problem, displaced, held, found, exponent, (), witness, None, 0.0, begun)
    change = max(
        (
            abs(problem.finer_distance.norm(point) / value - 1)
            for point, value in zip(found.points, found.values, strict=True)
            if value > design.extrapolation.floor_ratio * problem.distance.floor
        ),
        default=0.0,
    )
    flags = (f"distances change by {change:.0%} {_FINER}",) if change > _COARSE else ()
    return _row(problem, displaced, held, found, exponent, flags, None, None, change, begun)


def _along_orbit(problem: Problem, displaced: int, held: list[int], orbit: Orbit, begun: float) -> CoordinateModulus:
    """A coordinate that a declared symmetry moves: the witness, and the modulus with the symmetry settled."""
    design = problem.design
    space = problem.space(displaced, held)
    walks = [(delta, *_followed(problem, space, displaced, orbit, delta)) for delta in _walks(design.window.largest)]
    found = Profile(*zip(*walks, strict=True), signs=(1,) * len(walks))
    ratio = tuple(value / problem.distance.floor for value in found.values)
    reached = [place for place, above in enumerate(ratio) if above < design.extrapolation.floor_ratio]
    # A long walk may leave the neighbourhood; the shorter ones settle what is the case near the truth.
    is_flat = len(reached) >= 2 and reached[-1] == len(walks) - 1
    flags = () if is_flat else ("the orbit of the declared symmetry could not be followed",)
    exponent = Exponent(np.nan, np.nan, np.nan, is_flat, flags, (), (), ratio)
    longest = reached[0] if is_flat else 0
    witness = _witness(problem, found.points[longest], found.deltas[longest], orbit)
    settled = orbit.slice(displaced, _preference(problem, displaced))
    modulo = None
    if settled is not None:
        modulo = _searched(problem, displaced, sorted({*held, *settled}), time.process_time())
    return _row(problem, displaced, held, found, exponent, (), witness, modulo, 0.0, begun)


def _walks(largest: float) -> tuple[float, ...]:
    return (largest, 0.3 * largest, 0.1 * largest, 0.03 * largest)


def _followed(problem: Problem, space: Space, displaced: int, orbit: Orbit, delta: float) -> tuple[float, np.ndarray]:
    """The distance after a walk along the orbit to a displacement δ, in steps that are corrected."""
    point = np.zeros(problem.coordinates.size, LONG)
    value = np.inf
    for share in (0.25, 0.5, 0.75, 1.0):
        box = space.box(share * delta, 1.0, problem.design)
        start = point + orbit.along(displaced, 0.25 * delta)
        start[displaced] = share * delta
        minimum = minimise(problem.distance, start, box, steps=problem.design.search.steps)
        point, value = minimum.point, minimum.value
    return value, point


def _preference(problem: Problem, displaced: int) -> np.ndarray:
    """What is held first to settle a symmetry: what all atoms share, then other cells, then other atoms."""
    own = set(problem.labels[displaced].atoms)
    cells = {problem.cells[atom] for atom in own}

    def weight(label: Label) -> float:
        if label.kind == "share":
            return 0.0
        if not label.atoms:
            return 1000.0
        if label.kind == "mass":
            return 1.0
        if not {problem.cells[atom] for atom in label.atoms} & cells:
            return 100.0
        return 10.0 if not own & set(label.atoms) else 1.0

    return np.array([weight(label) for label in problem.labels])


def _witness(problem: Problem, point: np.ndarray, delta: float, orbit: Orbit | None) -> Witness:
    displacement = {str(label): float(t) for label, t in zip(problem.labels, point, strict=True) if t != 0}
    return Witness(
        delta=delta,
        distance=problem.distance.norm(point),
        finer=problem.finer_distance.norm(point),
        displacement=displacement,
        symmetries=() if orbit is None else orbit.names,
        sentences=() if orbit is None else orbit.sentences,
    )


def _row(
    problem: Problem,
    displaced: int,
    held: list[int],
    found: Profile,
    exponent: Exponent,
    flags: tuple[str, ...],
    witness: Witness | None,
    modulo: CoordinateModulus | None,
    change: float,
    begun: float,
) -> CoordinateModulus:
    names = [str(label) for label in problem.labels]
    return CoordinateModulus(
        name=names[displaced],
        cells=problem.cells,
        exponent=exponent.value,
        low=exponent.low,
        high=exponent.high,
        is_flat=exponent.is_flat,
        flags=(*exponent.flags, *flags),
        deltas=found.deltas,
        distances=found.values,
        slopes=exponent.slopes,
        scaled=exponent.scaled,
        above_floor=exponent.above_floor,
        signs=found.signs,
        held=tuple(names[i] for i in held),
        minimisers=tuple(tuple(float(t) for t in point) for point in found.points),
        coordinates=tuple(names),
        witness=witness,
        modulo=modulo,
        is_exact=problem.distance.is_exact,
        quadrature=change,
        seconds=time.process_time() - begun,
    )
