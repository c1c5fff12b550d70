"""r̄(m): up to which order m fitted atoms of a Gaussian expert can cancel each other."""

import functools
from dataclasses import dataclass
from typing import Any

import sympy

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.theory.polynomial_certificates import (
    EliminationCertificate,
    SignChangeCertificate,
    elimination_of_two_atoms,
)
from gatewise.theory.polynomial_system import order_term

__all__ = ["ExplicitSolution", "RBar", "explicit_solution", "r_bar"]

_MOST_ATOMS = 30


@dataclass(frozen=True)
class ExplicitSolution:
    """A real solution with positive weights of the system of m atoms up to order 2m − 1.

    The Gauss–Hermite rule with m nodes integrates polynomials up to degree 2m − 1 exactly against the normal density,
    Σᵢ wᵢ exp(bᵢt) = exp(t²/2) + O(t^2m). Nodes bᵢ and sᵢ = −1/2 therefore leave Σᵢ wᵢ exp(bᵢt + sᵢt²) = 1 + O(t^2m).
    With Δβ₁ = Δa = 0 this solves every equation of the full system.

    Attributes:
        m: number of atoms.
        weights: positive and adding up to one.
        intercepts: Δb, the roots of the Hermite polynomial He_m.
        variances: half of Δσ², all −1/2.
    """

    m: int
    weights: tuple[sympy.Expr, ...]
    intercepts: tuple[sympy.Expr, ...]
    variances: tuple[sympy.Expr, ...]

    def residuals(self, r: int) -> tuple[sympy.Rational, ...]:
        """Left sides of the equations of order 1, …, r, in rational numbers and without the nodes.

        The rule's sum over a polynomial is the rule's sum over its remainder modulo He_m, and the rule is exact below
        degree m, so this is a normal expectation of the remainder.

        Example:
            >>> explicit_solution(3).residuals(6)
            (0, 0, 0, 0, 0, -1/120)
        """
        x = sympy.Symbol("x")
        nodes = sympy.Poly(_hermite(self.m, x), x)
        found = []
        for order in range(1, r + 1):
            remainder = sympy.Poly(order_term(order, x, sympy.Rational(-1, 2)), x).rem(nodes)
            moments = ((power, sympy.factorial2(power - 1)) for (power,), _ in remainder.terms() if power % 2 == 0)
            found.append(
                sum((remainder.coeff_monomial(x**power) * moment for power, moment in moments), sympy.Integer(0))
            )
        return tuple(found)


def _hermite(m: int, x: sympy.Symbol) -> sympy.Expr:
    """The polynomial He_m, orthogonal for the standard normal density."""
    return sympy.expand(sympy.hermite(m, x / sympy.sqrt(2)) / sympy.sqrt(2) ** m)


def _node_weight(m: int, x: sympy.Symbol) -> sympy.Expr:
    """The rule's weight (m − 1)!/(m He_{m−1}(x)²) at a node x, as a polynomial in x of degree below m."""
    nodes = sympy.Poly(_hermite(m, x), x)
    inverse = sympy.Poly(m * _hermite(m - 1, x) ** 2, x).rem(nodes).invert(nodes)
    return sympy.factorial(m - 1) * inverse.as_expr()


@functools.cache
def explicit_solution(m: int) -> ExplicitSolution:
    """A solution of the system of m atoms up to order 2m − 1, from the Gauss–Hermite rule with m nodes.

    It shows r̄(m) ≥ 2m for every m.

    Args:
        m: number of atoms, at least 2. Nodes are radicals up to m = 5, isolated roots of He_m above.

    Raises:
        InputError: m is not an integer of at least 2.

    Example:
        >>> from gatewise.theory.polynomial_system import order_sums
        >>> solution = explicit_solution(3)
        >>> solution.intercepts, solution.weights
        ((0, -sqrt(3), sqrt(3)), (2/3, 1/6, 1/6))
        >>> order_sums(solution.weights, solution.intercepts, solution.variances, 5)
        (0, 0, 0, 0, 0)
    """
    _require_atoms(m)
    x = sympy.Symbol("x")
    nodes = sympy.Poly(_hermite(m, x), x)
    roots: Any = sympy.real_roots(nodes) if m > 5 else sympy.roots(nodes, multiple=True)
    found = sorted(roots, key=lambda root: (abs(root.evalf()), root.evalf()))
    weight = _node_weight(m, x)
    weights = tuple(sympy.expand(weight.xreplace({x: node})) for node in found)
    return ExplicitSolution(m, weights, tuple(found), (sympy.Rational(-1, 2),) * m)


