"""The routers: PHATGOOSE and its rivals, each of which makes the change of every module."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.lora.changes import Change, MergedFactors, MergedProduct, RoutedChange
from gatewise.lora.gate_set import GateSet
from gatewise.lora.places import Place
from gatewise.lora.router import AdapterRouter, Granularity
from gatewise.lora.scores import (
    ArrowScores,
    EqualScores,
    RandomScores,
    Scores,
    StandardisedScores,
    arrow_direction,
)
from gatewise.lora.situation import BASE, Rows, Situation
from gatewise.messages import choose, shown
from gatewise.nn import Selection
from gatewise.nn.arguments import one_of, positive, whole
from gatewise.parts.registry import Registry

__all__ = ["ROUTERS", "AdapterRouting", "Oracle", "Setting", "Single", "Temperature", "router_of"]

Temperature = float | Literal["sqrt_d"]
Missing = Literal["error", "arrow"]


@dataclass(frozen=True)
class Setting:
    """What is said beside the name of a router.

    Attributes:
        top_k: K, how many adapters a token goes to; fewer where a module has fewer.
        temperature: τ of the scores. "sqrt_d" is √d at a module that reads d numbers; Arrow, which has no such scale,
            then takes 1.
        granularity: what chooses together, "token", "sequence" or "shared".
        missing: "error", or "arrow": a module where an adapter has no gate is routed by Arrow as a whole, since scores
            of both kinds cannot be compared.
        eps: None, or LayerNorm's in the standardisation (the paper's is 1e-5).

    Raises:
        InputError: one of them is out of range.
    """

    top_k: int = 2
    temperature: Temperature = "sqrt_d"
    granularity: Granularity = "token"
    missing: Missing = "error"
    eps: float | None = None

    def __post_init__(self) -> None:
        whole("top_k", self.top_k)
        if self.temperature != "sqrt_d":
            positive("the temperature", self.temperature)
        one_of("granularity", self.granularity, get_args(Granularity))
        one_of("missing", self.missing, get_args(Missing))
        if self.eps is not None:
            positive("eps", self.eps)


class AdapterRouting(ABC):
    """How adapters are chosen."""

    name: ClassVar[str]
    reads: ClassVar[Literal["vectors", "means"] | None] = None
    """What of the gate sets the router needs."""
    has_scores: ClassVar[bool] = False
    """Whether it scores adapters for each token."""

    @abstractmethod
    def change(
        self, place: Place, setting: Setting, gates: Mapping[str, GateSet | None], situation: Situation
    ) -> Change:
        """What the router makes of one module.

        Raises:
            InputError: an adapter lacks its gate there.
        """

    @property
    def chooser(self) -> Callable[[dict[str, Any]], Rows | None] | None:
        """Gives the adapters of a call's rows from its arguments; None for routers that choose token by token."""
        return None

    def check(self, adapters: Sequence[str], setting: Setting) -> None:
        """Refuse adapters or a setting that do not suit the router.

        Raises:
            InputError: a mean of scores is asked of a router that has none.
        """
        if not self.has_scores and setting.granularity != "token":
            raise InputError(f"the router {self.name!r} has no scores to average: take granularity='token'")

    def options(self) -> dict[str, Any]:
        """What makes the router again, as plain data, beside its name.

        Raises:
            InputError: it cannot be made from plain data.
        """
        return {}


ROUTERS: Registry[type[AdapterRouting]] = Registry("router of adapters")


class _Scored(AdapterRouting):
    """Routers that score adapters for each token."""

    has_scores = True

    @abstractmethod
    def scores(self, place: Place, setting: Setting, gates: Mapping[str, GateSet | None]) -> Scores:
        """The scores of one module."""

    def change(
        self, place: Place, setting: Setting, gates: Mapping[str, GateSet | None], situation: Situation
    ) -> Change:
        """The routed sum."""
        scores = self.scores(place, setting, gates)
        selection = Selection(top_k=self.top_k(place, setting))
        return RoutedChange(place, AdapterRouter(place, scores, selection, setting.granularity, situation), situation)

    def top_k(self, place: Place, setting: Setting) -> int:
        """K."""
        return setting.top_k


@ROUTERS.register
class Arrow(_Scored):
    """Scores |aᵀu| with a the input that the adapter changes most: needs no gates and no data (Ostapenko et al.)."""

    name = "arrow"

    def scores(self, place: Place, setting: Setting, gates: Mapping[str, GateSet | None]) -> Scores:
        """By the first singular vectors."""
        directions = [arrow_direction(factors.down, factors.up) for factors in map(place.factors, place.adapters)]
        temperature = 1.0 if setting.temperature == "sqrt_d" else float(setting.temperature)
        return ArrowScores(torch.stack(directions), temperature)


