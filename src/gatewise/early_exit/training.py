"""Training of heads and gates: a warm-up, then for each λ gates, alone or in turn with the heads."""

import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from gatewise.early_exit.cache import FeatureCache, cached, labels_of
from gatewise.early_exit.calibration import temperatures
from gatewise.early_exit.decoding import Decoding, Weighting, check_decoding, exit_masses, head_loss
from gatewise.early_exit.gates import ExitGates
from gatewise.early_exit.heads import LinearHead
from gatewise.early_exit.inputs import n_rows, rows
from gatewise.early_exit.outputs import ExitLogits
from gatewise.early_exit.policies.jei import JEI, TargetLoss, fit_gates, gate_features
from gatewise.exceptions import InputError
from gatewise.messages import choose, shown
from gatewise.nn.arguments import one_of, positive, whole

if TYPE_CHECKING:
    from gatewise.early_exit.model import EarlyExitModel

__all__ = ["ExitTraining", "HeadSet", "Point", "Sweep", "fit_model"]


@dataclass(frozen=True)
class ExitTraining:
    """How heads and gates are trained.

    Attributes:
        joint: whether gates and heads are trained in turn for each λ, as JEI-DNN does; if not, heads stay as the
            warm-up left them, and only the gates follow λ.
        warmup_epochs: at most so many passes over the data before any gate.
        patience: a head is frozen at its best when its validation accuracy has not risen for so many epochs.
        joint_epochs: passes for each λ.
        switch_every: so many batches of heads between two fits of the gates.
        learning_rate: of AdamW in the warm-up; of the joint phase a third of it.
        weight_decay: of AdamW.
        batch_size: samples of a step.
        decoding: how gates become masses and decisions, "cdf" or "paper".
        weighting: of the heads' losses in the joint phase, see `gatewise.early_exit.decoding.head_loss`.
        target_loss: of the gates' targets, see `gatewise.early_exit.policies.jei.exit_losses`.
        positive_weight: see `gatewise.early_exit.policies.jei.fit_gates`.
        gate_data: "validation", which the heads do not see, or "training", as the released code.
        train_backbone: whether the backbone learns too, end to end; inputs are then needed, not cached features.
        backbone_rate: its learning rate.
        seed: of the order of samples.
    """

    joint: bool = True
    warmup_epochs: int = 12
    patience: int = 2
    joint_epochs: int = 2
    switch_every: int = 200
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    batch_size: int = 128
    decoding: Decoding = "cdf"
    weighting: Weighting = "masses"
    target_loss: TargetLoss = "cross_entropy"
    positive_weight: bool = False
    gate_data: Literal["validation", "training"] = "validation"
    train_backbone: bool = False
    backbone_rate: float = 1e-4
    seed: int = 0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """From options by name.

        Raises:
            InputError: an unknown name or an impossible value.
        """
        known = [each.name for each in dataclasses.fields(cls)]
        if unknown := [name for name in options if name not in known]:
            raise InputError(f"there is no option {shown(unknown[0])} of training: {choose(unknown[0], known)}")
        made = cls(**options)
        for name in ("warmup_epochs", "patience", "joint_epochs", "switch_every", "batch_size"):
            whole(name, getattr(made, name))
        for name in ("learning_rate", "backbone_rate"):
            positive(name, getattr(made, name))
        if made.weight_decay != 0.0:
            positive("weight_decay", made.weight_decay)
        whole("seed", made.seed, least=0)
        check_decoding(made.decoding)
        one_of("weighting", made.weighting, get_args(Weighting))
        one_of("target_loss", made.target_loss, get_args(TargetLoss))
        one_of("gate_data", made.gate_data, ("validation", "training"))
        return made


@dataclass(frozen=True)
class HeadSet:
    """Heads at one moment.

    Attributes:
        state: their parameters.
        validation: their logits of the validation data, uncalibrated.
        temperatures: (L,), fitted to these.
        backbone: the backbone's parameters, if it was trained too.
    """

    state: dict[str, Tensor]
    validation: ExitLogits
    temperatures: Tensor
    backbone: dict[str, Tensor] | None = None


@dataclass(frozen=True)
class Point:
    """What was found for one λ.

    Attributes:
        heads: of this λ.
        gates: fitted with temperatures (True) and without (False).
    """

    heads: HeadSet
    gates: dict[bool, ExitGates]


