"""All policies on test data: frontiers, calibration, conformal sets, and where samples leave."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gatewise.early_exit.cache import cached, labels_of
from gatewise.early_exit.choosing import choose_policy
from gatewise.early_exit.evaluation.conformal import ConformalExits, coverage_band
from gatewise.early_exit.evaluation.frontier import Frontier
from gatewise.early_exit.evaluation.metrics import (
    ECE_ESTIMATOR,
    ExitScores,
    Scores,
    exit_scores,
    reliability_curve,
    scores_of,
)
from gatewise.early_exit.outputs import EarlyExitOutput, ExitLogits
from gatewise.early_exit.policies import JEI, POLICIES, Aim, FixedExit, Oracle, Patience
from gatewise.exceptions import InputError
from gatewise.messages import choose, shown

if TYPE_CHECKING:
    import pandas as pd

    from gatewise.early_exit.model import EarlyExitModel

__all__ = ["ConformalRow", "Evaluation", "PolicyPoint", "PolicyResult", "evaluate"]

BUDGETS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
LAMBDAS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 4.0)


@dataclass(frozen=True)
class PolicyPoint:
    """A policy at one setting.

    Attributes:
        setting: its own number, such as λ or a threshold.
        scores: of its answers.
        histogram: shares (L,) of samples that leave at each exit.
        exits: confidence and accuracy of those who leave at each exit.
        remarks: what it says of itself, such as exits that it does not use.
    """

    setting: float | None
    scores: Scores
    histogram: tuple[float, ...]
    exits: list[ExitScores]
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PolicyResult:
    """A policy at all its settings, by rising cost.

    Attributes:
        name: of the policy.
        points: one for each setting.
        frontier: what every sample did at each, for paired comparisons.
    """

    name: str
    points: list[PolicyPoint]
    frontier: Frontier

    def at(self, cost: float, what: str = "accuracy") -> float:
        """A score at a mean cost, as `Frontier.at`: beyond the dearest setting that setting's."""
        costs = np.array([point.scores.cost for point in self.points])
        values = np.array([getattr(point.scores, what) for point in self.points])
        return float(np.interp(cost, costs, values)) if cost >= costs[0] - 1e-9 else float("nan")


@dataclass(frozen=True)
class ConformalRow:
    """Sets of one strategy for one policy.

    Attributes:
        policy: its name.
        cost: its mean relative cost.
        strategy: see `ConformalExits`.
        alpha: α.
        size: the mean number of classes in a set.
        coverage: the share of sets that hold the right class.
        promised: whether the strategy promises 1 − α over all samples.
        low: lower end of the 99.9 % band of the coverage, where it is promised; else not a number.
        high: its upper end.
    """

    policy: str
    cost: float
    strategy: str
    alpha: float
    size: float
    coverage: float
    promised: bool
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """What came out on test data.

    Attributes:
        names: the exits.
        n: test samples.
        unit: of the costs, which are shares of the network's.
        exit_costs: of an answer at each exit if all are evaluated.
        calibrate: whether each exit had its temperature.
        policies: results by name.
        conformal: rows.
        early: test samples that leave earliest at the shown setting, and how sure the answer is.
        late: those that leave last.
        reliability: by policy, at the setting nearest to the shown cost: confidence, accuracy and number by bin.
        shown: by policy, the place of that setting among its points.
        ece_estimator: its name.
    """

    names: tuple[str, ...]
    n: int
    unit: str
    exit_costs: tuple[float, ...]
    calibrate: bool
    policies: dict[str, PolicyResult]
    conformal: list[ConformalRow]
    early: list[dict[str, Any]]
    late: list[dict[str, Any]]
    reliability: dict[str, list[tuple[float, float, int]]]
    shown: dict[str, int]
    ece_estimator: str = ECE_ESTIMATOR

    def rows(self) -> Iterator[dict[str, Any]]:
        """One for each policy and setting."""
        for name, result in self.policies.items():
            for point in result.points:
                yield {"policy": name, "setting": point.setting, **asdict(point.scores), "histogram": point.histogram}

    def to_frame(self) -> "pd.DataFrame":
        """`rows` as a table."""
        import pandas as pd

        return pd.DataFrame(list(self.rows()))

    def to_dict(self) -> dict[str, Any]:
        """All numbers but those of single samples, as plain data."""
        return {
            "exits": list(self.names),
            "n": self.n,
            "unit": self.unit,
            "exit_costs": list(self.exit_costs),
            "calibrate": self.calibrate,
            "ece_estimator": self.ece_estimator,
            "rows": [
                {**row, "histogram": list(row["histogram"]), "remarks": point.remarks}
                for row, point in zip(
                    self.rows(), (point for each in self.policies.values() for point in each.points), strict=True
                )
            ],
            "conformal": [asdict(row) for row in self.conformal],
        }

    def table(self, costs: Sequence[float] = (0.3, 0.5, 0.7)) -> str:
        """Accuracy, calibration error and signed bias at some costs, in percent, as text."""
        wide = max(map(len, self.policies))
        head = "  ".join(f"at cost {cost:<4g} acc   ECE   bias" for cost in costs)
        lines = [f"{'policy':{wide}}  {head}"]
        for name, result in self.policies.items():
            cells = []
            for cost in costs:
                found = [100.0 * result.at(cost, what) for what in ("accuracy", "ece", "bias")]
                text = "".join(f"{'–':>6}" if value != value else f"{value:6.1f}" for value in found)
                cells.append(f"{text:>{len(head) // len(costs)}}")
            lines.append(f"{name:{wide}}  {'  '.join(cells)}".rstrip())
        return "\n".join(lines)