class _Standardised(_Scored):
    def scores(self, place: Place, setting: Setting, gates: Mapping[str, GateSet | None]) -> Scores:
        """By the standardised vectors; by Arrow where one is missing and that is allowed."""
        found: list[Tensor] = []
        for adapter in place.adapters:
            vector = self._vector(gates.get(adapter), place.name)
            if vector is None:
                if setting.missing == "arrow":
                    return Arrow().scores(place, setting, gates)
                raise InputError(
                    f"the adapter {adapter!r} has no gate for {place.name!r}: train gates with train_gates, or pass "
                    "missing='arrow', which routes such modules by Arrow"
                )
            if len(vector) != place.n_features:
                raise InputError(
                    f"the gates of {adapter!r} do not fit: that of {place.name!r} has {len(vector)} entries, and the "
                    f"module reads {place.n_features}"
                )
            found.append(vector)
        temperature = place.n_features**0.5 if setting.temperature == "sqrt_d" else float(setting.temperature)
        vectors = torch.stack(found).to(place.device, place.routing_dtype)
        return StandardisedScores(vectors, temperature, setting.eps)

    def _vector(self, gates: GateSet | None, module: str) -> Tensor | None:
        if gates is None:
            return None
        vectors: Mapping[str, Tensor] = getattr(gates, self.reads or "vectors")
        return vectors.get(module)


@ROUTERS.register
class Phatgoose(_Standardised):
    """Scores v̄ · ū/√d with v the trained gates (Muqeeth, Liu, Liu and Raffel 2024, arXiv:2402.05859)."""

    name = "phatgoose"
    reads = "vectors"


@ROUTERS.register
class AverageActivation(_Standardised):
    """The same with v the mean of the inputs that the module saw while gates were trained."""

    name = "average_activation"
    reads = "means"


@ROUTERS.register
class Uniform(_Scored):
    """All adapters with equal weights."""

    name = "uniform"

    def scores(self, place: Place, setting: Setting, gates: Mapping[str, GateSet | None]) -> Scores:
        """Equal."""
        return EqualScores(len(place.adapters))

    def top_k(self, place: Place, setting: Setting) -> int:
        """All of them."""
        return len(place.adapters)


@ROUTERS.register
class Random(_Scored):
    """K adapters at random for each token: what a choice is worth at all."""

    name = "random"

    def scores(self, place: Place, setting: Setting, gates: Mapping[str, GateSet | None]) -> Scores:
        """Random."""
        return RandomScores(len(place.adapters))


@ROUTERS.register
class Merged(AdapterRouting):
    """The mean of the adapters' products B A, which is `uniform`: an identity, no rival."""

    name = "merged_product"

    def change(
        self, place: Place, setting: Setting, gates: Mapping[str, GateSet | None], situation: Situation
    ) -> Change:
        """By all ranks side by side."""
        return MergedProduct(place, situation)


@ROUTERS.register
class MergedByFactors(AdapterRouting):
    """The means of A and of B, each by itself: "merged experts" as the paper's released script makes them."""

    name = "merged_factors"

    def change(
        self, place: Place, setting: Setting, gates: Mapping[str, GateSet | None], situation: Situation
    ) -> Change:
        """By the two means."""
        return MergedFactors(place, situation)


class ByRow(AdapterRouting):
    """Routers that give a whole row to one adapter."""

    def change(
        self, place: Place, setting: Setting, gates: Mapping[str, GateSet | None], situation: Situation
    ) -> Change:
        """A routed sum whose rows are all fixed."""
        router = AdapterRouter(place, None, Selection(top_k=1), "token", situation)
        return RoutedChange(place, router, situation)


@ROUTERS.register
class Single(ByRow):
    """One adapter for everything.

    Args:
        adapter: its name, or "__base__" for none.
    """

    name = "single"

    def __init__(self, adapter: str) -> None:
        self.adapter = adapter

    @property
    def chooser(self) -> Callable[[dict[str, Any]], Rows | None]:
        """The one adapter for all rows."""
        return lambda arguments: (self.adapter,)

    def check(self, adapters: Sequence[str], setting: Setting) -> None:
        """The adapter must be of the pool."""
        super().check(adapters, setting)
        if self.adapter not in (*adapters, BASE):
            raise InputError(
                f"there is no adapter {shown(self.adapter)} to be the single one: {choose(self.adapter, adapters)}"
            )

    def options(self) -> dict[str, Any]:
        """The adapter."""
        return {"adapter": self.adapter}


@ROUTERS.register
class Oracle(ByRow):
    """Each row's own adapter, as it is said: `with routed.rows(["a", "b"]): …`."""

    name = "oracle"


def router_of(router: "str | AdapterRouting", options: Mapping[str, Any] | None = None) -> AdapterRouting:
    """A router by its name, or itself.

    Raises:
        InputError: the name is unknown, or the router needs more than its name.
    """
    if isinstance(router, AdapterRouting):
        return router
    kind = ROUTERS[router]
    try:
        return kind(**(options or {}))
    except TypeError:
        raise InputError(
            f"the router {router!r} needs more than its name: pass a gatewise.lora.{kind.__name__} with its arguments"
        ) from None
