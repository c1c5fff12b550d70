"""All monomials of d inputs up to a total degree: their values, their names, and what an affine change does to them."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import combinations_with_replacement

import numpy as np
import torch
from torch import Tensor

__all__ = ["Monomials", "count_monomials"]

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def count_monomials(n_features: int, degree: int) -> int:
    """How many monomials of total degree between 1 and `degree` d inputs have: C(d + degree, degree) − 1."""
    return math.comb(n_features + degree, degree) - 1


class Monomials:
    """The monomials x^α with 1 ≤ |α| ≤ degree, by degree and then in the order of the inputs: x, z, x², x·z, z².

    Args:
        n_features: d.
        degree: the highest total degree.

    Attributes:
        factors: for each monomial the inputs that are multiplied, with repetition, in ascending order.

    Example:
        >>> import torch
        >>> monomials = Monomials(n_features=2, degree=2)
        >>> monomials.terms(["x", "z"])
        ['x', 'z', 'x²', 'x*z', 'z²']
        >>> monomials.values(torch.tensor([2.0, 3.0]))
        tensor([2., 3., 4., 6., 9.])
    """

    def __init__(self, n_features: int, degree: int) -> None:
        self.n_features = n_features
        self.degree = degree
        self._by_degree = [list(combinations_with_replacement(range(n_features), r)) for r in range(1, degree + 1)]
        self.factors = [factors for block in self._by_degree for factors in block]
        # Indices are kept as numpy arrays: a module built on torch's meta device, as loading does, keeps them.
        self._recursion: list[tuple[np.ndarray, np.ndarray]] = []
        for lower, block in zip(self._by_degree, self._by_degree[1:], strict=False):
            position = {factors: index for index, factors in enumerate(lower)}
            parent = np.array([position[factors[:-1]] for factors in block], dtype=np.int64)
            self._recursion.append((parent, np.array([factors[-1] for factors in block], dtype=np.int64)))

    def __len__(self) -> int:
        """How many there are."""
        return len(self.factors)

    def values(self, x: Tensor) -> Tensor:
        """x^α, (…, d) ↦ (…, number of monomials): each is a monomial of one degree less times an input."""
        blocks = [x] if self.degree else [x[..., :0]]
        for parent, last in self._recursion:
            blocks.append(blocks[-1][..., _index(parent, x)] * x[..., _index(last, x)])
        return torch.cat(blocks, dim=-1)

    def terms(self, features: Sequence[str]) -> list[str]:
        """The monomials' names, given those of the inputs: "x", "x²", "x*z", "x²*z"."""
        return [
            "*".join(
                features[j] + (str(power).translate(_SUPERSCRIPTS) if power > 1 else "")
                for j, power in Counter(factors).items()
            )
            for factors in self.factors
        ]

    def multinomials(self, power: int) -> list[int]:
        """How often each monomial with |α| ≤ power occurs in (x₁ + … + x_d + 1)^power: power!/(α! (power − |α|)!)."""
        return [
            math.factorial(power)
            // math.factorial(power - len(factors))
            // math.prod(math.factorial(times) for times in Counter(factors).values())
            for factors in self.factors
        ]

    def at_original_inputs(self, coefficients: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Coefficients of the polynomial in x that equals the given one in (x − shift)/scale, linear in the given ones.

        First the scales, then one input after another is shifted by the binomial formula, (x − s)^n = Σ_l C(n, l)
        (−s)^l x^{n−l}. All sums are finite: the identity is exact but for rounding.

        Args:
            coefficients: (…, 1 + number of monomials), the constant's first.
            shift: (d,).
            scale: (d,).

        Returns:
            (…, 1 + number of monomials).
        """
        one = coefficients.new_ones(1)
        moved = coefficients * torch.cat([one, self.values(1.0 / scale)])
        for j, (source, target, times, binomial) in enumerate(self._shifts):
            if not len(source):
                continue
            powers = (-shift[j]) ** _index(times, coefficients)
            factor = powers * torch.from_numpy(binomial).to(powers)
            moved = moved.index_add(-1, _index(target, coefficients), moved[..., _index(source, coefficients)] * factor)
        return moved

    @cached_property
    def _shifts(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """For each input: from which coefficient to which, how many powers fewer l, and C(n, l); the constant is 0."""
        position = {factors: 1 + index for index, factors in enumerate(self.factors)} | {(): 0}
        shifts = []
        for j in range(self.n_features):
            rows: list[tuple[int, int, int, float]] = []
            for factors in self.factors:
                first, n = (factors.index(j), factors.count(j)) if j in factors else (0, 0)
                for fewer in range(1, n + 1):
                    target = factors[:first] + factors[first + fewer :]
                    rows.append((position[factors], position[target], fewer, float(math.comb(n, fewer))))
            columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
            source, to, times = (np.array(column, dtype=np.int64) for column in columns[:3])
            shifts.append((source, to, times, np.array(columns[3], dtype=np.float64)))
        return shifts


def _index(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device)
