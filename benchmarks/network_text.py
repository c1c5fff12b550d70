"""Routers in a small transformer on text: `python benchmarks/network_text.py`.

Characters of the help on topics that comes with Python (`pydoc_data.topics`, each paragraph once); blocks of 2,048
characters, every tenth held out. A transformer of one block: embeddings of the last four characters, attention over 64,
and a sparse layer of eight experts, two for each character; beside it the same with one ordinary hidden layer, as large
as what a character meets and as large as all experts. A model of a seed has the same batches and, where shapes agree,
the same first weights as the others of that seed; routers start as `SparseMoE(d, name)` makes them.

Every cell, a model and a seed, is a file in `benchmarks/out/network-text`; what is there is not made again.

    python benchmarks/network_text.py --write          five seeds (minutes on two cores); tables to docs/
    python benchmarks/network_text.py --part 0/2       every second cell, to share between cores
    python benchmarks/network_text.py --small          seconds, to see that all is made; no figures
"""

import os

# Read once, when the libraries are loaded: these have to stand before the imports.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

from dataclasses import asdict
from typing import Any

import torch

from gatewise.nn import MLPBank
from network_models import (
    BALANCE,
    DENSE,
    HIDDEN,
    MODELS,
    N_EXPERTS,
    ROUTERS,
    D,
    OneNetwork,
    Settling,
    Training,
    Transformer,
    bits_per_character,
    initialise,
    routing_measures,
    sparse,
    text,
    text_loss,
    train,
)
from network_study import ROOT, Study, command, corrected, difference, mean_of, number, paired, shown

REFERENCE = "softmax"
WHOLE, SMALL = Training(steps=320, rate=1e-2), Training(steps=4, batch=2, rate=1e-2)


def cell(name: str, seed: int, training: Training) -> dict[str, Any]:
    """One model, trained and measured on the held-out blocks."""
    torch.set_num_threads(1)
    kind = ROUTERS.get(name)
    windows = text().held_windows(None if training == WHOLE else 4)

    def layer(place: str) -> torch.nn.Module:
        if kind is None:
            return OneNetwork(D, DENSE[name])
        return sparse(kind, D, seed, MLPBank(N_EXPERTS, D, HIDDEN), place)

    model = Transformer(text().alphabet, layer)
    initialise(model, seed)
    settling = None if kind is None else Settling(model, windows[:16, :-1], training.steps // 10)
    train(model, training, text_loss(model, training, seed), None if kind is None else kind.schedule, settling)
    found: dict[str, Any] = {"bits": round(bits_per_character(model, windows), 5)}
    if settling is not None:
        found |= {"changes": settling.changes, **routing_measures(model, windows[:128, :-1])}
        found["late_change"] = settling.changes[-1]
    return found


def tables(kept: dict[str, Any]) -> dict[str, str]:
    """Bits per character with differences to the softmax router, and what the routers do."""
    cells, seeds = paired(kept["cells"])
    base = [cell["bits"] for cell in cells[REFERENCE]]
    others = corrected(
        {name: difference([one["bits"] for one in rows], base) for name, rows in cells.items() if name != REFERENCE}
    )
    lines = [
        f"{seeds} seeds, {len(others)} comparisons.",
        "",
        "| model | bits per character | minus softmax, 95 % interval | max/mean load | dead | choices that still "
        "change | collapse | effective rank | token entropy |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in sorted(cells, key=lambda name: mean_of(cells[name], "bits")):
        rows = cells[name]
        gap = shown(others[name]) if name in others else ""
        measured = ["–"] * 6
        if name in ROUTERS:
            measured = [
                number(mean_of(rows, "max_over_mean"), 2),
                number(mean_of(rows, "dead"), 1),
                f"{100 * mean_of(rows, 'late_change'):.1f} %",
                number(mean_of(rows, "representation_collapse"), 1),
                number(mean_of(rows, "rank_after"), 1),
                number(mean_of(rows, "token_entropy"), 2),
            ]
        lines.append(f"| {name} | {mean_of(rows, 'bits'):.3f} | {gap} | {' | '.join(measured)} |")
    return {"network_text.py": "\n".join(lines)}


def study(small: bool = False) -> Study:
    """The cells of this study."""
    training = SMALL if small else WHOLE
    return Study(
        name="network-text",
        names=MODELS,
        cell=lambda name, seed: cell(name, seed, training),
        plan={**asdict(training), "text": text().checksum, "d": D, "hidden": HIDDEN, "balance": BALANCE},
        tables=tables,
        kept=ROOT / "docs" / "network-text.json",
        page=ROOT / "docs" / "which-network-router.md",
    )


if __name__ == "__main__":
    command(study, "Bits per character of a small transformer with each router.")
