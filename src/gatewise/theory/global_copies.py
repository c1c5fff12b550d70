"""Copies of a truth that are far from it in their parameters and the same regression function: what to look for.

Derivatives at the truth, and a modulus near it, see a neighbourhood. An estimate sees the whole parameter space: where
another mixture is the same function, it may end there, and no rate holds for the parameters in which the two differ.
"""

import copy
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call

from gatewise.experts import Experts
from gatewise.gates import Gate
from gatewise.model import MixtureOfExperts
from gatewise.parts.parameters import Parameters

__all__ = ["GlobalCopy", "copies_of", "copies_text", "global_copies"]

Truths = Literal["any", "constant gate", "constant gate and expert"]

_ROWS, _DRAWS = 24, 3
_SAME = 1e-9
_TRUTHS = {
    "any": "any truth",
    "constant gate": "a truth in which the gate of an atom does not depend on x",
    "constant gate and expert": "a truth in which neither the gate nor the expert of an atom depends on x",
}


@dataclass(frozen=True)
class GlobalCopy:
    """A way in which a mixture far from the truth is the same regression function.

    Attributes:
        name: "null expert", "complement", "exchange", "constant expert" or "null output".
        sentence: the identity, and what it leaves undetermined.
        truths: the truths that have such copies.
        extra: how many atoms more than the truth's are needed.
    """

    name: str
    sentence: str
    truths: Truths
    extra: int

    @property
    def text(self) -> str:
        """In a line, with what it needs."""
        fitted = "as many experts as there are" if self.extra == 0 else "one expert too many"
        return f"{self.name}, at {_TRUTHS[self.truths]}, with {fitted}: {self.sentence}"


def global_copies(gate: Gate, experts: Experts, known: Sequence[str] = ()) -> tuple[GlobalCopy, ...]:
    """The copies that these parts have in least squares, found by what they do and not by their names.

    Looked for are experts that can be 0, weights with w(z) + w(−z) = 1, and experts that take up a factor. It is a list
    of known ways, each confirmed on the modules at random parameters: an empty answer proves nothing.

    Args:
        gate: the gate.
        experts: the experts.
        known: parameters of the experts that stay at their values.

    Example:
        >>> from gatewise.experts import LinearExperts
        >>> from gatewise.gates import SigmoidGate, SoftmaxGate
        >>> for found in global_copies(SigmoidGate(1, 2, normalised=False), LinearExperts(1, 2)):
        ...     print(found.name, "|", found.truths, "|", found.extra)
        null expert | any | 1
        complement | constant gate | 1
        complement | any | 1
        exchange | constant gate | 0
        >>> global_copies(SoftmaxGate(1, 2), LinearExperts(1, 2))
        ()
    """
    if experts.n_outputs != 1 or not experts.per_expert:
        return ()
    bank = _Bank(experts, known)
    return tuple(_unnormalised(gate, bank) if gate.normaliser == "none" else _normalised(bank))


def copies_of(truth: MixtureOfExperts, fit_k: int, hold: Sequence[str] = ()) -> tuple[GlobalCopy, ...]:
    """Those that a fit of this size to this truth has, in least squares.

    Args:
        truth: the true mixture.
        fit_k: the number of fitted atoms.
        hold: full names of parameters that are known, as "experts.outer_weight".

    Example:
        >>> model = MixtureOfExperts.build(
        ...     "sigmoid", "linear", "gaussian", 1, 2, gate_options={"normalised": False}
        ... ).double()
        >>> [found.name for found in copies_of(model, 2)]  # its gate vectors are 0
        ['exchange']
    """
    extra = fit_k - truth.n_experts
    with torch.no_grad():
        x = _inputs(truth.experts.n_features)
        gate_x = _inputs(truth.gate.n_features)
        weights, locations = truth.gate(gate_x), truth.experts.location(x)
    still = _does_not_vary(weights)
    holds = {
        "any": True,
        "constant gate": bool(still.any()),
        "constant gate and expert": bool(locations.ndim == 2 and (still & _does_not_vary(locations)).any()),
    }
    known = [name.removeprefix("experts.") for name in hold if name.startswith("experts.")]
    return tuple(
        found
        for found in global_copies(truth.gate, truth.experts, known)
        if found.extra <= extra and holds[found.truths]
    )


