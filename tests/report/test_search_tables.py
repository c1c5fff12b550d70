import dataclasses

import numpy as np
import pandas as pd
import pytest

from gatewise.estimators import GatedRegressor
from gatewise.fit.status import FitStatus
from gatewise.report import render_report, tables
from gatewise.report.check_sections import search_section
from gatewise.report.evidence import Evidence
from gatewise.report.search import optimum_colour
from gatewise.report.search_tables import rivals, what_was_seen
from tests.fit.r_tables import insurance
from tests.report.pages import Page

HOSTILE = "<script>alert('x')</script>"


@dataclasses.dataclass(frozen=True)
class Claims:
    """Claims of MASS::Insurance, whose second best optimum is 0.25 lower, with a column of a hostile name."""

    estimator: GatedRegressor
    X: pd.DataFrame
    y: np.ndarray
    offset: np.ndarray

    @property
    def evidence(self) -> Evidence:
        return Evidence.collect(self.estimator, self.X, self.y, offset=self.offset)


@pytest.fixture(scope="module")
def claims() -> Claims:
    table = insurance()
    X = pd.DataFrame(table.x, columns=[HOSTILE, *(f"x{column}" for column in range(1, table.x.shape[1]))])
    estimator = GatedRegressor(family="poisson", gate_features=[], random_state=0)
    return Claims(estimator.fit(X, table.y, offset=table.offset), X, table.y, table.offset)


@pytest.fixture(scope="module")
def page(claims) -> Page:
    return Page(render_report(claims.estimator, claims.X, claims.y, offset=claims.offset))


def texts(grid):
    return [[cell.text for cell in row] for row in grid.rows]


def test_what_was_seen_is_what_the_result_says(claims):
    search = claims.estimator.result_.search
    (grid,) = what_was_seen(search)
    found = dict(texts(grid))
    assert found["Starts"] == str(search.n_starts)
    assert found["Independent starts"] == str(search.n_independent)
    assert found["Independent starts that ended at the best optimum"] == str(search.hits_of_best)
    assert found["Distinct optima"] == str(search.n_optima)
    chance = float(found["Estimated chance that one more start finds a better one"].removesuffix("%"))
    assert chance / 100.0 == pytest.approx(search.chance_of_better, rel=0.06)
    assert found["The search is complete"] == "yes"
    (grid,) = what_was_seen(dataclasses.replace(search, complete=False))
    assert dict(texts(grid))["The search is complete"] == "no"


def test_each_rival_has_what_it_would_change_and_the_options_that_keep_it(claims):
    result = claims.estimator.result_
    (grid,) = rivals(claims.evidence, 0.95)
    assert len(grid.rows) == len(result.rivals) > 1
    summary = claims.estimator.summary().rivals
    for number, (row, rival) in enumerate(zip(grid.rows, result.rivals, strict=True), start=1):
        name, below, starts, status, changes, keep = row
        assert (name.text, name.colour) == (str(number), optimum_colour(rival.starts[0].optimum))
        assert float(below.text) == pytest.approx(result.log_likelihood - rival.log_likelihood, abs=6e-5)
        assert (starts.text, status.text) == (str(len(rival.starts)), rival.status.name)
        assert keep.text == f"n_starts=1, init=result_.rivals[{number - 1}].model"
        for change in summary.changes[number - 1][:6]:
            assert change in changes.text


def test_the_options_keep_the_rival(claims):
    rival = claims.estimator.result_.rivals[0]
    options = claims.estimator.get_params() | {"n_starts": 1, "init": rival.model}
    kept = GatedRegressor(**options).fit(claims.X, claims.y, offset=claims.offset)
    assert kept.log_likelihood_ == pytest.approx(rival.log_likelihood, abs=1e-8)


def test_what_counts_as_significant_has_the_level_of_the_page(claims):
    (usual,), (strict,) = (rivals(claims.evidence, level) for level in (0.95, 0.99))
    assert "its 99% interval" in strict.caption
    assert [row[4] for row in usual.rows] != [row[4] for row in strict.rows]


def test_the_page_shows_both_tables_and_names_are_only_text(claims, page):
    assert "What the search has seen." in page.text
    assert "Rivals: other optima within 2 units of log-likelihood" in page.text
    assert "n_starts=1, init=result_.rivals[0].model" in page.text
    changes = [row[4].text for row in rivals(claims.evidence, 0.95)[0].rows]
    assert any(HOSTILE in text for text in changes)
    assert all(text in page.text for text in changes)
    assert len(page.attributes("script")) == len(page.figures()) + 2


def test_rivals_of_least_squares_are_compared_by_their_sums_of_squares(case):
    estimator = case("least squares, counts").estimator
    result = estimator.result_
    rival = dataclasses.replace(
        result, objective=result.objective - 0.3 * result.residual_variance, rivals=(), starts=result.starts[:2]
    )
    changed = type(estimator)(**estimator.get_params())
    changed.__dict__.update(estimator.__dict__, result_=dataclasses.replace(result, rivals=(rival,)))
    (grid,) = rivals(dataclasses.replace(case("least squares, counts").evidence, estimator=changed), 0.95)
    assert "within 4 residual variances" in grid.caption
    assert grid.columns[1] == ("Residual variances above", True)
    assert texts(grid) == [
        [
            "1",
            "0.6000",
            "2",
            result.status.name.replace("_", " "),
            "no sign, significance or share",
            grid.rows[0][5].text,
        ]
    ]


def test_without_rivals_there_is_no_such_table(tone):
    assert rivals(tone.evidence, 0.95) == []
    section = search_section(tone.evidence, 0.95)
    assert [grid.columns[0][0] for grid in section.grids] == ["Evidence"]


def test_one_expert_has_nothing_to_search(one_expert):
    section = search_section(one_expert.evidence, 0.95)
    assert section.grids == []
    assert section.note == "One regression has one maximum: there is nothing to search."


def test_a_weak_search_is_a_caution():
    assert tables.severity(FitStatus.WEAK_SEARCH) == "caution"
