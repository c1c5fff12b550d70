"""What stands in an adapter's folder, read before peft reads it: configuration, weights, and whether they fit."""

import json
import os
from pathlib import Path
from typing import Any

from peft import PeftConfig
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.lora.places import check_config, fingerprint

__all__ = ["check_fits", "read_config", "read_fingerprint"]

_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
_KINDS = ("lora_A", "lora_B")


def read_config(folder: str | os.PathLike[str], name: str) -> PeftConfig:
    """The configuration of the adapter in a folder, if it can be routed.

    Raises:
        InputError: there is none, it cannot be read, or it is not plain LoRA.
    """
    place = Path(folder)
    try:
        text: Any = json.loads((place / _CONFIG).read_bytes())
    except FileNotFoundError:
        raise InputError(f"there is no adapter in {place}: it has no {_CONFIG}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{place / _CONFIG} cannot be read: {error}") from None
    kind = text.get("peft_type") if isinstance(text, dict) else None
    if kind != "LORA":
        raise InputError(f"the adapter {name!r} is of the kind {kind}, and only LORA adapters can be routed")
    if not (place / _WEIGHTS).is_file():
        raise InputError(f"the adapter in {place} has no {_WEIGHTS}: other files than safetensors are not read")
    try:
        config = PeftConfig.from_pretrained(os.fspath(place))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{place / _CONFIG} cannot be read: {error}") from None
    check_config(name, config)
    return config


def _weights(place: Path) -> dict[str, dict[str, Tensor]]:
    """A and B of each module in a file of peft's."""
    found: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(place / _WEIGHTS, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (the file is no dictionary)
                module, _, kind = key.removesuffix(".weight").removeprefix(_PREFIX).rpartition(".")
                found.setdefault(module, {})[kind] = file.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{place / _WEIGHTS} cannot be read: {error}") from None
    return found


def read_fingerprint(folder: str | os.PathLike[str]) -> tuple[dict[str, str], str] | None:
    """The fingerprint of the adapter's weights in a folder and the dtype to compare, or None if there are none.

    Raises:
        InputError: the file cannot be read.
    """
    place = Path(folder)
    if not (place / _WEIGHTS).is_file():
        return None
    weights = _weights(place)
    pairs = [(name, kinds["lora_A"], kinds["lora_B"]) for name, kinds in weights.items() if set(kinds) >= set(_KINDS)]
    dtypes = {str(down.dtype).removeprefix("torch.") for _, down, _ in pairs}
    return fingerprint(pairs), next((name for name in ("float16", "bfloat16") if name in dtypes), "float32")


def check_fits(folder: str | os.PathLike[str], name: str, base: nn.Module) -> None:
    """Refuse an adapter that was trained on another base, before any of it is loaded.

    Raises:
        InputError: a module that it changes is not in the base, or reads or gives another number of values.
    """
    weights = _weights(Path(folder))
    modules = dict(base.named_modules())
    for module, kinds in weights.items():
        target = modules.get(module)
        if target is None:
            raise InputError(
                f"the adapter {name!r} belongs to another base: it changes {module!r}, and this "
                f"{type(base).__name__} has no such module"
            )
        sizes = _sizes(getattr(target, "base_layer", target))
        found = tuple(kinds[kind].shape[end] for kind, end in (("lora_A", 1), ("lora_B", 0)) if kind in kinds)
        if sizes is not None and len(found) == 2 and sorted(found) != sorted(sizes):
            raise InputError(
                f"the adapter {name!r} belongs to another base: at {module!r} it reads {found[0]} values and gives "
                f"{found[1]}, and the module's weights are {sizes[0]} × {sizes[1]}"
            )


def _sizes(module: nn.Module) -> tuple[int, int] | None:
    """The two sizes of a module's matrix, whichever comes first; None where it is packed or there is none."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
        return None
    return int(weight.shape[0]), int(weight.shape[1])
