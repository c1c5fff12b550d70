"""The loss of measures with one level, and its parts."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from scipy.optimize import minimize

from gatewise.parts.parameters import Parameters
from gatewise.theory.mixing_measure import MixingMeasure
from gatewise.theory.voronoi.build import Built, Cells, SymmetryChoice, build
from gatewise.theory.voronoi.charts import Chart
from gatewise.theory.voronoi.copies import Copies, copies_of
from gatewise.theory.voronoi.kernel import MOVE_CELLS, MOVE_ESTIMATE, MOVE_TRUTH, parts, total
from gatewise.theory.voronoi.kinds import Exponents, LossKind, Setting
from gatewise.theory.voronoi.result import Term, VoronoiLoss
from gatewise.theory.voronoi.search import Minimum, minimum

__all__ = ["cells_of", "describe", "flat_loss", "translation"]

_ORBIT_STARTS, _COARSE, _FINE = 3, 1e-3, 1e-13


def flat_loss(
    estimate: MixingMeasure,
    truth: MixingMeasure,
    kind: LossKind,
    r: Exponents | None,
    top: int,
    symmetry: SymmetryChoice,
    cells: Cells,
    tree: MixingMeasure | None = None,
) -> VoronoiLoss:
    """The loss of measures with one level, which were checked before."""

    def problem(copy: Chart | None) -> Built:
        return build(estimate, truth, kind, r, top, symmetry, cells, tree=tree, truth_chart=copy)

    built, found = _over_copies(problem, truth, kind, symmetry)
    terms, distances = describe(built, found)
    sizes = {term.size for term in terms}
    setting = Setting(truth, built.truth, r, tree)
    used = {m: setting.r_bar(m) for m in sorted(sizes) if m > 1} if kind.uses_r == "r̄" else {}
    if kind.uses_r == "r":
        used = {m: setting.power() for m in sorted(sizes)}
    return VoronoiLoss(
        kind=kind.name,
        value=found.value,
        terms=terms,
        cells=cells_of(found, truth.n_atoms),
        distances=distances,
        translation=translation(built, found),
        symmetry=symmetry,
        exact=found.exact,
        r=used,
        status=kind.status,
        inner={},
    )


def _over_copies(
    problem: Callable[[Chart | None], Built], truth: MixingMeasure, kind: LossKind, symmetry: SymmetryChoice
) -> tuple[Built, Minimum]:
    """The least loss over the truth's copies by symmetries that are no translations."""
    built = problem(None)
    best = (built, minimum(built.problem))
    copies = None if symmetry == "none" else copies_of(truth, built.truth, kind.raw)
    if copies is None:
        return best
    place = copies.start
    for parameters, copy in copies.all()[1:]:
        built = problem(copy)
        found = minimum(built.problem)
        if found.value < best[1].value:
            best, place = (built, found), parameters
    return _along_orbits(problem, best, copies, place) if copies.dimension else best


def _along_orbits(
    problem: Callable[[Chart | None], Built], best: tuple[Built, Minimum], copies: Copies, place: Parameters
) -> tuple[Built, Minimum]:
    """The least loss over the orbits through a copy of the truth, from several starts."""

    def at(parameters: Parameters) -> tuple[Built, Minimum]:
        built = problem(copies.at(parameters))
        return built, minimum(built.problem)

    def refined(start: Parameters, tolerance: float) -> Parameters:
        simplex = np.vstack([np.zeros(copies.dimension), 0.1 * np.eye(copies.dimension)])
        options = {
            "initial_simplex": simplex,
            "xatol": tolerance,
            "fatol": 0.01 * tolerance,
            "maxfev": 400 * len(simplex),
        }
        found = minimize(
            lambda amount: at(copies.moved(start, amount))[1].value,
            np.zeros(copies.dimension),
            method="Nelder-Mead",
            options=options,
        )
        return copies.moved(start, found.x)

    starts = [place, *(copies.moved(place, amount) for amount in copies.nearest(place, best[0].estimate))]
    rated = sorted(starts, key=lambda start: at(start)[1].value)
    near = min((refined(start, _COARSE) for start in rated[:_ORBIT_STARTS]), key=lambda start: at(start)[1].value)
    best = min([best, at(rated[0]), at(refined(near, _FINE))], key=lambda one: one[1].value)
    found = best[1]
    return best[0], Minimum(found.value, found.t, found.labels, exact=False)


