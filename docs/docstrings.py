"""Lets the API page show the example of a docstring as code: the parser knows a section "Examples:" only."""

import re
from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Reads "Example:" as the title of a section."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called once for each object that was loaded."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
