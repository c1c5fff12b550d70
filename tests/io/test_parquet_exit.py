"""A refused parquet file ends the command with exit code 2, however busy the machine is.

Arrow's pool gives a file's bytes back from its own threads, after the table is there. A process that ended at once
could be past its interpreter by then, and died of SIGABRT (exit code 134): 4 of 36, with six commands at once.
"""

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

_COMMAND = "import sys; from gatewise.cli import main; sys.exit(main(sys.argv[1:]))"
_COUNT = """
import os, sys
from gatewise.exceptions import InputError
from gatewise.io.reading import read_table

def threads():
    return len(os.listdir("/proc/self/task"))

before = threads()
try:
    read_table(sys.argv[1]).column("l")
except InputError as error:
    print(error)
print(threads() - before)
"""


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """A table with a column of lists, which is neither number nor text."""
    generator = np.random.default_rng(0)
    columns = {name: pa.array(generator.normal(size=300)) for name in "xy"}
    path = tmp_path_factory.mktemp("lists") / "list.parquet"
    pyarrow.parquet.write_table(pa.table({**columns, "l": pa.array([[i, i] for i in range(300)])}), path)
    return path


def refuse(path):
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, "fit", str(path), "--target", "y"], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("times", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_six_commands_at_once_all_end_with_two(lists, times):
    with ThreadPoolExecutor(6) as pool:
        found = Counter(pool.map(refuse, [lists] * times))
    message = (
        f"error: {lists}: the column 'l' has the type list<element: int64>, which is neither number, text nor "
        "boolean; convert it, or leave it out\n"
    )
    assert found == {(2, "", message): times}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted under /proc")
def test_reading_starts_no_thread(lists):
    done = subprocess.run([sys.executable, "-c", _COUNT, str(lists)], capture_output=True, text=True, check=True)
    message, started = done.stdout.splitlines()
    assert "neither number, text nor boolean" in message
    assert started == "0"
