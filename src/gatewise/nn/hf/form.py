"""The form of a dense MLP: of which matrices and what activation it is made, and where it lies in a model."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from gatewise.exceptions import InputError
from gatewise.nn.experts import GLUBank, MLPBank, NetworkBank
from gatewise.parts.activations import Activation, activation

__all__ = ["FRAMES", "DenseMLP", "matrix_of"]


@dataclasses.dataclass(frozen=True)
class DenseMLP:
    """D σ(U x), or D (σ(G x) ⊙ U x), in a module of a model; all names are dotted from that module, the root.

    Attributes:
        first: the matrices that read tokens: (U), or (G, U), or one module that holds (G, U).
        second: D.
        gated: whether there is a G.
        activation: the module or the attribute σ; None where the model keeps none, and `usual` is one of ours.
        usual: a registered name, or None.
        place: in whose place a sparse layer can stand; empty for the root itself.
        idle: what the model calls around `place` and must do nothing once the sparse layer does it all.
        dropouts: what is inside `place` and acts on what the sparse layer gives.
        root: dotted from the model.
        random: whether it draws numbers in training by what is no module of its own, which no sparse layer does.
    """

    first: tuple[str, ...]
    second: str
    gated: bool
    activation: str | None = None
    usual: str | None = None
    place: str = ""
    idle: tuple[str, ...] = ()
    dropouts: tuple[str, ...] = ()
    root: str = ""
    random: bool = False

    def path(self, own: str) -> str:
        """A name from the model, of one from the root."""
        return ".".join(part for part in (self.root, own) if part)

    @property
    def name(self) -> str:
        """Of what stands in `place`, from the model."""
        return self.path(self.place)

    def at(self, name: str) -> "DenseMLP":
        """The same where `place` has this name.

        Raises:
            InputError: it cannot have.

        Example:
            >>> DenseMLP(("fc1",), "fc2", False, place="fc1").at("layers.3.fc1").path("fc2")
            'layers.3.fc2'
        """
        root = name.removesuffix(self.place).removesuffix(".") if self.place else name
        moved = dataclasses.replace(self, root=root)
        if moved.name != name:
            raise InputError(f"{name!r} is no name of {self.place!r} in a module")
        return moved

    def function(self, model: nn.Module) -> Activation:
        """σ.

        Raises:
            InputError: there is no such thing; no methods, only what a module was given is looked at.
        """
        if self.activation is None:
            return activation(str(self.usual))
        holder, _, own = self.activation.rpartition(".")
        parent = model.get_submodule(self.path(holder))
        found = dict(parent.named_children()).get(own, vars(parent).get(own))
        if not callable(found):
            raise InputError(f"{self.path(self.activation)!r} is no activation")
        return cast(Activation, found)

    def matrices(self, model: nn.Module) -> tuple[tuple[Tensor, Tensor | None], ...]:
        """The weights (out, in) and biases (out,), or None, of `first` and then of `second`.

        Raises:
            InputError: a name is none of a matrix.
        """
        found: list[tuple[Tensor, Tensor | None]] = []
        for name in (*self.first, self.second):
            own = matrix_of(model.get_submodule(self.path(name)))
            if own is None:
                raise InputError(f"{self.path(name)!r} is no matrix with numbers of its own")
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
        matrices = [model.get_submodule(self.path(name)) for name in (*self.first, self.second)]
        trained = any(value.requires_grad for matrix in matrices for value in matrix.parameters())
        for name, value in zip(names, values, strict=True):
            copies = value.detach().expand(n_experts, *value.shape).clone(memory_format=torch.contiguous_format)
            setattr(bank, name, nn.Parameter(copies, requires_grad=trained))
        return bank


FRAMES = (
    # opt, bart and what came from fairseq.
    DenseMLP(("fc1",), "fc2", False, "activation_fn", place="fc1", idle=("activation_fn", "fc2")),
    # bert and what came from it.
    DenseMLP(
        ("intermediate.dense",), "output.dense", False, "intermediate.intermediate_act_fn",
        place="intermediate", idle=("output.dense",),
    ),
    # albert.
    DenseMLP(("ffn",), "ffn_output", False, "activation", place="ffn", idle=("activation", "ffn_output")),
    # bloom.
    DenseMLP(
        ("dense_h_to_4h",), "dense_4h_to_h", False, "gelu_impl",
        place="dense_h_to_4h", idle=("gelu_impl", "dense_4h_to_h"),
    ),
    # mpt.
    DenseMLP(("up_proj",), "down_proj", False, "act", place="up_proj", idle=("act", "down_proj")),
)  # fmt: skip
"""MLPs whose matrices lie in a larger module, which goes on calling them."""


def _joined(above: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor | None:
    """The biases of G and U in one, 0 where one of them has none; None without any."""
    if all(bias is None for _, bias in above):
        return None
    return torch.cat([weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in above])


def matrix_of(module: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """The weight (out, in) and the bias of a linear map; None for what is none, or has integers for numbers."""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
        return None
    if isinstance(module, Conv1D):
        return weight.T, bias
    return (weight, bias) if isinstance(module, nn.Linear) else None
