"""The tables of the page on how fast each parameter can be learned, and the figures in the table of proved rates.

`python -m tests.theory.how_fast` writes all from the table of moduli and from what `gatewise theory advise` says.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from gatewise.theory.advice import AdviceRow, Known, advise
from gatewise.theory.rate_table import Finding, Theorem, rate_table
from gatewise.theory.rates import RateRow
from tests.study.simulated import entries, interval

PAGE = Path(__file__).parents[2] / "docs" / "theory" / "how-fast.md"
ROWS = Path(__file__).with_name("how_fast.toml")
MEASURED = PAGE.with_name("modulus-table.json")
PROVED = Path(__file__).parents[2] / "src" / "gatewise" / "theory" / "proved_rates.toml"
FIGURE = re.compile(r"flat|\d+\.\d{3} \[-?\d+\.\d{3}, -?\d+\.\d{3}\]")
START, END = "<!-- the table: written by tests/theory/how_fast.py -->\n", "<!-- end of the table -->\n"
ADVICE_START, ADVICE_END = "<!-- advice: written by tests/theory/how_fast.py -->\n", "<!-- end of advice -->\n"
ERROR = 0.1
ANYWHERE = re.compile(r"((?:[abvW], )*[^,]* anywhere[^,]*|a copy[^,]*)$")
HEADER = "| gate, experts, family | atoms in the cell | parameter | proved | modulus: exponent | simulated: slope |"


def rows() -> list[dict[str, Any]]:
    """The rows as they stand in the TOML file."""
    return tomllib.loads(ROWS.read_text(encoding="utf-8"))["rows"]


def measurements() -> dict[tuple[str, ...], dict[str, Any]]:
    """The rows of the table of moduli by case, setting and parameter."""
    entries = json.loads(MEASURED.read_text(encoding="utf-8"))
    return {(entry["case"], entry["setting"], entry["parameter"]): entry for entry in entries}


def table() -> str:
    """The table in Markdown."""
    lines = [HEADER, "|---|---:|---|---|---|---|"]
    known, studied = measurements(), entries()
    for row in rows():
        theorem = next(t for t in rate_table().theorems if t.id == row["theorem"])
        lines.append(
            f"| {row['model']} | {row['atoms']} | {', '.join(row['parameters'])} | "
            f"{row.get('outside') or proved(theorem, row['parameters'], row['atoms'])} | {measured(row, known)} | "
            f"{simulated(row, studied)} |"
        )
    return "\n".join(lines) + "\n"


def advice() -> str:
    """What to choose, in Markdown: likelihood and least squares one after the other."""
    lines = []
    for objective, head in (("likelihood", "By maximum likelihood"), ("least_squares", "By least squares")):
        lines += [
            f"**{head}**",
            "",
            "| gate | experts | as many experts: α | samples | one too many: α | samples | not identified |",
            "|---|---|---|---:|---|---:|---|",
            *map(_advice_line, advise(objective=objective, error=ERROR).rows),
            "",
        ]
    return "\n".join(lines)


def _advice_line(row: AdviceRow) -> str:
    known = [part for each in (row.exact, row.over) for part in _known(each)]
    lost = [f"{row.lost_exact} (as many)"] if row.lost_exact and row.lost_exact != row.lost else []
    lost += [row.lost] if row.lost else []
    note = f"<br>{row.note}" if row.note else ""
    return f"| {row.gate_text} | {row.experts_text}{note} | {' | '.join(known)} | {'; '.join(lost) or '–'} |"


def _known(known: Known | None) -> tuple[str, str]:
    if known is None:
        return "not known", "–"
    of = f" ({known.of})" if known.of else ""
    return f"{known.alpha:g}{of}, {known.known}", f"{known.samples(ERROR):.3g}"


def simulated(row: dict[str, Any], studied: dict[str, Any]) -> str:
    """The slopes of the mean with their intervals, one for each parameter, and the study; or a dash."""
    found = []
    for study, method, measure in row.get("simulated", []):
        for slope in studied.get(study, {"slopes": []})["slopes"]:
            if (slope["method"], slope["measure"], slope["statistic"]) == (method, measure, "mean") and slope["slope"]:
                doubts = [word for word in ("inconclusive", "does not count") if word in slope["verdict"]]
                found.append(f"{interval(slope)} {', '.join(doubts)}".rstrip())
    return f"{'; '.join(found)} ({row['simulated'][0][0]})" if found else "–"


def measured(row: dict[str, Any], known: dict[tuple[str, ...], dict[str, Any]]) -> str:
    """The exponents with their bands, one for each parameter, with what was anywhere; or that it did not settle."""
    found = []
    for place in row["measured"]:
        entry = known[tuple(place)]
        verdict = entry["agree"] if entry["agree"] in ("not settled", "not measured") else entry["measured"]["verdict"]
        anywhere = ANYWHERE.search(place[1])
        found.append(f"{verdict}, {anywhere[1].strip()}" if anywhere else verdict)
    return "; ".join(found)


def proved(theorem: Theorem, parameters: list[str], atoms: int) -> str:
    """The one rate that a theorem gives these parameters in a cell of this size, and where it stands."""
    cells = ("one", "every") if atoms == 1 else ("many", "every")
    texts = {
        RateRow(theorem, rate, atoms if rate.cell == "many" else None).text
        for rate in theorem.rates
        if rate.parameter in parameters and rate.cell in cells
    }
    found = {rate.parameter for rate in theorem.rates if rate.cell in cells}
    if not set(parameters) <= found or len(texts) != 1:
        raise ValueError(f"{theorem.id} has no one rate for {parameters} with {atoms} atoms in the cell")
    text = texts.pop().replace("slower than any n^(-1/(2r)), perhaps 1/log n", "slower than any polynomial")
    where = rate_table().cite(theorem.paper).removeprefix("arXiv:")
    return f"expected: {text} ({where})" if theorem.read == "expected" else f"{text} ({_how(theorem)}, {where})"


def _how(theorem: Theorem) -> str:
    return "derived" if theorem.read == "derived here" else theorem.read


def with_table(page: str) -> str:
    """The page with both tables in their places."""
    for start, text, end in ((START, table(), END), (ADVICE_START, advice(), ADVICE_END)):
        before, rest = page.split(start)
        _, after = rest.split(end)
        page = before + start + text + end + after
    return page


def with_figures(finding: Finding, known: dict[tuple[str, ...], dict[str, Any]]) -> str:
    """The text of a finding with the figures of the table of moduli, one for each of its rows in their order."""
    figures = iter([known[place]["measured"]["verdict"] for place in finding.measured])
    if len(FIGURE.findall(finding.text)) != len(finding.measured):
        raise ValueError(f"{finding.text!r} must have {len(finding.measured)} figures, one for each row it rests on")
    return FIGURE.sub(lambda _: next(figures), finding.text)


def refreshed_rates(text: str) -> str:
    """The table of proved rates with present figures."""
    known = measurements()
    for theorem in rate_table().theorems:
        for finding in theorem.findings:
            if finding.measured:
                text = text.replace(finding.text, with_figures(finding, known))
    return text


if __name__ == "__main__":
    PROVED.write_text(refreshed_rates(PROVED.read_text(encoding="utf-8")), encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
