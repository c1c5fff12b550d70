"""The one expert of the papers that is not built in, as a formula."""

from gatewise.exceptions import InputError
from gatewise.experts.locations import affine, input_free, kink
from gatewise.messages import shown
from gatewise.parts.expressions import ACTIVATIONS, inputs, vector
from gatewise.parts.formulas import Formula, TheoryParameter

__all__ = ["ridge"]


def ridge(n_features: int, activation: str = "tanh") -> Formula:
    """φ(aᵀx + b), one unit without output weight: the example that the papers give for their conditions.

    Args:
        n_features: d, at least 1.
        activation: φ, one of `gatewise.parts.activations`' own names.

    Raises:
        InputError: there is no such activation, or no feature.

    Example:
        >>> ridge(1, "cube").values[0]
        (a*x[1] + b)**3
    """
    function = ACTIVATIONS.get(activation) if isinstance(activation, str) else None
    if function is None:
        known = ", ".join(sorted(ACTIVATIONS))
        raise InputError(f"there is no formula for the activation {shown(activation)}: choose one of {known}")
    if n_features < 1:
        raise InputError("a ridge expert needs a feature: take constant experts without")
    x, weight, bias = inputs(n_features), vector("a", n_features), TheoryParameter("b")
    value = function(affine(weight, bias, x))
    return Formula(f"ridge {activation}", x, (*weight, bias), (value,), input_free(weight), note=kink(activation))
