"""Put gates of Gatewise in the place of a model's routers, and the old ones back."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import nn

from gatewise.exceptions import InputError
from gatewise.gates import Gate, build_gate
from gatewise.gates.base import LINEAR_GATE
from gatewise.messages import shown
from gatewise.nn.arguments import one_of
from gatewise.nn.hf.adapter import adapt, check_is_not_offloaded
from gatewise.nn.hf.distil import Batch, distil, read_tokens
from gatewise.nn.hf.sites import Site, chosen_sites, refuse_recording, sites_of, swapped_in
from gatewise.nn.initialise import initialise_router
from gatewise.nn.readers import layer_around
from gatewise.nn.router import Router
from gatewise.nn.selection import Selection
from gatewise.nn.watching import is_watched

__all__ = ["Swapped", "restore_routers", "swap_routers"]

Start = Literal["from_old", "distil", "normal", "orthonormal", "data", "given"]


@dataclass(frozen=True)
class Swapped:
    """What was swapped.

    Attributes:
        names: of the routers that were swapped, dotted from the model.
        skipped: names of routers that stay, with the reason.
        agreement: for "distil" the share of tokens for which the new router chooses the same experts as the old one.
    """

    names: tuple[str, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    agreement: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line for each router."""
        lines = [
            f"{name}: swapped"
            + (f", {self.agreement[name]:.1%} of tokens keep their experts" if name in self.agreement else "")
            for name in self.names
        ]
        return "\n".join([*lines, *(f"{name}: stays, {reason}" for name, reason in self.skipped.items())])


def swap_routers(
    model: nn.Module,
    gate: str | Gate = "matching",
    init: Start = "from_old",
    selection: Selection | Literal["from_old"] = "from_old",
    layers: Sequence[int | str] | None = None,
    *,
    gate_options: Mapping[str, Any] | None = None,
    correction_bias: bool = False,
    data: Batch | Iterable[Batch] | None = None,
    steps: int = 300,
    std: float = 0.02,
    generator: torch.Generator | None = None,
) -> Swapped:
    """Put a gate of Gatewise in the place of each router of a transformers model.

    The model is changed in place, all routers or, if anything is refused, none. `output_router_logits`, the model's own
    auxiliary loss, `generate`, checkpointing and saving go on working; `restore_routers` undoes it to the bit.

    Args:
        model: a model of a type that `gatewise routers list` shows.
        gate: "matching", the gate that with the old selection is the old router (a softmax gate; its bias starts at 0
            where the old router has none); the name of another gate; or a gate, of which each layer gets a copy.
        init: "from_old": the old router's weights, exact, for the matching gate. "distil": fitted to the old router's
            scores on `data`. "normal", "orthonormal" or "data": a fresh start, see `initialise_router`. "given": the
            gate object as it is.
        selection: "from_old", or one for all layers.
        layers: numbers of decoder layers or names of routers; None for all.
        gate_options: of a gate given by its name.
        correction_bias: whether routers whose model has no correction bias get one, at 0, for `BiasBalancer`.
        data: for "distil" and "data", batches as the model takes them: token ids (n, length), or dictionaries with
            `input_ids` and perhaps an `attention_mask`, which leaves padding out. At most 4,096 tokens are used.
        steps: of the optimiser, for "distil".
        std: for a fresh start.
        generator: of the random numbers of the start.

    Returns:
        The names of what was swapped, and of hash routers, which stay.

    Raises:
        InputError: a router is refused, of no known class, shared by layers or being watched; the model has begun to
            record outputs, or is swapped already; the gate does not fit or is not matching; layers or data are not what
            is needed.

    Example:
        >>> from transformers import MixtralConfig, MixtralForCausalLM
        >>> sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
        >>> model = MixtralForCausalLM(MixtralConfig(**sizes, num_attention_heads=2, num_key_value_heads=2))
        >>> print(swap_routers(model, "cosine", init="orthonormal"))
        model.layers.0.mlp.gate: swapped
        model.layers.1.mlp.gate: swapped
    """
    one_of("init", init, get_args(Start))
    if not isinstance(model, nn.Module):
        raise InputError(f"pass a model, not {shown(model)}")
    if not isinstance(selection, Selection):
        one_of("selection", selection, ("from_old",))
    if gate_options is not None and not isinstance(gate_options, Mapping):
        raise InputError(f"gate_options must be a dictionary, not {shown(gate_options)}")
    if (init in ("distil", "data")) != (data is not None):
        raise InputError("pass batches of tokens as data with init='distil' or init='data', and only then")
    refuse_recording(model)
    sites = sites_of(model)
    _refuse_swapped(model, sites, layers)
    # Where all are meant these are left out and listed; named ones are refused.
    skipped = {site.name: site.contract.skipped for site in sites if site.contract.skipped}
    chosen = [site for site in chosen_sites(sites, layers) if layers is not None or not site.contract.skipped]
    for site in chosen:
        if site.contract.skipped:
            raise InputError(f"the router {site.name!r} cannot be swapped: {site.contract.skipped}")
        check_is_not_offloaded(site.name, site.router, site.contract)
        _refuse_watched(site.name, site.router)
    _refuse_shared(chosen, sites)
    routers = [_router(site, gate, gate_options, selection, correction_bias) for site in chosen]
    agreement: dict[str, float] = {}
    if init == "from_old":
        for site, router in zip(chosen, routers, strict=True):
            _take_over(site, router)
    elif init in ("distil", "data"):
        assert data is not None
        tokens = read_tokens(model, chosen, data)
        for site, router in zip(chosen, routers, strict=True):
            if init == "data":
                initialise_router(router, "data", std, tokens[site.name], generator)
            else:
                agreement[site.name] = distil(site, router, tokens[site.name], steps)
    elif init == "given":
        if isinstance(gate, str):
            raise InputError("init='given' takes a gate as it is: pass a gate, not its name")
    else:
        for router in routers:
            initialise_router(router, init, std, generator=generator)
    for site, router in zip(chosen, routers, strict=True):
        put_in_place(site, router)
    return Swapped(tuple(site.name for site in chosen), skipped if layers is None else {}, agreement)


