"""Callbacks for transformers' Trainer: one that balances routers, one that watches them."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast, get_args

from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from gatewise.exceptions import InputError
from gatewise.nn.arguments import one_of, positive, whole
from gatewise.nn.balance import BiasBalancer
from gatewise.nn.hf.auxiliary import AuxiliaryLoss
from gatewise.nn.monitor import RouterMonitor
from gatewise.nn.readers import readers_of

__all__ = ["BalanceCallback", "MonitorCallback"]

Method = Literal["auto", "bias", "loss"]
Schedule = Literal["constant", "linear", "cosine"]

# What is left of the strength after a share s of the steps, from 1 to 0.
_SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda s: 1.0,
    "linear": lambda s: 1.0 - s,
    "cosine": lambda s: 0.5 * (1.0 + math.cos(math.pi * s)),
}


class BalanceCallback(TrainerCallback, ExportableState):
    """Brings balance to the routers of any type that can be read, by a bias or by a loss.

    "bias" moves the correction biases after each step: b_e ← b_e + u · sign(mean load − load_e), see
    `gatewise.nn.balance.BiasBalancer`. "loss" adds c · mean over layers of E Σ f_e P_e to the model's `output.loss`,
    see `AuxiliaryLoss`, and so also for the types that have no loss of balance themselves. A router without a
    correction bias gets one by `swap_routers(model, correction_bias=True)`.

    With a share s of the training's steps done u and c are: rate times s/warmup during the warmup, and then
    end + (1 − end) · g(s′) of the rate, with s′ from 0 to 1 over the rest and g the schedule. That depends on the step
    alone, and biases are kept in the checkpoint's trainer_state.json as they are, in models too whose checkpoint does
    not hold them (adapters): training that is resumed has the bits of training that was not interrupted.

    Args:
        method: "bias" or "loss"; "auto" takes the bias where every router has one, and else the loss.
        rate: u or c at its largest; by default 0.001 for a bias and 0.01 for a loss.
        z_coefficient: of the router z-loss, with "loss".
        schedule: "constant", "linear" or "cosine".
        warmup: the share of the steps in which the rate grows from 0.
        end: the part of the rate that is left at the end.

    Raises:
        InputError: an option is not what it may be.

    Example:
        >>> callback = BalanceCallback("bias", rate=0.01, schedule="linear", warmup=0.5)
        >>> [round(callback.rate_at(step, 8), 6) for step in (0, 2, 4, 6, 8)]
        [0.0, 0.005, 0.01, 0.005, 0.0]
    """

    def __init__(
        self,
        method: Method = "auto",
        rate: float | None = None,
        *,
        z_coefficient: float = 0.0,
        schedule: Schedule = "constant",
        warmup: float = 0.0,
        end: float = 0.0,
    ) -> None:
        one_of("method", method, get_args(Method))
        one_of("schedule", schedule, get_args(Schedule))
        if rate is not None:
            positive("rate", rate)
        for name, value in (("warmup", warmup), ("end", end), ("z_coefficient", z_coefficient)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
                raise InputError(f"{name} must lie between 0 and 1, not {value!r}")
        if z_coefficient and method == "bias":
            raise InputError("z_coefficient belongs to method='loss': a bias has no loss")
        self.method = method
        self.rate = rate
        self.z_coefficient = z_coefficient
        self.schedule = schedule
        self.warmup = warmup
        self.end = end
        self._kept: dict[str, list[float]] = {}
        self._balancer: BiasBalancer | None = None
        self._loss: AuxiliaryLoss | None = None

    def rate_at(self, step: int, n_steps: int) -> float:
        """U or c before a step.

        Args:
            step: how many steps are done.
            n_steps: how many there are.
        """
        rate = self.rate if self.rate is not None else 0.001 if self._balancer is not None else 0.01
        share = min(1.0, step / max(1, n_steps))
        if share < self.warmup:
            return rate * share / self.warmup
        rest = 1.0 - self.warmup
        left = _SCHEDULES[self.schedule]((share - self.warmup) / rest if rest else 0.0)
        return rate * (self.end + (1.0 - self.end) * left)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Begin, or go on where the checkpoint was written.

        Raises:
            InputError: there is no router that can be read, or one has no bias to move.
        """
        self._end()
        model: nn.Module = given["model"]
        biases = {name: reader.correction_bias for name, reader in readers_of(model).items()}
        lacking = [name for name, bias in biases.items() if bias is None]
        if lacking and self.method == "bias":
            raise InputError(
                f"the router {lacking[0]!r} has no correction bias: give it one by swap_routers(model, "
                "correction_bias=True), or balance by method='loss'"
            )
        if self.method == "loss" or lacking:
            self._loss = AuxiliaryLoss(model, z_coefficient=self.z_coefficient)
            world = args.world_size if args.average_tokens_across_devices else 1
            self._loss.share = 1.0 / (args.gradient_accumulation_steps * world)
        else:
            self._balancer = BiasBalancer(model)
        if state.global_step and self._balancer is not None:
            self._restore(self._balancer, state)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Set the loss's coefficient."""
        if self._loss is not None:
            self._loss.coefficient = self.rate_at(state.global_step, state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Move the biases."""
        if self._balancer is not None:
            # The step that has just been done has been counted already.
            self._balancer.rate = self.rate_at(state.global_step - 1, state.max_steps)
            self._balancer.step()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Leave the model alone; biases stay as they are."""
        self._end()

    def _end(self) -> None:
        if self._balancer is not None:
            self._kept = self._balancer.state_dict()
            self._balancer.remove()
        if self._loss is not None:
            self._loss.remove()
        self._balancer = self._loss = None

    def state(self) -> dict[str, Any]:
        """What the checkpoint keeps of it: the options, and the biases as they are."""
        options = ("method", "rate", "z_coefficient", "schedule", "warmup", "end")
        biases = self._kept if self._balancer is None else self._balancer.state_dict()
        return {"args": {name: getattr(self, name) for name in options}, "attributes": {"kept_biases": biases}}

    def _restore(self, balancer: BiasBalancer, state: TrainerState) -> None:
        # What is declared as a list is a dictionary by names once it has been loaded.
        stored: Any = cast(Mapping[str, Any], state.stateful_callbacks or {}).get(type(self).__name__, {})
        stored = stored[0] if isinstance(stored, list) else stored
        kept = stored.get("attributes", {}).get("kept_biases", {})
        if kept:
            balancer.load_state_dict(kept)


class MonitorCallback(TrainerCallback):
    """Watches the routers while a Trainer trains, and adds `RouterMonitor.metrics` to what it logs.

    Every entry of the training loss in `state.log_history` has the metrics of the steps since the one before it; once
    training has ended `monitor` still holds the steps of the last entry, for a page. For loggers that the Trainer has
    (`report_to`) call `attach`, which puts this callback before them.

    Args:
        monitor: a monitor of the model; by default one is made, of calls in training mode, when training begins.
        prefix: of the metrics' names.
        each_layer: whether to log each router's metrics, beside those over all.
        probe: inputs of the model, to see on the same tokens how choices change.
        probe_every: every how many steps.
        options: of the `RouterMonitor` that is made, as `domains="domain"`. The Trainer must then leave that column in
            the batch: `remove_unused_columns=False`.

    Attributes:
        monitor: the monitor; None before training began, if none was given.

    Raises:
        InputError: an option is not what it may be, or options are given beside a monitor.

    Example:
        >>> MonitorCallback(each_layer=False, probe_every=50, domains="domain").monitor is None
        True
    """

    def __init__(
        self,
        monitor: RouterMonitor | None = None,
        *,
        prefix: str = "routers/",
        each_layer: bool = True,
        probe: Any = None,
        probe_every: int = 100,
        **options: Any,
    ) -> None:
        whole("probe_every", probe_every)
        if monitor is not None and options:
            raise InputError(f"{sorted(options)[0]} is an option of a monitor that is made here, and one was given")
        self.monitor = monitor
        self._options = {"training_only": True, **options}
        self._prefix = prefix
        self._each_layer = each_layer
        self._probe = probe
        self._every = probe_every
        self._logged = False

    def attach(self, trainer: Trainer) -> None:
        """Put this callback before all others of a trainer, so that its loggers see the metrics."""
        trainer.callback_handler.callbacks.insert(0, self)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Begin to watch."""
        if self.monitor is None:
            self.monitor = RouterMonitor(given["model"], **self._options)
        if not self.monitor.is_watching:
            self.monitor.start()
        self._look(0)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Begin a new window, after an entry of the log."""
        # Not in `on_log`: after the last entry there would be nothing left to look at.
        if self.monitor is not None and self._logged:
            self.monitor.new_window()
            self._logged = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Close a step."""
        if self.monitor is not None:
            self.monitor.step()
            self._look(state.global_step)

    def _look(self, step: int) -> None:
        if self.monitor is not None and self._probe is not None and step % self._every == 0:
            self.monitor.probe(self._probe)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Add the metrics to an entry of the training loss."""
        logs = given.get("logs")
        if self.monitor is None or not logs or "loss" not in logs:
            return
        found = self.monitor.metrics(self._prefix, each_layer=self._each_layer)
        logs.update(found)
        state.log_history[-1].update(found)
        self._logged = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Watch no more."""
        if self.monitor is not None:
            self.monitor.stop()
