"""Limited-memory quasi-Newton ascent with bounds, where there are so many parameters that a Hessian is dear."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import OptimizeResult, minimize

from gatewise.fit.bounds import Ascendable, Bounds
from gatewise.fit.monitor import Monitor
from gatewise.fit.status import FitStatus

__all__ = ["ascend", "quasi_newton"]


def quasi_newton(
    objective: Ascendable, theta: np.ndarray, monitor: Monitor, tol: float
) -> tuple[np.ndarray, FitStatus]:
    """Climb from θ by L-BFGS-B (Byrd, Lu, Nocedal and Zhu 1995, as in SciPy) until the projected gradient is small.

    Returns:
        The last θ, and CONVERGED or STALLED. The monitor ends it earlier by raising.
    """

    def descent(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective.value_and_gradient(point)
        return (-value, -gradient) if np.isfinite(value) else (np.inf, np.zeros_like(gradient))

    def report(intermediate_result: OptimizeResult) -> None:
        monitor.iterate(intermediate_result.x, -intermediate_result.fun)

    monitor.begin(theta, objective.value_and_gradient(theta)[0])
    bounds = objective.bounds.pairs()
    options = {"maxiter": 10**9, "maxfun": 10**9, "maxcor": 30, "gtol": tol, "ftol": 0.0, "maxls": 40}
    solution = minimize(descent, theta, jac=True, method="L-BFGS-B", bounds=bounds, callback=report, options=options)
    slope = np.abs(objective.bounds.projected(solution.x, -solution.jac)).max(initial=0.0)
    return solution.x, FitStatus.CONVERGED if slope <= tol else FitStatus.STALLED


def ascend(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]], theta: np.ndarray, bounds: Bounds, steps: int
) -> np.ndarray:
    """Some L-BFGS-B steps on a function (value and gradient) that is to be large, from θ."""

    def descent(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = function(point)
        return (-value, -gradient) if np.isfinite(value) else (np.inf, np.zeros_like(gradient))

    options = {"maxiter": steps}
    return minimize(descent, theta, jac=True, method="L-BFGS-B", bounds=bounds.pairs(), options=options).x
