"""What routers read, what their layers give, and what experts do: the dearer measures of a monitor."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.nn import measures
from gatewise.nn.batches import Rows
from gatewise.nn.experts import NetworkBank
from gatewise.nn.readers import RouterReader, layer_around
from gatewise.nn.watching import Call, Hook, watch

__all__ = ["Inside"]

MOST_TOKENS = 1024
"""How many tokens of a call are kept, evenly spaced."""


@dataclass
class _Kept:
    """Of one router: tokens of the last call and what became of them, and sums of the experts' outputs.

    Attributes:
        read: what the router read (n, d).
        given: what the layer gave (n, d).
        first: the expert with the largest weight of each token (n,).
        norms: Σ_t w_te ‖f_e(x_t)‖ (E,).
        slots: N_e (E,).
    """

    read: Tensor | None = None
    given: Tensor | None = None
    first: Tensor | None = None
    norms: Tensor | float = 0.0
    slots: Tensor | float = 0.0


class Inside:
    """Keeps at most 1,024 tokens of the last call of every router, and sums over the outputs of experts.

    Args:
        root: the model.
        readers: of its routers.
        rows: gives of a number of rows, and their device, those that count.
        representations: whether to keep what routers read and layers give.
        experts: whether to pass the tokens kept of each call through their experts again.
    """

    def __init__(
        self,
        root: nn.Module,
        readers: Mapping[str, RouterReader],
        rows: Callable[[int, torch.device], Rows],
        representations: bool,
        experts: bool,
    ) -> None:
        self._readers = readers
        self._rows = rows
        self._representations = representations
        self._experts = experts
        paths = {module: path for path, module in root.named_modules()}
        self._layers = {name: layer_around(root, paths[reader.module]) for name, reader in readers.items()}
        self._hooks: list[Hook] = []
        self.begin()

    def begin(self) -> None:
        """Forget what was kept."""
        self._kept = {name: _Kept() for name in self._readers}

    def start(self) -> None:
        """Watch, if there is something to be kept."""
        if not (self._representations or self._experts):
            return
        for name, reader in self._readers.items():
            self._hooks.append(watch(reader, lambda call, name=name: self._read(name, call)))
            layer = self._layers[name]
            if layer is not None and self._representations:
                hook = Hook(lambda module, arguments, output, name=name: self._give(name, output))
                hook.handle = layer.register_forward_hook(hook)
                self._hooks.append(hook)

    def stop(self) -> None:
        """Watch no more."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @torch.no_grad()
    def _read(self, name: str, call: Call) -> None:
        tokens, routing = call.tokens().detach(), call.routing
        chosen = self._places(len(tokens), tokens.device)
        kept, weights, indices = self._kept[name], routing.weights[chosen], routing.indices[chosen]
        kept.read = tokens[chosen]
        kept.given = None
        kept.first = indices.gather(-1, weights.argmax(-1, keepdim=True)).squeeze(-1)
        bank = self._bank(name)
        if self._experts and bank is not None:
            norms, slots = [], []
            for expert, network in enumerate(bank.networks()):
                mine = (indices == expert) & routing.filled[chosen]
                used = mine.any(-1)
                weight = (weights * mine).sum(-1)[used]
                norms.append((weight * network(kept.read[used]).norm(dim=-1)).sum().double())
                slots.append(used.sum())
            kept.norms = kept.norms + torch.stack(norms)
            kept.slots = kept.slots + torch.stack(slots)

    @torch.no_grad()
    def _give(self, name: str, output: Any) -> None:
        given = output[0] if isinstance(output, tuple | list) else output
        kept = self._kept[name]
        if not isinstance(given, Tensor) or kept.read is None:
            return
        given = given.detach().reshape(-1, given.shape[-1])
        chosen = self._places(len(given), given.device)
        kept.given = given[chosen] if len(chosen) == len(kept.read) else None

    def _places(self, n_tokens: int, device: torch.device) -> Tensor:
        """The rows that are kept, of those that count."""
        rows = self._rows(n_tokens, device).kept
        count = n_tokens if rows is None else len(rows)
        n_kept = min(count, MOST_TOKENS)
        places = torch.arange(n_kept, device=device) * count // max(1, n_kept)
        return places if rows is None else rows[places]

    def _bank(self, name: str) -> NetworkBank | None:
        bank = getattr(self._layers[name], "experts", None)
        return bank if isinstance(bank, NetworkBank) else None

    def measures(self, name: str) -> dict[str, float]:
        """Collapse and ranks of a router's layer; nothing where representations are not kept."""
        kept = self._kept[name]
        if not self._representations:
            return {}
        if kept.read is None or kept.first is None:
            return dict.fromkeys(("representation_collapse", "rank_before", "rank_after"), math.nan)
        return {
            "representation_collapse": measures.representation_collapse(kept.read, kept.first),
            "rank_before": measures.effective_rank(kept.read),
            "rank_after": math.nan if kept.given is None else measures.effective_rank(kept.given),
        }

    def redundancy(self, name: str) -> Tensor:
        """Linear CKA (E, E) between the experts of a layer on the tokens kept.

        Raises:
            InputError: experts are not looked at, are no bank, or no token has been seen.
        """
        bank, read = self._seen(name)
        with torch.no_grad():
            return measures.linear_cka(torch.stack([network(read) for network in bank.networks()])).cpu()

    def saliency(self, name: str) -> Tensor:
        """(1/N_e) Σ_t w_te ‖f_e(x_t)‖ (E,); NaN for experts without tokens.

        Raises:
            InputError: as `redundancy`.
        """
        self._seen(name)
        kept = self._kept[name]
        assert isinstance(kept.norms, Tensor)
        return (kept.norms / kept.slots).cpu()

    def _seen(self, name: str) -> tuple[NetworkBank, Tensor]:
        bank, read = self._bank(name), self._kept[name].read
        if not self._experts:
            raise InputError("experts are looked at by a monitor that is made with experts=True")
        if bank is None:
            raise InputError(f"the experts beside {name or 'this router'!r} are no bank of gatewise.nn")
        if read is None or not len(read):
            raise InputError(f"{name or 'this router'!r} has seen no token yet")
        return bank, read
