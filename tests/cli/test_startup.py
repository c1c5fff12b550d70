"""Commands that need no fit load nothing that a fit needs; benchmarks/startup.py has the seconds."""

import json
import subprocess
import sys

HEAVY = ["torch", "pandas", "numba", "numpy", "scipy", "sklearn", "pyarrow", "narwhals", "sympy", "plotly", "jinja2"]

PROGRAM = """
import json, sys
from gatewise.cli import main
commands, heavy = map(json.loads, sys.argv[1:])
found = {}
for name, arguments in commands.items():
    code = main(arguments)
    found[name] = [code, sorted(set(heavy) & set(sys.modules))]
print(json.dumps(found), file=sys.stderr)
"""

COMMANDS = {
    "help": (["--help"], 0),
    "version": (["--version"], 0),
    "help of fit": (["fit", "--help"], 0),
    "no such option": (["fit", "--nonsense"], 2),
    "help of gates": (["gates", "--help"], 0),
    "help of rates": (["theory", "rates", "--help"], 0),
    "help of study": (["study", "--help"], 0),
    "help of routers": (["routers", "inspect", "--help"], 0),
    "no such file": (["fit", "nowhere.csv", "--target", "y"], 2),
    "no such data set": (["fit", "nowhere", "--target", "y"], 2),
    "no such model": (["predict", "nowhere", "tone", "--out", "p.csv"], 2),
    "bad level": (["fit", "tone", "--target", "tuned", "--level", "2"], 2),
    "rates": (["theory", "rates", "--gate", "softmax", "--family", "gaussian", "--true-k", "2", "--fit-k", "3"], 0),
    "rates with an error": (
        [
            "theory",
            "rates",
            *["--gate", "softmax", "--family", "gaussian", "--true-k", "2", "--fit-k", "3", "--error", "0.1"],
        ],
        0,
    ),
    "advice": (["theory", "advise"], 0),
}


def test_nothing_heavy_is_loaded(tmp_path):
    """One after another in one process: what a command loads is there after those that follow it too."""
    commands = {name: arguments for name, (arguments, _) in COMMANDS.items()}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands), json.dumps(HEAVY)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stderr.splitlines()[-1]) == {name: [code, []] for name, (_, code) in COMMANDS.items()}


def test_columns_that_cannot_be_used_are_refused_before_torch_is_loaded(tmp_path):
    (tmp_path / "table.csv").write_text("x,y\n1,2\n3,4\n", encoding="utf-8")
    commands = {
        "no such target": ["fit", "table.csv", "--target", "z"],
        "no such feature": ["fit", "table.csv", "--target", "y", "--features", "z"],
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands), json.dumps(["torch", "numba", "scipy", "sklearn"])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stderr.splitlines()[-1]) == {name: [2, []] for name in commands}
