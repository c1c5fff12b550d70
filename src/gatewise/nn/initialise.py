"""First values for a router: every expert gets tokens, and so every expert gets gradients."""

import math
import warnings
from typing import Literal, get_args

import torch
from torch import Tensor

from gatewise.exceptions import EqualLogitsWarning, InputError
from gatewise.gates import Gate
from gatewise.nn.arguments import one_of, positive
from gatewise.nn.router import Router

__all__ = ["initialise_router", "warn_of_equal_logits"]

Method = Literal["normal", "orthonormal", "data"]
_N_TOKENS = 16


@torch.no_grad()
def initialise_router(
    router: Router | Gate,
    method: Method = "normal",
    std: float = 0.02,
    data: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Give every expert a direction, or a centre, of its own; biases, temperatures and all else stay as they are.

    Fits to tables begin with equal experts and tell them apart by the rows. A network cannot: with equal logits every
    token goes to the same K experts, and the others never get a gradient.

    Args:
        router: a router or its gate.
        method: where directions v (E, d) and centres come from. "normal": numbers from N(0, std²). "orthonormal":
            orthogonal rows of length std · √d, d of them at a time if there are more experts. "data": directions
            are different rows of `data`, less their mean, at the length std · √d, and centres lie from the mean toward
            those rows, all at the median distance: else the centre next to the mean would take most tokens.
        std: the standard deviation of an entry of v. Small values balance the load at first.
        data: tokens (…, d) for "data".
        generator: of the random numbers, on the CPU; torch's own if None.

    Raises:
        InputError: the method is unknown or needs d ≥ 2, std is not positive, or there are fewer different tokens than
            experts.

    Example:
        >>> from gatewise.gates import SoftmaxGate
        >>> gate = SoftmaxGate(n_features=16, n_experts=4)
        >>> initialise_router(gate, "orthonormal", std=0.25, generator=torch.Generator().manual_seed(0))
        >>> (gate.weight @ gate.weight.T).detach().round(decimals=4).abs()
        tensor([[1., 0., 0., 0.],
                [0., 1., 0., 0.],
                [0., 0., 1., 0.],
                [0., 0., 0., 1.]])
    """
    gate = router.gate if isinstance(router, Router) else router
    if not isinstance(gate, Gate):
        raise InputError(f"pass a router or its gate, not {type(gate).__name__}: a layer's is `layer.router`")
    one_of("method", method, get_args(Method))
    positive("std", std)
    if (method == "data") != (data is not None):
        raise InputError("pass the tokens as data with method='data', and only then")
    n, d = gate.n_experts, gate.n_features
    if d == 1 and n > 1 and method != "normal":
        raise InputError(f"on a line there are two directions, and {n} experts would share them: take method='normal'")
    if data is not None:
        rows = _rows(data, n, d, generator)
        mean = rows.mean(0)
        away = _unit(rows - mean)
        direction, point = away * std * math.sqrt(d), mean + away * (rows - mean).norm(dim=-1).median()
    elif method == "normal":
        point = direction = std * torch.randn(n, d, generator=generator)
    else:
        point = direction = torch.cat([_orthonormal(d, generator) for _ in range(-(-n // d))])[:n] * std * math.sqrt(d)
    device = next(gate.parameters()).device
    gate.place(direction.to(device), point.to(device))


@torch.no_grad()
def warn_of_equal_logits(router: Router, what: str, stacklevel: int) -> None:
    """Warn where the logits of random tokens are the same for all experts, or for all tokens.

    Args:
        router: with numbers; of one on the meta device nothing is asked.
        what: begins the sentence, as "the router of this layer".
        stacklevel: of the warning, seen from the caller.

    Warns:
        EqualLogitsWarning: every token would go to the same experts, though there are others.
    """
    gate, selection = router.gate, router.selection
    weight = next(gate.parameters())
    if weight.is_meta or selection.top_k == gate.n_experts or selection.ties == "spread":
        return
    # Whatever device is the usual one here, as where a layer is made on the meta device around a router.
    drawn = torch.randn(_N_TOKENS, gate.n_features, generator=torch.Generator().manual_seed(0), device="cpu")
    logits = gate.logits(drawn.to(weight.device, weight.dtype))
    if bool((logits == logits[:, :1]).all()) or bool((logits == logits[:1]).all()):
        warnings.warn(
            f"{what} has not been initialised: its logits do not tell experts or tokens apart, so that every token "
            f"goes to the same {selection.top_k} of {gate.n_experts} experts and the others never learn: call "
            "gatewise.nn.initialise_router(router) first",
            EqualLogitsWarning,
            stacklevel=stacklevel + 1,
        )


def _rows(data: Tensor, n: int, d: int, generator: torch.Generator | None) -> Tensor:
    """N different tokens (n, d), on the CPU."""
    if data.ndim == 0 or data.shape[-1] != d:
        found = "are a single number" if data.ndim == 0 else f"have {data.shape[-1]}"
        raise InputError(f"the gate reads {d} features, and the tokens {found}")
    tokens = data.detach().reshape(-1, d).cpu().float()
    order = torch.randperm(len(tokens), generator=generator)
    chosen: list[Tensor] = []
    for token in tokens[order]:
        if not any(torch.equal(token, other) for other in chosen) and bool(torch.isfinite(token).all()):
            chosen.append(token)
        if len(chosen) == n:
            return torch.stack(chosen)
    raise InputError(f"there are {len(chosen)} different finite tokens in data for {n} experts: pass more")


def _orthonormal(d: int, generator: torch.Generator | None) -> Tensor:
    factor, triangle = torch.linalg.qr(torch.randn(d, d, generator=generator))
    return factor * triangle.diagonal().sign()


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
