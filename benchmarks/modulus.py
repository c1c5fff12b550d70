"""The whole modulus table: every case of the library, measured, and compared with what the literature says.

    python benchmarks/modulus.py                 # two processes; what is finished already is taken from the folder
    python benchmarks/modulus.py --fresh         # everything anew
    python benchmarks/modulus.py --missing       # only settings with a row that the table lacks (of these cases)
    python benchmarks/modulus.py cosine top-k    # only these cases, without writing the table

Finished coordinates are kept in `benchmarks/out/modulus`, one file each, so that a run that was stopped goes on where
it was. The whole table goes to `docs/theory/modulus-table.json`, and into the page `docs/theory/modulus.md`.
"""

import os

# Read once, when the libraries are loaded: these have to stand before the imports.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", NUMBA_NUM_THREADS="1")

import argparse
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from gatewise.theory.modulus.case import case_names, compare, read_case, run_group
from gatewise.theory.modulus.result import CoordinateModulus

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "out" / "modulus"
TABLE = ROOT / "docs" / "theory" / "modulus-table.json"
PAGE = ROOT / "docs" / "theory" / "modulus.md"
WHOLE = PAGE.with_name("modulus-table.md")
HEAD = """# All measured moduli

Every coordinate of every case of `gatewise theory modulus --list`, disagreements with the literature first; they are
looked into on the page of [findings](findings.md), and [the page on the modulus](modulus.md) says how it is measured.
*Proved* is the exponent α that the literature gives as a bound, "no power" for "slower than any polynomial". "Faster
than the bound" means that the theorem is valid and a better rate is measured. "Anywhere" in a setting says which
parameters were not kept near the truth while the others were measured, because they are flat and an estimate may have
any; flat along a declared symmetry is another matter, since it changes nothing else. The numbers with all slopes and
distances are in [modulus-table.json](modulus-table.json).

<!-- written by benchmarks/modulus.py -->
"""
BEGIN, END = "<!-- the table begins -->", "<!-- the table ends -->"
DISAGREEMENTS = (
    "flat where a rate is proved",
    "slower than proved",
    "not flat",
    "faster than the bound",
    "not settled",
    "not measured",
)
HEAVY = ("laplace-3d", "laplace-2d", "gaussian", "hierarchical")


def number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def data_of(row: CoordinateModulus) -> dict[str, Any]:
    """What the table keeps of a row: all that the evidence needs, without the minimisers."""
    return {
        "flat": row.is_flat,
        "exponent": number(row.exponent),
        "band": [number(row.low), number(row.high)],
        "verdict": row.verdict(),
        "flags": list(row.flags),
        "deltas": [number(value) for value in row.deltas],
        "distances": [number(value) for value in row.distances],
        "slopes": [number(value) for value in row.slopes],
        "scaled": [number(value) for value in row.scaled],
        "above_floor": [number(value) for value in row.above_floor],
        "held": list(row.held),
        "quadrature": number(row.quadrature),
        "seconds": round(row.seconds, 1),
    }


def measure(name: str, place: int) -> list[dict[str, Any]]:
    case = read_case(name)
    group = case.groups[place]
    locality = case.design_of(group).locality
    result = run_group(case, group, out=ROWS / name)
    found = []
    for expected, row in zip(group.rows, result, strict=True):
        shown = row.modulo if expected.modulo and row.modulo is not None else row
        entry = {
            "case": name,
            "title": case.title,
            "setting": group.title,
            "known": group.hold,
            "free": list(locality.free),
            "reach": locality.reach if locality.free else None,
            "parameter": row.name,
            "proved": expected.proved,
            "source": expected.source,
            "note": expected.note,
            "agree": compare(expected, row),
            "modulo": shown is not row,
            "measured": data_of(shown),
            "beside": None if row.modulo is None or shown is not row else data_of(row.modulo),
            "witness": None,
            "null_directions": [dict(direction) for direction in result.null_directions],
        }
        if row.witness is not None:
            entry["witness"] = {
                "delta": row.witness.delta,
                "distance": row.witness.distance,
                "finer": row.witness.finer,
                "symmetries": list(row.witness.symmetries),
                "given": row.witness.is_given,
                "displacement": {key: number(value) for key, value in row.witness.displacement.items()},
            }
        found.append(entry)
    return found


def key_of(entry: dict[str, Any]) -> tuple[str, str, str]:
    return entry["case"], entry["setting"], entry["parameter"]


def rows_of(name: str, place: int) -> set[tuple[str, str, str]]:
    group = read_case(name).groups[place]
    return {(name, group.title, row.parameter) for row in group.rows}


