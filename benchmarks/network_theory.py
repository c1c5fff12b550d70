"""What theorems on gates and experts promise, beside what training shows: `python benchmarks/network_theory.py`.

Two kinds of cells. Teacher cells: students of a known mixture (`network_teacher.py`), where the truth can be compared
with. Text cells: the transformer of `network_text.py` for a shorter time and at a constant rate, with one thing
changed: the experts' function, the router and the optimiser, the temperature, or how many experts are active. The cell
"base" has a softmax router, GELU experts, two active ones and Adam.

    python benchmarks/network_theory.py --write        five seeds (minutes on two cores); tables to docs/
    python benchmarks/network_theory.py --part 0/2     every second cell, to share between cores
    python benchmarks/network_theory.py --only base    one cell, beside the kept one; --seed 0 to 4
    python benchmarks/network_theory.py --small        seconds, to see that all is made; no figures
"""

import os

# Read once, when the libraries are loaded: these have to stand before the imports.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from gatewise.gates.temperature import TemperedGate
from gatewise.nn import MLPBank, Router
from network_models import (
    BALANCE,
    FREE,
    HIDDEN,
    N_EXPERTS,
    ROUTERS,
    SCHEDULED,
    TOP_K,
    D,
    RouterKind,
    Settling,
    Training,
    Transformer,
    bits_per_character,
    initialise,
    sparse,
    text,
    text_loss,
    train,
)
from network_study import (
    ROOT,
    SEEDS,
    Cells,
    Study,
    command,
    corrected,
    difference,
    mean_of,
    mean_shown,
    paired,
    shown,
)
from network_teacher import EXPERTS, Lesson, taught


@dataclass(frozen=True)
class Setting:
    """A text cell.

    Attributes:
        router: what chooses.
        activation: σ of the experts D σ(Ux); "identity" makes them linear, "square" polynomials of degree 2.
        top_k: how many experts a character meets.
        optimiser: "adam" or "sgd".
    """

    router: RouterKind = ROUTERS["softmax"]
    activation: str = "gelu"
    top_k: int = TOP_K
    optimiser: str = "adam"


SETTINGS = {
    "base": Setting(),
    "linear experts": Setting(activation="identity"),
    "polynomial experts": Setting(activation="square"),
    "tanh experts": Setting(activation="tanh"),
    "cosine, Adam": Setting(ROUTERS["cosine"]),
    "perturbed cosine, Adam": Setting(ROUTERS["perturbed cosine"]),
    "cosine, SGD": Setting(ROUTERS["cosine"], optimiser="sgd"),
    "perturbed cosine, SGD": Setting(ROUTERS["perturbed cosine"], optimiser="sgd"),
    "temperature free": Setting(FREE),
    "temperature scheduled": Setting(SCHEDULED),
    "one active": Setting(top_k=1),
    "four active": Setting(top_k=4),
    "eight active": Setting(top_k=8),
}
TEACHERS = {f"teacher: {name}": kind for name, kind in EXPERTS.items()}
SPARSE_TEACHER = "teacher: two of four active"
TEXT_EXPERTS = {
    "base": "two-layer GELU",
    "tanh experts": "two-layer tanh",
    "polynomial experts": "polynomial",
    "linear experts": "linear",
}
RATES = {"adam": 1e-2, "sgd": 0.3}


