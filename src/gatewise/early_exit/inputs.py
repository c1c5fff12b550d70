"""What a backbone is called with: one tensor, or several by place or name, with a row for each sample."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import Tensor

from gatewise.exceptions import InputError

__all__ = ["call", "first_tensor", "map_tensors", "n_rows", "padding_mask", "rows", "trimmed"]


def map_tensors(value: Any, change: Callable[[str, Tensor], Tensor], path: str = "") -> Any:
    """The same nesting of tuples, lists and mappings with every tensor changed; what is no tensor stays.

    Args:
        value: a tensor, or a nesting of them.
        change: makes of a tensor's path, "0.attention_mask", and the tensor another tensor.
        path: where `value` itself lies.

    Example:
        >>> import torch
        >>> map_tensors({"a": [torch.ones(2), 3]}, lambda path, value: value * 2)
        {'a': [tensor([2., 2.]), 3]}
    """
    if isinstance(value, Tensor):
        return change(path, value)
    if isinstance(value, Mapping):
        changed = {key: map_tensors(part, change, f"{path}.{key}") for key, part in value.items()}
        if all(changed[key] is value[key] for key in changed):
            return value
        # A model output is a mapping whose class knows its fields; a batch of a tokeniser is one of its own.
        return cast(Callable[..., Any], type(value))(changed)
    if isinstance(value, tuple | list):
        parts = [map_tensors(part, change, f"{path}.{i}") for i, part in enumerate(value)]
        if all(new is old for new, old in zip(parts, value, strict=True)):
            return value
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor in a nesting, which is what the next block reads; None if there is none."""
    if isinstance(value, Tensor):
        return value
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    return next((found for part in parts if (found := first_tensor(part)) is not None), None)


def n_rows(inputs: Any) -> int:
    """The number of samples: the first axis of the first tensor.

    Raises:
        InputError: there is no tensor, or it is a single number.
    """
    found = first_tensor(inputs)
    if found is None or found.ndim == 0:
        raise InputError(
            f"the backbone's inputs must be a tensor, or a tuple or mapping of them, not {type(inputs).__name__}"
        )
    return len(found)


def rows(inputs: Any, index: Tensor) -> Any:
    """The samples at those places, (m,), of inputs of any nesting.

    Example:
        >>> import torch
        >>> rows({"x": torch.arange(4)}, torch.tensor([2, 0]))
        {'x': tensor([2, 0])}
    """
    size = n_rows(inputs)
    return map_tensors(inputs, lambda _, part: part.index_select(0, index) if len(part) == size else part)


def call(backbone: Callable[..., Any], inputs: Any) -> Any:
    """The backbone called with inputs: a mapping by names, a tuple by places, anything else as the one argument."""
    if isinstance(inputs, Mapping):
        return backbone(**inputs)
    if isinstance(inputs, tuple):
        return backbone(*inputs)
    return backbone(inputs)


def padding_mask(inputs: Any, name: str) -> Tensor | None:
    """The mask (n, T) of that name, nonzero where there is a token, or None if the inputs have none."""
    mask = inputs.get(name) if isinstance(inputs, Mapping) else None
    return mask if isinstance(mask, Tensor) and mask.ndim == 2 else None


def trimmed(inputs: Any, length: int, full: int) -> Any:
    """Inputs whose second axis of length `full` is cut to its first `length` entries."""
    return map_tensors(inputs, lambda _, part: part[:, :length] if part.ndim > 1 and part.shape[1] == full else part)
