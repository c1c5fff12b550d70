"""A study of a moment."""

import pytest

from gatewise.study import StudyDesign

SMALL = """
title = "Two lines"
seed = 7
n_features = 1
sizes = [40, 60, 90]
replicates = 4

[truth]
n_experts = 2
gate = { name = "softmax", parameters = { weight = [[3.0], [0.0]], bias = [-1.5, 0.0] } }
experts = { name = "linear", parameters = { weight = [[-2.0], [2.0]], bias = [1.0, 0.0], log_scale = [-1.5, -1.2] } }

[[methods]]
name = "exact"
n_experts = 2

[[methods]]
name = "over"
n_experts = 3
starts = { near = 1, retries = 1 }
options = { max_iter = 60 }

[[losses]]
name = "D1"
kind = "D1"

[[losses]]
name = "D2"
kind = "D2"
"""


@pytest.fixture
def small_text():
    return SMALL


@pytest.fixture
def design():
    return StudyDesign.parse(SMALL, "small")
