"""From dense to sparse: the MLPs of a dense model become layers of equal experts."""

import copy
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import nn

from gatewise.exceptions import InputError, UpcyclingWarning
from gatewise.gates import GATES, Gate, build_gate
from gatewise.messages import listed, shown
from gatewise.nn.arguments import one_of, whole
from gatewise.nn.experts import NetworkBank
from gatewise.nn.hf.distil import Batch, read_inputs
from gatewise.nn.hf.form import DenseMLP
from gatewise.nn.hf.layers import Layers, chosen_mlps
from gatewise.nn.hf.mlps import dense_mlps
from gatewise.nn.hf.upcycled import Replaced, put_in_place, sparse_layer
from gatewise.nn.initialise import initialise_router
from gatewise.nn.model_calls import unwrapped
from gatewise.nn.router import Router, usual_selection
from gatewise.nn.selection import Selection
from gatewise.parts.component import true_or_false
from gatewise.parts.options import checked_options

__all__ = ["Upcycled", "upcycle"]

Start = Literal["normal", "orthonormal", "data"]
_MOST_NOISE = 1e3


@dataclass(frozen=True)
class Upcycled:
    """What became sparse.

    Attributes:
        names: of the layers, dotted from the model.
        n_experts: E.
        exact: whether the model's output is what it was, up to rounding; not with noise.
    """

    names: tuple[str, ...]
    n_experts: int
    exact: bool
    _replaced: tuple[Replaced, ...] = field(repr=False, compare=False)

    def undo(self) -> None:
        """Put the old MLPs back, every bit as it was; what the experts have learned is lost.

        They are where and of what type they were, and in the mode in which the model is now: undo before the model is
        moved or cast.

        Raises:
            InputError: something else stands there by now, as after a first `undo`; then nothing changes.
        """
        if not all(each.stands for each in self._replaced):
            raise InputError("the layers of this upcycling are not in the model any more: they were undone or replaced")
        for each in reversed(self._replaced):
            each.undo()

    def __str__(self) -> str:
        """One line for each layer, and whether the output is the same."""
        lines = [f"{name}: {self.n_experts} experts" for name in self.names]
        said = "the output is the same" if self.exact else "the output changes: the experts differ by noise"
        return "\n".join([*lines, said])


