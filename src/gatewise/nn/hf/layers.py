"""Which layers of a dense model are asked for."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from gatewise.exceptions import InputError
from gatewise.messages import listed, shown
from gatewise.nn.hf.form import DenseMLP
from gatewise.nn.hf.mlps import Dense, layer_of, number_of

__all__ = ["Layers", "chosen_mlps"]

Layers = Sequence[int | str] | slice | str | None

EVERY_SECOND = "every second"
"""Layers 1, 3, 5 and so on."""

_SLICES = {EVERY_SECOND: slice(1, None, 2)}


def chosen_mlps(dense: Dense, layers: Layers, kind: str) -> list[DenseMLP]:
    """Those that `layers` names, in the order of the model.

    Raises:
        InputError: it names what is not there, a mixture, a layer whose MLP is not known, or one of several.
    """
    if not dense.mlps:
        for name, reason in dense.refused.items():
            raise InputError(_refusal(name, reason))
        raise InputError(
            f"there is no MLP that can become sparse in this {kind}: no layer has two or three matrices that make one"
        )
    if layers is None:
        stacks = {_stack(mlp) for mlp in dense.mlps}
        for name, reason in dense.refused.items():
            if _parent(name) in stacks:
                raise InputError(_refusal(name, reason))
        return dense.mlps
    if isinstance(layers, str):
        wanted: object = _numbers(dense, _SLICES[layers], layers) if layers in _SLICES else [layers]
    else:
        wanted = _numbers(dense, layers, layers) if isinstance(layers, slice) else layers
    if not isinstance(wanted, Sequence) or isinstance(wanted, bytes) or not wanted:
        raise InputError(
            f"layers must be a list of layers' numbers or MLPs' names, as [1, 3], a slice, {EVERY_SECOND!r} or a name "
            f"with *, not {shown(layers)}"
        )
    names: list[str] = []
    for one in wanted:
        for mlp in _matching(dense, one):
            if mlp.name in names:
                raise InputError(f"layers names {mlp.name!r} twice")
            names.append(mlp.name)
    return [mlp for mlp in dense.mlps if mlp.name in names]


def _matching(dense: Dense, wanted: object) -> list[DenseMLP]:
    """The MLPs of a number, or those whose names, or whose layers' names, match."""
    stacks = {_stack(mlp) for mlp in dense.mlps}
    if isinstance(wanted, str):
        refused = [name for name in dense.refused if fnmatchcase(name, wanted) or wanted.startswith(f"{name}.")]
        found = [mlp for mlp in dense.mlps if fnmatchcase(mlp.name, wanted) or fnmatchcase(_layer(mlp), wanted)]
    elif isinstance(wanted, int) and not isinstance(wanted, bool):
        refused = [name for name in dense.refused if number_of(name) == wanted and _parent(name) in stacks]
        found = [mlp for mlp in dense.mlps if number_of(_layer(mlp)) == wanted]
        if len(found) > 1:
            raise InputError(
                f"there are several MLPs in layers {wanted}: name those you mean, among "
                f"{listed(mlp.name for mlp in found)}"
            )
    else:
        refused, found = [], []
    for name in refused:
        raise InputError(_refusal(name, dense.refused[name]))
    if not found:
        raise InputError(
            f"there is no MLP that can become sparse in the layer {shown(wanted)}: there are "
            f"{listed(mlp.name for mlp in dense.mlps)}"
        )
    return found


def _layer(mlp: DenseMLP) -> str:
    layer = layer_of(mlp.name)
    assert layer is not None
    return layer


def _stack(mlp: DenseMLP) -> str:
    return _parent(_layer(mlp))


def _parent(layer: str) -> str:
    return layer.rpartition(".")[0]


def _refusal(name: str, reason: str) -> str:
    return f"the layer {name!r} cannot become sparse: {reason}; others are chosen by layers=…"


def _numbers(dense: Dense, part: slice, layers: object) -> list[int]:
    """The numbers of the layers that a slice leaves, of the one stack of layers that there is.

    Raises:
        InputError: there are several stacks, it is no slice of numbers, or it leaves none.
    """
    stacks = sorted({_stack(mlp) for mlp in dense.mlps})
    if len(stacks) > 1:
        raise InputError(
            f"{shown(layers)} counts layers, and there are several stacks of them, {listed(stacks)}: name one, as "
            f"{stacks[0] + '.*'!r}"
        )
    refused = {number_of(name) for name in dense.refused if _parent(name) in stacks}
    numbers = sorted({number_of(_layer(mlp)) for mlp in dense.mlps} | refused)
    try:
        left = numbers[part]
    except (TypeError, ValueError) as error:
        raise InputError(f"layers cannot be {shown(layers)}: {error}") from None
    if not left:
        raise InputError(f"{shown(layers)} leaves no layer of {listed(numbers)}")
    return left
