"""What a family is: f(y | location, dispersion), without any state of its own."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.parts.formulas import FamilyFormula
from gatewise.parts.options import part_options, with_options
from gatewise.parts.registry import Registry
from gatewise.parts.spread import Spread

__all__ = ["BOUNDARY", "FAMILIES", "Family", "build_family", "family_takes"]

BOUNDARY = 1e-8
"""How near to an edge a mean counts as being at it, see `Family.at_boundary`."""


class Family(ABC):
    """A family scores a target under k distributions: (y, location, log_scale) ↦ log f(y | location, scale).

    `location` has shape (…, k), or (…, k, m) if `n_outputs` m > 1. `log_scale` holds the dispersions on an
    unconstrained scale: (k,) if `n_dispersion` is 1, else (k, s); both belong to the experts. A target has the shape of
    the batch, (…), or (…, e) if `event_size` e is not 0.

    Attributes:
        name: the name in `FAMILIES`.
        formula: the density and the link, in one line.
        source: where it is defined.
        is_discrete: whether targets lie on a grid of counts or classes.
        is_location_scale: whether y ↦ shift + scale · y, scale > 0, column by column, moves the location likewise and
            the dispersions by `rescale_dispersion`, so that fits may standardise the target.
        has_scale: whether exp(log_scale), or of its first entry, is a standard deviation or a scale in the units of y.
        is_smooth: whether the log density has two derivatives by the location everywhere.
        is_log_concave: whether the likelihood of one regression has one maximum.
        is_least_squares: whether a target is a number whose likeliest mean is that of least squares, and the scale its
            standard deviation.
        log_link: whether the location is a logarithm of the mean, so that an offset, log(exposure), may be added to it.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    source: ClassVar[str]
    is_discrete: ClassVar[bool] = False
    is_location_scale: ClassVar[bool] = False
    has_scale: ClassVar[bool] = False
    is_least_squares: ClassVar[bool] = False
    log_link: ClassVar[bool] = False
    is_smooth: ClassVar[bool] = True
    is_log_concave: ClassVar[bool] = True

    @classmethod
    def of(cls, **options: Any) -> Self:
        """A family from options that are plain data.

        Raises:
            InputError: an option is unknown or out of range.
        """
        try:
            return cls(**options)
        except TypeError as error:
            raise InputError(f"the {cls.name} family cannot take {shown(options)}: {error}") from None

    def options(self) -> dict[str, Any]:
        """Plain data from which `of` rebuilds the family."""
        return {}

    @property
    def n_outputs(self) -> int:
        """m, how many numbers a location has."""
        return 1

    @property
    def n_dispersion(self) -> int:
        """s, how many dispersion parameters an expert has."""
        return 0

    @property
    def event_size(self) -> int:
        """The length of a target's own axis; 0 if a target is one number."""
        return 0

    @property
    def n_codes(self) -> int:
        """How many classes the codes 0, 1, … of targets stand for; 0 if targets are numbers of their own."""
        return self.n_unordered or 0

    @property
    def n_unordered(self) -> int | None:
        """C if a target is one of the classes 0, …, C − 1, which have no order; else None."""
        return None

    @property
    def spread(self) -> Spread | None:
        """What makes the density unbounded where it runs to 0, None if the density is bounded whatever happens.

        By default the scale of a family that has one.
        """
        return Spread("log_scale", 1, "σ", "residual standard deviation") if self.has_scale else None

    @abstractmethod
    def check_target(self, y: Tensor) -> None:
        """Refuse targets that have density 0 under every parameter.

        Raises:
            InputError: with the first such row and its value, and what to do.
        """

    @abstractmethod
    def log_density(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """Log density (…, k) of the target under each expert."""

    def expression(self) -> FamilyFormula | None:
        """The density as a formula for the theory, or None.

        Without one derivatives are taken by torch, with 15 digits, and identities are not confirmed by algebra.
        """
        return None

    @abstractmethod
    def mean(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """Mean of each expert, (…, k), or (…, k, e) for vectors as targets, or class probabilities (…, k, C)."""

    @abstractmethod
    def variance(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """Variance of each expert, of the shape of `mean`: of each component alone."""

    @abstractmethod
    def sample(self, location: Tensor, log_scale: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw from each expert, (…, k), or (…, k, e) for targets with an axis."""

    def distribution_function(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """P(Y ≤ y) under each expert, (…, k).

        Raises:
            InputError: targets of this family are not ordered.
        """
        raise InputError(f"the {self.name} family has no distribution function: its targets are not ordered")

    def quantile(self, probability: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """The smallest y with P(Y ≤ y) ≥ probability under each expert, (…, k), at probabilities of shape (…).

        Raises:
            InputError: targets of this family are not ordered.
        """
        raise InputError(f"the {self.name} family has no quantiles: its targets are not ordered")

    @abstractmethod
    def information(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """Expected information of the location, E[−∂² log f / ∂h²]: (…, k), or (…, k, m, m) if m > 1.

        It is the working weight of iteratively reweighted least squares.
        """

    def closed_derivatives(
        self, y: Tensor, location: Tensor, log_scale: Tensor, with_second: bool
    ) -> tuple[Tensor, Tensor, Tensor | None] | None:
        """Log density with its derivatives by each expert's own channels in closed form, or None.

        With None they are found by automatic differentiation. On the CPU in float64, and not differentiable. Of
        families without dispersions only those whose link is canonical have them, so that minus the second derivative
        does not depend on y and is `information` at once.

        Args:
            y: targets (n,).
            location: h (n, k), or (n, k, m) if m > 1.
            log_scale: dispersions, (k,) or (k, s); (k, 0) if there are none.
            with_second: whether second derivatives are wanted.

        Returns:
            Log density (n, k), first (n, k, c) and second derivatives (n, k, c, c) by the c = m + s channels, those of
            the location first, also for c = 1; None for the last if it is not wanted.
        """
        return None

    def information_factor(self, y: Tensor) -> Tensor:
        """How many times `information` a target informs, (…): once, unless targets tell their own numbers of trials."""
        row = y[..., 0] if self.event_size else y
        return torch.ones_like(row, dtype=None if y.is_floating_point() else torch.get_default_dtype())

    def at_boundary(self, location: Tensor) -> Tensor:
        """Whether the mean is numerically at the edge of what the family's means can be, a mask (…, k).

        There a probability is below 1e-8 or above 1 − 1e-8, or the mean of a count is below 1e-8: the likelihood may
        grow as the location goes to infinity (separation). Families whose means have no such edge answer False.
        """
        shape = location.shape if self.n_outputs == 1 else location.shape[:-1]
        return torch.zeros(shape, dtype=torch.bool, device=location.device)

    def rescale_dispersion(self, log_scale: Tensor, scale: Tensor) -> Tensor:
        """The dispersions after y ↦ scale · y, scale > 0 of shape () or (e,), for location-scale families.

        Raises:
            InputError: the family has no scale to change.
        """
        raise InputError(f"the {self.name} family is no location-scale family: its targets cannot be rescaled")

    @abstractmethod
    def moment_start(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Finite constants from which an expert that explains the weighted targets (n,) or (n, e) can start.

        Args:
            y: targets.
            weight: non-negative weights (n,), not all zero.

        Returns:
            A location, () or (m,), and dispersions, () or (s,); (0,) without dispersions.
        """

    def dispersion_terms(self) -> list[tuple[str, bool]]:
        """Name, and whether positive, of each entry of `natural_dispersion`."""
        return []

    def natural_dispersion(self, log_scale: Tensor) -> Tensor:
        """The dispersions as a reader knows them, (k,) ↦ (k, 1) or (k, s) ↦ (k, s): σ from log σ, and so on."""
        return (log_scale.unsqueeze(-1) if self.n_dispersion == 1 else log_scale).exp()

    def is_extreme(self, y: Tensor) -> Tensor:
        """Which targets (n,) are the least or the most that there can be: no finite location makes them likeliest."""
        return torch.zeros(len(y), dtype=torch.bool)

    def output_names(self, target: str) -> list[str]:
        """What the m numbers of a location are about; [""] if there is one."""
        return [""] if self.n_outputs == 1 else [f"{target}[{j}]" for j in range(self.n_outputs)]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.options().items())})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Family) and self.options() == other.options()

    def __hash__(self) -> int:
        return hash(repr(self))


FAMILIES: Registry[type[Family]] = Registry("family")


def family_takes(name: Any, option: str) -> bool:
    """Whether the family of that name has this option, as "trials" or "n_targets", which a table may tell.

    Raises:
        InputError: the name is unknown.

    Example:
        >>> family_takes("binomial", "trials"), family_takes("gaussian", "trials")
        (True, False)
    """
    return option in (part_options(FAMILIES[name]) or {})


def build_family(name: str, **options: Any) -> Family:
    """A family by its registered name, with options that are plain data.

    Raises:
        InputError: the name or an option is unknown.
    """
    cls = FAMILIES[name]
    return with_options("family", cls, options, lambda given: cls.of(**given))
