"""A column that is a combination of others is refused with the combination; one in tiny units is not called one."""

import numpy as np
import pandas as pd
import pytest

from gatewise.estimators import GatedRegressor
from gatewise.exceptions import InputError

FRAME = pd.DataFrame(
    np.random.default_rng(0).normal(size=(50, 3)) * [1.0, 30.0, 0.01] + [5.0, 0.0, -2.0], columns=list("abc")
)
Y = np.random.default_rng(1).normal(size=50)


def refusal(**columns):
    with pytest.raises(InputError) as refused:
        GatedRegressor(1).fit(FRAME.assign(**columns), Y, sample_weight=1.0 + np.arange(50) % 2)
    return str(refused.value)


def test_the_partners_are_named():
    a, b, c = (FRAME[name] for name in "abc")
    is_sum = "column 'd' is a linear combination of the columns before it, 'd' = "
    assert refusal(d=a + 2.0 * b) == f"{is_sum}'a' + 2 'b': remove it"
    assert refusal(d=-b) == f"{is_sum}-'b': remove it"
    assert refusal(d=c) == f"{is_sum}'c': remove it"
    assert refusal(d=0.5 * a - 250.0 * c + 1.0) == f"{is_sum}0.5 'a' - 250 'c' + 1: remove it"
    assert refusal(d=1.0 - a) == f"{is_sum}-'a' + 1: remove it"
    assert "'d' = 'a' - 'b'; 'e' = 'a' + 3 'c': remove" in refusal(d=a - b, e=a + 3.0 * c)


def test_many_partners_are_listed():
    wide = FRAME.assign(**{f"x{j}": np.random.default_rng(j + 2).normal(size=50) for j in range(6)})
    message = refusal(**{name: wide[name] for name in wide}, total=wide.sum(axis=1))
    assert "'total' of 'a', 'b', 'c', 'x0', 'x1', 'x2', 'x3', 'x4', 'x5': remove it" in message


@pytest.mark.parametrize("family", ["gaussian", "laplace"])
def test_very_small_units_are_to_be_rescaled(family):
    message = r"column '{}' varies by [1-9.]+e-(199|200) only, so little that squares underflow: rescale it"
    with pytest.raises(InputError, match=message.format("b")):
        GatedRegressor(1, family=family).fit(FRAME.assign(b=1e-200 * FRAME["a"]), Y)
    with pytest.raises(InputError, match=message.format("y")):
        GatedRegressor(1, family=family).fit(FRAME, 1e-200 * Y)
