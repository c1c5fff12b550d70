"""The tables of the page on simulated rates; `python -m tests.study.simulated` writes them from the kept slopes.

The slopes are those of `docs/theory/simulated.json`, which `benchmarks/studies.py` fills as its studies are finished.
"""

import json
from pathlib import Path
from typing import Any

from gatewise.study import read_design

PAGE = Path(__file__).parents[2] / "docs" / "theory" / "simulated.md"
KEPT = PAGE.with_name("simulated.json")
START, END = "<!-- {name}: written by tests/study/simulated.py -->\n", "<!-- end of {name} -->\n"
SLOPES = "| study | method | measure | published | ours: mean | ours: median | proved | modulus | verdict on the mean |"
FITS = "| study | fits | starts | ended | below the truth | outside the box | processor seconds |"


def entries() -> dict[str, Any]:
    """The finished studies by name; nothing if there are none."""
    return json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}


def slopes_table(known: dict[str, Any]) -> str:
    """Published | ours with interval | proved | modulus, for every measure that somebody says something about."""
    lines = [SLOPES, "|---|---|---|---:|---|---|---|---:|---|"]
    for name, entry in known.items():
        pairs: dict[tuple[str, str], dict[str, Any]] = {}
        for slope in entry["slopes"]:
            pairs.setdefault((slope["method"], slope["measure"]), {})[slope["statistic"]] = slope
        for (method, measure), found in pairs.items():
            mean, median = found["mean"], found["median"]
            said = mean["expected"]
            if said is None:
                continue
            proved = said["proved_text"] if said["proved"] is None else f"{said['proved']:.3g}"
            lines.append(
                f"| {name} | {method} | `{measure}` | {number(said['published'])} | {interval(mean)} | "
                f"{interval(median)} | {proved or '–'} | {number(said['modulus'])} | {mean['verdict']} |"
            )
    return "\n".join(lines) + "\n"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def interval(slope: dict[str, Any]) -> str:
    """A slope with its interval, or why there is none."""
    estimate = slope["slope"]
    if estimate is None:
        return "–"
    curved = slope["curvature"]
    bent = curved is not None and (curved["low"] > 0.0 or curved["high"] < 0.0)
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]" + (" curved" if bent else "")


def fits_table(known: dict[str, Any]) -> str:
    """How many fits there were, how they ended, and what they took."""
    lines = [FITS, "|---|---:|---|---|---:|---:|---:|"]
    for name, entry in known.items():
        for total in entry["totals"]:
            near, data = entry["starts"][total["method"]]
            starts = " + ".join([f"{near} near the truth"] * bool(near) + [f"{data} from the data"] * bool(data))
            ended = ", ".join(f"{count:,} {status}" for status, count in total["statuses"].items())
            lines.append(
                f"| {name}, {total['method']} | {total['rows']:,} | {starts}; {total['started_again']} again | {ended} "
                f"| {total['below_truth']} | {total['outside_box']:,} | {total['seconds']:,.0f} |"
            )
    return "\n".join(lines) + "\n"


def with_tables(page: str) -> str:
    """The page with both tables in their places."""
    known = entries()
    for name, text in (("slopes", slopes_table(known)), ("fits", fits_table(known))):
        before, rest = page.split(START.format(name=name))
        _, after = rest.split(END.format(name=name))
        page = before + START.format(name=name) + text + END.format(name=name) + after
    return page


def outdated() -> list[str]:
    """Studies whose design is no longer the one that the kept slopes belong to."""
    found = []
    for name, entry in entries().items():
        plan = entry["plan"]
        if read_design(name).with_plan(**plan).digest() != entry["digest"]:
            found.append(name)
    return found


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
