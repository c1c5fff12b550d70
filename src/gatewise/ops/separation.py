"""Does a softmax gate separate? A linear programme over (row, expert) pairs.

Let S_r be the experts with a non-negligible responsibility for row r. If some direction δ (k, q) has
(δᵢ − δⱼ)ᵀ G_r ≥ 0 for every row, every i ∈ S_r and every j, and not always = 0, then moving the gate along δ never
lowers the weight of an expert that a row needs, and raises it somewhere: the likelihood does not fall along the ray
and has no maximum. With hard assignments instead of S_r this is the classical test for multinomial logit (Konis
2007; Albert and Anderson 1984), which gives false alarms here because rows are shared between experts.
"""

import numpy as np
from scipy.optimize import linprog

__all__ = ["separating_direction"]

_ROWS_PER_ROUND = 400
# HiGHS answers within 1e-7 of each constraint; a direction in the unit box that separates sums to far more.
_FEASIBILITY = 1e-7


def separating_direction(
    gate_design: np.ndarray, responsibilities: np.ndarray, negligible: float = 1e-6
) -> np.ndarray | None:
    """A separating direction δ (k, q), last row 0 and largest entry 1 in size, or None.

    Constraints are generated: the programme starts with some rows and adds those its solution violates, so that a
    large table costs a few small programmes. Fewer constraints can only raise the optimum, hence an optimum of 0 at
    any round proves that nothing separates.

    Args:
        gate_design: G (q, n), standardised, first row ones.
        responsibilities: r (k, n).
        negligible: responsibilities up to this do not count.
    """
    k, n = responsibilities.shape
    q = len(gate_design)
    if k < 2:
        return None
    needed = responsibilities > negligible
    per_row = needed.sum(axis=0)
    objective = (k * (needed @ gate_design.T) - (per_row @ gate_design.T))[:-1].ravel()
    scale = max(1.0, float(np.abs(objective).max()))
    active = np.zeros(n, dtype=bool)
    active[np.unique(np.linspace(0, n - 1, min(n, _ROWS_PER_ROUND)).astype(int))] = True
    while True:
        constraints = _constraints(gate_design[:, active], needed[:, active])
        solution = linprog(
            -objective / scale, A_ub=constraints, b_ub=np.zeros(len(constraints)), bounds=(-1.0, 1.0), method="highs"
        )
        # δ = 0 is feasible, so a failure of the solver is numerical; it finds nothing and does not alarm.
        if solution.x is None or -solution.fun * scale <= 10.0 * _FEASIBILITY * n * k:
            return None
        direction = np.zeros((k, q))
        direction[:-1] = solution.x.reshape(k - 1, q)
        score = direction @ gate_design
        least_needed = np.where(needed, score, np.inf).min(axis=0)
        violation = np.where(active, 0.0, score.max(axis=0) - least_needed)
        worst = np.argsort(-violation, kind="stable")[:_ROWS_PER_ROUND]
        worst = worst[violation[worst] > 10.0 * _FEASIBILITY]
        if not worst.size:
            return direction
        active[worst] = True


def _constraints(gate_design: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """Rows c with cᵀδ ≤ 0 for (δⱼ − δᵢ)ᵀ G_r ≤ 0 over needed pairs (r, i) and all j ≠ i; duplicates removed."""
    k, q = len(needed), len(gate_design)
    blocks = []
    for i in range(k):
        rows = gate_design[:, needed[i]].T
        for j in range(k):
            if j == i:
                continue
            block = np.zeros((len(rows), k, q))
            block[:, j], block[:, i] = rows, -rows
            blocks.append(block[:, :-1].reshape(len(rows), (k - 1) * q))
    return np.unique(np.concatenate(blocks), axis=0)