def upcycle(
    model: nn.Module,
    n_experts: int,
    router: str | Gate | Router | Callable[[int, int], Router] = "softmax",
    layers: Layers = None,
    noise: float = 0.0,
    *,
    selection: Selection | None = None,
    gate_options: Mapping[str, Any] | None = None,
    correction_bias: bool = False,
    init: Start = "normal",
    std: float = 0.02,
    data: Batch | Iterable[Batch] | None = None,
    generator: torch.Generator | None = None,
) -> Upcycled:
    """Make sparse layers of a dense model's MLPs, every expert a copy of the MLP (Komatsuzaki et al. 2022).

    Σⱼ w_tj f(x_t) = f(x_t) where Σⱼ w_tj = 1: the output does not change until the experts have learned different
    things from their different tokens. The model is changed in place, all layers or, if anything is refused, none. An
    MLP is D σ(U x) or D (σ(G x) ⊙ U x), with biases or without, whatever its parts are called: that it computes just
    this is tested on random tokens. Generation, checkpointing, a Trainer, `RouterMonitor` and losses of balance work as
    on any mixture; `save_upcycled` keeps the model.

    Args:
        model: a dense transformers model.
        n_experts: E.
        router: the name of a gate; a gate or a `Router`, of which each layer gets a copy as it is; or a function that
            makes one for (d, E), another one in each call.
        layers: numbers of decoder layers or names of MLPs, in which * stands for anything ("model.decoder.*"); a
            slice of the numbers; "every second" for 1, 3, 5 and so on; None for all.
        noise: s, at most 1000; to every weight of a matrix W of an expert s · std(W) · N(0, 1) is added, so that the
            output changes.
        selection: how experts are chosen, for a gate or its name; by default the two best, or as many as the gate
            itself gives weight to. With K = 1 the router has no gradient except from a loss of balance.
        gate_options: of a gate given by its name.
        correction_bias: whether routers get a bias for `BiasBalancer`, for a gate or its name.
        init: the start of a gate given by its name, see `initialise_router`.
        std: of that start.
        data: batches as the model takes them, for init="data".
        generator: of all random numbers, those of the start and of the noise; torch's own if None.

    Returns:
        The names of the layers, and an `undo`.

    Raises:
        InputError: weights of the selection do not sum to 1; a layer is a mixture already, or its MLP is none that is
            known, or shared with another layer; layers are not there; memory does not suffice; or an option is not what
            it may be.

    Warns:
        UpcyclingWarning: K = 1, or an MLP has a dropout that is no module, as starcoder2's, and that ends with it.
        EqualLogitsWarning: a router was not initialised, and would send every token to the same experts.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4}
        >>> model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2))
        >>> print(upcycle(model, 4, "laplace", layers="every second"))
        model.layers.1.mlp: 4 experts
        model.layers.3.mlp: 4 experts
        the output is the same
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"pass a model, not {shown(model)}")
    model = unwrapped(model)
    whole("n_experts", n_experts, least=2)
    one_of("init", init, get_args(Start))
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0.0 <= noise <= _MOST_NOISE:
        raise InputError(
            f"noise must be a number from 0 on, at most {_MOST_NOISE:g} standard deviations of the weights, not "
            f"{shown(noise)}"
        )
    true_or_false("correction_bias", correction_bias)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InputError(f"generator must be a torch.Generator, not {shown(generator)}")
    if not (isinstance(router, str | Gate | Router) or callable(router)):
        raise InputError(
            f"router must be a gate or its name, a Router or a function that makes one, not {shown(router)}"
        )
    if (init == "data") != (data is not None):
        raise InputError("pass batches of tokens as data with init='data', and only then")
    named = isinstance(router, str)
    if not named and (gate_options is not None or init != "normal"):
        raise InputError("gate_options and init belong to a gate that is given by its name: a router has its own")
    if not isinstance(router, str | Gate) and (selection is not None or correction_bias):
        raise InputError("selection and correction_bias belong to a gate or its name: a router has its own")
    mlps = chosen_mlps(dense_mlps(model), layers, type(model).__name__)
    _refuse_shared(model, mlps)
    _refuse_too_large(model, mlps, n_experts)
    routers = [_router(model, mlp, n_experts, router, selection, gate_options, correction_bias) for mlp in mlps]
    if len(set(routers)) < len(routers):
        raise InputError("the function gave one router for several layers: let it make another one in each call")
    if named:
        read: dict[str, Any] = {}
        if data is not None:
            modules = {mlp.name: (model.get_submodule(mlp.path(mlp.first[0])), lambda call, _: call[0]) for mlp in mlps}
            read = read_inputs(model, modules, data)
        for mlp, own in zip(mlps, routers, strict=True):
            initialise_router(own, init, std, read.get(mlp.name), generator)
    banks = [mlp.experts(model, n_experts) for mlp in mlps]
    if noise:
        for bank in banks:
            _disturb(bank, float(noise), generator)
    _warn(mlps, routers)
    made = [sparse_layer(model, *parts) for parts in zip(mlps, routers, banks, strict=True)]
    replaced = [each for layer in made for each in put_in_place(model, layer)]
    return Upcycled(tuple(mlp.name for mlp in mlps), n_experts, not noise, tuple(replaced))


def _warn(mlps: list[DenseMLP], routers: list[Router]) -> None:
    """Say what changes in training, or does not train."""
    single = [mlp.name for mlp, router in zip(mlps, routers, strict=True) if router.selection.top_k == 1]
    random = [mlp.name for mlp in mlps if mlp.random]
    for names, what in (
        (
            single,
            "has K = 1 and the weight 1 for every token: its router has no gradient except from a loss of balance",
        ),
        (random, "had a dropout that is no module of its own: the sparse layer in its place does without"),
    ):
        if names:
            others = f" ({len(names) - 1} more are alike)" if len(names) > 1 else ""
            warnings.warn(f"{names[0]!r} {what}{others}", UpcyclingWarning, stacklevel=3)


def _refuse_shared(model: nn.Module, mlps: list[DenseMLP]) -> None:
    """Refuse an MLP that the model has in two places, one of which would stay dense."""
    places: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        places.setdefault(module, []).append(name)
    for mlp in mlps:
        for name in (mlp.name, *map(mlp.path, (*mlp.first, mlp.second))):
            there = places[model.get_submodule(name)]
            if len(there) > 1:
                raise InputError(
                    f"the MLP {mlp.name!r} is shared: {listed(there)} are one module; give each layer one of its own"
                )


def _refuse_too_large(model: nn.Module, mlps: list[DenseMLP], n_experts: int) -> None:
    """Refuse what does not fit into the memory that is free, before anything is built."""
    needed: dict[torch.device, int] = {}
    for mlp in mlps:
        for weight, bias in mlp.matrices(model):
            numbers = weight.numel() + (0 if bias is None else bias.numel())
            needed[weight.device] = needed.get(weight.device, 0) + n_experts * numbers * weight.element_size()
    for device, size in needed.items():
        free = _free_memory(device)
        if free is not None and size > free:
            raise InputError(
                f"{n_experts:,} experts in {len(mlps)} layers take {size / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are "
                f"free on {device}: take fewer experts or layers, or a model in bfloat16"
            )


def _free_memory(device: torch.device) -> int | None:
    """Bytes that are free; None where that cannot be asked."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            facts = dict(line.split(":", 1) for line in file)
        return int(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _router(
    model: nn.Module,
    mlp: DenseMLP,
    n_experts: int,
    router: str | Gate | Router | Callable[[int, int], Router],
    selection: Selection | None,
    options: Mapping[str, Any] | None,
    correction_bias: bool,
) -> Router:
    """A router for the MLP's tokens, on its device; in float32 in a model of whatever type, unless it is given."""
    weight, _ = mlp.matrices(model)[-1]
    d = weight.shape[0]
    if isinstance(router, str):
        gate = build_gate(router, d, n_experts, **checked_options("gate", GATES[router], options))
        made = Router(gate, usual_selection(gate) if selection is None else selection, correction_bias)
        made.to(torch.promote_types(weight.dtype, torch.float32))
    else:
        if isinstance(router, Gate):
            router = Router(router, usual_selection(router) if selection is None else selection, correction_bias)
        made = copy.deepcopy(router) if isinstance(router, Router) else router(d, n_experts)
        if not isinstance(made, Router):
            raise InputError(f"router must be a function that makes a Router, and gave {shown(made)}")
        if (made.gate.n_features, made.n_experts) != (d, n_experts):
            raise InputError(
                f"the MLPs have d = {d} and there are to be {n_experts} experts: this router has "
                f"{made.gate.n_features} and {made.n_experts}"
            )
    own = made.selection
    if not own.sums_to_one:
        raise InputError(
            f"with method={own.method!r}, renormalise={own.renormalise!r} and factor={own.factor} the weights do not "
            "sum to 1, so that equal experts would not give what the MLP gives: take method='top_k', "
            "renormalise='sum' and factor=1"
        )
    return made.to(weight.device)


@torch.no_grad()
def _disturb(bank: NetworkBank, noise: float, generator: torch.Generator | None) -> None:
    for weight in bank.weights():
        if weight.ndim == 3:
            drawn = torch.randn(weight.shape, generator=generator).to(weight.device, weight.dtype)
            weight.add_(drawn * (noise * weight.float().std().to(weight.dtype)))
