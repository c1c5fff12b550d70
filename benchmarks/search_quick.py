"""How often the default search finds the best maximum, and how often it says so: `python benchmarks/search.py`.

For each simulated table (`search_data.py`) the default fit, the fit with today's earlier 20 starts for its cost, and the
best of 500 starts, all from one seed. One line of JSON per table, appended as it is done; a second call goes on.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from common import OUTPUT
from scipy.stats import beta
from search_data import Table, table

from gatewise.fit import FitOptions, FitResult, fit

REFERENCE_STARTS = 60
SHARE = 1e-6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--seed", type=int, default=2026, help="of the tables; the rule was tuned on seed 1")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th table from the i-th")
    parser.add_argument("--report", action="store_true", help="only print what is there")
    arguments = parser.parse_args()
    out = OUTPUT / f"search-{arguments.seed}.jsonl"
    out.parent.mkdir(exist_ok=True)
    done = _rows(out)
    part, n_parts = (int(piece) for piece in arguments.part.split("/"))
    if not arguments.report:
        for number in range(part, arguments.tables, n_parts):
            if number not in done:
                row = measure(number, table(number, arguments.seed))
                with out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)
        done = _rows(out)
    report([done[number] for number in sorted(done)])


def _rows(path: Path) -> dict[int, dict]:
    if not path.exists():
        return {}
    return {row["number"]: row for row in map(json.loads, path.read_text().splitlines())}


def measure(number: int, drawn: Table) -> dict:
    """The default search, 20 starts, and the reference."""
    row = {"number": number, "name": drawn.name}
    for name, n_starts in (("auto", "auto"), ("twenty", 20), ("reference", REFERENCE_STARTS)):
        began = time.process_time()
        result = fit(drawn.model, drawn.x, drawn.y, gate_x=drawn.gate_x, options=FitOptions(n_starts=n_starts))
        row[f"{name}_seconds"] = round(time.process_time() - began, 3)
        row[f"{name}_ordinary"] = _best_ordinary(result)
        row[f"{name}_starts"] = len(result.starts)
        row[f"{name}_status"] = result.status.name
        if name == "auto":
            search = result.search
            row |= {"complete": search.complete, "hits": search.hits_of_best, "optima": search.n_optima}
            row["weak"] = not search.complete
    return row


def _best_ordinary(result: FitResult) -> float | None:
    """The best optimum that is neither on a floor nor tight."""
    found = [o.log_likelihood for o in result.optima if not o.on_floor and not o.tight]
    return max(found, default=None)


def reached(row: dict) -> bool:
    """Whether the default search has the best ordinary optimum, of all that are known."""
    known = [row[f"{name}_ordinary"] for name in ("auto", "twenty", "reference")]
    known = [value for value in known if value is not None]
    if not known:
        return row["auto_ordinary"] is None
    best = max(known)
    return row["auto_ordinary"] is not None and row["auto_ordinary"] >= best - SHARE * max(1.0, abs(best))


def share(count: int, total: int) -> str:
    """A share with its exact binomial 95 % interval (Clopper and Pearson 1934)."""
    if not total:
        return "0 of 0"
    low = beta.ppf(0.025, count, total - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    return f"{count} of {total}: {100 * count / total:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def report(rows: list[dict]) -> None:
    """What the rows show, by family and together."""
    for family in ("gaussian", "poisson", "categorical", "gamma", ""):
        some = [row for row in rows if row["name"].startswith(family)]
        complete = [row for row in some if row["complete"]]
        missed = [row for row in some if not reached(row)]
        print(f"{family or 'all'}: {len(some)} tables")
        print(f"  complete                   {share(len(complete), len(some))}")
        print(f"  best reached               {share(len(some) - len(missed), len(some))}")
        print(f"  best reached, if complete  {share(sum(map(reached, complete)), len(complete))}")
        print(f"  incomplete, if missed      {share(sum(not row['complete'] for row in missed), len(missed))}")
        if some:
            for name in ("auto", "twenty", "reference"):
                seconds = [row[f"{name}_seconds"] for row in some]
                print(f"  CPU s, {name:<10} median {np.median(seconds):.3f}, sum {sum(seconds):.0f}")
            ratio = [row["auto_seconds"] / row["twenty_seconds"] for row in some]
            print(f"  auto / twenty              median {np.median(ratio):.2f}; starts {_quartiles(some)}")


def _quartiles(rows: list[dict]) -> str:
    starts = np.quantile([row["auto_starts"] for row in rows], [0.25, 0.5, 0.75]).astype(int)
    return "{} to {}, median {}".format(starts[0], starts[2], starts[1])


if __name__ == "__main__":
    sys.exit(main())
