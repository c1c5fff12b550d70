"""Compiles the passes that most tests need: `python -m tests.compiled 0` one half of them, with 1 the other.

The cache on disk is shared, but two workers that begin with it empty would each compile all of them.
"""

import sys
from collections.abc import Callable

import numpy as np

from gatewise.kernels.channels import channel_hessian
from gatewise.kernels.curvature import linear_hessian, linear_responsibilities
from gatewise.kernels.density_pass import categorical_derivatives, poisson_derivatives
from gatewise.kernels.expectation import expectation_sums, gate_derivatives
from gatewise.kernels.joint_pass import joint_pass, joint_rows
from gatewise.kernels.linear_pass import LinearPass
from gatewise.kernels.products import weighted_gram
from gatewise.kernels.selection_lines import best_on_line
from gatewise.model import MixtureOfExperts
from gatewise.theory import MixingMeasure, voronoi_loss

ROW = np.ones((1, 4))
TWO, RATIO = np.zeros((2, 1)), np.full((4, 2), 0.5)


def linear() -> None:
    """Linear experts with a Gaussian family behind a softmax gate."""
    data = LinearPass(ROW, ROW, ROW[0], ROW[0])
    at = (TWO, TWO, TWO[:, 0].copy())
    data(*at)
    linear_hessian(data, *at)
    linear_responsibilities(data, *at)
    expectation_sums(ROW, ROW, ROW[0], ROW[0], *at, same_design=True)


def losses() -> None:
    """The least loss over a translation of one coordinate."""
    measure = MixingMeasure.of(MixtureOfExperts.build("softmax", "linear", "gaussian", 1, 2))
    voronoi_loss(measure, measure, "D2")


def gates() -> None:
    """A softmax gate by itself, and weighted cross-products."""
    weighted_gram(ROW, ROW)
    gate_derivatives(ROW, RATIO.T.copy(), ROW[0], TWO)


def mixtures() -> None:
    """Any gate, experts and family: from channel to channel."""
    joint_pass(RATIO, RATIO, ROW[0])
    joint_rows(RATIO, RATIO)
    channel_hessian(ROW.T, ROW.T, ROW[0], RATIO, RATIO, np.ones((4, 2, 2)), np.ones((4, 2, 2, 2)))


def families() -> None:
    """Densities with compiled derivatives, and what is selected along a line."""
    poisson_derivatives(ROW[0], RATIO, 300.0, True)
    categorical_derivatives(ROW[0], RATIO[..., None], True)
    step = np.array([[1.0, 0.0, 0.5]] * 2)
    best_on_line(step[:, ::-1].copy() - 0.3, step, step, step, step, np.ones(2), 2)


# Each takes about half of the time.
HALVES: tuple[tuple[Callable[[], None], ...], ...] = ((linear, losses), (gates, mixtures, families))

if __name__ == "__main__":
    for run in HALVES[int(sys.argv[1])]:
        run()
