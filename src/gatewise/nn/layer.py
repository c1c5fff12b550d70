"""The sparse layer: a router, a bank of experts, and shared experts that every token passes."""

import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.gates import GATES, Gate, build_gate
from gatewise.nn.arguments import one_of, positive, whole
from gatewise.nn.dispatch import Dispatch, dispatch
from gatewise.nn.experts import GLUBank, MLPBank, NetworkBank
from gatewise.nn.initialise import initialise_router, warn_of_equal_logits
from gatewise.nn.router import Router, usual_selection
from gatewise.nn.selection import Selection
from gatewise.parts.options import checked_options

__all__ = ["SparseMoE"]

_BANKS: dict[str, Callable[..., NetworkBank]] = {"mlp": MLPBank, "glu": GLUBank}


class SparseMoE(nn.Module):
    """y_t = Σⱼ w_tj f_e(t,j)(x_t) + Σ shared(x_t): each token passes the K experts that the router chooses.

    No token is dropped, unless a capacity is given: then every expert takes at most ⌈capacity · K · T/E⌉ of the T
    tokens, the first ones, and the others lose that expert's part; their weights are not divided anew.

    Args:
        d: the length of a token.
        router: a `Router`; or a gate, or the name of one, see `selection`. A gate made from a name is initialised by
            "normal"; others are taken as they are.
        experts: a bank, or "glu" or "mlp" for a new one.
        n_experts: E, if router or experts are names.
        gate_options: options of a gate that is given by its name, as {"temperature": 0.1}.
        selection: how experts are chosen by a gate, or by one that is given by its name; by default as many as the gate
            itself gives weight to, as a top-K gate, else the two with the largest weights. A `Router` has its own.
        hidden: hidden units of each expert, if it is a new bank; 4 d by default.
        n_shared: how many experts of the same form every token passes with weight 1.
        path: how tokens reach their experts, see `dispatch`.
        capacity: None, or a factor as above.

    Attributes:
        n_dropped: how many slots the last call dropped for want of capacity; 0 without one.

    Raises:
        InputError: sizes that do not fit each other, E is missing, or a selection or options for a router that has its
            own.

    Warns:
        EqualLogitsWarning: the router was not initialised, and would send every token to the same experts.

    Example:
        >>> layer = SparseMoE(16, "laplace", "glu", n_experts=8, hidden=32)
        >>> layer(torch.zeros(2, 5, 16)).shape
        torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        d: int,
        router: Router | Gate | str = "softmax",
        experts: NetworkBank | str = "glu",
        *,
        n_experts: int | None = None,
        gate_options: Mapping[str, Any] | None = None,
        selection: Selection | None = None,
        hidden: int | None = None,
        n_shared: int = 0,
        path: Dispatch = "auto",
        capacity: float | None = None,
    ) -> None:
        super().__init__()
        whole("d", d)
        one_of("the path", path, get_args(Dispatch))
        parts = (part for part in (router, experts) if isinstance(part, nn.Module))
        size = next((part.n_experts for part in parts), None) if n_experts is None else n_experts
        if size is None:
            raise InputError("n_experts is missing: neither the router nor the experts say how many there are")
        whole("n_experts", size)
        self.router = _router(router, d, size, gate_options, selection)
        self.experts = _bank(experts, d, size, hidden)
        if self.router.gate.n_features != d or self.experts.d != d:
            raise InputError(
                f"tokens have d = {d}, the gate reads {self.router.gate.n_features} features and the experts "
                f"{self.experts.d}"
            )
        if not self.router.n_experts == self.experts.n_experts == size:
            raise InputError(
                f"the router has {self.router.n_experts} experts, the bank {self.experts.n_experts}, and n_experts is "
                f"{size}: they must agree"
            )
        whole("n_shared", n_shared, least=0)
        if capacity is not None:
            positive("capacity", capacity)
            if self.router.selection.method == "expert_choice":
                raise InputError("with expert choice every expert takes its number of tokens: leave out the capacity")
        self.shared = self.experts.like(n_shared) if n_shared else None
        self.d = d
        self.path: Dispatch = path
        self.capacity = capacity
        self.n_dropped = 0
        warn_of_equal_logits(self.router, "the router of this layer", 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The layer's output for tokens (…, d), of the same shape and dtype, or under autocast in its dtype.

        Args:
            x: tokens.
            mask: (…), True where there is a token, False at padding: that is neither routed nor counted, and its
                output is 0.

        Raises:
            InputError: the shapes or dtypes do not fit, or a logit is not a number.
        """
        if x.ndim == 0 or x.shape[-1] != self.d:
            found = "a single number" if x.ndim == 0 else x.shape[-1]
            raise InputError(f"the layer takes tokens of length {self.d}, not {found}")
        flat = x.reshape(-1, self.d)
        if mask is None:
            return self._tokens(flat).reshape(x.shape)
        if mask.shape != x.shape[:-1] or mask.dtype != torch.bool:
            raise InputError(
                f"the mask must be of booleans, True at tokens, with the shape {tuple(x.shape[:-1])}, not {mask.dtype} "
                f"with {tuple(mask.shape)}: mask.bool() makes booleans of zeros and ones"
            )
        kept = mask.reshape(-1).nonzero().squeeze(-1)
        found = self._tokens(flat[kept])
        return found.new_zeros(flat.shape).index_copy(0, kept, found).reshape(x.shape)

    def _tokens(self, x: Tensor) -> Tensor:
        _, weights, indices = self.router(x)
        self.n_dropped = 0
        if self.capacity is not None:
            weights = self._within_capacity(weights, indices, self.capacity)
        found = dispatch(self.experts, x, weights, indices, self.path)
        if self.shared is not None:
            for network in self.shared.networks():
                found = found + network(x)
        return found

    def _within_capacity(self, weights: Tensor, indices: Tensor, capacity: float) -> Tensor:
        """The weights, 0 where an expert has had its part; first slots first, then tokens in their order."""
        n_tokens, n_slots = indices.shape
        most = math.ceil(min(n_tokens, capacity * n_slots * n_tokens / self.experts.n_experts))
        # All first choices come before all second ones.
        experts = indices.T.reshape(-1)
        order = experts.argsort(stable=True)
        ends = torch.bincount(experts, minlength=self.experts.n_experts).cumsum(0)
        begins = torch.cat([ends.new_zeros(1), ends[:-1]])
        rank = torch.arange(len(order), device=order.device) - begins[experts[order]]
        inside = torch.zeros_like(order, dtype=torch.bool).scatter(0, order, rank < most).reshape(n_slots, n_tokens).T
        self.n_dropped = int((~inside).sum())
        return weights * inside

    def extra_repr(self) -> str:
        """What is not a module of its own."""
        return f"d={self.d}, path={self.path!r}, capacity={self.capacity}"


