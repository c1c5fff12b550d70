"""The MLPs of dense transformers models: where they are, and of which matrices and what activation they are made."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from gatewise.exceptions import InputError
from gatewise.nn.experts import GLUBank, MLPBank, NetworkBank
from gatewise.nn.known import contract_of, refusal_of
from gatewise.parts.activations import Activation, activation

__all__ = ["Dense", "DenseMLP", "dense_mlps", "layer_of", "number_of"]

# For MLPs that keep no activation: what they may call.
_USUAL = ("silu", "gelu", "relu")
_N_TOKENS = 4


@dataclass(frozen=True)
class DenseMLP:
    """D σ(U x), or D (σ(G x) ⊙ U x), in a model; all names are dotted from the model.

    Attributes:
        name: the module in whose place a sparse layer can stand.
        first: the matrices that read tokens: (U), or (G, U), or one module that holds (G, U).
        second: D.
        gated: whether there is a G.
        activation: the module or the attribute σ; None where the model keeps none, and `usual` is one of ours.
        usual: a registered name, or None.
        idle: what the model calls around `name` and must do nothing once the sparse layer does it all.
        dropouts: what is inside `name` and acts on what the sparse layer gives.
    """

    name: str
    first: tuple[str, ...]
    second: str
    gated: bool
    activation: str | None = None
    usual: str | None = None
    idle: tuple[str, ...] = ()
    dropouts: tuple[str, ...] = ()

    def function(self, model: nn.Module) -> Activation:
        """σ.

        Raises:
            InputError: there is no such thing; no methods, only what a module was given is looked at.
        """
        if self.activation is None:
            return activation(str(self.usual))
        holder, _, own = self.activation.rpartition(".")
        parent = model.get_submodule(holder)
        found = dict(parent.named_children()).get(own, vars(parent).get(own))
        if not callable(found):
            raise InputError(f"{self.activation!r} is no activation")
        return cast(Activation, found)

    def matrices(self, model: nn.Module) -> tuple[tuple[Tensor, Tensor | None], ...]:
        """The weights (out, in) and biases (out,), or None, of `first` and then of `second`.

        Raises:
            InputError: a name is none of a matrix.
        """
        found: list[tuple[Tensor, Tensor | None]] = []
        for name in (*self.first, self.second):
            own = matrix_of(model.get_submodule(name))
            if own is None:
                raise InputError(f"{name!r} is no matrix with numbers of its own")
            found.append(own)
        return tuple(found)

    def experts(self, model: nn.Module, n_experts: int) -> NetworkBank:
        """A bank of experts of this form, each with a copy of the MLP's numbers, in its type and on its device.

        Raises:
            InputError: the matrices do not fit each other, or are none.
        """
        *above, (second, second_bias) = self.matrices(model)
        first, first_bias = torch.cat([weight for weight, _ in above]), _joined(above)
        d, hidden = second.shape
        if first.shape != ((2 if self.gated else 1) * hidden, d):
            raise InputError(
                f"the matrices of {self.name!r} do not fit: {tuple(first.shape)} and {tuple(second.shape)}"
            )
        function = self.function(model)
        # An activation that learns is copied: the old MLP keeps its own.
        function = copy.deepcopy(function) if isinstance(function, nn.Module) else function
        values = [first, second]
        if first_bias is not None or second_bias is not None:
            values.append(first.new_zeros(len(first)) if first_bias is None else first_bias)
            values.append(second.new_zeros(d) if second_bias is None else second_bias)
        with torch.device("meta"):
            bank = (GLUBank if self.gated else MLPBank)(n_experts, d, hidden, function, len(values) > 2)
        names = [name for name, _ in bank.named_parameters(recurse=False)]
        # Asked of the parameters themselves: what is computed of them needs no gradient where gradients are off.
        matrices = [model.get_submodule(name) for name in (*self.first, self.second)]
        trained = any(value.requires_grad for matrix in matrices for value in matrix.parameters())
        for name, value in zip(names, values, strict=True):
            copies = value.detach().expand(n_experts, *value.shape).clone(memory_format=torch.contiguous_format)
            setattr(bank, name, nn.Parameter(copies, requires_grad=trained))
        return bank


def _joined(above: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor | None:
    """The biases of G and U in one, 0 where one of them has none; None without any."""
    if all(bias is None for _, bias in above):
        return None
    return torch.cat([weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in above])


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


def matrix_of(module: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """The weight (out, in) and the bias of a linear map; None for what is none, or has integers for numbers."""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
        return None
    if isinstance(module, Conv1D):
        return weight.T, bias
    return (weight, bias) if isinstance(module, nn.Linear) else None


@dataclass(frozen=True)
class _Frame:
    """An MLP whose matrices lie in a larger module, which goes on calling them; names from that module.

    Attributes:
        place: in whose place the sparse layer stands.
        first: U.
        activation: σ.
        second: D.
        idle: what must do nothing.
        probe: gives the MLP's output of tokens, where the module can be asked for it.
    """

    place: str
    first: str
    activation: str
    second: str
    idle: tuple[str, ...]
    probe: Callable[[Any, Tensor], Tensor] | None = None


def _with_residual(module: Any, x: Tensor) -> Tensor:
    return module(x, torch.zeros_like(x))


# opt, bart and what came from fairseq; bert and what came from it; albert; bloom; mpt.
_FRAMES = (
    _Frame("fc1", "fc1", "activation_fn", "fc2", ("activation_fn", "fc2")),
    _Frame("intermediate", "intermediate.dense", "intermediate.intermediate_act_fn", "output.dense", ("output.dense",)),
    _Frame("ffn", "ffn", "activation", "ffn_output", ("activation", "ffn_output"), lambda own, x: own.ff_chunk(x)),
    _Frame(
        "dense_h_to_4h", "dense_h_to_4h", "gelu_impl", "dense_4h_to_h", ("gelu_impl", "dense_4h_to_h"), _with_residual
    ),
    _Frame("up_proj", "up_proj", "act", "down_proj", ("act", "down_proj"), _with_residual),
)


def dense_mlps(model: nn.Module) -> Dense:
    """The MLPs in a model's layers.

    A module with two or three matrices of fitting shapes is one if it gives, for random tokens, what D σ(U x) or
    D (σ(G x) ⊙ U x) of its matrices is: what it is called, and what its parts are called, does not matter. MLPs whose
    matrices lie directly in a layer are known by their names.
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
                f"{mixture!r} is a mixture of experts already (swap_routers puts other gates into some)"
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
    kind = type(module).__name__
    tried = False
    for first, second, gated in _splits(matrices):
        if any(weight.is_meta for weight, _ in matrices.values()):
            return (
                f"the numbers of {name!r} are not in memory (offloaded, or on the meta device): load the model with a "
                "device_map that leaves its MLPs on a device"
            )
        tried = True
        for mlp in _readings(module, first, second, gated):
            if _agrees(module, mlp, _called):
                return _named(mlp, name)
    held = _framed(name, module)
    if held is not None:
        return held
    if tried:
        return (
            f"{name!r}, a {kind}, computes something else than D σ(U x) or D (σ(G x) ⊙ U x) of its matrices: put a "
            "gatewise.nn.SparseMoE with experts of your own there"
        )
    strange = [child for child, part in module.named_children() if _is_wrapped(part)]
    if len(strange) >= 2 and len(matrices) + len(strange) <= 3:
        part = type(module.get_submodule(strange[0])).__name__
        return (
            f"the matrices of {name!r}, a {kind}, are no plain ones ({strange[0]} is a {part}): merge adapters first "
            "(merge_and_unload), and load the model without quantisation"
        )
    return None


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
        yield DenseMLP("", first, second, gated, own, dropouts=dropouts)
    for usual in _USUAL:
        yield DenseMLP("", first, second, gated, usual=usual, dropouts=dropouts)


