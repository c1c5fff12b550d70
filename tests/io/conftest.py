"""A model to save."""

import pytest
import torch

from gatewise.experts import ConstantExperts, LinearExperts
from gatewise.families import Gaussian
from gatewise.gates import SoftmaxGate
from gatewise.model import MixtureOfExperts


@pytest.fixture
def make_model():
    """A function that makes a mixture with random weights."""

    def make(n_features=2, n_gate_features=1, k=3, expert="linear", shared_scale=False, dtype=torch.float64):
        generator = torch.Generator().manual_seed(5)
        bank = {"linear": LinearExperts, "constant": ConstantExperts}[expert]
        experts = bank(n_features, k, shared_scale)
        model = MixtureOfExperts(SoftmaxGate(n_gate_features, k), experts, Gaussian()).to(dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype))
        return model

    return make
