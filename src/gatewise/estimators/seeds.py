"""From scikit-learn's `random_state` to the one whole number that keys everything random."""

import numpy as np
from sklearn.utils import check_random_state

from gatewise.exceptions import InputError
from gatewise.messages import shown

__all__ = ["RandomState", "seed_from"]

RandomState = int | np.random.RandomState | np.random.Generator | None

_SEEDS = 2**31


def seed_from(random_state: RandomState) -> int:
    """A seed: the number itself, or one draw from the generator (from NumPy's global one if None).

    Raises:
        InputError: `random_state` is neither a non-negative whole number, nor a generator, nor None.

    Example:
        >>> seed_from(7)
        7
    """
    if isinstance(random_state, int | np.integer) and not isinstance(random_state, bool) and random_state >= 0:
        return int(random_state)
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(_SEEDS))
    if random_state is None or isinstance(random_state, np.random.RandomState):
        return int(check_random_state(random_state).randint(_SEEDS, dtype=np.int64))
    raise InputError(
        f"random_state must be a whole number of at least 0, a NumPy generator or None, not {shown(random_state)}"
    )
