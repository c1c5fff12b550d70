"""Time one objective-plus-gradient evaluation against the arithmetic that no implementation can avoid.

    python benchmarks/evaluation.py

The yardstick, measured beside it in the same process on one thread: the matrix products of the mixture, features by
gate coefficients and by expert coefficients (n, 1 + d) x (1 + d, k), and the two transposed products of the gradients;
and two `numpy.exp` per row and expert. All of them write into arrays made beforehand and get realistic arguments. The
products are timed apart and with gate and experts stacked, (n, 1 + d) x (1 + d, 2k); the faster way counts.

The second part starts two processes with an empty cache folder for compiled code: the first has to compile, the second
must not.
"""

import os

# Read once, when the libraries are loaded: these have to stand before the imports.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", NUMBA_NUM_THREADS="1")

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from common import Parameters, machine, write_json
from designs import Design, Sample, generate
from em_numpy import maximise_given
from gatewise.experts import LinearExperts
from gatewise.families import Gaussian
from gatewise.fit import FitOptions
from gatewise.fit.build import build_problem
from gatewise.fit.regression_problem import RegressionProblem
from gatewise.fit.rows import checked_rows
from gatewise.gates import SoftmaxGate
from gatewise.model import MixtureOfExperts

DESIGNS = tuple(Design(100_000, d, 4) for d in (1, 8, 32))
TARGET = 2.0
ROUNDS = 5
CALLS = 10
CHILD = """
import json, time
from numba.core import event
import designs, fit
design = designs.Design(500, 2, 2)
sample = designs.generate(design)
with event.install_recorder("numba:compile") as recorder:
    run = fit.run_gatewise(design, sample)
compiled = sum(happening.is_start for _, happening in recorder.buffer)
print(json.dumps({"compiled_functions": compiled, "first_fit_cpu_seconds": run.cpu_seconds}))
"""


@dataclass(frozen=True)
class Timing:
    """CPU seconds of one evaluation and of its yardstick.

    Attributes:
        design: the design, written out.
        evaluation: the objective and its gradient.
        products: the four matrix products.
        stacked_products: the same arithmetic as two products, gate and experts side by side.
        exponentials: two exponentials per row and expert.
        ratio: evaluation / (the faster products + exponentials), round by round, the median of the rounds.
    """

    design: str
    evaluation: float
    products: float
    stacked_products: float
    exponentials: float
    ratio: float


def fastest(call: Callable[[], object]) -> float:
    """The least CPU seconds of several calls."""
    seconds = []
    for _ in range(CALLS):
        begin = time.process_time()
        call()
        seconds.append(time.process_time() - begin)
    return min(seconds)


def yardstick(with_one: np.ndarray, y: np.ndarray, parameters: Parameters) -> tuple[Callable[[], None], ...]:
    """The matrix products, the same stacked, and the exponentials of one evaluation, as three calls."""
    gate, experts = parameters.gate.T.copy(), parameters.experts.T.copy()
    both = np.hstack([gate, experts])
    logits = with_one @ gate
    log_joint = logits - 0.5 * ((y[:, None] - with_one @ experts) / parameters.scale) ** 2
    centred = logits - logits.max(axis=1, keepdims=True)
    joint_centred = log_joint - log_joint.max(axis=1, keepdims=True)
    centred_both = np.hstack([centred, joint_centred])
    first, second, channels = np.empty_like(logits), np.empty_like(logits), np.empty_like(centred_both)
    gradient, gradient_both = np.empty_like(gate), np.empty_like(both)

    def products() -> None:
        np.matmul(with_one, gate, out=first)
        np.matmul(with_one, experts, out=second)
        np.matmul(with_one.T, centred, out=gradient)
        np.matmul(with_one.T, joint_centred, out=gradient)

    def stacked_products() -> None:
        np.matmul(with_one, both, out=channels)
        np.matmul(with_one.T, centred_both, out=gradient_both)

    def exponentials() -> None:
        np.exp(centred, out=first)
        np.exp(joint_centred, out=second)

    return products, stacked_products, exponentials


def measure(design: Design, sample: Sample) -> Timing:
    """Time one design at the parameters of the common start, in the fit's internal units."""
    model = MixtureOfExperts(SoftmaxGate(design.d, design.k), LinearExperts(design.d, design.k), Gaussian())
    problem = build_problem(model, checked_rows(model, sample.x, sample.y, None, None), FitOptions())
    assert isinstance(problem, RegressionProblem)
    data = problem.regressions.sweep
    with_one = np.ascontiguousarray(data.design.T)
    parameters = maximise_given(with_one, data.y, sample.responsibilities)
    theta = problem.regressions.pack(parameters.gate, parameters.experts, np.log(parameters.scale))

    def evaluate() -> object:
        return problem.value_and_gradient(theta)

    calls = (evaluate, *yardstick(with_one, data.y, parameters))
    evaluate()
    rounds = [[fastest(call) for call in calls] for _ in range(ROUNDS)]
    return Timing(
        str(design),
        *(median(column) for column in zip(*rounds, strict=True)),
        ratio=median(own / (min(products, stacked) + powers) for own, products, stacked, powers in rounds),
    )


def compile_twice() -> list[dict[str, float]]:
    """What two processes in a row compile, starting from an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NUMBA_CACHE_DIR": folder}
        return [
            json.loads(
                subprocess.run(
                    [sys.executable, "-c", CHILD],
                    cwd=Path(__file__).parent,
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
            )
            for _ in range(2)
        ]


def main() -> None:
    """Run both parts, print, write; exit with 1 if the second process compiled anything."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    timings = [measure(design, generate(design)) for design in DESIGNS]
    table = Table(title="One objective-plus-gradient evaluation, CPU milliseconds, one thread")
    table.add_column("design")
    for heading in ("Gatewise", "products", "products, stacked", "2 exp", f"ratio (at most {TARGET:g})"):
        table.add_column(heading, justify="right")
    for timing in timings:
        seconds = (timing.evaluation, timing.products, timing.stacked_products, timing.exponentials)
        table.add_row(timing.design, *(f"{1e3 * value:.2f}" for value in seconds), f"{timing.ratio:.2f}")
    console.print(table)
    first, second = compile_twice()
    for name, process in (("First", first), ("Second", second)):
        console.print(
            f"{name} process: {process['compiled_functions']} functions compiled, first fit "
            f"{process['first_fit_cpu_seconds']:.3f} CPU s."
        )
    path = write_json(
        "evaluation.json",
        {
            "machine": machine(),
            "target": TARGET,
            "timings": [asdict(timing) for timing in timings],
            "compilation": {"first_process": first, "second_process": second},
        },
    )
    console.print(f"Written to {path}")
    if second["compiled_functions"]:
        raise SystemExit("The second process compiled again: the cache of compiled code does not work.")


if __name__ == "__main__":
    main()
