"""Where adapters act: the linear modules of a base model that LoRA adapters of peft change, and what is refused."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.messages import choose, listed, shown

__all__ = ["Factors", "Place", "check_adapter_name", "check_adapters", "check_model", "fingerprint", "places_of"]

# Options of a LoRA configuration that make more, or something else, of it than W + s·BA, with what they are called.
_OTHER_THAN_PLAIN = {
    "use_dora": "DoRA",
    "modules_to_save": "modules_to_save",
    "target_parameters": "target_parameters",
    "trainable_token_indices": "trainable_token_indices",
    "layer_replication": "layer_replication",
    "alora_invocation_tokens": "aLoRA",
    "arrow_config": "peft's own Arrow",
    "use_bdlora": "BD-LoRA",
    "use_qalora": "QA-LoRA",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
    "kasa_config": "KaSA",
    "megatron_config": "Megatron's layers",
}
# Starts that subtract from the base's weights, so that the adapter belongs to another base than it was loaded on.
_CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_CHECKED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Factors:
    """One adapter at one place: u ↦ s·(B A u + c).

    Attributes:
        down: A (r, d).
        up: B (out, r).
        bias: c (out,), or None.
        name: of the adapter.
        scales: s by adapter, lora_alpha/r, or lora_alpha/√r with rsLoRA; peft changes it in place.
        dropout: what u goes through first.
    """

    down: Tensor
    up: Tensor
    bias: Tensor | None
    name: str
    scales: Mapping[str, float]
    dropout: nn.Module

    @property
    def scaling(self) -> float:
        """The present s."""
        return self.scales[self.name]

    @property
    def rank(self) -> int:
        """The number of rows of A, r."""
        return self.down.shape[0]


@dataclass(frozen=True)
class Place:
    """A linear module of the base with the adapters that change it.

    Attributes:
        name: the module's name in the base model, "model.layers.0.self_attn.q_proj".
        layer: peft's layer, which stands in the module's place.
        adapters: those of the pool that the layer has, in the pool's order.
    """

    name: str
    layer: LoraLayer
    adapters: tuple[str, ...]

    @property
    def n_features(self) -> int:
        """d, the length of what the module reads."""
        return int(self._first.shape[1])

    @property
    def device(self) -> torch.device:
        """Where the adapters lie."""
        return self._first.device

    @property
    def routing_dtype(self) -> torch.dtype:
        """float64 where the adapters are in float64, else float32."""
        return torch.float64 if self._first.dtype == torch.float64 else torch.float32

    @property
    def _first(self) -> Tensor:
        """A of the first adapter."""
        return _linear(self.layer.lora_A[self.adapters[0]]).weight

    def factors(self, adapter: str) -> Factors:
        """A, B, bias, scale and dropout of one adapter as they are now."""
        layer = self.layer
        down, up = _linear(layer.lora_A[adapter]).weight, _linear(layer.lora_B[adapter])
        return Factors(down, up.weight, up.bias, adapter, layer.scaling, layer.lora_dropout[adapter])


def _linear(module: nn.Module) -> nn.Linear:
    """What peft keeps A and B in."""
    return cast(nn.Linear, module)


def check_model(model: object) -> PeftModel:
    """The model, if it is one of peft's with LoRA adapters.

    Raises:
        InputError: it is none.
    """
    if not isinstance(model, PeftModel):
        raise InputError(
            f"pass a peft.PeftModel with LoRA adapters, not a {type(model).__name__}: "
            "PeftModel.from_pretrained(base, folder) makes one, or load_and_route(base, folders)"
        )
    return model


def check_adapter_name(name: object) -> str:
    """A name that can be an adapter's and a folder's.

    Raises:
        InputError: it has other characters than letters, digits, _ and -, or is one that a `torch.nn.ModuleDict` uses.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"{shown(name)} cannot be an adapter's name: take letters, digits, _ and -, at most 100, with names=[…] if "
            "it comes from a folder's name"
        )
    if hasattr(nn.ModuleDict, name) or name == "training":
        raise InputError(f"{name!r} cannot be an adapter's name, since torch.nn.ModuleDict uses it: take another")
    return name


def check_adapters(model: PeftModel, adapters: Sequence[str]) -> tuple[str, ...]:
    """The adapters' names, if all of them are plain LoRA.

    Raises:
        InputError: there are none, one is named twice or not in the model, or is DoRA, has `modules_to_save` or
            `target_parameters`, is of another tuner or something else than W + s·BA.
    """
    names = tuple(adapters)
    if isinstance(adapters, str) or not names:
        raise InputError(f"pass the names of the adapters in a list, not {shown(adapters)}")
    for name in names:
        if name not in model.peft_config:
            raise InputError(f"the model has no adapter {shown(name)}: {choose(name, model.peft_config)}")
        check_adapter_name(name)
        check_config(name, model.peft_config[name])
    if len(set(names)) < len(names):
        raise InputError(f"an adapter is named twice in {shown(list(names))}: name each once")
    return names


