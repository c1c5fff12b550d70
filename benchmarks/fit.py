"""Time whole fits: Gatewise, a plain NumPy EM, and R's flexmix and mixtools, on the same data from the same start.

    python benchmarks/fit.py             the four designs that have a target
    python benchmarks/fit.py --all       the whole grid

Every program runs on one thread and is charged CPU seconds (user and system) for the fit alone. The start is the same:
the responsibilities of the sample, from which each program does one M-step.
"""

import os

# Read once, when the libraries are loaded: these have to stand before the imports.
os.environ.update(
    OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", NUMBA_NUM_THREADS="1", NUMEXPR_NUM_THREADS="1"
)

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import logsumexp

from common import Parameters, cpu_seconds, log_likelihood, machine, write_json
from designs import GRID, TARGETS, Design, Sample, generate
from em_numpy import LogSumExp, fit_em, log_sum_exp
from gatewise.experts import LinearExperts
from gatewise.families import Gaussian
from gatewise.fit import FitOptions, fit
from gatewise.gates import SoftmaxGate
from gatewise.model import MixtureOfExperts
from peers import fit_with_r, missing_r_package

TOLERANCE = 1e-8
MAX_ITER = 500
OURS = "Gatewise"
# A program that needs longer than this runs once.
REPEATED_BELOW = 10.0
# Log-likelihoods are sums of up to 100,000 terms: below this relative size a difference is rounding.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Run:
    """One fit: its final parameters, CPU seconds, iterations as the program counts them, and how it says it ended."""

    parameters: Parameters
    cpu_seconds: float
    n_iterations: int
    ending: str


@dataclass(frozen=True)
class Row:
    """One program on one design, over its repeats.

    Attributes:
        design: the design, written out.
        program: its name.
        cpu_seconds: of every repeat.
        n_iterations: as the program counts them.
        ending: how the program says it ended.
        log_likelihood: at its final parameters, by the one common function.
        ratio: its median CPU seconds over Gatewise's.
        excess: Gatewise's log-likelihood minus its log-likelihood.
        target: the ratio to reach, or None.
    """

    design: str
    program: str
    cpu_seconds: tuple[float, ...]
    n_iterations: int
    ending: str
    log_likelihood: float
    ratio: float
    excess: float
    target: float | None


def run_gatewise(design: Design, sample: Sample) -> Run:
    """Fit with Gatewise to a first-order point; no standard errors are computed."""
    model = MixtureOfExperts(SoftmaxGate(design.d, design.k), LinearExperts(design.d, design.k), Gaussian())
    options = FitOptions(n_starts=1, init=sample.responsibilities)
    seconds, result = cpu_seconds(lambda: fit(model, sample.x, sample.y, options=options))
    gate, experts = result.model.gate.atoms(), result.model.experts.atoms()
    parameters = Parameters(
        gate=np.column_stack([gate["gate_bias"].numpy(), gate["gate_slope"].numpy()]),
        experts=np.column_stack([experts["expert_intercept"].numpy(), experts["expert_slope"].numpy()]),
        scale=result.scale,
    )
    return Run(parameters, seconds, result.starts[0].n_iterations, result.status.name)


def scipy_log_sum_exp(values: np.ndarray) -> np.ndarray:
    """Log Σᵢ exp(vᵢ) over the experts by SciPy's checked function, (n, k) ↦ (n, 1)."""
    return np.asarray(logsumexp(values, axis=1, keepdims=True))


def run_em(design: Design, sample: Sample, normaliser: LogSumExp = log_sum_exp) -> Run:
    """Fit with the NumPy EM."""
    x, y, start = sample.x, sample.y, sample.responsibilities
    seconds, fitted = cpu_seconds(
        lambda: fit_em(x, y, start, tolerance=TOLERANCE, max_iter=MAX_ITER, normaliser=normaliser)
    )
    return Run(fitted.parameters, seconds, fitted.n_iterations, "converged" if fitted.converged else "max_iter")


def run_r(program: str, design: Design, sample: Sample) -> Run:
    """Fit with an R package."""
    fitted = fit_with_r(program, design, sample, tolerance=TOLERANCE, max_iter=MAX_ITER)
    return Run(
        fitted.parameters, fitted.cpu_seconds, fitted.n_iterations, "converged" if fitted.converged else "max_iter"
    )


def programs_for(design: Design, available_r: set[str], r_rows: int) -> dict[str, Callable[[Design, Sample], Run]]:
    """The programs that run on a design, ours first."""
    programs: dict[str, Callable[[Design, Sample], Run]] = {
        OURS: run_gatewise,
        "NumPy EM": run_em,
        "NumPy EM, scipy logsumexp": partial(run_em, normaliser=scipy_log_sum_exp),
    }
    if design.n <= r_rows:
        for program in sorted(available_r):
            if program == "flexmix" or (design.k, design.d) == (2, 1):
                programs[program] = partial(run_r, program)
    return programs


