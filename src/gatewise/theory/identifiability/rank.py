"""The numerical rank of sampled functions, with its gap, and which of them depend on which others."""

from dataclasses import dataclass

import mpmath
import numpy as np

from gatewise.theory.identifiability.parts import Number, Numbers

__all__ = ["Rank", "Span", "circuits", "distinct", "examine", "null_space", "null_vector", "tolerance"]

_SHUFFLES = 12


@dataclass(frozen=True)
class Rank:
    """The rank of a family of functions, each brought to length 1 at the samples.

    Attributes:
        n_functions: how many there are.
        rank: how many singular values are kept.
        singular_values: of the matrix with unit columns, largest first; columns that vanish have none.
        smallest_kept: the smallest singular value that counts as different from 0.
        largest_dropped: the largest one that counts as 0; 0.0 if none is dropped.
        digits: of the functions' values: what is dropped lies at 10^(−digits).
    """

    n_functions: int
    rank: int
    singular_values: tuple[float, ...]
    smallest_kept: float
    largest_dropped: float
    digits: int

    @property
    def is_clear(self) -> bool:
        """Whether all that is dropped lies below 10^(−0.8 digits), a factor 10^(digits/5) under the least kept."""
        return self.largest_dropped <= 10.0 ** (-0.8 * self.digits)

    @property
    def sentence(self) -> str:
        """Rank and gap in words."""
        kept = f"smallest singular value kept {self.smallest_kept:.0e}"
        rounding = 10.0**-self.digits
        size = f"below {rounding:.0e}" if self.largest_dropped < rounding else f"{self.largest_dropped:.0e}"
        dropped = f"largest dropped {size}" if self.largest_dropped else "none dropped"
        doubt = "" if self.is_clear else "; NO CLEAR GAP: the rank is in doubt"
        return f"rank {self.rank} of {self.n_functions} ({self.digits} digits; {kept}, {dropped}{doubt})"


