"""Optimal stopping: backward induction on expected error plus λ · cost, with cross-fitted regressions."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from gatewise.early_exit.outputs import ExitLogits
from gatewise.early_exit.policies.base import NEAR, Aim, Policy, Situation
from gatewise.early_exit.policies.search import for_aim
from gatewise.early_exit.trace import N_STATISTICS, ExitTrace
from gatewise.exceptions import InputError

__all__ = ["OptimalStopping", "stopping_statistics"]

N_STOPPING = N_STATISTICS + 3
_PAIRS = torch.triu_indices(N_STOPPING, N_STOPPING)
N_TERMS = 1 + N_STOPPING + _PAIRS.shape[1]
_RIDGES = (3.0, 30.0, 300.0, 3000.0)


def stopping_statistics(trace: ExitTrace) -> Tensor:
    """Seven statistics (n, 7): the four of the exit itself, and three of the exit before, which are 0 at the first.

    These are whether it predicts the same class, its probability of this exit's class, and its largest probability.
    """
    now = trace.last
    if len(trace.views) < 2:
        return torch.cat([now.statistics, torch.zeros(len(now.logits), 3)], -1)
    before = trace.views[-2]
    same = (before.predictions == now.predictions).to(now.logits.dtype)
    of_class = before.probabilities.gather(1, now.predictions[:, None]).squeeze(1)
    return torch.cat([now.statistics, torch.stack([same, of_class, before.statistics[:, 0]], -1)], -1)


def _terms(z: Tensor) -> Tensor:
    """1, z and all products of two, (n, 36)."""
    return torch.cat([torch.ones_like(z[:, :1]), z, z[:, _PAIRS[0]] * z[:, _PAIRS[1]]], -1)


class OptimalStopping(Policy):
    """Leave at the first exit where error + λ · cost is expected to be no more than what going on comes to.

    With e_l the error and s_l the statistics at exit l: J_L = e_L + λ c_L; backwards D̂_l(s_l) is a regression of
    J_{l+1} − e_l, and J_l = e_l + λ c_l where λ c_l ≤ D̂_l, else J_{l+1}. The difference is what decides, so it is what
    is learned: a sample that every exit gets wrong adds its errors to J_{l+1} and e_l, and nothing to the difference.
    The decisions inside the induction use predictions of regressions that did not see the sample (five folds), else J
    would be too good to be true. Regressions are linear in 36 terms up to second order, with the ridge of 3, 30, 300
    and 3000 that predicts unseen samples best. Dynamic programming of optimal stopping is classical; this form of it
    is ours.

    Args:
        n_exits: L.
        lam: λ.
    """

    name: ClassVar[str] = "optimal_stopping"

    def __init__(self, n_exits: int, lam: float = 0.0) -> None:
        super().__init__(n_exits)
        self.lam = lam
        self.coefficients = torch.zeros(n_exits - 1, N_TERMS, dtype=torch.float64)
        self.thresholds = torch.zeros(n_exits - 1, dtype=torch.float64)
        self.shift = torch.zeros(n_exits - 1, N_STOPPING, dtype=torch.float64)
        self.scale = torch.ones(n_exits - 1, N_STOPPING, dtype=torch.float64)

    @property
    def setting(self) -> float | None:
        """λ."""
        return self.lam

    def margin(self, trace: ExitTrace) -> Tensor:
        """D̂_l − λ c_l."""
        exit = trace.exit
        z = (stopping_statistics(trace).double() - self.shift[exit]) / self.scale[exit]
        return _terms(z) @ self.coefficients[exit] - self.thresholds[exit]

    def near(self, trace: ExitTrace, margin: Tensor) -> Tensor:
        """Where a statistic that moves by 1e-6 may turn the decision, or a predicted class is a tie."""
        exit = trace.exit
        z = (stopping_statistics(trace).double() - self.shift[exit]) / self.scale[exit]
        linear, products = self.coefficients[exit][1 : 1 + N_STOPPING], self.coefficients[exit][1 + N_STOPPING :]
        square = torch.zeros(N_STOPPING, N_STOPPING, dtype=torch.float64)
        square[_PAIRS[0], _PAIRS[1]] = products
        slope = ((linear + z @ (square + square.T)).abs() / self.scale[exit]).sum(-1)
        tie = torch.stack([view.statistics[:, 2] for view in trace.views[-2:]]).min(0).values
        return (margin.abs() <= NEAR * slope.clamp_min(1.0)) | (tie <= NEAR)

    @classmethod
    def decision_products(cls, n_classes: int, n_features: int) -> float:
        """The statistics, the terms and one product for each."""
        return 4.0 * n_classes + 2.0 * N_TERMS

    @classmethod
    def fitted(cls, situation: Situation, aim: Aim, folds: int = 5, **options: Any) -> Self:
        """Fit the regressions for λ; for a budget λ is looked for.

        Args:
            situation: validation data and costs.
            aim: a λ or a budget.
            folds: of the cross-fitting.
            **options: none.

        Raises:
            InputError: fewer samples than folds, or no λ keeps to the budget.
        """
        if not 2 <= folds <= len(situation.outputs):
            raise InputError(
                f"folds must lie between 2 and the {len(situation.outputs)} validation samples, not {folds}"
            )
        used = list(range(situation.n_exits))
        skipped: list[int] = []
        while True:
            induction = _Induction(situation, used, folds)

            def make(lam: float, induction: "_Induction" = induction) -> Self:
                policy = cls(situation.n_exits, lam)
                induction.solve(policy)
                policy.skip(skipped)
                return policy

            policy = for_aim(make, situation, aim)
            worst = policy.without_unprofitable(situation)
            if not worst:
                return policy
            skipped.append(worst[0])
            used = [exit for exit in used if exit != worst[0]]

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """λ and the regressions."""
        plain, _ = super().state()
        arrays = {name: getattr(self, name) for name in ("coefficients", "thresholds", "shift", "scale")}
        return {**plain, "lam": self.lam}, arrays

    @classmethod
    def restored(cls, plain: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> Self:
        """The policy that `state` described."""
        policy = cls(int(plain["n_exits"]), float(plain["lam"]))
        for name in ("coefficients", "thresholds", "shift", "scale"):
            setattr(policy, name, arrays[name])
        policy._restore(plain)
        return policy


class _Induction:
    """The part of a fit that no λ changes: terms, and their factorised products for each fold."""

    def __init__(self, situation: Situation, used: list[int], folds: int) -> None:
        self.used = used
        self.costs = torch.tensor(situation.costs.relative(used), dtype=torch.float64)
        outputs: ExitLogits = situation.outputs
        self.errors = 1.0 - outputs.correct().double()
        n = len(outputs)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(situation.seed))
        self.fold = torch.empty(n, dtype=torch.long)
        self.fold[order] = torch.arange(n) % folds
        self.folds = folds
        self.designs: list[_Design] = []
        for place in range(len(used) - 1):
            self.designs.append(_Design(stopping_statistics(outputs.trace(used[: place + 1])), self.fold, folds))

    def solve(self, policy: OptimalStopping) -> None:
        """Backward induction for the policy's λ, and the regressions on all samples."""
        lam = policy.lam
        last = self.used[-1]
        to_come = self.errors[:, last] + lam * self.costs[last]
        for place in reversed(range(len(self.used) - 1)):
            exit, design = self.used[place], self.designs[place]
            policy.coefficients[exit], unseen = design.fit(to_come - self.errors[:, exit])
            policy.thresholds[exit] = lam * self.costs[exit]
            policy.shift[exit], policy.scale[exit] = design.shift, design.scale
            leave = lam * self.costs[exit] <= unseen
            to_come = torch.where(leave, self.errors[:, exit] + lam * self.costs[exit], to_come)


