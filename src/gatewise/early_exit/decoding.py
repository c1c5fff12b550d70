"""From gates to exits: targets, masses and decisions.

L exits, of which the last has no gate; g (n, L − 1) are the gates' values in (0, 1), exits are counted from 0.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.messages import shown

__all__ = ["Decoding", "Weighting", "best_exits", "check_decoding", "exit_masses", "fire_levels", "head_loss"]

Decoding = Literal["cdf", "paper"]
Weighting = Literal["masses", "uniform", "released", "single"]


def check_decoding(decoding: object) -> None:
    """Refuse what is no decoding.

    Raises:
        InputError: it is none.
    """
    if decoding not in get_args(Decoding):
        raise InputError(f"decoding must be one of {', '.join(map(repr, get_args(Decoding)))}, not {shown(decoding)}")


def best_exits(losses: Tensor, costs: Tensor, lam: float) -> Tensor:
    """l* (n,) = argmin over l of loss_l + λ c_l, the cheapest of equals.

    For fixed losses the mean cost of l* does not rise with λ. Computed in float64: at λ = 1e9 float32 would lose the
    losses.

    Args:
        losses: (n, L), the cross-entropies, or another loss.
        costs: (L,), rising.
        lam: λ ≥ 0.

    Example:
        >>> losses = torch.tensor([[2.0, 0.5, 0.4]])
        >>> [best_exits(losses, torch.tensor([0.1, 0.5, 1.0]), lam).item() for lam in (0.0, 1.0, 1e9)]
        [2, 1, 0]
    """
    total = losses.double() + lam * costs.double()
    return first_true(total == total.min(-1, keepdim=True).values)


def first_true(fires: Tensor) -> Tensor:
    """(n,), the first place in each row of (n, L) that is true; the last one if none is."""
    return (fires.cumsum(-1) == 0).sum(-1).clamp_max(fires.shape[-1] - 1)


def _cdf_masses(g: Tensor) -> Tensor:
    reached = torch.cummax(g, -1).values
    edges = torch.cat([torch.zeros_like(g[:, :1]), reached, torch.ones_like(g[:, :1])], -1)
    return edges.diff(dim=-1)


def _paper_masses(g: Tensor) -> Tensor:
    left = (1.0 - (g.cumsum(-1) - g)).clamp_min(0.0)
    masses = torch.minimum(g, left)
    return torch.cat([masses, (1.0 - masses.sum(-1, keepdim=True)).clamp_min(0.0)], -1)


def _paper_levels(g: Tensor) -> Tensor:
    masses = _paper_masses(g)[:, :-1]
    left = 1.0 - (masses.cumsum(-1) - masses)
    # Where nothing is left a level before was 1, and the sample is gone.
    return torch.where(left > 1e-12, masses / left.clamp_min(1e-12), 1.0).clamp(0.0, 1.0)


_MASSES: dict[str, Callable[[Tensor], Tensor]] = {"cdf": _cdf_masses, "paper": _paper_masses}
_LEVELS: dict[str, Callable[[Tensor], Tensor]] = {"cdf": lambda g: g, "paper": _paper_levels}


def exit_masses(g: Tensor, decoding: Decoding = "cdf") -> Tensor:
    """The probabilities (n, L) with which a sample leaves at each exit: ≥ 0, with sum 1.

    "cdf": gates estimate P(l* ≤ l), so with M_l = max_{j ≤ l} g_j the masses are M_l − M_{l−1}, and the last exit gets
    1 − M_{L−1}. "paper": gates are the masses themselves as long as 1 lasts, P_l = max(0, min(g_l, 1 − Σ_{j<l} g_j)),
    and the last exit gets the rest (Regol, Chataoui and Coates 2024, arXiv:2310.09163, equation 8 by its reviewers'
    and its code's count).

    Example:
        >>> g = torch.tensor([[0.2, 0.7, 0.5]])
        >>> exit_masses(g).round(decimals=4), exit_masses(g, "paper").round(decimals=4)
        (tensor([[0.2000, 0.5000, 0.0000, 0.3000]]), tensor([[0.2000, 0.7000, 0.1000, 0.0000]]))
    """
    return _MASSES[decoding](g)


def fire_levels(g: Tensor, decoding: Decoding = "cdf") -> Tensor:
    """The values (n, L − 1) that are held against ½: a sample leaves at the first exit where they reach it.

    "cdf": g itself, so that the exit is the median of l*. "paper": the mass given that the sample is still there,
    a_l = P_l/Π_{j<l}(1 − a_j), clipped to [0, 1]; the product is what the masses before have left.

    Example:
        >>> fire_levels(torch.tensor([[0.3, 0.4, 0.1]]), "paper").round(decimals=4)
        tensor([[0.3000, 0.5714, 0.3333]])
    """
    return _LEVELS[decoding](g)


def head_loss(cross_entropies: Tensor, masses: Tensor, weighting: Weighting = "masses") -> Tensor:
    """The heads' loss, a number: the mean over samples of the exits' weighted cross-entropies (n, L).

    "masses": Σ_l P_l CE_l · r with r = Σ CE/Σ P·CE, so that rare exits do not shrink the step; P and r have no
    gradient. "released": the same with the gradient of r, as the paper's released code; the sum then *is* Σ CE, and the
    gates have no influence on the heads. "uniform": Σ CE. "single": the cross-entropy of the exit with the largest
    mass.

    Args:
        cross_entropies: (n, L) of the heads, with gradient.
        masses: P (n, L).
        weighting: as above.

    Example:
        >>> ce = torch.tensor([[1.0, 3.0]], requires_grad=True)
        >>> for weighting in ("masses", "released", "uniform"):
        ...     loss = head_loss(ce, torch.tensor([[0.75, 0.25]]), weighting)
        ...     (gradient,) = torch.autograd.grad(loss, ce)
        ...     print(weighting, round(loss.item(), 4), gradient)
        masses 4.0 tensor([[2.0000, 0.6667]])
        released 4.0 tensor([[1., 1.]])
        uniform 4.0 tensor([[1., 1.]])
    """
    return _HEAD_LOSSES[weighting](cross_entropies, masses.detach()).mean()


def _weighted(cross_entropies: Tensor, masses: Tensor, detached: bool) -> Tensor:
    weighted = (masses * cross_entropies).sum(-1)
    # A sample that every head gets right has cross-entropies that underflow together.
    ratio = cross_entropies.sum(-1) / weighted.clamp_min(1e-12)
    return weighted * (ratio.detach() if detached else ratio)


def _single(cross_entropies: Tensor, masses: Tensor) -> Tensor:
    return cross_entropies.gather(-1, masses.argmax(-1, keepdim=True)).squeeze(-1)


_HEAD_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "masses": lambda losses, masses: _weighted(losses, masses, detached=True),
    "released": lambda losses, masses: _weighted(losses, masses, detached=False),
    "uniform": lambda losses, _: losses.sum(-1),
    "single": _single,
}
