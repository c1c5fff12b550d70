import numpy as np
import pytest

from gatewise.estimators.seeds import seed_from
from gatewise.exceptions import InputError


def test_a_whole_number_is_the_seed_itself():
    assert seed_from(0) == 0
    assert seed_from(np.int32(12)) == 12


@pytest.mark.parametrize("kind", [np.random.RandomState, np.random.default_rng])
def test_a_generator_gives_one_draw_and_moves_on(kind):
    generator = kind(3)
    first, second = seed_from(generator), seed_from(generator)
    assert first != second
    assert first == seed_from(kind(3))
    assert 0 <= first < 2**31


def test_none_takes_numpys_global_generator():
    state = np.random.get_state()  # noqa: NPY002 (the legacy global state is what None means in scikit-learn)
    try:
        np.random.seed(5)  # noqa: NPY002
        first = seed_from(None)
        np.random.seed(5)  # noqa: NPY002
        assert seed_from(None) == first
        assert seed_from(None) != first
    finally:
        np.random.set_state(state)  # noqa: NPY002


@pytest.mark.parametrize("value", [-1, 1.5, "0", True, [1]])
def test_anything_else_is_an_input_error(value):
    with pytest.raises(
        InputError, match=r"random_state must be a whole number of at least 0, a NumPy generator or None"
    ):
        seed_from(value)
