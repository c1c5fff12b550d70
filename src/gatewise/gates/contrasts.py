"""Contrasts against the last expert, which is all that a softmax sees of what stands in every logit."""

from collections.abc import Sequence

from torch import Tensor

from gatewise.parts.parameters import Parameters, Quantity, Symmetry

__all__ = ["contrast_quantities", "contrasts", "translation"]


def contrasts(values: Tensor) -> Tensor:
    """(k, …) ↦ the differences of rows 1 … k − 1 from row k, flattened."""
    return (values[:-1] - values[-1:]).reshape(-1)


def contrast_quantities(n_experts: int, terms: Sequence[str]) -> list[Quantity]:
    """What the entries of `contrasts` of a (k, number of terms) array are."""
    return [Quantity(f"gate {i} vs {n_experts}", term) for i in range(1, n_experts) for term in terms]


def translation(name: str, dimension: int) -> Symmetry:
    """The same vector added to the parameter `name` (k, …) of every expert, which adds one function to all logits."""

    def act(parameters: Parameters, amount: Tensor) -> Parameters:
        value = parameters[name]
        return {**parameters, name: value + amount.reshape(1, *value.shape[1:]).expand_as(value)}

    what = "one number is" if dimension == 1 else f"one vector of length {dimension} is"
    return Symmetry(
        name="translation",
        sentence=f"{what} added to `{name}` of every expert: all logits rise by the same function, π does not change",
        dimension=dimension,
        act=act,
        pins=name,
        kind="translation",
    )
