"""Measure the recovery of all truths and write the page: `python -m tests.recovery`, 70 minutes of processor time.

The figures are kept in figures.json beside this file; `python -m tests.recovery --draw` only writes the table, the list
of the truths and the picture from them. `--only TITLE` measures the truths whose titles begin so, and keeps the others.
"""

import argparse
import importlib.util
import json
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from tests.recovery.page import draw, write_page
from tests.recovery.recover import recover
from tests.recovery.truths import TRUTHS

FIGURES = Path(__file__).with_name("figures.json")
SEEDS = 20
ROWS = 50_000


def measure(only: str) -> None:
    """Fit the chosen truths and enter what comes out into the file of figures, truth by truth."""
    for truth in TRUTHS:
        if not truth.title.startswith(only):
            continue
        found = Parallel(n_jobs=2)(delayed(recover)(truth, ROWS, seed) for seed in range(SEEDS))
        known = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
        known[truth.title] = {
            "rows": ROWS,
            "statuses": sorted({each.status for each in found}),
            "z": [np.round(each.z, 4).tolist() for each in found],
            "gain": [round(each.gain, 3) for each in found],
            "n_parameters": found[0].n_parameters,
            "seconds": [round(each.seconds, 2) for each in found],
        }
        kept = {each.title: known[each.title] for each in TRUTHS if each.title in known}
        FIGURES.write_text(json.dumps(kept) + "\n", encoding="utf-8")
        print(truth.title, f"largest |z| {max(np.abs(each.z).max() for each in found):.2f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    parser.add_argument("--only", default="", metavar="TITLE", help="measure the truths whose titles begin so")
    arguments = parser.parse_args()
    # The picture is drawn last: what it needs should not be missing only then.
    if importlib.util.find_spec("matplotlib") is None:
        parser.error("the picture needs matplotlib: pip install -c constraints.txt -e '.[docs]'")
    if not arguments.draw:
        measure(arguments.only)
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    write_page(figures)
    draw(figures)
