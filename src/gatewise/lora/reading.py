"""What a router did with a text: tables, the adapters of each token, and why one token has its adapter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.lora.attach import RoutedModel
from gatewise.lora.changes import ATTRIBUTE
from gatewise.lora.router import AdapterRouter
from gatewise.messages import listed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AdapterReading", "ModuleReading", "read"]

# Numbers kept of one reading: scores and weights of all tokens at all modules, 800 MB in float32.
_MOST_NUMBERS = 200_000_000


@dataclass(frozen=True)
class ModuleReading:
    """What the router of one module did with the tokens that are no padding.

    Attributes:
        adapters: those of the module.
        scores: z (T, E).
        weights: w (T, E), 0 for adapters that were not chosen.
        tokens: the tokens' places (T, 2): row and position; those of a decoder that reads an encoder's states come
            after the encoder's.
    """

    adapters: tuple[str, ...]
    scores: Tensor
    weights: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class AdapterReading:
    """What the routers of a model did with some rows of tokens.

    Attributes:
        adapters: the pool.
        modules: by the module's name.
        texts: for each row its tokens as text, those that are padding too.
        domains: for each row a name, or None.
        router: the router's name.
    """

    adapters: tuple[str, ...]
    modules: dict[str, ModuleReading]
    texts: list[list[str]]
    domains: list[str] | None
    router: str

    def _mean(self, of: "ModuleReading", kept: Tensor | None = None) -> Tensor:
        weights = of.weights if kept is None else of.weights[kept]
        wide = weights.new_zeros(len(self.adapters))
        places = [self.adapters.index(adapter) for adapter in of.adapters]
        wide[places] = weights.mean(0)
        return wide

    def module_weights(self) -> Tensor:
        """The mean weight of each adapter at each module, (modules, E) in the order of `modules`."""
        return torch.stack([self._mean(module) for module in self.modules.values()])

    def token_weights(self) -> dict[tuple[int, int], Tensor]:
        """The mean weight (E,) of each adapter over the modules that read a token, by row and position."""
        total: dict[tuple[int, int], Tensor] = {}
        count: dict[tuple[int, int], int] = {}
        for module in self.modules.values():
            places = [self.adapters.index(adapter) for adapter in module.adapters]
            wide = module.weights.new_zeros(len(module.weights), len(self.adapters))
            wide[:, places] = module.weights
            for (row, position), weights in zip(module.tokens.tolist(), wide, strict=True):
                key = (row, position)
                total[key] = total[key] + weights if key in total else weights
                count[key] = count.get(key, 0) + 1
        return {key: weights / count[key] for key, weights in total.items()}

    def table(self) -> "pd.DataFrame":
        """One row for each module, adapter and domain: the mean weight, and the share of tokens that chose it."""
        import pandas as pd

        rows = []
        for name, module in self.modules.items():
            for domain in [None] if self.domains is None else dict.fromkeys(self.domains):
                kept = self._of_domain(module, domain)
                if not bool(kept.any()):
                    continue
                for index, adapter in enumerate(module.adapters):
                    weights = module.weights[kept][:, index]
                    rows.append(
                        {
                            **_placed(name),
                            "adapter": adapter,
                            **({} if domain is None else {"domain": domain}),
                            "tokens": int(kept.sum()),
                            "weight": float(weights.mean()),
                            "share": float((weights > 0.0).float().mean()),
                        }
                    )
        return pd.DataFrame(rows)

    def _of_domain(self, module: ModuleReading, domain: str | None) -> Tensor:
        if self.domains is None or domain is None:
            return torch.ones(len(module.tokens), dtype=torch.bool)
        inside = torch.tensor([name == domain for name in self.domains])
        return inside[module.tokens[:, 0]]

    def why(self, row: int, position: int) -> "pd.DataFrame":
        """Why a token has its adapters: its scores and weights at every module that read it.

        Args:
            row: of the batch.
            position: of the token in the row.

        Raises:
            InputError: there is no such token, or it is padding.
        """
        import pandas as pd

        rows = []
        for name, module in self.modules.items():
            found = ((module.tokens[:, 0] == row) & (module.tokens[:, 1] == position)).nonzero()
            for index, adapter in enumerate(module.adapters) if len(found) else ():
                place = int(found[0])
                rows.append(
                    {
                        **_placed(name),
                        "adapter": adapter,
                        "score": float(module.scores[place, index]),
                        "weight": float(module.weights[place, index]),
                    }
                )
        if not rows:
            raise InputError(f"there is no token at position {position} of row {row}, or it is padding")
        return pd.DataFrame(rows)


def _placed(name: str) -> dict[str, Any]:
    """A module's name as its layer, the first number in it, and its own name."""
    layer = next((int(part) for part in name.split(".") if part.isdigit()), -1)
    return {"layer": layer, "module": name.rpartition(".")[2], "name": name}


