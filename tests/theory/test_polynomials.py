"""The polynomial system and r̄(m): exact substitution, certificates that can fail, and what least squares gets wrong."""

import dataclasses
import math

import numpy as np
import pytest
import sympy
from scipy.optimize import least_squares

from gatewise.exceptions import InputError
from gatewise.theory.polynomial_certificates import (
    SignChangeCertificate,
    attempt_elimination,
    elimination_of_two_atoms,
)
from gatewise.theory.polynomial_system import order_sums, polynomial_system
from gatewise.theory.polynomials import explicit_solution, r_bar

HALF = sympy.Rational(1, 2)


@pytest.mark.parametrize(("m", "r", "d"), [(2, 4, 1), (3, 3, 1), (1, 3, 2), (2, 2, 2)])
def test_the_equations_are_taylor_coefficients(m, r, d):
    """Σᵢ wᵢ exp(βᵢᵀs + aᵢᵀs t + bᵢt + sᵢt²), differentiated."""
    system = polynomial_system(m, r, d)
    s, t = sympy.symbols(f"z1:{d + 1}"), sympy.Symbol("t")
    function = sum(
        w
        * sympy.exp(
            sum(x * y for x, y in zip(beta, s, strict=True))
            + sum(x * y for x, y in zip(a, s, strict=True)) * t
            + b * t
            + v * t**2
        )
        for w, beta, a, b, v in zip(
            system.weights, system.gates, system.slopes, system.intercepts, system.variances, strict=True
        )
    )
    count = math.comb(r + d + 1, d + 1) - 1
    assert len(system.equations) == count
    for (first, second), equation in system.equations.items():
        derivative = function
        for symbol, order in zip((*s, t), (*first, second), strict=True):
            derivative = sympy.diff(derivative, symbol, order) / sympy.factorial(order)
        at_zero = derivative.subs(dict.fromkeys((*s, t), 0))
        assert sympy.expand(at_zero - equation) == 0


def substituted(system, solution):
    """All left sides at an explicit solution with Δβ₁ = Δa = 0."""
    values = dict(zip(system.weights, solution.weights, strict=True))
    values |= dict(zip(system.intercepts, solution.intercepts, strict=True))
    values |= dict(zip(system.variances, solution.variances, strict=True))
    values |= {symbol: 0 for block in (*system.gates, *system.slopes) for symbol in block}
    return {order: sympy.simplify(equation.subs(values)) for order, equation in system.equations.items()}


@pytest.mark.parametrize(("m", "d"), [(2, 1), (2, 2), (3, 1)])
def test_the_explicit_solution_solves_every_equation_below_r_bar(m, d):
    solution = explicit_solution(m)
    assert all(weight > 0 for weight in solution.weights)
    assert sum(solution.weights) == 1
    assert any(node != 0 for node in solution.intercepts)
    assert any(half != 0 for half in solution.variances)
    below = r_bar(m).value - 1
    assert below == {2: 3, 3: 5}[m]
    assert set(substituted(polynomial_system(m, below, d), solution).values()) == {0}
    beyond = substituted(polynomial_system(m, below + 1, d), solution)
    assert beyond[(0,) * d, below + 1] == sympy.Rational(-math.factorial(m), math.factorial(2 * m))


@pytest.mark.parametrize("m", range(2, 8))
def test_every_m_has_a_solution_at_order_2m_minus_1(m):
    last = sympy.Rational(-math.factorial(m), math.factorial(2 * m))
    assert explicit_solution(m).residuals(2 * m) == (0,) * (2 * m - 1) + (last,)


@pytest.mark.parametrize("m", [4, 5, 6])
def test_nodes_and_weights_are_those_of_the_rule(m):
    nodes, weights = np.polynomial.hermite_e.hermegauss(m)
    solution = explicit_solution(m)
    found = sorted(
        (float(node), float(weight)) for node, weight in zip(solution.intercepts, solution.weights, strict=True)
    )
    assert np.allclose(found, np.column_stack([nodes, weights / math.sqrt(2.0 * math.pi)]), rtol=1e-12, atol=1e-14)


def test_slopes_of_gate_and_expert_cannot_cancel_beyond_second_order():
    """(2, 0) is ½ Σ w Δβ₁²; where Δβ₁ = 0, (2, 2) is ½ Σ w Δa²: exponent 2 for both, whatever the cell holds."""
    for m in (2, 3, 4):
        system = polynomial_system(m, 4)
        squares = sum(w * beta**2 for w, (beta,) in zip(system.weights, system.gates, strict=True)) / 2
        assert sympy.expand(system.equations[(2,), 0] - squares) == 0
        rest = system.equations[(2,), 2].subs({beta: 0 for (beta,) in system.gates})
        squares = sum(w * a**2 for w, (a,) in zip(system.weights, system.slopes, strict=True)) / 2
        assert sympy.expand(rest - squares) == 0


