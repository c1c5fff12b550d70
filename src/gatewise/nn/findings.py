"""What is wrong with a router, as sentences with their evidence and a remedy.

Rules look at the loads of a window only: an entropy of a token's weights says nothing about whether experts are used.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from gatewise.messages import percent, shown
from gatewise.nn.measures import dead_experts, effective_experts
from gatewise.nn.tallies import Tally

__all__ = ["RULES", "LayerWindow", "RouterFinding", "findings_of", "lacking_domains", "strange_masks", "window_of"]

Severity = Literal["warning", "note"]

LEAST_TOKENS = 100
"""With fewer tokens in the window nothing is said about loads."""
LEAST_SLOTS = 40
"""With fewer slots for each expert, were they even, nothing is said about dead ones."""
COLLAPSED_SHARE = 0.99
"""A router has collapsed where K experts take this share of the slots."""
FEW_EXPERTS = 0.1
"""Few experts take nearly all where the load's entropy is that of less than K + 0.1 (E − K) equal experts."""
ALWAYS_SHORT = 0.02
"""An expert is always chosen where all tokens but 0.02 (1 − K/E) of them choose it."""
DEAD_BELOW = 0.05
"""An expert is dead with less than this part of 1/E of the slots."""
TIED_SHARE = 0.5
"""A router chooses by ties where for this share of the tokens the K-th expert and the next one are equal."""

_BALANCE = (
    "balance it: add `gatewise.nn.balance.balance_loss` to the loss, move a correction bias with `BiasBalancer`, or "
    "pass `gatewise.nn.hf.BalanceCallback` to a Trainer"
)
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


@dataclass(frozen=True)
class LayerWindow:
    """What the rules look at: one router over a window.

    Attributes:
        layer: its name.
        ranks: counts (K, E); row j of the experts with the (j + 1)-th largest weight of each token.
        n_tokens: how many tokens it saw.
        n_calls: how many calls.
        n_unfit: of how many calls masks or domains did not fit the router's rows.
        top_k: K.
        tied: the share of tokens whose K-th expert and the next one are equal; NaN where that is not known.
        unknown: the share of tokens whose scores are no numbers.
    """

    layer: str
    ranks: Tensor
    n_tokens: int
    n_calls: int
    n_unfit: int
    top_k: int
    tied: float
    unknown: float

    @property
    def name(self) -> str:
        """The layer in a sentence."""
        return self.layer or "the router"

    @property
    def counts(self) -> Tensor:
        """Slots of each expert (E,)."""
        return self.ranks.sum(0)

    @property
    def n_experts(self) -> int:
        """E."""
        return self.ranks.shape[1]

    def fewest(self, share: float) -> list[int]:
        """The fewest experts that take this share of the slots, in their order."""
        order = self.counts.argsort(dim=-1, descending=True, stable=True)
        taken = self.counts[order].cumsum(0)
        n_needed = int((taken < share * taken[-1]).sum()) + 1
        return sorted(order[:n_needed].tolist())


@dataclass(frozen=True)
class RouterFinding:
    """One finding about a router.

    Attributes:
        layer: the router's name, or "" for the model itself.
        kind: "collapse", "few_experts", "always", "dead", "ties", "not_numbers", "not_called", "small_window",
            "masks", "domains".
        severity: "warning", or "note" for what only limits what can be said.
        experts: which experts it is about.
        figures: the numbers that it rests on.
        message: what was found, with its evidence.
        remedy: what to do.

    Example:
        >>> import torch
        >>> window = LayerWindow("mlp.gate", torch.tensor([[0, 500, 0, 0], [0, 0, 0, 500]]), 500, 5, 0, 2, 0.0, 0.0)
        >>> for finding in findings_of([window]):
        ...     print(finding.kind, finding.experts, finding.message)
        collapse (1, 3) mlp.gate has collapsed: experts 1 and 3 of 4 take 100 % of the slots of 500 tokens, and the
        other 2 next to nothing
    """

    layer: str
    kind: str
    severity: Severity
    experts: tuple[int, ...]
    figures: dict[str, float] = field(hash=False)
    message: str
    remedy: str

    @property
    def sentence(self) -> str:
        """The finding and the remedy in one line."""
        return f"{self.message}: {self.remedy}" if self.severity == "warning" else f"{self.message}; {self.remedy}"


def findings_of(windows: Iterable[LayerWindow]) -> list[RouterFinding]:
    """All findings about some routers, layer by layer."""
    return [finding for window in windows for finding in _of(window)]


