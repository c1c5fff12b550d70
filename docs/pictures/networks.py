"""Draws the load of experts while a bias balances it: `python docs/pictures/networks.py` writes balance.svg here."""

import torch
from draw import MUTED, plt, save

from gatewise.gates import SoftmaxGate
from gatewise.nn import Router, Selection, initialise_router
from gatewise.nn.balance import BiasBalancer, load
from gatewise.report.palette import expert_colour

N_EXPERTS, STEPS = 8, 100


def balance():
    """As on the page "Gates in a network"."""
    torch.manual_seed(0)
    gate = SoftmaxGate(n_features=64, n_experts=N_EXPERTS)
    initialise_router(gate, std=0.2)
    router = Router(gate, Selection(top_k=2, score="sigmoid"), correction_bias=True)
    balancer = BiasBalancer(router, rate=0.01)
    tokens = torch.randn(4096, 64, generator=torch.Generator().manual_seed(1)) + 1.0
    shares = []
    for _ in range(STEPS + 1):
        shares.append(load(router(tokens)[2], N_EXPERTS))
        balancer.step()
    figure, axes = plt.subplots(figsize=(8.4, 3.4))
    for expert, share in enumerate(torch.stack(shares, 1).tolist()):
        axes.plot(share, color=expert_colour(expert), lw=1.8)
    axes.axhline(1.0 / N_EXPERTS, color=MUTED, lw=0.8, ls=":", zorder=0)
    axes.set_xlim(0, STEPS)
    axes.set_ylim(0.0, None)
    axes.set_xlabel("step")
    axes.set_ylabel("share of the slots")
    save(figure, "balance")


if __name__ == "__main__":
    balance()
