"""What gates that are made of other gates share: building a part, and the symmetries of a part."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from gatewise.exceptions import InputError
from gatewise.gates.base import GATES, Gate
from gatewise.messages import shown
from gatewise.parts.parameters import Parameters, Symmetry, prefixed, within

__all__ = ["build_part", "part_symmetry"]


def build_part(role: str, name: str, n_features: int, n_experts: int, options: Any) -> Gate:
    """The gate of that name and these sizes, from options that are plain data.

    Raises:
        InputError: the name or an option is unknown, or the options are no table; the message names the role.
    """
    options = {} if options is None else options
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise InputError(f"the options of the {role} must be a table from names to values, not {shown(options)}")
    own = {"n_features", "n_experts"} & set(options)
    if own:
        raise InputError(
            f"the options of the {role} may not hold {', '.join(sorted(own))}: the whole gate's sizes say it"
        )
    return GATES[name].of(n_features, n_experts, **options)


def part_symmetry(prefix: str, role: str, symmetry: Symmetry) -> Symmetry:
    """A part's symmetry, acting on the parameters of the whole, where the part's names stand under `prefix`."""

    def act(parameters: Parameters, amount: Tensor) -> Parameters:
        return {**parameters, **prefixed(prefix, symmetry.act(within(prefix, parameters), amount))}

    return replace(
        symmetry,
        sentence=f"{role}: {symmetry.sentence}",
        act=act,
        pins=None if symmetry.pins is None else f"{prefix}.{symmetry.pins}",
        settles=None if symmetry.settles is None else _on_part(prefix, symmetry.settles),
    )


def _on_part(prefix: str, function: Callable[[Parameters], Tensor]) -> Callable[[Parameters], Tensor]:
    """A function of the part's parameters as one of the whole's."""

    def of_whole(parameters: Parameters) -> Tensor:
        return function(within(prefix, parameters))

    return of_whole