@torch.no_grad()
def read(
    routed: RoutedModel,
    batch: dict[str, Any],
    texts: Sequence[Sequence[str]] | None = None,
    domains: Sequence[str] | None = None,
) -> AdapterReading:
    """Run a routed model on some rows and keep what its routers did, for tables, pages and questions.

    Args:
        routed: with a router that chooses token by token.
        batch: the arguments of the model's forward pass, with "input_ids" and maybe "attention_mask".
        texts: for each row its tokens as text, for pages; the ids by default.
        domains: for each row a name, by which tables are split.

    Returns:
        The reading; it is also kept as `routed.reading`, which `gatewise.write_report` shows.

    Raises:
        InputError: the router gives whole rows to adapters or merges them, or the sizes do not fit.
    """
    ids: Tensor = batch["input_ids"]
    routers = {name: getattr(place.layer, ATTRIBUTE) for name, place in routed.places.items()}
    if not routed.router.has_scores:
        raise InputError(f"the router {routed.router.name!r} chooses no adapters for tokens: there is nothing to read")
    for kind, given in (("texts", texts), ("domains", domains)):
        if given is not None and len(given) != len(ids):
            raise InputError(f"there are {len(given)} {kind} for {len(ids)} rows")
    numbers = 2 * ids.numel() * sum(len(place.adapters) for place in routed.places.values())
    if numbers > _MOST_NUMBERS:
        raise InputError(f"this would keep {numbers:,} numbers, and {_MOST_NUMBERS:,} are the most: read fewer rows")
    words = [[str(token) for token in row] for row in (ids.tolist() if texts is None else texts)]
    wrong = [index for index, row in enumerate(words) if len(row) != ids.shape[1]]
    if wrong:
        raise InputError(f"the texts of rows {listed(wrong)} have not {ids.shape[1]} tokens, as the batch has")
    found: dict[str, ModuleReading] = {}

    def observe(
        name: str, logits: Tensor, weights: Tensor, indices: Tensor, mask: Tensor | None, is_input: bool
    ) -> None:
        router: AdapterRouter = routers[name].router
        wide = weights.new_zeros(len(weights), router.n_adapters).scatter_add(-1, indices, weights)
        rows = len(ids)
        # A decoder's own tokens come after those of the encoder.
        first = 0 if is_input else ids.shape[1]
        places = torch.cartesian_prod(torch.arange(rows), first + torch.arange(len(logits) // rows))
        kept = torch.ones(len(logits), dtype=torch.bool) if mask is None else mask.reshape(-1).cpu()
        found[name] = ModuleReading(router.adapters, logits.float().cpu()[kept], wide.float().cpu()[kept], places[kept])

    before = routed.situation.observer
    routed.situation.observer = observe
    try:
        routed.model(**batch)
    finally:
        routed.situation.observer = before
    reading = AdapterReading(
        routed.adapters, found, words, None if domains is None else list(domains), routed.router.name
    )
    routed.reading = reading
    return reading