def window_of(layer: str, tally: Tally) -> LayerWindow:
    """What the rules look at, of what was counted.

    Args:
        layer: the router's name.
        tally: of its window.
    """
    sums = tally.sums
    return LayerWindow(
        layer,
        tally.ranks,
        tally.n_tokens,
        tally.n_calls,
        tally.n_unfit,
        tally.top_k,
        sums["ties"] / sums["margins"] if sums["margins"] else math.nan,
        1.0 - sums["entropies"] / sums["tokens"] if sums["tokens"] else math.nan,
    )


def strange_masks(n_calls: int) -> list[RouterFinding]:
    """The note on calls whose mask is no table of tokens, if there were any."""
    if not n_calls:
        return []
    message = f"{n_calls} calls had a mask that is no table of tokens, so that padding is counted"
    remedy = "pass a mask (B, S), or make one by a function"
    return [RouterFinding("", "masks", "note", (), {"calls": float(n_calls)}, message, remedy)]


def lacking_domains(column: str | None) -> list[RouterFinding]:
    """The note on a column of domains that no call had; nothing for None."""
    if column is None:
        return []
    message = f"no call had the column {shown(column)}, so that nothing is known of domains"
    remedy = (
        "pass it to the model with the other inputs; a Trainer needs remove_unused_columns=False, and a data collator "
        "that keeps it"
    )
    return [RouterFinding("", "domains", "note", (), {}, message, remedy)]


def _of(window: LayerWindow) -> Iterator[RouterFinding]:
    for rules in RULES:
        # The first rule that speaks makes the milder ones after it superfluous.
        for rule in rules:
            found = list(rule(window))
            yield from found
            if found:
                break


def _not_called(window: LayerWindow) -> Iterator[RouterFinding]:
    if not window.n_calls:
        yield RouterFinding(
            window.layer,
            "not_called",
            "note",
            (),
            {"calls": 0.0},
            f"{window.name} was not called",
            "run the model within the monitor's block; nothing is said of what was not seen",
        )


def _small_window(window: LayerWindow) -> Iterator[RouterFinding]:
    if window.n_tokens < LEAST_TOKENS:
        yield RouterFinding(
            window.layer,
            "small_window",
            "note",
            (),
            {"tokens": float(window.n_tokens)},
            f"{window.name} saw {window.n_tokens} tokens, too few to judge loads",
            f"watch {LEAST_TOKENS} tokens or more",
        )
    elif not int(window.counts.sum()):
        yield RouterFinding(
            window.layer,
            "small_window",
            "note",
            (),
            {"tokens": float(window.n_tokens), "slots_per_expert": 0.0},
            f"{window.name} saw {window.n_tokens:,} tokens, and none of their slots holds an expert",
            "nothing is said of loads that are not there",
        )


def _collapse(window: LayerWindow) -> Iterator[RouterFinding]:
    if window.n_experts <= window.top_k:
        return
    experts = window.fewest(COLLAPSED_SHARE)
    if len(experts) <= window.top_k:
        share = _share(window, experts)
        yield RouterFinding(
            window.layer,
            "collapse",
            "warning",
            tuple(experts),
            {"share": share, "tokens": float(window.n_tokens)},
            f"{window.name} has collapsed: {_named(experts)} of {window.n_experts} {_take(experts)} "
            f"{percent(share, 3)} of the slots of {window.n_tokens:,} tokens, and the other "
            f"{window.n_experts - len(experts)} next to nothing",
            _BALANCE + "; raising the router's noise or starting it anew may be needed",
        )


def _few_experts(window: LayerWindow) -> Iterator[RouterFinding]:
    effective = effective_experts(window.counts)
    limit = window.top_k + FEW_EXPERTS * (window.n_experts - window.top_k)
    if effective < limit and window.n_experts > window.top_k:
        experts = window.fewest(0.9)
        share = _share(window, experts)
        yield RouterFinding(
            window.layer,
            "few_experts",
            "warning",
            tuple(experts),
            {"share": share, "effective_experts": effective, "tokens": float(window.n_tokens)},
            f"{window.name} uses few experts: {_named(experts)} of {window.n_experts} {_take(experts)} "
            f"{percent(share, 3)} of the slots of {window.n_tokens:,} tokens; the load's entropy is that of "
            f"{effective:.1f} equal experts, and {limit:.1f} is the limit for K = {window.top_k}",
            _BALANCE,
        )


def _always_or_dead(window: LayerWindow) -> Iterator[RouterFinding]:
    yield from _always(window)
    yield from _dead(window)


