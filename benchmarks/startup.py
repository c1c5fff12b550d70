"""CPU seconds from the prompt to the answer of commands that need no fit, and of the first import.

    python benchmarks/startup.py

Each command runs in a process of its own, five times after one that warms the disk's cache; the medians of user and
system seconds are printed. The first three answer within 1 CPU s; `tests/cli/test_startup.py` asserts that they load
neither torch nor pandas.
"""

import os

# Read once, when the libraries are loaded: these have to stand before the imports.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", NUMBA_NUM_THREADS="1")

import resource
import statistics
import subprocess
import sys
import tempfile

from rich.console import Console
from rich.table import Table

from common import machine, write_json

TIMES = 5

MAIN = "import sys; from gatewise.cli import main; sys.exit(main())"
RATES = "theory rates --gate softmax --family gaussian --true-k 2 --fit-k 3"
COMMANDS = {
    "gatewise --help": ["-c", MAIN, "--help"],
    "gatewise fit nowhere.csv --target y": ["-c", MAIN, "fit", "nowhere.csv", "--target", "y"],
    f"gatewise {RATES}": ["-c", MAIN, *RATES.split()],
    "import gatewise": ["-c", "import gatewise"],
    "from gatewise import GatedRegressor": ["-c", "from gatewise import GatedRegressor"],
}


def cpu_seconds(arguments: list[str], folder: str) -> float:
    """User and system seconds of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if "Traceback" in done.stderr:
        sys.exit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure, print and write."""
    table = Table("command", "CPU s, median of five", "least", "most")
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in COMMANDS.items():
            cpu_seconds(arguments, folder)
            seconds = sorted(cpu_seconds(arguments, folder) for _ in range(TIMES))
            measured[name] = seconds
            table.add_row(name, *(f"{value:.2f}" for value in (statistics.median(seconds), seconds[0], seconds[-1])))
    Console().print(table)
    write_json("startup.json", {"machine": machine(), "cpu_seconds": measured})


if __name__ == "__main__":
    main()
