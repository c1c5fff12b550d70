"""What is kept of a run of `upcycle.py`, in docs/upcycle.json, and the tables that are made of it."""

import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scipy import stats

from gatewise.files import write_file
from network_study import with_table

DOCS = Path(__file__).parents[1] / "docs"
KEPT, PAGE = DOCS / "upcycle.json", DOCS / "from-dense-to-sparse.md"
DOMAINS = ("python", "english")
# The coefficient of the loss of balance for each cell; the dense model has no load.
CELLS: dict[str, float | None] = {"dense": None, "sparse": 0.01, "balanced": 0.1}
SPARSE = [cell for cell, coefficient in CELLS.items() if coefficient is not None]
LABELS = {"dense": "dense", "sparse": "sparse, balance .01", "balanced": "sparse, balance .1"}
MEASURES = ("load_entropy", "max_over_mean", "dead", "mutual_information", "mutual_information_bias", "domains")


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean over documents, and its 95 % interval by Student's t."""
    mean = sum(values) / len(values)
    error = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return mean, mean - error, mean + error


def paired(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """The mean of first less second, document by document, with its interval."""
    return interval([one - other for one, other in zip(first, second, strict=True)])


def summary(records: Mapping[str, Mapping[str, Any]], plan: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept: losses of held-out documents, what the routers did, sizes and CPU seconds of each cell."""
    cells: dict[str, Any] = {}
    for cell, record in records.items():
        cells[cell] = {
            "balance": CELLS[cell],
            "cpu seconds": round(record["seconds"], 1),
            **{what: record[what] for what in ("parameters", "trained")},
            **{when: {d: [round(x, 6) for x in record[when][d]] for d in DOMAINS} for when in ("before", "after")},
        }
        if cell in SPARSE:
            cells[cell] |= {"difference": record["difference"], "upcycling": round(record["upcycling"], 2)}
            cells[cell]["routers"] = {
                layer: {
                    when: {what: record[f"monitor {when}"][layer][what] for what in MEASURES}
                    for when in ("before", "after")
                }
                for layer in record["monitor after"]
            }
    packages = {name: version(name) for name in ("torch", "transformers")}
    return {"plan": dict(plan), "machine": {**records["dense"]["machine"], **packages}, "cells": cells}


def bracketed(numbers: Sequence[float], digits: int, sign: str = "") -> str:
    """A mean and its interval."""
    mean, low, high = (f"{number:{sign}.{digits}f}".replace("-", "−") for number in numbers)
    return f"{mean} [{low}, {high}]"


def loss_table(kept: Mapping[str, Any]) -> str:
    """Perplexities by domain, and differences of log perplexities that are paired over documents."""
    cells = kept["cells"]
    perplexity = {
        f"perplexity {when}: {LABELS[cell]}": [
            bracketed([math.exp(end) for end in interval(record[when][domain])], 1) for domain in DOMAINS
        ]
        for when in ("before", "after")
        for cell, record in cells.items()
    }
    pairs = [(f"after less before: {LABELS[cell]}", (cell, "after"), (cell, "before")) for cell in cells]
    pairs += [
        (f"after: {LABELS[first]}, less {LABELS[second]}", (first, "after"), (second, "after"))
        for first, second in (("sparse", "dense"), ("balanced", "dense"), ("balanced", "sparse"))
    ]
    nats = {
        f"nats a token, {label}": [
            bracketed(paired(cells[first][then][domain], cells[second][when][domain]), 3, "+") for domain in DOMAINS
        ]
        for label, (first, then), (second, when) in pairs
    }
    rows = [["", "Python", "English"], ["---"] * 3, *([label, *row] for label, row in {**perplexity, **nats}.items())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def router_table(kept: Mapping[str, Any]) -> str:
    """What the routers do before and after, by layer and coefficient of the loss of balance."""
    head = ["layer", "balance", "load entropy", "max/mean", "dead", "mutual information with the domain, nats"]
    rows = [head, ["---"] * len(head)]
    for cell in SPARSE:
        for layer, measured in kept["cells"][cell]["routers"].items():
            before, after = measured["before"], measured["after"]
            row = [layer.split(".")[2], LABELS[cell].rpartition(" ")[2]]
            for what, digits in zip(MEASURES, (3, 2, 0, 4), strict=False):
                row.append(f"{before[what]:.{digits}f} → {after[what]:.{digits}f}")
            rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def tables(kept: Mapping[str, Any]) -> dict[str, str]:
    """The tables of the page, by the marks between which they stand."""
    return {"upcycle.py, losses": loss_table(kept), "upcycle.py, routers": router_table(kept)}


def write(kept: Mapping[str, Any]) -> None:
    """Keep the numbers, and put the tables into the page."""
    write_file(KEPT, (json.dumps(kept, indent=1, allow_nan=False) + "\n").encode(), overwrite=True)
    page = PAGE.read_text(encoding="utf-8")
    for mark, table in tables(kept).items():
        page = with_table(page, mark, table)
    write_file(PAGE, page.encode(), overwrite=True)
