"""The arrays of a model's weights on disk: their shapes, and what sparse layers keep among them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors

from gatewise.exceptions import InputError, ModelFolderError
from gatewise.messages import shown
from gatewise.nn.hf.contents import weights_names
from gatewise.nn.hf.recipe import STATE, LayerRecipe

__all__ = ["VARIANT", "array_shapes", "is_own_folder", "recipes_in"]

VARIANT = "upcycled"
"""In the names of weights: a class that knows no sparse layers finds none, and does not draw MLPs at random."""


def is_own_folder(folder: Path) -> bool:
    """Whether the weights in a folder are named as `save_upcycled` names them."""
    return any((folder / name).exists() for name in weights_names(VARIANT))


def array_shapes(folder: Path, variant: str | None) -> dict[str, tuple[int, ...]]:
    """The shapes of all arrays by their names.

    Raises:
        ModelFolderError: the weights cannot be read.
    """
    with _opened(folder, variant) as files:
        return {name: tuple(file.get_slice(name).get_shape()) for file in files for name in file.keys()}  # noqa: SIM118


def recipes_in(folder: Path, variant: str | None) -> dict[str, LayerRecipe]:
    """The recipes of the sparse layers whose states are among the weights, by the layers' names.

    Raises:
        ModelFolderError: the weights cannot be read, or a recipe is damaged.
    """
    end = f".{STATE}"
    with _opened(folder, variant) as files:
        # Only these are read; other libraries keep states of their own by that name.
        states = {name: file.get_tensor(name) for file in files for name in file.keys() if name.endswith(end)}  # noqa: SIM118
    try:
        return {
            name.removesuffix(end): LayerRecipe.read(state)
            for name, state in states.items()
            if LayerRecipe.is_in(state)
        }
    except InputError as error:
        raise ModelFolderError(f"the weights in {folder}: {error}") from None


@contextmanager
def _opened(folder: Path, variant: str | None) -> Iterator[list[Any]]:
    """The files of the weights.

    Raises:
        ModelFolderError: one of them cannot be read.
    """
    whole, _ = weights_names(variant)
    paths = [folder / whole] if (folder / whole).is_file() else sorted(folder.glob("*.safetensors"))
    try:
        yield [safetensors.safe_open(path, "pt") for path in paths]
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelFolderError(
            f"cannot load the model in {folder}, whose weights cannot be read: {shown(str(error))}"
        ) from None
