"""The categorical family: multinomial logistic regression as an expert."""

import math
from typing import Any

import torch
from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.families.base import BOUNDARY, FAMILIES, Family
from gatewise.families.elementwise import uniform
from gatewise.families.smooth import log_sigmoid
from gatewise.families.starts import half_row, no_dispersion
from gatewise.families.targets import is_count, refuse, whole_number
from gatewise.parts.formulas import FamilyFormula

# Their parameters are counted before anything is built; this bounds the number itself.
_MOST_CLASSES = 1_000_000_000


@FAMILIES.register
class Categorical(Family):
    """P(Y = j | h) = exp(hⱼ) / (1 + Σ_l exp(hₗ)) for the classes j = 0, …, C − 1, with h of the last class 0.

    A location holds the C − 1 logits against the last class: (…, k, C − 1), but (…, k) if C = 2. With two classes it
    is the logit of class 0 against class 1, so minus the location of `Bernoulli`. Targets are class codes, as whole
    numbers of any type.

    Args:
        n_classes: C, at least 2.

    Raises:
        InputError: C is less than 2 or above 1,000,000,000.

    Example:
        >>> import torch
        >>> family = Categorical(3)
        >>> family.mean(torch.zeros(1, 1, 2), torch.zeros(1, 0))
        tensor([[[0.3333, 0.3333, 0.3333]]])
        >>> family.log_density(torch.tensor([2]), torch.tensor([[[0.0, 1.0]]]), torch.zeros(1, 0))
        tensor([[-1.5514]])
    """

    name = "categorical"
    formula = "softmax(h, 0), C − 1 logits against the last class"
    source = "McCullagh and Nelder (1989), Generalized Linear Models, 2nd ed., ch. 5"
    is_discrete = True

    def __init__(self, n_classes: int) -> None:
        self.n_classes = whole_number("n_classes", n_classes, 2, _MOST_CLASSES, self.name)

    def options(self) -> dict[str, Any]:
        """The number of classes."""
        return {"n_classes": self.n_classes}

    @property
    def n_unordered(self) -> int:
        """C."""
        return self.n_classes

    @property
    def n_outputs(self) -> int:
        """C − 1 logits."""
        return self.n_classes - 1

    def output_names(self, target: str) -> list[str]:
        """The classes but the last one; [""] if there are two."""
        return [""] if self.n_classes == 2 else [f"{target}={j}" for j in range(self.n_outputs)]

    def log_probabilities(self, location: Tensor) -> Tensor:
        """Log probabilities of all classes, (…, k, C)."""
        return torch.log_softmax(self._logits(location), -1)

    def _logits(self, location: Tensor) -> Tensor:
        logits = location.unsqueeze(-1) if self.n_classes == 2 else location
        return torch.cat([logits, torch.zeros_like(logits[..., :1])], -1)

    def check_target(self, y: Tensor) -> None:
        """Refuse targets that are not 0, …, C − 1.

        Raises:
            InputError: there is such a value.
        """
        last = self.n_classes - 1
        refuse(
            ~(is_count(y) & (y <= last)),
            y,
            self.name,
            f"class codes 0, …, {last}",
            f"number the classes from 0 on, or raise n_classes above {self.n_classes}",
        )

    def expression(self) -> FamilyFormula:
        """The probability of the class whose indicator is 1."""
        from fractions import Fraction

        import sympy
        from sympy import Symbol

        from gatewise.families.densities import H

        classes = self.n_classes
        y = tuple(Symbol(f"1[y={c}]", real=True) for c in range(classes))
        location = (H,) if classes == 2 else tuple(Symbol(f"h[{c + 1}]", real=True) for c in range(classes - 1))
        terms = [*(sympy.exp(logit) for logit in location), sympy.Integer(1)]
        total = sympy.Add(*terms)
        density = sympy.Add(*(indicator * term / total for indicator, term in zip(y, terms, strict=True)))

        def indicators(number: int) -> tuple[Fraction, ...]:
            return tuple(Fraction(int(c == number)) for c in range(classes))

        note = "locations are the logits against the last class"
        return FamilyFormula(self.name, y, location, (), density, indicators, classes, note)

    def log_density(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """Log P(Y = y), (…, k); −∞ for codes that are no class.

        It is the logistic function of the logit of y against all other classes together, which is exact in both tails.
        """
        code = y.unsqueeze(-1)
        logits = self._logits(location)
        chosen = code.unsqueeze(-1) == torch.arange(self.n_classes, device=y.device)
        logit = torch.where(chosen, logits, 0.0).sum(-1)
        others = torch.logsumexp(torch.where(chosen, -torch.inf, logits), -1)
        return torch.where(chosen.any(-1), log_sigmoid(logit - others), -torch.inf)

    def mean(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """Probabilities of all classes, (…, k, C), also for C = 2."""
        return torch.exp(self.log_probabilities(location))

    def _others(self, probabilities: Tensor) -> Tensor:
        """1 − p as the sum of the other probabilities, which does not cancel."""
        one = torch.ones(self.n_classes, self.n_classes, dtype=probabilities.dtype, device=probabilities.device)
        return probabilities @ (one - torch.diag(torch.diag(one)))

    def variance(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """p(1 − p) of each class's indicator, (…, k, C)."""
        probabilities = self.mean(location, log_scale)
        return probabilities * self._others(probabilities)

    def sample(self, location: Tensor, log_scale: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Class codes, (…, k), by inversion."""
        cumulative = torch.cumsum(self.mean(location.double(), log_scale), -1)[..., :-1]
        draws = uniform(cumulative.shape[:-1], location, generator).unsqueeze(-1)
        return (cumulative <= draws).sum(-1).to(location.dtype)

    def information(self, location: Tensor, log_scale: Tensor) -> Tensor:
        """diag(p) − ppᵀ over the first C − 1 classes, (…, k, C − 1, C − 1); p(1 − p), (…, k), if C = 2."""
        probabilities = self.mean(location, log_scale)
        diagonal = (probabilities * self._others(probabilities))[..., :-1]
        if self.n_classes == 2:
            return diagonal.squeeze(-1)
        first = probabilities[..., :-1]
        product = first.unsqueeze(-1) * first.unsqueeze(-2)
        return torch.diag_embed(diagonal + first * first) - product

    def closed_derivatives(
        self, y: Tensor, location: Tensor, log_scale: Tensor, with_second: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Derivatives 1[y = j] − pⱼ and pⱼpₗ − 1[j = l] pⱼ by h."""
        # Only fits need it, and a model without numba starts faster.
        from gatewise.kernels.density_pass import categorical_derivatives

        logits = (location.unsqueeze(-1) if self.n_classes == 2 else location).detach()
        value, first, second = categorical_derivatives(y.numpy(), logits.numpy(), with_second)
        return (
            torch.from_numpy(value),
            torch.from_numpy(first),
            None if second is None else torch.from_numpy(second),
        )

    def at_boundary(self, location: Tensor) -> Tensor:
        """Whether the probability of some class is below 1e-8, (…, k)."""
        return self.log_probabilities(location).amin(-1) < math.log(BOUNDARY)

    def moment_start(self, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the weighted shares, each with half a row more, () or (C − 1,)."""
        codes = torch.arange(self.n_classes, device=y.device)
        share = (weight / weight.sum()) @ (y.unsqueeze(-1) == codes).to(weight.dtype) + half_row(weight)
        logits = torch.log(share[:-1]) - torch.log(share[-1])
        return (logits[0] if self.n_classes == 2 else logits), no_dispersion(weight)

    def distribution_function(self, y: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
        """Classes have no order.

        Raises:
            InputError: always.
        """
        raise InputError(f"the {self.name} family has no distribution function: its classes are not ordered")