class _Design:
    """Regressions on the terms of one exit: of all samples, and for each fold of the others."""

    def __init__(self, statistics: Tensor, fold: Tensor, folds: int) -> None:
        values = statistics.double()
        scale, self.shift = torch.std_mean(values, dim=0, correction=0)
        self.scale = torch.where(scale > 1e-9, scale, torch.ones_like(scale))
        self.terms = _terms((values - self.shift) / self.scale)
        self.parts = [(fold == number).nonzero().squeeze(1) for number in range(folds)]
        grams = torch.stack([self.terms[part].T @ self.terms[part] for part in self.parts])
        whole = grams.sum(0)
        self.factors = []
        for size in _RIDGES:
            ridge = torch.full((N_TERMS,), size, dtype=torch.float64)
            # The mean is not drawn to 0.
            ridge[0] = 1e-9
            shift = torch.diag(ridge)
            self.factors.append((torch.linalg.cholesky(whole + shift), torch.linalg.cholesky(whole - grams + shift)))

    def fit(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients from all samples, and for each sample the prediction of those who did not see it.

        Of the ridges the one whose predictions of unseen samples have the smallest mean square.
        """
        moments = torch.stack([self.terms[part].T @ y[part] for part in self.parts])
        whole = moments.sum(0)
        best: tuple[float, Tensor, Tensor] | None = None
        for factor, others_factor in self.factors:
            others = torch.cholesky_solve((whole - moments).unsqueeze(-1), others_factor).squeeze(-1)
            unseen = torch.empty_like(y)
            for part, each in zip(self.parts, others, strict=True):
                unseen[part] = self.terms[part] @ each
            error = float((y - unseen).square().mean())
            if best is None or error < best[0]:
                best = error, torch.cholesky_solve(whole[:, None], factor).squeeze(1), unseen
        assert best is not None
        return best[1], best[2]
