"""The compiled pass is cached on disk: a second process does not compile it again."""

import os
import subprocess
import sys

SCRIPT = """
import numpy as np
from gatewise.ops.linear_pass import LinearPass, _evaluate_blocks
one = np.ones((1, 5))
LinearPass(one, one, one[0], one[0])(np.zeros((2, 1)), np.zeros((2, 1)), np.zeros(2))
stats = _evaluate_blocks.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def run(cache):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    return finished.stdout.split()


def test_second_process_does_not_compile(tmp_path):
    assert run(tmp_path) == ["0", "1"]
    assert run(tmp_path) == ["1", "0"]
