"""Time whole fits of counts and classes: Gatewise, a plain NumPy EM, and R's flexmix, on the same data and start.

    python benchmarks/general.py               n = 100,000; flexmix at n = 10,000
    python benchmarks/general.py --rows 20000  smaller

Every program runs on one thread and is charged CPU seconds (user and system) for the fit alone. The start is the same:
the responsibilities of the sample, from which each program does one M-step. Gatewise's default search, twenty starts
from strategies of its own, runs once.
"""

import os

# Read once, when the libraries are loaded: these have to stand before the imports.
os.environ.update(
    OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", NUMBA_NUM_THREADS="1", NUMEXPR_NUM_THREADS="1"
)

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from common import GeneralParameters, cpu_seconds, general_log_likelihood, machine, write_json
from em_general import fit_general_em
from gatewise.experts import LinearExperts
from gatewise.families import Categorical, Poisson
from gatewise.fit import FitOptions, FitResult, fit
from gatewise.gates import SoftmaxGate
from gatewise.model import MixtureOfExperts
from general_designs import CLASSES, GeneralDesign, GeneralSample, generate_general
from peers import SINGLE_THREAD, missing_r_package

TOLERANCE = 1e-8
MAX_ITER = 500
OURS = "Gatewise, one start"
SEARCH = "Gatewise, default search"
REPEATED_BELOW = 10.0
R_ROWS = 10_000
# Log-likelihoods this near are those of one optimum.
SAME_OPTIMUM = 1e-3


@dataclass(frozen=True)
class Run:
    """One fit.

    Attributes:
        parameters: final ones.
        cpu_seconds: of the fit.
        n_iterations: as the program counts them; of a search, of all starts together.
        n_evaluations: passes over the data, where they are counted.
        ending: how the program says it ended.
        remark: what else there is to say.
    """

    parameters: GeneralParameters
    cpu_seconds: float
    n_iterations: int
    n_evaluations: int | None
    ending: str
    remark: str = ""


@dataclass(frozen=True)
class Row:
    """One program on one design, over its repeats.

    Attributes:
        design: the design, written out.
        program: its name.
        cpu_seconds: of every repeat.
        n_iterations: as the program counts them.
        n_evaluations: passes over the data, where they are counted.
        ending: how the program says it ended.
        log_likelihood: at its final parameters, by the one common function.
        over_truth: that less the log-likelihood of the parameters the data were drawn from.
        ratio: its median CPU seconds over those of Gatewise's one start.
        excess: the log-likelihood of Gatewise's one start minus its own.
        remark: what else there is to say.
    """

    design: str
    program: str
    cpu_seconds: tuple[float, ...]
    n_iterations: int
    n_evaluations: int | None
    ending: str
    log_likelihood: float
    over_truth: float
    ratio: float
    excess: float
    remark: str


def model_of(design: GeneralDesign) -> MixtureOfExperts:
    """Softmax gate, linear experts, and the design's family."""
    family = Poisson() if design.family == "poisson" else Categorical(CLASSES)
    experts = LinearExperts(design.d, design.k, n_outputs=family.n_outputs, n_dispersion=0)
    return MixtureOfExperts(SoftmaxGate(design.d, design.k), experts, family)


def parameters_of(result: FitResult) -> GeneralParameters:
    """Of a fit, in the common form."""
    gate, experts = result.model.gate, result.model.experts
    coefficients = experts.coefficients(experts.own_parameters()).numpy()
    return GeneralParameters(
        gate.coefficients(gate.own_parameters()).numpy(),
        coefficients if coefficients.ndim == 3 else coefficients[:, None],
    )


def run_gatewise(design: GeneralDesign, sample: GeneralSample) -> Run:
    """One start, from the common one, to a first-order point."""
    options = FitOptions(n_starts=1, init=sample.responsibilities)
    seconds, result = cpu_seconds(lambda: fit(model_of(design), sample.x, sample.y, options=options))
    (start,) = result.starts
    return Run(parameters_of(result), seconds, start.n_iterations, start.n_evaluations, result.status.name)


def run_search(design: GeneralDesign, sample: GeneralSample) -> Run:
    """The default search."""
    seconds, result = cpu_seconds(lambda: fit(model_of(design), sample.x, sample.y, options=FitOptions()))
    values = np.array([start.log_likelihood for start in result.starts])
    iterations = [start.n_iterations for start in result.starts]
    at_best = int((values > values.max() - SAME_OPTIMUM).sum())
    remark = (
        f"{at_best} of {len(values)} starts end at the best optimum; at most {max(iterations)} iterations in one start"
    )
    evaluations = sum(start.n_evaluations for start in result.starts)
    return Run(parameters_of(result), seconds, sum(iterations), evaluations, result.status.name, remark)


def run_em(design: GeneralDesign, sample: GeneralSample) -> Run:
    """The NumPy EM."""
    n_outputs = sample.truth.experts.shape[1]
    seconds, fitted = cpu_seconds(
        lambda: fit_general_em(
            design.family,
            sample.x,
            sample.y,
            sample.responsibilities,
            n_outputs=n_outputs,
            tolerance=TOLERANCE,
            max_iter=MAX_ITER,
        )
    )
    return Run(fitted.parameters, seconds, fitted.n_iterations, None, "converged" if fitted.converged else "max_iter")


