"""Templates filled in, with everything escaped."""

import functools
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gatewise.ops.printable import printable

__all__ = ["rendered"]


@functools.cache
def _environment() -> Environment:
    """One for the process: it keeps the templates compiled."""
    return Environment(
        loader=PackageLoader("gatewise.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Not what is marked as safe: scripts, and figures as JSON.
        finalize=lambda value: printable(value) if type(value) is str else value,
    )


def rendered(template: str, **values: Any) -> str:
    """The template of that name as text. A value that it needs and does not get is an error."""
    return _environment().get_template(template).render(**values)
