"""The cache of compiled passes on disk: a second process does not compile, and an edit anywhere in the room is seen."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import gatewise
from gatewise.kernels.compiled import digest_of_sources

# A pass that calls a function of another file.
SCRIPT = """
import numpy as np
from gatewise.kernels.expectation import _gate_block
logits, terms = np.array([[0.0], [1.0]]), np.zeros(1)
_gate_block(logits, np.ones((2, 1)), 0, 1, terms)
stats = _gate_block.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), terms[0])
"""


def run(source, cache):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(source)}
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    hits, misses, value = finished.stdout.split()
    return int(hits), int(misses), float(value)


def test_a_second_process_does_not_compile_and_an_edited_callee_in_another_file_is_never_stale(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(
        Path(gatewise.__file__).parent, source / "gatewise", ignore=shutil.ignore_patterns("__pycache__", "data")
    )
    hits, misses, value = run(source, tmp_path / "cache")
    assert (hits, misses) == (0, 1)
    assert run(source, tmp_path / "cache") == (1, 0, value)
    callee = source / "gatewise/kernels/vector_math.py"
    callee.write_text(callee.read_text() + "\n\nlog, exp = exp, log\n")
    hits, misses, edited = run(source, tmp_path / "cache")
    assert (hits, misses) == (0, 1)
    assert edited != value


def test_the_digest_is_of_names_and_contents(tmp_path):
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "b.py").write_text("2")
    first = digest_of_sources(tmp_path)
    digest_of_sources.cache_clear()
    (tmp_path / "b.py").write_text("3")
    second = digest_of_sources(tmp_path)
    digest_of_sources.cache_clear()
    (tmp_path / "b.py").rename(tmp_path / "c.py")
    assert len({first, second, digest_of_sources(tmp_path)}) == 3
    digest_of_sources.cache_clear()
