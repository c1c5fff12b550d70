"""What an entry of a part's parameters is called, by the expert and the feature that it belongs to."""

from collections.abc import Sequence

from gatewise.parts.component import Component

__all__ = ["named_entry"]


def named_entry(
    owner: str, part: Component, name: str, shape: tuple[int, ...], index: tuple[int, ...], features: Sequence[str]
) -> tuple[str, str]:
    """Component and term of one number of a part, as ("gate 1", "inner.weight[age]").

    Args:
        owner: "gate" or "expert".
        part: whose parameter it is.
        name: the parameter's.
        shape: its shape.
        index: which entry.
        features: the names of the part's inputs.

    Example:
        >>> from gatewise.gates import SoftmaxGate
        >>> named_entry("gate", SoftmaxGate(2, 3), "weight", (3, 2), (0, 1), ["age", "sex=male"])
        ('gate 1', 'weight[sex=male]')
    """
    inner, _, leaf = name.rpartition(".")
    is_own = name in part.per_expert or leaf in getattr(part.get_submodule(inner), "per_expert", ())
    is_own = is_own and shape[:1] == (part.n_experts,)
    rest = index[1:] if is_own else index
    is_feature = len(rest) == 1 and shape[-1] == len(features)
    listed = features[rest[0]] if is_feature else ", ".join(map(str, rest))
    return f"{owner} {index[0] + 1}" if is_own else owner, f"{name}[{listed}]" if listed else name
