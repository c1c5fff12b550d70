"""From a fitted sweep to a policy: which heads, which gates, for which aim."""

from typing import TYPE_CHECKING, Any

from gatewise.early_exit.policies import JEI, Aim, Policy, Situation
from gatewise.early_exit.training import HeadSet, Point, Sweep, restore_heads
from gatewise.exceptions import InputError

if TYPE_CHECKING:
    from gatewise.early_exit.model import EarlyExitModel

__all__ = ["choose_policy"]


def choose_policy(
    model: "EarlyExitModel", kind: type[Policy], aim: Aim, calibrate: bool, heads: float | None, options: dict[str, Any]
) -> HeadSet:
    """See `EarlyExitModel.set_policy`; the heads that were chosen."""
    sweep = model.sweep
    if sweep is None:
        raise InputError("nothing has been fitted yet: call model.fit first")
    if kind is JEI and sweep.training.joint and heads is None:
        policy, chosen = _joint(model, sweep, aim, calibrate, options)
    else:
        chosen = sweep.warm_up if heads is None else _point(sweep, heads).heads
        if kind is JEI:
            options = {"decoding": sweep.training.decoding, "inputs": model.gate_inputs, **options}
            options = {
                "target_loss": sweep.training.target_loss,
                "positive_weight": sweep.training.positive_weight,
                **options,
            }
        policy = kind.fitted(_situation(model, kind, chosen, calibrate), aim, **_known(kind, options))
    restore_heads(model, chosen)
    model.temperatures.fill_(1.0)
    if calibrate:
        model.temperatures.copy_(chosen.temperatures)
    model.policy = policy
    return chosen


def _known(kind: type[Policy], options: dict[str, Any]) -> dict[str, Any]:
    if options and kind.name not in _WITH_OPTIONS:
        raise InputError(f"the {kind.name} policy has no option {next(iter(options))!r}")
    if unknown := [name for name in options if name not in _WITH_OPTIONS.get(kind.name, ())]:
        raise InputError(f"the {kind.name} policy has no option {unknown[0]!r}")
    return options


_WITH_OPTIONS = {
    "jei": ("decoding", "inputs", "target_loss", "positive_weight"),
    "optimal_stopping": ("folds",),
}


def _situation(model: "EarlyExitModel", kind: type[Policy], heads: HeadSet, calibrate: bool) -> Situation:
    outputs = heads.validation.calibrated(heads.temperatures if calibrate else None)
    return Situation(outputs, model.costs_of(kind))


def _point(sweep: Sweep, lam: float) -> Point:
    if lam not in sweep.points:
        fitted = ", ".join(f"{each:g}" for each in sweep.points)
        raise InputError(f"no heads were trained for lam = {lam:g}: fitted were {fitted}")
    return sweep.points[lam]


def _joint(
    model: "EarlyExitModel", sweep: Sweep, aim: Aim, calibrate: bool, options: dict[str, Any]
) -> tuple[Policy, HeadSet]:
    """Of jointly trained heads only those λ exist that were trained: for a budget the most exact one within it."""
    if options:
        raise InputError(f"jointly trained gates are what fit made: pass {next(iter(options))!r} to fit")
    share = aim.share(model.costs_of(JEI))
    lam = aim.lam if aim.lam is not None else aim.setting
    if lam is not None:
        point = _point(sweep, lam)
        return _policy(model, sweep, lam, point, calibrate)[0], point.heads
    found = []
    for each, point in sweep.points.items():
        policy, situation = _policy(model, sweep, each, point, calibrate)
        leaves = policy.simulate(situation.outputs, situation.costs).exit_index
        found.append((situation.mean_error(leaves), situation.mean_cost(leaves, policy.used), policy, point))
    within = [entry for entry in found if share is None or entry[1] <= share]
    if not within:
        least = min(entry[1] for entry in found)
        raise InputError(
            f"the cheapest fitted λ costs {least:.3g} of the network, and the budget is {share:.3g}: fit larger lam"
        )
    best = min(within, key=lambda entry: entry[:2])
    return best[2], best[3].heads


def _policy(model: "EarlyExitModel", sweep: Sweep, lam: float, point: Point, calibrate: bool) -> tuple[JEI, Situation]:
    situation = _situation(model, JEI, point.heads, calibrate)
    policy = JEI(model.n_exits, point.gates[calibrate], lam, sweep.training.decoding, model.gate_inputs)
    while worst := policy.without_unprofitable(situation):
        policy.skip(worst[:1])
    return policy, situation
