"""Experts whose location is a user's own function, and the names under which such functions are known."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.experts.base import EXPERTS, Experts
from gatewise.messages import shown
from gatewise.parts.parameters import Parameters, Quantity, Symmetry

__all__ = ["CallableExperts", "ExpertFunction", "function_names", "register_function"]

ExpertFunction = Callable[[Tensor, Parameters], Tensor]
"""h: inputs (…, d) and the parameters of one expert ↦ its locations (…), or (…, m)."""


@dataclass(frozen=True)
class _Registered:
    """What a name stands for: the arguments of `CallableExperts` that are not plain data."""

    function: ExpertFunction
    shapes: Mapping[str, Sequence[int]]
    initial: Mapping[str, ArrayLike] | None = None
    symmetries: Sequence[Symmetry] = ()
    identified: Mapping[str, Callable[[Parameters], Tensor]] | None = None


_FUNCTIONS: dict[str, _Registered] = {}


def register_function(
    name: str,
    function: ExpertFunction,
    shapes: Mapping[str, Sequence[int]],
    initial: Mapping[str, ArrayLike] | None = None,
    *,
    symmetries: Sequence[Symmetry] = (),
    identified: Mapping[str, Callable[[Parameters], Tensor]] | None = None,
) -> None:
    """Enter a function under a name, once per process, so that strings, TOML and saved models can say it.

    A saved model holds the name only: whoever loads it must have registered the same function before.

    Args:
        name: the name.
        function: see `CallableExperts`, as the other arguments.
        shapes: of the parameters of one expert.
        initial: values of the parameters of a new expert.
        symmetries: of one expert.
        identified: what the function determines of one expert's parameters, by name.

    Raises:
        InputError: the name is empty or taken, or no experts can be built from the rest.

    Example:
        >>> import torch
        >>> def growth(x, eta):
        ...     return eta["top"] * (1.0 - torch.exp(-eta["rate"].exp() * x[..., 0]))
        >>> register_function("growth", growth, {"top": (), "rate": ()}, {"top": 1.0})
        >>> from gatewise.experts import build_experts
        >>> build_experts("callable", n_features=1, n_experts=2, function="growth")
        CallableExperts(n_features=1, n_experts=2, function='growth')
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"a function is registered under a non-empty string, not {shown(name)}")
    if name in _FUNCTIONS:
        raise InputError(f"the function {shown(name)} is registered already: choose another name")
    CallableExperts(
        1, 1, function=function, shapes=shapes, initial=initial, symmetries=symmetries, identified=identified
    )
    _FUNCTIONS[name] = _Registered(
        function,
        dict(shapes),
        None if initial is None else dict(initial),
        tuple(symmetries),
        None if identified is None else dict(identified),
    )


def function_names() -> list[str]:
    """The registered names, sorted."""
    return sorted(_FUNCTIONS)


def _registered(name: str) -> _Registered:
    try:
        return _FUNCTIONS[name]
    except KeyError:
        known = ", ".join(function_names()) or "none is registered"
        raise InputError(
            f"unknown function {shown(name)}: register it by gatewise.experts.register_function, or take one of those "
            f"that are ({known})"
        ) from None