def _always(window: LayerWindow) -> Iterator[RouterFinding]:
    if window.n_experts <= window.top_k:
        return
    share = window.counts.double() / window.n_tokens
    limit = 1.0 - ALWAYS_SHORT * (1.0 - window.top_k / window.n_experts)
    for expert in (share >= limit).nonzero().flatten().tolist():
        place = int(window.ranks[:, expert].argmax())
        ordinal = _ORDINALS[place] if place < len(_ORDINALS) else f"{place + 1}-th"
        yield RouterFinding(
            window.layer,
            "always",
            "warning",
            (expert,),
            {"share": float(share[expert]), "rank": float(place + 1), "tokens": float(window.n_tokens)},
            f"{window.name} gives a slot away: {percent(float(share[expert]), 3)} of {window.n_tokens:,} tokens choose "
            f"expert {expert}, mostly as their {ordinal}",
            f"an expert that all tokens pass is a shared one: make it that with K − 1 routed ones, or {_BALANCE}",
        )


def _dead(window: LayerWindow) -> Iterator[RouterFinding]:
    even = float(window.counts.sum()) / window.n_experts
    if even < LEAST_SLOTS:
        yield RouterFinding(
            window.layer,
            "small_window",
            "note",
            (),
            {"tokens": float(window.n_tokens), "slots_per_expert": even},
            f"{window.name} saw {window.n_tokens:,} tokens, {even:.0f} slots for each expert, too few to call one dead",
            f"watch {math.ceil(LEAST_SLOTS * window.n_experts / max(1, window.top_k)):,} tokens or more",
        )
        return
    experts = dead_experts(window.counts, DEAD_BELOW)
    if experts:
        most = float(window.counts[experts].max()) / even
        yield RouterFinding(
            window.layer,
            "dead",
            "warning",
            tuple(experts),
            {"experts": float(len(experts)), "largest_share_of_even": most, "tokens": float(window.n_tokens)},
            f"{window.name} has dead experts: {_named(experts)} of {window.n_experts} {_get(experts)} less than "
            f"{percent(DEAD_BELOW, 3)} of an even share of the slots of {window.n_tokens:,} tokens, at most "
            f"{percent(most, 3)}",
            _BALANCE + "; or prune them",
        )


def _ties(window: LayerWindow) -> Iterator[RouterFinding]:
    if window.tied >= TIED_SHARE:
        yield RouterFinding(
            window.layer,
            "ties",
            "warning",
            (),
            {"share": window.tied, "tokens": float(window.n_tokens)},
            f"{window.name} chooses by chance of order: for {percent(window.tied, 3)} of {window.n_tokens:,} tokens "
            "the last expert chosen and the next one have equal scores",
            "weights that are all 0, as some models start, are to be drawn (`gatewise.nn.initialise_router`); sigmoids "
            "of large logits are all 1: keep logits small by `gatewise.nn.balance.router_z_loss`",
        )


def _not_numbers(window: LayerWindow) -> Iterator[RouterFinding]:
    if window.unknown > 0.0:
        yield RouterFinding(
            window.layer,
            "not_numbers",
            "warning",
            (),
            {"share": window.unknown, "tokens": float(window.n_tokens)},
            f"{window.name} has scores that are no finite numbers for {percent(window.unknown, 3)} of "
            f"{window.n_tokens:,} tokens",
            "look for overflow in what the router reads, and compute the router in float32",
        )


def _masks(window: LayerWindow) -> Iterator[RouterFinding]:
    if window.n_unfit:
        yield RouterFinding(
            window.layer,
            "masks",
            "note",
            (),
            {"calls": float(window.n_unfit)},
            f"the masks or domains of {window.n_unfit} of {window.n_calls} calls do not fit the tokens of "
            f"{window.name}, so that padding is counted or domains are missing",
            "pass masks with one entry for each token",
        )


Rule = Callable[[LayerWindow], Iterator[RouterFinding]]

RULES: Sequence[Sequence[Rule]] = (
    (_not_called, _small_window, _collapse, _few_experts, _always_or_dead),
    (_ties,),
    (_not_numbers,),
    (_masks,),
)
"""Rules in groups: of each group the first that has something to say speaks."""


def _share(window: LayerWindow, experts: list[int]) -> float:
    return float(window.counts[experts].sum()) / float(window.counts.sum())


def _named(experts: list[int], most: int = 8) -> str:
    """Experts by their numbers, the first of many."""
    if len(experts) > most:
        return f"experts {', '.join(map(str, experts[:most]))} and {len(experts) - most} more"
    if len(experts) == 1:
        return f"expert {experts[0]}"
    return f"experts {', '.join(map(str, experts[:-1]))} and {experts[-1]}"


def _take(experts: list[int]) -> str:
    return "takes" if len(experts) == 1 else "take"


def _get(experts: list[int]) -> str:
    return "gets" if len(experts) == 1 else "get"
