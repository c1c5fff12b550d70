"""Options of gates, experts and families by name: which there are, and one sentence for what is none of them."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from gatewise.exceptions import InputError
from gatewise.messages import choose, shown

__all__ = ["REQUIRED", "SIZES", "checked_options", "given_or_named", "part_options", "with_options"]

REQUIRED = inspect.Parameter.empty
"""Stands for the default of an option that has none."""

SIZES = frozenset({"n_features", "n_experts", "shared_scale", "n_outputs", "n_dispersion"})
"""Arguments of constructors that are no options: they come from the data and from the other parts."""

# What a constructor raises when an option is of another kind than it expects.
_CONSTRUCTOR_ERRORS = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError)

P = TypeVar("P")


def part_options(cls: Any) -> dict[str, Any] | None:
    """The options of a gate, of experts or of a family by name, with their defaults; None if it takes any names.

    They are read from the signature of `of`, or from that of the constructor where `of` only hands them on.

    Example:
        >>> from gatewise.gates import CosineGate
        >>> part_options(CosineGate)
        {'temperature': None, 'projection': None}
    """
    found = [parameter for name, parameter in inspect.signature(cls.of).parameters.items() if name not in SIZES]
    if all(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
        found = [parameter for name, parameter in inspect.signature(cls).parameters.items() if name not in SIZES]
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
            return None
    return {p.name: p.default for p in found if p.kind is not p.VAR_KEYWORD}


def checked_options(kind: str, cls: Any, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options as a dictionary, if they are those of such a part.

    Args:
        kind: "gate", "expert" or "family".
        cls: the class, with `of` and a name.
        options: by name; None for none.

    Raises:
        InputError: they are no dictionary, one is unknown or missing, or a truth value is none.
    """
    given = {} if options is None else options
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise InputError(f"{kind}_options must be a dictionary from names to values, not {shown(options)}")
    known = part_options(cls)
    if known is None:
        return dict(given)
    unknown = [name for name in given if name not in known]
    if unknown:
        has = choose(unknown[0], known, "it has") if known else "it takes no options"
        raise InputError(f"the {kind} {cls.name!r} has no option {shown(unknown[0])}: {has}")
    missing = [name for name, default in known.items() if default is REQUIRED and name not in given]
    if missing:
        raise InputError(f"the {kind} {cls.name!r} needs the option {shown(missing[0])}")
    for name, value in given.items():
        # A text like "no" would count as true.
        if isinstance(known[name], bool) and not isinstance(value, bool):
            raise InputError(
                f"the option {shown(name)} of the {kind} {cls.name!r} is true or false, not {shown(value)}"
            )
    return dict(given)


def with_options(kind: str, cls: Any, options: Mapping[str, Any] | None, build: Callable[[dict[str, Any]], P]) -> P:
    """What `build` makes of the options.

    Args:
        kind: "gate", "expert" or "family".
        cls: the class, with `of` and a name.
        options: by name; None for none.
        build: the constructor.

    Raises:
        InputError: as `checked_options`; or the constructor refuses a value or cannot do with it.
    """
    given = checked_options(kind, cls, options)
    try:
        return build(given)
    except InputError:
        raise
    except _CONSTRUCTOR_ERRORS as error:
        raise InputError(f"the {kind} {cls.name!r} cannot take the options {shown(given)}: {error}") from None


def given_or_named(kind: str, part: Any, cls: type[P], options: Mapping[str, Any] | None, build: Callable[..., P]) -> P:
    """The part itself if it is one, or the one of that name with these options.

    Args:
        kind: "gate", "expert" or "family".
        part: the part or its name.
        cls: what parts are instances of.
        options: of a part by name.
        build: (name, **options) ↦ the part.

    Raises:
        InputError: options come with a part that exists; or `build` raises it.
    """
    if not isinstance(part, cls):
        if options is not None and not isinstance(options, Mapping):
            raise InputError(f"{kind}_options must be a dictionary from names to values, not {shown(options)}")
        return build(part, **(options or {}))
    if options:
        raise InputError(
            f"{kind}_options go with a name, and the {kind} is {shown(part)}: give it its options where it is made"
        )
    return part
