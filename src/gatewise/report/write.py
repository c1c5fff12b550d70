"""One self-contained HTML page on anything that has one: as text, or as a file."""

import importlib
import os
from functools import singledispatch
from typing import Any

from gatewise.exceptions import InputError
from gatewise.files import check_new_file, write_file
from gatewise.messages import shown

__all__ = ["render_report", "write_report"]

# Pages on what comes from packages that need an extra: they are loaded with the first subject from there.
_LATER = {"gatewise.lora": "gatewise.report.adapters"}


@singledispatch
def render_report(subject: Any, *arguments: Any, **options: Any) -> str:
    """The page on a subject as the text of one HTML file.

    The page carries its scripts, styles and data, and a content security policy that forbids every request. The same
    subject and the same arguments give the same text, character by character.

    Args:
        subject: what has been fitted, watched or evaluated. A fitted `gatewise.GatedRegressor` or `GatedClassifier`
            takes rows and options as `gatewise.report.fit_page` does.
        *arguments: what else the page needs: of a fit the rows X and y.
        **options: of the subject's kind of page.

    Raises:
        InputError: there is no page on such a subject, or the arguments do not suit it.

    Example:
        >>> from gatewise import GatedRegressor
        >>> from gatewise.datasets import load
        >>> tone = load("tone").frame
        >>> X, y = tone[["stretchratio"]], tone["tuned"]
        >>> render_report(GatedRegressor(1).fit(X, y), X, y)[:15]
        '<!DOCTYPE html>'
    """
    later = _LATER.get(".".join(type(subject).__module__.split(".")[:2]))
    if later is not None:
        importlib.import_module(later)
        found = render_report.dispatch(type(subject))
        if found is not render_report.dispatch(object):
            return found(subject, *arguments, **options)
    raise InputError(
        f"there is no report on {shown(subject)}, which is a {type(subject).__name__}: pass first the fit, and then "
        "the file, as write_report(regressor, 'report.html', X, y)"
    )


def write_report(
    subject: Any, path: str | os.PathLike[str], *arguments: Any, overwrite: bool = False, **options: Any
) -> None:
    """Write the page on a subject as one HTML file, whole or not at all.

    Args:
        subject: what has been fitted, watched or evaluated, as for `render_report`.
        path: the file to write; its folder must exist.
        *arguments: what else the page needs: of a fit the rows X and y.
        overwrite: whether a file that exists may be replaced.
        **options: of the subject's kind of page: of a fit those of `gatewise.report.fit_page`.

    Raises:
        InputError: there is no page on such a subject, or the arguments do not suit it.
        OutputError: the file cannot be written, or exists; it is then untouched.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from gatewise import GatedRegressor
        >>> from gatewise.datasets import load
        >>> tone = load("tone").frame
        >>> X, y = tone[["stretchratio"]], tone["tuned"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_report(GatedRegressor(1).fit(X, y), Path(folder, "fit.html"), X, y)
        ...     Path(folder, "fit.html").read_text(encoding="utf-8")[:15]
        '<!DOCTYPE html>'
    """
    if isinstance(subject, str | os.PathLike):
        render_report(subject)
    check_new_file(path, overwrite=overwrite)
    page = render_report(subject, *arguments, **options)
    write_file(path, page.encode("utf-8"), overwrite=overwrite)
