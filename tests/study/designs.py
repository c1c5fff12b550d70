"""The design of a study that nobody has to run: two lines, to be changed by keyword."""

from typing import Any

import numpy as np

from gatewise.study.design import StudyDesign

SIZES = [round(n) for n in np.geomspace(100, 10_000, 12)]


def design_of(**changes: Any) -> StudyDesign:
    """Two methods, twelve sizes over two decades, eight replicates."""
    experts = {"weight": [[-2.0], [2.0]], "bias": [1.0, -1.0], "log_scale": [-1.0, -1.0]}
    table = {
        "title": "A study",
        "seed": 11,
        "n_features": 1,
        "truth": {
            "n_experts": 2,
            "gate": {"name": "softmax", "parameters": {"weight": [[2.0], [0.0]], "bias": [-1.0, 0.0]}},
            "experts": {"name": "linear", "parameters": experts},
        },
        "sizes": SIZES,
        "replicates": 8,
        "methods": [{"name": "k2", "n_experts": 2}, {"name": "k3", "n_experts": 3}],
        "losses": [{"name": "D1", "kind": "D1"}],
        "slopes": {"resamples": 300, "replicates": 8},
    }
    return StudyDesign.model_validate({**table, **changes})
