"""Balance among experts: what the load is, losses that even it out, and a bias that does so without a loss.

f_e is the share of slots that went to expert e, P_e the mean of its scores normalised over the experts, both over the
tokens that are no padding. Where everything is even both are 1/E.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.nn.arguments import positive
from gatewise.nn.readers import RouterReader, readers_of
from gatewise.nn.routing import Routing
from gatewise.nn.watching import Call, watch
from gatewise.ops.log_space import log_softmax, logsumexp

__all__ = [
    "BiasBalancer",
    "Routing",
    "balance_loss",
    "importance_loss",
    "load",
    "mean_score",
    "pooled_balance_loss",
    "recording",
    "router_z_loss",
]


def load(indices: Tensor, n_experts: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The share of slots of each expert, f (E,), of indices of any shape; 0 without tokens.

    Raises:
        InputError: an index is no whole number from 0 to E − 1.

    Example:
        >>> load(torch.tensor([[0, 1], [0, 2]]), 4)
        tensor([0.5000, 0.2500, 0.2500, 0.0000])
    """
    return _counts(indices, n_experts).to(dtype) / max(1, indices.numel())


def _counts(indices: Tensor, n_experts: int) -> Tensor:
    """How many slots each expert has, (E,) in int64."""
    if indices.dtype not in (torch.int64, torch.int32):
        raise InputError(f"indices must be of int64, not {indices.dtype}")
    if indices.numel() and int(indices.min()) < 0:
        raise InputError(f"indices must lie between 0 and {n_experts - 1}, and one is {int(indices.min())}")
    counts = torch.bincount(indices.reshape(-1), minlength=n_experts)
    if len(counts) > n_experts:
        raise InputError(f"indices must lie between 0 and {n_experts - 1}, and one is {len(counts) - 1}")
    return counts


def mean_score(log_scores: Tensor) -> Tensor:
    """P (E,): the mean over tokens of the scores divided by their sum, from log s (T, E).

    In log space, so that scores that underflow together still share 1: a loss cannot be lowered by making all of them
    small.
    """
    return log_softmax(log_scores).exp().sum(0) / max(1, len(log_scores))


def balance_loss(routing: Routing) -> Tensor:
    """E Σ_e f_e P_e of one layer: 1 where load or scores are even (Fedus, Zoph and Shazeer 2022, equation 4).

    Example:
        >>> from gatewise.nn import Selection
        >>> selection, logits = Selection(top_k=1, ties="spread"), torch.zeros(6, 3)
        >>> balance_loss(Routing(logits, *selection(logits), selection))
        tensor(1.0000)
    """
    return _balance(routing.slots, routing.log_scores)


def _balance(slots: Tensor, log_scores: Tensor) -> Tensor:
    n_experts = log_scores.shape[-1]
    return n_experts * (load(slots, n_experts, log_scores.dtype) * mean_score(log_scores)).sum()


def pooled_balance_loss(routings: Sequence[Routing]) -> Tensor:
    """The same with all layers as one, and summed over slots: K where even, as in transformers' models.

    Raises:
        InputError: there is no layer, or they differ in E or in their selections.
    """
    if len({(routing.n_experts, routing.selection, routing.normalised) for routing in routings}) != 1:
        raise InputError("layers can be pooled if there are some, with the same number of experts and one selection")
    slots = torch.cat([routing.slots for routing in routings])
    log_scores = torch.cat([routing.log_scores for routing in routings])
    return routings[0].selection.top_k * _balance(slots, log_scores)


def importance_loss(routing: Routing) -> Tensor:
    """The squared coefficient of variation of the importance Σ_t w_te (Shazeer et al. 2017, arXiv:1701.06538).

    The variance is that of the E numbers themselves, divided by E. 0 without tokens, or where all weights are 0. With
    K = 1 and weights divided by their sum all weights are 1, and there is no gradient: pass `renormalise="none"`.
    """
    weight = routing.weights
    total = weight.new_zeros(len(weight), routing.n_experts).scatter_add(-1, routing.indices, weight).sum(0)
    mean = total.mean()
    # The quotient before the square: the square of a small mean is 0.
    return ((total - mean) / torch.where(mean > 0.0, mean, 1.0)).square().mean()


def router_z_loss(routing: Routing) -> Tensor:
    """The mean of (log Σ_e exp z_e)², which keeps logits small (Zoph et al. 2022, arXiv:2202.08906, equation 5)."""
    return logsumexp(routing.logits).square().sum() / max(1, len(routing.logits))