def measure(
    design: Design, sample: Sample, programs: dict[str, Callable[[Design, Sample], Run]], repeats: int
) -> dict[str, list[Run]]:
    """Run every program `repeats` times, in turns so that a busy moment of the machine hits them alike."""
    runs: dict[str, list[Run]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            if not runs[name] or runs[name][0].cpu_seconds <= REPEATED_BELOW:
                runs[name].append(program(design, sample))
    return runs


def compare(design: Design, sample: Sample, runs: dict[str, list[Run]]) -> list[Row]:
    """One row per program."""
    value = {name: log_likelihood(each[-1].parameters, sample.x, sample.y) for name, each in runs.items()}
    typical = {name: median(run.cpu_seconds for run in each) for name, each in runs.items()}
    target = TARGETS.get(design)
    return [
        Row(
            design=str(design),
            program=name,
            cpu_seconds=tuple(run.cpu_seconds for run in each),
            n_iterations=each[-1].n_iterations,
            ending=each[-1].ending,
            log_likelihood=value[name],
            ratio=typical[name] / typical[OURS],
            excess=value[OURS] - value[name],
            target=target.factor if target is not None and target.program == name else None,
        )
        for name, each in runs.items()
    ]


def start_up_costs() -> dict[str, float]:
    """CPU seconds of importing Gatewise and of its first fit of 200 rows, in a process of its own."""
    program = (
        "import time; begin = time.process_time(); import gatewise.fit; imported = time.process_time();"
        "import json, designs, fit; design = designs.Design(200, 2, 2); sample = designs.generate(design);"
        "seconds = [fit.run_gatewise(design, sample).cpu_seconds for _ in range(2)];"
        "print(json.dumps({'import': imported - begin, 'first_fit': seconds[0], 'second_fit': seconds[1]}))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(finished.stdout)


def render(rows: list[Row]) -> Table:
    """The table that is printed."""
    table = Table(title="CPU seconds of a whole fit, one thread, same data and start")
    table.add_column("design")
    table.add_column("program")
    for heading in ("CPU s: median (min-max)", "runs", "iterations", "ended", "log-likelihood", "Gatewise minus it"):
        table.add_column(heading, justify="right")
    table.add_column("times Gatewise (target)", justify="right")
    for index, row in enumerate(rows):
        seconds = row.cpu_seconds
        table.add_row(
            row.design,
            row.program,
            f"{median(seconds):.3f} ({min(seconds):.3f}-{max(seconds):.3f})",
            str(len(seconds)),
            str(row.n_iterations),
            row.ending,
            f"{row.log_likelihood:.6f}",
            "" if row.program == OURS else f"{row.excess:+.6f}",
            f"{row.ratio:.1f}" + ("" if row.target is None else f" ({row.target:.0f})"),
            end_section=index + 1 == len(rows) or rows[index + 1].design != row.design,
        )
    return table


def verdict(rows: list[Row]) -> list[str]:
    """What the table says about the targets and the log-likelihoods, in sentences."""
    lower = [row for row in rows if row.excess < -ROUNDING * abs(row.log_likelihood)]
    sentences = [
        f"Gatewise's log-likelihood is lower than {row.program}'s on {row.design} by {-row.excess:.3g}."
        for row in lower
    ] or ["Gatewise's log-likelihood is never lower than another program's."]
    for row in rows:
        if row.target is not None:
            outcome = f"target {row.target:.0f} " + ("reached" if row.ratio >= row.target else "missed")
            sentences.append(f"{row.design}: {row.ratio:.1f} times less CPU time than {row.program}, {outcome}.")
    return sentences


def main() -> None:
    """Read the options, run, print, write."""
    parser = argparse.ArgumentParser(description="Time whole fits against other programs.")
    parser.add_argument("--all", action="store_true", help="the whole grid instead of the designs with a target")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each program (once if it takes over 10 s)")
    parser.add_argument("--r-rows", type=int, default=10_000, help="largest n on which the R packages run")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 180)

    missing = {program: missing_r_package(program) for program in ("flexmix", "hmeEM")}
    for program, reason in missing.items():
        if reason is not None:
            console.print(f"{program} is not compared: {reason}.")
    available = {program for program, reason in missing.items() if reason is None}

    start_up = start_up_costs()
    console.print(
        f"Import {start_up['import']:.2f} CPU s, first fit of 200 rows {start_up['first_fit']:.3f} CPU s, second "
        f"{start_up['second_fit']:.3f} CPU s (the difference is loading the compiled code); not part of what follows."
    )
    rows: list[Row] = []
    for design in GRID if arguments.all else tuple(TARGETS):
        warm_up = Design(500, design.d, design.k)
        run_gatewise(warm_up, generate(warm_up))
        programs = programs_for(design, available, arguments.r_rows)
        sample = generate(design)
        rows += compare(design, sample, measure(design, sample, programs, arguments.repeats))
        console.print(f"{design}: done")
    console.print(render(rows))
    sentences = verdict(rows)
    for sentence in sentences:
        console.print(sentence)
    path = write_json(
        "fit.json",
        {
            "machine": machine(),
            "tolerance": TOLERANCE,
            "max_iter": MAX_ITER,
            "start_up_cpu_seconds": start_up,
            "not_compared": {program: reason for program, reason in missing.items() if reason is not None},
            "rows": [asdict(row) for row in rows],
            "verdict": sentences,
        },
    )
    console.print(f"Written to {path}")


if __name__ == "__main__":
    main()
