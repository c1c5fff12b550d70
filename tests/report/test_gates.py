import numpy as np
import pytest

from gatewise.report import gates
from gatewise.report.palette import expert_colour


def _named(figure, name):
    found = [trace for trace in figure.data if trace.name == name]
    assert len(found) == 1, f"{len(found)} traces are named {name!r}"
    return found[0]


def test_gate_lines_are_the_gates_probabilities_and_sum_to_one(tone):
    figure = gates.gate_along(tone.evidence, 0)
    lines = [_named(figure, f"Expert {expert + 1}") for expert in range(2)]
    np.testing.assert_allclose(lines[0].y + lines[1].y, 1.0, rtol=1e-12)
    logit = tone.estimator.gate_intercept_[0] + tone.estimator.gate_coef_[0, 0] * lines[0].x
    np.testing.assert_allclose(lines[0].y, 1.0 / (1.0 + np.exp(-logit)), rtol=1e-10)


def test_gate_dots_average_the_responsibilities(tone):
    dots = _named(gates.gate_along(tone.evidence, 0), "Expert 1, mean responsibility")
    assert len(dots.x) == 12
    # 150 rows in 12 groups of 12 or 13: their mean is that of the rows up to the difference of group sizes.
    assert np.mean(dots.y) == pytest.approx(tone.evidence.responsibilities[:, 0].mean(), abs=0.01)
    first = np.argsort(tone.X["stretchratio"].to_numpy(), kind="stable")[:12]
    assert dots.y[0] == pytest.approx(tone.evidence.responsibilities[first, 0].mean(), rel=1e-12)


def test_gates_of_several_features_have_no_dots(npreg):
    names = [trace.name for trace in gates.gate_along(npreg.evidence, 0).data]
    assert names == ["rows", "Expert 1", "Expert 2"]


def test_constant_weights_are_bars(co2):
    bars = gates.gate_constant(co2.evidence).data[0]
    np.testing.assert_allclose(bars.x, co2.estimator.gate_weights(co2.X)[0], rtol=1e-12)
    assert list(bars.y) == ["Expert 1", "Expert 2"]
    assert list(bars.marker.color) == [expert_colour(0), expert_colour(1)]
    assert bars.text[0] == "75.5%"
