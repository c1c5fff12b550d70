"""Two measures and a kind of loss as the numbers of a `Problem`."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import logit

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.theory.mixing_measure import MixingMeasure
from gatewise.theory.voronoi.charts import Chart, chart_of
from gatewise.theory.voronoi.kernel import FIXED, MOVE_CELLS, MOVE_ESTIMATE, MOVE_TRUTH, Problem
from gatewise.theory.voronoi.kinds import Exponents, Form, LossKind, Setting

__all__ = ["Built", "Cells", "SymmetryChoice", "build", "check_pair", "outer_form"]

SymmetryChoice = Literal["infimum", "estimate", "none"]
Cells = Literal["full", "expert"]


@dataclass(frozen=True)
class Built:
    """A problem, and what its numbers mean.

    Attributes:
        problem: the numbers.
        form: the norms.
        estimate: the estimate's coordinates.
        truth: the truth's.
        moved: the blocks that t moves, with their columns of t.
    """

    problem: Problem
    form: Form
    estimate: Chart
    truth: Chart
    moved: dict[str, slice]


def check_pair(estimate: MixingMeasure, truth: MixingMeasure) -> None:
    """Refuse to compare measures of different models.

    Raises:
        InputError: the gate, the experts, the family, an option, a shape or the units differ.
    """
    for what in ("gate", "experts", "family"):
        one, other = getattr(estimate, what), getattr(truth, what)
        if one != other:
            raise InputError(
                f"the estimate's {what} is {shown(one)} and the truth's {shown(other)}: compare measures of one model"
            )
    loose = () if truth.parts[0] is None else truth.parts[0].loose_options
    for name in (name for name in estimate.options if name in truth.options and name not in loose):
        if estimate.options[name] != truth.options[name]:
            raise InputError(
                f"the estimate's gate has {name}={shown(estimate.options[name])} and the truth's "
                f"{shown(truth.options[name])}: compare measures of one model"
            )
    if estimate.units != truth.units:
        raise InputError(
            "the two measures are in different units, because their models have different stored standardisations: "
            "fit with the truth's, or without"
        )
    shapes = [{n: v[0].size for n, v in measure.parameters.items()} for measure in (estimate, truth)]
    if shapes[0] != shapes[1]:
        raise InputError(f"the estimate's atoms have the numbers {shapes[0]} and the truth's {shapes[1]}")


def outer_form(chart: Chart) -> Form:
    """The outer level of a tree's losses: the power 1, whatever the cells."""
    norms = tuple((name,) for name in chart.blocks)
    return Form(norms, lambda j, m: (1.0,) * len(norms))


