"""Names for classes, so that strings, TOML and model folders never import code from a string."""

from collections.abc import Iterator
from typing import Generic, TypeVar

from gatewise.exceptions import InputError
from gatewise.messages import choose, shown

T = TypeVar("T", bound=type)
Registered = TypeVar("Registered", bound=type)


class Registry(Generic[T]):
    """A closed table from a public name to a class: `registry["softmax"]` is `SoftmaxGate`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, T] = {}

    def register(self, cls: Registered) -> Registered:
        """Class decorator: enter `cls` under its `name`."""
        name: str = cls.name
        if name in self._classes:
            raise ValueError(f"the {self.kind} {name!r} is registered already")
        self._classes[name] = cls  # pyright: ignore[reportArgumentType]
        return cls

    def __getitem__(self, name: str) -> T:
        """The class of that name.

        Raises:
            InputError: the name is not registered; the message lists those that are.
        """
        try:
            return self._classes[name]
        except (KeyError, TypeError):
            raise InputError(f"unknown {self.kind} {shown(name)}: {choose(name, self)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))
