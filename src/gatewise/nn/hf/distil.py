"""What the old routers read on some text, and new gates that give what the old ones gave there."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.nn.arguments import whole
from gatewise.nn.hf.sites import Site
from gatewise.nn.readers import readers_of
from gatewise.nn.router import Router

__all__ = ["Batch", "distil", "read_inputs", "read_tokens"]

Batch = Tensor | Mapping[str, Any]
Tokens = Callable[[tuple[Any, ...], dict[str, Any]], Tensor]

MOST_TOKENS = 4096
_TOKENS_AT_ONCE = 512
_RATE = 0.02


def read_tokens(model: nn.Module, sites: list[Site], data: Batch | Iterable[Batch]) -> dict[str, Tensor]:
    """What each router reads (T, d), see `read_inputs`.

    Args:
        model: in whatever mode; it is read in evaluation mode.
        sites: the routers.
        data: batches.
    """
    readers = readers_of(model)
    return read_inputs(model, {site.name: (site.router, readers[site.name].tokens) for site in sites}, data)


def read_inputs(
    model: nn.Module, modules: Mapping[str, tuple[nn.Module, Tokens]], data: Batch | Iterable[Batch]
) -> dict[str, Tensor]:
    """What modules read (T, d), in float32 and without padding, of at most 4,096 tokens.

    Args:
        model: in whatever mode; it is read in evaluation mode.
        modules: by a name each, with what gives the tokens of a call from its arguments.
        data: batches.

    Raises:
        InputError: a batch is no tensor of token ids or dictionary with them, its mask is of another shape, the model
            does not know a token, or there is none.
    """
    batches: Any = [data] if isinstance(data, Tensor | Mapping) else data
    if not isinstance(batches, Iterable):
        raise InputError(f"data must be batches of token ids, not {shown(data)}")
    known = getattr(getattr(model, "get_input_embeddings", lambda: None)(), "num_embeddings", None)
    found: dict[str, list[Tensor]] = {name: [] for name in modules}
    mask: list[Tensor | None] = [None]

    def watch(name: str, tokens: Tokens) -> Callable[..., None]:
        def keep(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            x = tokens(arguments, keywords).detach().float()
            found[name].append(x if mask[0] is None else x[mask[0].to(x.device)])

        return keep

    handles = [
        module.register_forward_pre_hook(watch(name, tokens), with_kwargs=True)
        for name, (module, tokens) in modules.items()
    ]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    n_tokens, device = 0, next(model.parameters()).device
    try:
        with torch.no_grad():
            for batch in batches:
                inputs = _inputs(batch, device, known)
                if not inputs["input_ids"].numel():
                    continue
                kept = inputs.get("attention_mask")
                mask[0] = None if kept is None else kept.reshape(-1).bool()
                model(**inputs)
                n_tokens += int(inputs["input_ids"].numel() if mask[0] is None else mask[0].sum())
                if n_tokens >= MOST_TOKENS:
                    break
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    if n_tokens == 0:
        raise InputError("there is no token in data: pass batches of token ids")
    return {name: torch.cat(parts)[:MOST_TOKENS] for name, parts in found.items()}


def _inputs(batch: Batch, device: torch.device, known: int | None) -> dict[str, Any]:
    inputs = dict(batch) if isinstance(batch, Mapping) else {"input_ids": batch}
    ids = inputs.get("input_ids")
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.is_floating_point():
        raise InputError(
            f"a batch of data must be token ids (n, length), or a dictionary with input_ids, not {shown(batch)}"
        )
    mask = inputs.get("attention_mask")
    if mask is not None and (not isinstance(mask, Tensor) or mask.shape != ids.shape):
        raise InputError(f"the attention_mask of a batch of data must be {tuple(ids.shape)} as input_ids, 0 at padding")
    if known is not None and ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < known:
        raise InputError(f"data holds token ids from {int(ids.min())} to {int(ids.max())}, and the model knows {known}")
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in inputs.items()}


def distil(site: Site, router: Router, tokens: Tensor, steps: int) -> float:
    """Fit the new gate to the old scores: the mean over tokens of Σ_e s_e log(s_e/t_e) − s_e + t_e is minimised.

    S are the old router's scores and t the new one's, as their selections make them of logits: for scores that sum to 1
    that is the Kullback–Leibler divergence, and for others, to which a correction bias is added, their size counts too.
    The gate begins with the old weights as directions, with centres that lie along them as far out as the tokens, and
    with the mean logit of each expert.

    Returns:
        The share of tokens for which both choose the same experts.
    """
    whole("steps", steps)
    weight, bias = (None if value is None else value.float() for value in site.parameters())
    assert weight is not None
    selection = site.contract.selection(site.router)
    old_logits = torch.nn.functional.linear(tokens, weight, bias)
    old = selection.log_scores(selection.capped(old_logits))
    _begin(router, weight, tokens, old_logits)

    def loss(rows: Tensor) -> Tensor:
        logits = router.logits(tokens[rows])
        new = router.selection.log_scores(router.selection.capped(logits), router.normalised)
        # A gate that leaves experts out has −∞ there; that part has no gradient, and 0 · ∞ must not enter.
        new = new.clamp_min(-50.0)
        return (old[rows].exp() * (old[rows] - new) - old[rows].exp() + new.exp()).sum(-1).mean()

    parameters = [value for value in router.gate.parameters() if value.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0)).to(tokens.device)
    size = min(_TOKENS_AT_ONCE, len(tokens))
    with torch.enable_grad():
        for step in range(steps):
            begin = step * size % len(tokens)
            rows = torch.cat([order, order])[begin : begin + size]
            optimiser.zero_grad()
            loss(rows).backward()
            optimiser.step()
            schedule.step()
    optimiser.zero_grad()
    with torch.no_grad():
        _, old_indices = selection(old_logits)
        _, new_indices = router.selection(router.logits(tokens), None, router.normalised)
    if old_indices.shape != new_indices.shape:
        return float("nan")
    return float((old_indices.sort().values == new_indices.sort().values).all(-1).float().mean())


@torch.no_grad()
def _begin(router: Router, weight: Tensor, tokens: Tensor, old_logits: Tensor) -> None:
    """Directions, centres and levels from the old router."""
    length = tokens.norm(dim=-1).mean() / weight.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
    router.gate.place(weight, weight * length)
    bias = dict(router.gate.named_parameters()).get("bias")
    if bias is not None and bias.shape == old_logits.shape[1:]:
        # Distances are far from 0, and some hundred steps of an optimiser would not bring the logits there.
        bias.add_((old_logits - router.logits(tokens)).mean(0))
