"""`gatewise theory identify`."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from gatewise.cli.common import check_report, parse_options
from gatewise.exceptions import InputError
from gatewise.messages import shown

__all__ = ["identify"]

_PAUSE = 2.0


def identify(
    gate: Annotated[str, typer.Option("--gate", help="Gate, as `gatewise gates` lists it.")],
    experts: Annotated[
        str, typer.Option("--experts", help="Experts, as `gatewise experts` lists them, or ridge for φ(aᵀx + b).")
    ] = "linear",
    family: Annotated[
        str | None, typer.Option("--family", help="Family, as `gatewise families` lists it; none for least squares.")
    ] = None,
    objective: Annotated[
        str | None, typer.Option("--objective", help="likelihood or least_squares; by default what the family says.")
    ] = None,
    features: Annotated[int, typer.Option("--features", metavar="D", help="Number of inputs.")] = 2,
    gate_option: Annotated[
        list[str] | None, typer.Option("--gate-option", metavar="NAME=VALUE", help="An option of the gate.")
    ] = None,
    expert_option: Annotated[
        list[str] | None, typer.Option("--expert-option", metavar="NAME=VALUE", help="An option of the experts.")
    ] = None,
    family_option: Annotated[
        list[str] | None, typer.Option("--family-option", metavar="NAME=VALUE", help="An option of the family.")
    ] = None,
    at: Annotated[
        list[str] | None, typer.Option("--at", metavar="NAME=NUMBER", help="Hold a parameter at a value, as a[1]=0.")
    ] = None,
    digits: Annotated[int, typer.Option("--digits", help="Decimal digits of formulas.")] = 50,
    seed: Annotated[int, typer.Option("--seed", help="Of the points that are looked at.")] = 0,
    report: Annotated[Path | None, typer.Option("--report", metavar="FILE", help="Write an HTML page.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --report if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Which derivatives of gate, experts and family depend on each other, as identities, and which conditions hold.

    Derivatives of order 0, 1 and 2 of the function of one atom, exp(score) times density, or times location in least
    squares.
    """
    check_report(report, overwrite)
    from gatewise.theory.identifiability import identify as find

    held = parse_options("--at", at) or {}
    for name, value in held.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"--at holds a parameter at a number, and {name}={shown(value)} is none")
    if objective not in (None, "likelihood", "least_squares"):
        raise InputError(f"--objective must be likelihood or least_squares, not {shown(objective)}")
    found = find(
        gate,
        experts,
        family,
        objective=objective,
        n_features=features,
        gate_options=parse_options("--gate-option", gate_option),
        expert_options=parse_options("--expert-option", expert_option),
        family_options=parse_options("--family-option", family_option),
        at=held,
        digits=digits,
        seed=seed,
        progress=_teller(),
    )
    if report is not None:
        from gatewise.report.theory import identity_page, write_theory

        write_theory(report, identity_page(found), overwrite=overwrite)
    print(json.dumps(found.to_dict(), ensure_ascii=False, indent=1) if as_json else found.text(), end="")
    if report is not None and not as_json:
        print(f"\n{report}")


def _teller() -> Callable[[str], None]:
    """What says where a long study is, beside its result: a line at most every other second."""
    last = -_PAUSE

    def tell(text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PAUSE:
            last = now
            print(f"… {text}", file=sys.stderr, flush=True)

    return tell
