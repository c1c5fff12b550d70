"""A router on a model with LoRA adapters: attached, asked, changed, and taken off again."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from peft import PeftModel
from torch import nn

from gatewise.exceptions import InputError, UntrainedGateWarning
from gatewise.lora.active import Active
from gatewise.lora.adapter_files import check_fits, read_config
from gatewise.lora.changes import install, uninstall
from gatewise.lora.gate_set import GATES_FILE, GateSet
from gatewise.lora.places import (
    Place,
    check_adapter_name,
    check_adapters,
    check_model,
    fingerprint_of,
    places_of,
)
from gatewise.lora.router import Granularity
from gatewise.lora.routers import AdapterRouting, Missing, Setting, Temperature, router_of
from gatewise.lora.situation import BASE, Situation
from gatewise.messages import choose, listed, shown

__all__ = ["RoutedModel", "attach_router", "first_adapter", "load_adapter"]

Gates = Mapping[str, GateSet | None]


def attach_router(
    model: PeftModel,
    adapters: Sequence[str] | None = None,
    router: str | AdapterRouting = "phatgoose",
    *,
    gates: Gates | None = None,
    top_k: int = 2,
    temperature: Temperature = "sqrt_d",
    granularity: Granularity = "token",
    missing: Missing = "error",
    eps: float | None = None,
) -> "RoutedModel":
    """Let a router choose among a model's LoRA adapters, in every module and, by default, for every token.

    At a module with the base's weights W the output becomes W u + Σₖ wₖ sₑ Bₑ Aₑ u over the K adapters e with the best
    scores, with w the softmax of their scores (Muqeeth et al. 2024, arXiv:2402.05859, section 3). A module routes among
    the adapters that have it. The model stays what it is: `generate`, `disable_adapter`, `adapter_names` and gradients
    go on working, and `set_adapter` narrows the choice to the adapters that it names, until it names all again.

    Args:
        model: of peft, with the adapters loaded.
        adapters: their names; all of the model's by default.
        router: a name of `gatewise.lora.ROUTERS`, or an object for those that need more: `Single("a")`,
            `Retrieval(…)`.
        gates: the adapters' gate sets by name, for "phatgoose" and "average_activation".
        top_k: K.
        temperature: τ, by which scores are divided; "sqrt_d" is the paper's √d.
        granularity: "token"; "sequence": one choice for a sequence and a module, by the mean of the scores over the
            prompt, kept while it goes on; "shared": one choice per token for all modules.
        missing: what to do at a module where an adapter has no gate: "error", or "arrow" for all adapters there.
        eps: None, or LayerNorm's 1e-5 as in the paper, which weighs gates by their length where that is small.

    Returns:
        The routed model: call `detach()` on it, or use it in a `with` statement, to have the model as it was, bit by
        bit.

    Raises:
        InputError: the model, an adapter or a gate set does not suit; a router is attached already.

    Warns:
        UntrainedGateWarning: gates have no direction or hardly moved in training.
    """
    checked = check_model(model)
    names = check_adapters(checked, list(checked.peft_config) if adapters is None else adapters)
    setting = Setting(top_k, temperature, granularity, missing, eps)
    return RoutedModel(checked, names, router_of(router), setting, dict(gates or {}))


class RoutedModel:
    """A model of peft with a router attached, as `attach_router` gives it.

    Args:
        model: of peft.
        adapters: the pool.
        router: how adapters are chosen.
        setting: what is said beside the router.
        gates: gate sets by adapter.

    Attributes:
        model: the model.
        adapters: the names of the pool, in order.
        router: how they are chosen.
        setting: K, temperature, granularity and the rest.
        gates: the gate sets.
        reading: what `gatewise.lora.read` saw last, for the report; None before.

    Raises:
        InputError: something does not suit, see `attach_router`.
    """

    def __init__(
        self, model: PeftModel, adapters: Sequence[str], router: AdapterRouting, setting: Setting, gates: Gates
    ) -> None:
        self.model = model
        self.adapters = tuple(adapters)
        self.router = router
        self.setting = setting
        self.gates: dict[str, GateSet | None] = dict(gates)
        self.reading: Any = None
        self._before = Active(model)
        self._places: dict[str, Place] = {}
        self._situation: Situation | None = None
        self._check_gates(self.adapters)
        self._install()

    @property
    def is_attached(self) -> bool:
        """Whether the router is on the model."""
        return self._situation is not None

    @property
    def places(self) -> Mapping[str, Place]:
        """The routed modules by name."""
        return self._places

    @property
    def situation(self) -> Situation:
        """What the routed modules share.

        Raises:
            InputError: the router was detached.
        """
        if self._situation is None:
            raise InputError("the router was detached from the model: attach it anew with attach_router")
        return self._situation

    def _check_gates(self, adapters: Sequence[str]) -> None:
        strangers = [name for name in self.gates if name not in self.adapters]
        if strangers:
            raise InputError(f"there are gates of {listed(strangers)}, which are no adapters of the pool")
        remarks = []
        for name in adapters:
            gates = self.gates.get(name)
            if gates is None:
                continue
            checksums, dtype = fingerprint_of(self.model, name)
            gates.check_adapter(name, checksums, dtype)
            if not gates.moved and self.router.reads == "vectors":
                remarks.append(f"{name!r}: {gates.sentence}")
        if remarks:
            text = f"there are gates that choose nothing. {' '.join(remarks)}"
            warnings.warn(text, UntrainedGateWarning, stacklevel=4)

    def _install(self) -> None:
        self.router.check(self.adapters, self.setting)
        places = places_of(self.model, self.adapters)
        base = self.model.get_base_model()
        shares = self.setting.granularity == "shared"
        situation = Situation(base, self.adapters, self.router.chooser, shares)
        done: list[Place] = []
        try:
            for place in places.values():
                change = self.router.change(place, self.setting, self.gates, situation)
                install(place.layer, change.train(self.model.training), situation)
                done.append(place)
        except BaseException:
            for place in done:
                uninstall(place.layer)
            situation.remove()
            raise
        self._places, self._situation = places, situation
        self._before.activate(self.adapters)

    def _uninstall(self) -> None:
        self.situation.remove()
        for place in self._places.values():
            uninstall(place.layer)
        self._places, self._situation = {}, None

    def detach(self) -> None:
        """Take the router off: the model gives the same bits as before, with the adapters active that were so then.

        Raises:
            InputError: it was detached before.
        """
        self._uninstall()
        self._before.restore()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_attached:
            self.detach()

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """The model's forward pass."""
        return self.model(*arguments, **keywords)

    def generate(self, *arguments: Any, **keywords: Any) -> Any:
        """The model's `generate`."""
        return self.model.generate(*arguments, **keywords)

    @contextmanager
    def rows(self, adapters: Sequence[str | None]) -> Iterator[None]:
        """Within the block, the rows of each batch have these adapters.

        Args:
            adapters: for each row an adapter's name; None where the router chooses; "__base__" for none at all. Where
                beams repeat the rows, the adapters are repeated.

        Raises:
            InputError: a name is none of the pool.

        Example:
            >>> with routed.rows(["poems", None]):  # doctest: +SKIP
            ...     routed.generate(**two_prompts)
        """
        if isinstance(adapters, str):
            raise InputError(f"pass one adapter for each row in a list, not {shown(adapters)}")
        for name in adapters:
            if name is not None and name not in (*self.adapters, BASE):
                raise InputError(f"there is no adapter {shown(name)} in the pool: {choose(name, self.adapters)}")
        with self.situation.fixing(tuple(adapters)):
            yield

    def add(self, name: str, folder: str | os.PathLike[str] | None = None, gates: GateSet | None = None) -> None:
        """Let one more adapter take part; the others and their gates stay as they are.

        Args:
            name: of the adapter.
            folder: of its files, if the model has not loaded it; gates beside them are read.
            gates: its gate set.

        Raises:
            InputError: there is such an adapter already, or it does not suit; the pool is then as it was.
        """
        check_adapter_name(name)
        if name in self.adapters:
            raise InputError(f"the adapter {name!r} takes part already")
        if folder is not None:
            load_adapter(self.model, name, folder)
            if gates is None and (Path(folder) / GATES_FILE).is_file():
                gates = GateSet.load(folder)
        check_adapters(self.model, [name])
        self._with((*self.adapters, name), {**self.gates, name: gates}, [name])

    def remove(self, name: str) -> None:
        """Let an adapter take part no longer; it stays in the model, and the others stay as they are.

        Raises:
            InputError: there is no such adapter in the pool, or it is the last one.
        """
        if name not in self.adapters:
            raise InputError(f"there is no adapter {shown(name)} in the pool: {choose(name, self.adapters)}")
        if len(self.adapters) == 1:
            raise InputError(f"{name!r} is the last adapter of the pool: detach() the router instead")
        kept = tuple(adapter for adapter in self.adapters if adapter != name)
        self._with(kept, {adapter: self.gates.get(adapter) for adapter in kept}, [])

    def _with(self, adapters: tuple[str, ...], gates: Gates, new: Sequence[str]) -> None:
        before = self.adapters, self.gates
        self._uninstall()
        self.adapters, self.gates = adapters, dict(gates)
        try:
            self._check_gates(new)
            self._install()
        except BaseException:
            self.adapters, self.gates = before
            self._install()
            raise

    def with_router(self, router: str | AdapterRouting, **setting: Any) -> None:
        """Put another router in the place of this one.

        Args:
            router: as for `attach_router`.
            **setting: what shall be different, as `top_k=1`.

        Raises:
            InputError: it does not suit; the router is then as it was.
        """
        before = self.router, self.setting
        found, changed = router_of(router), replace(self.setting, **setting)
        self._uninstall()
        self.router, self.setting = found, changed
        try:
            self._install()
        except BaseException:
            self.router, self.setting = before
            self._install()
            raise


def load_adapter(model: PeftModel, name: str, folder: str | os.PathLike[str]) -> None:
    """Load one adapter from its folder, after looking whether it can be routed and fits the base.

    Raises:
        InputError: it cannot, or it does not.
    """
    check_adapter_name(name)
    if name in model.peft_config:
        raise InputError(f"the model has an adapter {name!r} already: choose another name")
    read_config(folder, name)
    check_fits(folder, name, model.get_base_model())
    model.load_adapter(os.fspath(folder), adapter_name=name)


def first_adapter(base: nn.Module, folder: str | os.PathLike[str], name: str | None = None) -> tuple[PeftModel, str]:
    """A base with the adapter of a folder, and the adapter's name: the folder's own by default.

    Raises:
        InputError: the adapter cannot be routed or does not fit, or the name cannot be one.
    """
    found = check_adapter_name(Path(folder).absolute().name if name is None else name)
    read_config(folder, found)
    check_fits(folder, found, base)
    return PeftModel.from_pretrained(base, os.fspath(folder), adapter_name=found), found