@dataclass(frozen=True)
class Sweep:
    """What a fit has found.

    Attributes:
        training: its options.
        warm_up: the heads before any gate.
        points: by λ, rising.
        warmup_accuracies: validation accuracy (L,) after each epoch of the warm-up.
        seconds: CPU seconds of the warm-up and of all λ.
    """

    training: ExitTraining
    warm_up: HeadSet
    points: dict[float, Point]
    warmup_accuracies: list[list[float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def fit_model(
    model: "EarlyExitModel", x: Any, y: Any, x_val: Any, y_val: Any, lam: float | Sequence[float], options: ExitTraining
) -> None:
    """See `EarlyExitModel.fit`."""
    lambdas = _lambdas(lam)
    if x_val is None:
        raise InputError(
            "x_val is missing: gates and policies are fitted to data that the heads do not see; hold out a part"
        )
    # The same arguments give the same fit, whatever was fitted before.
    model.heads.load_state_dict(model.first_heads)
    source = _source(model, x, y, x_val, y_val, options)
    generator = torch.Generator().manual_seed(options.seed)
    begun = time.process_time()
    accuracies = _warm_up(model, source, options, generator)
    warm_up = source.head_set()
    warmed = time.process_time()
    points: dict[float, Point] = {}
    heads = warm_up
    for each in lambdas:
        if options.joint:
            _alternate(model, source, options, each, generator)
            heads = source.head_set()
        points[each] = Point(heads, _both_gates(model, source, heads, options, each))
    model.sweep = Sweep(
        options,
        warm_up,
        points,
        accuracies,
        {"warm-up": warmed - begun, "sweep": time.process_time() - warmed},
    )
    model.temperatures.fill_(1.0)
    restore_heads(model, warm_up)


def restore_heads(model: "EarlyExitModel", heads: HeadSet) -> None:
    """Give the model these heads, and the backbone that they were trained with."""
    model.heads.load_state_dict(heads.state)
    if heads.backbone is not None:
        model.backbone.load_state_dict(heads.backbone)


def _lambdas(lam: float | Sequence[float]) -> list[float]:
    asked = [lam] if isinstance(lam, int | float) else list(lam)
    if not asked or not all(
        isinstance(each, int | float) and not isinstance(each, bool) and 0.0 <= each < float("inf") for each in asked
    ):
        raise InputError(f"lam must be a number from 0 on, or several, not {shown(lam)}")
    return sorted({float(each) for each in asked})


class _Source(ABC):
    """Training and validation data, cached or run through the backbone at every step."""

    def __init__(self, model: "EarlyExitModel", y: Tensor, y_val: Tensor) -> None:
        self.model, self.y, self.y_val = model, y, y_val

    @abstractmethod
    def logits(self, index: Tensor) -> Tensor:
        """Logits (m, L, C) of some training samples, with gradients."""

    @abstractmethod
    def outputs(self, training: bool = False) -> ExitLogits:
        """Logits of all samples now, without gradients: of the validation data, or of the training data."""

    def parameters(self, options: ExitTraining, rate: float) -> list[dict[str, Any]]:
        """What the optimiser moves."""
        return [{"params": list(self.model.heads.parameters()), "lr": rate}]

    def head_set(self) -> HeadSet:
        outputs = self.outputs()
        state = {name: value.clone() for name, value in self.model.heads.state_dict().items()}
        return HeadSet(state, outputs, temperatures(outputs), self.backbone())

    def backbone(self) -> dict[str, Tensor] | None:
        return None


class _Cached(_Source):
    def __init__(
        self, model: "EarlyExitModel", train: FeatureCache, held: FeatureCache, y: Tensor, y_val: Tensor
    ) -> None:
        super().__init__(model, y, y_val)
        self.train, self.held = train, held
        for head, features in zip(model.heads, train.features, strict=True):
            if isinstance(head, LinearHead):
                head.standardise(features)

    def logits(self, index: Tensor) -> Tensor:
        part = self.train.select(index)
        return self.model.head_logits(part.features, part.own)

    @torch.no_grad()
    def outputs(self, training: bool = False) -> ExitLogits:
        data, y = (self.train, self.y) if training else (self.held, self.y_val)
        return ExitLogits(self.model.head_logits(data.features, data.own), y)


class _Live(_Source):
    def __init__(self, model: "EarlyExitModel", x: Any, x_val: Any, y: Tensor, y_val: Tensor) -> None:
        super().__init__(model, y, y_val)
        self.x, self.x_val = x, x_val
        first = cached(model, x, None, None, 256)
        for head, features in zip(model.heads, first.features, strict=True):
            if isinstance(head, LinearHead):
                head.standardise(features)

    def logits(self, index: Tensor) -> Tensor:
        return self.model(rows(self.x, index))

    def outputs(self, training: bool = False) -> ExitLogits:
        return self.model.all_logits(self.x if training else self.x_val, self.y if training else self.y_val)

    def parameters(self, options: ExitTraining, rate: float) -> list[dict[str, Any]]:
        backbone = [value for value in self.model.backbone.parameters() if value.requires_grad]
        return [*super().parameters(options, rate), {"params": backbone, "lr": options.backbone_rate}]

    def backbone(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.model.backbone.state_dict().items()}


def _source(model: "EarlyExitModel", x: Any, y: Any, x_val: Any, y_val: Any, options: ExitTraining) -> _Source:
    if options.train_backbone:
        if y is None or y_val is None or isinstance(x, FeatureCache) or isinstance(x_val, FeatureCache):
            raise InputError(
                "end to end the backbone runs at every step: pass inputs and classes, x, y, x_val and y_val"
            )
        classes = labels_of(y, model.n_classes)
        held = _every_class(labels_of(y_val, model.n_classes), model.n_classes)
        for inputs, labels in ((x, classes), (x_val, held)):
            if n_rows(inputs) != len(labels):
                raise InputError(f"there are {n_rows(inputs)} samples and {len(labels)} classes")
        return _Live(model, x, x_val, classes, held)
    train, validation = cached(model, x, y, None, 256), cached(model, x_val, y_val, None, 256)
    widths = [part.shape[1] for part in train.features]
    if widths != model.widths:
        raise InputError(f"the cached features have the widths {widths}, and the model's heads read {model.widths}")
    classes = _labels(train, y, model.n_classes)
    return _Cached(
        model, train, validation, classes, _every_class(_labels(validation, y_val, model.n_classes), model.n_classes)
    )


def _labels(data: FeatureCache, y: Any, n_classes: int) -> Tensor:
    if y is None and data.y is None:
        raise InputError("the classes are missing: pass y and y_val, or loaders that give pairs (inputs, classes)")
    labels = labels_of(data.y if y is None else y, n_classes)
    if len(labels) != len(data):
        raise InputError(f"there are {len(data)} samples and {len(labels)} classes")
    return labels


def _every_class(y: Tensor, n_classes: int) -> Tensor:
    missing = (torch.bincount(y, minlength=n_classes) == 0).nonzero().squeeze(1).tolist()
    if missing:
        raise InputError(
            f"the validation data have no sample of class {missing[0]}"
            + (f" and of {len(missing) - 1} more" if len(missing) > 1 else "")
            + ": what is fitted to them would never meet it; hold out some of each class"
        )
    return y


def _batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    yield from torch.randperm(n, generator=generator).split(size)


def _warm_up(
    model: "EarlyExitModel", source: _Source, options: ExitTraining, generator: torch.Generator
) -> list[list[float]]:
    """All heads by their own cross-entropies; each ends at its best epoch by validation accuracy."""
    optimiser = torch.optim.AdamW(
        source.parameters(options, options.learning_rate), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    best = [-1.0] * len(model.heads)
    waited = [0] * len(model.heads)
    kept: list[dict[str, Tensor]] = [{} for _ in model.heads]
    accuracies: list[list[float]] = []
    for _ in range(options.warmup_epochs):
        model.heads.train()
        for index in _batches(len(source.y), options.batch_size, generator):
            logits = source.logits(index)
            target = source.y[index][:, None].expand(-1, model.n_exits)
            loss = nn.functional.cross_entropy(logits.transpose(1, 2), target, reduction="none").mean(0).sum()
            _step(optimiser, loss)
        model.heads.eval()
        accuracy = source.outputs().correct().double().mean(0).tolist()
        accuracies.append(accuracy)
        for place, head in enumerate(model.heads):
            if accuracy[place] > best[place]:
                best[place], waited[place] = accuracy[place], 0
                kept[place] = {name: value.clone() for name, value in head.state_dict().items()}
            else:
                waited[place] += 1
        if min(waited) >= options.patience:
            break
    if not options.train_backbone:
        # With a backbone that moved on, a head of an earlier epoch would read what it was not trained on.
        for head, state in zip(model.heads, kept, strict=True):
            head.load_state_dict(state)
    return accuracies


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    if not bool(torch.isfinite(loss)):
        raise InputError(
            f"the heads' loss became {loss.item()}: take a smaller learning_rate, or look for inputs that are not "
            "finite"
        )
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _alternate(
    model: "EarlyExitModel", source: _Source, options: ExitTraining, lam: float, generator: torch.Generator
) -> None:
    """Gates to the end, heads for some batches by the gates' masses, and again."""
    rate = options.learning_rate / 3.0
    optimiser = torch.optim.AdamW(source.parameters(options, rate), lr=rate, weight_decay=options.weight_decay)
    gates: ExitGates | None = None
    done = 0
    for _ in range(options.joint_epochs):
        for index in _batches(len(source.y), options.batch_size, generator):
            if gates is None or done % options.switch_every == 0:
                model.heads.eval()
                gates = _gates(model, source.outputs(options.gate_data == "training"), options, lam)
                model.heads.train()
            logits = source.logits(index)
            outputs = ExitLogits(logits.detach(), source.y[index])
            g = gates.all(gate_features(outputs, model.gate_inputs))
            losses = ExitLogits(logits, source.y[index]).cross_entropies()
            _step(optimiser, head_loss(losses, exit_masses(g, options.decoding), options.weighting))
            done += 1
    model.heads.eval()


def _both_gates(
    model: "EarlyExitModel", source: _Source, heads: HeadSet, options: ExitTraining, lam: float
) -> dict[bool, ExitGates]:
    data = source.outputs(training=True) if options.gate_data == "training" else heads.validation
    return {
        True: _gates(model, data.calibrated(heads.temperatures), options, lam),
        False: _gates(model, data, options, lam),
    }


def _gates(model: "EarlyExitModel", outputs: ExitLogits, options: ExitTraining, lam: float) -> ExitGates:
    costs = torch.tensor(model.costs_of(JEI).relative(), dtype=torch.float64)
    return fit_gates(outputs, costs, lam, model.gate_inputs, options.target_loss, options.positive_weight)