def copies_text(copies: Sequence[GlobalCopy], width: int = 100) -> list[str]:
    """Lines for a terminal; none if there are no copies."""
    if not copies:
        return []
    head = "Copies of the truth far from it, the same function (known ways, not all): no rate holds between them"
    lines = textwrap.wrap(head, width, subsequent_indent="  ")
    for found in copies:
        lines += textwrap.wrap(found.text, width, initial_indent="  - ", subsequent_indent="    ")
    return lines


def _does_not_vary(values: Tensor) -> Tensor:
    """Column by column of values (N, k)."""
    return values.amax(0) - values.amin(0) < _SAME


def _inputs(n_features: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(_ROWS, n_features, generator=generator, dtype=torch.float64) * 3.0 - 1.5


class _Bank:
    """A bank of experts, asked what becomes of its locations when some of its parameters are changed."""

    def __init__(self, experts: Experts, known: Sequence[str]) -> None:
        self._experts = copy.deepcopy(experts).double()
        self._x = _inputs(experts.n_features)
        generator = torch.Generator().manual_seed(1)
        own = self._experts.own_parameters()
        self._draws: list[Parameters] = [
            {
                name: value if name in known else torch.randn(value.shape, generator=generator, dtype=torch.float64)
                for name, value in own.items()
            }
            for _ in range(2 * _DRAWS)
        ]
        self.names = tuple(name for name in experts.per_expert if name in own and name not in known)

    def locations(self, parameters: Parameters) -> Tensor:
        with torch.no_grad():
            return functional_call(self._experts, parameters, (self._x,))[0]

    def units(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs (N, d) and locations (N,) of the first expert with one unit, whose output weight is 1."""
        for draw in self._draws:
            one = dict(draw)
            for name in self.smallest("linear") or ():
                one[name] = torch.zeros_like(draw[name])
                one[name].reshape(len(draw[name]), -1)[:, 0] = 1.0
            yield self._x, self.locations(one)[:, 0]

    def factor(self, names: Sequence[str], scale: float) -> float | None:
        """What multiplies the locations if these parameters are multiplied by `scale`; None if not one number does."""
        ratios = []
        for draw in self._draws:
            before = self.locations(draw)
            after = self.locations({**draw, **{name: scale * draw[name] for name in names}})
            ratio = float((before * after).sum() / (before * before).sum())
            if not _close(after, ratio * before):
                return None
            ratios.append(ratio)
        return ratios[0] if max(ratios) - min(ratios) < _SAME else None

    def adds(self, names: Sequence[str]) -> bool:
        """Whether the location is linear in these parameters, the others held."""
        for first, second in zip(self._draws[:_DRAWS], self._draws[_DRAWS:], strict=True):
            other = {**first, **{name: second[name] for name in names}}
            both = {**first, **{name: first[name] + second[name] for name in names}}
            if not _close(self.locations(both), self.locations(first) + self.locations(other)):
                return False
        return True

    def smallest(self, wanted: Literal["factor", "null", "linear"]) -> tuple[str, ...] | None:
        """The fewest parameters that can take up a factor, make the expert 0, or in which it is linear."""
        for size in range(1, len(self.names) + 1):
            for names in combinations(self.names, size):
                if wanted == "null" and self.factor(names, 0.0) == 0.0:
                    return names
                if wanted == "linear" and self.adds(names):
                    return names
                if wanted == "factor":
                    twice, half = self.factor(names, 2.0), self.factor(names, 0.5)
                    if twice is not None and half is not None and twice > 1.0 and abs(twice * half - 1.0) < _SAME:
                        return names
        return None


def _close(first: Tensor, second: Tensor) -> bool:
    size = float(torch.maximum(first.abs().amax(), second.abs().amax()))
    return bool((first - second).abs().amax() <= _SAME * max(size, 1e-30)) or size < 1e-12


def _unnormalised(gate: Gate, bank: _Bank) -> Iterator[GlobalCopy]:
    null = bank.smallest("null")
    if null is not None:
        yield GlobalCopy(
            "null expert",
            f"an expert whose {_listed(null)} {'is' if len(null) == 1 else 'are'} 0 is 0, and adds nothing behind any "
            "gate: the truth with such an expert is the truth. Its other parameters are not identified, and a fit with "
            "one expert too many is not misspecified",
            "any",
            1,
        )
    if not _complements(gate):
        return
    scaled = bank.smallest("factor")
    if scaled is not None:
        takes = f"an expert takes up a factor in its {_listed(scaled)}"
        yield GlobalCopy(
            "complement",
            f"w(z) h′ + w(−z) h′ = h′ for any z, with h′ = w(c) h, since w(z) + w(−z) = 1 and {takes}. Neither the "
            "gate vectors of the two nor their experts are identified",
            "constant gate",
            1,
        )
        sign = bank.factor(scaled, -1.0)
        if sign is not None and abs(sign + 1.0) < _SAME:
            yield GlobalCopy(
                "complement",
                f"w(z) h = w(−z)(−h) + w(c) h/w(c) for any c, since w(z) + w(−z) = 1 and {takes}, a negative one too. "
                "A fit with one expert too many is not misspecified",
                "any",
                1,
            )
        if bank.adds(bank.names):
            yield GlobalCopy(
                "exchange",
                "w(z)h₂ + w(c)h₁ = w(z)(h₂ + w(c)h₁) + w(−z)·w(c)h₁, since w(z) + w(−z) = 1 and sums of experts are "
                "experts. Neither the experts nor the constant gate are identified",
                "constant gate",
                0,
            )
    if _is_a_weight(gate, bank):
        yield GlobalCopy(
            "constant expert",
            "an expert is itself a weight but for a factor and a constant, as tanh z = 1 − 2σ(−2z): "
            "½T tanh(z) + σ(−2z) T does not depend on x, for any z. Neither the gate vectors of the two nor their "
            "slopes are identified",
            "constant gate and expert",
            1,
        )


def _normalised(bank: _Bank) -> Iterator[GlobalCopy]:
    linear = bank.smallest("linear")
    rest = [] if linear is None else [name for name in bank.names if name not in linear]
    if linear is not None and rest:
        yield GlobalCopy(
            "null output",
            f"two atoms with one gate vector count by the sum of weight times {_listed(linear)}: one of them may have "
            f"0 there, and then any {_listed(rest)}",
            "any",
            1,
        )


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def _complements(gate: Gate) -> bool:
    """Whether the weights at parameters and at their negatives add up to 1."""
    module = copy.deepcopy(gate).double()
    x = _inputs(gate.n_features)
    generator = torch.Generator().manual_seed(2)
    for _ in range(_DRAWS):
        draw = {
            name: torch.randn(value.shape, generator=generator, dtype=torch.float64)
            for name, value in module.own_parameters().items()
        }
        with torch.no_grad():
            both = [
                functional_call(module, {name: sign * value for name, value in draw.items()}, (x,)).exp()
                for sign in (1.0, -1.0)
            ]
        if not _close(both[0] + both[1], torch.ones_like(both[0])):
            return False
    return True


def _is_a_weight(gate: Gate, bank: _Bank) -> bool:
    """Whether (1 + h)/2 or h is a weight σ(z) with z affine in x, as those of the gate are."""
    module = copy.deepcopy(gate).double()
    x = _inputs(gate.n_features)
    with torch.no_grad():
        if not _affine_logit(x, module(x).exp()[:, 0]):
            return False
    return any(
        all(_affine_logit(x, shift + scale * h) for x, h in bank.units()) for shift, scale in ((0.5, 0.5), (0.0, 1.0))
    )


def _affine_logit(x: Tensor, weight: Tensor) -> bool:
    if not bool(((weight > 0.0) & (weight < 1.0)).all()):
        return False
    logit = torch.logit(weight)
    design = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    return _close(design @ torch.linalg.lstsq(design, logit[:, None]).solution[:, 0], logit)
