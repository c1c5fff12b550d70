"""What the heads read of a data set, from one pass of the frozen backbone."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.early_exit.inputs import map_tensors, n_rows
from gatewise.exceptions import InputError
from gatewise.files import check_new_folder, new_folder
from gatewise.io.sealed import CONFIG_NAME, canonical_checksum, damaged, read_sealed
from gatewise.messages import shown

if TYPE_CHECKING:
    from gatewise.early_exit.model import EarlyExitModel

__all__ = ["FeatureCache", "batches_of", "cached", "fingerprint", "labels_of", "load_features"]

SCHEMA_VERSION = 1
_LARGEST = 2**20


@dataclass(frozen=True)
class FeatureCache:
    """What the heads read of n samples.

    Attributes:
        features: (n, d_l) for each head, in memory or mapped from a file.
        own: the backbone's own logits (n, C), or None where it has none.
        y: classes (n,), or None.
    """

    features: list[Tensor]
    own: Tensor | None
    y: Tensor | None

    def __len__(self) -> int:
        """N."""
        return len(self.features[0]) if self.features else 0

    def select(self, index: Tensor) -> "FeatureCache":
        """The samples at those places, in memory."""
        return FeatureCache(
            [part[index] for part in self.features],
            None if self.own is None else self.own[index],
            None if self.y is None else self.y[index],
        )


def labels_of(y: Any, n_classes: int) -> Tensor:
    """Classes (n,) as int64.

    Raises:
        InputError: they are no whole numbers from 0 to C − 1.
    """
    array = y if isinstance(y, Tensor) else np.asarray(y)
    if isinstance(array, np.ndarray) and array.dtype.kind not in "biuf":
        raise InputError(f"classes must be whole numbers (n,), not {shown(y)}: number them from 0 on")
    found = torch.as_tensor(array)
    if found.ndim != 1 or found.is_floating_point() or found.is_complex():
        raise InputError(f"classes must be whole numbers (n,), not {found.dtype} of shape {tuple(found.shape)}")
    found = found.long()
    if len(found) and not (int(found.min()) >= 0 and int(found.max()) < n_classes):
        place = int(((found < 0) | (found >= n_classes)).nonzero()[0])
        raise InputError(
            f"classes must lie between 0 and {n_classes - 1}, and sample {place} is of {int(found[place])}"
        )
    return found


def batches_of(data: Any, y: Any, batch_size: int) -> Iterator[tuple[Any, Any]]:
    """Batches of inputs and their classes, from inputs or from a loader.

    Args:
        data: inputs as a backbone is called with, or an iterable of batches: pairs of inputs and classes, if y is None.
        y: classes or None.
        batch_size: samples of a batch, if data is no loader.

    Raises:
        InputError: data is neither, or has another number of samples than y.
    """
    if isinstance(data, Tensor | tuple | dict) or (hasattr(data, "keys") and hasattr(data, "values")):
        size = n_rows(data)
        if y is not None and len(y) != size:
            raise InputError(f"there are {size} samples and {len(y)} classes")
        for start in range(0, size, batch_size):
            part = slice(start, start + batch_size)
            taken = map_tensors(data, lambda _, value, part=part: value[part] if len(value) == size else value)
            yield taken, None if y is None else y[part]
        return
    if isinstance(data, np.ndarray):
        yield from batches_of(torch.from_numpy(data), y, batch_size)
        return
    if not isinstance(data, Iterable):
        raise InputError(f"data must be inputs or a loader of batches, not {type(data).__name__}")
    if y is not None:
        raise InputError("a loader gives its classes itself, as pairs (inputs, classes): leave out y")
    for batch in data:
        pair = isinstance(batch, tuple | list) and len(batch) == 2
        yield (batch[0], batch[1]) if pair else (batch, None)


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of a module's parameters and buffers with their names, types and shapes."""
    import hashlib

    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def cached(model: "EarlyExitModel", data: Any, y: Any, folder: Path | None, batch_size: int) -> FeatureCache:
    """See `EarlyExitModel.cache_features`."""
    if isinstance(data, FeatureCache):
        return data
    if folder is not None:
        return _cached_in(model, data, y, folder, batch_size)
    parts: list[list[Tensor]] = []
    owns: list[Tensor] = []
    labels: list[Tensor] = []
    for features, own, classes in _passes(model, data, y, batch_size):
        parts.append(features)
        owns += [] if own is None else [own]
        labels += [] if classes is None else [classes]
    if not parts:
        raise InputError("there are no samples")
    return FeatureCache(
        [torch.cat(each) for each in zip(*parts, strict=True)],
        torch.cat(owns) if owns else None,
        torch.cat(labels) if labels else None,
    )


def _passes(
    model: "EarlyExitModel", data: Any, y: Any, batch_size: int
) -> Iterator[tuple[list[Tensor], Tensor | None, Tensor | None]]:
    done = 0
    for inputs, classes in batches_of(data, y, batch_size):
        features, own = model.features(inputs)
        _check_finite(model, features if own is None else [*features, own], done)
        done += len(features[0])
        yield features, own, None if classes is None else labels_of(classes, model.n_classes)