def evaluate(
    model: "EarlyExitModel",
    x: Any,
    y: Any = None,
    *,
    policies: Sequence[str] | None = None,
    calibrate: bool = True,
    lam: Sequence[float] | None = None,
    budgets: Sequence[float] = BUDGETS,
    calibration: tuple[Any, Any] | None = None,
    alpha: float = 0.05,
    shown_cost: float = 0.5,
) -> Evaluation:
    """Every policy at all its settings on test data; the model's own policy is left as it is.

    Args:
        model: fitted.
        x: test data: inputs, a loader or cached features.
        y: its classes, if x does not have them.
        policies: names; all by default.
        calibrate: whether each exit has its temperature: one calibration for every policy.
        lam: λ of JEI with frozen heads and of optimal stopping; of jointly trained gates those that were fitted.
        budgets: of policies with a threshold.
        calibration: inputs and classes for conformal sets, which have chosen nothing else; without them there are none.
        alpha: α of the sets.
        shown_cost: the setting nearest to this cost is looked at sample by sample.

    Raises:
        InputError: no such policy, nothing fitted, classes out of range.
    """
    chosen = list(POLICIES) if policies is None else list(policies)
    if unknown := [name for name in chosen if name not in POLICIES]:
        raise InputError(f"there is no policy {shown(unknown[0])}: {choose(unknown[0], POLICIES)}")
    if model.sweep is None:
        raise InputError("nothing has been fitted yet: call model.fit first")
    before = (
        model.policy,
        {name: value.clone() for name, value in model.state_dict().items()},
    )
    held = None if calibration is None else _labelled(model, *calibration)
    test = _labelled(model, x, y)
    try:
        results, conformal, outputs = {}, [], {}
        for name in chosen:
            found = _result(model, name, test, calibrate, lam, budgets, held, alpha)
            if found is not None:
                results[name], rows, outputs[name] = found
                conformal += rows
    finally:
        model.policy = before[0]
        model.load_state_dict(before[1])
    if not results:
        raise InputError("no policy keeps to any of the budgets: give larger ones")
    places = {
        name: min(range(len(result.points)), key=lambda i: abs(result.points[i].scores.cost - shown_cost))
        for name, result in results.items()
    }
    chosen_outputs = {name: outputs[name][place] for name, place in places.items()}
    early, late = _samples(*next(iter(chosen_outputs.items())), test[1])
    reliability = {
        name: reliability_curve(output.probabilities.max(-1).values, output.predictions == test[1])
        for name, output in chosen_outputs.items()
    }
    return Evaluation(
        model.names,
        len(test[1]),
        model.costs.unit,
        model.costs_of(JEI).relative(),
        calibrate,
        results,
        conformal,
        early,
        late,
        reliability,
        places,
    )


def _labelled(model: "EarlyExitModel", x: Any, y: Any) -> tuple[Any, Tensor]:
    data = x if model.sweep is not None and model.sweep.training.train_backbone else cached(model, x, y, None, 256)
    classes = y if y is not None else getattr(data, "y", None)
    if classes is None:
        raise InputError("the classes are missing: pass y, or a loader that gives pairs (inputs, classes)")
    return data, labels_of(classes, model.n_classes)


