"""How good routers are on documents: losses per document, and paired intervals between routers."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.lora.attach import RoutedModel
from gatewise.lora.routers import AdapterRouting, Oracle, Setting, router_of
from gatewise.messages import listed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BASE_ROUTER", "Evaluation", "evaluate", "paired_interval"]

BASE_ROUTER = "base"
"""The name under which the base without adapters is evaluated."""

Batch = Mapping[str, Any]
Choice = str | AdapterRouting | tuple[str | AdapterRouting, Mapping[str, Any]]


@dataclass(frozen=True)
class Evaluation:
    """Losses of each router on the same documents.

    Attributes:
        losses: for each router the sum of −log p over the tokens of each document, (documents,).
        tokens: how many tokens of each document are predicted, (documents,).
        domains: of the documents, or None.
        reference: the router that the others are compared with.
    """

    losses: Mapping[str, Tensor]
    tokens: Tensor
    domains: tuple[str, ...] | None
    reference: str

    def table(self, level: float = 0.95) -> "pd.DataFrame":
        """One row for each router: perplexity, mean loss, and the paired difference to the reference with its interval.

        Losses are per token within a document, and means over documents; the perplexity is e to the mean over all
        tokens. A difference above 0 says that the router is worse than the reference.

        Args:
            level: of the interval.

        Raises:
            InputError: the level is out of range.
        """
        import pandas as pd

        rows = []
        base = self.losses[self.reference] / self.tokens
        for name, losses in self.losses.items():
            mean = losses / self.tokens
            low, middle, high = paired_interval((mean - base).tolist(), level)
            rows.append(
                {
                    "router": name,
                    "perplexity": math.exp(float(losses.sum() / self.tokens.sum())),
                    "loss": float(mean.mean()),
                    "difference": middle,
                    "low": low,
                    "high": high,
                    "documents": len(mean),
                }
            )
        return pd.DataFrame(rows)

    def by_domain(self) -> "pd.DataFrame":
        """The perplexity of each router in each domain.

        Raises:
            InputError: the documents have no domains.
        """
        import pandas as pd

        if self.domains is None:
            raise InputError("the documents have no domains")
        rows = []
        for domain in dict.fromkeys(self.domains):
            kept = torch.tensor([name == domain for name in self.domains])
            for router, losses in self.losses.items():
                loss = float(losses[kept].sum() / self.tokens[kept].sum())
                rows.append({"domain": domain, "router": router, "perplexity": math.exp(loss)})
        return pd.DataFrame(rows)


def paired_interval(differences: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Lower end, mean and upper end of an interval for the mean of paired differences, by Student's t.

    Ends are NaN for fewer than two differences.

    Args:
        differences: one for each pair.
        level: of the interval, between 0 and 1.

    Raises:
        InputError: there are no differences, or the level is out of range.

    Example:
        >>> low, mean, high = paired_interval([1.0, 2.0, 3.0])
        >>> round(low, 4), mean, round(high, 4)
        (-0.4841, 2.0, 4.4841)
    """
    if not differences or not 0.0 < level < 1.0:
        raise InputError(f"an interval needs differences and a level between 0 and 1, not {level!r}")
    n = len(differences)
    mean = math.fsum(differences) / n
    if n < 2:
        return math.nan, mean, math.nan
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in differences) / (n - 1))
    half = _student(0.5 + level / 2.0, n - 1) * spread / math.sqrt(n)
    return mean - half, mean, mean + half


def _student(probability: float, freedom: int) -> float:
    """The quantile of Student's t, by halving on its distribution function (Abramowitz and Stegun, 26.7.3 and 4)."""

    def beyond(t: float) -> float:
        angle = math.atan(t / math.sqrt(freedom))
        cosine = math.cos(angle)
        odd = freedom % 2 == 1
        term = cosine if odd else 1.0
        total = 0.0 if freedom == 1 else term
        for index in range(3 if odd else 2, freedom - 1, 2):
            term *= cosine**2 * (index - 1) / index
            total += term
        inside = 2.0 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
        return 0.5 + inside / 2.0 - probability

    high = max(2.0, NormalDist().inv_cdf(probability))
    while beyond(high) < 0.0:
        high *= 2.0
    low = 0.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if beyond(middle) < 0.0 else (low, middle)
    return 0.5 * (low + high)


