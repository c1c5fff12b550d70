"""The router of one module: its scores, what they are averaged over, rows that are fixed, and the selection."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.lora.places import Place
from gatewise.lora.scores import Scores
from gatewise.lora.situation import Rows, Situation
from gatewise.nn import Selection
from gatewise.nn.readers import RouterReader, add_reader
from gatewise.nn.routing import Routing

__all__ = ["AdapterReader", "AdapterRouter", "Granularity"]

Granularity = Literal["token", "sequence", "shared"]

# So many largest scores are found sooner one after the other than by `topk` (measured on a CPU).
_FEW = 2


class AdapterRouter(nn.Module):
    """Tokens u (…, d) ↦ scores z (…, E), weights (…, K) and adapters (…, K) of one module.

    Routers compute in float32 with autocast off, whatever the network does, and in float64 where it does. The monitors
    of `gatewise.nn` see them as they see every router.

    Args:
        place: the module.
        scores: of its E adapters; None where every row is fixed.
        selection: how K of them are chosen.
        granularity: "token"; "sequence": by the mean of the scores over each sequence's tokens; "shared": by the mean
            of the scores over all modules, in a pass without adapters.
        situation: of the model.
    """

    def __init__(
        self, place: Place, scores: Scores | None, selection: Selection, granularity: Granularity, situation: Situation
    ) -> None:
        super().__init__()
        self.place_name = place.name
        self.adapters = place.adapters
        self.dtype = place.routing_dtype
        self.scores = scores
        self.selection = replace(selection, top_k=min(selection.top_k, len(place.adapters)))
        self.granularity: Granularity = granularity
        self._situation = situation
        self._seen: object = None
        self._any = True
        self._outside: Tensor | None = None
        self._narrowed = self.selection

    @property
    def n_adapters(self) -> int:
        """E."""
        return len(self.adapters)

    def among(self, active: Sequence[str]) -> bool:
        """Route only among those of the module's adapters that are active; whether there is one."""
        if active is not self._seen:
            inside = [adapter in active for adapter in self.adapters]
            self._outside = None if all(inside) else torch.tensor([not flag for flag in inside])
            self._narrowed = replace(self.selection, top_k=max(1, min(self.selection.top_k, sum(inside))))
            self._any = any(inside)
            self._seen = active
        return self._any

    def logits(self, u: Tensor) -> Tensor:
        """Scores (T, E) of tokens (T, d), each token by itself.

        Raises:
            InputError: the router only knows rows that are fixed.
        """
        if self.scores is None:
            raise InputError(
                "this router does not choose by itself: fix the adapters of all rows, as in `with "
                "routed.rows(['a', 'b']): …`"
            )
        device = u.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self.scores(u)
        return self.scores(u)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (T, E), weights (T, K) and indices (T, K) of the T tokens x (…, d).

        Raises:
            InputError: the situation does not fit the tokens.
        """
        tokens = x.reshape(-1, x.shape[-1])
        situation = self._situation
        rows = None if situation.fixed is None and situation.chosen is None else situation.rows(len(x))
        if rows is not None and None not in rows:
            return self._fixed(rows, x)
        logits = self.logits(tokens)
        if self.granularity != "token":
            logits = self._averaged(x, logits)
        if self._outside is not None:
            logits = logits.masked_fill(self._outside.to(logits.device), -torch.inf)
        # What `Selection` does with so plain a choice, without its checks: one token has 14 routers in two layers.
        values, indices = _best(logits, self._narrowed.top_k)
        # With a row for each of the K slots the softmax goes over whole rows at once.
        weights = values.softmax(0).T
        if rows is not None:
            weights, indices = self._with_fixed(rows, x, weights, indices)
        return logits, weights, indices

    def collect(self, x: Tensor) -> None:
        """Give the scores of tokens x to the mean over all modules."""
        logits = self.logits(x.reshape(-1, x.shape[-1]))
        self._situation.collect(x, logits.reshape(*x.shape[:-1], -1), self.adapters)

    def _averaged(self, x: Tensor, logits: Tensor) -> Tensor:
        if x.ndim != 3:
            raise InputError(
                f"the module {self.place_name!r} reads tokens without an axis of sequences: take granularity='token'"
            )
        if self.granularity == "shared":
            return self._situation.shared(x, self.adapters).reshape(logits.shape)
        mean = self._situation.per_sequence(self.place_name, x, logits.reshape(*x.shape[:-1], -1))
        return mean.expand(*x.shape[:-1], -1).reshape(logits.shape)

    def _choices(self, rows: Rows, x: Tensor) -> tuple[Tensor, Tensor]:
        """For each token the index of its row's adapter, 0 without one, and the weight 1, or 0 without one: (T,)."""
        indices = [self.adapters.index(row) if row in self.adapters else 0 for row in rows]
        weights = [float(row in self.adapters) for row in rows]
        times = x[..., 0].numel() // len(rows)
        index = torch.tensor(indices, device=x.device).repeat_interleave(times)
        return index, torch.tensor(weights, device=x.device, dtype=self.dtype).repeat_interleave(times)

    def _fixed(self, rows: Rows, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        index, weight = self._choices(rows, x)
        logits = torch.full((len(index), self.n_adapters), -torch.inf, device=x.device, dtype=self.dtype)
        logits = logits.scatter(1, index.unsqueeze(1), 0.0)
        return logits, weight.unsqueeze(1), index.unsqueeze(1)

    def _with_fixed(self, rows: Rows, x: Tensor, weights: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        index, weight = self._choices(rows, x)
        is_fixed = torch.tensor([row is not None for row in rows], device=x.device)
        is_fixed = is_fixed.repeat_interleave(len(index) // len(rows)).unsqueeze(1)
        # The slots after the first one go on with other adapters at weight 0: no token has an adapter twice.
        steps = torch.arange(indices.shape[1], device=x.device)
        mine = (index.unsqueeze(1) + steps) % self.n_adapters
        first = (steps == 0).to(weights.dtype) * weight.unsqueeze(1).to(weights.dtype)
        return torch.where(is_fixed, first, weights), torch.where(is_fixed, mine, indices)

    def extra_repr(self) -> str:
        """The adapters, the selection and the granularity."""
        return f"adapters={self.adapters}, selection={self.selection}, granularity={self.granularity!r}"


def _best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The K largest of each token's scores (T, E) and where they are: (K, T) and (T, K)."""
    if k > _FEW or len(scores) == 1 or scores.device.type != "cpu":
        values, indices = scores.topk(k, -1)
        return values.T, indices
    found = [scores.max(-1)]
    while len(found) < k:
        scores = scores.scatter(-1, found[-1].indices.unsqueeze(-1), -torch.inf)
        found.append(scores.max(-1))
    return torch.stack([best.values for best in found]), torch.stack([best.indices for best in found], -1)


class AdapterReader(RouterReader):
    """Reads an `AdapterRouter`, for the monitors of `gatewise.nn`: its experts are the module's adapters, in order."""

    module: AdapterRouter

    @property
    def n_experts(self) -> int:
        """E."""
        return self.module.n_adapters

    def routing(self, arguments: tuple[Any, ...], keywords: dict[str, Any], outputs: Any) -> Routing:
        """What the router did with the T tokens of a call."""
        logits, weights, indices = outputs
        return Routing(logits, weights, indices, self.module.selection)

    def tokens(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
        """What the module read, (T, d)."""
        x = arguments[0] if arguments else keywords["x"]
        return x.reshape(-1, x.shape[-1])

    @property
    def gate_parameters(self) -> list[nn.Parameter]:
        """None: gates are trained one by one, each beside its adapter, and not while they route."""
        return list(self.module.parameters())

    @property
    def correction_bias(self) -> Tensor | None:
        """None: adapters have no bias."""
        return None


add_reader(lambda module, layer: AdapterReader(module) if isinstance(module, AdapterRouter) else None)
