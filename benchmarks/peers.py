"""Runs the R packages through `peers.R`, one process per fit."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import Parameters
from designs import Design, Sample
from em_numpy import maximise_given

__all__ = ["PeerFit", "fit_with_r", "missing_r_package"]

DRIVER = Path(__file__).parent / "peers.R"
PACKAGES = {"flexmix": "flexmix", "hmeEM": "mixtools"}
SINGLE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class PeerFit:
    """What an R package returned.

    Attributes:
        parameters: its final parameters, in our order.
        cpu_seconds: of the fit alone.
        n_iterations: as it counts them.
        converged: by its own judgement.
        reported: the log-likelihood it reports.
        version: of the package.
    """

    parameters: Parameters
    cpu_seconds: float
    n_iterations: int
    converged: bool
    reported: float
    version: str


def missing_r_package(program: str) -> str | None:
    """Why a program cannot be run here, or None if it can."""
    if shutil.which("Rscript") is None:
        return "Rscript is not installed"
    package = PACKAGES[program]
    asked = subprocess.run(
        ["Rscript", "-e", f'quit(status = !requireNamespace("{package}", quietly = TRUE))'],
        capture_output=True,
        check=False,
    )
    return None if asked.returncode == 0 else f"the R package {package} is not installed"


def fit_with_r(program: str, design: Design, sample: Sample, *, tolerance: float, max_iter: int) -> PeerFit:
    """Fit a sample with `flexmix` or `hmeEM`, from the responsibilities of the common start or one M-step from them."""
    responsibilities = sample.responsibilities
    start = maximise_given(np.column_stack([np.ones(design.n), sample.x]), sample.y, responsibilities)
    blocks = (sample.x, sample.y, responsibilities, start.gate.T, start.experts.T, start.scale)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.bin"
        path.write_bytes(b"".join(np.asarray(block, "<f8").tobytes(order="F") for block in blocks))
        finished = subprocess.run(
            [
                "Rscript",
                str(DRIVER),
                program,
                *map(str, (design.n, design.d, design.k, tolerance, max_iter)),
                str(path),
            ],
            capture_output=True,
            text=True,
            env=os.environ | SINGLE_THREAD,
            check=False,
        )
    if finished.returncode:
        raise RuntimeError(f"{program} failed on {design}: {finished.stderr.strip()}")
    items = {name: values for name, *values in map(str.split, finished.stdout.splitlines())}

    def matrix(name: str) -> np.ndarray:
        return np.array(items[name], dtype=float).reshape(design.k, 1 + design.d)

    return PeerFit(
        parameters=Parameters(matrix("gate"), matrix("experts"), np.array(items["scale"], dtype=float)),
        cpu_seconds=float(items["cpu_seconds"][0]),
        n_iterations=round(float(items["iterations"][0])),
        converged=bool(float(items["converged"][0])),
        reported=float(items["reported_log_likelihood"][0]),
        version=items["version"][0],
    )