@torch.no_grad()
def evaluate(
    routed: RoutedModel,
    batches: Sequence[Batch],
    routers: Mapping[str, Choice],
    *,
    domains: Sequence[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """The losses of several routers on the same documents; the first one is the reference.

    Args:
        routed: a routed model, which has its own router again afterwards.
        batches: the arguments of the model's forward pass, with "labels", −100 where nothing is to be predicted; one
            row for each document.
        routers: by the name that the table shall have: a router, or one with what is different in its setting, as
            ("phatgoose", {"granularity": "sequence"}). The name "base" stands for no adapters at all.
        domains: for each document a name; an `Oracle` takes it for that of the document's adapter.
        progress: told the name of each router before it runs.

    Raises:
        InputError: there are no documents or routers, labels are missing, a document has nothing to predict, or a loss
            is no number.
    """
    if not routers or not batches:
        raise InputError("an evaluation needs at least one router and one document")
    router_before, setting, was_training = routed.router, asdict(routed.setting), routed.model.training
    for name, router in routers.items():
        # What will be refused is refused before anything is computed.
        chosen, changes = router if isinstance(router, tuple) else (router, {})
        if name != BASE_ROUTER:
            router_of(chosen).check(routed.adapters, Setting(**{**setting, **changes}))
    found: dict[str, Tensor] = {}
    tokens: Tensor | None = None
    routed.model.eval()
    try:
        for name, router in routers.items():
            if progress is not None:
                progress(name)
            if name == BASE_ROUTER:
                with routed.model.disable_adapter():
                    sums, tokens = _losses(routed, batches, None)
            else:
                chosen, changes = router if isinstance(router, tuple) else (router, {})
                routed.with_router(chosen, **{**setting, **changes})
                sums, tokens = _losses(routed, batches, domains if isinstance(routed.router, Oracle) else None)
            if not bool(torch.isfinite(sums).all()):
                raise InputError(f"the router {name!r} gives a loss that is no number: look at the model's dtype")
            found[name] = sums
    finally:
        routed.with_router(router_before, **setting)
        routed.model.train(was_training)
    assert tokens is not None
    if domains is not None and len(domains) != len(tokens):
        raise InputError(f"there are {len(domains)} domains for {len(tokens)} documents")
    empty = (tokens == 0).nonzero().reshape(-1).tolist()
    if empty:
        raise InputError(f"nothing is to be predicted in the documents {listed(empty)}: they are too short")
    return Evaluation(found, tokens, None if domains is None else tuple(domains), next(iter(routers)))


def _losses(routed: RoutedModel, batches: Sequence[Batch], rows: Sequence[str] | None) -> tuple[Tensor, Tensor]:
    """Sums of −log p and numbers of tokens of all documents; rows are the adapters that an oracle gives them."""
    coder = bool(getattr(routed.model.config, "is_encoder_decoder", False))
    sums: list[Tensor] = []
    counts: list[Tensor] = []
    begin = 0
    for batch in batches:
        labels = batch.get("labels")
        if not isinstance(labels, Tensor):
            raise InputError("each batch needs labels, with −100 where nothing is to be predicted")
        mine = None if rows is None else rows[begin : begin + len(labels)]
        begin += len(labels)
        with nullcontext() if mine is None else routed.rows(mine):
            logits: Tensor = routed.model(**batch).logits
        if not coder:
            logits, labels = logits[:, :-1], labels[:, 1:]
        loss = torch.nn.functional.cross_entropy(
            logits.float().transpose(1, 2), labels, ignore_index=-100, reduction="none"
        )
        sums.append(loss.double().sum(1).cpu())
        counts.append((labels != -100).sum(1).cpu())
    return torch.cat(sums), torch.cat(counts)
