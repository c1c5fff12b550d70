"""Run one stored task again and compare the bits."""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from gatewise.exceptions import InputError
from gatewise.study.replicate import UNREPEATABLE, Laboratory, Row, Task
from gatewise.study.store import Store

__all__ = ["Replay", "replay"]


@dataclass(frozen=True)
class Replay:
    """A stored row beside the same task run now.

    Attributes:
        key: the task's.
        stored: the stored row, without what it does not have.
        again: the row of this run.
        differences: the columns whose bits differ, with the stored and the new value.
    """

    key: str
    stored: Row
    again: Row
    differences: Mapping[str, tuple[object, object]]

    @property
    def same(self) -> bool:
        """Whether every column but the seconds has the same bits."""
        return not self.differences


def replay(store: Store, key: str) -> Replay:
    """Run the task of a key again, from its seeds.

    Raises:
        InputError: it is no key of the study, or the task has no row yet.
    """
    task = Task.parse(key, store.design)
    rows = store.rows()
    found = rows[rows["key"] == task.key]
    if found.empty:
        raise InputError(f"the task {key} has no row yet: run the study first")
    stored: Row = {str(name): value for name, value in found.iloc[0].items() if not _absent(value)}
    again = Laboratory(store.design).run(task)
    names = sorted((set(stored) | set(again)) - set(UNREPEATABLE))
    differences = {
        name: (stored.get(name), again.get(name))
        for name in names
        if _bits(stored.get(name)) != _bits(again.get(name)) and not _absent(again.get(name, math.nan))
    }
    return Replay(key, stored, again, differences)


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _bits(value: object) -> object:
    """What must be the same: the bytes of a floating number, a plain value otherwise."""
    if isinstance(value, float):
        return struct.pack("<d", value)
    return value.item() if hasattr(value, "item") else value  # pyright: ignore[reportAttributeAccessIssue]
