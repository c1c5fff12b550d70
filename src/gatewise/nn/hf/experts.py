"""Gatewise's dispatch as an implementation of experts that transformers' models can choose."""

from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

__all__ = ["EXPERTS_IMPLEMENTATION", "sorted_experts_forward"]

EXPERTS_IMPLEMENTATION = "gatewise_sorted"
"""For `model.set_experts_implementation(…)` or `from_pretrained(…, experts_implementation=…)`."""


class _Experts(Protocol):
    """What transformers' banks of experts have in common."""

    num_experts: int
    has_gate: bool
    has_bias: bool
    has_post_expert_norm: bool
    is_transposed: bool
    down_proj: Tensor
    act_fn: Any
    post_expert_norm: Any


def sorted_experts_forward(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """Every token's weighted sum of its experts' outputs: tokens sorted by expert, one product for each that has some.

    Args:
        self: the bank of experts, of any class with transformers' `use_experts_implementation`.
        hidden_states: tokens (T, d).
        top_k_index: (T, K); an index of E means that the slot's expert is on another rank, and gives 0.
        top_k_weights: (T, K).

    Returns:
        (T, d) in the dtype of the tokens. The same bits whatever the number of threads: no two threads add to one row.
    """
    bank: _Experts = self
    n_tokens, n_slots = top_k_index.shape
    experts = top_k_index.reshape(-1)
    order = experts.argsort(stable=True)
    tokens = hidden_states[order // n_slots]
    name = "gate_up_proj" if bank.has_gate else "up_proj"
    up, down = (getattr(self, each).unbind(0) for each in (name, "down_proj"))
    up_bias, down_bias = (
        getattr(self, f"{each}_bias").unbind(0) if bank.has_bias else [None] * bank.num_experts
        for each in (name, "down_proj")
    )
    counts = torch.bincount(experts, minlength=bank.num_experts + 1).tolist()
    found: list[Tensor] = []
    # What comes last, of index E, is no expert's.
    for expert, part in enumerate(tokens.split(counts)[: bank.num_experts]):
        if len(part):
            inner = _linear(part, up[expert], up_bias[expert], bank.is_transposed)
            inner = self._apply_gate(inner) if bank.has_gate else bank.act_fn(inner)
            outer = _linear(inner, down[expert], down_bias[expert], bank.is_transposed)
            found.append(bank.post_expert_norm(outer) if bank.has_post_expert_norm else outer)
    elsewhere = sum(counts[bank.num_experts :])
    if elsewhere or not found:
        found.append(hidden_states.new_zeros(elsewhere, hidden_states.shape[-1]))
    slots = torch.cat(found)[order.argsort()].reshape(n_tokens, n_slots, hidden_states.shape[-1])
    return (slots * top_k_weights.unsqueeze(-1)).sum(1).to(hidden_states.dtype)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, is_transposed: bool) -> Tensor:
    return torch.nn.functional.linear(x, weight.T if is_transposed else weight, bias)


ALL_EXPERTS_FUNCTIONS.register(EXPERTS_IMPLEMENTATION, sorted_experts_forward)
