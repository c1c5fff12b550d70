"""How far a study is, and how its fits ended."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from gatewise.study.store import Store

__all__ = ["MethodStatus", "StudyStatus", "study_status"]


@dataclass(frozen=True)
class MethodStatus:
    """The rows of one method.

    Attributes:
        rows: how many there are.
        statuses: how many ended in each way.
        below_truth: fits whose objective stayed below the truth's.
        outside_box: fits with a number outside the design's box.
        seconds: processor seconds of the rows together, data and losses included.
    """

    rows: int
    statuses: dict[str, int]
    below_truth: int
    outside_box: int
    seconds: float


@dataclass(frozen=True)
class StudyStatus:
    """How far a study is.

    Attributes:
        title: the design's.
        tasks: how many there are in all.
        rows: how many have a row.
        methods: by method.
        quarantined: parts that could not be read.
    """

    title: str
    tasks: int
    rows: int
    methods: dict[str, MethodStatus]
    quarantined: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def study_status(store: Store) -> StudyStatus:
    """Count the rows of a study by method and status.

    Raises:
        InputError: the folder holds rows of another study.
    """
    rows: list[dict[str, Any]] = store.rows().to_dict("records")
    methods = {}
    for method in store.design.methods:
        own = [row for row in rows if row["method"] == method.name]
        methods[method.name] = MethodStatus(
            rows=len(own),
            statuses=dict(Counter(str(row["status"]) for row in own).most_common()),
            below_truth=sum(row["below_truth"] is True for row in own),
            outside_box=sum(row["outside_box"] > 0 for row in own),
            seconds=sum(float(row["seconds"]) for row in own),
        )
    design = store.design
    tasks = len(design.all_sizes()) * design.replicates * len(design.methods)
    return StudyStatus(design.title, tasks, len(rows), methods, store.quarantined())
