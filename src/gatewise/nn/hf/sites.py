"""Where the routers of a model are, and which of them are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.messages import listed, shown
from gatewise.nn.hf.adapter import Adapter
from gatewise.nn.known import RouterContract, contract_of, refusal_of
from gatewise.nn.router import Router

__all__ = ["Site", "chosen_sites", "layer_number", "refuse_recording", "sites_of", "swapped_in"]

# What models call the router of a layer that holds `experts`.
_ROUTER_NAMES = ("gate", "router")


@dataclass(frozen=True)
class Site:
    """A router and where it is.

    Attributes:
        name: of the router, dotted from the model.
        layer: the module that holds it.
        router: the model's own.
        contract: of its class.
    """

    name: str
    layer: nn.Module
    router: nn.Module
    contract: RouterContract

    @property
    def attribute(self) -> str:
        """The router's name in its layer."""
        return self.name.rpartition(".")[2]

    def parameters(self) -> tuple[Tensor, Tensor | None]:
        """W (E, d) of the old router and the bias of its logits (E,), None where there is none."""
        bias = self.contract.gate_bias
        weight = self.router.get_parameter(self.contract.weight).detach()
        return weight, None if bias is None else self.router.get_parameter(bias).detach()


def sites_of(model: nn.Module) -> list[Site]:
    """The model's own routers of known classes, in the order of the model.

    Raises:
        InputError: a router is of a class that is refused, or that is not known; there is none at all.
    """
    if contract_of(model) is not None or isinstance(model, Adapter):
        raise InputError(f"pass the model, not the router itself: a {type(model).__name__} has no layer to stand in")
    found: list[Site] = []
    strangers: list[tuple[str, nn.Module]] = []
    for name, layer in model.named_modules():
        for attribute, module in layer.named_children():
            own = f"{name}.{attribute}" if name else attribute
            refusal, contract = refusal_of(module), contract_of(module)
            if refusal is not None:
                raise InputError(
                    f"the router {own!r} is a {type(module).__name__}, which cannot be swapped: {refusal.reason}"
                )
            if contract is not None:
                found.append(Site(own, layer, module, contract))
            elif attribute in _ROUTER_NAMES and hasattr(layer, "experts") and not isinstance(module, Adapter | Router):
                strangers.append((own, module))
    if strangers:
        name, module = strangers[0]
        raise InputError(
            f"the router {name!r} is a {type(module).__name__}, a class that is not known: `gatewise routers list` "
            "shows those that are"
        )
    if not found and not swapped_in(model):
        own = next((name for name, module in model.named_modules() if isinstance(module, Router)), None)
        if own is not None:
            raise InputError(
                f"the router {own!r} is one of Gatewise already, in a sparse layer, and no model's own: put another "
                "there by layer.router = Router(gate, selection)"
            )
        raise InputError(
            f"there is no router of a known class in this {type(model).__name__}: `gatewise routers list` shows them"
        )
    return found


def swapped_in(model: nn.Module) -> dict[str, Adapter]:
    """The routers of Gatewise that stand in the place of a model's own, by their names.

    Raises:
        InputError: it is no model.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"pass a model, not {shown(model)}")
    return {name: module for name, module in model.named_modules() if isinstance(module, Adapter)}


def layer_number(name: str) -> int | None:
    """The last number in a router's name: that of its decoder layer.

    Example:
        >>> layer_number("model.layers.11.mlp.gate")
        11
    """
    return next((int(part) for part in reversed(name.split(".")) if part.isdecimal()), None)


def chosen_sites(sites: list[Site], layers: Sequence[int | str] | None) -> list[Site]:
    """Those that `layers` names, in the order of the model; all for None.

    Args:
        sites: all there are.
        layers: numbers of decoder layers, or full names of routers.

    Raises:
        InputError: it is no list of such, or empty, or names what is not there, two routers at once, or one twice.
    """
    if layers is None:
        return sites
    if isinstance(layers, str) or not isinstance(layers, Sequence) or not layers:
        raise InputError(f"layers must be a list of layers' numbers or routers' names, as [1, 3], not {shown(layers)}")
    chosen: list[str] = []
    for wanted in layers:
        own = [site.name for site in sites if wanted in (site.name, layer_number(site.name))]
        if isinstance(wanted, bool) or not own:
            there = listed(
                number if number is not None else site.name for site in sites for number in [layer_number(site.name)]
            )
            raise InputError(f"there is no router to swap in the layer {shown(wanted)}: there are routers in {there}")
        if len(own) > 1:
            raise InputError(f"the layer {wanted} has several routers: name those you mean, among {listed(own)}")
        if own[0] in chosen:
            raise InputError(f"layers names {own[0]!r} twice")
        chosen += own
    return [site for site in sites if site.name in chosen]


def refuse_recording(model: nn.Module) -> None:
    """Refuse a model that has begun to collect outputs: it would not see the new routers, and not say so.

    Raises:
        InputError: transformers has installed its hooks.
    """
    if any(getattr(module, "_output_capturing_hooks_installed", False) for module in model.modules()):
        raise InputError(
            "the model has begun to record outputs (a call with output_router_logits, output_hidden_states or "
            "output_attentions), and the logits of new routers would be missing silently: load the model anew and "
            "swap before the first such call"
        )
