"""Writes docs/router-types.md: `python -m tests.nn.hf.types_page`."""

from pathlib import Path

from gatewise.nn.known import described
from tests.nn.hf.tiny_models import MORE_TYPES, TYPES

PAGE = Path(__file__).parents[3] / "docs" / "router-types.md"

_HEAD = """# Routers that are known

How the routers of transformers 5.24 choose, read in its sources; this page is written by a test
(`python -m tests.nn.hf.types_page`), and `gatewise routers list` prints the same. z are logits, s scores, b the
correction bias, σ the logistic function. A selection's option after `=` is a constant in quotes or a number, or else an
attribute of the router.

Every class is compared with its row, index sets exactly and weights to 1e-5, with weights and biases drawn at random.
"Model" says that a tiny random model of the type was also swapped, run, trained, saved, loaded in a fresh process and
restored to the bit (those in brackets without the fresh process).

| type | router | weights | selection | correction bias | compared as |
|---|---|---|---|---|---|
"""

_REFUSED = """
## Refused

| type | router | because |
|---|---|---|
"""


def page() -> str:
    """The page as it must be."""
    known, refused = [], []
    for entry in described():
        cells = [entry["model_type"], f"`{entry['router']}`"]
        if entry["refused"] is not None:
            refused.append([*cells, entry["refused"]])
            continue
        whole = (
            "model" if entry["model_type"] in TYPES else "(model)" if entry["model_type"] in MORE_TYPES else "router"
        )
        note = f"; read, not swapped: {entry['skipped']}" if entry["skipped"] else ""
        selection = entry["selection"].replace("|", "\\|")
        known.append([*cells, entry["formula"] + note, selection, entry["correction_bias"] or "none", whole])
    return _HEAD + _rows(known) + _REFUSED + _rows(refused)


def _rows(rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