@dataclass(frozen=True)
class RBar:
    """The value r̄(m): the smallest order up to which the system of m atoms has only trivial real solutions.

    Attributes:
        m: number of atoms in the cell.
        value: r̄(m).
        solution: a solution at order r̄(m) − 1, which any reader can substitute.
        certificate: why there is none at order r̄(m); `certificate.check()` verifies it again.
        status: how sure each half is.
        literature: what is published.
    """

    m: int
    value: int
    solution: ExplicitSolution
    certificate: EliminationCertificate | SignChangeCertificate
    status: str
    literature: str


@functools.cache
def r_bar(m: int) -> RBar:
    """How far m fitted atoms of a Gaussian expert can cancel each other: the exponent of b in an over-specified cell.

    r̄(m) is the smallest r for which the polynomial system has no solution over the reals with positive weights and some
    Δb or Δσ² different from zero. Since any solution of the equations (0, ℓ) extends by Δβ₁ = Δa = 0, the full system
    and that of location-scale mixtures have one r̄, and it does not depend on the number of inputs.

    - r̄(m) ≥ 2m: the Gauss–Hermite solution at order 2m − 1, checked in exact arithmetic.
    - r̄(m) ≤ 2m: for m = 2 an elimination that `certificate.check()` repeats in exact arithmetic; for every m the
      sign-change argument of `SignChangeCertificate`, a proof on paper.

    Args:
        m: number of atoms in the cell, at least 2; a cell with one atom has exponent 1.

    Raises:
        InputError: m is not an integer of at least 2.

    Source:
        arXiv:2305.03288, Lemma 1: r̄(2) = 4, r̄(3) = 6; Ho and Nguyen (2016), Annals of Statistics 44: at least 7 for
        m ≥ 4. That r̄(m) = 2m is conjectured in arXiv:2305.03288.

    Example:
        >>> [r_bar(m).value for m in (2, 3, 4)]
        [4, 6, 8]
        >>> r_bar(2).certificate.check()
        True
    """
    _require_atoms(m)
    solution = explicit_solution(m)
    lower = f"a solution at r = {2 * m - 1} is checked here in exact arithmetic"
    if m == 2:
        certificate = elimination_of_two_atoms()
        status = f"{lower}; that there is none at r = 4 is certified here by elimination, in exact arithmetic"
        return RBar(m, 4, solution, certificate, status, "r̄(2) = 4: arXiv:2305.03288, Lemma 1")
    certificate = SignChangeCertificate(m)
    paper = f"that there is none at r = {2 * m} follows from a sign-change argument, a proof on paper"
    if m == 3:
        status = f"literature value; {lower}; {paper}, not certified here by computer algebra"
        return RBar(m, 6, solution, certificate, status, "r̄(3) = 6: arXiv:2305.03288, Lemma 1")
    status = f"{lower}, so r̄({m}) ≥ {2 * m} is certified; {paper}, and we know of no publication of it"
    literature = f"r̄({m}) ≥ 7: Ho and Nguyen (2016); r̄(m) = 2m is a conjecture of arXiv:2305.03288"
    return RBar(m, 2 * m, solution, certificate, status, literature)


def _require_atoms(m: int) -> None:
    if isinstance(m, bool) or not isinstance(m, int) or m < 2:
        raise InputError(
            f"m must be an integer of at least 2, the fitted atoms in one cell, not {shown(m)}: with one atom in the "
            "cell nothing can cancel, and every exponent is 1"
        )
    if m > _MOST_ATOMS:
        raise InputError(f"m is {m:,}: the solution is checked in exact arithmetic for up to {_MOST_ATOMS} atoms")