DENSE_LESSON = Lesson(2, 2, 4, (256, 1024, 4096, 16384), (4, 4, 4, 4), 1000)
SPARSE_LESSON = Lesson(4, 2, 6, (16384,) * 4, (2, 3, 4, 6), 1000)


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Attributes:
        steps: of a text cell.
        held: how many held-out windows of text are looked at.
        experts: what students of dense teachers learn from.
        active: what students of the sparse teacher learn from.
    """

    steps: int = 200
    held: int = 128
    experts: Lesson = DENSE_LESSON
    active: Lesson = SPARSE_LESSON


SMALL = Plan(4, 2, Lesson(2, 2, 3, (16, 64), (3, 3), 3), Lesson(2, 1, 3, (64, 64), (1, 2), 3))


def text_cell(setting: Setting, seed: int, plan: Plan) -> dict[str, Any]:
    """Bits per character after a quarter, a half and all of the steps, and how the router settled."""
    training = Training(plan.steps, rate=RATES[setting.optimiser], decay=False, optimiser=setting.optimiser)

    def layer(place: str) -> torch.nn.Module:
        return sparse(setting.router, D, seed, MLPBank(N_EXPERTS, D, HIDDEN, setting.activation), place, setting.top_k)

    model = Transformer(text().alphabet, layer)
    initialise(model, seed)
    windows = text().held_windows(plan.held)
    (gate,) = (module.gate for module in model.modules() if isinstance(module, Router))
    weight = gate.get_parameter("weight")
    before = float(weight.detach().norm(dim=-1).mean())
    bits: list[float] = []
    settling = Settling(model, windows[:16, :-1], plan.steps // 10)

    def look(step: int) -> None:
        settling(step)
        if step in (plan.steps // 4, plan.steps // 2, plan.steps):
            bits.append(round(bits_per_character(model, windows), 5))

    train(model, training, text_loss(model, training, seed), setting.router.schedule, look)
    longer = float(weight.detach().norm(dim=-1).mean()) / before
    found: dict[str, Any] = {"bits": bits, "changes": settling.changes, "length": round(longer, 4)}
    if isinstance(gate, TemperedGate):
        found["temperature"] = round(float(gate.temperature().detach()), 4)
    return found


def cell(name: str, seed: int, plan: Plan) -> dict[str, Any]:
    """One cell."""
    torch.set_num_threads(1)
    if name in SETTINGS:
        return text_cell(SETTINGS[name], seed, plan)
    if name == SPARSE_TEACHER:
        return dict(taught(EXPERTS["linear"], plan.active, seed))
    return dict(taught(TEACHERS[name], plan.experts, seed))


def slopes(rows: Sequence[Mapping[str, Any]], what: str, sizes: Sequence[int]) -> list[float]:
    """The slope of the logarithm of an error against that of the number of rows, seed by seed."""
    return [float(np.polyfit(np.log(sizes), np.log(np.maximum(row[what], 1e-12)), 1)[0]) for row in rows]


def compared(values: Mapping[str, Sequence[float]], reference: str, digits: int = 3) -> dict[str, str]:
    """Differences to a reference, as they are shown; empty for the reference itself."""
    found = {name: difference(row, values[reference]) for name, row in values.items() if name != reference}
    return {reference: "", **{name: shown(one, digits) for name, one in corrected(found).items()}}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def teacher_table(cells: Cells, lesson: Lesson) -> str:
    """Errors at the ends of the sizes and their slopes, of functions and of experts."""
    reference = "teacher: tanh unit"
    function, expert = ({name: slopes(cells[name], what, lesson.sizes) for name in TEACHERS} for what in ERRORS)
    by_function, by_expert = (compared(values, reference, 2) for values in (function, expert))
    rows = []
    for name in TEACHERS:
        first, last = ([np.mean([row[what][end] for row in cells[name]]) for end in (0, -1)] for what in ERRORS)
        rows.append(
            [
                name.removeprefix("teacher: "),
                f"{first[0]:.3f} → {first[1]:.4f}",
                mean_shown(function[name], 2),
                by_function[name],
                f"{last[0]:.2f} → {last[1]:.2f}",
                mean_shown(expert[name], 2),
                by_expert[name],
            ]
        )
    ends = f"{lesson.sizes[0]:,} → {lesson.sizes[-1]:,} rows"
    head = ["experts", f"function's error, {ends}", "slope", "minus tanh unit's", f"experts' error, {ends}", "slope"]
    return table([*head, "minus tanh unit's"], rows)


ERRORS = ("excess", "experts")


def expert_table(cells: Cells) -> str:
    """Bits per character of kinds of experts by the number of characters, against GELU's."""
    gains = {name: [row["bits"][1] - row["bits"][2] for row in cells[name]] for name in TEXT_EXPERTS}
    ends = {name: [row["bits"][2] for row in cells[name]] for name in TEXT_EXPERTS}
    by_end, by_gain = compared(ends, "base"), compared(gains, "base")
    rows = []
    for name, label in TEXT_EXPERTS.items():
        means = [f"{np.mean([row['bits'][at] for row in cells[name]]):.3f}" for at in range(3)]
        rows.append([label, *means, by_end[name], f"{np.mean(gains[name]):.3f}", by_gain[name]])
    head = ["experts", "after a quarter", "half", "all", "at the end, minus GELU", "gain of the second half"]
    return table([*head, "minus GELU's"], rows)


COSINES = ("cosine", "perturbed cosine")
FIRST, LAST = slice(0, 3), slice(-3, None)
"""A third of the looks at how many choices change."""


def changes(rows: Sequence[Mapping[str, Any]], part: slice) -> list[float]:
    """How many choices change, in percent, over a part of the training, seed by seed."""
    return [100.0 * float(np.mean(row["changes"][part])) for row in rows]


def optimiser_table(cells: Cells) -> str:
    """How many more choices change with SGD than with Adam, early and late, of cosine and perturbed cosine."""
    found = [
        corrected(
            {
                kind: difference(*(changes(cells[f"{kind}, {name}"], part) for name in ("SGD", "Adam")))
                for kind in COSINES
            }
        )
        for part in (FIRST, LAST)
    ]
    head = ["router", "changes, first third: SGD minus Adam, points", "last third"]
    return table(head, [[kind, *(shown(part[kind], 1) for part in found)] for kind in COSINES])


