"""Time the engine of the fits, design by design, beside another checkout of this package.

    python benchmarks/engine.py                                   # the quick designs
    python benchmarks/engine.py --against ../other/src            # in turn with the code of another checkout
    python benchmarks/engine.py squares topk network jobs1 jobs2 memory    # those that take minutes

Every measurement is a process of its own; the two checkouts take turns, so that a busy machine is busy for both. CPU
seconds of the call alone on one thread; imports and loading of compiled code are not in them. "jobs" are wall seconds.
"""

import os

# Read once, when the libraries are loaded: these have to stand before the imports.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", NUMBA_NUM_THREADS="1")

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from common import machine, write_json
from designs import Design, Sample, generate
from gatewise.fit import FitOptions, fit
from gatewise.fit.build import build_problem
from gatewise.fit.constraints import Constraints
from gatewise.fit.rows import checked_rows
from gatewise.model import MixtureOfExperts
from gatewise.parts.standardiser import Standardiser

SMALL, LARGE = Design(1_000, 3, 3), Design(100_000, 8, 4)
MIDDLE = Design(2_000, 3, 3)
TIME_LIMIT = 60.0
Figures = dict[str, Any]


def model_of(design: Design, gate: str = "softmax", experts: str = "linear", **options: Any) -> MixtureOfExperts:
    """A mixture with the design's sizes and Gaussian targets."""
    return MixtureOfExperts.build(gate, experts, "gaussian", design.d, design.k, **options)


def evaluated(design: Design, what: str, calls: int) -> Figures:
    """CPU milliseconds of a value with its gradient, or of a Hessian: the least of three batches."""
    sample = generate(design)
    problem = build_problem(
        model_of(design), checked_rows(model_of(design), sample.x, sample.y, None, None), FitOptions()
    )
    theta = problem.begin(np.ascontiguousarray(sample.responsibilities.T), 0, 0)
    call = getattr(problem, what)
    call(theta)
    seconds = []
    for _ in range(3):
        began = time.process_time()
        for _ in range(calls):
            call(theta)
        seconds.append((time.process_time() - began) / calls)
    return {"cpu_ms": 1e3 * min(seconds)}


def fitted(model: MixtureOfExperts, sample: Sample, clock: Callable[[], float], **options: Any) -> Figures:
    """Seconds of a whole fit, and how it ended. A fit of few rows before it loads the compiled code."""
    rows = slice(0, 40 * model.n_experts)
    fit(model, sample.x[rows], sample.y[rows], options=FitOptions(**{**options, "max_iter": 2, "init": "auto"}))
    began = clock()
    result = fit(model, sample.x, sample.y, options=FitOptions(**options))
    seconds = clock() - began
    return {
        "cpu_s" if clock is time.process_time else "wall_s": seconds,
        "objective": result.objective,
        "status": result.status.name,
        "converged": sum(start.status.name == "CONVERGED" for start in result.starts),
        "starts": len(result.starts),
    }


def one_start(design: Design, with_scaler: bool = False, **options: Any) -> Figures:
    """A whole fit from the common start."""
    sample, model = generate(design), model_of(design)
    if with_scaler:
        units = [torch.from_numpy(numbers) for numbers in (sample.x.mean(0), sample.x.std(0))]
        model.gate_scaler, model.expert_scaler = Standardiser(*units), Standardiser(*units)
    small = generate(Design(200, design.d, design.k))
    fit(model, small.x, small.y, options=FitOptions(n_starts=1, init=small.responsibilities, max_iter=2, **options))
    began = time.process_time()
    result = fit(model, sample.x, sample.y, options=FitOptions(n_starts=1, init=sample.responsibilities, **options))
    return {
        "cpu_s": time.process_time() - began,
        "objective": result.objective,
        "status": result.status.name,
        "iterations": result.starts[0].n_iterations,
    }


def searched(design: Design, n_starts: int, gate: str = "softmax", experts: str = "linear", **given: Any) -> Figures:
    """A search with so many starts, on one thread."""
    model = model_of(design, gate, experts, **{name: given.pop(name) for name in list(given) if "_options" in name})
    return fitted(model, generate(design), time.process_time, n_starts=n_starts, **given)


def in_workers(n_jobs: int) -> Figures:
    """Twenty starts in so many workers, by the clock on the wall."""
    return fitted(model_of(LARGE), generate(LARGE), time.perf_counter, n_starts=20, n_jobs=n_jobs)


