"""Our dispatch as an implementation of experts, against transformers' own loop, on every kind of bank."""

import pytest
import torch

pytest.importorskip("transformers")

from gatewise.nn.hf import EXPERTS_IMPLEMENTATION
from gatewise.nn.hf.experts import sorted_experts_forward
from tests.nn.hf.tiny_models import D, E, tiny_model

# Gated; without gate; transposed; transposed, interleaved and with biases; clamped.
KINDS = ("mixtral", "nemotron_h", "aria_text", "gpt_oss", "minimax_m3_vl_text", "deepseek_v4")


def bank_of(model_type):
    model = tiny_model(model_type)
    bank = next(module.experts for module in model.modules() if hasattr(module, "experts"))
    with torch.no_grad():
        for value in bank.parameters():
            value.normal_(0.0, 0.2)
    return bank


def run(bank, implementation, x, indices, weights):
    bank.config._experts_implementation = implementation
    bank.zero_grad()
    x, weights = x.clone().requires_grad_(), weights.clone().requires_grad_()
    y = bank(x, indices, weights)
    y.square().sum().backward()
    return [y.detach(), x.grad, weights.grad, *(value.grad.clone() for value in bank.parameters())]


@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize("model_type", KINDS)
def test_outputs_and_gradients_are_those_of_the_plain_loop(model_type, slots):
    bank, generator = bank_of(model_type), torch.Generator().manual_seed(0)
    x = torch.randn(17, D, generator=generator)
    indices = torch.rand(17, E, generator=generator).topk(slots).indices
    # Two experts without tokens.
    indices = torch.where(indices < 2, indices + 2, indices)
    weights = torch.rand(17, slots, generator=generator)
    eager = run(bank, "eager", x, indices, weights)
    for ours, theirs in zip(run(bank, EXPERTS_IMPLEMENTATION, x, indices, weights), eager, strict=True):
        # Float32 sums of some dozen terms in another order.
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_without_tokens_and_with_experts_that_are_elsewhere():
    bank = bank_of("mixtral")
    nothing = sorted_experts_forward(bank, torch.zeros(0, D), torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 2))
    assert nothing.shape == (0, D)
    x, weights = torch.randn(4, D), torch.rand(4, 2)
    indices = torch.tensor([[0, E], [E, E], [1, 0], [E, 1]])
    found = sorted_experts_forward(bank, x, indices, weights)
    inside = torch.where(indices < E, weights, 0.0)
    torch.testing.assert_close(found, sorted_experts_forward(bank, x, indices.clamp_max(E - 1), inside))
    assert bool((found[1] == 0.0).all())