def cells_of(found: Minimum, true_k: int) -> tuple[tuple[int, ...], ...]:
    """The fitted atoms of each true one."""
    return tuple(tuple(np.flatnonzero(found.labels == j).tolist()) for j in range(true_k))


def translation(built: Built, found: Minimum) -> Mapping[str, float | np.ndarray]:
    """What is added to the truth, in the loss's coordinates."""
    added: dict[str, float | np.ndarray] = {}
    if built.problem.mode in (MOVE_TRUTH, MOVE_ESTIMATE):
        tau = total(built.problem, *parts(built.problem, found.labels, found.t))[1]
        with np.errstate(divide="ignore"):
            added["bias"] = float(np.log(tau)) * (1.0 if built.problem.mode == MOVE_TRUTH else -1.0)
    for name, columns in built.moved.items():
        added[built.truth.label(name)] = found.t[columns]
    return added


def describe(
    built: Built, found: Minimum, factor: float = 1.0
) -> tuple[tuple[Term, ...], dict[tuple[int, str], float]]:
    """The terms apart, multiplied by a factor, and the largest distances by cell and parameter."""
    problem, labels, t = built.problem, found.labels, found.t
    terms, mass, size = parts(problem, labels, t)
    tau = total(problem, terms, mass, size)[1]
    own = tau if problem.mode == MOVE_ESTIMATE else 1.0
    other = tau if problem.mode == MOVE_TRUTH else 1.0
    rows: list[Term] = []
    distances: dict[tuple[int, str], float] = {}
    scaled = problem.mode == MOVE_CELLS
    for j in range(len(problem.masses)):
        atoms = np.flatnonzero(labels == j)
        m = len(atoms)
        factors = problem.factors[atoms] * own * factor
        if scaled and mass[j] > 0.0:
            factors = factors * problem.masses[j] / mass[j]
        away = problem.offset[atoms, j] - t
        for g, norm in enumerate(built.form.norms):
            power = float(problem.exponent[j, m, g])
            if power > 0.0:
                square = problem.constant[g, atoms, j] + (problem.mask[g] * away**2).sum(1)
                label = " and ".join(built.truth.label(name) for name in norm)
                rows.append(Term(j, label, m, power, float((factors * square ** (0.5 * power)).sum())))
        if scaled:
            miss = 0.0 if m else float(problem.masses[j])
        else:
            miss = abs(own * mass[j] - other * problem.masses[j]) if problem.mass_on[m] else 0.0
        rows.append(Term(j, "weight", m, 1.0, factor * float(miss)))
        for name, block in built.estimate.blocks.items():
            if m:
                gap = (
                    block[atoms] - built.truth.blocks[name][j] - (t[built.moved[name]] if name in built.moved else 0.0)
                )
                distances[j, built.truth.label(name)] = float(np.linalg.norm(gap, axis=1).max())
    return _counted(rows, problem.top, len(problem.masses)), distances


def _counted(rows: list[Term], top: int, true_k: int) -> tuple[Term, ...]:
    """The terms, with a mark at those of cells that are not among the K largest."""
    if not 0 < top < true_k:
        return tuple(rows)
    sums = np.zeros(true_k)
    for row in rows:
        sums[row.cell] += row.value
    kept = set(np.argsort(-sums, kind="stable")[:top].tolist())
    return tuple(replace(row, counted=row.cell in kept) for row in rows)
