"""How the studies of routers in networks are run, kept and compared: cells, one file each, and paired intervals."""

import argparse
import itertools
import json
import re
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from common import OUTPUT, machine
from gatewise.files import write_file

ROOT = Path(__file__).parents[1]
SEEDS = 5

Cells = Mapping[str, Sequence[Mapping[str, Any]]]
"""What was found, of each name one for each seed."""


@dataclass(frozen=True)
class Study:
    """Cells, each of a name and a seed, and the tables that are made of them.

    Attributes:
        name: of the folder of cells.
        names: of the cells.
        cell: makes a cell's numbers from its name and seed.
        plan: all that a cell depends on besides; cells of another plan lie in another folder.
        tables: tables in Markdown from the kept cells, by the marks between which they stand.
        kept: the JSON file in docs/.
        page: where the tables stand.
    """

    name: str
    names: tuple[str, ...]
    cell: Callable[[str, int], dict[str, Any]]
    plan: Mapping[str, Any]
    tables: Callable[[dict[str, Any]], dict[str, str]]
    kept: Path
    page: Path

    @property
    def folder(self) -> Path:
        """Where the cells lie."""
        mark = zlib.crc32(json.dumps(self.plan, sort_keys=True).encode())
        return OUTPUT / self.name / f"{mark:08x}"

    def path(self, name: str, seed: int) -> Path:
        """The file of a cell."""
        return self.folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}-{seed}.json"

    def run(self, seeds: Sequence[int], part: tuple[int, int] = (0, 1)) -> None:
        """Make the cells that have no file yet: all of a seed before those of the next one."""
        cells = [(name, seed) for seed in seeds for name in self.names]
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, seed in cells[part[0] :: part[1]]:
            path = self.path(name, seed)
            if path.exists():
                continue
            began = time.process_time()
            found = self.cell(name, seed)
            seconds = round(time.process_time() - began, 1)
            content = {"name": name, "seed": seed, "found": found, "cpu seconds": seconds, "machine": machine()}
            write_file(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode(), overwrite=True)
            print(f"{name}, seed {seed}: {seconds} CPU s", flush=True)

    def collected(self, seeds: int) -> dict[str, Any]:
        """What is kept: of each cell the first seeds, up to one that is not finished."""
        read: dict[str, list[dict[str, Any]]] = {}
        for name in self.names:
            paths = itertools.takewhile(Path.exists, (self.path(name, seed) for seed in range(seeds)))
            read[name] = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        every = [cell for cells in read.values() for cell in cells]
        return {
            "plan": dict(self.plan),
            "cpu seconds": round(sum(cell["cpu seconds"] for cell in every), 1),
            "machine": {**every[0]["machine"], "torch": version("torch")} if every else {},
            "cells": {name: [cell["found"] for cell in cells] for name, cells in read.items()},
        }

    def write(self, kept: dict[str, Any]) -> None:
        """Keep the numbers, and put the tables into the page between their marks."""
        write_file(self.kept, (json.dumps(kept, indent=1, allow_nan=False) + "\n").encode(), overwrite=True)
        page = self.page.read_text(encoding="utf-8")
        for mark, table in self.tables(kept).items():
            page = with_table(page, mark, table)
        write_file(self.page, page.encode(), overwrite=True)


def paired(cells: Cells, names: Iterable[str] | None = None) -> tuple[Cells, int]:
    """Some cells, or all, of the seeds that all of them have, and how many seeds these are."""
    chosen = list(cells) if names is None else list(names)
    n_seeds = min(len(cells[name]) for name in chosen)
    return {name: cells[name][:n_seeds] for name in chosen}, n_seeds


def marks(name: str) -> tuple[str, str]:
    """The comments between which a table stands."""
    return f"<!-- {name} begins -->", f"<!-- {name} ends -->"