def build(
    estimate: MixingMeasure,
    truth: MixingMeasure,
    kind: LossKind,
    r: Exponents | None,
    top: int,
    symmetry: SymmetryChoice,
    cells: Cells,
    *,
    tree: MixingMeasure | None = None,
    truth_chart: Chart | None = None,
    extra: np.ndarray | None = None,
) -> Built:
    """The problem of a loss.

    Args:
        estimate: the estimate.
        truth: the truth.
        kind: which loss.
        r: exponents given by the caller.
        top: K for the K largest cells, 0 for all.
        symmetry: whether and on which side the infimum is taken.
        cells: whether gate parameters decide on the cells too.
        tree: the nested measure of which these are groups.
        truth_chart: another copy of the truth than the truth itself.
        extra: further terms (k, k*) of the outer level of a tree, which then has the power 1.
    """
    mine = chart_of(estimate, kind.raw, kind.dispersions, kind.by_class)
    true = truth_chart or chart_of(truth, kind.raw, kind.dispersions, kind.by_class)
    form = outer_form(true) if extra is not None else kind.form(Setting(truth, true, r, tree))
    k, true_k = estimate.n_atoms, truth.n_atoms
    squares, moved, offsets = _differences(mine, true, _movable(truth, true, kind, symmetry))
    if any("gate_bias" in norm for norm in form.norms):
        squares["gate_bias"] = (_bias(estimate)[:, None] - _bias(truth)[None, :]) ** 2
    width = offsets.shape[2]
    nothing = np.zeros((k, true_k))
    constant = np.array([sum((squares[n] for n in norm if n not in moved), nothing) for norm in form.norms])
    mask = np.zeros((len(form.norms), width))
    for row, norm in zip(mask, form.norms, strict=True):
        for name in norm:
            if name in moved:
                row[moved[name]] = 1.0
    full = cells == "full"
    deciding = [n for n in mine.blocks if full or not n.startswith("gate_")]
    if not deciding:
        raise InputError("cells='expert' needs experts with parameters: take cells='full'")
    # Copies, because the compiled code would be compiled once more for arrays that are read-only.
    problem = Problem(
        weights=estimate.weights.copy(),
        factors=estimate.weights.copy() if form.weighted else np.ones(k),
        masses=truth.weights.copy(),
        constant=constant.reshape(len(form.norms), k, true_k),
        offset=offsets,
        mask=mask,
        exponent=_exponents(form, k, true_k),
        mass_on=np.array([form.mass(m) for m in range(k + 1)]),
        extra=nothing if extra is None else extra,
        distance=sum((squares[n] for n in deciding if n not in moved), nothing),
        moved=full and width > 0,
        mode=_mode(truth, true, symmetry),
        top=top,
    )
    return Built(problem, form, mine, true, moved)


def _movable(truth: MixingMeasure, chart: Chart, kind: LossKind, symmetry: SymmetryChoice) -> tuple[str, ...]:
    """The blocks to which one vector may be added."""
    if symmetry == "none":
        return ()
    if truth.n_atoms == 1 and chart.free_scale and not kind.raw:
        # The only weight is 1, whatever the gate's parameters are.
        return tuple(name for name in chart.blocks if name.startswith("gate_"))
    return chart.translated


def _differences(
    mine: Chart, true: Chart, movable: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], dict[str, slice], np.ndarray]:
    """Squared differences (k, k*) by block, the columns of those that t moves, and their differences (k, k*, T)."""
    squares: dict[str, np.ndarray] = {}
    moved: dict[str, slice] = {}
    offsets: list[np.ndarray] = []
    width = 0
    for name, block in mine.blocks.items():
        difference = block[:, None, :] - true.blocks[name][None, :, :]
        if name in movable and block.shape[1]:
            moved[name] = slice(width, width + block.shape[1])
            width += block.shape[1]
            offsets.append(difference)
        squares[name] = (difference * difference).sum(2)
    if offsets:
        return squares, moved, np.ascontiguousarray(np.concatenate(offsets, axis=2))
    first = next(iter(squares.values()))
    return squares, moved, np.zeros((*first.shape, 0))


def _exponents(form: Form, k: int, true_k: int) -> np.ndarray:
    """(k*, k + 1, G); sizes that a cell cannot have are not asked for."""
    found = np.zeros((true_k, k + 1, len(form.norms)))
    for j in range(true_k):
        for m in range(1, k + 1):
            found[j, m] = form.exponents(j, m)
    return found


def _mode(truth: MixingMeasure, chart: Chart, symmetry: SymmetryChoice) -> int:
    if symmetry == "none" or not chart.free_scale:
        return FIXED
    if truth.n_active == 1 and truth.n_atoms > 1 and truth.options.get("select_on", "slope") == "slope":
        # One expert at a time, chosen without the biases: each of them is free.
        return MOVE_CELLS
    return MOVE_ESTIMATE if symmetry == "estimate" else MOVE_TRUTH


def _bias(measure: MixingMeasure) -> np.ndarray:
    if measure.bias is not None:
        return measure.bias
    if not ((measure.weights > 0.0) & (measure.weights < 1.0)).all():
        raise InputError("a weight of a sigmoid gate rounds to 0 or 1, so its β₀ cannot be told: give `bias`")
    return logit(measure.weights)
