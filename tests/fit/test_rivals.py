"""Optima that the data hardly tell from the best: which they are, and what they would change."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from gatewise import GatedRegressor
from gatewise.fit import FitOptions, fit
from gatewise.inference import Names, summarise
from gatewise.inference.parameters import parameter_table
from gatewise.inference.rivals import rival_changes, rivals_table
from tests.fit.r_tables import insurance


@pytest.fixture(scope="module")
def found():
    table = insurance()
    return fit(table.model, table.x, table.y, gate_x=table.gate_x, offset=table.offset)


@pytest.fixture(scope="module")
def names():
    columns = [f"c{j}" for j in range(insurance().x.shape[1])]
    return Names(columns, [], "Claims")


def test_rivals_are_the_other_optima_within_two_units_best_first(found):
    expected = [
        optimum.log_likelihood
        for optimum in found.optima[1:]
        if not optimum.on_floor and found.log_likelihood - optimum.log_likelihood <= 2.0
    ]
    assert len(expected) >= 3
    assert [rival.log_likelihood for rival in found.rivals] == pytest.approx(expected[:5], rel=1e-12)
    assert all(rival.rivals == rival.optima == () for rival in found.rivals)
    for rival in found.rivals:
        own = next(o for o in found.optima if o.log_likelihood == pytest.approx(rival.log_likelihood, rel=1e-12))
        assert len(rival.starts) == own.n_starts


def test_a_fit_that_begins_at_a_rival_keeps_it(found):
    table = insurance()
    for rival in found.rivals:
        options = FitOptions(n_starts=1, init=rival.model)
        again = fit(table.model, table.x, table.y, gate_x=table.gate_x, offset=table.offset, options=options)
        assert again.log_likelihood == pytest.approx(rival.log_likelihood, rel=1e-10)
        assert again.status is rival.status


def test_experts_of_rivals_stand_in_the_order_in_which_they_share_rows(found):
    table = insurance()
    x, gate_x = torch.from_numpy(table.x), torch.from_numpy(table.gate_x)

    def shares(model):
        rate = model.experts(x)[0].numpy() + table.offset[:, None]
        joint = model.gate.logits(gate_x).numpy() + table.y[:, None] * rate - np.exp(rate)
        return np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))

    kept = shares(found.model)
    for rival in found.rivals:
        overlap = kept.T @ shares(rival.model)
        assert np.trace(overlap) >= np.trace(overlap[:, ::-1])


def test_what_a_rival_changes_is_what_its_own_table_says(found, names):
    table = rivals_table(found, names)
    assert list(table["rival"]) == list(range(1, len(found.rivals) + 1))
    assert (table["below"].between(0.0, 2.0)).all()
    kept = parameter_table(found, names)
    for rival, changes in zip(found.rivals, table["changes"], strict=True):
        there = parameter_table(rival, names)
        significant = [
            f"{own['component']}: {own['term']}"
            for own, other in zip(kept.to_dict("records"), there.to_dict("records"), strict=True)
            if (own["p_value"] < 0.05) != (other["p_value"] < 0.05)
        ]
        said = [change for change in changes if "significant" in change or "sign" in change]
        assert all(any(change.startswith(name) for change in said) for name in significant)
        moved = np.abs(found.effective_rows - rival.effective_rows) / found.total_weight > 0.05
        assert [f"expert {i + 1} has a share" in " ".join(changes) for i in range(2)] == list(moved)


def test_signs_count_where_they_are_significant(found, names):
    mirrored = dataclasses.replace(found, theta=-found.theta)
    changes = rival_changes(found, mirrored, names)
    strong = parameter_table(found, names).query("p_value < 0.05")
    assert len([change for change in changes if "has the other sign and significant in both" in change]) == len(strong)
    assert rival_changes(found, found, names) == []


def test_the_summary_shows_rivals_in_every_rendering(found, names):
    summary = summarise(found, names)
    text = summary.to_text()
    assert "Rivals: other optima within 2 units of log-likelihood, and what they would change" in text
    assert "init=result_.rivals[0].model" in " ".join(text.split())
    assert "init=result_.rivals[0].model" in summary.to_markdown()
    assert "Rivals:" in summary.to_html()
    content = json.loads(summary.to_json())
    assert [rival["rival"] for rival in content["rivals"]] == list(range(1, len(found.rivals) + 1))
    assert content["statistics"]["search"] == dataclasses.asdict(found.search)


def test_names_of_columns_are_escaped_where_rivals_are_listed(found):
    columns = [f"<b>{j}|&" for j in range(insurance().x.shape[1])]
    summary = summarise(found, Names(columns, [], "Claims"))
    assert "<b>" not in summary.to_html()
    assert "<b>" not in summary.to_markdown()


@pytest.mark.filterwarnings("ignore::gatewise.exceptions.FitWarning")
def test_least_squares_counts_in_residual_variances():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 1))
    y = np.where(x[:, 0] > 0.0, 1.0 + x[:, 0], -x[:, 0]) + 0.5 * generator.normal(size=60)
    regressor = GatedRegressor(3, objective="least_squares", n_starts=6, max_iter=80, random_state=0).fit(x, y)
    result = regressor.result_
    assert result.rivals
    for rival in result.rivals:
        assert 0.0 <= (result.objective - rival.objective) / result.residual_variance <= 2.0
    assert isinstance(regressor.summary().rivals, pd.DataFrame)
