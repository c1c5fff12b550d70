"""Image data from files on this machine: IDX, CIFAR, SVHN, arrays, folders of images. Nothing is fetched."""

import gzip
import importlib
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.messages import choose

__all__ = ["FASHION_MNIST", "LOADERS", "load_images", "read_idx"]

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""

_IDX_KINDS = {8: np.uint8, 9: np.int8, 11: np.int16, 12: np.int32, 13: np.float32, 14: np.float64}
_MOST_BYTES = 4 * 2**30
# What scipy raises at damaged files of MATLAB's, from case to case.
_DAMAGED = (ValueError, TypeError, KeyError, IndexError, NotImplementedError, OSError, EOFError)


def read_idx(path: Path | str) -> np.ndarray:
    """An array from an IDX file, plain or compressed by gzip (MNIST's form; READ in the files themselves).

    Args:
        path: the file.

    Raises:
        InputError: it is missing, no IDX file, or shorter or longer than it says.
    """
    path = Path(path)
    content = _bytes(path)
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            raise InputError(f"{path} is damaged: {error}") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_KINDS:
        raise InputError(f"{path} is no IDX file: it must begin with two zeros and a known type")
    axes = content[3]
    if len(content) < 4 + 4 * axes:
        raise InputError(f"{path} ends within its header")
    shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    kind = np.dtype(_IDX_KINDS[content[2]]).newbyteorder(">")
    expected = int(np.prod(shape, dtype=object)) * kind.itemsize if axes else kind.itemsize
    if len(content) - 4 - 4 * axes != expected:
        raise InputError(f"{path} says that it holds {expected} bytes, and has {len(content) - 4 - 4 * axes}")
    return np.frombuffer(content, kind, offset=4 + 4 * axes).reshape(shape).astype(_IDX_KINDS[content[2]])


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} has more than {_MOST_BYTES:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None


def _idx_folder(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    stem = {"train": "train", "test": "t10k"}[part]
    images, labels = (
        next((path for suffix in ("", ".gz") if (path := folder / f"{stem}-{kind}{suffix}").exists()), None)
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    if images is None or labels is None:
        raise InputError(f"{folder} has no {stem}-images-idx3-ubyte and {stem}-labels-idx1-ubyte, plain or .gz")
    return read_idx(images)[:, None], read_idx(labels)


def _cifar(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR's binary version: one byte of class (CIFAR-100: two, the second counts), 3,072 of image."""
    hundred = (folder / f"{part}.bin").exists()
    names = [f"{part}.bin"] if hundred else sorted(path.name for path in folder.glob("data_batch_*.bin"))
    if not hundred and part == "test":
        names = ["test_batch.bin"]
    if not names or not (folder / names[0]).exists():
        raise InputError(f"{folder} holds no CIFAR in its binary version (data_batch_1.bin, or train.bin)")
    width = 3072 + (2 if hundred else 1)
    arrays = []
    for name in names:
        content = np.frombuffer(_bytes(folder / name), np.uint8)
        if len(content) % width:
            raise InputError(f"{folder / name} is no CIFAR in its binary version: rows of {width} bytes do not fill it")
        arrays.append(content.reshape(-1, width))
    found = np.concatenate(arrays)
    return found[:, -3072:].reshape(-1, 3, 32, 32), found[:, width - 3073]


def _svhn(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """SVHN's cropped digits, `train_32x32.mat`: X (32, 32, 3, n) and y (n, 1), where 10 stands for the digit 0."""
    # Late: early exits cost what torch costs.
    matlab = importlib.import_module("scipy.io.matlab")
    path = folder / f"{part}_32x32.mat"
    content = BytesIO(_bytes(path))
    try:
        found = matlab.loadmat(content, variable_names=["X", "y"])
    except (matlab.MatReadError, zlib.error, MemoryError, *_DAMAGED) as error:
        raise InputError(f"{path} is no file of MATLAB's that can be read ({error})") from None
    x, y = found.get("X"), found.get("y")
    fits = isinstance(x, np.ndarray) and isinstance(y, np.ndarray) and x.ndim == 4 and y.size == x.shape[-1]
    if not fits or x.dtype != np.uint8 or not np.isin(y, np.arange(11)).all():
        raise InputError(f"{path} is no SVHN: it must hold X (32, 32, 3, n) of bytes and y (n, 1) from 1 to 10")
    return x.transpose(3, 2, 0, 1), y.ravel().astype(np.int64) % 10


def _arrays(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """`train_images.npy` (n, c, h, w) and `train_labels.npy` (n,), for whatever has been converted."""
    found = []
    for kind in ("images", "labels"):
        path = folder / f"{part}_{kind}.npy"
        try:
            found.append(np.load(path, allow_pickle=False))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {error}") from None
    return found[0], found[1]


def _image_folder(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """`train/CLASS/*.png`, as ImageNet's folders, all of one size; classes are numbered by their names."""
    try:
        pillow = importlib.import_module("PIL.Image")
    except ImportError:
        raise InputError("folders of images need Pillow: pip install pillow") from None
    root = folder / part
    classes = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if not classes:
        raise InputError(f"{root} holds no folder for each class")
    images, labels = [], []
    for number, name in enumerate(classes):
        for path in sorted((root / name).iterdir()):
            try:
                with pillow.open(path) as image:
                    images.append(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
            except (OSError, ValueError) as error:
                raise InputError(f"{path} is no image that can be read ({error})") from None
            labels.append(number)
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise InputError(f"the images in {root} have {len(shapes)} sizes: bring them to one first")
    return np.stack(images), np.array(labels)


LOADERS: dict[str, Callable[[Path, str], tuple[np.ndarray, np.ndarray]]] = {
    "idx": _idx_folder,
    "cifar": _cifar,
    "svhn": _svhn,
    "arrays": _arrays,
    "image_folder": _image_folder,
}
"""By the form of the files: MNIST's IDX, CIFAR's binary version, SVHN's cropped digits, .npy arrays, folders
of images by class."""


def load_images(kind: str, folder: Path | str, part: str = "train") -> tuple[Tensor, Tensor]:
    """Images (n, c, h, w) in float32 between 0 and 1, and classes (n,), from a folder on this machine.

    Args:
        kind: one of `LOADERS`.
        folder: where the files are.
        part: "train" or "test".

    Raises:
        InputError: no such kind, or the files are missing, damaged or of different numbers.
    """
    if kind not in LOADERS:
        raise InputError(f"there is no loader {kind!r}: {choose(kind, LOADERS)}")
    if part not in ("train", "test"):
        raise InputError(f"part must be 'train' or 'test', not {part!r}")
    images, labels = LOADERS[kind](Path(folder), part)
    if images.ndim != 4 or labels.shape != images.shape[:1]:
        raise InputError(f"{folder} holds images of shape {images.shape} and classes of shape {labels.shape}")
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    return torch.from_numpy(images.astype(np.float32)) / scale, torch.from_numpy(labels.astype(np.int64))
