"""The page on simulated rates says what the kept slopes say, and the kept slopes are those of today's designs."""

import numpy as np

from gatewise.study import read_design
from tests.study.simulated import PAGE, entries, outdated, with_tables


def test_the_page_has_the_tables_of_the_kept_slopes():
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page) == page
    assert entries()


def test_no_kept_slope_belongs_to_a_design_that_was_changed():
    assert outdated() == []


def test_every_slope_has_its_interval():
    for entry in entries().values():
        for slope in entry["slopes"]:
            estimate = slope["slope"]
            assert estimate is None or estimate["low"] <= estimate["value"] <= estimate["high"]
            assert estimate is not None or slope["reason"]


def test_the_tanh_experts_are_weakly_determined_by_their_truth():
    # What the page says of their slow loss: σ √([(E JᵀJ)⁻¹]_jj) of the mean's Jacobian J at the truth, by differences.
    design = read_design("least-squares-softmax-tanh")
    gate, experts = design.truth.gate.parameters, design.truth.experts.parameters
    start = np.array(
        [
            gate["weight"][0][0] - gate["weight"][1][0],
            gate["bias"][0] - gate["bias"][1],
            *(experts["inner_weight"][i][0][0] for i in range(2)),
            *(experts["inner_bias"][i][0] for i in range(2)),
        ]
    )
    outer = np.array(experts["outer_weight"])[:, 0]
    law = design.covariates
    x = np.linspace(law.low, law.high, 20_001)

    def mean(theta):
        first = 1.0 / (1.0 + np.exp(-(theta[0] * x + theta[1])))
        weights = np.stack((first, 1.0 - first))
        return np.sum(weights * outer[:, None] * np.tanh(theta[2:4, None] * x + theta[4:6, None]), axis=0)

    step = 1e-5
    jacobian = np.stack([(mean(start + step * e) - mean(start - step * e)) / (2 * step) for e in np.eye(6)], axis=1)
    covariance = design.truth.residual_variance * np.linalg.inv(jacobian.T @ jacobian / len(x))
    assert f"{np.sqrt(covariance[2, 2]):.1f}/√n" in PAGE.read_text(encoding="utf-8")
