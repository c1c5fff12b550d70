"""The MLPs of dense transformers models: where they are, and why others are none."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from torch import Tensor, nn

from gatewise.messages import shown
from gatewise.nn.hf.form import FRAMES, DenseMLP, matrix_of
from gatewise.nn.hf.probes import Probe
from gatewise.nn.known import contract_of, refusal_of

__all__ = ["Dense", "dense_mlps", "layer_of", "number_of"]

# For MLPs that keep no activation: what they may call.
_USUAL = ("silu", "gelu", "relu")


@dataclass
class Dense:
    """What was found in a model.

    Attributes:
        mlps: those that can become sparse, in the order of the model.
        refused: layers that cannot, by their names, with the reason.
    """

    mlps: list[DenseMLP] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def layer_of(name: str) -> str | None:
    """A name up to its first number: that of the layer in which the module is.

    Example:
        >>> layer_of("encoder.block.3.layer.1.DenseReluDense"), layer_of("lm_head")
        ('encoder.block.3', None)
    """
    parts = name.split(".")
    place = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
    return None if place is None else ".".join(parts[: place + 1])


def number_of(layer: str) -> int:
    """The number of a layer, from its name."""
    return int(layer.rpartition(".")[2])


def dense_mlps(model: nn.Module) -> Dense:
    """The MLPs in a model's layers.

    A module with two or three matrices of fitting shapes is one if it gives, for random tokens, what D σ(U x) or
    D (σ(G x) ⊙ U x) of its matrices is: what it is called, and what its parts are called, does not matter. MLPs whose
    matrices lie in a layer beside other things are looked for by their names, and the layer is run with and without.
    """
    layers: dict[str, dict[str, nn.Module]] = {}
    for name, module in model.named_modules():
        layer = layer_of(name)
        if layer is not None:
            layers.setdefault(layer, {})[name] = module
    found = Dense()
    for layer, inside in layers.items():
        mixture = _mixture_in(inside)
        if mixture is not None:
            found.refused[layer] = (
                f"{mixture!r} is a mixture of experts already (swap_routers "
                "puts other gates into models that came with routers; an upcycled layer takes another by "
                "layer.router = Router(…))"
            )
            continue
        mlps: list[DenseMLP] = []
        reasons: list[str] = []
        for name, module in inside.items():
            if any(name.startswith(f"{mlp.name}.") for mlp in mlps):
                continue
            read = _read(name, module)
            if isinstance(read, DenseMLP):
                mlps.append(read)
            elif read is not None:
                reasons.append(read)
        found.mlps += mlps
        if reasons and not mlps:
            found.refused[layer] = reasons[0]
    return found


def _mixture_in(modules: Mapping[str, nn.Module]) -> str | None:
    for name, module in modules.items():
        if isinstance(getattr(module, "experts", None), nn.Module):
            return name
        if contract_of(module) is not None or refusal_of(module) is not None:
            return name.rpartition(".")[0]
    return None


def _read(name: str, module: nn.Module) -> DenseMLP | str | None:
    """The MLP that a module is or holds; a sentence where it looks like one and is none; or None."""
    matrices = {child: own for child, part in module.named_children() if (own := matrix_of(part)) is not None}
    splits = list(_splits(matrices))
    frames = [frame for frame in FRAMES if _fits(module, frame)]
    if not splits and not frames:
        return _strange(name, module, len(matrices))
    paths = {*matrices, *(path for frame in frames for path in (*frame.first, frame.second))}
    weights = [value for path in paths for value in module.get_submodule(path).parameters()]
    if any(value.is_meta for value in weights):
        return (
            f"the numbers of {name!r} are not in memory (offloaded, or on the meta device): load the model with a "
            "device_map that leaves its MLPs on a device"
        )
    kinds = sorted({str(value.dtype) for value in weights})
    if len(kinds) > 1:
        return f"the matrices of {name!r} are in {' and '.join(kinds)}: cast the model to one of them first"
    kind = type(module).__name__
    try:
        probe = Probe(module)
    except Exception as error:  # noqa: BLE001 - a module of another library may refuse to be copied in any way
        return f"{name!r}, a {kind}, cannot be copied to be tried: {shown(str(error))}"
    for first, second, gated in splits:
        for mlp in _readings(module, first, second, gated):
            if probe.is_whole(mlp):
                return dataclasses.replace(mlp, root=name, random=probe.is_random(mlp))
    for frame in frames:
        if probe.is_framed(frame):
            return dataclasses.replace(frame, root=name)
    return (
        f"{name!r}, a {kind}, computes something else than D σ(U x) or D (σ(G x) ⊙ U x) of its matrices: put a "
        "gatewise.nn.SparseMoE with experts of your own there"
    )


def _strange(name: str, module: nn.Module, n_matrices: int) -> str | None:
    """A sentence on a module that has what something else has put in the place of its matrices; None for others."""
    strange = [child for child, part in module.named_children() if _is_wrapped(part)]
    if len(strange) < 2 or n_matrices + len(strange) > 3:
        return None
    part = type(module.get_submodule(strange[0])).__name__
    return (
        f"the matrices of {name!r}, a {type(module).__name__}, are no plain ones ({strange[0]} is a {part}): merge "
        "adapters first (merge_and_unload), and load the model without quantisation"
    )


def _is_wrapped(module: nn.Module) -> bool:
    """Whether it is a linear map that something else, as PEFT or a quantiser, has put in the place of a plain one."""
    return matrix_of(module) is None and all(hasattr(module, name) for name in ("in_features", "out_features"))


def _splits(matrices: Mapping[str, tuple[Tensor, Tensor | None]]) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """Which could be first and which second, by shapes alone: both orders of two equal ones."""
    shapes = {name: tuple(weight.shape) for name, (weight, _) in matrices.items()}
    for second, (d, hidden) in shapes.items():
        others = [name for name in shapes if name != second]
        if len(others) == 1 and shapes[others[0]] == (hidden, d):
            yield (others[0],), second, False
        elif len(others) == 1 and shapes[others[0]] == (2 * hidden, d):
            yield (others[0],), second, True
        elif len(others) == 2 and all(shapes[name] == (hidden, d) for name in others):
            yield (others[0], others[1]), second, True
            yield (others[1], others[0]), second, True


def _readings(module: nn.Module, first: tuple[str, ...], second: str, gated: bool) -> Iterator[DenseMLP]:
    """With each thing in the module that could be σ, and then with the usual ones; names are from the module."""
    dropouts = tuple(child for child, part in module.named_children() if isinstance(part, nn.Dropout))
    taken = {*first, second, *dropouts}
    children = [child for child, _ in module.named_children() if child not in taken]
    plain = [key for key, value in vars(module).items() if not key.startswith("_") and callable(value)]
    for own in (*children, *plain):
        yield DenseMLP(first, second, gated, own, dropouts=dropouts)
    for usual in _USUAL:
        yield DenseMLP(first, second, gated, usual=usual, dropouts=dropouts)


def _fits(module: nn.Module, frame: DenseMLP) -> bool:
    """Whether all that the frame names is there, with matrices of fitting shapes that are in memory."""
    try:
        first, second = (matrix_of(attrgetter(path)(module)) for path in (*frame.first, frame.second))
        attrgetter(str(frame.activation))(module)
    except AttributeError:
        return False
    return first is not None and second is not None and first[0].shape == second[0].shape[::-1]