def kept_rows() -> list[dict[str, Any]]:
    """The rows of the table that still belong to a case, compared with what the case says now."""
    kept = []
    for entry in json.loads(TABLE.read_text(encoding="utf-8")):
        if entry["case"] not in case_names():
            continue
        case = read_case(entry["case"])
        for group in case.groups:
            for row in group.rows:
                if (group.title, row.parameter) == (entry["setting"], entry["parameter"]):
                    said = {"title": case.title, "proved": row.proved, "source": row.source, "note": row.note}
                    silent = entry["agree"] if row.proved == entry["proved"] else "no statement"
                    kept.append({**entry, **said, "agree": silent})
    return kept


def evidence(entry: dict[str, Any]) -> str:
    """Beside the number: the last slope, how constant w/δ^α is, and how far rounding is away."""
    row, witness = entry["measured"], entry["witness"]
    if row["flat"] and witness is not None:
        names = ", ".join(witness["symmetries"])
        kind = f"declared symmetry ({names})" if names else "a copy that was given" if witness.get("given") else "found"
        return f"w = {max(witness['distance'], witness['finer']):.0e} at δ = {witness['delta']:g}, {kind}"
    used = [i for i, above in enumerate(row["above_floor"]) if above is not None and above > 300]
    if not used or not row["slopes"] or row["exponent"] is None:
        return "; ".join(row["flags"])
    last = used[-1]
    slope = row["slopes"][last - 1]
    ratio = row["scaled"][last] / row["scaled"][last - 1] if last else math.nan
    parts = [
        f"slope {slope:.3f} at δ = {row['deltas'][last]:.1g}",
        f"w/δ^α × {ratio:.3f} there",
        f"{row['above_floor'][last]:.0e} floors",
        *row["flags"],
    ]
    return "; ".join(parts)


def shown_proved(value: Any) -> str:
    return "–" if value is None else "no power" if value == "flat" else f"{value:g}"


def rank(entry: dict[str, Any]) -> tuple[int, str]:
    verdict = entry["agree"]
    return (
        DISAGREEMENTS.index(verdict) if verdict in DISAGREEMENTS else 9 if verdict == "agrees" else 10,
        entry["case"],
    )


def write_pages(entries: list[dict[str, Any]], seconds: float) -> None:
    """The disagreements into the page on the modulus, and all rows into a page of their own."""
    ranked = sorted(entries, key=rank)
    apart = [entry for entry in ranked if entry["agree"] in DISAGREEMENTS]
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    shown = "\n".join(table_of(apart))
    PAGE.write_text(f"{before}{BEGIN}\n\n{shown}\n\n{END}{after}", encoding="utf-8")
    count = f"{len(entries)} coordinates, {seconds / 60:.0f} minutes of processor time in all."
    WHOLE.write_text("\n".join([HEAD, count, "", *table_of(ranked), ""]), encoding="utf-8")


def table_of(entries: list[dict[str, Any]]) -> list[str]:
    lines = ["| setting | parameter | proved | measured | | evidence | source |", "|---|---|---|---|---|---|---|"]
    for entry in entries:
        what = f"{entry['title']}; {entry['setting']}"
        name = f"`{entry['parameter']}`" + (" modulo its symmetries" if entry["modulo"] else "")
        row = entry["measured"]
        cells = [what, name, shown_proved(entry["proved"]), row["verdict"], entry["agree"], evidence(entry)]
        lines.append("| " + " | ".join([*cells, entry["source"] or "no statement known"]) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="only these")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--missing", action="store_true", help="keep the rows of the table, and measure what it lacks")
    options = parser.parse_args()
    if options.fresh:
        shutil.rmtree(ROWS, ignore_errors=True)
    # The longest first, so that no process waits for one at the end.
    names = options.cases or sorted(case_names(), key=lambda name: (not name.startswith(HEAVY), name))
    tasks = [(name, place) for name in names for place in range(len(read_case(name).groups))]
    begun = time.perf_counter()
    entries: list[dict[str, Any]] = kept_rows() if options.missing else []
    if options.missing:
        have = {key_of(entry) for entry in entries}
        tasks = [(name, place) for name, place in tasks if not rows_of(name, place) <= have]
        stale = set().union(*(rows_of(name, place) for name, place in tasks))
        entries = [entry for entry in entries if key_of(entry) not in stale]
    for found in Parallel(n_jobs=options.jobs, return_as="generator_unordered")(delayed(measure)(*t) for t in tasks):
        for entry in found:
            print(
                f"{entry['agree']:28} {entry['case']:28} {entry['parameter']:30} proved "
                f"{shown_proved(entry['proved']):9} measured {entry['measured']['verdict']:24} "
                f"{entry['measured']['seconds']:6.1f} s  {evidence(entry)}",
                flush=True,
            )
        entries += found
    print(f"{time.perf_counter() - begun:.0f} s with {options.jobs} processes")
    if options.missing or not options.cases:
        entries.sort(key=lambda entry: (entry["case"], entry["setting"], entry["parameter"]))
        seconds = sum(entry["measured"]["seconds"] for entry in entries)
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        TABLE.write_text(json.dumps(entries, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        write_pages(entries, seconds)


if __name__ == "__main__":
    main()