@contextmanager
def recording(model: nn.Module) -> Iterator[dict[str, list[Routing]]]:
    """Within the block each router's calls are kept, with their gradients, for losses of balance.

    A recomputation by checkpointing is not recorded again. The first pass of a reentrant checkpoint has no gradients,
    and so a loss of what is recorded there has none: checkpoint with `use_reentrant=False`. Copies of the model that
    are made meanwhile are not recorded.

    Yields:
        For each router's name the `Routing` of each call, tokens of all axes in one.

    Raises:
        InputError: the model has no router.

    Example:
        >>> from gatewise.nn import SparseMoE
        >>> layer = SparseMoE(8, "softmax", n_experts=4, hidden=8)
        >>> with recording(layer) as calls:
        ...     y = layer(torch.randn(10, 8))
        >>> loss = y.square().mean() + 0.01 * sum(balance_loss(call) for call in calls["router"])
    """
    calls: dict[str, list[Routing]] = {}
    watches = []
    for name, reader in readers_of(model).items():
        kept = calls[name] = []
        watches.append(watch(reader, lambda call, kept=kept: kept.append(call.routing)))
    try:
        yield calls
    finally:
        for each in watches:
            each.remove()


class BiasBalancer:
    """Moves the correction biases of routers toward an even load, without a loss: Wang et al. 2024, arXiv:2408.15664.

    After each step b_e ← b_e + u · sign(mean load − load_e), and then b ← b − mean(b). Loads are those of calls in
    training mode since the last step, without recomputations by checkpointing, summed over the ranks of a distributed
    run. Any router whose reader knows its bias can be moved, wherever the model keeps it.

    Args:
        model: routers or a model of them; a `Router` is made with `correction_bias=True`.
        rate: u, in the units of the scores: sigmoids of distances of 7 are .001, and a step of .01 outweighs all of
            them, so that no load settles. Take a small part of what the scores of two experts differ by, or the scores
            of a softmax. It may be changed between steps.

    Raises:
        InputError: there is no router, one has no correction bias, or the rate is not positive.

    Example:
        >>> from gatewise.gates import SoftmaxGate
        >>> from gatewise.nn import Router, Selection
        >>> router = Router(SoftmaxGate(4, 3), Selection(top_k=1, score="sigmoid"), correction_bias=True)
        >>> balancer = BiasBalancer(router, rate=0.1)
        >>> _ = router(torch.zeros(5, 4))
        >>> balancer.step()
        >>> router.correction_bias
        tensor([-0.1333,  0.0667,  0.0667])
    """

    def __init__(self, model: nn.Module, rate: float = 1e-3) -> None:
        positive("rate", rate)
        self.rate = float(rate)
        readers = readers_of(model)
        for name, reader in readers.items():
            if reader.correction_bias is None:
                raise InputError(f"the router {name or 'itself'!r} has no bias: make it with correction_bias=True")
        self._names = list(readers)
        self._readers = list(readers.values())
        # In a model in bfloat16 a bias of 1/2 could not move by steps of 1/1000: these are what moves.
        self._exact = [_exact(reader) for reader in self._readers]
        self._counts = [torch.zeros(reader.n_experts, dtype=torch.int64) for reader in self._readers]
        self._watches = [
            watch(reader, lambda call, index=index: self._count(index, call))
            for index, reader in enumerate(self._readers)
        ]

    def _count(self, index: int, call: Call) -> None:
        if call.reader.module.training:
            counts = torch.bincount(call.routing.slots, minlength=call.reader.n_experts)
            self._counts[index] = self._counts[index].to(counts.device) + counts

    @torch.no_grad()
    def step(self) -> None:
        """Move the biases once, after the optimiser's step; routers without a call since the last one stay."""
        for index, reader in enumerate(self._readers):
            bias = reader.correction_bias
            assert bias is not None
            counts = self._counts[index].to(bias.device)
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.all_reduce(counts)
            if int(counts.sum()):
                exact = self._exact[index].to(bias.device)
                if not torch.equal(exact.to(bias.dtype), bias):
                    # Somebody else has moved it.
                    exact = _exact(reader)
                moved = exact + self.rate * torch.sign(counts.double().mean() - counts).to(exact.dtype)
                self._exact[index] = moved - moved.mean()
                bias.copy_(self._exact[index])
            self._counts[index] = torch.zeros_like(counts)

    def state_dict(self) -> dict[str, list[float]]:
        """The biases by the routers' names, as plain data from which `load_state_dict` continues."""
        return {name: exact.tolist() for name, exact in zip(self._names, self._exact, strict=True)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        """Continue where `state_dict` was taken.

        Raises:
            InputError: the state is of other routers; then nothing changes.
        """
        sizes = {name: reader.n_experts for name, reader in zip(self._names, self._readers, strict=True)}
        if {name: len(values) for name, values in state.items()} != sizes:
            raise InputError(f"a state of these routers has {sizes}, names and numbers of experts")
        for index, (name, reader) in enumerate(zip(self._names, self._readers, strict=True)):
            bias = reader.correction_bias
            assert bias is not None
            self._exact[index] = torch.tensor(state[name], dtype=self._exact[index].dtype, device=bias.device)
            bias.copy_(self._exact[index])

    def remove(self) -> None:
        """Stop watching the routers."""
        for each in self._watches:
            each.remove()


def _exact(reader: RouterReader) -> Tensor:
    """A copy of a router's bias in float32 or float64."""
    bias = reader.correction_bias
    assert bias is not None
    return bias.detach().to(torch.promote_types(bias.dtype, torch.float32)).clone()
