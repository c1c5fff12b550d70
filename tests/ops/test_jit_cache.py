"""The compiled pass is cached on disk: a second process does not compile it again."""

import subprocess
import sys

import numpy as np

from gatewise.ops.linear_pass import LinearPass

SCRIPT = """
import numpy as np
from gatewise.ops.linear_pass import LinearPass, _evaluate_blocks
one = np.ones((1, 5))
LinearPass(one, one, one[0], one[0])(np.zeros((2, 1)), np.zeros((2, 1)), np.zeros(2))
stats = _evaluate_blocks.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def test_second_process_does_not_compile():
    one = np.ones((1, 5))
    LinearPass(one, one, one[0], one[0])(np.zeros((2, 1)), np.zeros((2, 1)), np.zeros(2))
    finished = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=300)
    assert finished.stdout.split() == ["1", "0"]