def with_table(page: str, name: str, table: str) -> str:
    """The page with the table between its marks."""
    begin, end = marks(name)
    before, _, rest = page.partition(begin)
    after = rest.partition(end)[2]
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences over seeds, with its 95 % interval by Student's t and its p-value.

    Attributes:
        mean: over seeds.
        low: lower end; NaN with one seed.
        high: upper end.
        p: of a mean of 0, two-sided.
        holm: p after Holm's correction for all comparisons of its table; p itself before `corrected`.
    """

    mean: float
    low: float
    high: float
    p: float
    holm: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0.0 or self.high < 0.0


def difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """First less second, seed by seed."""
    values = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return Difference(mean, np.nan, np.nan, np.nan, np.nan)
    error = float(values.std(ddof=1)) / np.sqrt(n)
    half = float(stats.t.ppf(0.975, n - 1)) * error
    p = 1.0 if mean == 0.0 else 0.0 if error == 0.0 else float(2.0 * stats.t.sf(abs(mean) / error, n - 1))
    return Difference(mean, mean - half, mean + half, p, p)


def corrected(found: Mapping[str, Difference]) -> dict[str, Difference]:
    """With Holm's correction: the j-th smallest of m p-values times m − j + 1, none smaller than the one before."""
    order = sorted(found, key=lambda name: found[name].p)
    largest, result = 0.0, {}
    for rank, name in enumerate(order):
        one = found[name]
        largest = max(largest, min(1.0, (len(order) - rank) * one.p))
        result[name] = Difference(one.mean, one.low, one.high, one.p, largest)
    return {name: result[name] for name in found}


def shown(one: Difference, digits: int = 3) -> str:
    """Mean and interval; bold where the interval leaves out 0, a star where Holm's p is below .05."""
    if np.isnan(one.low):
        return f"{one.mean:+.{digits}f}".replace("-", "−")
    text = f"{one.mean:+.{digits}f} ({one.low:+.{digits}f} to {one.high:+.{digits}f})".replace("-", "−")
    text = f"**{text}**" if one.is_clear else text
    return f"{text} \\*" if one.holm < 0.05 else text


def mean_shown(values: Sequence[float], digits: int) -> str:
    """The mean over seeds and its 95 % interval by Student's t."""
    one = difference(values, [0.0] * len(values))
    if np.isnan(one.low):
        return number(one.mean, digits)
    return f"{number(one.mean, digits)} ({number(one.low, digits)} to {number(one.high, digits)})"


def mean_of(cells: Sequence[Mapping[str, Any]], what: str) -> float:
    """The mean of a number over the seeds in which it has a value; NaN if there is none."""
    values = [cell[what] for cell in cells if cell[what] is not None]
    return float(np.mean(values)) if values else np.nan


def number(value: float, digits: int) -> str:
    """With so many digits; a dash where there is none."""
    return "–" if np.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def beside(study: Study, name: str, seed: int) -> str:
    """One cell made anew, each of its numbers beside the kept one; nothing is written."""
    cells = json.loads(study.kept.read_text(encoding="utf-8"))["cells"][name]
    kept = cells[seed] if seed < len(cells) else {}
    found = study.cell(name, seed)
    return "\n".join(f"{what}: {value}, kept: {kept.get(what, 'nothing')}" for what, value in found.items())


def command(study: Callable[[bool], Study], description: str) -> None:
    """Run a study from its command line.

    Args:
        study: makes it, small or whole.
        description: the first line of the help.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--small", action="store_true", help="next to nothing, to see that all is made; no figures")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many seeds")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th cell from the i-th on, to share between cores")
    parser.add_argument("--tables", action="store_true", help="make no more cells: the tables of those that are there")
    parser.add_argument("--write", action="store_true", help="keep the numbers in docs/, and the tables in the page")
    parser.add_argument("--kept", action="store_true", help="make nothing: the tables of the numbers in docs/")
    parser.add_argument("--only", metavar="NAME", help="make one cell and show it beside the kept one; nothing is kept")
    parser.add_argument("--seed", type=int, default=0, help="of the cell of --only")
    options = parser.parse_args()
    index, _, count = options.part.partition("/")
    chosen = study(options.small)
    if options.only is not None:
        if options.only not in chosen.names:
            parser.error(f"--only takes one of {', '.join(map(repr, chosen.names))}, not {options.only!r}")
        print(beside(chosen, options.only, options.seed))
        return
    if not options.tables and not options.kept:
        chosen.run(range(options.seeds), (int(index), int(count)))
    kept = json.loads(chosen.kept.read_text(encoding="utf-8")) if options.kept else chosen.collected(options.seeds)
    if not all(kept["cells"].values()):
        print("no seed is finished yet")
        return
    for mark, table in chosen.tables(kept).items():
        print(f"{mark}\n{table}\n")
    if options.write and not options.small:
        chosen.write(kept)
