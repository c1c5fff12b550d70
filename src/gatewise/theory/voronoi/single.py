"""The loss of measures with one level, and its parts."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from scipy.optimize import minimize

from gatewise.theory.mixing_measure import MixingMeasure
from gatewise.theory.voronoi.build import Built, Cells, SymmetryChoice, build
from gatewise.theory.voronoi.charts import Chart
from gatewise.theory.voronoi.copies import Shift, discrete_copies, shared_shift
from gatewise.theory.voronoi.kernel import MOVE_CELLS, MOVE_ESTIMATE, MOVE_TRUTH, parts, total
from gatewise.theory.voronoi.kinds import Exponents, LossKind, Setting
from gatewise.theory.voronoi.result import Term, VoronoiLoss
from gatewise.theory.voronoi.search import Minimum, minimum

__all__ = ["cells_of", "describe", "flat_loss", "translation"]

_SHIFT_STARTS = 3


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
    found = minimum(built.problem)
    if symmetry == "none" or truth.gate not in ("activation_dense_to_sparse", "cosine", "perturbed_cosine"):
        return built, found
    best = (built, found)
    for copy in discrete_copies(truth, built.truth)[1:] if not kind.raw or "activation" in truth.gate else []:
        built = problem(copy)
        found = minimum(built.problem)
        if found.value < best[1].value:
            best = (built, found)
    shift = None if kind.raw else shared_shift(truth, best[0].truth)
    return best if shift is None or shift.dimension == 0 else _over_shifts(problem, best, shift)


def _over_shifts(
    problem: Callable[[Chart | None], Built], best: tuple[Built, Minimum], shift: Shift
) -> tuple[Built, Minimum]:
    """The least loss over the sphere of shifts of a cosine gate's directions, from several starts."""
    chart = best[0].truth

    def at(s: np.ndarray) -> tuple[Built, Minimum]:
        built = problem(shift.copy(chart, s))
        return built, minimum(built.problem)

    mine = best[0].estimate.blocks["gate_slope"]
    pairs = (one - other for one in mine for other in chart.blocks["gate_slope"])
    starts = [shift.nearest(np.zeros(mine.shape[1])), *(shift.nearest(t) for t in pairs)]
    rated = sorted(((*at(s), s) for s in starts), key=lambda one: one[1].value)
    best = min([best, rated[0][:2]], key=lambda one: one[1].value)
    for _, _, start in rated[:_SHIFT_STARTS]:
        across = np.linalg.svd(start[None, :])[2][1:]

        def turned(a: np.ndarray, start: np.ndarray = start, across: np.ndarray = across) -> np.ndarray:
            angle = float(np.linalg.norm(a))
            return np.cos(angle) * start + np.sinc(angle / np.pi) * (a @ across)

        simplex = np.vstack([np.zeros(len(across)), 0.1 * np.eye(len(across))])
        options = {"initial_simplex": simplex, "xatol": 1e-13, "fatol": 1e-15, "maxiter": 400 * len(across)}
        refined = minimize(
            lambda a: at(turned(a))[1].value, np.zeros(len(across)), method="Nelder-Mead", options=options
        )
        best = min([best, at(turned(refined.x))], key=lambda one: one[1].value)
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
