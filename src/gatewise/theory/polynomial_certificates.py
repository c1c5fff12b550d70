"""Why the polynomial system has no further solutions: what can be checked again, a proof on paper, and an attempt."""

import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal, cast

import sympy

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.theory.polynomial_system import order_sums

__all__ = [
    "Attempt",
    "EliminationCertificate",
    "EliminationStep",
    "SignChangeCertificate",
    "attempt_elimination",
    "elimination_of_two_atoms",
]


@dataclass(frozen=True)
class EliminationStep:
    """The equation of this order, with what earlier steps gave, is linear in `symbol` and gives it `value`."""

    order: int
    symbol: sympy.Symbol
    value: sympy.Expr


@dataclass(frozen=True)
class EliminationCertificate:
    """Two atoms have no solution up to order 4 but the trivial one: a polynomial without positive roots.

    The system is Σᵢ wᵢ Σ bᵢ^n₁ sᵢ^n₂ / (n₁! n₂!) = 0, n₁ + 2n₂ = ℓ, ℓ = 1, …, 4.

    1. If both b are zero, order 2 is Σ wᵢsᵢ and order 4 is ½ Σ wᵢsᵢ², so both s are zero.
    2. If one b is zero, order 1 makes the other one zero.
    3. Otherwise scale b₁ to 1 and the second weight to 1: (b, s) and (cb, c²s) solve the system together, whatever the
       sign of c. Orders 1, 2 and 3 then give the other unknowns as functions of the weight w, and order 4 becomes
       `polynomial` times something that is not zero. It has no root w > 0.

    Attributes:
        weight: the symbol w.
        steps: orders 1 to 3, in turn.
        polynomial: what order 4 requires to vanish.
    """

    weight: sympy.Symbol
    steps: tuple[EliminationStep, ...]
    polynomial: sympy.Poly

    @property
    def statement(self) -> str:
        """What it says, in one sentence."""
        return (
            f"with one b and one weight scaled to 1, orders 1 to 3 give the other unknowns and order 4 requires "
            f"{sympy.factor(self.polynomial.as_expr())} = 0, which no weight {self.weight} > 0 satisfies"
        )

    def check(self) -> bool:
        """Verify every step again in exact arithmetic.

        Example:
            >>> certificate = elimination_of_two_atoms()
            >>> sympy.factor(certificate.polynomial.as_expr())
            (w + 1)*(w**2 + w + 1)
            >>> certificate.check()
            True
        """
        w = self.weight
        (b2, s1, s2), one = sympy.symbols("b2 s1 s2"), sympy.Integer(1)
        v = sympy.Symbol("v")
        without = order_sums([w, v], [0, 0], [s1, s2], 4)
        if sympy.expand(without[3] - (w * s1**2 + v * s2**2) / 2) != 0:
            return False
        equations = order_sums([w, one], [one, b2], [s1, s2], 4)
        known: dict[sympy.Symbol, Any] = {}
        for step in self.steps:
            numerator, denominator = _fraction(equations[step.order - 1].xreplace(known))
            linear = sympy.Poly(numerator, step.symbol)
            if linear.degree() != 1 or linear.LC().free_symbols - {w}:
                return False
            if not (_never_zero(linear.LC(), w) and _never_zero(denominator, w)):
                return False
            if sympy.cancel(numerator.xreplace({step.symbol: step.value})) != 0:
                return False
            known = {symbol: value.xreplace({step.symbol: step.value}) for symbol, value in known.items()}
            known[step.symbol] = step.value
        numerator, denominator = _fraction(equations[3].xreplace(known))
        quotient, rest = sympy.div(sympy.Poly(numerator, w), self.polynomial)
        return bool(
            rest.is_zero
            and _never_zero(quotient.as_expr(), w)
            and _never_zero(denominator, w)
            and _never_zero(self.polynomial.as_expr(), w)
        )


def _fraction(expression: Any) -> tuple[Any, Any]:
    return sympy.fraction(sympy.cancel(sympy.together(expression)))


def _never_zero(expression: sympy.Expr, w: sympy.Symbol) -> bool:
    """Whether a polynomial in w has no root w > 0, by Sturm's theorem; powers of w are taken out first."""
    polynomial = sympy.Poly(expression, w)
    if polynomial.is_zero:
        return False
    while polynomial.eval(0) == 0:
        polynomial = polynomial.quo(sympy.Poly(w, w))
    return polynomial.count_roots(0, None) == 0


