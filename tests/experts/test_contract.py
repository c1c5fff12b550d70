import pytest
import torch

from gatewise.experts import EXPERTS, build_experts, register_function
from tests.experts.helpers import CHECKS, randomise


def exponential(x, eta):
    return eta["level"] + eta["height"] * torch.exp(-(x @ eta["rate"]))


def two_logits(x, eta):
    return torch.tanh(x @ eta["slope"]) + eta["shift"]


register_function("contract exponential", exponential, {"level": (), "height": (), "rate": (2,)}, {"height": 1.0})
register_function("contract two logits", two_logits, {"slope": (2, 2), "shift": (2,)})

# One line per kind and option that changes what is done: name, d, k, options.
BANKS = [
    ("constant", 2, 3, {}),
    ("constant", 2, 2, {"n_outputs": 2, "n_dispersion": 0}),
    ("linear", 2, 3, {"shared_scale": True}),
    ("linear", 2, 2, {"n_outputs": 3, "n_dispersion": 2}),
    ("polynomial", 2, 3, {"power": 1}),
    ("polynomial", 2, 3, {}),
    ("polynomial", 1, 2, {"power": 3, "n_outputs": 2, "n_dispersion": 2}),
    ("polynomial", 2, 2, {"power": 4, "n_outputs": 2, "n_dispersion": 0}),
    ("polynomial_basis", 1, 2, {"degree": 3, "shared_scale": True, "n_dispersion": 2}),
    ("polynomial_basis", 3, 2, {}),
    ("polynomial_basis", 2, 2, {"degree": 4, "n_outputs": 2}),
    ("feed_forward", 2, 2, {"hidden": 2}),
    ("feed_forward", 2, 2, {"hidden": 2, "n_outputs": 2, "output_bias": True, "n_dispersion": 2}),
    ("feed_forward", 1, 2, {"hidden": 2, "activation": "gelu", "n_dispersion": 0}),
    ("feed_forward", 2, 2, {"hidden": 3, "activation": "tanh"}),
    ("feed_forward", 1, 2, {"hidden": 2, "activation": "tanh", "output_bias": True, "n_outputs": 2}),
    ("feed_forward", 2, 2, {"hidden": 2, "activation": "sigmoid"}),
    ("feed_forward", 2, 2, {"hidden": 2, "activation": "sigmoid", "output_bias": True, "n_outputs": 2}),
    ("feed_forward", 2, 2, {"hidden": 2, "activation": "silu", "output_bias": True}),
    ("feed_forward", 2, 2, {"hidden": 2, "activation": "cos", "n_outputs": 2}),
    ("feed_forward", 2, 2, {"hidden": 2, "activation": "cube", "output_bias": True}),
    ("feed_forward", 2, 2, {"hidden": 3, "activation": "cube", "n_outputs": 2}),
    ("feed_forward", 2, 2, {"hidden": 3, "activation": "identity"}),
    ("feed_forward", 2, 2, {"hidden": 3, "activation": "identity", "output_bias": True}),
    ("feed_forward", 2, 2, {"hidden": 2, "activation": "identity", "n_outputs": 3}),
    ("feed_forward", 1, 2, {"hidden": 2, "activation": "identity", "n_outputs": 3, "output_bias": True}),
    ("callable", 2, 3, {"function": "contract exponential"}),
    ("callable", 2, 2, {"function": "contract two logits", "n_outputs": 2, "n_dispersion": 2}),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("name", "d", "k", "options"), BANKS, ids=lambda value: str(value))
def test_every_bank_keeps_the_contract(name, d, k, options, check):
    check(randomise(build_experts(name, d, k, **options), seed=3))


def test_every_kind_is_checked():
    assert {name for name, *_ in BANKS} == set(EXPERTS)


def test_what_a_kind_says_of_itself():
    for name in EXPERTS:
        cls = EXPERTS[name]
        assert cls.name == name
        assert cls.formula
        assert cls.source