def restore_routers(model: nn.Module) -> tuple[str, ...]:
    """Put the old routers back: every bit, correction biases too, is what it was before the swap.

    Returns:
        The names of the routers.

    Raises:
        InputError: it is no model, or nothing is swapped.
    """
    found = swapped_in(model)
    if not found:
        raise InputError(f"no router of this {type(model).__name__} is swapped: there is nothing to restore")
    for name, adapter in found.items():
        parent, _, attribute = name.rpartition(".")
        layer = layer_around(model, name)
        assert layer is not None
        setattr(model.get_submodule(parent), attribute, adapter.put_back(layer))
    return tuple(found)


def _refuse_watched(name: str, router: nn.Module) -> None:
    """Refuse to take away a router whose calls are counted: those of the other one would not be, silently.

    Raises:
        InputError: a monitor, a balancer or a loss watches it.
    """
    if is_watched(router):
        raise InputError(
            f"the router {name!r} is being watched, by a monitor, a balancer or a loss, which would see nothing of the "
            "one in its place: stop or remove that first, and make it anew afterwards"
        )


def put_in_place(site: Site, router: Router) -> None:
    """Let a router take the place of the model's own."""
    setattr(site.layer, site.attribute, adapt(site.router, site.layer, site.contract, router))


def _refuse_shared(chosen: list[Site], sites: list[Site]) -> None:
    """Refuse a router that several layers share: each would get one of its own."""
    for site in chosen:
        others = [other.name for other in sites if other.router is site.router and other.name != site.name]
        if others:
            raise InputError(
                f"the router {site.name!r} is shared with {others[0]!r}, and swapping would part them: give each "
                "layer a router of its own first"
            )


def _refuse_swapped(model: nn.Module, sites: list[Site], layers: Sequence[int | str] | None) -> None:
    there = swapped_in(model)
    if there and (layers is None or not sites):
        raise InputError(
            f"the router {next(iter(there))!r} is swapped already: restore_routers(model) puts the old ones back"
        )


def _router(
    site: Site,
    gate: str | Gate,
    options: Mapping[str, Any] | None,
    selection: Selection | str,
    correction_bias: bool,
) -> Router:
    """A router of the old one's sizes, on its device, without its numbers."""
    weight = site.router.get_parameter(site.contract.weight)
    n_experts, d = weight.shape
    own = _gate(gate, options, d, n_experts)
    chosen = selection if isinstance(selection, Selection) else site.contract.selection(site.router)
    jitter = float(site.contract.jitter.of(site.router))
    router = Router(own, chosen, correction_bias or site.contract.bias is not None, jitter)
    # In float32 in a model of whatever type: a gate in bfloat16 chooses other experts.
    return router.to(device=weight.device, dtype=torch.promote_types(weight.dtype, torch.float32))


def _gate(gate: str | Gate, options: Mapping[str, Any] | None, d: int, n_experts: int) -> Gate:
    if isinstance(gate, Gate):
        if options is not None:
            raise InputError("gate_options belong to a gate that is made from its name: this one is made already")
        if (gate.n_features, gate.n_experts) != (d, n_experts):
            raise InputError(
                f"the routers have d = {d} and {n_experts} experts, and this gate {gate.n_features} and "
                f"{gate.n_experts}"
            )
        return copy.deepcopy(gate)
    if not isinstance(gate, str):
        raise InputError(f"the gate must be 'matching', a gate's name or a gate, not {shown(gate)}")
    return build_gate(LINEAR_GATE if gate == "matching" else gate, d, n_experts, **(options or {}))


@torch.no_grad()
def _take_over(site: Site, router: Router) -> None:
    """Give the gate the old router's numbers.

    Raises:
        InputError: the gate is not the matching one.
    """
    weight, bias = site.parameters()
    constant = weight.new_zeros(len(weight)) if bias is None else bias
    try:
        router.gate.assign(torch.cat([constant.unsqueeze(-1), weight], dim=-1))
    except InputError:
        raise InputError(
            f"the {router.gate.name} gate is not the one of {type(site.router).__name__}, so that it cannot take over "
            "its weights: take init='distil' with data, or a fresh start with init='orthonormal' or 'normal'"
        ) from None
