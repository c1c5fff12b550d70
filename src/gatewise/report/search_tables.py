"""What the search has seen, and the rivals of the kept optimum, as tables."""

from gatewise.fit.result import Search
from gatewise.inference.rivals import changes_in_words, refit_of_rival
from gatewise.messages import percent
from gatewise.report.evidence import Evidence
from gatewise.report.layout import Cell, Grid
from gatewise.report.search import optimum_colour
from gatewise.report.tables import number

__all__ = ["rivals", "what_was_seen"]


def what_was_seen(search: Search) -> list[Grid]:
    """The evidence of a search; none where nothing was searched."""
    if not search.n_independent:
        return []
    best = "best optimum" if search.is_about_kept else "best optimum without a tight expert"
    entries = (
        ("Starts", f"{search.n_starts:,}"),
        ("Independent starts", f"{search.n_independent:,}"),
        (f"Independent starts that ended at the {best}", f"{search.hits_of_best:,}"),
        ("Distinct optima", f"{search.n_optima:,}"),
        ("Estimated chance that one more start finds a better one", percent(search.chance_of_better)),
        ("The search is complete", "yes" if search.complete else "no"),
    )
    caption = (
        "What the search has seen. Independent starts depend on the data and the seed alone, all others begin where "
        "the caller said or near the best point so far. Optima on the floor do not count, nor do those with a tight "
        "expert that fewer than three starts reached, where there are others. The chance holds for starts of these "
        "kinds; it is no proof."
    )
    rows = [[Cell(name), Cell(text)] for name, text in entries]
    return [Grid(caption, [("Evidence", False), ("", True)], rows)]


def rivals(evidence: Evidence, level: float) -> list[Grid]:
    """Other optima that the data hardly tell from the kept one, and what each would change; none without rivals.

    Args:
        evidence: the fit.
        level: a coefficient is significant if its interval of this level leaves out 0.
    """
    result = evidence.result
    found = evidence.estimator.summary(level=level).rivals.to_dict("records")
    if not found:
        return []
    squares = result.kind == "least_squares"
    near = "4 residual variances" if squares else "2 units of log-likelihood"
    caption = (
        f"Rivals: other optima within {near} of the kept one, which the data hardly tell from it, and what would "
        f"change with each. A coefficient is significant if its {100.0 * level:g}% interval leaves out 0. A fit with "
        "the options in the last column keeps the rival."
    )
    columns = [
        ("Rival", False),
        ("Residual variances above" if squares else "Below the kept one", True),
        ("Starts", True),
        ("Status", False),
        ("What it would change", False),
        ("To keep it", False),
    ]
    rows = []
    for rival, record in zip(result.rivals, found, strict=True):
        optimum = rival.starts[0].optimum
        rows.append(
            [
                Cell(str(record["rival"]), optimum_colour(optimum)),
                Cell(number(record["below"], 4)),
                Cell(str(record["starts"])),
                Cell(record["status"].replace("_", " ")),
                Cell(changes_in_words(record["changes"])),
                Cell(refit_of_rival(record["rival"])),
            ]
        )
    return [Grid(caption, columns, rows)]
