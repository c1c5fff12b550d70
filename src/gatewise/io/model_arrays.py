"""A model as plain data and arrays, and back: nothing but registered classes, sizes, options and numbers."""

from typing import Any

import torch

from gatewise.exceptions import InputError
from gatewise.model import MixtureOfExperts
from gatewise.parts.standardiser import Standardiser
from gatewise.spec.parts import PartsConfig, build_parts, describe_parts

__all__ = ["DTYPES", "Arrays", "first_mismatch", "model_shell", "put_together", "refuse_other_class", "take_apart"]

DTYPES = {"float64": torch.float64, "float32": torch.float32}
"""The types that the parameters of a saved model may have."""

Arrays = dict[str, torch.Tensor]
"""A module's arrays by name."""


def take_apart(model: MixtureOfExperts) -> tuple[PartsConfig, Arrays, str]:
    """The parts of a model, copies of its arrays on the CPU, and the type of its parameters.

    Raises:
        InputError: `put_together` would not make this model of them, its parameters are of another type than float64
            or float32, or an array is not finite.
    """
    # Copies: parameters that are tied share their memory, which the format of the weights does not take.
    arrays = {name: array.detach().cpu().clone().contiguous() for name, array in model.state_dict().items()}
    dtypes = {str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()}
    if len(dtypes) != 1 or not dtypes <= set(DTYPES):
        raise InputError(f"a model is saved in float64 or float32, this one is in {', '.join(sorted(dtypes))}")
    dtype = dtypes.pop()
    for name, array in arrays.items():
        if not torch.isfinite(array).all():
            raise InputError(f"the weights {name!r} are not finite: such a model cannot be saved")
    parts = describe_parts(model)
    shell = model_shell(parts)
    refuse_other_class(shell, model)
    if shell.family != model.family:
        raise InputError(f"{model.family!r} cannot be rebuilt from its options: it cannot be saved")
    mismatch = first_mismatch(shell, arrays, DTYPES[dtype])
    if mismatch is not None:
        raise InputError(f"the model's arrays do not follow from its classes and sizes: it has {mismatch}")
    return parts, arrays, dtype


def put_together(parts: PartsConfig, arrays: Arrays, dtype: str, source: str) -> MixtureOfExperts:
    """The model of these parts and arrays, on the CPU, the inverse of `take_apart`.

    Args:
        parts: the classes, sizes and options.
        arrays: all arrays by name.
        dtype: of the parameters, one of `DTYPES`.
        source: what messages call the file that holds the arrays.

    Raises:
        InputError: the parts cannot be built, or an array has another name, shape or type, or is not finite.
    """
    n_values = sum(array.numel() for array in arrays.values())
    if n_values < parts.gate.n_experts:
        # A tree of gates takes memory for each of its nodes, even without their arrays.
        raise InputError(f"{source} holds {n_values} numbers, too few for {parts.gate.n_experts} experts")
    mismatch = first_mismatch(model_shell(parts), arrays, DTYPES[dtype])
    if mismatch is not None:
        raise InputError(f"{source} holds {mismatch}")
    # Only now memory is taken, for arrays as large as those that are there. What a constructor computes and does not
    # store, such as a table of exponents, needs this second construction: the first has no values.
    model = build_parts(parts).to(DTYPES[dtype])
    for name, array in arrays.items():
        if not torch.isfinite(array).all():
            raise InputError(f"the weights {name!r} are not finite")
    model.load_state_dict(arrays, assign=True)
    for part in model.modules():
        if isinstance(part, Standardiser):
            part.check()
    return model


def model_shell(parts: PartsConfig) -> MixtureOfExperts:
    """The model without memory for its weights: its classes and the shapes of its arrays.

    Raises:
        InputError: the parts cannot be built.
    """
    with torch.device("meta"):
        return build_parts(parts)


def first_mismatch(shell: torch.nn.Module, arrays: Arrays, dtype: torch.dtype) -> str | None:
    """The first array that is not as the shell needs it, or None; parameters must be of this type."""
    buffers = {name for name, _ in shell.named_buffers()}

    def describe(name: str, array: torch.Tensor) -> str:
        kind = str(array.dtype).removeprefix("torch.")
        # A buffer may have another floating type than the parameters: a fixed temperature is kept in float64.
        return f"{'float' if name in buffers and kind in DTYPES else kind} {tuple(array.shape)}"

    expected = {name: describe(name, array) for name, array in shell.to(dtype).state_dict().items()}
    found = {name: describe(name, array) for name, array in arrays.items()}
    for name in sorted(expected | found):
        if expected.get(name) != found.get(name):
            return f"{name!r} as {found.get(name)}, and {expected.get(name)} is needed"
    return None


def refuse_other_class(shell: torch.nn.Module, module: torch.nn.Module) -> None:
    """Refuse a module that is not, with all of its parts, of the classes that loading would make.

    Raises:
        InputError: it is not.
    """
    pairs: list[tuple[Any, Any]] = list(zip(shell.modules(), module.modules(), strict=False))
    # A family is no module.
    families = (getattr(shell, "family", None), getattr(module, "family", None))
    for rebuilt, part in [*pairs, families]:
        if type(rebuilt) is not type(part):
            name = getattr(part, "name", type(rebuilt).__name__)
            raise InputError(f"{type(part).__name__} is not the class registered as {name!r}: it cannot be saved")
