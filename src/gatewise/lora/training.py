"""Training the gates of one adapter: base and adapter frozen, one vector for each module."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.lora.active import Active
from gatewise.lora.changes import Change, install, uninstall
from gatewise.lora.gate_set import GateSet
from gatewise.lora.places import Place, check_adapters, check_model, fingerprint_of, places_of
from gatewise.lora.situation import Situation
from gatewise.lora.sparse import adapter_sum
from gatewise.nn.arguments import positive, whole

__all__ = ["train_gates"]

Batch = Mapping[str, Any]
Loss = Callable[[Any, Batch], Tensor]


class _Gated(Change):
    """B A (u · σ(vᵀu)), with the sums that say what was seen.

    Args:
        place: the module.
        situation: of the model.
    """

    def __init__(self, place: Place, situation: Situation) -> None:
        super().__init__(place)
        self.vector = nn.Parameter(torch.zeros(place.n_features, dtype=place.routing_dtype, device=place.device))
        self._situation = situation
        self.total = torch.zeros(place.n_features, dtype=torch.float64)
        self.count = 0
        self.reset_openness()

    def reset_openness(self) -> None:
        """Forget how far the gate has been from ½."""
        self.away, self.seen = 0.0, 0

    def forward(self, x: Tensor) -> Tensor:
        """The gated change: the gate scales the adapter's input, as in the paper."""
        place = self.place
        factors = place.factors(place.adapters[0])
        tokens = x.reshape(-1, x.shape[-1])
        gate = torch.sigmoid(tokens.to(self.vector.dtype) @ self.vector)
        mask = self._situation.stack.mask_of(x) if x.ndim == 3 else None
        self._note(tokens.detach(), gate.detach(), None if mask is None else mask.reshape(-1))
        # LoRA is linear: scaling its input is scaling its change.
        index = torch.zeros(len(tokens), 1, dtype=torch.int64, device=x.device)
        change = adapter_sum(tokens.to(factors.down.dtype), gate.unsqueeze(1), index, [factors])
        return change.reshape(*x.shape[:-1], change.shape[-1])

    def _note(self, tokens: Tensor, gate: Tensor, mask: Tensor | None) -> None:
        if mask is not None:
            tokens, gate = tokens[mask], gate[mask]
        self.total += tokens.sum(0, dtype=torch.float64).cpu()
        self.count += len(tokens)
        self.away += float((gate - 0.5).abs().sum())
        self.seen += len(gate)


def train_gates(
    model: PeftModel,
    adapter: str,
    data: Iterable[Batch],
    steps: int = 100,
    *,
    learning_rate: float = 5e-3,
    loss: Loss | None = None,
    warm_up: float = 0.06,
) -> GateSet:
    """Train the gates of one adapter on data of its own kind: h = W u + s·BA(u · σ(vᵀu)), everything but v frozen.

    One vector v for each module, shared by all tokens, started at 0, where σ = ½ halves the adapter; AdamW without
    decay, a warm-up and then a constant rate (Muqeeth et al. 2024, arXiv:2402.05859, section 3). The model is in
    evaluation mode meanwhile, and afterwards as it was: base and adapter keep their bits.

    Args:
        model: of peft, with the adapter.
        adapter: its name.
        data: batches, each the arguments of the model's forward pass, "labels" among them; begun again where there are
            fewer than steps, so that an iterator needs one for each step.
        steps: how many.
        learning_rate: AdamW's.
        loss: the model's output and the batch ↦ the loss; the output's own `loss` by default.
        warm_up: the share of the steps in which the rate grows to its value.

    Returns:
        The gates, with the mean of what each module read, and how far the gates have moved: `GateSet.sentence`.

    Raises:
        InputError: the model or the adapter does not suit; there are no batches; a loss is missing or no number.

    Example:
        >>> gates = train_gates(model, "poems", batches)  # doctest: +SKIP
        >>> gates.save_pretrained("adapters/poems")  # doctest: +SKIP
    """
    checked = check_model(model)
    check_adapters(checked, [adapter])
    whole("steps", steps)
    positive("learning_rate", learning_rate)
    if not 0.0 <= warm_up < 1.0:
        raise InputError(f"warm_up must lie between 0 and 1, not {warm_up!r}")
    checksums, _ = fingerprint_of(checked, adapter)
    places = places_of(checked, [adapter])
    situation = Situation(checked.get_base_model(), [adapter], None, shares=False)
    active = Active(checked)
    modes = [(module, module.training) for module in checked.modules()]
    gated: dict[str, _Gated] = {}
    try:
        checked.eval()
        # Modules that this adapter does not change must not add another one that was active.
        active.activate([adapter])
        checked.requires_grad_(False)
        for name, place in places.items():
            change = _Gated(place, situation)
            install(place.layer, change, situation)
            gated[name] = change
        losses = _descend(checked, gated, _batches(data, steps), steps, learning_rate, loss, warm_up)
    finally:
        for name in gated:
            uninstall(places[name].layer)
        situation.remove()
        active.restore()
        for module, training in modes:
            module.training = training
    unread = next((name for name, change in gated.items() if change.count == 0), None)
    if unread is not None:
        raise InputError(f"no token reached the module {unread!r}, so that its gate cannot be trained")
    return GateSet(
        {name: change.vector.detach().to("cpu", torch.float32) for name, change in gated.items()},
        {name: (change.total / change.count).float() for name, change in gated.items()},
        {name: change.away / max(1, change.seen) for name, change in gated.items()},
        tuple(losses),
        checksums,
    )


def _descend(
    model: PeftModel,
    gated: Mapping[str, _Gated],
    batches: Iterator[Batch],
    steps: int,
    rate: float,
    loss: Loss | None,
    warm_up: float,
) -> list[float]:
    optimiser = torch.optim.AdamW([change.vector for change in gated.values()], lr=rate, weight_decay=0.0)
    rising = max(1, math.ceil(warm_up * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / rising))
    losses: list[float] = []
    with torch.enable_grad():
        for step in range(steps):
            if step == steps - max(1, steps // 10):
                for change in gated.values():
                    change.reset_openness()
            batch = next(batches)
            output = model(**batch)
            value = loss(output, batch) if loss is not None else getattr(output, "loss", None)
            if not isinstance(value, Tensor):
                raise InputError("the model gives no loss for these batches: put labels into them, or pass loss=…")
            if not bool(torch.isfinite(value)):
                raise InputError(
                    f"the loss at step {step} is {float(value.detach())}: look at the batch and the model's dtype"
                )
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            schedule.step()
            losses.append(float(value.detach()))
    return losses


def _batches(data: Iterable[Batch], steps: int) -> Iterator[Batch]:
    """The batches, again from the beginning while there are too few."""
    whole_passes = (iter(data) for _ in itertools.count())
    given = 0
    for number, one_pass in enumerate(whole_passes):
        before = given
        for batch in one_pass:
            if not isinstance(batch, Mapping):
                raise InputError(
                    f"a batch must be a mapping of the model's arguments, as {{'input_ids': …}}, not a "
                    f"{type(batch).__name__}"
                )
            given += 1
            yield batch
        if given == before:
            end = "there are no batches" if number == 0 else f"the batches ended after {given} of {steps} steps"
            raise InputError(f"{end}: pass a list or a data loader, which can be begun again")
