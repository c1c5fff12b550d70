"""How often the default search finds the best maximum, and how often it says so: `python benchmarks/search.py`.

For each simulated table of `search_data.py` three fits: the default one, one with 20 starts for its cost, and the best
of 500 starts. One line of JSON for each, appended when it is done: a second call goes on.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

from common import OUTPUT
from gatewise.fit import FitOptions, FitResult, fit
from search_data import FAMILIES, Table, table

N_STARTS: dict[str, int | str] = {"auto": "auto", "twenty": 20, "reference": 500}
SHARE = 1e-6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--seed", type=int, default=2026, help="of the tables; the rule was tuned on those of seed 1")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th table from the i-th")
    parser.add_argument("--fits", default=",".join(N_STARTS), help="which fits, separated by commas")
    arguments = parser.parse_args()
    out = OUTPUT / f"search-{arguments.seed}.jsonl"
    out.parent.mkdir(exist_ok=True)
    part, n_parts = (int(piece) for piece in arguments.part.split("/"))
    for number in range(part, arguments.tables, n_parts):
        for name in filter(None, arguments.fits.split(",")):
            if name not in stored(out).get(number, {}):
                row = {"number": number, "fit": name, **measure(table(number, arguments.seed), N_STARTS[name])}
                with out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)
    report([found for found in stored(out).values() if len(found) == len(N_STARTS)])


def stored(path: Path) -> dict[int, dict[str, dict[str, Any]]]:
    """For each table what each fit has found."""
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        row = json.loads(line)
        found.setdefault(row["number"], {})[row["fit"]] = row
    return dict(sorted(found.items()))


def measure(drawn: Table, n_starts: int | str) -> dict[str, Any]:
    """One fit: its cost, its best ordinary optimum, and what it says of its search."""
    began = time.process_time()
    result = fit(drawn.model, drawn.x, drawn.y, gate_x=drawn.gate_x, options=FitOptions(n_starts=n_starts))
    return {
        "name": drawn.name,
        "seconds": round(time.process_time() - began, 3),
        "best": _best_ordinary(result),
        "status": result.status.name,
        "n_starts": len(result.starts),
        "hits": result.search.hits_of_best,
        "n_optima": result.search.n_optima,
        "chance": result.search.chance_of_better,
        "complete": result.search.complete,
    }


def _best_ordinary(result: FitResult) -> float | None:
    """The log-likelihood of the best optimum that is neither on a floor nor tight."""
    found = [optimum.log_likelihood for optimum in result.optima if not optimum.on_floor and not optimum.tight]
    return max(found, default=None)


def reached(found: dict[str, dict[str, Any]]) -> bool:
    """Whether the default search has the best ordinary optimum of all that any fit has found."""
    own = found["auto"]["best"]
    known = [row["best"] for row in found.values() if row["best"] is not None]
    return not known or (own is not None and own >= max(known) - SHARE * max(1.0, abs(max(known))))


def share(count: int, total: int) -> str:
    """A share with its exact binomial 95 % interval (Clopper and Pearson 1934)."""
    if not total:
        return "0 of 0"
    low = beta.ppf(0.025, count, total - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    return f"{count} of {total}: {100 * count / total:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def report(tables: list[dict[str, dict[str, Any]]]) -> None:
    """What the fits show, by family and together."""
    for family in (*FAMILIES, ""):
        some = [found for found in tables if found["auto"]["name"].startswith(family)]
        if not some:
            continue
        complete = [found for found in some if found["auto"]["complete"]]
        missed = [found for found in some if not reached(found)]
        print(f"{family or 'all'}: {len(some)} tables")
        print(f"  complete                    {share(len(complete), len(some))}")
        print(f"  best reached                {share(len(some) - len(missed), len(some))}")
        print(f"  best reached if complete    {share(sum(map(reached, complete)), len(complete))}")
        print(f"  says so if it was missed    {share(sum(not m['auto']['complete'] for m in missed), len(missed))}")
        for name in N_STARTS:
            seconds = [found[name]["seconds"] for found in some]
            print(f"  CPU s, {name:<9}            median {np.median(seconds):.3f}, sum {sum(seconds):.0f}")
        ratios = [found["auto"]["seconds"] / found["twenty"]["seconds"] for found in some]
        low, middle, high = np.quantile([found["auto"]["n_starts"] for found in some], [0.25, 0.5, 0.75]).astype(int)
        print(f"  auto / twenty               median {np.median(ratios):.2f}")
        print(f"  starts of auto              median {middle}, quartiles {low} and {high}")


if __name__ == "__main__":
    sys.exit(main())
