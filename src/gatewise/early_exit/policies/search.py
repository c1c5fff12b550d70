"""The λ at which a policy keeps to a budget."""

from collections.abc import Callable
from typing import TypeVar

from gatewise.early_exit.policies.base import Aim, Policy, Situation
from gatewise.exceptions import InputError

__all__ = ["for_aim"]

P = TypeVar("P", bound=Policy)

_LOWEST, _HIGHEST = 1e-4, 100.0
_STEPS = 16


def for_aim(make: Callable[[float], P], situation: Situation, aim: Aim) -> P:
    """The policy for λ itself, or for the λ at which its mean validation cost comes closest to the budget from below.

    Bisection on log λ between 1e-4 and 100. A policy's cost need not fall with λ everywhere, so of all that were made
    the most exact one within the budget is taken.

    Args:
        make: the policy for a λ.
        situation: validation data and costs.
        aim: a λ or a budget.

    Raises:
        InputError: the aim is a setting; or even at λ = 100 the policy costs more than the budget.
    """
    lam = aim.lam if aim.lam is not None else aim.setting
    if lam is not None:
        return make(lam)
    share = aim.share(situation.costs)
    if share is None:
        raise InputError("give lam or a budget")
    found: list[tuple[float, float, P]] = []

    def cost_at(value: float) -> float:
        policy = make(value)
        leaves = policy.simulate(situation.outputs, situation.costs).exit_index
        cost = situation.mean_cost(leaves, policy.used)
        found.append((situation.mean_error(leaves), cost, policy))
        return cost

    low, high = _LOWEST, _HIGHEST
    cheapest = cost_at(high)
    if cheapest > share:
        raise InputError(
            f"the {found[0][2].name} policy costs at least {cheapest:.3g} of the network, and the budget is "
            f"{share:.3g}: give more"
        )
    if cost_at(low) > share:
        for _ in range(_STEPS):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if cost_at(middle) > share else (low, middle)
    return min((entry for entry in found if entry[1] <= share), key=lambda entry: entry[:2])[2]
