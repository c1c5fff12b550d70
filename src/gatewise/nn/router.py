"""A router: a gate and a selection, computed in float32 whatever the network computes in."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Self, cast

import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.gates import Gate
from gatewise.gates.base import GateLogits
from gatewise.nn.selection import Selection

__all__ = ["Router", "usual_selection"]


def usual_selection(gate: Gate) -> Selection:
    """As many experts as the gate itself gives weight to, else the two with the largest weights.

    Example:
        >>> from gatewise.gates import build_gate
        >>> usual_selection(build_gate("laplace", 8, 4)).top_k
        2
        >>> usual_selection(build_gate("top_k", 8, 4, n_active=3)).top_k
        3
    """
    return Selection(top_k=gate.own_top_k or min(2, gate.n_experts))


class Router(nn.Module):
    """Tokens x (…, d) ↦ the gate's logits z (…, E), and the selection's weights (…, K) and indices (…, K).

    Logits and weights are computed in float32 with autocast off, from the stored parameters and inputs of whatever
    dtype: in bfloat16 two experts of close logits would change places. Where inputs and gate are in float64 they stay.

    Args:
        gate: any gate that can route at its d. It is used as it is, not copied.
        selection: how K experts are chosen; by default the two with the largest weights.
        correction_bias: whether there is a bias b (E,) that acts on the choice only, a buffer that starts at 0 and that
            `nn.balance.BiasBalancer` moves. It stays in float32 where the model is cast to a shorter type.
        jitter: in training mode the gate sees x · u with u uniform on [1 − jitter, 1 + jitter], drawn for each number
            (Fedus, Zoph and Shazeer 2022, arXiv:2101.03961, section 2.4).

    Raises:
        InputError: the gate cannot route at this d; the selection does not fit its experts or its own K; the jitter is
            not between 0 and 1.

    Example:
        >>> from gatewise.gates import LaplaceGate
        >>> router = Router(LaplaceGate(n_features=16, n_experts=8), Selection(top_k=2))
        >>> logits, weights, indices = router(torch.zeros(3, 5, 16, dtype=torch.bfloat16))
        >>> weights.shape, weights.dtype, indices.shape
        (torch.Size([3, 5, 2]), torch.float32, torch.Size([3, 5, 2]))
    """

    correction_bias: Tensor | None

    def __init__(
        self, gate: Gate, selection: Selection | None = None, correction_bias: bool = False, jitter: float = 0.0
    ) -> None:
        super().__init__()
        selection = Selection() if selection is None else selection
        if not isinstance(gate, Gate):
            raise InputError(f"a router needs a gate of gatewise.gates, not {type(gate).__name__}")
        limit = gate.most_routing_features
        if limit is not None and gate.n_features > limit:
            raise InputError(
                f"the {gate.name} gate has d² numbers for each expert and routes up to d = {limit}, not "
                f"{gate.n_features}: take a gate without matrices, or project the tokens first"
            )
        if gate.n_features < 1:
            raise InputError("a gate without features would send every token to the same experts")
        if isinstance(jitter, bool) or not isinstance(jitter, int | float) or not 0.0 <= jitter < 1.0:
            raise InputError(f"jitter must lie between 0 and 1, not {jitter!r}")
        self.gate = gate
        self.selection = selection
        self.jitter = float(jitter)
        # In a list, so that the gate's parameters are not named twice.
        self._logits = [GateLogits(gate)]
        bias = torch.zeros(gate.n_experts, dtype=torch.float32) if correction_bias else None
        self.register_buffer("correction_bias", bias)
        self.check(selection)

    @property
    def n_experts(self) -> int:
        """E."""
        return self.gate.n_experts

    @property
    def normalised(self) -> bool:
        """Whether the gate's own weights are the softmax of its logits."""
        return self.gate.normaliser == "softmax"

    def check(self, selection: Selection) -> None:
        """Refuse a selection that does not fit the gate or the bias.

        Raises:
            InputError: K, the groups or the bias do not fit, or it is no selection.
        """
        if not isinstance(selection, Selection):
            raise InputError(f"pass a selection, as Selection(top_k=2), not {selection!r}")
        selection.check(self.n_experts)
        own = self.gate.own_top_k
        if own is not None and selection.top_k > own:
            raise InputError(
                f"the {self.gate.name} gate gives weight to {own} of its experts, not to {selection.top_k}: make the "
                f"gate with n_active={selection.top_k} or more, or pass Selection(top_k={own})"
            )
        if self.correction_bias is not None:
            selection.check_bias()
            if own is not None and selection.top_k == own:
                raise InputError(
                    f"the {self.gate.name} gate leaves {own} experts and the selection takes all of them, so that a "
                    "bias changes nothing: make the gate with a larger n_active, or leave out the correction bias"
                )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.correction_bias
        super()._apply(fn, recurse)
        after = self.correction_bias
        if before is not None and after is not None and after.dtype in (torch.bfloat16, torch.float16):
            # In bfloat16 a bias of 1/2 could not move by steps of 1/1000.
            self.correction_bias = before.to(after.device)
        return self

    def logits(self, x: Tensor) -> Tensor:
        """Logits z (…, E) in float32, or in float64 where inputs and gate are.

        Raises:
            InputError: x has another length than the gate's d.
        """
        if x.ndim == 0 or x.shape[-1] != self.gate.n_features:
            found = "are a single number" if x.ndim == 0 else f"have {x.shape[-1]}"
            raise InputError(f"the gate reads {self.gate.n_features} features, and the tokens {found}")
        with _without_autocast(x.device.type):
            stored = dict(self.gate.named_parameters())
            double = x.dtype == torch.float64 and all(value.dtype == torch.float64 for value in stored.values())
            dtype = torch.float64 if double else torch.float32
            x = x.to(dtype)
            if self.training and self.jitter > 0.0:
                x = x * torch.empty_like(x).uniform_(1.0 - self.jitter, 1.0 + self.jitter)
            if all(value.dtype == dtype for value in stored.values()):
                return self.gate.logits(x)
            if self._logits[0].gate is not self.gate:
                self._logits = [GateLogits(self.gate)]
            tensors = {f"gate.{name}": value.to(dtype) for name, value in stored.items()}
            tensors |= {
                f"gate.{name}": value.to(dtype) if value.is_floating_point() else value
                for name, value in self.gate.named_buffers()
            }
            return cast(Tensor, torch.func.functional_call(self._logits[0], tensors, (x,)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (…, E), weights (…, K) and indices (…, K) of tokens (…, d).

        Raises:
            InputError: x has another length than the gate's d, a logit is not a number, or the selection is a new one
                that does not fit.
        """
        self.check(self.selection)
        logits = self.logits(x)
        with _without_autocast(x.device.type):
            bias = None if self.correction_bias is None else self.correction_bias.to(logits.dtype)
            weights, indices = self.selection(logits, bias, self.normalised)
        return logits, weights, indices

    def extra_repr(self) -> str:
        """The selection and the jitter."""
        return f"selection={self.selection}, jitter={self.jitter}"


def _without_autocast(device: str) -> AbstractContextManager[object]:
    """Autocast off, on devices that have one: "meta" has none."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