def _called(module: Any, x: Tensor) -> Tensor:
    return module(x)


@torch.no_grad()
def _agrees(module: nn.Module, mlp: DenseMLP, probe: Callable[[Any, Tensor], Tensor]) -> bool:
    """Whether the module gives for random tokens what the MLP of its matrices gives; its names are from the module."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        bank = mlp.experts(module, 1)
        weight = bank.weights()[0]
        x = torch.randn(1, _N_TOKENS, bank.d, generator=torch.Generator().manual_seed(0)).to(
            weight.device, weight.dtype
        )
        given, ours = probe(module, x), bank.networks()[0](x[0])
    except Exception:  # noqa: BLE001 - whatever a module of another library raises, it is no MLP of one argument
        return False
    finally:
        for part, training in modes.items():
            part.training = training
    if not isinstance(given, Tensor) or given.shape != x.shape or ours.shape != x[0].shape or not bool(given.any()):
        return False
    # Products in another order differ by a few units of the last place.
    near = 64.0 * torch.finfo(x.dtype).eps * float(given.abs().max())
    return bool(torch.allclose(given[0].float(), ours.float(), rtol=0.0, atol=near))


def _framed(name: str, module: nn.Module) -> DenseMLP | None:
    """The MLP whose matrices lie in a module that does more, where the names are those of a known frame."""
    for frame in _FRAMES:
        try:
            parts = {path: attrgetter(path)(module) for path in (frame.first, frame.activation, frame.second)}
        except AttributeError:
            continue
        first, second = matrix_of(parts[frame.first]), matrix_of(parts[frame.second])
        if first is None or second is None or first[0].is_meta or first[0].shape != second[0].shape[::-1]:
            continue
        mlp = DenseMLP(frame.place, (frame.first,), frame.second, False, frame.activation, None, frame.idle)
        if _has_more(module, len(first[0])) or (frame.probe is not None and not _agrees(module, mlp, frame.probe)):
            continue
        return _named(mlp, name)
    return None


def _has_more(module: nn.Module, hidden: int) -> bool:
    """Whether there is something between both matrices, such as a norm of the hidden units."""
    return any(
        value.shape == (hidden,)
        for part in module.children()
        if matrix_of(part) is None
        for value in part.parameters(recurse=False)
    )


def _named(mlp: DenseMLP, name: str) -> DenseMLP:
    """The same with names from the model."""

    def path(own: str) -> str:
        return f"{name}.{own}" if own else name

    return dataclasses.replace(
        mlp,
        name=path(mlp.name),
        first=tuple(map(path, mlp.first)),
        second=path(mlp.second),
        activation=None if mlp.activation is None else path(mlp.activation),
        idle=tuple(map(path, mlp.idle)),
        dropouts=tuple(map(path, mlp.dropouts)),
    )