def check_config(name: str, config: Any) -> None:
    """Refuse, by name, what is not plain LoRA.

    Raises:
        InputError: it is not.
    """
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if kind != "LORA":
        raise InputError(f"the adapter {name!r} is of the kind {kind}, and only LORA adapters can be routed")
    for option, title in _OTHER_THAN_PLAIN.items():
        if getattr(config, option, None):
            raise InputError(
                f"the adapter {name!r} uses {title} ({option}), which is more than W + s·BA and cannot be routed: "
                "train it as plain LoRA"
            )
    if config.bias != "none":
        raise InputError(
            f"the adapter {name!r} trains the base's biases (bias={config.bias!r}), which belong to no adapter alone: "
            "train it with bias='none'"
        )
    start = config.init_lora_weights
    if isinstance(start, str) and start.lower().startswith(_CHANGES_THE_BASE):
        raise InputError(
            f"the adapter {name!r} was started by {start!r}, which changes the base's own weights: convert it to a "
            "plain LoRA when saving it (path_initial_model_for_weight_conversion of peft's save_pretrained)"
        )


def places_of(model: PeftModel, adapters: Sequence[str]) -> dict[str, Place]:
    """The modules at which at least one of the adapters acts, by their names in the base model.

    Raises:
        InputError: there is none, one is no linear layer, or adapters are merged into the base.
    """
    found: dict[str, Place] = {}
    for name, module in model.get_base_model().named_modules():
        if not isinstance(module, LoraLayer):
            continue
        embedded = [adapter for adapter in adapters if adapter in module.lora_embedding_A]
        present = tuple(adapter for adapter in adapters if adapter in module.lora_A)
        if embedded or any(not _is_linear(module, adapter) for adapter in present):
            base = type(module.get_base_layer()).__name__
            raise InputError(
                f"the adapter {(embedded or list(present))[0]!r} changes {name!r}, a {base}: only linear layers can be "
                "routed; train the adapter without it in target_modules"
            )
        if not present:
            continue
        if module.merged:
            raise InputError(
                f"adapters are merged into the base's weights ({listed(module.merged_adapters)}): call "
                "unmerge_adapter() first"
            )
        found[name] = Place(name, module, present)
    if not found:
        raise InputError(f"none of the adapters {listed(adapters)} changes a module of this model")
    return found


def _is_linear(layer: LoraLayer, adapter: str) -> bool:
    """Whether the adapter's change is W u + s·BA u: two matrices on a layer that is one."""
    weights = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    plain = all(weight.ndim == 2 for weight in weights) and adapter not in layer.lora_variant
    return plain and not isinstance(layer.get_base_layer(), nn.MultiheadAttention)


def fingerprint(weights: Iterable[tuple[str, Tensor, Tensor]]) -> dict[str, str]:
    """SHA-256 of an adapter's own weights, as float32 and as rounded to the shorter types.

    An adapter that was saved in float32 and is loaded in bfloat16 has the second checksum and not the first.

    Args:
        weights: for each module its name, A and B.

    Example:
        >>> one, two = (fingerprint([("q", torch.ones(2, 3), torch.ones(3, 2) * c)]) for c in (1.0, 1.001))
        >>> one["float32"] == two["float32"], one["bfloat16"] == two["bfloat16"]
        (False, True)
    """
    entries = sorted(weights, key=lambda entry: entry[0])
    found = {}
    for dtype in _CHECKED_DTYPES:
        digest = hashlib.sha256()
        for name, down, up in entries:
            for kind, weight in (("A", down), ("B", up)):
                digest.update(f"{name} {kind} {tuple(weight.shape)}\n".encode())
                rounded = weight.detach().to("cpu", dtype).contiguous().view(torch.uint8)
                digest.update(rounded.numpy().tobytes())
        found[str(dtype).removeprefix("torch.")] = digest.hexdigest()
    return found


def fingerprint_of(model: PeftModel, adapter: str) -> tuple[dict[str, str], str]:
    """The fingerprint of an adapter in a model, and the dtype in which it is there to be compared."""
    places = places_of(model, [adapter])
    weights = [(name, *_pair(place, adapter)) for name, place in places.items()]
    dtypes = {str(down.dtype).removeprefix("torch.") for _, down, _ in weights}
    shortest = next((name for name in ("float16", "bfloat16") if name in dtypes), "float32")
    return fingerprint(weights), shortest


def _pair(place: Place, adapter: str) -> tuple[Tensor, Tensor]:
    factors = place.factors(adapter)
    return factors.down, factors.up
