"""The same parts from torch modules, by automatic differentiation in double precision: a user's own gate or expert."""

from collections.abc import Callable, Mapping
from copy import deepcopy

import mpmath
import numpy as np
import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.experts import Experts
from gatewise.families import Family
from gatewise.gates import Gate
from gatewise.messages import shown
from gatewise.ops.derivatives import jacobian, two_derivatives
from gatewise.parts.component import Component
from gatewise.parts.formulas import TheoryParameter
from gatewise.parts.parameters import Parameters, prefixed
from gatewise.theory.identifiability.parts import Derivatives, Numbers

__all__ = ["AutomaticExperts", "AutomaticFamily", "AutomaticGate", "FormOf"]

_DIGITS = 15


class FormOf(nn.Module):
    """A module whose forward is a method of another, for functional calls.

    Args:
        module: the other.
        name: of its method.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module = module
        self._name = name

    def forward(self, *arguments: Tensor) -> Tensor:
        """What the method gives."""
        return getattr(self.module, self._name)(*arguments)

    @staticmethod
    def named(parameters: Mapping[str, Tensor]) -> Parameters:
        """The other module's parameters under the names they have in this one."""
        return prefixed("module", parameters)


def derivatives_by_parameters(form: FormOf, own: Parameters, x: Tensor) -> Parameters:
    """The derivatives of what a form gives at inputs, by name of the parameter, of which the axes come last."""
    sizes = [value.numel() for value in own.values()]

    def output(point: Tensor) -> Tensor:
        parts = zip(own.items(), point.split(sizes), strict=True)
        named = {name: part.reshape(value.shape) for (name, value), part in parts}
        return torch.func.functional_call(form, form.named(named), (x,))

    found = jacobian(output, torch.cat([value.reshape(-1) for value in own.values()]))
    blocks = zip(own.items(), found.split(sizes, dim=-1), strict=True)
    return {name: block.reshape(*block.shape[:-1], *value.shape) for (name, value), block in blocks}


def _exact(values: Tensor) -> Numbers:
    """The numbers of a tensor as mpmath numbers, of the same shape."""
    array = np.empty(values.numel(), dtype=object)
    array[:] = [mpmath.mpf(value) for value in values.detach().reshape(-1).tolist()]
    return array.reshape(tuple(values.shape))


def _tensor(values: Numbers) -> Tensor:
    return torch.tensor(np.asarray(values, dtype=np.float64).tolist(), dtype=torch.float64).reshape(values.shape)


def _twice(function: Callable[[Tensor], Tensor], point: Tensor) -> Derivatives:
    """Values (N, m) with two derivatives of a function of a vector."""
    value, first, second = two_derivatives(function, point)
    for what in (value, first, second):
        if not bool(torch.isfinite(what).all()):
            raise InputError(
                "a value or a derivative is not finite at parameters drawn at random: hold the parameters that must "
                "lie in a range at values inside it, at={'name': value}"
            )
    return Derivatives(_exact(value), _exact(first), _exact(second))


class _Atom:
    """The entries of a module's parameters that belong to its first expert, or to all experts together."""

    def __init__(self, module: Component, method: str, leave_out: tuple[str, ...] = ()) -> None:
        self.module = deepcopy(module).double()
        self._call = FormOf(self.module, method)
        self._own = dict(self.module.named_parameters())
        self._places: list[tuple[str, tuple[int, ...]]] = []
        for name, value in self._own.items():
            first = name in module.per_expert
            shape = () if name in leave_out else tuple(value.shape[1:]) if first else tuple(value.shape)
            for place in () if name in leave_out else np.ndindex(*shape):
                self._places.append((name, (0, *place) if first else place))

    def parameter(self, entry: int) -> TheoryParameter:
        """Named as in the module: "centre[0]", for the first expert's entry."""
        name, place = self._places[entry]
        index = place[1:] if name in self.module.per_expert else place
        is_alone = sum(other == name for other, _ in self._places) == 1
        return TheoryParameter(name, () if is_alone else index)

    def __len__(self) -> int:
        return len(self._places)

    def values_at(self, x: Tensor, kept: list[int]) -> Callable[[Tensor], Tensor]:
        """A function of the kept entries: the module's output for the first expert, (N, m)."""

        def function(point: Tensor) -> Tensor:
            named = {name: value.detach().clone() for name, value in self._own.items()}
            for position, entry in enumerate(kept):
                name, place = self._places[entry]
                index = tuple(torch.tensor(i) for i in place)
                named[name] = named[name].index_put(index, point[position]) if index else point[position].reshape(())
            output = torch.func.functional_call(self._call, self._call.named(named), (x,))
            own = output[:, 0]
            return own.reshape(len(x), -1)

        return function


