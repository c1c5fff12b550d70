"""The gates of one adapter: a vector for each module, what was seen in training them, and the files that keep them."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.files import write_file
from gatewise.lora.adapter_files import read_fingerprint
from gatewise.messages import listed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GATES_FILE", "GateSet", "is_constant"]

GATES_FILE = "gatewise_gates.safetensors"
_DESCRIPTION = "gatewise_gates.json"
_FORMAT = 1
# A gate that is on average less than this away from ½ halves its adapter for every token, as it did at its start.
_MOVED = 0.01
_ENOUGH = 0.9


@dataclass(frozen=True)
class GateSet:
    """The gates v of one adapter, trained in h = W u + s·BA(u · σ(vᵀu)) with base and adapter frozen.

    Attributes:
        vectors: v (d,) in float32 of each module, by its name in the base model; d is the length of what it reads.
        means: the mean (d,) of the u that each module read while the gates were trained, padding left out: the vectors
            of the average-activation router.
        openness: for each module the mean of |σ(vᵀu) − ½| over the tokens of the last steps, from 0 to ½.
        losses: the loss of each step.
        checksums: SHA-256 of the adapter's own weights, in float32 and rounded to shorter types: gates belong to one
            adapter.

    Raises:
        InputError: there is no module, a vector is no vector or holds NaN or infinities, or modules differ.

    Example:
        >>> gates = GateSet({"q_proj": torch.tensor([1.0, -1.0])}, {"q_proj": torch.zeros(2)}, {"q_proj": 0.2}, (), {})
        >>> gates.moved, gates.flat
        (True, ())
    """

    vectors: Mapping[str, Tensor]
    means: Mapping[str, Tensor]
    openness: Mapping[str, float]
    losses: tuple[float, ...]
    checksums: Mapping[str, str]

    def __post_init__(self) -> None:
        if not self.vectors:
            raise InputError("a gate set needs the gate of at least one module")
        if set(self.means) != set(self.vectors) or set(self.openness) != set(self.vectors):
            raise InputError("gates, means and openness must be of the same modules")
        for kind, vectors in (("gate", self.vectors), ("mean", self.means)):
            for name, vector in vectors.items():
                if vector.ndim != 1:
                    raise InputError(f"the {kind} of {name!r} must be a vector, and it has the shape {vector.shape}")
                if not bool(torch.isfinite(vector).all()):
                    entry = int((~torch.isfinite(vector)).nonzero()[0])
                    raise InputError(
                        f"the {kind} of {name!r} is no number at entry {entry}: train the gates anew with train_gates"
                    )

    @property
    def flat(self) -> tuple[str, ...]:
        """Modules whose gate is constant: standardised it has no direction, and scores 0 for every token."""
        return tuple(name for name, vector in self.vectors.items() if is_constant(vector))

    @property
    def share_moved(self) -> float:
        """The share of modules whose gate is on average at least .01 away from the ½ at which it started."""
        return fmean(float(self.openness[name] >= _MOVED and name not in self.flat) for name in self.vectors)

    @property
    def moved(self) -> bool:
        """Whether the gates of at least nine modules in ten have moved."""
        return self.share_moved >= _ENOUGH

    @property
    def sentence(self) -> str:
        """How far the gates have moved, in a sentence, and what to do where that is not enough."""
        norm = median(float(vector.norm()) for vector in self.vectors.values())
        moved = round(self.share_moved * len(self.vectors))
        text = f"{moved} of {len(self.vectors)} gates have moved; the median of their lengths is {norm:.2g}"
        if self.losses:
            tail = max(1, len(self.losses) // 10)
            before, after = fmean(self.losses[:tail]), fmean(self.losses[-tail:])
            text += f", and the loss went from {before:.4g} to {after:.4g}"
        if self.flat:
            text += f"; those of {listed(self.flat)} have no direction and choose nothing"
        return f"{text}." if self.moved else f"{text}: train them with more steps or a larger rate."

    def table(self) -> "pd.DataFrame":
        """One row for each module: d, the gate's length, its openness, and whether it has moved."""
        import pandas as pd

        flat = set(self.flat)
        return pd.DataFrame(
            [
                {
                    "module": name,
                    "d": len(vector),
                    "length": float(vector.norm()),
                    "openness": self.openness[name],
                    "moved": self.openness[name] >= _MOVED and name not in flat,
                }
                for name, vector in self.vectors.items()
            ]
        )

    def check_adapter(self, name: str, checksums: Mapping[str, str], dtype: str) -> None:
        """Refuse another adapter's gates.

        Args:
            name: of the adapter, for the message.
            checksums: of its weights.
            dtype: in which they can be compared.

        Raises:
            InputError: they are not the weights that the gates were trained with.
        """
        if self.checksums.get(dtype) != checksums.get(dtype):
            own, found = self.checksums.get(dtype, "none")[:12], checksums.get(dtype, "none")[:12]
            raise InputError(
                f"the gates are not those of the adapter {name!r}: its weights have the SHA-256 {found}…, and the "
                f"gates were trained with {own}…; train gates for it with train_gates"
            )

    def save_pretrained(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the gates beside an adapter's files, as safetensors and JSON; each file whole or not at all.

        Args:
            folder: the adapter's, with its adapter_config.json.
            overwrite: whether gates that are there may be replaced.

        Raises:
            InputError: the folder holds another adapter.
            OutputError: the files cannot be written, or exist.
        """
        place = Path(folder)
        found = read_fingerprint(place)
        if found is not None:
            self.check_adapter(place.name, *found)
        tensors = {f"{kind}.{name}": vector for kind, name, vector in self._tensors()}
        content = dump_tensors(tensors)
        description: dict[str, Any] = {
            "format": _FORMAT,
            "sha256": hashlib.sha256(content).hexdigest(),
            "adapter": dict(self.checksums),
            "openness": dict(self.openness),
            "losses": list(self.losses),
        }
        text = json.dumps(description, indent=1, allow_nan=False)
        write_file(place / GATES_FILE, content, overwrite=overwrite)
        write_file(place / _DESCRIPTION, f"{text}\n".encode(), overwrite=overwrite)

    def _tensors(self) -> list[tuple[str, str, Tensor]]:
        return [
            (kind, name, vector.detach().to("cpu", torch.float32).contiguous())
            for kind, vectors in (("gate", self.vectors), ("mean", self.means))
            for name, vector in vectors.items()
        ]

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "GateSet":
        """The gates in an adapter's folder.

        Raises:
            InputError: there are none; they are damaged, written by a newer version or hold NaN; or they are not those
                of the adapter that lies beside them.
        """
        place = Path(folder)
        try:
            content = (place / GATES_FILE).read_bytes()
            description = json.loads((place / _DESCRIPTION).read_bytes())
        except FileNotFoundError:
            raise InputError(
                f"there are no gates in {place}: train them with train_gates and save_pretrained, or route by 'arrow', "
                "which needs none"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"the gates in {place} cannot be read: {error}") from None
        found = cls._parsed(place, content, description)
        beside = read_fingerprint(place)
        if beside is not None:
            found.check_adapter(place.name, *beside)
        return found

    @classmethod
    def _parsed(cls, place: Path, content: bytes, description: object) -> "GateSet":
        refused = InputError(f"the gates in {place} are damaged: {_DESCRIPTION} does not describe {GATES_FILE}")
        if not isinstance(description, dict):
            raise refused
        if description.get("format") != _FORMAT:
            raise InputError(
                f"the gates in {place} have the format {description.get('format')!r}, and this version reads {_FORMAT}"
            )
        if description.get("sha256") != hashlib.sha256(content).hexdigest():
            raise refused
        try:
            tensors = load_tensors(content)
            openness = {str(name): float(value) for name, value in description["openness"].items()}
            losses = tuple(float(value) for value in description["losses"])
            checksums = {str(name): str(value) for name, value in description["adapter"].items()}
        except (SafetensorError, KeyError, TypeError, ValueError, AttributeError):
            raise refused from None
        if not all(map(math.isfinite, [*openness.values(), *losses])):
            raise refused
        parts: dict[str, dict[str, Tensor]] = {"gate": {}, "mean": {}}
        for key, tensor in tensors.items():
            kind, _, name = key.partition(".")
            if kind not in parts or not name:
                raise refused
            parts[kind][name] = tensor
        return cls(parts["gate"], parts["mean"], openness, losses, checksums)


def is_constant(vector: Tensor) -> bool:
    """Whether all entries of a vector are equal, up to the rounding of its dtype: it has no direction.

    Example:
        >>> is_constant(torch.full((8,), 0.1)), is_constant(torch.arange(8.0))
        (True, False)
    """
    wide = vector.detach().double()
    return bool(wide.std(correction=0) <= 4.0 * torch.finfo(vector.dtype).eps * wide.abs().max())
