"""How messages show what a user gave: in one line and bounded, with a suggestion where a name is nearly right."""

import difflib
import reprlib
from collections.abc import Iterable

__all__ = ["choose", "listed", "percent", "shown"]

_LONGEST = 120
_MOST_LISTED = 20
# Above what "normal" has in common with "binomial".
_ALIKE = 0.75


class _Short(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write integers of more than 4,300 digits.
        return f"<an integer of {x.bit_length()} bits>" if x.bit_length() > 4_000 else super().repr_int(x, level)


_SHORT = _Short()
_SHORT.maxlevel = 3
_SHORT.maxdict = _SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = _SHORT.maxfrozenset = _SHORT.maxarray = 6
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100


def shown(value: object) -> str:
    """The value as Python writes it, in one line of at most 120 characters.

    Example:
        >>> shown("poison"), shown(list(range(1000))), len(shown({"x" * 500: "y" * 500}))
        ("'poison'", '[0, 1, 2, 3, 4, 5, ...]', 120)
    """
    text = " ".join(_SHORT.repr(value).splitlines())
    kept = (_LONGEST - 3) // 2
    return text if len(text) <= _LONGEST else f"{text[:kept]}...{text[-(_LONGEST - 3 - kept) :]}"


def listed(values: Iterable[object]) -> str:
    """The first of some values, and how many are left out.

    Example:
        >>> listed(["a", "b"]), listed(range(100))[-18:]
        ("'a', 'b'", '18, 19 and 80 more')
    """
    found = list(values)
    left = len(found) - _MOST_LISTED
    return ", ".join(map(shown, found[:_MOST_LISTED])) + (f" and {left} more" if left > 0 else "")


def choose(asked: object, known: Iterable[str], among: str = "choose one of") -> str:
    """What to do about an unknown name: take the one that is nearly the same, or one of all that there are.

    Args:
        asked: what was given.
        known: the names.
        among: how the list of names begins.

    Example:
        >>> choose("Poison", ["gamma", "poisson"]), choose("a", ["gamma", "poisson"])
        ("did you mean 'poisson'? choose one of gamma, poisson", 'choose one of gamma, poisson')
    """
    names = list(known)
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(asked.lower(), by_lower, n=1, cutoff=_ALIKE) if isinstance(asked, str) else []
    meant = f"did you mean {by_lower[close[0]]!r}? " if close else ""
    return f"{meant}{among} {', '.join(names) or 'none'}"


def percent(share: float, digits: int = 2) -> str:
    """A share in percent; what is not all never rounds to all.

    Args:
        share: in [0, 1].
        digits: significant ones.

    Example:
        >>> percent(0.25), percent(1.0), percent(0.9999), percent(0.9999, 3)
        ('25 %', '100 %', 'more than 99 %', 'more than 99.9 %')
    """
    if round(100.0 * share, digits - 2) < 100.0:
        return f"{100.0 * share:.{digits}g} %"
    below = f"{100.0 - 10.0 ** (2 - digits):.{digits}g}"
    return "100 %" if share >= 1.0 else f"more than {below} %"
