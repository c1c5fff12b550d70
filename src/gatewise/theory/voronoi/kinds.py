"""What a kind of loss is: norms of differences, an exponent for each by the size of the cell, and a weight term."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from gatewise.exceptions import InputError
from gatewise.messages import choose, shown
from gatewise.theory.mixing_measure import MixingMeasure
from gatewise.theory.voronoi.charts import Chart

__all__ = ["KINDS", "Exponents", "Form", "LossKind", "Setting", "loss_kinds", "register"]

Exponents = float | Mapping[int, float] | Callable[[int], float]
"""One exponent, or one for each size of a cell."""


@dataclass(frozen=True)
class Setting:
    """What a kind of loss may look at when it says what its norms are.

    Attributes:
        truth: the true measure.
        chart: its coordinates.
        r: the exponent or exponents that the caller has given, or None.
        tree: the nested measure of which `truth` is a group, or None.
    """

    truth: MixingMeasure
    chart: Chart
    r: Exponents | None
    tree: MixingMeasure | None = None

    @property
    def gate(self) -> tuple[str, ...]:
        """Names of the gate's blocks."""
        return tuple(name for name in self.chart.blocks if name.startswith("gate_"))

    @property
    def expert(self) -> tuple[str, ...]:
        """Names of the other blocks."""
        return tuple(name for name in self.chart.blocks if not name.startswith("gate_"))

    def r_bar(self, size: int) -> float:
        """r̄ of a cell of this size: the caller's, or 2m; see `gatewise.theory.r_bar` for how sure that is."""
        if self.r is None or (isinstance(self.r, Mapping) and size not in self.r):
            return 2.0 * size
        return _exponent(self.r, size)

    def power(self) -> float:
        """The one exponent r ≥ 1 of losses that have one.

        Raises:
            InputError: it is missing, or not one number.
        """
        if self.r is None or isinstance(self.r, Mapping) or callable(self.r):
            raise InputError(f"this loss has an exponent of its own: give one number r ≥ 1, not {shown(self.r)}")
        return _exponent(self.r, 1)


def _exponent(r: Exponents, size: int) -> float:
    value = r[size] if isinstance(r, Mapping) else r(size) if callable(r) else r
    if isinstance(value, bool) or not value >= 1.0 or value == float("inf"):
        raise InputError(f"an exponent must be at least 1 and finite, not {shown(value)}: below 1 a loss is not convex")
    return float(value)


@dataclass(frozen=True)
class Form:
    """The norms of a loss.

    Attributes:
        norms: the blocks in each norm.
        exponents: the exponent of each norm in cell j of m atoms, (j, m) ↦ one number for each norm; 0 to leave it out.
        mass: whether a cell of m atoms has a weight term.
        weighted: whether an atom's parameter terms are multiplied by its weight.
    """

    norms: tuple[tuple[str, ...], ...]
    exponents: Callable[[int, int], tuple[float, ...]]
    mass: Callable[[int], bool] = lambda size: True
    weighted: bool = True


@dataclass(frozen=True)
class LossKind:
    """A loss by name.

    Attributes:
        name: the name in `KINDS`.
        formula: one line, for one cell j of m atoms i; A is the cell's weight term |Σᵢ wᵢ − w*ⱼ|.
        source: paper and equation.
        status: how sure the formula is, in words.
        form: its norms.
        misfit: why a truth is not of the loss's model, or None.
        raw: whether scales of the gate (temperature, length of a cosine gate's β₁) are kept as they are.
        dispersions: whether variances and other dispersions count, as in a likelihood.
        by_class: whether the experts' outputs are separate blocks.
        nested: whether it is a loss of hierarchical gates.
        sparse: whether it is a loss of the K largest cells.
        uses_r: what `r` is: "r̄", "r", or "" for nothing.
    """

    name: str
    formula: str
    source: str
    status: str
    form: Callable[[Setting], Form]
    misfit: Callable[[MixingMeasure], str | None]
    raw: bool = False
    dispersions: bool = True
    by_class: bool = False
    nested: bool = False
    sparse: bool = False
    uses_r: str = ""


class _Kinds(Mapping[str, LossKind]):
    """The kinds by name."""

    def __init__(self) -> None:
        self._kinds: dict[str, LossKind] = {}

    def add(self, kind: LossKind) -> None:
        """Enter a kind, once.

        Raises:
            InputError: the name is taken.
        """
        if kind.name in self._kinds:
            raise InputError(f"the loss {kind.name!r} is registered already: choose another name")
        self._kinds[kind.name] = kind

    def __getitem__(self, name: str) -> LossKind:
        """The kind of that name.

        Raises:
            InputError: there is none; the message lists those that are.
        """
        try:
            return self._kinds[name]
        except (KeyError, TypeError):
            raise InputError(f"unknown loss {shown(name)}: {choose(name, self._kinds)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._kinds

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)


KINDS = _Kinds()


def register(kind: LossKind) -> LossKind:
    """Enter a kind of loss under its name.

    Raises:
        InputError: the name is taken.
    """
    KINDS.add(kind)
    return kind


def loss_kinds(truth: MixingMeasure | None = None) -> dict[str, LossKind]:
    """All kinds of losses by name, or those that fit a truth; a dense truth has no largest cells.

    Example:
        >>> from gatewise.theory import MixingMeasure, loss_kinds
        >>> truth = MixingMeasure([1.0], {"gate_centre": [[0.0]]}, gate="laplace", family=None)
        >>> list(loss_kinds(truth))
        ['D1', 'L1', 'L2r']
    """
    if truth is None:
        return dict(KINDS)
    fitting = {name: kind for name, kind in KINDS.items() if kind.misfit(truth) is None}
    return {name: kind for name, kind in fitting.items() if truth.n_active is not None or not kind.sparse}