def run_flexmix(design: GeneralDesign, sample: GeneralSample) -> Run:
    """R's flexmix with Poisson regressions and a multinomial logit for the weights, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.bin"
        blocks = (sample.x, sample.y, sample.responsibilities)
        path.write_bytes(b"".join(np.asarray(block, "<f8").tobytes(order="F") for block in blocks))
        numbers = map(str, (design.n, design.d, design.k, TOLERANCE, MAX_ITER))
        finished = subprocess.run(
            ["Rscript", str(Path(__file__).parent / "general_peers.R"), *numbers, str(path)],
            capture_output=True,
            text=True,
            env=os.environ | SINGLE_THREAD,
            check=False,
        )
    if finished.returncode:
        raise RuntimeError(f"flexmix failed on {design}: {finished.stderr.strip()}")
    items = {name: np.array(values) for name, *values in map(str.split, finished.stdout.splitlines())}
    gate = items["gate"].astype(float).reshape(design.k, 1 + design.d)
    experts = items["experts"].astype(float).reshape(design.k, 1, 1 + design.d)
    return Run(
        GeneralParameters(gate, experts),
        float(items["cpu_seconds"][0]),
        round(float(items["iterations"][0])),
        None,
        "converged" if float(items["converged"][0]) else "max_iter",
        f"flexmix {items['version'][0]}",
    )


def measure(design: GeneralDesign, sample: GeneralSample, with_r: bool, repeats: int) -> list[Row]:
    """Run the programs in turns, so that a busy moment of the machine hits them alike; one row for each."""
    programs: dict[str, Callable[[GeneralDesign, GeneralSample], Run]] = {OURS: run_gatewise, "NumPy EM": run_em}
    if with_r and design.family == "poisson" and design.n <= R_ROWS:
        programs["flexmix"] = run_flexmix
    runs: dict[str, list[Run]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            if not runs[name] or runs[name][0].cpu_seconds <= REPEATED_BELOW:
                runs[name].append(program(design, sample))
    runs[SEARCH] = [run_search(design, sample)]

    def value(parameters: GeneralParameters) -> float:
        return general_log_likelihood(design.family, parameters, sample.x, sample.y)

    values = {name: value(each[-1].parameters) for name, each in runs.items()}
    typical = {name: median(run.cpu_seconds for run in each) for name, each in runs.items()}
    at_truth = value(sample.truth)
    return [
        Row(
            design=str(design),
            program=name,
            cpu_seconds=tuple(run.cpu_seconds for run in each),
            n_iterations=each[-1].n_iterations,
            n_evaluations=each[-1].n_evaluations,
            ending=each[-1].ending,
            log_likelihood=values[name],
            over_truth=values[name] - at_truth,
            ratio=typical[name] / typical[OURS],
            excess=values[OURS] - values[name],
            remark=each[-1].remark,
        )
        for name, each in runs.items()
    ]


def render(rows: list[Row]) -> Table:
    """The table that is printed."""
    table = Table(title="CPU seconds of a whole fit, one thread, same data and start")
    table.add_column("design")
    table.add_column("program")
    for heading in ("CPU s: median (min-max)", "runs", "iterations", "evaluations", "log-likelihood", "over the truth"):
        table.add_column(heading, justify="right")
    table.add_column("Gatewise minus it", justify="right")
    table.add_column("times Gatewise", justify="right")
    for index, row in enumerate(rows):
        seconds = row.cpu_seconds
        table.add_row(
            row.design,
            row.program,
            f"{median(seconds):.3f} ({min(seconds):.3f}-{max(seconds):.3f})",
            str(len(seconds)),
            str(row.n_iterations),
            "" if row.n_evaluations is None else str(row.n_evaluations),
            f"{row.log_likelihood:.6f}",
            f"{row.over_truth:+.3f}",
            "" if row.program == OURS else f"{row.excess:+.6f}",
            f"{row.ratio:.1f}",
            end_section=index + 1 == len(rows) or rows[index + 1].design != row.design,
        )
    return table


def main() -> None:
    """Read the options, run, print, write."""
    parser = argparse.ArgumentParser(description="Time whole fits of counts and classes against other programs.")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the two large designs")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each program (once if it takes over 10 s)")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 190)
    reason = missing_r_package("flexmix")
    if reason is not None:
        console.print(f"flexmix is not compared: {reason}.")
    designs = [
        GeneralDesign("poisson", arguments.rows, 8, 3),
        GeneralDesign("categorical", arguments.rows, 8, 3),
        GeneralDesign("poisson", R_ROWS, 8, 3),
    ]
    rows: list[Row] = []
    for design in designs:
        warm_up = GeneralDesign(design.family, 500, design.d, design.k)
        run_gatewise(warm_up, generate_general(warm_up))
        rows += measure(design, generate_general(design), reason is None, arguments.repeats)
        console.print(f"{design}: done")
    console.print(render(rows))
    for row in rows:
        if row.remark:
            console.print(f"{row.design}, {row.program}: {row.remark}.")
    path = write_json(
        "general.json",
        {"machine": machine(), "tolerance": TOLERANCE, "max_iter": MAX_ITER, "rows": [asdict(row) for row in rows]},
    )
    console.print(f"Written to {path}")


if __name__ == "__main__":
    main()
