"""Python values as JSON and arrays, and back, by a closed table of kinds: unpacking never runs code from a file.

What JSON has is itself. Everything else is a JSON object with the key "$", which names its kind; arrays stand in a file
of their own, and the object names them. Numbers keep every bit.
"""

import dataclasses
import math
import types
from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from pydantic import JsonValue

from gatewise.exceptions import InputError

__all__ = ["Packer", "Unpacker", "register", "register_record", "register_unpacking"]

_KIND = "$"
_BIT_GENERATORS = {cls.__name__: cls for cls in (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937)}
_BIT_GENERATORS |= {cls.__name__: cls for cls in (np.random.Philox, np.random.SFC64)}
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_WIDEST_TEXT = 10_000


class Packer:
    """Takes values apart.

    Args:
        known: objects that whoever unpacks has already, in the same order.

    Attributes:
        arrays: the arrays of all that was packed, by name.
        shared: what stands for each object that is kept once however often it occurs; None for a known one.

    Example:
        >>> packer = Packer()
        >>> packer.pack({"a": (1, float("inf")), "b": np.zeros(2)})["a"]
        {'$': 'tuple', 'items': [1, {'$': 'float', 'value': 'inf'}]}
        >>> list(packer.arrays)
        ['0']
    """

    def __init__(self, known: Sequence[object] = ()) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.shared: list[JsonValue] = [None] * len(known)
        # The objects themselves: an identity is one's own only as long as it is alive.
        self._places = {id(value): (place, value) for place, value in enumerate(known)}

    def pack(self, value: Any) -> JsonValue:
        """The JSON that stands for a value.

        Raises:
            InputError: there is no kind for it.
        """
        return _packed(value, self)

    def keep(self, array: np.ndarray) -> str:
        """The name under which an array is kept."""
        name = str(len(self.arrays))
        self.arrays[name] = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
        return name

    def once(self, value: object, pack: Callable[[], JsonValue]) -> JsonValue:
        """What stands for an object that may occur several times and is packed the first time only."""
        if id(value) not in self._places:
            packed = pack()
            self._places[id(value)] = (len(self.shared), value)
            self.shared.append(packed)
        return {_KIND: "shared", "place": self._places[id(value)][0]}


class Unpacker:
    """Puts values together again.

    Args:
        arrays: the arrays by name.
        shared: what stands for the objects that were kept once.
        known: those among them that are there already, the first ones.

    Raises:
        InputError: nothing is made of what is there.
    """

    def __init__(
        self, arrays: Mapping[str, np.ndarray], shared: Sequence[JsonValue], known: Sequence[object] = ()
    ) -> None:
        self._arrays = arrays
        self._shared = list(known)
        for packed in shared[len(known) :]:
            self._shared.append(self.unpack(packed))

    def unpack(self, packed: JsonValue) -> Any:
        """The value that some JSON stands for.

        Raises:
            InputError: a kind is unknown, something is missing, or is not what its kind needs.
        """
        if isinstance(packed, list):
            return [self.unpack(entry) for entry in packed]
        if not isinstance(packed, dict):
            return packed
        if _KIND not in packed:
            return {name: self.unpack(entry) for name, entry in packed.items()}
        kind = packed[_KIND]
        if not isinstance(kind, str) or kind not in _UNPACK:
            raise InputError(f"there is no kind of value {kind!r}")
        return _UNPACK[kind](packed, self)

    def array(self, name: Any) -> np.ndarray:
        """A copy of the array of that name.

        Raises:
            InputError: there is none.
        """
        if not isinstance(name, str) or name not in self._arrays:
            raise InputError(f"there is no array {name!r}")
        return self._arrays[name].copy()

    def shared(self, place: Any) -> Any:
        """The object that was kept once at this place.

        Raises:
            InputError: there is none yet.
        """
        if type(place) is not int or not 0 <= place < len(self._shared):
            raise InputError(f"there is no object {place!r}")
        return self._shared[place]


_UNPACK: dict[str, Callable[[dict[str, Any], Unpacker], Any]] = {}


@singledispatch
def _packed(value: Any, packer: Packer) -> JsonValue:
    raise InputError(f"a {type(value).__name__} is no plain data and cannot be saved: {value!r:.200}")


def register(
    kind: str,
    cls: type,
    pack: Callable[[Any, Packer], dict[str, JsonValue]],
    unpack: Callable[[dict[str, Any], Unpacker], Any],
    once: bool = False,
) -> None:
    """Enter a kind of value.

    Args:
        kind: its name in files.
        cls: the values' class, whose subclasses are of this kind too.
        pack: what stands for a value.
        unpack: the value; it raises an error of what it is made of if there can be none.
        once: whether an object that occurs several times is kept once, and is one object again.
    """

    def packed(value: Any, packer: Packer) -> JsonValue:
        def entry() -> JsonValue:
            return {_KIND: kind, **pack(value, packer)}

        return packer.once(value, entry) if once else entry()

    _packed.register(cls, packed)
    register_unpacking(kind, unpack)


def register_unpacking(kind: str, unpack: Callable[[dict[str, Any], Unpacker], Any]) -> None:
    """Enter how a kind is unpacked, alone if it is written no more; what keeps it from it becomes one sentence."""

    def unpacked(packed: dict[str, Any], unpacker: Unpacker) -> Any:
        try:
            return unpack(packed, unpacker)
        except InputError:
            raise
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise InputError(f"no {kind} can be made of what is there ({type(error).__name__}: {error})") from None

    _UNPACK[kind] = unpacked


