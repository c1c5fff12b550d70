"""Draws loads as a heat map: `python docs/pictures/routing.py` writes routing.svg here."""

import math

import torch
from draw import plt, save
from matplotlib.colors import LinearSegmentedColormap

from gatewise.nn import RouterMonitor, SparseMoE, initialise_router

LAYERS, EXPERTS, D = 6, 16, 64
# That of the report's heat maps.
SCALE = LinearSegmentedColormap.from_list(
    "load", [(0.0, "#ffffff"), (0.25, "#cfe1ee"), (0.5, "#6aa3c8"), (1.0, "#123a5a")]
)


def routing():
    """Six layers of sixteen experts, of which the fourth has collapsed."""
    torch.manual_seed(0)
    layers = [SparseMoE(D, n_experts=EXPERTS, hidden=8) for _ in range(LAYERS)]
    for layer in layers:
        initialise_router(layer.router, std=1.0 / math.sqrt(D))
    with torch.no_grad():
        layers[3].router.gate.bias[[4, 11]] = 50.0
    tokens = torch.randn(4096, D) + 0.7 * torch.randn(D)
    with RouterMonitor(layers) as monitor, torch.no_grad():
        for layer in layers:
            layer(tokens)
    loads = [[count * EXPERTS / sum(counts) for count in counts] for counts in map(monitor.counts, monitor.layers)]
    figure, axes = plt.subplots(figsize=(8.4, 2.9))
    drawn = axes.imshow(loads, cmap=SCALE, vmin=0.0, vmax=4.0, aspect="auto")
    axes.set_xticks(range(EXPERTS))
    axes.set_yticks(range(LAYERS), [f"layer {place}" for place in range(LAYERS)])
    axes.set_xlabel("expert")
    axes.set_xticks([place - 0.5 for place in range(1, EXPERTS)], minor=True)
    axes.set_yticks([place - 0.5 for place in range(1, LAYERS)], minor=True)
    axes.grid(which="minor", color="white", lw=1.2)
    axes.grid(which="major", visible=False)
    axes.tick_params(which="both", length=0)
    figure.colorbar(drawn, ax=axes, label="load / even", pad=0.02)
    save(figure, "routing")


if __name__ == "__main__":
    routing()
