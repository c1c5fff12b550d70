import numpy as np
import pytest
import torch

from gatewise.experts import ConstantExperts, LinearExperts
from tests.experts.helpers import inputs, randomise


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_linear_locations_in_numpy(n_outputs):
    bank = randomise(LinearExperts(2, 4, n_outputs=n_outputs))
    x = inputs(bank, 6)
    weight, bias = bank.weight.detach().numpy(), bank.bias.detach().numpy()
    expected = np.einsum("nd,k...d->nk...", x.numpy(), weight) + bias
    np.testing.assert_allclose(bank.location(x).detach().numpy(), expected, rtol=1e-13)


@pytest.mark.parametrize("cls", [ConstantExperts, LinearExperts])
@pytest.mark.parametrize("options", [{}, {"n_outputs": 2, "n_dispersion": 2}, {"shared_scale": True}], ids=str)
def test_assign_inverts_coefficients(cls, options):
    bank = randomise(cls(2, 3, **options))
    again = cls(2, 3, **options).double()
    again.assign(bank.coefficients(bank.own_parameters()), bank.log_scale.detach())
    for name, value in bank.own_parameters().items():
        assert torch.equal(again.own_parameters()[name], value), name
