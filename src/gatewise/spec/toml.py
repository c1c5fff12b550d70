"""Designs in TOML: a text becomes tables whose fields are known, or one sentence that says what is wrong."""

import tomllib
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from gatewise.exceptions import InputError

__all__ = ["Table", "problem_of", "read_toml"]

_DEEPEST = 32


class Table(BaseModel):
    """A table: nothing that is not known, and nothing that changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_toml(text: str, name: str) -> dict[str, Any]:
    """What a TOML text says.

    Args:
        text: the text.
        name: what messages call it.

    Raises:
        InputError: it is no TOML, or nested deeper than anything here.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{name} is no TOML: {error}") from None
    except ValueError as error:
        # A number of more digits than Python reads.
        raise InputError(f"{name} cannot be read: {error}") from None
    except RecursionError:
        raise InputError(f"{name} is nested more than {_DEEPEST} deep: nothing in it may be") from None
    level: list[Any] = [found]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    if level:
        raise InputError(f"{name} is nested more than {_DEEPEST} deep: nothing in it may be")
    return found


def problem_of(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place or 'the table'}: {first['msg']}"
