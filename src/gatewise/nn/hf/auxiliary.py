"""Losses of balance inside a model's own loss."""

from typing import Any

import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.nn.balance import balance_loss, router_z_loss
from gatewise.nn.model_calls import ModelCalls
from gatewise.nn.readers import readers_of
from gatewise.nn.routing import Routing
from gatewise.nn.watching import Call, Hook, watch

__all__ = ["AuxiliaryLoss"]


class AuxiliaryLoss:
    """Adds c · mean_l E Σ f_e P_e + c_z · mean_l mean_t (log Σ exp z)², over routers l, to `output.loss` in training.

    The balance of each layer is `gatewise.nn.balance.balance_loss`, 1 where even, over the tokens that are no padding.
    What a model gives without labels, in evaluation mode or without gradients stays as it is.

    Args:
        model: a transformers model of any type whose routers can be read.
        coefficient: c.
        z_coefficient: c_z.

    Attributes:
        coefficient: c; it may be changed between steps.
        share: what part of the loss one call is, where the caller says how many items the whole batch has
            (`num_items_in_batch`): 1/(calls in the batch).
        last: the mean of E Σ f_e P_e over the routers of the last call in training, NaN before.

    Raises:
        InputError: there is no router that can be read.

    Example:
        >>> from transformers import DeepseekV3Config, DeepseekV3ForCausalLM
        >>> sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "moe_intermediate_size": 8}
        >>> heads = {"num_attention_heads": 2, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4}
        >>> experts = {"n_routed_experts": 8, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2}
        >>> layers = {"num_hidden_layers": 2, "first_k_dense_replace": 1}
        >>> config = DeepseekV3Config(**sizes, **heads, **experts, **layers)
        >>> model, ids = DeepseekV3ForCausalLM(config).train(), torch.arange(32).reshape(2, 16)
        >>> plain = model(ids, labels=ids).loss
        >>> loss = AuxiliaryLoss(model, coefficient=0.5)
        >>> abs(model(ids, labels=ids).loss.item() - plain.item() - 0.5 * loss.last) < 1e-5
        True
        >>> loss.remove()
    """

    def __init__(self, model: nn.Module, coefficient: float = 0.01, z_coefficient: float = 0.0) -> None:
        self.coefficient = float(coefficient)
        self.z_coefficient = float(z_coefficient)
        self.share = 1.0
        self._last: Tensor | None = None
        self._kept: list[tuple[Routing, Tensor | None]] = []
        # It refuses what is no model before anything watches it.
        readers = readers_of(model)
        self._calls = ModelCalls([model], "attention_mask", None, most_domains=2)
        self._calls.start()
        self._hooks = [watch(reader, self._keep) for reader in readers.values()]
        for act, register in ((self._begin, model.register_forward_pre_hook), (self._add, model.register_forward_hook)):
            hook = Hook(act)
            hook.handle = register(hook, with_kwargs=True)
            self._hooks.append(hook)

    @property
    def last(self) -> float:
        """The mean of E Σ f_e P_e over the routers of the last call in training; NaN before."""
        return float("nan") if self._last is None else float(self._last)

    def remove(self) -> None:
        """Leave the model's loss as it is from now on."""
        self._calls.stop()
        for hook in self._hooks:
            hook.remove()

    def _begin(self, *call: object) -> None:
        self._kept = []

    def _keep(self, call: Call) -> None:
        if call.reader.module.training:
            indices = call.routing.indices
            # Rows are taken later: within a checkpoint the recomputation, which is not watched, must save as much.
            self._kept.append((call.routing, self._calls.rows(len(indices), indices.device).kept))

    def _add(self, model: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> Any:
        kept, self._kept = [routing if rows is None else routing.at(rows) for routing, rows in self._kept], []
        loss = output.get("loss") if hasattr(output, "get") else output[0] if "labels" in keywords else None
        if not model.training or not kept or not isinstance(loss, Tensor) or not torch.is_grad_enabled():
            return None
        if not any(routing.logits.requires_grad for routing in kept) and loss.requires_grad:
            raise InputError(
                "the routers' logits have no gradient, so that a loss of balance would change nothing: checkpoint with "
                "use_reentrant=False, or train the routers too"
            )
        balance = torch.stack([balance_loss(routing).to(loss.device) for routing in kept]).mean()
        self._last = balance.detach()
        added = self.coefficient * balance
        if self.z_coefficient:
            added = (
                added + self.z_coefficient * torch.stack([router_z_loss(each).to(loss.device) for each in kept]).mean()
            )
        whole = keywords.get("num_items_in_batch") is None
        loss = loss + (added if whole else added * self.share).to(loss.dtype)
        if hasattr(output, "get"):
            output["loss"] = loss
            return output
        return (loss, *output[1:])