def _check_finite(model: "EarlyExitModel", found: list[Tensor], first: int) -> None:
    """Refuse numbers that no head can be trained on, before the loss of all samples is lost with them."""
    for name, part in zip(model.names, found, strict=True):
        if not bool((finite := torch.isfinite(part).all(-1)).all()):
            where = f"behind the block {name!r}" if name else "at the backbone's own end"
            raise InputError(
                f"sample {first + int((~finite).nonzero()[0])} is NaN or infinite {where}, {int((~finite).sum())} of "
                f"{len(part)} of its batch are: look at their inputs, or at the range of the backbone's type"
            )


def _cached_in(model: "EarlyExitModel", data: Any, y: Any, folder: Path, batch_size: int) -> FeatureCache:
    """Arrays go to their files batch by batch: a data set need not fit into memory."""
    check_new_folder(folder)
    with new_folder(folder) as new:
        writers: dict[str, _ArrayFile] = {}
        n = 0
        for features, own, classes in _passes(model, data, y, batch_size):
            named = {f"features_{place}": part for place, part in enumerate(features)}
            named |= {} if own is None else {"own": own}
            named |= {} if classes is None else {"classes": classes}
            for name, part in named.items():
                if name not in writers:
                    writers[name] = _ArrayFile(new.path(f"{name}.npy"))
                writers[name].append(part.numpy())
            n += len(features[0])
        if not n:
            raise InputError("there are no samples")
        for writer in writers.values():
            writer.close()
        config = {
            "schema_version": SCHEMA_VERSION,
            "backbone": fingerprint(model.backbone),
            "exits": list(model.names),
            "n": n,
            "arrays": sorted(writers),
        }
        config["sha256"] = canonical_checksum(config)
        new.write(CONFIG_NAME, (json.dumps(config, indent=2) + "\n").encode())
    return load_features(folder, model)


class _ArrayFile:
    """A .npy file that grows: its header keeps room for the number of rows, which is written at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n = 0
        self.width: tuple[int, ...] = ()
        self.kind = np.dtype(np.float32)
        self.file = path.open("wb")

    def append(self, part: np.ndarray) -> None:
        if not self.n:
            self.width, self.kind = part.shape[1:], part.dtype
            self._header()
        self.file.write(np.ascontiguousarray(part).tobytes())
        self.n += len(part)

    def close(self) -> None:
        self.file.seek(0)
        self._header()
        self.file.close()

    def _header(self) -> None:
        description = {"descr": self.kind.str, "fortran_order": False, "shape": (self.n, *self.width)}
        np.lib.format.write_array_header_1_0(self.file, description)


def load_features(folder: Path | str, model: "EarlyExitModel | None" = None) -> FeatureCache:
    """Features that `EarlyExitModel.cache_features` has kept in a folder, mapped into memory.

    Args:
        folder: the folder.
        model: if given, the folder must be of its backbone and exits.

    Raises:
        ModelFolderError: the folder is damaged.
        InputError: it is of another backbone or of other exits.
    """
    folder = Path(folder)
    config = read_sealed(folder, CONFIG_NAME, SCHEMA_VERSION, _LARGEST)[0]
    try:
        names, n, exits = list(config["arrays"]), int(config["n"]), list(config["exits"])
        backbone = config["backbone"]
    except (KeyError, TypeError, ValueError):
        raise damaged(folder, f"{CONFIG_NAME} is incomplete") from None
    if model is not None and exits != list(model.names):
        raise InputError(
            f"the features in {folder} are of the exits {shown(exits)}, and the model has {shown(list(model.names))}"
        )
    if model is not None and backbone != fingerprint(model.backbone):
        raise InputError(f"the features in {folder} are of another backbone than the model's: cache them anew")
    arrays = {name: _mapped(folder, name, n) for name in names if name in _allowed(names)}
    heads = sorted((name for name in arrays if name.startswith("features_")), key=lambda name: int(name[9:]))
    return FeatureCache([arrays[name] for name in heads], arrays.get("own"), arrays.get("classes"))


def _allowed(names: list[str]) -> set[str]:
    """Plain names only: a configuration must not lead out of its folder."""
    return {name for name in names if name in ("own", "classes") or (name[:9] == "features_" and name[9:].isdigit())}


def _mapped(folder: Path, name: str, n: int) -> Tensor:
    path = folder / f"{name}.npy"
    try:
        # Copy on write: a tensor can be made of it, and the file stays as it is.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise damaged(folder, f"{path.name} cannot be read ({error})") from None
    if len(array) != n or array.dtype not in (np.dtype(np.float32), np.dtype(np.int64)):
        raise damaged(folder, f"{path.name} has {len(array)} rows of {array.dtype} instead of {n}")
    return torch.from_numpy(array)
