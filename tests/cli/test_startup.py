"""Commands that need no fit load nothing that a fit needs; benchmarks/startup.py has the seconds."""

import json
import subprocess
import sys

import pytest

HEAVY = ["torch", "pandas", "numba", "numpy", "scipy", "sklearn", "pyarrow", "narwhals", "sympy", "plotly", "jinja2"]

PROGRAM = """
import json, sys
from gatewise.cli import main
code = main(json.loads(sys.argv[1]))
print(json.dumps([code, sorted(set(json.loads(sys.argv[2])) & set(sys.modules))]), file=sys.stderr)
"""

COMMANDS = {
    "help": (["--help"], 0),
    "version": (["--version"], 0),
    "help of fit": (["fit", "--help"], 0),
    "help of study": (["study", "--help"], 0),
    "help of routers": (["routers", "inspect", "--help"], 0),
    "no such file": (["fit", "nowhere.csv", "--target", "y"], 2),
    "no such data set": (["fit", "nowhere", "--target", "y"], 2),
    "no such model": (["predict", "nowhere", "tone", "--out", "p.csv"], 2),
    "bad level": (["fit", "tone", "--target", "tuned", "--level", "2"], 2),
    "rates": (["theory", "rates", "--gate", "softmax", "--family", "gaussian", "--true-k", "2", "--fit-k", "3"], 0),
    "advice": (["theory", "advise"], 0),
}


@pytest.mark.parametrize(("arguments", "code"), COMMANDS.values(), ids=COMMANDS.keys())
def test_nothing_heavy_is_loaded(tmp_path, arguments, code):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(arguments), json.dumps(HEAVY)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stderr.splitlines()[-1]) == [code, []]
