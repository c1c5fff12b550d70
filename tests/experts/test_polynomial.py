import numpy as np
import pytest
import torch

from gatewise.exceptions import InputError
from gatewise.experts import LinearExperts, PolynomialExperts, build_experts
from tests.experts.helpers import described, flat_jacobian, inputs, locations, randomise


@pytest.mark.parametrize("power", [1, 2, 3, 5])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_location_is_the_power_of_an_affine_function(power, n_outputs):
    bank = randomise(PolynomialExperts(2, 4, power=power, n_outputs=n_outputs))
    x = inputs(bank, 6)
    weight, bias = bank.weight.detach().numpy(), bank.bias.detach().numpy()
    expected = (np.einsum("nd,k...d->nk...", x.numpy(), weight) + bias) ** power
    np.testing.assert_allclose(bank.location(x).detach().numpy(), expected, rtol=1e-12)


def test_the_first_power_is_linear_experts_bit_for_bit():
    options = {"n_outputs": 2, "n_dispersion": 2, "shared_scale": True}
    power, linear = PolynomialExperts(3, 2, power=1, **options), LinearExperts(3, 2, **options)
    for name, value in linear.own_parameters().items():
        assert torch.equal(power.own_parameters()[name], value), "new experts start at the same values"
    randomise(linear)
    power.double().assign_parameters(linear.own_parameters())
    x = inputs(linear, 9)
    own, shift, scale = linear.own_parameters(), torch.tensor([0.5, -1.0, 2.0]).double(), torch.ones(3).double() * 3
    assert torch.equal(power.location(x), linear.location(x))
    assert torch.equal(power.basis(x), linear.basis(x))
    assert torch.equal(power.coefficients(own), linear.coefficients(own))
    assert torch.equal(power.identified(own), linear.identified(own))
    assert power.quantities("abc", "pq") == linear.quantities("abc", "pq")
    assert power.output_change == linear.output_change == "affine"
    for change, arguments in (("unstandardise", (shift, scale)), ("change_output", (shift[:2], scale[:2]))):
        ours, theirs = getattr(power, change)(own, *arguments), getattr(linear, change)(own, *arguments)
        assert all(torch.equal(ours[name], theirs[name]) for name in own)
    assert power.symmetries() == ()


def test_an_even_power_has_a_sign_for_each_expert_and_output_and_an_odd_one_none():
    assert PolynomialExperts(2, 3, power=3).symmetries() == ()
    bank = randomise(PolynomialExperts(2, 3, power=2, n_outputs=2))
    own, signs = bank.own_parameters(), bank.symmetries()
    assert len(signs) == 6
    for number, sign in enumerate(signs):
        expert, output = divmod(number, 2)
        moved = sign.act(own, torch.empty(0))
        expected = torch.ones(3, 2, dtype=torch.float64)
        expected[expert, output] = -1.0
        assert torch.equal(moved["bias"], own["bias"] * expected)
        assert torch.equal(moved["weight"], own["weight"] * expected[..., None])
        assert f"expert {expert + 1}, output {output + 1}" in sign.sentence


def test_the_neutral_start_is_regular_and_zero_is_not():
    bank = PolynomialExperts(2, 2, power=3).double()
    x = inputs(bank, 30)
    neutral = described(bank)
    zero = {name: torch.zeros_like(value) for name, value in neutral.items()}

    def at(parameters):
        return locations(bank, parameters, x).reshape(-1)

    np.testing.assert_array_equal(at(neutral).numpy(), 1.0)
    assert torch.linalg.matrix_rank(flat_jacobian(at, neutral)) == 6
    assert torch.equal(flat_jacobian(at, zero), torch.zeros(60, 6, dtype=torch.float64))


def test_a_shift_of_the_target_is_refused_with_its_value():
    bank = PolynomialExperts(1, 2)
    with pytest.raises(InputError, match=r"scaled but not shifted, and the shift is 2\.0"):
        bank.change_output(bank.own_parameters(), torch.tensor([2.0]), torch.tensor([1.0]))


@pytest.mark.parametrize("power", [0, -1, 101, 2.0, True, "2", None])
def test_other_powers_are_refused(power):
    with pytest.raises(InputError, match="power of polynomial experts must be a whole number between 1 and 100"):
        build_experts("polynomial", 2, 2, power=power)
