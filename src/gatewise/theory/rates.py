"""Questions to the table of proved rates: which theorems apply, how many samples an error needs, and what helps."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.theory.rate_table import Rate, Remedy, Role, Theorem, r_bar_value, rate_table

__all__ = ["Comparison", "ProvedRates", "RateRow", "proved_rates"]

Objective = Literal["likelihood", "least_squares"]


@dataclass(frozen=True)
class RateRow:
    """How fast one parameter is learned, by one theorem.

    Attributes:
        theorem: the theorem.
        rate: parameter, cell and exponent as the theorem has them.
        atoms: the most fitted atoms that one cell can hold, if the numbers of experts were given and cells matter.
    """

    theorem: Theorem
    rate: Rate
    atoms: int | None

    @property
    def exponent(self) -> float | None:
        """α of the rate n^(-1/(2α)): infinite if slow or flat, None if it depends on an unknown number of atoms."""
        return _exponent(self.rate.exponent, self.atoms)

    @property
    def tight_exponent(self) -> float | None:
        """The best exponent that is known: one that was derived or measured here, or else the stated one."""
        return _exponent(self.rate.tight or self.rate.exponent, self.atoms)

    @property
    def cell(self) -> str:
        """The cells it is about, in words."""
        if self.rate.cell == "one":
            return "one atom"
        if self.rate.cell == "every":
            return "any"
        return f"{self.atoms} atoms" if self.atoms is not None else "m > 1 atoms"

    @property
    def text(self) -> str:
        """The stated rate as text, logarithms left out."""
        return _rate_text(self.rate.exponent, self.atoms)

    @property
    def tight_text(self) -> str:
        """What is known better, and how; empty if nothing is."""
        text = _rate_text(self.rate.tight or self.rate.exponent, self.atoms)
        return "" if text == self.text else f"{text} ({self.rate.tight_by})"


@dataclass(frozen=True)
class Comparison:
    """How many samples two models need for one error of one kind of parameter, constants and logarithms left out.

    Attributes:
        role: what the parameter does.
        this: theorem of the model asked about.
        other: theorem of the model it is compared with.
        samples: ε^(-2α) with the best exponents that are known, infinite if there is no polynomial rate.
        other_samples: the same for the other model.
        bound: the same by the published bound, for this model.
        other_bound: and for the other one.
    """

    role: Role
    this: Theorem
    other: Theorem
    samples: float
    other_samples: float
    bound: float
    other_bound: float

    @property
    def ratio(self) -> float | None:
        """Samples of this model for one of the other's; None if neither has a polynomial rate."""
        if math.isinf(self.samples) and math.isinf(self.other_samples):
            return None
        return self.samples / self.other_samples


