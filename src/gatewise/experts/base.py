"""What a bank of experts is: x ↦ the parameters of k distributions."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.messages import shown
from gatewise.parts.coefficients import from_coefficients
from gatewise.parts.component import Component, of_possible_size, true_or_false
from gatewise.parts.draws import Draws
from gatewise.parts.formulas import Formula
from gatewise.parts.options import SIZES, with_options
from gatewise.parts.parameters import Parameters, Quantity, Symmetry
from gatewise.parts.registry import Registry

__all__ = ["EXPERTS", "Experts", "OutputChange", "build_experts", "expert_quantities", "refuse_shift", "whole_number"]

OutputChange = Literal["affine", "scale", "none"]


class Experts(Component, ABC):
    """A bank of k experts turns inputs (…, d) into locations, (…, k) or (…, k, m), and owns the dispersions.

    The location is what the family calls so: a mean, a logit, a logarithm of a mean. With `n_outputs` m > 1 it has one
    more axis. A subclass defines `location` and describes its own parameters without `log_scale`; this class adds it.

    Args:
        n_features: d, the length of an input.
        n_experts: k.
        shared_scale: whether one dispersion serves all experts.
        n_outputs: m, the numbers that the family needs at an input, from `Family.n_outputs`.
        n_dispersion: s, the family's dispersion parameters of one expert, from `Family.n_dispersion`.

    Attributes:
        output_change: "affine" if shift + scale · location is a location of such experts too, "scale" if scale ·
            location is for every positive scale, "none" otherwise. `change_output` does it. It may depend on options.
        log_scale: log σ (k,), or with s ≠ 1 the family's unconstrained dispersions (k, s); one row if shared.
    """

    output_change: OutputChange = "none"

    def __init__(
        self, n_features: int, n_experts: int, shared_scale: bool = False, *, n_outputs: int = 1, n_dispersion: int = 1
    ) -> None:
        super().__init__(n_features, n_experts)
        if n_outputs < 1 or n_dispersion < 0:
            raise InputError(
                f"n_outputs must be at least 1 and n_dispersion at least 0, not {n_outputs}, {n_dispersion}"
            )
        self.shared_scale = true_or_false("shared_scale", shared_scale)
        self.n_outputs = n_outputs
        self.n_dispersion = n_dispersion
        rows = 1 if shared_scale else n_experts
        self.log_scale = nn.Parameter(torch.zeros(rows) if n_dispersion == 1 else torch.zeros(rows, n_dispersion))

    @property
    def title(self) -> str:
        """What they are called in results of the theory."""
        return self.name

    @property
    def known_as(self) -> str:
        """The name under which statements in the literature are about them."""
        return self.name

    @abstractmethod
    def location(self, x: Tensor) -> Tensor:
        """Locations h(x, ηᵢ), (…, d) ↦ (…, k), or (…, k, m) with m > 1 outputs."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Locations at x (…, d), and log-scales (k,), or dispersions (k, s) with s ≠ 1."""
        return self.location(x), self.log_scale.expand(self.n_experts, *self.log_scale.shape[1:])

    @abstractmethod
    def atoms(self) -> dict[str, Tensor]:
        """The experts' part of the mixing measure without dispersions, one leading axis of length k per entry."""

    def expression(self) -> Formula | None:
        """The locations of one expert as a formula for the theory, or None.

        Without one derivatives are taken by torch, with 15 digits, and identities are not confirmed by algebra.
        """
        return None

    @abstractmethod
    def symmetries(self) -> tuple[Symmetry, ...]:
        """What leaves all locations unchanged; acts on this bank's own parameters."""

    def start_design(self, x: Tensor) -> Tensor | None:
        """What a start regresses the targets on, a constant first, (n, d) ↦ (n, q); None for no regression.

        By default the `basis`, of which the regression's maximum is the M-step itself.
        """
        return self.basis(x)

    def start(self, x: Tensor, shares: Tensor, coefficients: Tensor | None, draws: Draws) -> Parameters:
        """The parameters, without dispersions, at which a fit to a table begins, given who has how much of each row.

        With a `basis` those with the coefficients of the regressions; without, the present values, with a little
        normal noise where there are several experts to be told apart.

        Args:
            x: the rows' inputs as the experts see them in the fit, in float64 (n, d).
            shares: s, weight times responsibility (n, k).
            coefficients: for each expert B of argmax_B Σ_r s_r log f(y_r | φ(x_r)ᵀB), by iteratively reweighted least
                squares (McCullagh and Nelder 1989, §2.5), on φ = `start_design`, (k, q) or (k, m, q); or None.
            draws: random numbers, keyed by the start, that follow columns and rows wherever they stand.

        Returns:
            All parameters but `log_scale`, by name.

        Example:
            >>> import numpy as np
            >>> from gatewise.experts import LinearExperts
            >>> from gatewise.parts.draws import Draws
            >>> draws = Draws(np.random.default_rng(0), np.arange(1), np.arange(1), np.ones(1))
            >>> x, shares = torch.zeros(1, 1).double(), torch.full((1, 2), 0.5).double()
            >>> lines = torch.tensor([[1.0, 2.0], [0.0, -1.0]]).double()
            >>> LinearExperts(1, 2).double().start(x, shares, lines, draws)["weight"].flatten()
            tensor([ 2., -1.], dtype=torch.float64)
        """
        if coefficients is not None and self.basis(x[:1]) is not None:
            return from_coefficients(self, coefficients)
        own = {name: value for name, value in self.own_parameters().items() if name != "log_scale"}
        return own if self.n_experts == 1 else draws.around(self, own)

    def permute(self, parameters: Parameters, order: Sequence[int]) -> Parameters:
        """Parameters whose expert i is the old expert order[i], its dispersion with it."""
        moved = super().permute(parameters, order)
        if "log_scale" in moved and not self.shared_scale:
            moved["log_scale"] = moved["log_scale"][list(order)]
        return moved

    @abstractmethod
    def identified(self, parameters: Parameters) -> Tensor:
        """The functions of the parameters, without dispersions, that the locations determine, (q,)."""

    @abstractmethod
    def quantities(self, features: Sequence[str], outputs: Sequence[str] = ("",)) -> list[Quantity]:
        """What the entries of `identified` are, (q,), given the names of the d inputs and of the m outputs."""

    def change_output(self, parameters: Parameters, shift: Tensor, scale: Tensor) -> Parameters:
        """Parameters whose locations are shift + scale · location; both are (m,), scale > 0.

        Raises:
            InputError: such experts cannot do that.
        """
        raise InputError(f"the outputs of {self.name!r} cannot be changed so")

    def sizes(self) -> dict[str, Any]:
        """The sizes beyond d and k: `shared_scale`, `n_outputs` and `n_dispersion`."""
        return {"shared_scale": self.shared_scale, "n_outputs": self.n_outputs, "n_dispersion": self.n_dispersion}

    def extra_repr(self) -> str:
        """The sizes and options, for printing."""
        plain = {"shared_scale": False, "n_outputs": 1, "n_dispersion": 1}
        shown = {name: value for name, value in self.sizes().items() if value != plain[name]}
        return ", ".join([super().extra_repr(), *(f"{name}={value!r}" for name, value in shown.items())])


