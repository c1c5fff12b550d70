"""What became of the fits of a study: statuses, attempts, fits below the truth or outside the box, time."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["Totals", "chosen", "numbers", "totals_of"]

_ERRORS = 5


@dataclass(frozen=True)
class Totals:
    """The fits of a method.

    Attributes:
        method: its name.
        rows: how many there are, with those that failed.
        statuses: how many ended with each status, the most frequent first.
        below_truth: fits whose objective stayed below the truth's.
        outside_box: fits with a number outside the design's box.
        attempts: how often fits were begun.
        started_again: fits that were begun more than once.
        seconds: of a processor, of all rows.
        errors: the first different errors, each with how often it occurred.
    """

    method: str
    rows: int
    statuses: dict[str, int]
    below_truth: int
    outside_box: int
    attempts: int
    started_again: int
    seconds: float
    errors: tuple[tuple[str, int], ...]

    @property
    def failed(self) -> int:
        """Rows without a fit."""
        return self.statuses.get("FAILED", 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "method": self.method,
            "rows": self.rows,
            "statuses": dict(self.statuses),
            "failed": self.failed,
            "below_truth": self.below_truth,
            "outside_box": self.outside_box,
            "attempts": self.attempts,
            "started_again": self.started_again,
            "seconds": self.seconds,
            "errors": [{"error": text, "rows": count} for text, count in self.errors],
        }

    def to_text(self) -> str:
        """One line."""
        statuses = ", ".join(f"{count} {name}" for name, count in self.statuses.items()) or "none"
        return (
            f"{self.method}: {self.rows} rows ({statuses}); {self.below_truth} below the truth, {self.outside_box} "
            f"outside the box, {self.started_again} started again; {self.seconds:.1f} s"
        )


def totals_of(method: str, rows: pd.DataFrame) -> Totals:
    """The totals of a method's rows.

    Args:
        method: its name.
        rows: with `status`; other columns that are missing count as 0.

    Example:
        >>> totals_of("k2", pd.DataFrame({"status": ["TIGHT", "FAILED"], "seconds": [1.0, 0.5]})).to_text()
        'k2: 2 rows (1 TIGHT, 1 FAILED); 0 below the truth, 0 outside the box, 0 started again; 1.5 s'
    """
    statuses = Counter(str(status) for status in rows["status"])
    attempts = numbers(rows, "attempts")
    texts = [str(text) for text in rows["error"] if isinstance(text, str) and text] if "error" in rows.columns else []
    return Totals(
        method,
        len(rows),
        dict(statuses.most_common()),
        int((numbers(rows, "below_truth") > 0).sum()),
        int((numbers(rows, "outside_box") > 0).sum()),
        int(attempts.sum()),
        int((attempts > 1).sum()),
        float(numbers(rows, "seconds").sum()),
        tuple(Counter(texts).most_common(_ERRORS)),
    )


def numbers(rows: pd.DataFrame, column: str, missing: float = 0.0) -> np.ndarray:
    """A column as float64, with a number for what is missing in it, or for all if there is no such column."""
    if column not in rows.columns:
        return np.full(len(rows), missing)
    found = np.array([missing if value is None or value is pd.NA else value for value in rows[column]], dtype=float)
    return np.where(np.isnan(found), missing, found)


def chosen(rows: pd.DataFrame, mask: np.ndarray) -> pd.DataFrame:
    """The rows where a mask (len(rows),) is true."""
    return rows.take(np.flatnonzero(mask))