def settling_table(cells: Cells) -> str:
    """How many choices change early and late, of cosine and perturbed cosine, by optimiser."""
    rows = []
    for optimiser in ("Adam", "SGD"):
        names = [f"{kind}, {optimiser}" for kind in COSINES]
        early, late = ({name: changes(cells[name], part) for name in names} for part in (FIRST, LAST))
        bits = {name: [row["bits"][-1] for row in cells[name]] for name in names}
        shown_late, shown_bits = compared(late, names[0], 1), compared(bits, names[0])
        for name in names:
            row = [name, f"{np.mean(early[name]):.1f} %", f"{np.mean(late[name]):.1f} %", shown_late[name]]
            row += [f"{mean_of(cells[name], 'length'):.1f} ×", f"{np.mean(bits[name]):.3f}", shown_bits[name]]
            rows.append(row)
    head = ["router, optimiser", "changes, first third", "last third", "minus cosine's, points", "length of β₁ grew"]
    return table([*head, "bits per character", "minus cosine's"], rows)


def text_table(
    cells: Cells, names: Mapping[str, str], reference: str, with_temperature: bool = False, best: str | None = None
) -> str:
    """Bits per character at the end, less the best's too if it is named, choices that still change, the temperature."""
    bits = {name: [row["bits"][-1] for row in cells[name]] for name in names}
    late = {name: changes(cells[name], LAST) for name in names}
    by_bits, by_late = compared(bits, reference), compared(late, reference, 1)
    by_best = {} if best is None else compared(bits, best)
    rows = []
    for name, label in names.items():
        row = [label, f"{np.mean(bits[name]):.3f}", by_bits[name], *([by_best[name]] if by_best else [])]
        row += [f"{np.mean(late[name]):.1f} %", by_late[name]]
        if with_temperature:
            temperatures = [one.get("temperature", 1.0) for one in cells[name]]
            row.append(mean_shown(temperatures, 2) if len(set(temperatures)) > 1 else f"{temperatures[0]:.2f}")
        rows.append(row)
    label = names[reference]
    head = ["", "bits per character", f"minus {label}", *([] if best is None else [f"minus {names[best]}"])]
    head += ["changes, last third", f"minus {label}, points"]
    return table([*head, "τ at the end"] if with_temperature else head, rows)


def active_table(cells: Cells, lesson: Lesson) -> str:
    """The function's and the experts' errors by how many experts the student activates, against the true number."""
    rows = cells[SPARSE_TEACHER]
    errors = [{str(k): [row[what][at] for row in rows] for at, k in enumerate(lesson.active)} for what in ERRORS]
    reference = str(lesson.active[0])
    function, expert = (compared(values, reference) for values in errors)
    return table(
        ["active", "function's error", f"minus {reference} active", "experts' error", f"minus {reference} active"],
        [
            [k, f"{np.mean(errors[0][k]):.4f}", function[k], f"{np.mean(errors[1][k]):.3f}", expert[k]]
            for k in errors[0]
        ],
    )


def tables(kept: dict[str, Any]) -> dict[str, str]:
    """All tables of the page."""
    lessons = {what: Lesson(**kept["plan"][what]) for what in ("experts", "active")}
    temperatures = {"base": "fixed, 1", "temperature free": "free", "temperature scheduled": "scheduled, 2 to .25"}
    active = {"base": "two active", "one active": "one active", "four active": "four active"}
    active["eight active"] = "all eight active"
    cosines = [name for name in SETTINGS if "cosine" in name]
    made: dict[str, tuple[Iterable[str], Callable[[Cells], str]]] = {
        "experts with a teacher": (TEACHERS, lambda cells: teacher_table(cells, lessons["experts"])),
        "experts on text": (TEXT_EXPERTS, expert_table),
        "settling": (cosines, settling_table),
        "settling by optimiser": (cosines, optimiser_table),
        "temperature": (temperatures, lambda cells: text_table(cells, temperatures, "base", with_temperature=True)),
        "active with a teacher": ((SPARSE_TEACHER,), lambda cells: active_table(cells, lessons["active"])),
        "active on text": (active, lambda cells: text_table(cells, active, "base", best="four active")),
    }
    found = {}
    for name, (names, table_of) in made.items():
        cells, seeds = paired(kept["cells"], names)
        found[f"network_theory.py, {name}"] = f"{seeds} seeds.\n\n{table_of(cells)}"
    return found


def study(small: bool = False) -> Study:
    """The cells of this study, those with a teacher first."""
    plan = SMALL if small else Plan()
    shared = {"text": text().checksum, "d": D, "hidden": HIDDEN, "balance": BALANCE, "rates": RATES}
    return Study(
        name="network-theory",
        names=(*TEACHERS, SPARSE_TEACHER, *SETTINGS),
        cell=lambda name, seed: cell(name, seed, plan),
        plan={**asdict(plan), **shared},
        tables=tables,
        kept=ROOT / "docs" / "theory" / "network-theory.json",
        page=ROOT / "docs" / "theory" / "in-training.md",
    )


if __name__ == "__main__":
    command(study, f"What theorems promise beside what training shows; {SEEDS} seeds.")