def _router(
    router: Router | Gate | str, d: int, n_experts: int, options: Mapping[str, Any] | None, selection: Selection | None
) -> Router:
    if isinstance(router, str):
        gate = build_gate(router, d, n_experts, **checked_options("gate", GATES[router], options))
        initialise_router(gate)
        return Router(gate, usual_selection(gate) if selection is None else selection)
    if options is not None:
        raise InputError("gate_options belong to a gate that is made from its name: this one is made already")
    if isinstance(router, Router):
        if selection is not None:
            raise InputError("selection belongs to a gate: a router has its own, as Router(gate, selection)")
        return router
    if selection is None and isinstance(router, Gate):
        selection = usual_selection(router)
    return Router(router, selection)


def _bank(experts: NetworkBank | str, d: int, n_experts: int, hidden: int | None) -> NetworkBank:
    if isinstance(experts, NetworkBank):
        if hidden is not None and hidden != experts.hidden:
            raise InputError(f"hidden is {hidden}, and the experts have {experts.hidden} units")
        return experts
    if not isinstance(experts, str) or experts not in _BANKS:
        raise InputError(f"experts must be a bank or one of {', '.join(map(repr, _BANKS))}, not {experts!r}")
    return _BANKS[experts](n_experts, d, 4 * d if hidden is None else hidden)
