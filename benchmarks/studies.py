"""The simulated column: studies of the catalogue, run to the end, their slopes kept for the documentation.

    python benchmarks/studies.py                    # all of PLANS, two processes; goes on where it was stopped
    python benchmarks/studies.py cosine-gate        # only these
    python benchmarks/studies.py --max-time 600     # begins nothing new after ten minutes, in all

Rows are kept in `benchmarks/out/studies`, one folder for each study. When a study is finished its slopes go to
`docs/theory/simulated.json`, from which `python -m tests.study.simulated` writes the tables of the page.
"""

import os

# Read once, when the libraries are loaded: these have to stand before the imports.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", NUMBA_NUM_THREADS="1")

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

from gatewise.files import write_file
from gatewise.study import Store, StudySlopes, read_design, run_study, slopes
from gatewise.study.progress import live_progress

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "out" / "studies"
KEPT = ROOT / "docs" / "theory" / "simulated.json"
STATISTICS = ("mean", "median")

PLANS: dict[str, dict[str, Any]] = {
    "softmax-gaussian-exact": {},
    "softmax-gaussian-moderate": {},
    "least-squares-softmax-tanh": {},
    "least-squares-softmax-linear": {},
    "activation-gaussian": {},
    "dense-to-sparse-gaussian": {},
    "softmax-gaussian-over-3": {},
    "laplace-gate": {},
    "cosine-gate": {},
    "perturbed-cosine-gate": {},
    "cosine-small": {},
    "perturbed-cosine-small": {},
    "cosine-small-over": {},
    "perturbed-cosine-small-over": {},
    "sigmoid-regime-1-gelu": {},
    "sigmoid-regime-1-linear": {},
    "sigmoid-regime-2-relu": {},
    "sigmoid-regime-2-linear": {},
    "top-k-slope-deviation": {},
    "multinomial-regime-2": {},
    "multinomial-modified-regime-2": {},
    "gaussian-gate-model-1": {},
    "gaussian-gate-model-2": {},
    "gaussian-gate-model-3": {},
    "gaussian-gate-model-4": {},
}
"""The studies in the order in which they are run, and what is changed in their designs: {} for nothing."""


def rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def short(slope: dict[str, Any]) -> dict[str, Any]:
    """What the documentation keeps of a slope."""
    estimate, curvature = slope["slope"], slope["curvature"]
    return {
        "method": slope["method"],
        "measure": slope["measure"],
        "statistic": slope["statistic"],
        "slope": None if estimate is None else {name: rounded(value) for name, value in estimate.items()},
        "curvature": None if curvature is None else {name: rounded(value) for name, value in curvature.items()},
        "sizes": slope["sizes"],
        "counts": slope["counts"],
        "reason": slope["reason"],
        "expected": slope["expected"],
        "verdict": slope["verdict"],
    }


def points(found: StudySlopes, loss: str) -> list[dict[str, Any]]:
    """What pictures need of a loss: mean, median and quartiles at every size."""
    return [
        {
            "method": each.method,
            "measure": each.measure,
            "sizes": list(each.sizes),
            "mean": [rounded(float(row[0])) for row in each.statistics],
            "median": [rounded(float(row[1])) for row in each.statistics],
            "quartiles": [[rounded(float(value)) for value in row] for row in each.quartiles],
        }
        for each in found.points
        if each.measure == loss
    ]


def summary(name: str, store: Store) -> dict[str, Any]:
    """Plan, totals and slopes of a finished study."""
    design = store.design
    result = slopes(design, store.rows())
    found = result.to_dict()
    sizes = design.all_sizes()
    return {
        "study": name,
        "title": design.title,
        "paper": design.paper,
        "digest": store.digest,
        "sizes": {"count": len(sizes), "low": sizes[0], "high": sizes[-1]},
        "replicates": design.replicates,
        "plan": PLANS[name],
        "starts": {method.name: [method.starts.near, method.starts.data] for method in design.methods},
        "machine": store.manifest["machine"],
        "versions": store.manifest["versions"],
        "totals": found["totals"],
        "slopes": [short(slope) for slope in found["slopes"] if slope["statistic"] in STATISTICS],
        "points": points(result, f"loss.{design.losses[0].name}"),
    }


def keep(entry: dict[str, Any]) -> None:
    """Put one study's summary among the others."""
    known = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    known[entry["study"]] = entry
    ordered = {name: known[name] for name in sorted(known)}
    lines = [f" {json.dumps(name)}: {json.dumps(entry, ensure_ascii=False)}" for name, entry in ordered.items()]
    write_file(KEPT, ("{\n" + ",\n".join(lines) + "\n}\n").encode(), overwrite=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="STUDY", help=f"of {', '.join(PLANS)}")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--max-time", type=float, metavar="SECONDS")
    parser.add_argument("--rows", type=Path, default=ROWS, metavar="DIR", help="where the rows are")
    arguments = parser.parse_args()
    ends = math.inf if arguments.max_time is None else time.monotonic() + arguments.max_time
    for name in arguments.names or PLANS:
        design = read_design(name).with_plan(**PLANS[name])
        arguments.rows.mkdir(parents=True, exist_ok=True)
        store = Store.create(arguments.rows / name, design)
        left = ends - time.monotonic()
        if left <= 0:
            break
        limit = None if math.isinf(left) else left
        outcome = run_study(store, jobs=arguments.jobs, max_time=limit, progress=live_progress())
        print(f"{name}: {outcome.reason}, {outcome.added} rows added, {outcome.remaining} left", flush=True)
        if outcome.remaining == 0:
            keep(summary(name, store))
        if outcome.reason == "interrupted":
            break


if __name__ == "__main__":
    main()
