"""`gatewise theory rates` and `gatewise theory r-bar`."""

import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gatewise.cli.common import check_report, parse_options
from gatewise.exceptions import InputError
from gatewise.messages import choose, shown

if TYPE_CHECKING:
    from gatewise.theory.rate_table import Theorem
    from gatewise.theory.rates import Comparison, ProvedRates

__all__ = ["r_bar", "rates"]

WIDTH = 118

Gate = Annotated[str, typer.Option("--gate", help="Gate, as `gatewise gates` lists it.")]
ExpertsKind = Annotated[str, typer.Option("--experts", help="Experts, as `gatewise experts` lists them.")]
FamilyName = Annotated[
    str | None, typer.Option("--family", help="Family, as `gatewise families` lists it; none for least squares.")
]
ObjectiveName = Annotated[
    str | None, typer.Option("--objective", help="likelihood or least_squares; by default what the family says.")
]
TrueK = Annotated[int | None, typer.Option("--true-k", help="True number of experts.")]
FitK = Annotated[int | None, typer.Option("--fit-k", help="Fitted number of experts.")]
GateOption = Annotated[
    list[str] | None,
    typer.Option("--gate-option", metavar="NAME=VALUE", help="An option of the gate; without it all values are shown."),
]
Error = Annotated[float | None, typer.Option("--error", help="Print how many samples an error of this size needs.")]
RelativeTo = Annotated[str | None, typer.Option("--relative-to", help="A gate to compare the samples with.")]
Report = Annotated[Path | None, typer.Option("--report", metavar="FILE", help="Write an HTML page.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace --report if it exists.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def rates(
    gate: Gate,
    experts: ExpertsKind = "linear",
    family: FamilyName = None,
    objective: ObjectiveName = None,
    true_k: TrueK = None,
    fit_k: FitK = None,
    gate_option: GateOption = None,
    error: Error = None,
    relative_to: RelativeTo = None,
    report: Report = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Proved rates of a kind of model: theorem by theorem, how far each was checked, and what helps if one is slow.

    A rate is that of the error of the estimate at one fixed truth, logarithms left out.
    """
    check_report(report, overwrite)
    from gatewise.theory.rates import proved_rates

    options = parse_options("--gate-option", gate_option) or {}
    if options:
        _require_options(gate, options)
    if relative_to is not None and error is None:
        raise InputError("--relative-to compares samples for one error: give it with --error")
    query: dict[str, Any] = {
        "experts": experts,
        "family": family,
        "objective": objective,
        "true_k": true_k,
        "fit_k": fit_k,
    }
    found = proved_rates(gate=gate, gate_options=options, **query)
    other = None if relative_to is None else proved_rates(gate=relative_to, **query)
    answer = (
        json.dumps(_as_json(found, other, error), ensure_ascii=False, indent=1)
        if as_json
        else "\n".join(_text(found, other, error))
    )
    if report is not None:
        from gatewise.report.theory import write_theory
        from gatewise.report.theory_rates import rates_page

        write_theory(report, rates_page(found, other=other, error=error), overwrite=overwrite)
    print(answer)
    if report is not None and not as_json:
        print(f"\n{report}")


def _require_options(gate: str, options: dict[str, Any]) -> None:
    from gatewise.gates import GATES
    from gatewise.parts.options import part_options

    known = part_options(GATES[gate])
    if known is not None and (unknown := sorted(set(options) - set(known))):
        raise InputError(f"the {gate} gate has no option {shown(unknown[0])}: {choose(unknown[0], known, 'it has')}")


def r_bar(
    m: Annotated[int, typer.Argument(help="Fitted atoms in one cell, at least 2.")],
    as_json: AsJson = False,
) -> None:
    """The order r̄(m) up to which m fitted atoms of a Gaussian expert can cancel each other, with its evidence."""
    from gatewise.theory.polynomials import r_bar as value_of

    found = value_of(m)
    solution = found.solution
    entry = {
        "m": m,
        "value": found.value,
        "status": found.status,
        "literature": found.literature,
        "certificate": found.certificate.statement,
        "solution": {
            "order": 2 * m - 1,
            "weights": [str(weight) for weight in solution.weights],
            "intercepts": [str(node) for node in solution.intercepts],
            "half_variances": [str(half) for half in solution.variances],
        },
    }
    if as_json:
        print(json.dumps(entry, ensure_ascii=False, indent=1))
        return
    print(f"r̄({m}) = {found.value}")
    for name in ("status", "literature", "certificate"):
        print(*_wrapped(f"{name}: {entry[name]}", "  "), sep="\n")
    print(f"  solution at order {2 * m - 1}:")
    for name in ("weights", "intercepts", "half_variances"):
        print(*_wrapped(f"{name}: {', '.join(entry['solution'][name])}", "    "), sep="\n")


def _as_json(found: "ProvedRates", other: "ProvedRates | None", error: float | None) -> dict[str, Any]:
    entry = found.to_dict()
    if error is not None:
        entry["error"] = error
        entry["samples"] = [
            {
                "theorem": row.theorem.id,
                "parameter": row.rate.parameter,
                "cell": row.cell,
                "samples": _number(n),
                "bound": _number(bound),
            }
            for (row, n), (_, bound) in zip(
                found.sample_sizes(error, tight=True), found.sample_sizes(error), strict=True
            )
        ]
    if other is not None and error is not None:
        entry["relative_to"] = other.gate
        entry["comparison"] = [
            {
                "role": row.role,
                "this": row.this.id,
                "other": row.other.id,
                "samples": _number(row.samples),
                "other_samples": _number(row.other_samples),
                "bound": _number(row.bound),
                "other_bound": _number(row.other_bound),
                "ratio": None if row.ratio is None else _number(row.ratio),
            }
            for row in found.compare(other, error)
        ]
    return entry


def _text(found: "ProvedRates", other: "ProvedRates | None", error: float | None) -> Iterator[str]:
    fitted = found.family + " family" if found.family is not None else "least squares"
    head = f"{found.gate} gate, {found.experts} experts, {fitted}"
    if found.setting is not None:
        head += f"; {found.true_k} true experts, {found.fit_k} fitted: {_setting_words(found)}"
    yield head
    for theorem in found.theorems:
        yield ""
        yield from _theorem_text(found, theorem)
    if found.message:
        yield ""
        yield from _wrapped(found.message, "")
    if found.remedies:
        yield ""
        yield "What helps"
        for remedy in found.remedies:
            yield from _wrapped(f"- {remedy.kind}: {remedy.text}", "  ")
    if error is not None:
        yield from _samples_text(found, error)
    if other is not None and error is not None:
        yield from _comparison_text(found, other, error)


def _setting_words(found: "ProvedRates") -> str:
    if found.true_k == found.fit_k or found.true_k is None or found.fit_k is None:
        return "exact-specified"
    return f"over-specified, up to {found.fit_k - found.true_k + 1} atoms in a cell"


def _theorem_text(found: "ProvedRates", theorem: "Theorem") -> Iterator[str]:
    from gatewise.theory.rate_table import rate_table

    table = rate_table()
    where = f"{table.cite(theorem.paper)}, {theorem.statement}"
    if theorem.also:
        where += f" (also {', '.join(table.cite(paper) for paper in theorem.also)})"
    yield f"{theorem.id}: {where}"
    options = ", ".join(f"{name}={_shown(value)}" for name, value in theorem.gate_options.items())
    facts = [
        (
            "for",
            {"exact": "exact-specified", "over": "over-specified"}[theorem.settings[0]]
            if len(theorem.settings) == 1
            else "exact- and over-specified",
        ),
        ("gate", "; ".join(part for part in (options, theorem.gate_condition) if part)),
        ("experts", theorem.expert_condition),
        ("regime", theorem.regime),
        ("provided", theorem.condition),
        ("estimator", theorem.estimator),
        ("loss", theorem.loss),
        ("checked", theorem.checked),
        ("note", theorem.note),
        ("states", theorem.claim),
    ]
    for name, fact in facts:
        if fact:
            yield from _wrapped(f"{name}: {fact}", "  ")
    for finding in theorem.findings:
        verb = "agrees" if finding.agrees else "differs"
        yield from _wrapped(f"found: {finding.kind} {verb}, {finding.parameter}: {finding.text}", "  ")
    rows = [
        (row.rate.parameter, row.cell, row.text, row.tight_text) for row in found.rows if row.theorem.id == theorem.id
    ]
    if any(tight for *_, tight in rows):
        yield from _table(("parameter", "atoms in the cell", "rate as stated", "known better"), rows)
    elif rows:
        yield from _table(("parameter", "atoms in the cell", "rate"), [row[:3] for row in rows])


def _samples_text(found: "ProvedRates", error: float) -> Iterator[str]:
    pairs = zip(found.sample_sizes(error, tight=True), found.sample_sizes(error), strict=True)
    rows = [
        (row.theorem.id, row.rate.parameter, row.cell, _count(n), _count(bound) if row.rate.tight else "")
        for (row, n), (_, bound) in pairs
        if row.rate.role != "function"
    ]
    if rows:
        yield ""
        yield f"Samples for an error of {error:g}: orders of magnitude, every constant set to 1, no logarithms"
        columns = 5 if any(bound for *_, bound in rows) else 4
        header = ("theorem", "parameter", "atoms in the cell", "samples", "by the published bound")
        yield from _table(header[:columns], [row[:columns] for row in rows])


def _comparison_text(found: "ProvedRates", other: "ProvedRates", error: float) -> Iterator[str]:
    yield ""
    rows = [
        (
            row.role,
            row.this.id,
            _with_bound(row.samples, row.bound),
            row.other.id,
            _with_bound(row.other_samples, row.other_bound),
            _ratio(row),
        )
        for row in found.compare(other, error)
    ]
    if not rows:
        yield from _wrapped(
            f"No comparison with the {other.gate} gate: {other.message or 'no exponents in common.'}", ""
        )
        return
    yield from _wrapped(
        f"Against the {other.gate} gate, for an error of {error:g}: the worst parameter of each kind, by the best "
        "exponents that are known, with the published bound in brackets where it is larger",
        "",
    )
    yield from _table(("kind", found.gate, "samples", other.gate, "samples", "times as many"), rows)


def _with_bound(samples: float, bound: float) -> str:
    return _count(samples) if samples == bound else f"{_count(samples)} ({_count(bound)})"


def _ratio(row: "Comparison") -> str:
    ratio = row.ratio
    return "–" if ratio is None else _count(ratio)


def _count(value: float) -> str:
    if math.isinf(value):
        return "more than any power of 1/ε"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.0e}"


def _number(value: float) -> float | None:
    """A number as JSON has it: None stands for one without bound."""
    return None if math.isinf(value) else value


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