# --- r̄(2): elimination, in exact arithmetic


def test_the_elimination_for_two_atoms_holds():
    certificate = r_bar(2).certificate
    w = certificate.weight
    assert sympy.expand(certificate.polynomial.as_expr() - (w + 1) * (w**2 + w + 1)) == 0
    assert certificate.polynomial.count_roots(0, None) == 0
    assert certificate.check() is True


def test_a_groebner_basis_gives_the_same_polynomial():
    w, b2, s1, s2, t = sympy.symbols("w b2 s1 s2 t")
    orders = order_sums([w, 1], [1, b2], [s1, s2], 4)
    basis = sympy.groebner([*orders, w * t - 1], t, b2, s1, s2, w, order="lex")
    assert sympy.expand(basis.exprs[-1] - (w + 1) * (w**2 + w + 1)) == 0
    # Without order 4 nothing restricts w, as it must be: there is a solution for every w > 0.
    basis = sympy.groebner([*orders[:3], w * t - 1], t, b2, s1, s2, w, order="lex")
    assert not any(expression.free_symbols == {w} for expression in basis.exprs)


def test_a_certificate_that_was_changed_fails():
    right = elimination_of_two_atoms()
    w = right.weight
    first, second, third = right.steps
    wrong_step = dataclasses.replace(third, value=third.value + 1)
    for wrong in (
        dataclasses.replace(right, polynomial=sympy.Poly(w**2 + w + 2, w)),
        dataclasses.replace(right, polynomial=sympy.Poly((w - 1) * (w**2 + w + 1), w)),
        dataclasses.replace(right, steps=(first, second, wrong_step)),
        dataclasses.replace(right, steps=(first, third, second)),
    ):
        assert wrong.check() is False


def test_elimination_within_a_time_limit():
    attempt = attempt_elimination(2, 60.0)
    assert attempt.outcome == "certified"
    assert attempt.polynomial == "w1**3 + 2*w1**2 + 2*w1 + 1"
    assert attempt_elimination(3, 0.5).outcome == "out of time"


# --- r̄(m) for every m: what the sign-change argument rests on


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_the_solution_has_as_many_sign_changes_as_the_argument_allows(m):
    """With 2m − 1 vanishing moments the difference changes sign at least 2m times; m + 1 normal densities allow 2m."""
    solution = explicit_solution(m)
    z = np.linspace(-8.0, 8.0, 4001)
    difference = -normal(z, 0.0, 2.0)
    for weight, node in zip(solution.weights, solution.intercepts, strict=True):
        difference += float(weight) * normal(z, float(node), 1.0)
    assert sign_changes(difference / normal(z, 0.0, 2.0), 1e-12) == 2 * m


def test_combinations_of_normal_densities_change_sign_at_most_twice_per_further_one():
    generator = np.random.default_rng(0)
    z = np.linspace(-30.0, 30.0, 6001)
    seen = set()
    for _ in range(3000):
        k = int(generator.integers(2, 5))
        coefficients = generator.normal(size=k)
        combination = sum(
            c * normal(z, mean, variance)
            for c, mean, variance in zip(
                coefficients, generator.normal(size=k), generator.uniform(0.2, 3.0, size=k), strict=True
            )
        )
        changes = sign_changes(combination, 1e-13 * np.abs(combination).max())
        assert changes <= 2 * (k - 1)
        seen.add((k, changes))
    assert {(2, 2), (3, 4)} <= seen


@pytest.mark.parametrize("m", [2, 3, 4])
def test_the_density_moves_with_the_power_2m_of_the_displacement(m):
    """So no exponent below 2m can stand at Δb in a loss that bounds the distance of densities from below."""
    solution = explicit_solution(m)
    z = np.linspace(-6.0, 6.0, 2001)
    distances = []
    for delta in (0.2, 0.1):
        mixed = sum(
            float(weight) * normal(z, delta * float(node), 1.0 + 2.0 * delta**2 * float(half))
            for weight, node, half in zip(solution.weights, solution.intercepts, solution.variances, strict=True)
        )
        distances.append(np.trapezoid(np.abs(mixed - normal(z, 0.0, 1.0)), z))
    assert math.log2(distances[0] / distances[1]) == pytest.approx(2 * m, abs=0.2)


def normal(z, mean, variance):
    return np.exp(-((z - mean) ** 2) / (2.0 * variance)) / math.sqrt(2.0 * math.pi * variance)