def register_record(cls: type) -> None:
    """Enter a dataclass; its fields are packed one by one, and their types are checked when they come back."""
    fields = [field.name for field in dataclasses.fields(cls)]
    hints = get_type_hints(cls)

    def pack(value: Any, packer: Packer) -> dict[str, JsonValue]:
        return {"fields": {name: packer.pack(getattr(value, name)) for name in fields}}

    def unpack(packed: dict[str, Any], unpacker: Unpacker) -> Any:
        values = {name: unpacker.unpack(entry) for name, entry in packed["fields"].items()}
        for name, value in values.items():
            if name not in hints or not _matches(value, hints[name]):
                raise InputError(f"the field {name!r} of a {cls.__name__} cannot be a {type(value).__name__}")
        return cls(**values)

    register(cls.__name__, cls, pack, unpack)


def _matches(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type."""
    if hint is Any:
        return True
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_matches(value, choice) for choice in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[-1] is Ellipsis:
            return all(_matches(entry, arguments[0]) for entry in value)
        return len(value) == len(arguments) and all(map(_matches, value, arguments))
    if origin in (list, Sequence):
        return isinstance(value, list if origin is list else list | tuple) and all(
            _matches(entry, arguments[0]) for entry in value
        )
    if origin is dict:
        return isinstance(value, dict) and all(_matches(entry, arguments[1]) for entry in value.values())
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return isinstance(value, hint)


@_packed.register(type(None))
@_packed.register(bool)
@_packed.register(int)
@_packed.register(str)
def _as_it_is(value: Any, packer: Packer) -> JsonValue:
    return value


@_packed.register(np.bool_)
@_packed.register(np.number)
def _number(value: Any, packer: Packer) -> JsonValue:
    return packer.pack(value.item())


@_packed.register(float)
def _float(value: float, packer: Packer) -> JsonValue:
    return value if math.isfinite(value) else {_KIND: "float", "value": str(value)}


@_packed.register(list)
def _list(value: list[Any], packer: Packer) -> JsonValue:
    return [packer.pack(entry) for entry in value]


@_packed.register(Mapping)
def _mapping(value: Mapping[Any, Any], packer: Packer) -> JsonValue:
    if _KIND not in value and all(isinstance(name, str) for name in value):
        return {name: packer.pack(entry) for name, entry in value.items()}
    return {_KIND: "mapping", "items": [[packer.pack(name), packer.pack(entry)] for name, entry in value.items()]}


def _pack_array(value: np.ndarray, packer: Packer) -> dict[str, JsonValue]:
    if value.dtype.kind in "biuf":
        return {"name": packer.keep(value)}
    if value.dtype.kind in "UO":
        width = value.dtype.itemsize // 4 if value.dtype.kind == "U" else 0
        return {"width": width, "shape": list(value.shape), "items": [packer.pack(v) for v in value.ravel().tolist()]}
    raise InputError(f"an array of type {value.dtype} cannot be saved: make it one of numbers or of text")


def _unpack_array(packed: dict[str, Any], unpacker: Unpacker) -> np.ndarray:
    if "name" in packed:
        return unpacker.array(packed["name"])
    items, width = [unpacker.unpack(entry) for entry in packed["items"]], packed["width"]
    if not 0 <= width <= _WIDEST_TEXT:
        raise InputError(f"no text has {width} characters")
    values = np.empty(len(items), dtype=object)
    values[:] = items
    if width and not all(isinstance(item, str) for item in items):
        raise InputError("an array of text holds something else")
    return (values.astype(f"<U{width}") if width else values).reshape(packed["shape"])


def _unpack_generator(packed: dict[str, Any], unpacker: Unpacker) -> np.random.Generator:
    state = unpacker.unpack(packed["state"])
    bits = _BIT_GENERATORS[state["bit_generator"]](0)
    bits.state = state
    return np.random.Generator(bits)


def _unpack_random_state(packed: dict[str, Any], unpacker: Unpacker) -> np.random.RandomState:
    generator = np.random.RandomState(0)
    generator.set_state(unpacker.unpack(packed["state"]))
    return generator


register_unpacking("float", lambda packed, unpacker: _NOT_FINITE[packed["value"]])
register_unpacking("shared", lambda packed, unpacker: unpacker.shared(packed["place"]))
register_unpacking(
    "mapping",
    lambda packed, unpacker: {unpacker.unpack(name): unpacker.unpack(entry) for name, entry in packed["items"]},
)
register(
    "tuple",
    tuple,
    lambda value, packer: {"items": [packer.pack(entry) for entry in value]},
    lambda packed, unpacker: tuple(unpacker.unpack(entry) for entry in packed["items"]),
)
register("array", np.ndarray, _pack_array, _unpack_array)
register(
    "tensor",
    torch.Tensor,
    lambda value, packer: {"name": packer.keep(value.detach().cpu().numpy())},
    lambda packed, unpacker: torch.from_numpy(unpacker.array(packed["name"])),
)
register(
    "generator",
    np.random.Generator,
    lambda value, packer: {"state": packer.pack(value.bit_generator.state)},
    _unpack_generator,
)
register(
    "random_state",
    np.random.RandomState,
    lambda value, packer: {"state": packer.pack(value.get_state(legacy=False))},
    _unpack_random_state,
)
