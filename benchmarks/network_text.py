"""Routers in a small transformer on text: `python benchmarks/network_text.py`.

Characters of the help on topics that comes with Python (`pydoc_data.topics`, each paragraph once); blocks of 2,048
characters, every tenth held out. A transformer of one block: embeddings of the last four characters, attention over 64,
and a sparse layer of eight experts, two for each character; beside it the same with one ordinary hidden layer, as large
as what a character meets and as large as all experts. A model of a seed has the same batches and, where shapes agree,
the same first weights as the others of that seed; routers start as `SparseMoE(d, name)` makes them.

Every cell, a model and a seed, is a file in `benchmarks/out/network-text`; what is there is not made again.

    python benchmarks/network_text.py --write          five seeds (minutes on two cores); tables to docs/
    python benchmarks/network_text.py --part 0/2       every second cell, to share between cores
    python benchmarks/network_text.py --only softmax   one cell, beside the kept one; --seed 0 to 4
    python benchmarks/network_text.py --small          seconds, to see that all is made; no figures
"""

import os

# Read once, when the libraries are loaded: these have to stand before the imports.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from network_compared import dense_table, model_table, router_study
from network_models import (
    ROUTERS,
    Settling,
    Training,
    Transformer,
    bits_per_character,
    initialise,
    layer_of,
    routing_measures,
    text,
    text_loss,
    train,
)
from network_study import Study, command, mean_of, number

WHOLE, SMALL = Training(steps=320, rate=1e-2), Training(steps=4, batch=2, rate=1e-2)


def cell(name: str, seed: int, training: Training) -> dict[str, Any]:
    """One model, trained and measured on the held-out blocks."""
    torch.set_num_threads(1)
    kind = ROUTERS.get(name)
    windows = text().held_windows(None if training == WHOLE else 4)
    model = Transformer(text().alphabet, lambda place: layer_of(name, seed, place))
    initialise(model, seed)
    settling = None if kind is None else Settling(model, windows[:16, :-1], training.steps // 10)
    train(model, training, text_loss(model, training, seed), None if kind is None else kind.schedule, settling)
    found: dict[str, Any] = {"bits": round(bits_per_character(model, windows), 5)}
    if settling is not None:
        found |= {"changes": settling.changes, **routing_measures(model, windows[:128, :-1])}
        found["late_change"] = settling.changes[-1]
    return found


def measured(name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a router does, dashes where there is none."""
    if name not in ROUTERS:
        return ["–"] * 6
    return [
        number(mean_of(rows, "max_over_mean"), 2),
        number(mean_of(rows, "dead"), 1),
        f"{100 * mean_of(rows, 'late_change'):.1f} %",
        number(mean_of(rows, "representation_collapse"), 1),
        number(mean_of(rows, "rank_after"), 1),
        number(mean_of(rows, "token_entropy"), 2),
    ]


def tables(kept: dict[str, Any]) -> dict[str, str]:
    """Bits per character with differences to the softmax router and to dense models, and what the routers do."""
    head = (
        "| model | bits per character | minus softmax, 95 % interval | max/mean load | dead | choices that still "
        "change | within/between spread | effective rank | token entropy |"
    )
    return {
        "network_text.py": model_table(kept, "bits", 3, head, measured),
        "network_text.py, dense": dense_table(kept, {"bits": "bits"}, 3),
    }


def study(small: bool = False) -> Study:
    """The cells of this study."""
    training = SMALL if small else WHOLE
    return router_study("network-text", cell, training, tables, text=text().checksum)


if __name__ == "__main__":
    command(study, "Bits per character of a small transformer with each router.")