def sign_changes(values, tolerance):
    signs = np.sign(values[np.abs(values) > tolerance])
    return int(np.count_nonzero(signs[1:] != signs[:-1]))


# --- why least squares on the system decides nothing


def orders_of_two_atoms(theta):
    """Orders 1 to 4 with the first b and the second weight scaled to 1; θ = (log w, b₂, s₁, s₂)."""
    w = math.exp(theta[0])
    b, s, weights = np.array([1.0, theta[1]]), np.array([theta[2], theta[3]]), np.array([w, 1.0]) / (1.0 + w)
    terms = [b, b**2 / 2 + s, b**3 / 6 + b * s, b**4 / 24 + b**2 * s / 2 + s**2 / 2]
    return np.array([weights @ term for term in terms])


def test_the_residual_tends_to_zero_where_there_is_no_solution():
    """Along the elimination's path orders 1 to 3 hold exactly, and order 4 vanishes as the weight does."""
    w = sympy.Symbol("w", positive=True)
    b2, s1 = -w, -(1 + 2 * w) / sympy.Integer(6)
    s2 = -w * (2 * s1 + w + 1) / 2
    orders = [sympy.factor(order / (1 + w)) for order in order_sums([w, 1], [1, b2], [s1, s2], 4)]
    assert orders[:3] == [0, 0, 0]
    residual = orders[3]
    assert sympy.simplify(residual + w * (w**2 + w + 1) / 36) == 0
    assert sympy.limit(residual, w, 0) == 0
    assert sympy.numer(sympy.together(residual / w)).as_poly(w).count_roots(0, None) == 0


def test_naive_least_squares_reports_solutions_that_do_not_exist():
    generator = np.random.default_rng(0)
    false = []
    for _ in range(20):
        fit = least_squares(orders_of_two_atoms, generator.normal(size=4), xtol=1e-15, ftol=1e-15, gtol=1e-15)
        if fit.cost < 1e-10:
            false.append(min(fit.x[0], -fit.x[0]))
    # Most starts "solve" the unsolvable system, and all of them by letting a weight escape to zero.
    assert len(false) >= 10
    assert max(false) < math.log(1e-3)


def test_a_bound_on_the_weights_unmasks_them():
    generator = np.random.default_rng(0)
    lower, upper = [math.log(0.1), *[-np.inf] * 3], [math.log(10.0), *[np.inf] * 3]
    costs = []
    for _ in range(20):
        start = generator.normal(size=4)
        start[0] = np.clip(start[0], lower[0] + 0.1, upper[0] - 0.1)
        costs.append(least_squares(orders_of_two_atoms, start, bounds=(lower, upper)).cost)
    assert min(costs) > 1e-7
    # One order lower there are solutions, and the same search finds them.
    fit = least_squares(lambda theta: orders_of_two_atoms(theta)[:3], [0.1, -0.5, 0.0, 0.0], bounds=(lower, upper))
    assert fit.cost < 1e-15


# --- what is said


def test_what_is_said_about_each_value():
    assert [r_bar(m).value for m in range(2, 7)] == [4, 6, 8, 10, 12]
    assert "certified here by elimination" in r_bar(2).status
    three = r_bar(3)
    assert three.status.startswith("literature value; a solution at r = 5 is checked here")
    assert "none at r = 6" in three.status
    assert "not certified here by computer algebra" in three.status
    assert isinstance(three.certificate, SignChangeCertificate)
    assert "sign at most 6 times" in three.certificate.statement
    four = r_bar(4)
    assert "≥ 7" in four.literature
    assert "2m is a conjecture" in four.literature
    assert "r̄(4) ≥ 8 is certified" in four.status


@pytest.mark.parametrize("m", [1, 0, -2, 2.0, True, "3"])
def test_r_bar_of_what_is_not_a_cell(m):
    with pytest.raises(InputError, match="m must be an integer of at least 2, the fitted atoms in one cell"):
        r_bar(m)


@pytest.mark.parametrize(("arguments", "name"), [((0, 2), "m"), ((2, 0), "r"), ((2, 2, 0), "d"), ((2, 1.5), "r")])
def test_systems_that_cannot_be_written(arguments, name):
    with pytest.raises(InputError, match=f"^{name} must be a positive integer, not"):
        polynomial_system(*arguments)


@pytest.mark.parametrize(("m", "seconds"), [(1, 1.0), (2, 0.0), (2, math.nan)])
def test_attempts_that_make_no_sense(m, seconds):
    with pytest.raises(InputError, match="an elimination needs m of at least 2 and a positive time limit"):
        attempt_elimination(m, seconds)
