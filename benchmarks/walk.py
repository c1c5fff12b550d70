"""Count the files that a fit and its summary pass through, and the moves from one file to another, by tracing calls.

    python benchmarks/walk.py

A file counts if one of its functions is called; a move is a call from one file of the package into another. Imports and
the first call of everything are not in it: each fit runs once before it is traced. No clock.
"""

import os

# Read once, when the libraries are loaded: these have to stand before the imports.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", NUMBA_NUM_THREADS="1")

import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import gatewise
from common import machine, write_json
from designs import Design, generate
from gatewise.fit import FitOptions, fit
from gatewise.fit.names import Names
from gatewise.inference import summarise
from gatewise.model import MixtureOfExperts

PACKAGE = Path(gatewise.__file__).parent
ROWS, FEATURES, EXPERTS, STARTS = 300, 2, 2, 2
FITS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "default": ("softmax", {}, {}),
    "offset of 0, Poisson": ("softmax", {"family": "poisson", "offset": True}, {}),
    "ridge on the experts": ("softmax", {}, {"expert_ridge": 1e-12}),
    "cosine gate": ("cosine", {}, {}),
    "top-K of three, K = 2": ("top_k", {"inner": "softmax", "n_active": 2}, {"max_iter": 40}),
    "least squares": ("softmax", {}, {"objective": "least_squares", "max_iter": 100}),
}


@dataclass(frozen=True)
class Walk:
    """What one fit with its summary passed through.

    Attributes:
        fit: its name in `FITS`.
        files: files of the package with a function that was called.
        moves: calls from one of them into another.
        rooms: files by room of the package.
    """

    fit: str
    files: int
    moves: int
    rooms: dict[str, int]


def traced(call: Callable[[], object]) -> tuple[set[str], int]:
    """The package's files whose functions a call enters, and the moves between them."""
    inside, moves = str(PACKAGE), 0
    files: set[str] = set()

    def watch(frame: FrameType, event: str, _: object) -> None:
        nonlocal moves
        if event != "call" or not frame.f_code.co_filename.startswith(inside):
            return
        files.add(frame.f_code.co_filename)
        caller = frame.f_back
        # Of a call through a library, such as torch's modules, the caller is who called the library.
        while caller is not None and not caller.f_code.co_filename.startswith(inside):
            caller = caller.f_back
        moves += caller is not None and caller.f_code.co_filename != frame.f_code.co_filename

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return files, moves


def walk(name: str) -> Walk:
    """Trace one fit and its summary."""
    gate, given, options = FITS[name]
    given = dict(given)
    family, with_offset = given.pop("family", "gaussian"), given.pop("offset", False)
    experts = 3 if gate == "top_k" else EXPERTS
    sample = generate(Design(ROWS, FEATURES, experts))
    y = np.round(np.exp(0.5 * sample.y)) if family == "poisson" else sample.y
    model = MixtureOfExperts.build(gate, "linear", family, FEATURES, experts, gate_options=given)

    def call() -> None:
        offset = np.zeros(ROWS) if with_offset else None
        result = fit(model, sample.x, y, offset=offset, options=FitOptions(n_starts=STARTS, **options))
        str(summarise(result, Names([f"x{j}" for j in range(FEATURES)], [f"x{j}" for j in range(FEATURES)], "y")))

    call()
    files, moves = traced(call)
    rooms = Counter(Path(file).relative_to(PACKAGE).parts[0].removesuffix(".py") for file in files)
    return Walk(name, len(files), moves, dict(rooms.most_common()))


def main() -> None:
    """Trace, print, write."""
    warnings.simplefilter("ignore")
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(title=f"A fit with its summary: n={ROWS} d={FEATURES} k={EXPERTS}, {STARTS} starts")
    for heading in ("fit", "files", "in fit", "in kernels", "in ops", "in parts", "moves"):
        table.add_column(heading, justify="left" if heading == "fit" else "right")
    walks = [walk(name) for name in FITS]
    for found in walks:
        rooms = (str(found.rooms.get(room, 0)) for room in ("fit", "kernels", "ops", "parts"))
        table.add_row(found.fit, str(found.files), *rooms, f"{found.moves:,}")
    console.print(table)
    content = {"machine": machine(), "walks": [asdict(found) for found in walks]}
    console.print(f"Written to {write_json('walk.json', content)}")


if __name__ == "__main__":
    main()
