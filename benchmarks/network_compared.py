"""What the two studies of routers, on text and on pictures, share: the models, their plan and their tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from network_models import BALANCE, DENSE, HIDDEN, MODELS, ROUTERS, D, Training
from network_study import ROOT, Cells, Study, corrected, difference, mean_of, paired, shown

REFERENCE = "softmax"


def router_study(
    name: str,
    cell: Callable[[str, int, Training], dict[str, Any]],
    training: Training,
    tables: Callable[[dict[str, Any]], dict[str, str]],
    **plan: Any,
) -> Study:
    """The study of all models; its numbers and its page lie in docs/."""
    return Study(
        name=name,
        names=MODELS,
        cell=lambda model, seed: cell(model, seed, training),
        plan={**asdict(training), **plan, "d": D, "hidden": HIDDEN, "balance": BALANCE},
        tables=tables,
        kept=ROOT / "docs" / f"{name}.json",
        page=ROOT / "docs" / "which-network-router.md",
    )


def against(cells: Cells, what: str, reference: str, names: Sequence[str], digits: int) -> dict[str, str]:
    """A number of some models less the reference's, as it is shown, with Holm's correction for all of them."""
    base = [cell[what] for cell in cells[reference]]
    found = {name: difference([cell[what] for cell in cells[name]], base) for name in names}
    return {name: shown(one, digits) for name, one in corrected(found).items()}


def model_table(
    kept: Mapping[str, Any],
    what: str,
    digits: int,
    head: str,
    measured: Callable[[str, Sequence[Mapping[str, Any]]], Sequence[str]],
    most_first: bool = False,
) -> str:
    """All models, best first: the number, its difference to the softmax router's, and more.

    Args:
        kept: the numbers of the study.
        what: the number.
        digits: of its mean and of differences.
        head: of the table, "| model | …".
        measured: the other columns, of a model's name and its cells.
        most_first: whether more is better.
    """
    cells, seeds = paired(kept["cells"])
    gaps = against(cells, what, REFERENCE, [name for name in cells if name != REFERENCE], digits)
    lines = [f"{seeds} seeds, {len(gaps)} comparisons.", "", head, "|---" * (head.count("|") - 1) + "|"]
    for name in sorted(cells, key=lambda name: mean_of(cells[name], what), reverse=most_first):
        row = [name, f"{mean_of(cells[name], what):.{digits}f}", gaps.get(name, ""), *measured(name, cells[name])]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def dense_table(kept: Mapping[str, Any], columns: Mapping[str, str], digits: int) -> str:
    """Routers less each of the models without a router.

    Args:
        kept: the numbers of the study.
        columns: numbers by what the head calls them.
        digits: of differences.
    """
    cells, seeds = paired(kept["cells"])
    names = [name for name in ROUTERS if name in cells]
    asked = [(label, what, dense) for label, what in columns.items() for dense in DENSE if dense in cells]
    gaps = [against(cells, what, dense, names, digits) for _, what, dense in asked]
    head = ["router", *(f"{label} minus {dense}" for label, _, dense in asked)]
    rows = [[name, *(gap[name] for gap in gaps)] for name in names]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join([f"{seeds} seeds, {len(names)} comparisons in a column.", "", *lines])
