"""Losses of hierarchical gates: groups are compared with groups, and inside them experts with experts."""

from dataclasses import replace

import numpy as np

from gatewise.theory.mixing_measure import MixingMeasure
from gatewise.theory.voronoi.build import Cells, SymmetryChoice, build, check_pair
from gatewise.theory.voronoi.flat import squares_form
from gatewise.theory.voronoi.kernel import MOVE_ESTIMATE, parts, total
from gatewise.theory.voronoi.kinds import Exponents, Form, LossKind, Setting, register
from gatewise.theory.voronoi.result import Term, VoronoiLoss
from gatewise.theory.voronoi.search import minimum
from gatewise.theory.voronoi.single import cells_of, describe, flat_loss, translation

__all__ = ["nested_loss"]


def _tree(truth: MixingMeasure) -> str | None:
    if not truth.groups:
        return "it is for hierarchical gates: the measure is not nested"
    kinds = {group.gate for group in truth.groups}
    return None if len(kinds) == 1 else f"the inner gates are of the kinds {', '.join(sorted(kinds))}: one is needed"


def _gaussian_tree(truth: MixingMeasure) -> str | None:
    reason = _tree(truth)
    if reason is not None:
        return reason
    levels = {truth.options.get("outer", "softmax"), *(group.gate for group in truth.groups)}
    if not levels <= {"softmax", "laplace"}:
        return f"its levels are softmax and laplace gates, not {', '.join(sorted(levels))}"
    if truth.family != "gaussian" or truth.experts != "linear":
        return f"it is for linear experts with the gaussian family, not {truth.experts!r} with {truth.family!r}"
    return None


def _powers(setting: Setting) -> Form:
    outer = "softmax" if setting.tree is None else setting.tree.options.get("outer", "softmax")
    free = outer == "laplace" and setting.truth.gate == "laplace"
    norms = tuple((name,) for name in setting.chart.blocks)

    def exponents(j: int, m: int) -> tuple[float, ...]:
        if m == 1:
            return (1.0,) * len(norms)
        whole, half = setting.r_bar(m), 0.5 * setting.r_bar(m)
        rules = {"expert_slope": 2.0 if free else half, "expert_intercept": whole, "variance": half}
        return tuple(rules.get(name, 2.0) for (name,) in norms)

    return Form(norms, exponents)


register(
    LossKind(
        "L3",
        "A + Σᵢ w_i (‖Δa‖ + the L1 of group i against its true group), groups i in the cells of the outer parameters",
        "arXiv:2503.03213, hierarchical softmax, least squares",
        "recalled, to be checked against the paper",
        squares_form,
        _tree,
        dispersions=False,
        nested=True,
    )
)
register(
    LossKind(
        "hierarchical_D2",
        "as L3, inside groups: m = 1 power 1; m > 1: ‖Δω‖², ‖Δη‖^(r̄/2), |Δτ|^r̄, |Δν|^(r̄/2); two Laplace levels ‖Δη‖²",
        "arXiv:2410.02935, Gaussian experts",
        "recalled and inferred by analogy with arXiv:2402.03226, to be checked against the paper",
        _powers,
        _gaussian_tree,
        nested=True,
        uses_r="r̄",
    )
)


def nested_loss(
    estimate: MixingMeasure,
    truth: MixingMeasure,
    kind: LossKind,
    r: Exponents | None,
    top: int,
    symmetry: SymmetryChoice,
    cells: Cells,
) -> VoronoiLoss:
    """The loss of two trees.

    The cells of groups are those of the outer gate's parameters. Each fitted group is compared with its true group by a
    loss of its own, with an infimum over its own inner gate's translation, because each inner gate has one. These
    losses do not depend on the outer translation, which is then found as for a flat gate.
    """
    inner: dict[tuple[int, int], VoronoiLoss] = {}
    for i, group in enumerate(estimate.groups):
        for j, true_group in enumerate(truth.groups):
            check_pair(group, true_group)
            inner[i, j] = flat_loss(group, true_group, kind, r, 0, symmetry, cells, tree=truth)
    values = np.array([[inner[i, j].value for j in range(truth.n_atoms)] for i in range(estimate.n_atoms)])
    # Groups are told apart by the outer gate alone: there is nothing else on their level.
    built = build(estimate, truth, kind, r, top, symmetry, "full", extra=values)
    found = minimum(built.problem)
    outer, distances = describe(built, found)
    terms, mass, size = parts(built.problem, found.labels, found.t)
    tau = total(built.problem, terms, mass, size)[1]
    counted = {term.cell for term in outer if term.counted}
    scale = tau if built.problem.mode == MOVE_ESTIMATE else 1.0
    rows: list[Term] = list(outer)
    used = {(i, int(j)): inner[i, int(j)] for i, j in enumerate(found.labels)}
    for (i, j), loss in used.items():
        factor = float(estimate.weights[i]) * scale
        rows += [
            replace(
                term, cell=j, inner=term.cell, group=i, size=term.size, value=factor * term.value, counted=j in counted
            )
            for term in loss.terms
        ]
    exponents = {m: value for loss in used.values() for m, value in loss.r.items()}
    return VoronoiLoss(
        kind=kind.name,
        value=found.value,
        terms=tuple(rows),
        cells=cells_of(found, truth.n_atoms),
        distances=distances,
        translation=translation(built, found),
        symmetry=symmetry,
        exact=found.exact and all(loss.exact for loss in used.values()),
        r=exponents,
        status=kind.status,
        inner=used,
    )