@EXPERTS.register
class CallableExperts(Experts):
    """h(x, ηᵢ) is a function of the user's own, of inputs and of named parameters of any shapes.

    The function is called once for each expert, as function(x, {name: array of one expert}), with x (…, d). It returns
    (…), or (…, m) with m > 1 outputs, and consists of torch operations that can be differentiated twice. The bank
    keeps the k experts' arrays of each name in one parameter of that name, with a leading axis of length k.

    Nothing is known about such a function: inputs and targets are not standardised, and all parameters are taken to be
    identified, unless symmetries are given.

    Args:
        n_features: d.
        n_experts: k.
        shared_scale: one σ for all experts.
        function: h, or a name under which one was registered. Saving needs the name.
        shapes: the shape of each parameter of one expert, by name; () for a number. Not with a name, as all that
            follows but for m and s.
        initial: the values of the parameters of a new expert, by name, all experts the same; what is not there is 0.
        symmetries: what can be done to the parameters of one expert without changing h.
        identified: functions of the parameters of one expert, each with one number, by the name under which it is
            reported. Where they are not given these are the parameters themselves. They must be if a symmetry is
            continuous, and must not change under it.
        n_outputs: m.
        n_dispersion: s.

    Raises:
        InputError: the name is unknown, a parameter's name or shape cannot be used, initial values do not fit, or a
            continuous symmetry stands without `identified`.

    Example:
        >>> import torch
        >>> def saturation(x, eta):
        ...     return eta["top"] * x[..., 0] / (eta["log_half"].exp() + x[..., 0])
        >>> experts = CallableExperts(
        ...     1, 2, function=saturation, shapes={"top": (), "log_half": ()}, initial={"top": 1.0}
        ... )
        >>> experts.location(torch.tensor([[1.0], [3.0]])).detach()
        tensor([[0.5000, 0.5000],
                [0.7500, 0.7500]])
    """

    name = "callable"
    formula = "h(x, η), a registered function"
    source = "the user's own"
    keeps_units = True
    per_expert = ()

    def __init__(
        self,
        n_features: int,
        n_experts: int,
        shared_scale: bool = False,
        *,
        function: str | ExpertFunction,
        shapes: Mapping[str, Sequence[int]] | None = None,
        initial: Mapping[str, ArrayLike] | None = None,
        symmetries: Sequence[Symmetry] = (),
        identified: Mapping[str, Callable[[Parameters], Tensor]] | None = None,
        n_outputs: int = 1,
        n_dispersion: int = 1,
    ) -> None:
        super().__init__(n_features, n_experts, shared_scale, n_outputs=n_outputs, n_dispersion=n_dispersion)
        self.function_name = function if isinstance(function, str) else None
        if isinstance(function, str):
            if shapes is not None or initial is not None or symmetries or identified is not None:
                raise InputError(f"shapes and what follows them were registered with {shown(function)}: leave them out")
            known = _registered(function)
        else:
            if not callable(function):
                raise InputError(f"function must be a function or the name of one, not {shown(function)}")
            known = _Registered(function, shapes or {}, initial, symmetries, identified)
        self._function = known.function
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.shapes = {name: self._check_shape(name, shape) for name, shape in known.shapes.items()}
        if not self.shapes:
            raise InputError("experts need parameters: name at least one in shapes, as {'slope': (2,), 'top': ()}")
        self._own_symmetries = tuple(known.symmetries)
        self._own_identified = None if known.identified is None else dict(known.identified)
        if self._own_identified is None and any(symmetry.dimension for symmetry in self._own_symmetries):
            raise InputError(
                "a continuous symmetry was declared: give in `identified` the functions of one expert's parameters "
                "that do not change under it"
            )
        self.per_expert = tuple(self.shapes)  # pyright: ignore[reportAttributeAccessIssue]
        self._enter(known.initial or {})

    def _check_shape(self, name: str, shape: Sequence[int]) -> tuple[int, ...]:
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("_") or hasattr(self, name):
            raise InputError(f"a parameter cannot be called {shown(name)}: take an identifier that modules do not use")
        if not isinstance(shape, Sequence) or not all(
            isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in shape
        ):
            raise InputError(
                f"the shape of {shown(name)} must be a tuple of positive whole numbers, not {shown(shape)}"
            )
        return tuple(shape)

    def _enter(self, initial: Mapping[str, ArrayLike]) -> None:
        """Make the parameters."""
        unknown = sorted(set(initial) - set(self.shapes))
        if unknown:
            raise InputError(f"initial values are given for {unknown}, and the parameters are {sorted(self.shapes)}")
        for name, shape in self.shapes.items():
            value = np.asarray(initial.get(name, np.zeros(shape)), dtype=np.float64)
            if value.shape != shape or not np.isfinite(value).all():
                raise InputError(
                    f"the initial value of {shown(name)} must be {shape} finite numbers, not {value.tolist()}"
                )
            parameter = nn.Parameter(torch.zeros(self.n_experts, *shape))
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(value))
            self.register_parameter(name, parameter)

    @property
    def title(self) -> str:
        """With the function's name, if it has one."""
        return f"{self.name} ({self.function_name})" if self.function_name else self.name

    def options(self) -> dict[str, Any]:
        """The function's registered name.

        Raises:
            InputError: it has none.
        """
        if self.function_name is None:
            raise InputError(
                "these experts can be fitted but not saved, for their function has no registered name: enter it by "
                "gatewise.experts.register_function and build the experts with function='its name'"
            )
        return {"function": self.function_name}

    def extra_repr(self) -> str:
        """The sizes and the function, for printing."""
        if self.function_name is not None:
            return super().extra_repr()
        called = getattr(self._function, "__name__", type(self._function).__name__)
        return f"n_features={self.n_features}, n_experts={self.n_experts}, function=<{called}, not registered>"

    def _one(self, parameters: Parameters, expert: int) -> Parameters:
        return {name: parameters[name][expert] for name in self.shapes}

    def location(self, x: Tensor) -> Tensor:
        """The function at x for each expert, (…, d) ↦ (…, k), or (…, k, m).

        Raises:
            InputError: the function returns something else than (…), or (…, m).
        """
        own = {name: getattr(self, name) for name in self.shapes}
        values = [self._function(x, self._one(own, expert)) for expert in range(self.n_experts)]
        wanted = tuple(x.shape[:-1]) if self.n_outputs == 1 else (*x.shape[:-1], self.n_outputs)
        for value in values:
            if not isinstance(value, Tensor) or value.shape != wanted:
                given = f"one of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(type(value))
                raise InputError(
                    f"for inputs of shape {tuple(x.shape)} the function of callable experts must return a tensor of "
                    f"shape {wanted}, not {given}"
                )
        return torch.stack(values, dim=-1 if self.n_outputs == 1 else -2)

    def symmetries(self) -> tuple[Symmetry, ...]:
        """Those that were given, on each of the k experts."""
        found: list[Symmetry] = []
        for symmetry in self._own_symmetries:
            if symmetry.dimension:
                found.append(self._on_all(symmetry))
            else:
                found.extend(self._on_one(symmetry, expert) for expert in range(self.n_experts))
        return tuple(found)

    def _on_all(self, symmetry: Symmetry) -> Symmetry:
        k, dimension = self.n_experts, symmetry.dimension

        def act(parameters: Parameters, amount: Tensor) -> Parameters:
            rows = amount.reshape(k, dimension)
            moved = [symmetry.act(self._one(parameters, expert), rows[expert]) for expert in range(k)]
            return {**parameters, **{name: torch.stack([one[name] for one in moved]) for name in self.shapes}}

        return Symmetry(symmetry.name, symmetry.sentence, k * dimension, act, kind=symmetry.kind)

    def _on_one(self, symmetry: Symmetry, expert: int) -> Symmetry:
        def act(parameters: Parameters, amount: Tensor) -> Parameters:
            moved = symmetry.act(self._one(parameters, expert), amount)
            return {
                **parameters,
                **{
                    name: torch.cat([parameters[name][:expert], moved[name][None], parameters[name][expert + 1 :]])
                    for name in self.shapes
                },
            }

        return Symmetry(symmetry.name, f"expert {expert + 1}: {symmetry.sentence}", 0, act, kind=symmetry.kind)

    def identified(self, parameters: Parameters) -> Tensor:
        """The given functions of each expert's parameters, or the parameters themselves, flattened."""
        rows = []
        for expert in range(self.n_experts):
            one = self._one(parameters, expert)
            if self._own_identified is None:
                rows.extend(one[name].reshape(-1) for name in self.shapes)
            else:
                rows.extend(function(one).reshape(1) for function in self._own_identified.values())
        return torch.cat(rows)

    def quantities(self, features: Sequence[str], outputs: Sequence[str] = ("",)) -> list[Quantity]:
        """The given functions' names, or the parameters', "slope[0]", expert by expert."""
        terms = list(self._own_identified) if self._own_identified is not None else self._entries()
        return [Quantity(f"expert {i}", term) for i in range(1, self.n_experts + 1) for term in terms]

    def _entries(self) -> list[str]:
        return [
            name + (f"[{', '.join(map(str, index))}]" if index else "")
            for name, shape in self.shapes.items()
            for index in product(*map(range, shape))
        ]

    def atoms(self) -> dict[str, Tensor]:
        """`expert_` and the name, for each parameter, (k, …)."""
        return {f"expert_{name}": getattr(self, name).detach().clone() for name in self.shapes}
