"""Simulate from a known mixture, fit it, and see whether the intervals cover the truth.

Run it anywhere: `python examples/simulate.py`. It takes some seconds.
"""

import numpy as np
import torch

from gatewise import GatedRegressor, Gaussian, LinearExperts, MixtureOfExperts, SoftmaxGate


def truth() -> MixtureOfExperts:
    """Two lines that cross at 0.25, with a gate that prefers the rising one on the right."""
    model = MixtureOfExperts(SoftmaxGate(1, 2), LinearExperts(1, 2), Gaussian()).double()
    model.gate.assign(torch.tensor([[0.5, 2.0], [0.0, 0.0]]))
    model.experts.assign(torch.tensor([[0.0, 2.0], [0.75, -1.0]]), torch.tensor([0.3, 0.2]).log())
    return model


def main(n_replicates: int = 40, n_rows: int = 500) -> None:
    """Print how many of the 95 % intervals contain the parameter that made the data."""
    model = truth()
    gate, experts = model.gate, model.experts
    true_values = np.concatenate(
        [
            [gate.bias[0].item(), gate.weight[0, 0].item()],
            *([experts.bias[i].item(), experts.weight[i, 0].item()] for i in range(2)),
            experts.log_scale.exp().tolist(),
        ]
    )
    generator = np.random.default_rng(0)
    covered = np.zeros(len(true_values))
    for replicate in range(n_replicates):
        x = generator.uniform(-1.0, 1.0, size=(n_rows, 1))
        y = model.sample(torch.from_numpy(x), generator=torch.Generator().manual_seed(replicate)).numpy()
        regressor = GatedRegressor(n_experts=2, n_starts=4, random_state=replicate).fit(x, y)
        table = regressor.parameters_
        covered += (table["lower"].to_numpy() <= true_values) & (true_values <= table["upper"].to_numpy())
    print(f"{n_replicates} samples of {n_rows} rows: intervals of nominal 95 % that contain the truth")
    for (component, term), share in zip(
        table[["component", "term"]].itertuples(index=False), covered / n_replicates, strict=True
    ):
        print(f"  {component:12} {term:12} {share:.0%}")


if __name__ == "__main__":
    main()
