"""Whether the data see, at second order, that atoms have split: which squares of steps no derivative can hide."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from gatewise.ops.linalg import orthonormal_rows
from gatewise.theory.identifiability.atom import Order
from gatewise.theory.identifiability.parts import Numbers

__all__ = ["Squares", "hidden_squares"]

_STARTS = 12
_ENOUGH = 4
_FOUND = 1e-9
_CERTAIN = 1e-7
_PRESENT = 1e-3


@dataclass(frozen=True)
class Squares:
    """What becomes of Σ w Δθ Δθᵀ when fitted atoms lie around one true atom at θ + Δθ.

    To second order such atoms add c F + Σ mᵢ ∂ᵢF + ½ Σ Mᵢⱼ ∂ᵢ∂ⱼF to the sum over atoms, M = Σ w Δθ Δθᵀ positive
    semidefinite, c and m free. Where this vanishes with M ≠ 0, the split is not seen at this order.

    Attributes:
        seen: True if no M ≠ 0 is hidden, False if one is, None if neither was shown.
        hidden: the parameters whose squares can be hidden, none if all are seen.
        certificate: if seen, the smallest eigenvalue, over the largest, of a positive definite W that is orthogonal to
            every M the dependences allow: no positive semidefinite M ≠ 0 is. If hidden, the distance of a normed
            positive semidefinite M from those.
    """

    seen: bool | None
    hidden: tuple[str, ...]
    certificate: float

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        if self.seen is None:
            return "undecided: neither a hidden split nor a certificate that there is none was found"
        if self.seen:
            return (
                "every split of an atom is seen at second order (certificate: a positive definite matrix, smallest "
                f"over largest eigenvalue {self.certificate:.2g})"
            )
        return (
            f"splits in {', '.join(self.hidden)} are hidden at second order: a combination of derivatives vanishes "
            "with squares of these steps in it"
        )


def hidden_squares(null: Numbers, orders: Sequence[Order], labels: Sequence[str], seed: int = 0) -> Squares:
    """Search the dependences of an atom's derivatives up to order 2 for positive semidefinite second-order parts.

    Ours, not published: the published conditions ask that there be no dependence at all.

    Args:
        null: rows of coefficients of all dependences, (·, number of orders).
        orders: the derivatives.
        labels: the parameters.
        seed: of the starts.

    Example:
        >>> rows = np.array([[0, 2, 0, 0, 0, -1]])  # ∂²u/∂b² = 2 ∂u/∂s, of u, s, b, ss, sb, bb
        >>> hidden_squares(rows, [(), (0,), (1,), (0, 0), (0, 1), (1, 1)], ["s", "b"]).hidden
        ('b',)
    """
    p = len(labels)
    matrices = []
    for row in null:
        matrix = np.zeros((p, p))
        for order, value in zip(orders, row, strict=True):
            if len(order) == 2:
                i, j = order
                matrix[i, j] = matrix[j, i] = float(value) * (2.0 if i == j else 1.0)
        matrices.append(matrix.reshape(-1))
    basis = orthonormal_rows(np.array(matrices).reshape(len(matrices), p * p))

    def outside(matrix: np.ndarray) -> np.ndarray:
        flat = matrix.reshape(-1)
        return (flat - basis.T @ (basis @ flat)).reshape(p, p)

    def distance(entries: np.ndarray) -> tuple[float, np.ndarray]:
        factor = entries.reshape(p, p)
        size = (factor * factor).sum()
        rest = outside(factor @ factor.T)
        value = (rest * rest).sum() / size**2
        gradient = 4.0 * rest @ factor / size**2 - 4.0 * value * factor / size
        return value, gradient.reshape(-1)

    if not p:
        return Squares(True, (), 1.0)
    generator = np.random.default_rng(seed)
    total = np.zeros((p, p))
    nearest, best = None, np.inf
    found, missed = 0, 0
    for _ in range(_STARTS):
        start = generator.normal(size=p * p)
        options = {"maxiter": 600, "ftol": 1e-24, "gtol": 1e-12}
        solution = minimize(distance, start, jac=True, method="L-BFGS-B", options=options)
        factor = solution.x.reshape(p, p)
        matrix = factor @ factor.T / (factor * factor).sum()
        if solution.fun < best:
            nearest, best = matrix, float(solution.fun)
        if solution.fun < _FOUND:
            total = total + matrix
            found += 1
        else:
            missed += 1
        # The problem is convex in M: starts that agree settle it.
        if max(found, missed) == _ENOUGH:
            break
    if total.any():
        total = total / np.trace(total)
        hidden = tuple(label for label, value in zip(labels, np.diag(total), strict=True) if value > _PRESENT)
        return Squares(False, hidden, float(np.sqrt((outside(total) ** 2).sum())))
    if nearest is None:
        return Squares(None, (), 0.0)
    values = np.linalg.eigvalsh(outside(nearest))
    if values[0] > _CERTAIN * values[-1]:
        return Squares(True, (), float(values[0] / values[-1]))
    return Squares(None, (), float(values[0] / values[-1]))
