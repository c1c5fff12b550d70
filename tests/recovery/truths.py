"""The mixtures that a fit has to find again: some for every gate, with three inputs and well separated experts."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gatewise.model import MixtureOfExperts

# Slopes, intercept and σ of each expert; a truth takes the first k of them.
EXPERTS = (
    ([1.0, -1.0, 0.5], 1.0, 0.3),
    ([-1.0, 0.5, 1.0], -1.0, 0.5),
    ([0.5, 1.5, -1.0], 0.0, 0.4),
    ([-0.5, -1.0, -1.5], 2.0, 0.3),
)
# σ of the target around the mixture's mean where the mean alone is the model.
NOISE = 0.3


@dataclass(frozen=True)
class Truth:
    """A gate with its parameters, linear Gaussian experts, and how the rows are drawn and fitted.

    Attributes:
        title: what the table calls it.
        gate: registered name.
        parameters: of the gate, by name.
        options: of the gate.
        n_experts: k.
        inputs: "normal" for N(0, I), "uniform" for the cube [−2, 2]³, "gate" for the gate's own joint density.
        objective: what is fitted.
        standardise: "off" where the gate's units are the inputs' own.
        n_starts: default starts.
        quick_starts: how many starts are enough for the one small table of the ordinary tests.
        quick_rows: of that table.
        start_share: the default starts are made on so large a share of the rows, and only the best goes on to all.
    """

    title: str
    gate: str
    parameters: dict[str, list]
    options: dict[str, object] = field(default_factory=dict)
    n_experts: int = 3
    inputs: str = "normal"
    objective: str = "likelihood"
    standardise: str = "auto"
    n_starts: int = 6
    start_share: float = 1.0
    quick_starts: int = 2
    quick_rows: int = 5000

    n_features = 3

    def prototype(self) -> MixtureOfExperts:
        """The model as a fit gets it, with the parameters that a new model has."""
        built = MixtureOfExperts.build(
            self.gate, "linear", "gaussian", self.n_features, self.n_experts, gate_options=self.options
        )
        return built.double()

    def model(self) -> MixtureOfExperts:
        """The true mixture, float64."""
        model = self.prototype()
        model.gate.assign_parameters({name: _tensor(value) for name, value in self.parameters.items()})
        weight, bias, scale = zip(*EXPERTS[: self.n_experts], strict=True)
        model.experts.assign_parameters(
            {"weight": _tensor(weight), "bias": _tensor(bias), "log_scale": _tensor(scale).log()}
        )
        return model.requires_grad_(False)

    def simulate(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (n, 3) and targets (n,)."""
        generator = torch.Generator().manual_seed(seed)
        model = self.model()
        x = self._inputs(model, n, generator)
        if self.objective == "least_squares":
            y = model.mean(x) + NOISE * torch.randn(n, generator=generator, dtype=torch.float64)
        else:
            y = model.sample(x, generator=generator)
        return x.numpy(), y.numpy()

    def _inputs(self, model: MixtureOfExperts, n: int, generator: torch.Generator) -> Tensor:
        if self.inputs == "uniform":
            return 4.0 * torch.rand(n, self.n_features, generator=generator, dtype=torch.float64) - 2.0
        x = torch.randn(n, self.n_features, generator=generator, dtype=torch.float64)
        if self.inputs == "normal":
            return x
        # Of an expert drawn by its weight; given x alone its weights are the gate's, so y may be drawn from those.
        atoms = model.gate.atoms()
        chosen = torch.multinomial(atoms["gate_log_weight"].exp(), n, replacement=True, generator=generator)
        factor = torch.linalg.cholesky(atoms["gate_covariance"])
        return atoms["gate_centre"][chosen] + (factor[chosen] @ x.unsqueeze(-1)).squeeze(-1)


def _tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


SLOPES = [[1.0, 0.5, 0.0], [-0.5, 1.0, 0.5], [0.0, 0.0, 0.0]]
BIASES = [0.5, -0.5, 0.0]
CENTRES = [[1.0, 0.0, -0.5], [-1.0, 0.5, 0.5], [0.0, -1.0, 1.0]]
GAUSSIAN = {
    "log_weight": [float(np.log(0.4)), float(np.log(0.6))],
    "centre": [[1.0, 0.0, 0.5], [-0.5, 1.0, 0.0]],
    "log_diagonal": [[0.0, -0.2, 0.2], [0.2, 0.0, -0.3]],
    "lower": [[0.3, -0.2, 0.1], [-0.4, 0.0, 0.2]],
}