def elimination_of_two_atoms() -> EliminationCertificate:
    """The certificate that two atoms have no non-trivial solution at order 4, so r̄(2) ≤ 4.

    Example:
        >>> for step in elimination_of_two_atoms().steps:
        ...     print(step.order, step.symbol, step.value)
        1 b2 -w
        2 s2 -w*(2*s1 + w + 1)/2
        3 s1 -w/3 - 1/6
    """
    w, b2, s1, s2 = sympy.symbols("w b2 s1 s2")
    equations = order_sums([w, 1], [1, b2], [s1, s2], 4)
    known: dict[sympy.Symbol, Any] = {}
    steps = []
    for order, symbol in ((1, b2), (2, s2), (3, s1)):
        (value,) = sympy.solve(equations[order - 1].xreplace(known), symbol)
        shown = sympy.factor(value) if order == 2 else sympy.expand(value)
        steps.append(EliminationStep(order, symbol, cast(sympy.Expr, shown)))
        known = {**{name: found.xreplace({symbol: value}) for name, found in known.items()}, symbol: value}
    numerator, _ = _fraction(equations[3].xreplace(known))
    positive = [factor for factor, _ in sympy.factor_list(numerator, w)[1] if factor != w]
    return EliminationCertificate(w, tuple(steps), sympy.Poly(sympy.Mul(*positive), w))


@dataclass(frozen=True)
class SignChangeCertificate:
    """A proof on paper that m atoms have no solution up to order 2m but the trivial one; nothing here computes it.

    Attributes:
        m: number of atoms.
    """

    m: int

    @property
    def statement(self) -> str:
        """The argument, with its numbers.

        Example:
            >>> print(SignChangeCertificate(3).statement[:86])
            Suppose 3 atoms with positive weights, not all trivial, solve the orders 1 to 6. Choos
        """
        m, r = self.m, 2 * self.m
        return (
            f"Suppose {m} atoms with positive weights, not all trivial, solve the orders 1 to {r}. Choose c so large "
            "that every c + 2sᵢ is positive, and let g be the density Σ wᵢ N(bᵢ, c + 2sᵢ) minus Σ wᵢ times N(0, c). "
            f"(a) The system says that all moments of g up to order {r} vanish. If g changed sign at most {r} times, a "
            "polynomial with its signs would integrate against g to something positive; so g changes sign at least "
            f"{r + 1} times. (b) g is a combination of at most {m + 1} different normal densities, not zero because "
            "different ones are linearly independent and the weights are positive. A combination of k normal densities "
            "changes sign at most 2(k − 1) times: take out the smallest variance by writing it as a convolution; the "
            "components of that variance become point masses, each of which adds at most two sign changes to the rest; "
            "and convolution with a normal density adds none (Schoenberg). By induction on k, g changes sign at most "
            f"{2 * m} times. (a) and (b) contradict each other."
        )


@dataclass(frozen=True)
class Attempt:
    """What an elimination within a time limit came to.

    Attributes:
        m: number of atoms.
        outcome: "certified" if a polynomial in the weights with coefficients of one sign must vanish; "undecided" if
            the elimination ended without one; "out of time" if it did not end.
        seconds: how long it took, or the limit.
        polynomial: the polynomial in the weights, as text, if there is one.
    """

    m: int
    outcome: Literal["certified", "undecided", "out of time"]
    seconds: float
    polynomial: str | None


def attempt_elimination(m: int, seconds: float) -> Attempt:
    """Try to certify by a Gröbner basis that m atoms have no non-trivial solution at order 2m, within a time limit.

    The basis is computed in a process of its own, which is ended at the limit. The last weight and the first b are
    scaled to 1; a polynomial in the other weights that has to vanish and has coefficients of one sign is a certificate.

    Args:
        m: number of atoms, at least 2.
        seconds: time limit, positive.

    Raises:
        InputError: m is below 2 or the limit is not positive.
    """
    if m < 2 or not seconds > 0:
        raise InputError(
            f"an elimination needs m of at least 2 and a positive time limit, not {shown(m)} and {shown(seconds)}"
        )
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_eliminate, args=(m, sender), daemon=True)
    began = time.monotonic()
    process.start()
    sender.close()
    try:
        ended = receiver.poll(seconds)
        polynomial: str | None = receiver.recv() if ended else None
    finally:
        process.terminate()
        process.join()
        receiver.close()
    spent = time.monotonic() - began
    if not ended:
        return Attempt(m, "out of time", seconds, None)
    return Attempt(m, "undecided" if polynomial is None else "certified", spent, polynomial)


def _eliminate(m: int, sender: Connection) -> None:
    """Send a polynomial in the weights, with coefficients of one sign, that every solution makes vanish; or None."""
    w = [*sympy.symbols(f"w1:{m}"), sympy.Integer(1)]
    b = [sympy.Integer(1), *sympy.symbols(f"b2:{m + 1}")]
    s = list(sympy.symbols(f"s1:{m + 1}"))
    inverse = sympy.Symbol("t")
    weights = w[:-1]
    equations = [*order_sums(w, b, s, 2 * m), inverse * sympy.Mul(*weights) - 1]
    basis = sympy.groebner(equations, inverse, *s, *b[1:], *weights, order="lex")
    found = None
    for expression in basis.exprs:
        if expression.free_symbols <= set(weights):
            coefficients = sympy.Poly(expression, *weights).coeffs()
            if all(c > 0 for c in coefficients) or all(c < 0 for c in coefficients):
                found = str(expression)
    sender.send(found)