EXPERTS: Registry[type[Experts]] = Registry("expert")


def build_experts(name: str, n_features: int, n_experts: int, **options: Any) -> Experts:
    """A bank of experts by its registered name, with sizes and options that are plain data.

    Raises:
        InputError: the name or an option is unknown.
    """
    cls = EXPERTS[name]
    sizes = {name: value for name, value in options.items() if name in SIZES}
    own = {name: value for name, value in options.items() if name not in SIZES}
    return with_options(
        "expert", cls, own, lambda given: of_possible_size(lambda: cls.of(n_features, n_experts, **sizes, **given))
    )


def expert_quantities(n_experts: int, outputs: Sequence[str], terms: Sequence[str]) -> list[Quantity]:
    """Names for a (k, m, number of terms) array, flattened: an output's name stands before its terms."""
    return [
        Quantity(f"expert {i}", f"{output} {term}".strip())
        for i in range(1, n_experts + 1)
        for output in outputs
        for term in terms
    ]


def whole_number(what: str, value: Any, least: int, most: int) -> int:
    """The option `value` if it is a whole number between `least` and `most`.

    Raises:
        InputError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InputError(f"{what} must be a whole number between {least} and {most:,}, not {shown(value)}")
    return value


def refuse_shift(name: str, shift: Tensor) -> None:
    """Refuse to move the locations of experts that can only be scaled.

    Raises:
        InputError: the shift is not 0.
    """
    if bool((shift != 0.0).any()):
        raise InputError(
            f"the locations of {shown(name)} experts can be scaled but not shifted, and the shift is {shift.tolist()}: "
            f"leave the target's origin where it is"
        )
