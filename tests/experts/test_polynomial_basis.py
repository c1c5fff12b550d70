import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.experts import LinearExperts, PolynomialBasisExperts, build_experts
from gatewise.experts.monomials import Monomials, count_monomials
from tests.experts.helpers import assert_close, inputs, locations, randomise


def exponents(d, degree):
    """All α with |α| ≤ degree, by brute force."""
    return [alpha for alpha in itertools.product(range(degree + 1), repeat=d) if sum(alpha) <= degree]


def exponent(monomials, index):
    return tuple(monomials.factors[index].count(j) for j in range(monomials.n_features))


@pytest.mark.parametrize(("d", "degree"), [(0, 3), (1, 4), (2, 1), (3, 3), (2, 5)])
def test_all_monomials_are_there_once(d, degree):
    monomials = Monomials(d, degree)
    found = [exponent(monomials, index) for index in range(len(monomials))]
    assert len(found) == len(set(found)) == count_monomials(d, degree)
    assert {*found, (0,) * d} == set(exponents(d, degree))
    assert [sum(alpha) for alpha in found] == sorted(sum(alpha) for alpha in found)
    x = np.random.default_rng(0).normal(size=(5, d))
    expected = np.stack([np.prod(x ** np.array(alpha), axis=1) for alpha in found], axis=-1) if found else x
    np.testing.assert_allclose(monomials.values(torch.from_numpy(x)).numpy(), expected, rtol=1e-13)
    several = math.factorial(degree)
    for alpha, times in zip(found, monomials.multinomials(degree), strict=True):
        rest = math.factorial(degree - sum(alpha))
        assert times == several // rest // math.prod(math.factorial(power) for power in alpha)


def test_terms_read_like_formulas():
    bank = PolynomialBasisExperts(2, 2, degree=3, n_outputs=2)
    terms = [quantity.term for quantity in bank.quantities(["x", "z"], ["p", "q"])]
    one = ["(intercept)", "x", "z", "x²", "x*z", "z²", "x³", "x²*z", "x*z²", "z³"]
    assert terms == [f"{output} {term}" for _ in range(2) for output in "pq" for term in one]
    assert Monomials(1, 12).terms(["x"])[-1] == "x¹²"


def test_location_is_the_polynomial():
    bank = randomise(PolynomialBasisExperts(2, 3, degree=3))
    x = inputs(bank, 8)
    first, second = x.numpy().T
    columns = [first**0, first, second, first**2, first * second, second**2]
    columns += [first**3, first**2 * second, first * second**2, second**3]
    coefficients = np.column_stack([bank.bias.detach().numpy(), bank.weight.detach().numpy()])
    np.testing.assert_allclose(bank.location(x).detach().numpy(), np.column_stack(columns) @ coefficients.T, rtol=1e-12)


def test_degree_one_is_linear_experts():
    bank, linear = randomise(PolynomialBasisExperts(3, 2, degree=1)), randomise(LinearExperts(3, 2))
    x = inputs(bank, 5)
    assert torch.equal(bank.location(x), linear.location(x))
    shift, scale = torch.tensor([0.3, -2.0, 1.0]).double(), torch.tensor([2.0, 0.5, 1.0]).double()
    ours, theirs = (part.unstandardise(part.own_parameters(), shift, scale) for part in (bank, linear))
    for name in ours:
        assert_close(ours[name], theirs[name], 1e-15)


def exact_expansion(coefficients, shift, scale):
    """{α: a} of the polynomial at (x − shift)/scale ↦ {β: coefficient of x^β}, in rational numbers; and Σ |terms|."""
    total, size = dict.fromkeys(coefficients, Fraction(0)), dict.fromkeys(coefficients, Fraction(0))
    for alpha, value in coefficients.items():
        for beta in itertools.product(*(range(power + 1) for power in alpha)):
            term = Fraction(value)
            for power, kept, s, c in zip(alpha, beta, shift, scale, strict=True):
                term *= math.comb(power, kept) * Fraction(-s) ** (power - kept) / Fraction(c) ** power
            total[beta] += term
            size[beta] += abs(term)
    return total, size


