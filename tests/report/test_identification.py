import dataclasses

import numpy as np
import pytest

from gatewise.fit.status import Finding, FitStatus
from gatewise.report import identification


def directions(fitted):
    return fitted.estimator.result_, identification.directions(fitted.estimator.result_, fitted.estimator.names_)


def test_symmetries_come_with_their_dimensions(case):
    result, found = directions(case("cosine"))
    # All but what the reference settles.
    assert {row.count for row in found} <= {count for _, count in result.null_space.sentences}
    assert 0 < sum(row.count for row in found) < result.null_space.dimension
    assert [row.dimensions for row in found if "scale" in row.sentence] == ["2 dimensions"]
    assert not any(row.is_warning for row in found)
    assert not any("`" in row.sentence for row in found)


def test_further_directions_are_named_by_parameters(case):
    estimator = case("poisson").estimator
    result = estimator.result_
    labels = result.coordinates.labels()
    row = np.zeros(len(labels))
    row[[labels.index("experts.bias[0]"), labels.index("experts.weight[1, 0]")]] = -0.6, 0.8
    space = dataclasses.replace(result.null_space, further=np.stack([row] * 25))
    found = identification.directions(dataclasses.replace(result, null_space=space), estimator.names_)
    further = [entry for entry in found if entry.remark == "not explained by a symmetry"]
    assert further[0].sentence.startswith("along +0.8·expert 2: height −0.6·expert 1: (intercept), ")
    assert (len(further), further[-1].dimensions) == (21, "5 dimensions")


def test_what_the_reference_settles_is_left_out(case):
    for name in ("categorical", "hierarchical"):
        result, found = directions(case(name))
        gate = result.model.gate
        settled = {
            f"{gate.name} {symmetry.name}: {symmetry.sentence}" for symmetry in gate.symmetries() if symmetry.pins
        }
        sentences = {sentence for sentence, count in result.null_space.sentences if count}
        assert sentences & settled
        assert len(found) == len(sentences - settled)
    # A factor common to all scores has no reference.
    _, found = directions(case("dense_to_sparse"))
    assert [row.remark for row in found if "scale" in row.sentence] == [""]


def test_what_acts_by_selection_only_is_named(case):
    estimator = case("top_k of one").estimator
    result = estimator.result_
    labels = result.coordinates.labels()
    space = dataclasses.replace(result.null_space, by_selection=np.eye(len(labels))[[1, 2]])
    found = identification.directions(dataclasses.replace(result, null_space=space), estimator.names_)
    (row,) = [entry for entry in found if entry.remark == "by selection only"]
    assert (row.count, row.is_warning) == (2, True)
    assert row.sentence.startswith(
        "gate 2: inner.weight[height], gate 1: inner.bias act only through which experts are selected"
    )


def test_the_gate_of_one_expert_is_left_out(case):
    result, found = directions(case("least squares, one expert"))
    assert result.null_space.dimension > 0
    assert found == []


def test_directions_of_the_compiled_path_are_named_by_quantities(tone):
    result, found = directions(tone)
    assert found == []
    row = np.zeros(result.coordinates.size)
    row[2] = 1.0
    space = dataclasses.replace(result.null_space, further=row[None])
    (found,) = identification.directions(dataclasses.replace(result, null_space=space), tone.estimator.names_)
    assert "+1·expert 1: (intercept)" in found.sentence


def test_what_separates_is_said(case, temperature, tone):
    assert identification.separations(tone.estimator.result_) == []
    (gate,) = identification.separations(temperature.estimator.result_)
    assert gate.startswith("The gate separates")
    assert identification.separations(case("bernoulli").estimator.result_)[-1].startswith("Expert ")
    both = Finding(FitStatus.EXPERT_SEPARATED, "…", {"experts": (0, 2)})
    (experts,) = identification.separations(dataclasses.replace(tone.estimator.result_, findings=(both,)))
    assert experts.startswith("Experts 1, 3 separate:")


def test_stored_standardisations_are_those_of_the_data(case):
    fitted = case("cosine")
    found = identification.standardised_features(fitted.evidence)
    assert [(row.part, row.feature) for row in found] == [("gate", "height"), ("gate", "weight")]
    for row, name in zip(found, fitted.X, strict=True):
        column = fitted.X[name]
        assert float(row.mean.replace("−", "-")) == pytest.approx(column.mean(), rel=1e-4)
        assert float(row.scale) == pytest.approx(column.std(ddof=0), rel=1e-4)
    assert identification.standardised_features(case("poisson").evidence) == []
