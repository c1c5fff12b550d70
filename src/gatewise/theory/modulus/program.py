"""Functions of tensors, recorded once and played back in NumPy in any float type."""

import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch._decomp import core_aten_decompositions
from torch.func import functionalize, jacfwd
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.ops.derivatives import differentiable
from gatewise.theory.modulus.aten import ONLY_DOUBLE, OPERATIONS
from gatewise.theory.modulus.special import IS_EXTENDED

__all__ = ["Program", "derivative_program", "value_program"]


class Program:
    """The recorded operations of a function of tensors of fixed shapes; calling it plays them back in NumPy.

    The float type is that of the arguments, so that one recording serves doubles and 80-bit floats. A function whose
    Python code decides by the values of its arguments was recorded with one outcome of that decision.

    Attributes:
        is_exact: whether all operations exist in 80-bit floats, on this machine.
    """

    def __init__(self, module: GraphModule) -> None:
        self.is_exact = IS_EXTENDED
        self._steps: list[_Step] = []
        self._constants: dict[int, Any] = {}
        places: dict[Node, int] = {}
        self._inputs: list[int] = []
        for place, node in enumerate(module.graph.nodes):
            places[node] = place
            if node.op == "placeholder":
                self._inputs.append(place)
            elif node.op == "get_attr":
                self._constants[place] = getattr(module, node.target).detach().numpy()
            elif node.op == "output":
                self._output = _referred(node.args[0], places)
            else:
                self._record(place, node, places)
        self._known = [self._constants.get(place) for place in range(len(places))]

    def _record(self, place: int, node: Node, places: dict[Node, int]) -> None:
        name = _operation_name(node.target)
        if name not in OPERATIONS:
            raise InputError(
                f"the modulus plays a module's operations back in 80-bit floats and does not know {node.target}: write "
                f"the module with other operations, or add {shown(name)} to gatewise.theory.modulus.aten.OPERATIONS"
            )
        args = _referred(node.args, places)
        kwargs = _referred(node.kwargs, places)
        needed = [places[n] for n in node.all_input_nodes]
        if all(n in self._constants for n in needed):
            # What does not depend on the arguments is found once, and is the same for every parameter.
            values = _filled((args, kwargs), self._constants)
            self._constants[place] = OPERATIONS[name](*values[0], **values[1])
            return
        self.is_exact = self.is_exact and name not in ONLY_DOUBLE
        direct = [(i, arg.index) for i, arg in enumerate(args) if isinstance(arg, _Place)]
        nested = [(i, arg) for i, arg in enumerate(args) if not isinstance(arg, _Place) and _holds_places(arg)]
        if any(_holds_places(value) for value in kwargs.values()):
            raise InputError(f"the modulus cannot play back {node.target} with tensors as named arguments")
        self._steps.append(_Step(place, OPERATIONS[name], list(args), direct, nested, dict(kwargs)))

    def __call__(self, *arguments: np.ndarray) -> Any:
        """The function's value at arrays of the recorded shapes."""
        values = self._known.copy()
        for place, value in zip(self._inputs, arguments, strict=True):
            values[place] = value
        for step in self._steps:
            args = step.args.copy()
            for i, source in step.direct:
                args[i] = values[source]
            for i, tree in step.nested:
                args[i] = _filled(tree, values)
            values[step.place] = step.function(*args, **step.kwargs)
        return _filled(self._output, values)


def _referred(tree: Any, places: dict[Node, int]) -> Any:
    """The tree with places instead of nodes."""

    def place(node: Node) -> Any:
        return _Place(places[node])

    return map_arg(tree, place)


class _Step(NamedTuple):
    """One operation: where its result goes, and which of its arguments are results of earlier ones."""

    place: int
    function: Callable[..., Any]
    args: list[Any]
    direct: list[tuple[int, int]]
    nested: list[tuple[int, Any]]
    kwargs: dict[str, Any]


class _Place:
    """A reference to the result of an earlier step."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


def _holds_places(tree: Any) -> bool:
    if isinstance(tree, _Place):
        return True
    return isinstance(tree, Sequence) and not isinstance(tree, str) and any(_holds_places(item) for item in tree)


def _filled(tree: Any, values: Any) -> Any:
    if isinstance(tree, _Place):
        return values[tree.index]
    if isinstance(tree, tuple):
        return tuple(_filled(item, values) for item in tree)
    if isinstance(tree, Sequence) and not isinstance(tree, str):
        return [_filled(item, values) for item in tree]
    if isinstance(tree, dict):
        return {name: _filled(item, values) for name, item in tree.items()}
    return tree


def _operation_name(target: Any) -> str:
    name = getattr(target, "__name__", str(target)).split(".")[0]
    return name if name in OPERATIONS else name.removesuffix("_")


_RECORDING = threading.Lock()
"""Recordings and the forward mode in them use states of the whole process: one at a time."""


@cache
def _decompositions() -> Any:
    """Operations as simpler ones. PyTorch draws the table up at every call, in a fiftieth of a second."""
    return core_aten_decompositions()


def _recorded(function: Callable[..., Any], arguments: Sequence[np.ndarray]) -> Program:
    # Without writes into parts of tensors: each step then has one result, which no later step changes.
    pure = functionalize(function, remove="mutations")
    with _RECORDING, differentiable():
        tensors = [torch.from_numpy(np.asarray(a, np.float64)) for a in arguments]
        module = make_fx(pure, decomposition_table=_decompositions())(*tensors)
    module.graph.eliminate_dead_code()
    return Program(module)


def value_program(function: Callable[..., Any], *arguments: np.ndarray) -> Program:
    """The program of a function, recorded at these arguments.

    Raises:
        InputError: it uses an operation that is not known.

    Example:
        >>> program = value_program(lambda t: torch.tanh(t) / 3, np.zeros(1))
        >>> program(np.ones(1, np.longdouble)).dtype == np.longdouble
        True
    """
    return _recorded(function, arguments)


def derivative_program(function: Callable[..., Any], *arguments: np.ndarray) -> Program:
    """The program of the derivatives by the first argument, a vector, which take the last axis.

    Raises:
        InputError: it uses an operation that is not known.

    Example:
        >>> program = derivative_program(lambda t: t**2, np.zeros(2))
        >>> program(np.array([1.0, 3.0]))
        array([[2., 0.],
               [0., 6.]])
    """
    return _recorded(jacfwd(function), arguments)
