"""Whether a module computes what the MLP of its matrices does: asked by running it, on copies."""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.nn.experts import NetworkBank
from gatewise.nn.hf.form import DenseMLP

__all__ = ["Probe"]

_N_TOKENS = 4
# Beyond the bounds at which some models cut their hidden units.
_SCALES = (1.0, 100.0)
# Products in another order differ by a few units of the last place; what comes after may enlarge that.
_NEAR, _NEAR_AROUND = 64.0, 1024.0


def _required(module: Any, value: Any) -> dict[str, Any]:
    """The value for every argument that a call must have beside its tokens."""
    _, *others = inspect.signature(module.forward).parameters.values()
    return {one.name: value for one in others if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD}


# How a module that holds a frame can be run. The first way that passes tokens through its second matrix decides.
_WAYS: tuple[Callable[[Any, Tensor], Any], ...] = (
    lambda own, x: own(x, **_required(own, None)),
    lambda own, x: own(x, **_required(own, torch.zeros_like(x))),
    lambda own, x: own.feed_forward_chunk(x),
    lambda own, x: own.ff_chunk(x),
    lambda own, x: own.output(own.intermediate(x), torch.zeros_like(x)),
)


class _OneExpert(nn.Module):
    """The MLP of a bank's only expert."""

    def __init__(self, bank: NetworkBank) -> None:
        super().__init__()
        self.bank = bank

    def forward(self, x: Tensor, *_: object) -> Tensor:
        return self.bank.networks()[0](x)


class Probe:
    """A copy of a module, in float32 at least, that is run on random tokens.

    In bfloat16 the rounding of hidden units would hide what a module does besides.

    Args:
        module: it is not changed, and not called.

    Raises:
        Exception: whatever a copy of the module raises.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = copy.deepcopy(module).eval().requires_grad_(False)
        short = any(value.is_floating_point() and value.element_size() < 4 for value in module.parameters())
        if short:
            self._module.float()

    @torch.no_grad()
    def is_whole(self, mlp: DenseMLP) -> bool:
        """Whether the module gives what the MLP gives.

        Args:
            mlp: with the module as its root.
        """
        try:
            bank = mlp.experts(self._module, 1)
            x = _tokens(bank)
            given: Any = self._module(x)
            ours = bank.networks()[0](x[0]).unsqueeze(0)
        except Exception:  # noqa: BLE001 - whatever a module of another library raises, it is no MLP of one argument
            return False
        return _alike(given, ours, _NEAR)

    @torch.no_grad()
    def is_framed(self, mlp: DenseMLP) -> bool:
        """Whether the module goes on as before once the MLP stands in its place and what is idle does nothing.

        It is looked at what leaves the second matrix, or what stands there then, and what the module gives.

        Args:
            mlp: with the module as its root.
        """
        try:
            bank = mlp.experts(self._module, 1)
            x = _tokens(bank)
            changed = copy.deepcopy(self._module)
            for name in mlp.idle:
                _put(changed, name, nn.Identity())
            _put(changed, mlp.place, _OneExpert(bank))
        except Exception:  # noqa: BLE001 - whatever a module of another library raises, it holds no such MLP
            return False
        for way in _WAYS:
            before = _traced(self._module, mlp.second, way, x)
            if before is not None:
                after = _traced(changed, mlp.second, way, x)
                return (
                    after is not None
                    and _alike(before[0], after[0], _NEAR)
                    and _alike(before[1], after[1], _NEAR_AROUND)
                )
        return False

    @torch.no_grad()
    def is_random(self, mlp: DenseMLP) -> bool:
        """Whether the module in training does something else than in evaluation, its own dropouts apart.

        Args:
            mlp: that `is_whole`.
        """
        x = _tokens(mlp.experts(self._module, 1))
        trained: Any = copy.deepcopy(self._module).train()
        for name in mlp.dropouts:
            trained.get_submodule(name).eval()
        with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
            # Whatever a dropout leaves it enlarges: there is no draw by which it is missed.
            return not _alike(self._module(x), trained(x), _NEAR)


def _tokens(bank: NetworkBank) -> Tensor:
    """Tokens (1, T, d) of all scales."""
    weight = bank.weights()[0]
    drawn = torch.randn(_N_TOKENS, bank.d, generator=torch.Generator().manual_seed(0), device="cpu")
    scales = torch.tensor(_SCALES, device="cpu").repeat_interleave(_N_TOKENS // len(_SCALES)).unsqueeze(-1)
    return (drawn * scales).unsqueeze(0).to(weight.device, weight.dtype)


def _alike(one: Any, other: Any, units: float) -> bool:
    """Whether two tables of tokens (1, T, d), or the first of what was given, are the same to so many roundings."""
    one, other = (found[0] if isinstance(found, tuple) and found else found for found in (one, other))
    if not isinstance(one, Tensor) or not isinstance(other, Tensor) or one.shape != other.shape or not one.any():
        return False
    near = units * torch.finfo(one.dtype).eps * one.abs().amax(-1, keepdim=True)
    return bool(((one - other).abs() <= near).all())


def _traced(module: nn.Module, second: str, way: Callable[[Any, Tensor], Any], x: Tensor) -> tuple[Any, Any] | None:
    """What leaves the second matrix, and what the module gives; None if that fails or the matrix is not run once."""
    left: list[Any] = []
    handle = module.get_submodule(second).register_forward_hook(lambda *call: left.append(call[-1]))
    try:
        given = way(module, x)
    except Exception:  # noqa: BLE001 - a module of another library may need what is not known here
        return None
    finally:
        handle.remove()
    return (left[0], given) if len(left) == 1 else None


def _put(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    holder = root.get_submodule(parent)
    if attribute in vars(holder):
        # A function cannot be overwritten by a module.
        delattr(holder, attribute)
    setattr(holder, attribute, module)
