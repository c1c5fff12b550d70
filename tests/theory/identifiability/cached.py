"""`identify` for parts by name, once for all tests of a process."""

from gatewise.theory import identify as fresh

_FOUND = {}


def identify(*parts, **options):
    """The result for these arguments, kept if all parts are names."""
    if not all(part is None or isinstance(part, str) for part in parts):
        return fresh(*parts, **options)
    key = (parts, repr(sorted(options.items())))
    if key not in _FOUND:
        _FOUND[key] = fresh(*parts, **options)
    return _FOUND[key]
