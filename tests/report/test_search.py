import dataclasses

import numpy as np
import pytest

from gatewise.fit.status import FitStatus
from gatewise.report import search


def test_every_start_is_drawn_once_in_the_colour_of_its_optimum(npreg):
    result = npreg.estimator.result_
    figure = search.starts(result)
    drawn = {int(x): y for trace in figure.data for x, y in zip(trace.x, trace.y, strict=True)}
    assert drawn == {start.index + 1: start.log_likelihood for start in result.starts}
    best = next(trace for trace in figure.data if trace.name == "optimum 1")
    assert set(best.y) == {start.log_likelihood for start in result.starts if start.optimum == 0}
    assert set(best.marker.color) == {search.optimum_colour(0)}


def test_starts_on_the_floor_are_hollow_and_unfinished_ones_crossed(tone):
    result = tone.estimator.result_
    first, second, *others = result.starts
    changed = (
        dataclasses.replace(first, status=FitStatus.ON_FLOOR, on_floor=(1,), optimum=None, log_likelihood=500.0),
        dataclasses.replace(second, status=FitStatus.MAX_ITER, optimum=None, log_likelihood=-10.0),
        *others,
    )
    figure = search.starts(dataclasses.replace(result, starts=changed))
    floor = next(trace for trace in figure.data if trace.name == "on the floor")
    assert (list(floor.y), list(floor.marker.color)) == ([500.0], ["#ffffff"])
    unfinished = next(trace for trace in figure.data if trace.name == "no optimum reached")
    assert (list(unfinished.y), unfinished.marker.symbol) == ([-10.0], "x-thin-open")
    low, high = figure.layout.yaxis.range
    assert low < -10.0 < 500.0 < high


def test_rounding_differences_between_starts_do_not_fill_the_plot(tone):
    low, high = search.starts(tone.estimator.result_).layout.yaxis.range
    assert high - low >= 1.0


def test_a_start_without_a_finite_end_is_no_obstacle(tone):
    result = tone.estimator.result_
    changed = (dataclasses.replace(result.starts[0], log_likelihood=float("-inf"), optimum=None), *result.starts[1:])
    low, high = search.starts(dataclasses.replace(result, starts=changed)).layout.yaxis.range
    assert np.isfinite([low, high]).all()


def test_trace_is_what_was_still_to_gain(tone):
    result = tone.estimator.result_
    line = search.trace(result).data[0]
    assert (np.asarray(line.y) > 0.0).all()
    assert line.y[0] == pytest.approx((result.trace[-1] - result.trace[0]) * result.total_weight)


def test_an_empty_trace_is_an_empty_figure(tone):
    line = search.trace(dataclasses.replace(tone.estimator.result_, trace=np.empty(0))).data[0]
    assert len(line.x) == 0


def test_lower_optima_share_the_lightest_colour():
    assert search.optimum_colour(4) == search.optimum_colour(11)
    assert len({search.optimum_colour(rank) for rank in (0, 1, 2, 3, 4, None)}) == 6


def test_starts_of_least_squares_are_drawn_by_their_sum_of_squares(case):
    result = case("least squares, counts").estimator.result_
    figure = search.starts(result)
    drawn = {int(x): y for trace in figure.data for x, y in zip(trace.x, trace.y, strict=True)}
    assert drawn == {start.index + 1: -2.0 * start.objective for start in result.starts}
    assert drawn
    assert figure.layout.yaxis.title.text == "residual sum of squares at its end"
    assert np.isfinite(figure.layout.yaxis.range).all()
    lost = dataclasses.replace(result.starts[0], optimum=None, objective=2.0 * result.objective)
    figure = search.starts(dataclasses.replace(result, starts=(lost, *result.starts[1:])))
    drawn = {int(x): y for trace in figure.data for x, y in zip(trace.x, trace.y, strict=True)}
    assert drawn[1] == -4.0 * result.objective
    for start in result.starts:
        if start.optimum is not None:
            assert -2.0 * start.objective == pytest.approx(-2.0 * result.optima[start.optimum].objective, rel=1e-5)


def test_descent_of_least_squares_is_a_share_of_its_end(case):
    result = case("least squares, counts").estimator.result_
    line = search.trace(result).data[0]
    assert line.y[0] == pytest.approx(result.trace[0] / result.trace[-1] - 1.0)
    assert (np.diff(line.y) < 0.0).any()
