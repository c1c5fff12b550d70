"""Measures of routing, as functions of counts, scores and representations.

Loads are counts of slots, n (E,): every slot of every token. Entropies are in nats, or divided by log E.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gatewise.nn.routing import Routing
from gatewise.ops.log_space import log_softmax

__all__ = [
    "MutualInformation",
    "busiest_share",
    "dead_experts",
    "effective_experts",
    "effective_rank",
    "linear_cka",
    "load_entropy",
    "margins",
    "max_over_mean",
    "mutual_information",
    "representation_collapse",
    "selection_change",
    "tied",
    "token_entropies",
]


def load_entropy(counts: Tensor) -> float:
    """H(load)/log E of counts (E,): 1 where even, log K/log E where all tokens go to the same K experts.

    NaN without slots; 1 with a single expert.

    Example:
        >>> load_entropy(torch.tensor([5, 5, 5, 5])), round(load_entropy(torch.tensor([10, 10, 0, 0])), 3)
        (1.0, 0.5)
    """
    if not int(counts.sum()):
        return math.nan
    return _entropy(counts) / math.log(len(counts)) if len(counts) > 1 else 1.0


def effective_experts(counts: Tensor) -> float:
    """Exp H(load) of counts (E,): how many experts with equal loads have that entropy; NaN without slots.

    Example:
        >>> round(effective_experts(torch.tensor([10, 10, 0, 0])), 3)
        2.0
    """
    return math.exp(_entropy(counts)) if int(counts.sum()) else math.nan


def _entropy(counts: Tensor) -> float:
    share = counts.double() / counts.sum()
    return float(torch.special.entr(share).sum())


def max_over_mean(counts: Tensor) -> float:
    """The largest load over the mean, of counts (E,): 1 where even; NaN without slots.

    Example:
        >>> max_over_mean(torch.tensor([6, 1, 1, 0]))
        3.0
    """
    total = int(counts.sum())
    return int(counts.max()) * len(counts) / total if total else math.nan


def busiest_share(counts: Tensor) -> float:
    """The share of the slots that the E/4 experts with the most take, E/4 rounded up; NaN without slots.

    Example:
        >>> busiest_share(torch.tensor([6, 2, 1, 1]))
        0.6
    """
    total = int(counts.sum())
    most = counts.sort(descending=True).values[: math.ceil(len(counts) / 4)]
    return int(most.sum()) / total if total else math.nan


def dead_experts(counts: Tensor, below: float = 0.05) -> list[int]:
    """The experts with less than `below` · 1/E of the slots, of counts (E,).

    Example:
        >>> dead_experts(torch.tensor([100, 100, 100, 3]))
        [3]
    """
    return (counts * len(counts) < below * counts.sum()).nonzero().flatten().tolist()


def token_entropies(routing: Routing) -> Tensor:
    """H(s_t)/log E of each token (T,), of its scores divided by their sum: how undecided the router is.

    0 where one expert has all. It says nothing about the load: a router that is sure of each token can be even, and one
    that is undecided can send all tokens to the same experts. NaN where a logit is.

    Example:
        >>> from gatewise.nn import Selection
        >>> logits = torch.tensor([[0.0, 0.0], [900.0, 0.0]])
        >>> token_entropies(Routing(logits, *Selection(top_k=1)(logits), Selection(top_k=1)))
        tensor([1., 0.])
    """
    log_share = log_softmax(routing.log_scores.float())
    # 0 · ∞ is 0 here.
    terms = log_share.exp() * log_share.neg().clamp_max(torch.finfo(log_share.dtype).max)
    return terms.sum(-1) / math.log(max(2, routing.n_experts))


def margins(routing: Routing, bias: Tensor | None = None) -> Tensor:
    """The K-th less the (K + 1)-th choice score of each token (T,): how far the next expert was from being chosen.

    Choice scores are `Selection.choice_scores`, with the correction bias b; experts of groups that are out do not
    count. NaN where there is no next expert, where b is on the meta device (offloaded),
    where another expert had a larger score than a chosen one, as when the
    choice is a table of token ids, and throughout where experts choose tokens.

    Args:
        routing: what a router did.
        bias: b (E,).

    Example:
        >>> from gatewise.nn import Selection
        >>> selection, logits = Selection(top_k=2, score="sigmoid"), torch.tensor([[0.0, 2.0, 1.0]])
        >>> margins(Routing(logits, *selection(logits), selection))
        tensor([0.2311])
    """
    offloaded = bias is not None and bias.device != routing.logits.device and bias.is_meta
    if offloaded or routing.selection.method == "expert_choice" or routing.indices.shape[-1] >= routing.n_experts:
        return routing.logits.new_full((len(routing.logits),), torch.nan)
    choice = routing.selection.choice_scores(routing.logits, bias, routing.normalised)
    least = choice.gather(-1, routing.indices).amin(-1)
    following = choice.scatter(-1, routing.indices, -torch.inf).amax(-1)
    # An expert that the gate leaves out is no next one. Scores that are made here again may differ by rounding.
    unknown = (following <= torch.finfo(following.dtype).min) | (least < following - 1e-4)
    return torch.where(unknown, torch.nan, (least - following).clamp_min(0.0))


def tied(routing: Routing, bias: Tensor | None = None) -> Tensor:
    """Whether the K-th expert of each token and the next one are equal, in choice scores and in logits, (T,).

    In logits too: scores of a router that is sure underflow together, and its choice is none by chance of order.

    Args:
        routing: what a router did.
        bias: b (E,).
    """
    choice = routing.selection.choice_scores(routing.logits, bias, routing.normalised)
    least, slot = choice.gather(-1, routing.indices).min(-1)
    following, other = choice.scatter(-1, routing.indices, -torch.inf).max(-1)
    last = routing.indices.gather(-1, slot.unsqueeze(-1))
    same = routing.logits.gather(-1, last) == routing.logits.gather(-1, other.unsqueeze(-1))
    return (least == following) & same.squeeze(-1)


class MutualInformation(NamedTuple):
    """I in nats, and the bias that a finite sample gives it on average where there is no dependence."""

    value: float
    bias: float


def mutual_information(table: Tensor) -> MutualInformation:
    """I = Σ p_de log(p_de/(p_d p_e)) of a table of counts (domains, experts), with its bias (rows − 1)(columns − 1)/2N.

    Rows and columns are those with a count, N the number of counts: Miller 1955, to first order, for counts that are
    independent of each other. The K slots of a token and the tokens of a text are not, so that the bias is too small.

    Example:
        >>> value, bias = mutual_information(torch.tensor([[50, 0], [0, 50]]))
        >>> round(value, 4), bias
        (0.6931, 0.005)
    """
    total = int(table.sum())
    if not total:
        return MutualInformation(math.nan, math.nan)
    counts = table.double()
    rows, columns = counts.sum(1), counts.sum(0)
    value = float(torch.special.entr(rows / total).sum() + torch.special.entr(columns / total).sum())
    value -= float(torch.special.entr(counts / total).sum())
    n_rows, n_columns = int((rows > 0).sum()), int((columns > 0).sum())
    return MutualInformation(max(0.0, value), (n_rows - 1) * (n_columns - 1) / (2 * total))


def selection_change(before: Tensor, after: Tensor) -> float:
    """The mean over tokens of 1 − |S ∩ S′|/K of the experts (T, K) of the same tokens at two times.

    Where K has changed the larger one counts. NaN without tokens.

    Example:
        >>> selection_change(torch.tensor([[0, 1], [2, 3]]), torch.tensor([[1, 0], [2, 0]]))
        0.25
    """
    if not len(before):
        return math.nan
    common = (before.unsqueeze(-1) == after.unsqueeze(-2)).any(-1).sum()
    return 1.0 - int(common) / (len(before) * max(before.shape[-1], after.shape[-1]))


def representation_collapse(x: Tensor, classes: Tensor) -> float:
    """Tr(Σ_W Σ_B⁺) of representations x (n, d) with classes (n,): how far tokens of one expert lie apart.

    Σ_W is the mean of (x − μ_c)(x − μ_c)ᵀ over tokens, Σ_B that of (μ_c − μ)(μ_c − μ)ᵀ over classes, μ the mean of the
    μ_c. Small: the tokens of each expert collapse onto their mean. After Chi et al. 2022 (arXiv:2204.09179), recalled
    and not checked: compare values of this function with each other only. NaN with fewer than two classes, if all
    classes have one mean, or if a number is not finite.

    Example:
        >>> x = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
        >>> round(representation_collapse(x, torch.tensor([0, 0, 1, 1])), 6)
        0.04
    """
    x = x.double()
    found, place = classes.unique(return_inverse=True)
    if len(found) < 2 or not bool(x.isfinite().all()):
        return math.nan
    sizes = torch.bincount(place, minlength=len(found)).double()
    means = x.new_zeros(len(found), x.shape[1]).index_add(0, place, x) / sizes.unsqueeze(1)
    within = x - means[place]
    _, values, directions = torch.linalg.svd(means - means.mean(0), full_matrices=False)
    kept = values > values[0] * max(means.shape) * torch.finfo(x.dtype).eps
    if not bool(kept.any()) or float(values[0]) == 0.0:
        return math.nan
    # Σ_B = V S² Vᵀ/C: in its directions the trace is a sum of quotients.
    along = (within @ directions[kept].T).square().mean(0)
    return float((along * len(found) / values[kept].square()).sum())


def effective_rank(x: Tensor) -> float:
    """Exp H(σ²/Σσ²) of the singular values σ of x (n, d): how many directions the representations fill.

    NaN without tokens, where all are 0, or where one is not finite.

    Example:
        >>> round(effective_rank(torch.eye(4)), 6)
        4.0
    """
    if not len(x) or not bool(x.isfinite().all()):
        return math.nan
    square = torch.linalg.svdvals(x.double()).square()
    total = float(square.sum())
    return math.exp(float(torch.special.entr(square / total).sum())) if total > 0.0 else math.nan


def linear_cka(outputs: Tensor, block: int = 128) -> Tensor:
    """Linear CKA between experts (E, E) of their outputs on the same tokens, (E, n, d): 1 where they agree.

    ⟨K_i, K_j⟩/(‖K_i‖ ‖K_j‖) with K_i the centred products of outputs (Kornblith et al. 2019, arXiv:1905.00414, equation
    5 with linear kernels, recalled; no rotation, shift or scale of an expert's outputs changes it). NaN for an expert
    whose outputs are all the same.

    Args:
        outputs: (E, n, d).
        block: how many rows of the products are held at a time, for memory.

    Example:
        >>> x = torch.randn(1, 20, 3, generator=torch.Generator().manual_seed(0))
        >>> linear_cka(torch.cat([x, 2.0 * x + 1.0])).round(decimals=4)
        tensor([[1., 1.],
                [1., 1.]])
    """
    n_experts, n_tokens, _ = outputs.shape
    centred = outputs.float() - outputs.float().mean(1, keepdim=True)
    scale = centred.square().mean((1, 2), keepdim=True).sqrt()
    # So that products of small outputs do not underflow.
    centred = centred / torch.where(scale > 0.0, scale, 1.0)
    inner = torch.zeros(n_experts, n_experts, dtype=torch.float64, device=outputs.device)
    for begin in range(0, n_tokens, block):
        products = (centred[:, begin : begin + block] @ centred.transpose(1, 2)).reshape(n_experts, -1)
        inner += (products @ products.T).double()
    length = inner.diagonal().sqrt()
    cosine = inner / (length.unsqueeze(0) * length.unsqueeze(1))
    return cosine.to(torch.float32)