TRUTHS = (
    Truth("softmax", "softmax", {"weight": SLOPES, "bias": BIASES}),
    Truth(
        "modified softmax, tanh", "modified_softmax", {"weight": SLOPES, "bias": BIASES}, standardise="off", n_starts=4
    ),
    Truth(
        "dense-to-sparse, τ free",
        "dense_to_sparse",
        {"weight": SLOPES, "bias": BIASES, "log_temperature": [float(np.log(0.5))]},
        start_share=0.1,
    ),
    Truth(
        "dense-to-sparse, τ = 0.5",
        "dense_to_sparse",
        {"weight": SLOPES, "bias": BIASES},
        {"temperature": 0.5, "free_temperature": False},
        n_starts=4,
    ),
    Truth(
        "activation dense-to-sparse, tanh, τ free",
        "activation_dense_to_sparse",
        {"weight": [[1.0, -0.5, 0.5], [-0.5, 1.0, 0.5]], "bias": [0.3, 0.0], "log_temperature": [float(np.log(0.4))]},
        {"activation": "tanh"},
        n_experts=2,
        standardise="off",
        start_share=0.1,
    ),
    Truth(
        "hierarchical, softmax of softmax",
        "hierarchical",
        {
            "outer.weight": [[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]],
            "outer.bias": [0.5, 0.0],
            "inner.0.weight": [[0.0, 1.5, 0.5], [0.0, 0.0, 0.0]],
            "inner.0.bias": [-0.5, 0.0],
            "inner.1.weight": [[0.0, 0.0, 0.0]],
            "inner.1.bias": [0.0],
        },
        {"groups": [2, 1], "outer": "softmax", "inner": "softmax"},
        start_share=0.1,
        n_starts=20,
        quick_starts=6,
    ),
    Truth(
        "hierarchical, softmax of Laplace",
        "hierarchical",
        {
            "outer.weight": [[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]],
            "outer.bias": [0.5, 0.0],
            "inner.0.centre": [[1.0, 0.5, 0.0], [-1.0, -0.5, 0.5]],
            "inner.0.bias": [-0.5, 0.0],
            "inner.1.centre": [[0.0, 0.0, 0.0]],
            "inner.1.bias": [0.0],
        },
        {"groups": [2, 1], "outer": "softmax", "inner": "laplace"},
        inputs="uniform",
        standardise="off",
        start_share=0.1,
        n_starts=20,
        quick_starts=16,
    ),
    Truth(
        "hierarchical, Laplace of Laplace",
        "hierarchical",
        {
            "outer.centre": [[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]],
            "outer.bias": [0.0, 0.0],
            "inner.0.centre": [[1.0, 0.0, 1.0], [0.0, -0.5, -1.0]],
            "inner.0.bias": [0.5, 0.0],
            "inner.1.centre": [[0.0, 0.0, 0.0]],
            "inner.1.bias": [0.0],
        },
        {"groups": [2, 1], "outer": "laplace", "inner": "laplace"},
        inputs="uniform",
        standardise="off",
        start_share=0.1,
        n_starts=20,
        quick_starts=6,
    ),
    Truth(
        "cosine, d > k",
        "cosine",
        {"weight": [[1.0, 0.5, 0.0], [-0.5, 1.0, 1.0]], "bias": [0.3, 0.0]},
        n_experts=2,
        standardise="off",
        start_share=0.1,
    ),
    Truth(
        "cosine, d = k, τ = 0.25",
        "cosine",
        {"weight": [[1.0, 0.5, 0.0], [-0.5, 1.0, 0.5], [0.0, -0.5, 1.0]], "bias": BIASES},
        {"temperature": 0.25},
        standardise="off",
        start_share=0.1,
    ),
    Truth(
        "cosine with a projection to 2 dimensions, τ = 0.25",
        "cosine",
        {
            "weight": [[1.0, 0.0], [-0.5, 1.0], [-0.5, -1.0]],
            "bias": BIASES,
            "projection_matrix": [[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]],
        },
        {"temperature": 0.25, "projection": 2},
        standardise="off",
        start_share=0.1,
    ),
    Truth(
        "perturbed cosine, τ₁ = 1, τ₂ = 0.5",
        "perturbed_cosine",
        {"weight": [[2.0, 0.5, 0.0], [-0.5, 1.0, 0.5], [0.0, -0.5, 1.5]], "bias": BIASES},
        {"tau1": 1.0, "tau2": 0.5},
        standardise="off",
        start_share=0.1,
    ),
    Truth(
        "sigmoid, normalised",
        "sigmoid",
        {"weight": [[1.5, 0.5, 0.0], [-0.5, 1.5, 0.5], [0.0, -1.0, 1.0]], "bias": BIASES},
        start_share=0.1,
    ),
    Truth(
        "sigmoid, not normalised, least squares",
        "sigmoid",
        {"weight": [[1.5, 0.5, 0.0], [-0.5, 1.5, 0.5]], "bias": [0.5, -0.5]},
        {"normalised": False},
        n_experts=2,
        objective="least_squares",
        quick_starts=6,
        start_share=0.1,
    ),
    Truth(
        "Laplace",
        "laplace",
        {"centre": CENTRES, "bias": BIASES},
        inputs="uniform",
        standardise="off",
        start_share=0.1,
    ),
    Truth("Gaussian, joint", "gaussian", GAUSSIAN, n_experts=2, inputs="gate", start_share=0.1),
    Truth("Gaussian, conditional", "gaussian", GAUSSIAN, {"joint": False}, n_experts=2, inputs="gate", start_share=0.1),
    Truth(
        "quadratic",
        "quadratic",
        {
            "bias": [0.5, 0.0],
            "weight": [[1.0, -0.5, 0.0], [0.0, 0.0, 0.0]],
            "quadratic": [[0.5, 0.5, 0.0, -0.5, 0.0, 0.3], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]],
        },
        n_experts=2,
        n_starts=4,
    ),
    Truth(
        "quadratic, monomial",
        "quadratic",
        {"bias": [0.5, 0.0], "quadratic": [[0.8, 0.5, 0.0, -0.8, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]},
        {"monomial": True},
        n_experts=2,
        standardise="off",
        n_starts=4,
    ),
    # The likelihood jumps where a row changes its experts: slopes are known better than standard errors say.
    Truth(
        "top-K, K = 2, softmax",
        "top_k",
        {"inner.weight": SLOPES, "inner.bias": BIASES},
        {"inner": "softmax", "n_active": 2},
        standardise="off",
        n_starts=3,
        quick_starts=1,
        quick_rows=1000,
        start_share=0.1,
    ),
)