class AutomaticGate:
    """The logit of a gate's first expert as its score, without biases: entries whose derivative is 1 everywhere.

    Args:
        gate: any gate whose logit of an expert depends on that expert's parameters, and on those that all share.

    Raises:
        InputError: the logit depends on other experts' parameters.
    """

    digits = _DIGITS

    def __init__(self, gate: Gate) -> None:
        self._atom = _Atom(gate, "logits")
        generator = torch.Generator().manual_seed(0)
        probe = torch.rand(len(self._atom), generator=generator, dtype=torch.float64) + 0.4
        x = torch.randn(12, gate.n_features, generator=generator, dtype=torch.float64)
        everything = list(range(len(self._atom)))
        slopes = jacobian(self._atom.values_at(x, everything), probe).reshape(len(x), -1)
        self.biases = [entry for entry in everything if bool((slopes[:, entry] - 1.0).abs().max() < 1e-12)]
        self._kept = [entry for entry in everything if entry not in self.biases]
        self._check_separate(gate, x)

    def _check_separate(self, gate: Gate, x: Tensor) -> None:
        double = FormOf(deepcopy(gate).double(), "logits")
        generator = torch.Generator().manual_seed(1)
        own = {
            name: value.detach() + 0.1 * torch.rand(value.shape, generator=generator, dtype=torch.float64)
            for name, value in double.module.named_parameters()
        }
        for name, block in derivatives_by_parameters(double, own, x).items():
            block = block[:, 0]
            if name in gate.per_expert and len(own[name]) > 1 and bool((block[:, 1:] != 0.0).any()):
                raise InputError(
                    f"the logit of an expert of the {gate.name!r} gate depends on {shown(name)} of the others: "
                    "derivatives of one atom are not defined; give the score of one atom as a Formula"
                )

    @property
    def parameters(self) -> tuple[TheoryParameter, ...]:
        """The first expert's entries, but for biases, and shared ones."""
        return tuple(self._atom.parameter(entry) for entry in self._kept)

    @property
    def note(self) -> str:
        """Which entries are weights."""
        names = ", ".join(self._atom.parameter(entry).label for entry in self.biases)
        return f"{names}: left out, because it is the weight of an atom" if names else ""

    def derivatives(self, samples: Numbers, arguments: Numbers) -> Derivatives:
        """See `Part`."""
        return _twice(self._atom.values_at(_tensor(samples), self._kept), _tensor(arguments))


class AutomaticExperts:
    """The locations of a bank's first expert.

    Args:
        experts: any bank.
    """

    digits = _DIGITS

    def __init__(self, experts: Experts) -> None:
        self._atom = _Atom(experts, "location", leave_out=("log_scale",))
        self._kept = list(range(len(self._atom)))

    @property
    def parameters(self) -> tuple[TheoryParameter, ...]:
        """The first expert's entries."""
        return tuple(self._atom.parameter(entry) for entry in self._kept)

    def derivatives(self, samples: Numbers, arguments: Numbers) -> Derivatives:
        """See `Part`."""
        return _twice(self._atom.values_at(_tensor(samples), self._kept), _tensor(arguments))


class AutomaticFamily:
    """The density of a family as a function of its m locations and its dispersions on their unconstrained scale.

    Args:
        family: any family.
    """

    digits = _DIGITS

    def __init__(self, family: Family) -> None:
        self._family = family
        s = family.n_dispersion
        names = ["log_scale"] if s == 1 else [f"dispersion[{j}]" for j in range(s)]
        self.parameters = tuple(TheoryParameter(name) for name in names[:s])

    def targets(self, n: int, seed: int) -> Numbers:
        """Targets (n, e), drawn from the family at locations and dispersions near 0."""
        generator = torch.Generator().manual_seed(seed)
        m, s = self._family.n_outputs, self._family.n_dispersion
        location = torch.randn(n, 1, *(() if m == 1 else (m,)), generator=generator, dtype=torch.float64)
        dispersion = torch.zeros((1,) if s == 1 else (1, s), dtype=torch.float64)
        return _exact(self._family.sample(location, dispersion, generator=generator).reshape(n, -1))

    def derivatives(self, samples: Numbers, arguments: Numbers) -> Derivatives:
        """See `Part`."""
        m, s = self._family.n_outputs, self._family.n_dispersion
        rows = np.broadcast_to(arguments, (len(samples), m + s))
        found = []
        for sample, row in zip(samples, rows, strict=True):
            y = _tensor(sample)
            y = y if self._family.event_size else y.reshape(1)

            def density(point: Tensor, y: Tensor = y) -> Tensor:
                location = point[:m].reshape(1) if m == 1 else point[:m].reshape(1, m)
                dispersion = point[m:].reshape(1) if s == 1 else point[m:].reshape(1, s)
                target = y if self._family.event_size else y.reshape(())
                return self._family.log_density(target, location, dispersion).exp().reshape(1, 1)

            found.append(_twice(density, _tensor(row)))
        return Derivatives(
            *(np.concatenate([getattr(one, name) for one in found]) for name in ("value", "first", "second"))
        )