def memory() -> Figures:
    """What a fit of a million rows adds to the memory of the process, as a multiple of the bytes of the rows."""
    sample = generate(Design(1_000_000, LARGE.d, LARGE.k))
    small = generate(Design(200, LARGE.d, LARGE.k))
    options: dict[str, Any] = {"n_starts": 1, "max_iter": 20}
    fit(model_of(LARGE), small.x, small.y, options=FitOptions(**options))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fit(model_of(LARGE), sample.x, sample.y, options=FitOptions(**options))
    added = 1024.0 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return {"times_data": added / (sample.x.nbytes + sample.y.nbytes)}


TIED = Constraints(tied=[[("experts.weight", (0, 0)), ("experts.weight", (1, 0))]])
QUICK: dict[str, Callable[[], Figures]] = {
    "gradient n=1,000": partial(evaluated, SMALL, "value_and_gradient", 300),
    "gradient n=100,000": partial(evaluated, LARGE, "value_and_gradient", 10),
    "hessian n=1,000": partial(evaluated, SMALL, "hessian", 100),
    "hessian n=100,000": partial(evaluated, LARGE, "hessian", 5),
    "fit n=1,000": partial(one_start, SMALL),
    "fit n=100,000": partial(one_start, LARGE),
    "fit, standardise off": partial(one_start, LARGE, standardise="off"),
    "fit, ridge": partial(one_start, LARGE, expert_ridge=1e-12),
    "fit, tied": partial(one_start, LARGE, constraints=TIED),
    "fit, scaler": partial(one_start, LARGE, with_scaler=True),
}
LONG: dict[str, Callable[[], Figures]] = {
    "squares": partial(searched, Design(600, 2, 2), 10, objective="least_squares"),
    "topk": partial(searched, MIDDLE, 4, "top_k", gate_options={"inner": "softmax", "n_active": 2}),
    "network": partial(
        searched, MIDDLE, 2, experts="feed_forward", expert_options={"hidden": 4}, time_limit=TIME_LIMIT
    ),
    "cosine": partial(searched, MIDDLE, 4, "cosine"),
    "laplace": partial(searched, MIDDLE, 4, "laplace"),
    "gaussian": partial(searched, MIDDLE, 4, "gaussian", gate_options={"joint": False}),
    "jobs1": partial(in_workers, 1),
    "jobs2": partial(in_workers, 2),
    "memory": memory,
}


def measured(name: str, source: Path) -> Figures:
    """One measurement, in a process of its own, of the package in a folder."""
    environment = os.environ | {"PYTHONPATH": str(source)}
    command = [sys.executable, __file__, "--measure", name]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(finished.stdout)


def middle(figures: list[Figures]) -> Figures:
    """The median of the numbers, and the last of what is none."""
    return {
        key: median(each[key] for each in figures) if isinstance(value, float) else value
        for key, value in figures[-1].items()
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("designs", nargs="*", metavar="DESIGN", help=", ".join([*QUICK, *LONG]))
    parser.add_argument("--against", type=Path, help="the src folder of another checkout")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    cells = QUICK | LONG
    if arguments.measure:
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        print(json.dumps(cells[arguments.measure]()))
        return
    sources = {"this": Path(__file__).resolve().parents[1] / "src"}
    if arguments.against:
        sources["other"] = arguments.against.resolve()
    console = Console(width=None if sys.stdout.isatty() else 140)
    found: dict[str, dict[str, Figures]] = {}
    table = Table(title="The engine, one thread; medians")
    for heading in ("design", *sources, "this / other"):
        table.add_column(heading, justify="left" if heading == "design" else "right")
    for name in arguments.designs or QUICK:
        rounds = [
            {label: measured(name, source) for label, source in sources.items()} for _ in range(arguments.repeats)
        ]
        found[name] = {label: middle([each[label] for each in rounds]) for label in sources}
        key = next(iter(found[name]["this"]))
        texts = [f"{each[key]:.4g} {key} {each.get('status', '')}" for each in found[name].values()]
        ratio = ""
        if "other" in sources:
            ratio = f"{median(each['this'][key] / each['other'][key] for each in rounds):.3f}"
        table.add_row(name, *texts, ratio)
    console.print(table)
    console.print(f"Written to {write_json('engine.json', {'machine': machine(), 'designs': found})}")


if __name__ == "__main__":
    main()