@dataclass(frozen=True)
class ProvedRates:
    """What is proved about one kind of model.

    Attributes:
        gate: the gate's registered name.
        experts: the experts' registered name.
        family: the family's registered name, None for least squares.
        objective: "likelihood" or "least_squares".
        true_k: true number of experts, if given.
        fit_k: fitted number of experts, if given.
        theorems: the theorems that apply, those without exponents among them.
        rows: their rates, parameter by parameter.
        remedies: what helps where a rate is slow.
        message: what is not proved, or empty.
    """

    gate: str
    experts: str
    family: str | None
    objective: Objective
    true_k: int | None
    fit_k: int | None
    theorems: tuple[Theorem, ...]
    rows: tuple[RateRow, ...]
    remedies: tuple[Remedy, ...]
    message: str

    @property
    def setting(self) -> str | None:
        """The word "exact" or "over", or None if the numbers of experts were not given."""
        if self.true_k is None or self.fit_k is None:
            return None
        return "exact" if self.true_k == self.fit_k else "over"

    def worst(self, theorem: Theorem, *, tight: bool = False) -> dict[Role, float]:
        """The largest exponent of a theorem for each kind of parameter; kinds with an unknown one are left out.

        Args:
            theorem: one of `theorems`.
            tight: whether to take the best exponents that are known instead of the stated ones.

        Example:
            >>> rates = proved_rates(gate="softmax", experts="linear", family="gaussian", true_k=2, fit_k=3)
            >>> theorem = next(t for t in rates.theorems if t.loss == "D2")
            >>> rates.worst(theorem)
            {'weights': 1.0, 'gate': 4.0, 'slope': 2.0, 'intercept': 4.0, 'scale': 2.0}
            >>> rates.worst(theorem, tight=True)["gate"]
            2.0
        """
        found: dict[Role, float] = {}
        unknown: set[Role] = set()
        for row in self.rows:
            if row.theorem.id == theorem.id:
                exponent = row.tight_exponent if tight else row.exponent
                if exponent is None:
                    unknown.add(row.rate.role)
                else:
                    found[row.rate.role] = max(found.get(row.rate.role, 0.0), exponent)
        return {role: value for role, value in found.items() if role not in unknown}

    def sample_sizes(self, error: float, *, tight: bool = False) -> tuple[tuple[RateRow, float], ...]:
        """Samples for an error ε, n = ε^(-2α), for each row with a known exponent; infinite if there is no rate.

        They are orders of magnitude: no theorem gives its constant, and logarithms are left out.

        Args:
            error: ε, between 0 and 1.
            tight: whether to take the best exponents that are known instead of the stated ones.

        Raises:
            InputError: the error is not between 0 and 1.

        Example:
            >>> rates = proved_rates(gate="laplace", experts="linear", family="gaussian", true_k=2, fit_k=2)
            >>> {row.rate.parameter: round(n) for row, n in rates.sample_sizes(0.1)}["W"]
            100
        """
        _require_error(error)
        found = [(row, row.tight_exponent if tight else row.exponent) for row in self.rows]
        return tuple((row, _samples(error, exponent)) for row, exponent in found if exponent is not None)

    def compare(self, other: "ProvedRates", error: float) -> tuple[Comparison, ...]:
        """Samples for an error ε beside those of another model, theorem by theorem and kind of parameter.

        The best exponents that are known count, and the published bounds stand beside them. Rates of functions are left
        out: they are the same. Slope and intercept together stand beside "expert".

        Args:
            other: what is proved about the other model.
            error: ε, between 0 and 1.

        Raises:
            InputError: the error is not between 0 and 1.

        Example:
            >>> softmax, laplace = (
            ...     proved_rates(gate=gate, experts="linear", family="gaussian", true_k=2, fit_k=4)
            ...     for gate in ("softmax", "laplace")
            ... )
            >>> for comparison in softmax.compare(laplace, 0.1):
            ...     if comparison.this.loss == "D2":
            ...         print(comparison.role, f"{comparison.ratio:.0e}")
            weights 1e+00
            gate 1e+00
            slope 1e+00
            intercept 1e+00
            scale 1e+00
        """
        _require_error(error)
        return tuple(
            Comparison(role, this, that, *(_samples(error, each) for each in (mine, theirs, *bounds[role])))
            for this, that in itertools.product(self.theorems, other.theorems)
            if this.estimator == that.estimator
            for bounds in [{role: pair for role, *pair in _side_by_side(self.worst(this), other.worst(that))}]
            for role, mine, theirs in _side_by_side(self.worst(this, tight=True), other.worst(that, tight=True))
            if role in bounds
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON has it; an exponent without bound is the text "slow" or "flat"."""
        table = rate_table()
        return {
            "gate": self.gate,
            "experts": self.experts,
            "family": self.family,
            "objective": self.objective,
            "true_k": self.true_k,
            "fit_k": self.fit_k,
            "setting": self.setting,
            "message": self.message,
            "theorems": [
                {
                    **theorem.model_dump(exclude={"rates", "remedies"}),
                    "paper": table.cite(theorem.paper),
                    "also": [table.cite(paper) for paper in theorem.also],
                    "checked": theorem.checked,
                    "rates": [
                        {
                            "parameter": row.rate.parameter,
                            "role": row.rate.role,
                            "cell": row.rate.cell,
                            "atoms": row.atoms,
                            "stated_exponent": row.rate.exponent,
                            "exponent": _finite(row.exponent),
                            "rate": row.text,
                            "tight_exponent": _finite(row.tight_exponent),
                            "tight_by": row.rate.tight_by,
                        }
                        for row in self.rows
                        if row.theorem.id == theorem.id
                    ],
                }
                for theorem in self.theorems
            ],
            "remedies": [{**remedy.model_dump(), "source": table.cite(remedy.source)} for remedy in self.remedies],
        }


def proved_rates(
    *,
    gate: str,
    experts: str,
    family: str | None = None,
    objective: str | None = None,
    true_k: int | None = None,
    fit_k: int | None = None,
    gate_options: Mapping[str, Any] | None = None,
) -> ProvedRates:
    """The theorems on how fast the parameters of a kind of model are learned.

    A rate n^(-1/(2α)) is that of the error of the maximum-likelihood or least-squares estimate at one fixed truth,
    logarithms left out. Fitting as many experts as there are is exact-specified; more is over-specified, and then
    several fitted atoms may share the Voronoi cell of a true one, at most fit_k − true_k + 1 of them.

    Args:
        gate: a registered gate.
        experts: a registered kind of experts.
        family: a registered family; None with least squares.
        objective: "likelihood" or "least_squares"; None for the likelihood if there is a family.
        true_k: true number of experts; without the two numbers every setting is shown.
        fit_k: fitted number of experts, at least `true_k`.
        gate_options: options of the gate; theorems for other values are left out. An option that is not given matches
            all its values.

    Raises:
        InputError: a name is unknown, a family comes with least squares or is missing without it, or the numbers do not
            fit.

    Source:
        The papers in the table; how each row was read, and what came out when it was checked, stands in `checked`.

    Example:
        >>> rates = proved_rates(gate="softmax", experts="linear", family="gaussian", true_k=2, fit_k=3)
        >>> for row in rates.rows:
        ...     if row.rate.cell == "many":
        ...         print(row.theorem.statement, row.rate.parameter, row.text)
        Theorem 2 β₁ n^(-1/8)
        Theorem 2 a n^(-1/4)
        Theorem 2 b n^(-1/8)
        Theorem 2 σ² n^(-1/4)
    """
    if objective is None:
        objective = "least_squares" if family is None else "likelihood"
    _require_known(gate, experts, family, objective)
    atoms, setting = _numbers(true_k, fit_k)
    options = dict(gate_options or {})
    found = tuple(
        theorem
        for theorem in rate_table().theorems
        if _gate_fits(theorem, gate, options)
        and _experts_fit(theorem, experts)
        and theorem.objective in ("any", objective)
        and (family is None or not theorem.families or family in theorem.families)
        and (setting is None or setting in theorem.settings)
    )
    rows = tuple(
        RateRow(theorem, rate, atoms if rate.cell == "many" else None)
        for theorem in found
        for rate in theorem.rates
        if not (setting == "exact" and rate.cell == "many")
    )
    remedies = dict.fromkeys(itertools.chain.from_iterable(theorem.remedies for theorem in found))
    return ProvedRates(
        gate=gate,
        experts=experts,
        family=family,
        objective="likelihood" if objective == "likelihood" else "least_squares",
        true_k=true_k,
        fit_k=fit_k,
        theorems=found,
        rows=rows,
        remedies=tuple(rate_table().remedies[key] for key in remedies),
        message="" if rows else _nothing(gate, experts, family, objective, setting, bool(found)),
    )


def _require_known(gate: str, experts: str, family: str | None, objective: str) -> None:
    _require_registered("gate", gate)
    _require_registered("expert", experts)
    if objective not in ("likelihood", "least_squares"):
        raise InputError(f'the objective must be "likelihood" or "least_squares", not {shown(objective)}')
    if objective == "least_squares":
        if family is not None:
            raise InputError(
                f"least squares has no family, but {shown(family)} was given: leave it out, or choose the likelihood"
            )
    elif family is None:
        raise InputError("the likelihood needs a family: give one, for instance gaussian, or choose least squares")
    else:
        _require_registered("family", family)


def _require_registered(kind: str, name: str) -> None:
    """Refuse a name that is in no registry, which is only loaded for a name that the table does not have."""
    table = rate_table()
    known = {
        "gate": {own for theorem in table.theorems for own in theorem.gates},
        "expert": {own for theorem in table.theorems for own in theorem.experts if own != "any"},
        "family": {own for theorem in table.theorems for own in theorem.families},
    }
    if name in known[kind]:
        return
    from gatewise.experts import EXPERTS
    from gatewise.families import FAMILIES
    from gatewise.gates import GATES

    _ = {"gate": GATES, "expert": EXPERTS, "family": FAMILIES}[kind][name]


def _numbers(true_k: int | None, fit_k: int | None) -> tuple[int | None, str | None]:
    """The most atoms that one cell can hold, and the setting, if the numbers of experts are given."""
    if true_k is None and fit_k is None:
        return None, None
    if true_k is None or fit_k is None:
        raise InputError("the true and the fitted number of experts go together: give both or neither")
    for name, value in (("true", true_k), ("fitted", fit_k)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"the {name} number of experts must be a positive integer, not {shown(value)}")
    if fit_k < true_k:
        raise InputError(
            f"{fit_k} fitted experts cannot represent {true_k} true ones: the model is misspecified and no theorem "
            f"here applies; fit at least {true_k}"
        )
    return fit_k - true_k + 1, "exact" if fit_k == true_k else "over"


def _gate_fits(theorem: Theorem, gate: str, options: Mapping[str, Any]) -> bool:
    if theorem.top_k and gate == "top_k":
        return "inner" not in options or options["inner"] in theorem.gates
    return gate in theorem.gates and all(
        options.get(name, wanted) == wanted for name, wanted in theorem.gate_options.items()
    )


def _experts_fit(theorem: Theorem, experts: str) -> bool:
    return "any" in theorem.experts or experts in theorem.experts


def _nothing(gate: str, experts: str, family: str | None, objective: str, setting: str | None, claims: bool) -> str:
    """What to say if no rate is known: so, and for what else of the same gate something is."""
    model = f"a {gate} gate with {experts} experts"
    model += ", least squares" if family is None else f" and the {family} family"
    if setting is not None:
        model += ", exact-specified" if setting == "exact" else ", over-specified"
    if claims:
        return f"No exponents are known to this table for {model}: only the statements above."
    near = []
    for theorem in rate_table().theorems:
        if theorem.rates and gate in theorem.gates:
            where = theorem.objective.replace("_", " ") if not theorem.families else "/".join(theorem.families)
            near += [f"{name} experts, {where}" for name in theorem.experts]
    known = "; ".join(dict.fromkeys(near))
    rest = f" For this gate it has {known}." if near else " It has nothing on this gate."
    return f"Nothing is proved, as far as this table knows, for {model}.{rest}"


def _side_by_side(mine: Mapping[Role, float], theirs: Mapping[Role, float]) -> Iterator[tuple[Role, float, float]]:
    whole: tuple[Role, ...] = ("slope", "intercept")
    first, second = dict(mine), dict(theirs)
    for one, two in ((first, second), (second, first)):
        if "expert" in one and "expert" not in two and any(role in two for role in whole):
            two["expert"] = max(two[role] for role in whole if role in two)
    for role in first:
        if role in second and role != "function":
            yield role, first[role], second[role]


def _exponent(stated: str, atoms: int | None) -> float | None:
    if stated in ("slow", "flat"):
        return math.inf
    if stated in ("1", "2"):
        return float(stated)
    if atoms is None:
        return None
    value = float(r_bar_value(atoms))
    return value if stated == "r_bar" else value / 2.0


def _rate_text(stated: str, atoms: int | None) -> str:
    if stated == "slow":
        return "slower than any n^(-1/(2r)), perhaps 1/log n"
    if stated == "flat":
        return "none: not identified"
    exponent = _exponent(stated, atoms)
    if exponent is None:
        of_two, of_three = (_power(_exponent(stated, m) or math.nan) for m in (2, 3))
        general = "n^(-1/(2 r̄(m)))" if stated == "r_bar" else "n^(-1/r̄(m))"
        return f"{general}: {of_two} for m = 2, {of_three} for m = 3"
    return _power(exponent)


def _power(exponent: float) -> str:
    return f"n^(-1/{2.0 * exponent:g})"


def _samples(error: float, exponent: float | None) -> float:
    return math.inf if exponent is None or math.isinf(exponent) else error ** (-2.0 * exponent)


def _finite(exponent: float | None) -> float | None:
    return None if exponent is None or math.isinf(exponent) else exponent


def _require_error(error: float) -> None:
    if not 0.0 < error < 1.0:
        raise InputError(f"the error must lie between 0 and 1, not {shown(error)}")
