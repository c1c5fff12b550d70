"""What a monitor remembers of a router: sums and counts, of a size that no number of steps changes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from gatewise.nn.measures import margins, tied, token_entropies
from gatewise.nn.routing import Routing

__all__ = ["Moment", "Series", "Tally"]

Value = TypeVar("Value")


@dataclass(frozen=True)
class Moment(Generic[Value]):
    """A value of some steps, one after the other.

    Attributes:
        first: the first step.
        last: the last step.
        value: what was measured.
    """

    first: int
    last: int
    value: Value


class Series:
    """Tensors over time, at most `most` of them: when there are more, each two neighbours become one, their sum.

    Args:
        most: how many are kept, an even number.

    Example:
        >>> series = Series(most=4)
        >>> for step in range(9):
        ...     series.add(step, torch.tensor(1))
        >>> [(moment.first, moment.last, int(moment.value)) for moment in series]
        [(0, 3, 4), (4, 7, 4), (8, 8, 1)]
    """

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._moments: list[Moment[Tensor]] = []
        self._span = 1
        self._open = 0

    def add(self, step: int, value: Tensor) -> None:
        """Add what was measured in a step."""
        if self._open:
            last = self._moments.pop()
            self._moments.append(Moment(last.first, step, last.value + value))
        else:
            if len(self._moments) == self._most:
                pairs = zip(self._moments[0::2], self._moments[1::2], strict=True)
                self._moments = [Moment(one.first, two.last, one.value + two.value) for one, two in pairs]
                self._span *= 2
            self._moments.append(Moment(step, step, value))
        self._open = (self._open + 1) % self._span

    def __iter__(self) -> Iterator[Moment[Tensor]]:
        return iter(self._moments)

    def __len__(self) -> int:
        return len(self._moments)


class Tally:
    """Counts and sums of one router over a window of steps, and its loads over time.

    Args:
        n_experts: E.
        sample: of how many tokens of a call, evenly spaced, entropy and margin are taken.
    """

    def __init__(self, n_experts: int, sample: int) -> None:
        self.n_experts = n_experts
        self._sample = sample
        self.history = Series()
        self._step = torch.zeros(n_experts, dtype=torch.int64)
        self.begin()

    def begin(self) -> None:
        """Begin a new window: all but the loads over time is forgotten."""
        self.n_calls = 0
        self.n_tokens = 0
        self.n_unfit = 0
        self.top_k = 0
        self._ranks = torch.zeros(0, self.n_experts, dtype=torch.int64)
        self._domains = torch.zeros(0, self.n_experts, dtype=torch.int64)
        self._sums = torch.zeros(len(_SUMS), dtype=torch.float64)

    @torch.no_grad()
    def add(self, routing: Routing, bias: Tensor | None, codes: Tensor | None, fit: bool) -> None:
        """Count a call.

        Args:
            routing: of the tokens that count.
            bias: the correction bias, for the margin.
            codes: the domain of each token, or None.
            fit: whether the batch's masks and domains fitted the router's rows.
        """
        n_tokens, top_k = routing.indices.shape
        device = routing.indices.device
        self.n_calls += 1
        self.n_unfit += not fit
        self.n_tokens += n_tokens
        self.top_k = max(self.top_k, min(top_k, routing.selection.top_k))
        filled = routing.filled.long()
        # Slots in the order of the weights, so that "second" is the same in every model.
        order = routing.weights.argsort(dim=-1, descending=True, stable=True)
        slots, filled = routing.indices.gather(-1, order), filled.gather(-1, order)
        place = slots + torch.arange(top_k, device=device) * self.n_experts
        ranks = _counted(place, filled, top_k * self.n_experts).reshape(top_k, self.n_experts)
        self._ranks = _sum(self._ranks, ranks)
        self._step = self._step.to(device) + ranks.sum(0)
        if codes is not None and len(codes):
            n_domains = int(codes.max()) + 1
            table = _counted(slots + codes.unsqueeze(-1) * self.n_experts, filled, n_domains * self.n_experts)
            self._domains = _sum(self._domains, table.reshape(n_domains, self.n_experts))
        if n_tokens > self._sample:
            routing = routing.at(torch.arange(self._sample, device=device) * n_tokens // self._sample)
        self._sums = self._sums.to(device) + _sums(routing, bias)

    def step(self, step: int) -> None:
        """Close a step: its loads join those over time."""
        self.history.add(step, self._step)
        self._step = torch.zeros_like(self._step)

    @property
    def ranks(self) -> Tensor:
        """Counts (K, E) of the window: row j of the experts with the (j + 1)-th largest weight of each token."""
        return self._ranks.cpu()

    @property
    def counts(self) -> Tensor:
        """Counts (E,) of the window: the slots of each expert."""
        return self.ranks.sum(0)

    @property
    def domains(self) -> Tensor:
        """Counts (D, E) of the window by domain."""
        return self._domains.cpu()

    @property
    def sums(self) -> dict[str, float]:
        """Sums over the tokens of the window that were looked at."""
        return dict(zip(_SUMS, self._sums.tolist(), strict=True))


_SUMS = ("tokens", "entropy", "entropies", "margin", "margins", "ties")


def _sums(routing: Routing, bias: Tensor | None) -> Tensor:
    """How many tokens; entropies and margins with their numbers, of those that are finite; ties."""
    entropy = token_entropies(routing)
    margin = margins(routing, bias)
    known, settled = entropy.isfinite(), margin.isfinite()
    # Where a bias is out of reach there is no margin, and no tie that could be seen.
    ties = tied(routing, bias) if bias is None or bias.device == margin.device else settled.logical_not()
    parts = [
        torch.full_like(known, True).sum(),
        entropy.where(known, 0.0).double().sum(),
        known.sum(),
        margin.where(settled, 0.0).double().sum(),
        settled.sum(),
        (settled & ties).sum(),
    ]
    return torch.stack([part.double() for part in parts])


def _counted(places: Tensor, filled: Tensor, n_places: int) -> Tensor:
    counts = torch.zeros(n_places, dtype=torch.int64, device=places.device)
    return counts.scatter_add(0, places.reshape(-1), filled.reshape(-1))


def _sum(total: Tensor, new: Tensor) -> Tensor:
    """Both tables added, the one with fewer rows filled up with 0, where the new one lies."""
    total = total.to(new.device)
    n_rows = max(len(total), len(new))
    return _grown(total, n_rows) + _grown(new, n_rows)


def _grown(table: Tensor, n_rows: int) -> Tensor:
    return torch.nn.functional.pad(table, (0, 0, 0, n_rows - len(table)))
