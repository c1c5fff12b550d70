"""Which experts a token goes to, and with what weights, once a gate has given its logits."""

import dataclasses
import math
from typing import Literal, get_args

import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.nn.arguments import one_of, positive, whole
from gatewise.ops.log_space import log_softmax
from gatewise.ops.readable import readable

__all__ = ["Selection"]

Score = Literal["gate", "softmax", "sigmoid", "sqrt_softplus"]
Weights = Literal["score", "softmax", "sigmoid"]
Renormalise = Literal["sum", "floored_sum", "none"]
GroupScore = Literal["two_largest", "largest"]
Method = Literal["top_k", "sparse_mixer", "expert_choice"]
Ties = Literal["any", "spread"]

_WORDS = {
    "score": get_args(Score),
    "weights": get_args(Weights),
    "renormalise": get_args(Renormalise),
    "group_score": get_args(GroupScore),
    "method": get_args(Method),
    "ties": get_args(Ties),
}
# Below this the softplus is an exponential to the last digit of float64.
_EXPONENTIAL_BELOW = -40.0


@dataclasses.dataclass(frozen=True)
class Selection:
    """Logits z (…, E) ↦ weights (…, K) and indices (…, K) of the experts that each token goes to.

    With scores s(z) and a correction bias b the K largest sᵢ + bᵢ are chosen, and their weights are sᵢ, divided by
    their sum over the chosen ones, times a factor. The bias acts on the choice only. Everything is computed in log
    space, so that no score underflows before it is divided.

    Args:
        top_k: K, how many experts a token goes to; with "expert_choice" on average.
        score: what s is. "gate": the gate's own weights, softmax(z), or exp(z) for a gate that is not normalised;
            "softmax", "sigmoid" 1/(1 + e⁻ᶻ), "sqrt_softplus" √log(1 + eᶻ) (deepseek_v4).
        weights: from what the weights come: the scores, or the "softmax" or "sigmoid" of the chosen logits.
        renormalise: whether the weights are divided by their "sum", by max(sum, floor) ("floored_sum"), or not: "none".
            With K = 1 the "sum" makes every weight 1, and the gate gets no gradient through it: take "none" (Switch).
        floor: of "floored_sum".
        factor: by which the weights are multiplied at last.
        n_groups: G; the experts lie in G groups of equal size, one after the other.
        top_groups: how many groups stay, the best ones; the experts of the others are out.
        group_score: what makes a group good: the sum of its "two_largest" s + b (deepseek_v3), or its "largest" s
            (deepseek_v2).
        cap: c > 0; the logits are first capped, c · tanh(z/c) (laguna). None for none.
        method: "top_k"; "sparse_mixer" (phimoe): K times, among the experts left, the one with the largest logit m,
            with the weight softmax over those j with (m − zⱼ)/max(|zⱼ|, m) ≤ 2 ε; "expert_choice": every expert takes
            the K·T/E tokens, rounded up, with the largest s (Zhou et al. 2022, arXiv:2202.09368). That looks at all
            tokens of a batch, later ones too: it is not for the decoding of text.
        mixer_epsilon: ε of "sparse_mixer".
        ties: which of equal experts are chosen: "any", as `torch.topk` has it, or "spread": token t prefers expert
            t mod E, then t + 1 mod E and so on, so that equal logits give every expert its part.

    Raises:
        InputError: an option is out of range, or two do not go together.

    Example:
        >>> logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
        >>> Selection(top_k=2)(logits)
        (tensor([[0.7311, 0.2689]]), tensor([[2, 1]]))
        >>> Selection(top_k=2, score="sigmoid", renormalise="none")(logits)
        (tensor([[0.8808, 0.7311]]), tensor([[2, 1]]))
    """

    top_k: int = 2
    score: Score = "gate"
    weights: Weights = "score"
    renormalise: Renormalise = "sum"
    floor: float = 1e-20
    factor: float = 1.0
    n_groups: int = 1
    top_groups: int = 1
    group_score: GroupScore = "two_largest"
    cap: float | None = None
    method: Method = "top_k"
    mixer_epsilon: float = 0.01
    ties: Ties = "any"

    def __post_init__(self) -> None:
        for name, words in _WORDS.items():
            one_of(name, getattr(self, name), words)
        for name in ("top_k", "n_groups", "top_groups"):
            whole(name, getattr(self, name))
        for name in ("floor", "factor", "mixer_epsilon"):
            positive(name, getattr(self, name))
        if self.cap is not None:
            positive("cap", self.cap)
        if self.top_groups > self.n_groups:
            raise InputError(f"top_groups is {self.top_groups}, and there are {self.n_groups} groups (n_groups)")
        if self.method != "top_k" and (self.n_groups > 1 or self.weights != "score" or self.ties != "any"):
            raise InputError(f"method={self.method!r} has no groups, no weights of its own and no ties: leave them out")
        if self.method == "sparse_mixer" and (self.renormalise != "none" or self.score not in ("gate", "softmax")):
            raise InputError("the sparse mixer is a softmax without renormalisation: pass renormalise='none'")

    @property
    def sums_to_one(self) -> bool:
        """Whether the weights of every token sum to 1, whatever the logits.

        Example:
            >>> Selection().sums_to_one, Selection(renormalise="none").sums_to_one
            (True, False)
        """
        divided = self.renormalise == "sum" or self.weights == "softmax"
        # With expert choice a token that no expert takes has no weight at all.
        return divided and self.method == "top_k" and self.factor == 1.0

    def check(self, n_experts: int) -> None:
        """Refuse a number of experts that does not fit.

        Raises:
            InputError: E < K; the groups do not divide the experts, or those that stay have fewer than K.
        """
        if self.top_k > n_experts:
            raise InputError(f"top_k is {self.top_k}, and there are only {n_experts} experts")
        size, rest = divmod(n_experts, self.n_groups)
        if rest:
            raise InputError(f"{n_experts} experts cannot be divided into {self.n_groups} groups of equal size")
        if size * self.top_groups < self.top_k:
            raise InputError(
                f"{self.top_groups} groups of {size} experts hold fewer than the top_k = {self.top_k} to be chosen"
            )
        if self.n_groups > 1 and self.group_score == "two_largest" and size < 2:
            raise InputError("groups of one expert have no two largest scores: pass group_score='largest'")

    def check_bias(self) -> None:
        """Refuse a correction bias where it would change nothing.

        Raises:
            InputError: the method has no use for one.
        """
        if self.method != "top_k":
            raise InputError(f"method={self.method!r} has no use for a correction bias: leave it out")

    def log_scores(self, logits: Tensor, normalised: bool = True) -> Tensor:
        """Log s of every expert, (…, E) ↦ (…, E), of logits that are capped already.

        Args:
            logits: z.
            normalised: whether the gate's own weights are the softmax of its logits.
        """
        if self.score == "sigmoid":
            return torch.nn.functional.logsigmoid(logits)
        if self.score == "sqrt_softplus":
            return 0.5 * _log_softplus(logits)
        if self.score == "gate" and not normalised:
            return logits
        return log_softmax(logits)

    def capped(self, logits: Tensor) -> Tensor:
        """The logits after the cap, (…, E); −∞, an expert that the gate leaves out, stays."""
        if self.cap is None:
            return logits
        return torch.where(logits == -torch.inf, logits, self.cap * torch.tanh(logits / self.cap))

    def __call__(self, logits: Tensor, bias: Tensor | None = None, normalised: bool = True) -> tuple[Tensor, Tensor]:
        """Weights and indices.

        Args:
            logits: z (…, E). Where one is −∞ the gate leaves the expert out: no bias brings it back.
            bias: b (E,), added to the scores for the choice alone.
            normalised: whether the gate's own weights are the softmax of its logits.

        Returns:
            Weights (…, K), in the order of the choice, in float32 or float64, and indices (…, K) in int64. With
            "expert_choice" the last axis is as long as the largest number of experts that took one token; those of
            other tokens end with weight 0.

        Raises:
            InputError: the selection does not fit the number of experts or has no use for a bias, the bias does not
                have one number for each expert, or a logit or the bias is not a number.
        """
        if logits.ndim == 0:
            raise InputError("logits need an axis of experts, and a single number has none")
        n_experts = logits.shape[-1]
        self.check(n_experts)
        flat = logits.reshape(-1, n_experts).to(torch.promote_types(logits.dtype, torch.float32))
        _check_numbers(flat)
        if bias is not None:
            self.check_bias()
            if bias.shape != (n_experts,):
                raise InputError(f"the bias must have one number for each of {n_experts} experts, not {bias.shape}")
            _check_numbers(bias)
        flat = self.capped(flat)
        if self.method == "sparse_mixer":
            weights, indices = self._mixed(flat)
        elif self.method == "expert_choice":
            weights, indices = self._taken(flat, normalised)
        else:
            weights, indices = self._chosen(flat, bias, normalised)
        if self.factor != 1.0:
            weights = weights * self.factor
        shape = logits.shape[:-1]
        return weights.reshape(*shape, weights.shape[-1]), indices.reshape(*shape, indices.shape[-1])

    def choice_scores(self, logits: Tensor, bias: Tensor | None = None, normalised: bool = True) -> Tensor:
        """What orders the experts in the choice: c = s + b (…, E), of the logits where the weights come from these.

        An expert that the gate leaves out has the lowest number there is, one of a group that is out −∞.

        Args:
            logits: z (…, E), before the cap.
            bias: b (E,).
            normalised: whether the gate's own weights are the softmax of its logits.

        Example:
            >>> Selection(score="sigmoid").choice_scores(torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([0.5, 0.0, 0.0]))
            tensor([[1.0000, 0.8808, 0.7311]])
        """
        flat = logits.reshape(-1, logits.shape[-1]).to(torch.promote_types(logits.dtype, torch.float32))
        return self._choice(self.capped(flat), bias, normalised).reshape(logits.shape)

    def _choice(self, logits: Tensor, bias: Tensor | None, normalised: bool) -> Tensor:
        score = logits if self.weights != "score" else self.log_scores(logits, normalised).exp()
        choice = score if bias is None else score + bias
        # Whom the gate leaves out comes behind all others, and before other groups: the weight is 0.
        lowest = choice.masked_fill(logits == -torch.inf, torch.finfo(choice.dtype).min)
        if self.n_groups == 1:
            return lowest
        value = choice if self.group_score == "two_largest" else score
        return lowest.masked_fill(self._outside(value.detach()), -torch.inf)

    def _chosen(self, logits: Tensor, bias: Tensor | None, normalised: bool) -> tuple[Tensor, Tensor]:
        # All scores grow with the logit: the logits order the experts, unless something is added to the scores.
        plain = bias is None and self.n_groups == 1
        choice = logits if plain else self._choice(logits, bias, normalised)
        indices = _largest(choice.detach(), self.top_k, self.ties)
        picked = logits.gather(-1, indices)
        if self.weights == "softmax":
            log_weights = log_softmax(picked)
        elif self.weights == "sigmoid":
            log_weights = torch.nn.functional.logsigmoid(picked)
        elif self.score in ("gate", "softmax") and self.renormalise == "sum":
            # The sum over all experts cancels.
            log_weights = picked
        elif self.score == "softmax" or (self.score == "gate" and normalised):
            log_weights = log_softmax(logits).gather(-1, indices)
        else:
            log_weights = self.log_scores(picked, normalised)
        return self._renormalised(log_weights), indices

    def _renormalised(self, log_weights: Tensor) -> Tensor:
        if self.renormalise == "sum":
            return log_softmax(log_weights).exp()
        weights = log_weights.exp()
        if self.renormalise == "floored_sum":
            weights = weights / weights.sum(-1, keepdim=True).clamp_min(self.floor)
        return weights

    def _outside(self, value: Tensor) -> Tensor:
        """The experts of all groups but the best, a mask (T, E)."""
        groups = value.unflatten(-1, (self.n_groups, -1))
        total = groups.topk(2, -1).values.sum(-1) if self.group_score == "two_largest" else groups.amax(-1)
        size = groups.shape[-1]
        best = _largest(total, self.top_groups, self.ties, each=size)
        stay = torch.zeros_like(total, dtype=torch.bool).scatter(-1, best, True)
        return ~stay.repeat_interleave(size, -1)

    def _mixed(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        indices = logits.detach().sort(dim=-1, descending=True, stable=True).indices[:, : self.top_k]
        taken, weights = torch.zeros_like(logits, dtype=torch.bool), []
        for best in indices.split(1, -1):
            most = logits.gather(-1, best)
            # Not "near" by ≤: 0/0, where all logits are 0, is near.
            far = (most - logits) / torch.maximum(logits.abs(), most) > 2.0 * self.mixer_epsilon
            weights.append(log_softmax(logits.masked_fill(taken | far, -torch.inf)).gather(-1, best).exp())
            taken = taken.scatter(-1, best, True)
        return torch.cat(weights, -1), indices

    def _taken(self, logits: Tensor, normalised: bool) -> tuple[Tensor, Tensor]:
        n_tokens, n_experts = logits.shape
        score = self.log_scores(logits, normalised).exp()
        choice = score.detach()
        capacity = min(n_tokens, math.ceil(self.top_k * n_tokens / n_experts))
        tokens = choice.topk(capacity, 0).indices
        taken = torch.zeros_like(choice, dtype=torch.bool).scatter(0, tokens, True)
        most = max(1, int(taken.sum(-1).max())) if n_tokens else 1
        indices = choice.masked_fill(~taken, -torch.inf).topk(most, -1).indices
        weights = torch.where(taken.gather(-1, indices), score.gather(-1, indices), 0.0)
        if self.renormalise == "none":
            return weights, indices
        floor = self.floor if self.renormalise == "floored_sum" else torch.finfo(weights.dtype).tiny
        return weights / weights.sum(-1, keepdim=True).clamp_min(floor), indices


def _largest(choice: Tensor, k: int, ties: Ties, each: int = 1) -> Tensor:
    """Indices of the k largest of each row, (T, E) ↦ (T, k); with "spread" every `each` tokens begin at another."""
    if ties == "any":
        return choice.topk(k, -1).indices
    n_tokens, n_experts = choice.shape
    turn = torch.arange(n_tokens, device=choice.device).unsqueeze(-1) // each % n_experts
    turned = (torch.arange(n_experts, device=choice.device) + turn) % n_experts
    order = choice.gather(-1, turned).sort(dim=-1, descending=True, stable=True).indices[:, :k]
    return turned.gather(-1, order)


def _check_numbers(values: Tensor) -> None:
    """Refuse logits (T, E) or a bias (E,) with NaN; on a CPU, since elsewhere the look would wait for the device."""
    # The sum of all is one pass, and NaN if one of them is, or where there are both infinities.
    if not (values.device.type == "cpu" and readable(values) and bool(values.detach().sum().isnan())):
        return
    found = values.isnan()
    if bool(found.any()) and values.ndim == 1:
        raise InputError(f"the bias of expert {int(found.nonzero()[0])} is NaN")
    if bool(found.any()):
        row = int(found.any(-1).nonzero()[0])
        raise InputError(
            f"the logits of token {row} hold NaN: look for overflow in what the router reads, or mask the token"
        )


def _log_softplus(z: Tensor) -> Tensor:
    """Elementwise log log(1 + eᶻ), which is z − eᶻ/2 + … at large −z, where log(1 + eᶻ) underflows."""
    low = z < _EXPONENTIAL_BELOW
    return torch.where(low, z, torch.nn.functional.softplus(torch.where(low, torch.zeros_like(z), z)).log())
