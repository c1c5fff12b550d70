"""What a fit may do to the units of its rows."""

import numpy as np
import torch

from gatewise.experts import CallableExperts
from gatewise.families import Gaussian
from gatewise.fit import FitOptions, FitStatus, fit
from gatewise.gates import SoftmaxGate
from gatewise.model import MixtureOfExperts


def saturation(x, eta):
    return eta["top"] * x[..., 0] / (eta["log_half"].exp() + x[..., 0])


def test_a_users_own_function_sees_the_inputs_as_they_are():
    """With standardised inputs the formula would have a pole among the rows and another meaning."""
    generator = np.random.default_rng(0)
    x = generator.uniform(0.1, 10.0, size=(200, 1))
    y = 5.0 * x[:, 0] / (2.0 + x[:, 0]) + 0.05 * generator.normal(size=200)
    experts = CallableExperts(
        1, 1, function=saturation, shapes={"top": (), "log_half": ()}, initial={"top": 1.0}
    ).double()
    result = fit(MixtureOfExperts(SoftmaxGate(1, 1), experts, Gaussian()), x, y, options=FitOptions(n_starts=1))
    assert result.status is FitStatus.WEAK_SEARCH
    assert result.model.expert_scaler is None
    own = result.model.experts.own_parameters()
    torch.testing.assert_close(own["top"], torch.tensor([5.0], dtype=torch.float64), rtol=0.01, atol=0.0)
    torch.testing.assert_close(own["log_half"].exp(), torch.tensor([2.0], dtype=torch.float64), rtol=0.03, atol=0.0)