@pytest.mark.parametrize(("d", "degree"), [(1, 1), (1, 8), (2, 5), (4, 3)])
def test_coefficients_equal_the_expansion_in_rational_numbers(d, degree):
    """To 1e-14 of the sum of the magnitudes that are added: no other rounding than that of the sums."""
    bank = randomise(PolynomialBasisExperts(d, 1, degree=degree))
    shift, scale = torch.linspace(-1.3, 1.7, d).double(), torch.linspace(0.5, 2.0, d).double()
    order = [(0,) * d, *(exponent(bank.monomials, index) for index in range(len(bank.monomials)))]
    given = bank.coefficients(bank.own_parameters())[0].tolist()
    total, size = exact_expansion(dict(zip(order, given, strict=True)), shift.tolist(), scale.tolist())
    moved = bank.coefficients(bank.unstandardise(bank.own_parameters(), shift, scale))[0].tolist()
    for beta, value in zip(order, moved, strict=True):
        assert abs(Fraction(value) - total[beta]) <= size[beta] * Fraction(1, 10**14), beta


@pytest.mark.parametrize(("d", "degree"), [(1, 1), (1, 5), (2, 4), (4, 3), (8, 2)])
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_an_affine_change_of_inputs_maps_the_coefficients_exactly(d, degree, n_outputs):
    bank = randomise(PolynomialBasisExperts(d, 2, degree=degree, n_outputs=n_outputs))
    own, x = bank.own_parameters(), inputs(bank, 10)
    shift, scale = torch.linspace(-0.6, 0.9, d).double(), torch.linspace(0.7, 1.6, d).double()
    moved = bank.unstandardise(own, shift, scale)
    assert_close(locations(bank, moved, shift + scale * x), bank.location(x).detach(), 1e-12)
    back = bank.unstandardise(moved, -shift / scale, 1.0 / scale)
    for name in own:
        assert_close(back[name], own[name], 1e-12)


def test_the_expansion_in_whole_numbers():
    """((x − 1)/2)² and ((x − 1)/2)((z + 3)/1), by hand, in numbers that floats hold exactly."""
    bank = PolynomialBasisExperts(2, 2, degree=2).double()
    with torch.no_grad():
        bank.weight[0, 2] = 4.0
        bank.weight[1, 3] = 2.0
    moved = bank.unstandardise(
        bank.own_parameters(), torch.tensor([1.0, -3.0]).double(), torch.tensor([2.0, 1.0]).double()
    )
    assert bank.coefficients(moved).tolist() == [[1.0, -2.0, 0.0, 1.0, 0.0, 0.0], [-3.0, 3.0, -1.0, 0.0, 1.0, 0.0]]


def test_unstandardising_is_linear_in_the_coefficients():
    bank = randomise(PolynomialBasisExperts(2, 2, degree=4))
    own, shift, scale = bank.own_parameters(), torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 3.0]).double()
    twice = {name: 2.0 * value for name, value in own.items()}
    for name, value in bank.unstandardise(twice, shift, scale).items():
        if name != "log_scale":
            assert_close(value, 2.0 * bank.unstandardise(own, shift, scale)[name], 1e-14)


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_assign_inverts_coefficients(n_outputs):
    bank = randomise(PolynomialBasisExperts(2, 3, degree=2, n_outputs=n_outputs))
    other = PolynomialBasisExperts(2, 3, degree=2, n_outputs=n_outputs).double()
    other.assign(bank.coefficients(bank.own_parameters()), bank.log_scale.detach())
    for name, value in bank.own_parameters().items():
        assert torch.equal(other.own_parameters()[name], value)


@pytest.mark.parametrize("name", ["polynomial_basis", "linear", "polynomial"])
def test_no_features_leave_a_constant(name):
    bank = randomise(build_experts(name, 0, 2))
    location = bank.location(torch.zeros(4, 0, dtype=torch.float64))
    assert torch.equal(location, (bank.bias**2 if name == "polynomial" else bank.bias).expand(4, 2))


@pytest.mark.parametrize(("d", "degree"), [(139, 2), (9_999, 1), pytest.param(1, 9_999, marks=pytest.mark.slow)])
def test_ten_thousand_monomials_are_the_most(d, degree):
    assert count_monomials(d, degree) + 1 <= 10_000
    build_experts("polynomial_basis", d, 1, degree=degree)


@pytest.mark.parametrize(("d", "degree"), [(141, 2), (10_000, 1), (1, 10_000), (10**6, 10_000), (50, 50)])
def test_more_are_refused_at_once(d, degree):
    with pytest.raises(InputError, match=r"monomials, more than 10,000: take a lower degree"):
        build_experts("polynomial_basis", d, 1, degree=degree)


@pytest.mark.parametrize("degree", [0, -2, 1.5, True, "2", 10_001])
def test_other_degrees_are_refused(degree):
    with pytest.raises(InputError, match="must be a whole number between 1 and 10,000"):
        build_experts("polynomial_basis", 2, 2, degree=degree)