def tolerance(digits: int) -> Number:
    """What counts as 0 beside numbers of size 1 with so many digits."""
    return mpmath.mpf(10) ** (-(6 * digits) // 10)


def normalised(columns: Numbers) -> tuple[Numbers, Numbers]:
    """The columns with rows brought to a largest entry of 1, then to length 1, and those lengths (p,)."""
    largest = np.array([max((abs(value) for value in row), default=mpmath.mpf(0)) for row in columns], dtype=object)
    largest[largest == 0] = mpmath.mpf(1)
    scaled = columns / largest[:, None]
    lengths = np.array([mpmath.sqrt(mpmath.fdot(column, column)) for column in scaled.T], dtype=object)
    divisors = np.array([length if length else mpmath.mpf(1) for length in lengths], dtype=object)
    return scaled / divisors, lengths


def examine(columns: Numbers, digits: int) -> Rank:
    """The rank of functions sampled at the rows of (N, p), N > p."""
    units, lengths = normalised(columns)
    small = tolerance(digits)
    units = units[:, [place for place, length in enumerate(lengths) if length > small]]
    p = columns.shape[1]
    if not units.shape[1]:
        return Rank(p, 0, (), 0.0, 0.0, digits)
    triangle = _orthogonal(units)[1]
    values = mpmath.svd_r(mpmath.matrix(triangle.tolist()), compute_uv=False)
    singular = sorted((abs(values[i]) for i in range(len(values))), reverse=True)
    kept = [value for value in singular if value > small]
    dropped = singular[len(kept) :]
    return Rank(
        p,
        len(kept),
        tuple(float(value) for value in singular),
        float(kept[-1]),
        float(dropped[0]) if dropped else 0.0,
        digits,
    )


def _orthogonal(units: Numbers) -> tuple[Numbers, Numbers]:
    """Q with orthonormal columns, or 0 where one depends on those before, and upper triangular R: columns = Q R."""
    q, p = units.copy(), units.shape[1]
    triangle = np.full((p, p), mpmath.mpf(0), dtype=object)
    for j in range(p):
        for _ in range(2):
            if j:
                along = q[:, :j].T @ q[:, j]
                triangle[:j, j] = triangle[:j, j] + along
                q[:, j] = q[:, j] - q[:, :j] @ along
        length = mpmath.sqrt(mpmath.fdot(q[:, j], q[:, j]))
        triangle[j, j] = length
        # Rounding noise has no direction: it must not take part in what follows.
        floor = mpmath.eps * 10**6
        q[:, j] = q[:, j] / length if length > floor else q[:, j] * 0
    return q, triangle


def _dependent(units: Numbers, small: Number) -> Numbers:
    """Null vectors, one row for each column that depends on those before it: echelon form from the right."""
    n, p = units.shape
    basis: list[int] = []
    q = np.empty((n, 0), dtype=object)
    triangle: list[list[Number]] = []
    rows = []
    for j in range(p):
        rest, along = units[:, j], np.full(len(basis), mpmath.mpf(0), dtype=object)
        for _ in range(2):
            if basis:
                step = q.T @ rest
                along, rest = along + step, rest - q @ step
        length = mpmath.sqrt(mpmath.fdot(rest, rest))
        if length > small:
            triangle.append([*along, length])
            q = np.concatenate([q, (rest / length)[:, None]], axis=1)
            basis.append(j)
            continue
        coefficients = list(along)
        for i in reversed(range(len(basis))):
            coefficients[i] = coefficients[i] / triangle[i][i]
            for above in range(i):
                coefficients[above] = coefficients[above] - triangle[i][above] * coefficients[i]
        row = np.full(p, mpmath.mpf(0), dtype=object)
        row[j] = mpmath.mpf(-1)
        for i, place in enumerate(basis):
            row[place] = coefficients[i]
        rows.append(row)
    return np.array(rows, dtype=object).reshape(len(rows), p)


def circuits(columns: Numbers, digits: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Sets of functions that depend on each other, of which no part does, the shortest ones first.

    Null vectors are brought to echelon form in several orders of the columns. Each row of such a form is a null vector
    of which no part is one.

    Args:
        columns: functions at samples, (N, p), the simplest ones first.
        digits: of their values.
        seed: for the orders.

    Returns:
        Sets of columns, ascending, that contain a basis of all dependences.
    """
    units, lengths = normalised(columns)
    small = tolerance(digits)
    zero = [place for place, length in enumerate(lengths) if not length > small]
    alive = [place for place, length in enumerate(lengths) if length > small]
    null = _dependent(units[:, alive], small)
    found: set[tuple[int, ...]] = {(place,) for place in zero}
    generator = np.random.default_rng(seed)
    p = len(alive)
    preferred = [np.arange(p), np.arange(p)[::-1], *(generator.permutation(p) for _ in range(_SHUFFLES))]
    for order in preferred if len(null) else []:
        for row in _echelon(null, order, small):
            size = max(abs(value) for value in row)
            found.add(tuple(alive[place] for place in range(p) if abs(row[place]) > small * size))
    return sorted(found, key=lambda places: (len(places), places))


class Span:
    """The null vectors that have been taken, to see which others follow from them.

    Args:
        columns: functions at samples, (N, p).
        digits: of their values.
    """

    def __init__(self, columns: Numbers, digits: int) -> None:
        self._columns, self._digits = columns, digits
        self._lengths = normalised(columns)[1]
        self._taken: list[Numbers] = []
        self._known: dict[tuple[int, ...], Numbers | None] = {}

    def _unit(self, support: tuple[int, ...]) -> Numbers | None:
        """The null vector of these functions as unit columns, of length 1, or None if there is not exactly one."""
        vector = null_vector(self._columns[:, list(support)], self._digits)
        if vector is None:
            return None
        small = tolerance(self._digits)
        unit = np.full(self._columns.shape[1], mpmath.mpf(0), dtype=object)
        for entry, value in zip(support, vector, strict=True):
            unit[entry] = value * (self._lengths[entry] if self._lengths[entry] > small else 1)
        return unit / mpmath.sqrt(mpmath.fdot(unit, unit))

    def _rest(self, support: tuple[int, ...]) -> Numbers | None:
        """What the null vector of these functions has beyond those taken, of length 1, or None if nothing."""
        if support not in self._known:
            self._known[support] = self._unit(support)
        rest, small = self._known[support], tolerance(self._digits)
        if rest is None:
            return None
        for _ in range(2):
            for other in self._taken:
                # An array on the right of a number of mpmath is first formatted as text, at a great cost.
                rest = rest - other * mpmath.fdot(other, rest)
        length = mpmath.sqrt(mpmath.fdot(rest, rest))
        return rest / length if length > small else None

    def holds(self, support: tuple[int, ...]) -> bool:
        """Whether the dependence of these functions follows from those taken, or there is none."""
        return self._rest(support) is None

    def add(self, support: tuple[int, ...]) -> bool:
        """Take the dependence of these functions; False if it follows from those taken."""
        rest = self._rest(support)
        if rest is None:
            return False
        self._taken.append(rest)
        return True


def null_space(columns: Numbers, digits: int) -> Numbers:
    """All dependences of functions (N, p): rows c with Σ cᵢ columns[:, i] = 0, (p − rank, p), no orthonormal basis."""
    units, lengths = normalised(columns)
    small = tolerance(digits)
    p = columns.shape[1]
    alive = [place for place, length in enumerate(lengths) if length > small]
    null = _dependent(units[:, alive], small)
    found = np.full((p - len(alive) + len(null), p), mpmath.mpf(0), dtype=object)
    for row, place in enumerate(set(range(p)) - set(alive)):
        found[row, place] = mpmath.mpf(1)
    for row, vector in enumerate(null):
        found[p - len(alive) + row, alive] = vector / lengths[alive]
    return found


def distinct(columns: Numbers, digits: int) -> int:
    """How many different functions there are among the columns (N, p); all that vanish are one."""
    small = tolerance(digits)
    sizes = np.array([max(abs(value) for value in column) for column in columns.T], dtype=object)
    largest = max(sizes, default=mpmath.mpf(1))
    kept: list[int] = []
    for place in range(columns.shape[1]):
        scale = small * max(sizes[place], small * largest)
        if not any(
            abs(sizes[other] - sizes[place]) <= scale
            and all(abs(a - b) <= scale for a, b in zip(columns[:, other], columns[:, place], strict=True))
            for other in kept
        ):
            kept.append(place)
    return len(kept)


def _echelon(rows: Numbers, order: Numbers, small: Number) -> Numbers:
    """Reduced echelon form with pivots sought in this order of the columns; rows that vanish are left out."""
    matrix = rows.copy()
    done = 0
    for place in order:
        if done == len(matrix):
            break
        pivot = done + max(range(len(matrix) - done), key=lambda i: abs(matrix[done + i, place]))
        if abs(matrix[pivot, place]) <= small:
            continue
        matrix[[done, pivot]] = matrix[[pivot, done]]
        matrix[done] = matrix[done] / matrix[done, place]
        for i in range(len(matrix)):
            if i != done and matrix[i, place] != 0:
                matrix[i] = matrix[i] - matrix[done] * matrix[i, place]
        done += 1
    return matrix[:done]


def null_vector(columns: Numbers, digits: int) -> Numbers | None:
    """The null vector of functions of which all but one are independent, (p,), or None if there is not exactly one."""
    scaled, lengths = normalised(columns)
    small = tolerance(digits)
    if columns.shape[1] == 1:
        return np.array([mpmath.mpf(1)], dtype=object) if not lengths[0] > small else None
    if any(not length > small for length in lengths):
        return None
    null = _dependent(scaled, small)
    return null[0] / lengths if len(null) == 1 else None