def _aims(model: "EarlyExitModel", name: str, lam: Sequence[float] | None, budgets: Sequence[float]) -> list[Aim]:
    sweep = model.sweep
    if name == Oracle.name:
        return [Aim(setting=0.0)]
    if name == FixedExit.name:
        return [Aim(setting=float(exit)) for exit in range(model.n_exits)]
    if name == Patience.name:
        return [Aim(setting=float(k)) for k in range(1, model.n_exits)]
    if name == JEI.name and sweep is not None and sweep.training.joint:
        return [Aim(lam=each) for each in sweep.points]
    if name in (JEI.name, "optimal_stopping"):
        return [Aim(lam=each) for each in (LAMBDAS if lam is None else lam)]
    return [Aim(budget=each) for each in budgets]


def _result(
    model: "EarlyExitModel",
    name: str,
    test: tuple[Any, Tensor],
    calibrate: bool,
    lam: Sequence[float] | None,
    budgets: Sequence[float],
    held: tuple[Any, Tensor] | None,
    alpha: float,
) -> tuple[PolicyResult, list[ConformalRow], list[EarlyExitOutput]] | None:
    kept: dict[int, tuple[ExitLogits, ExitLogits | None]] = {}
    found: list[tuple[PolicyPoint, EarlyExitOutput, list[ConformalRow]]] = []
    for aim in _aims(model, name, lam, budgets):
        try:
            heads = choose_policy(model, POLICIES[name], aim, calibrate, None, {})
        except InputError:
            # A budget below what the policy costs at least has no point on its frontier.
            if aim.budget is None:
                raise
            continue
        if id(heads) not in kept:
            kept[id(heads)] = (
                model.all_logits(*test),
                None if held is None else model.all_logits(*held),
            )
        outputs, calibration = kept[id(heads)]
        policy = model.chosen()
        output = model.simulate(outputs)
        histogram = torch.bincount(output.exit_index, minlength=model.n_exits).double() / len(test[1])
        point = PolicyPoint(
            policy.setting,
            scores_of(output, test[1]),
            tuple(histogram.tolist()),
            exit_scores(output, test[1], model.n_exits),
            list(policy.remarks),
        )
        found.append((point, output, _conformal(model, name, outputs, output, calibration, alpha)))
    if not found:
        return None
    found.sort(key=lambda entry: entry[0].scores.cost)
    frontier = Frontier(
        name,
        np.stack([(output.predictions == test[1]).numpy() for _, output, _ in found]),
        np.stack([output.cost.numpy() for _, output, _ in found]),
    )
    points = [point for point, _, _ in found]
    return (
        PolicyResult(name, points, frontier),
        [row for _, _, rows in found for row in rows],
        [output for _, output, _ in found],
    )


def _conformal(
    model: "EarlyExitModel",
    name: str,
    outputs: ExitLogits,
    output: EarlyExitOutput,
    calibration: ExitLogits | None,
    alpha: float,
) -> list[ConformalRow]:
    if calibration is None:
        return []
    rows = []
    held = calibration.calibrated(model.temperatures)
    leaves = model.simulate(calibration).exit_index
    y = outputs.labels()
    for strategy in ("pooled", "strict", "per_exit"):
        conformal = ConformalExits.fit(held, leaves, alpha, strategy)
        sets = conformal.sets(output.logits, output.exit_index)
        coverage = float(sets.gather(1, y[:, None]).double().mean())
        promised = strategy == "pooled"
        low, high = coverage_band(len(y), len(held), alpha, 0.999) if promised else (float("nan"), float("nan"))
        size = float(sets.sum(1).double().mean())
        rows.append(ConformalRow(name, float(output.cost.mean()), strategy, alpha, size, coverage, promised, low, high))
    return rows


def _samples(
    name: str, output: EarlyExitOutput, y: Tensor, count: int = 8
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Samples that leave first and last under a policy."""
    confidence = output.probabilities.max(-1).values
    # By exit, the surest first.
    order = np.lexsort((-confidence.numpy(), output.exit_index.numpy())).tolist()

    def row(sample: int) -> dict[str, Any]:
        return {
            "policy": name,
            "sample": sample,
            "exit": int(output.exit_index[sample]) + 1,
            "answer": int(output.predictions[sample]),
            "class": int(y[sample]),
            "confidence": float(confidence[sample]),
        }

    return [row(sample) for sample in order[:count]], [row(sample) for sample in order[::-1][:count]]
