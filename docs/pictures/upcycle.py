"""Draws which domains experts take before and after training: `python docs/pictures/upcycle.py` writes two pictures.

upcycle.svg is of the tiny model of the page "From dense to sparse", upcycle-text.svg of the real one there with a loss
of balance of .01, from the numbers in docs/upcycle.json.
"""

import json
from pathlib import Path

import torch
from draw import MUTED, plt, save
from transformers import LlamaConfig, LlamaForCausalLM

from gatewise.nn import RouterMonitor
from gatewise.nn.hf import AuxiliaryLoss, upcycle
from gatewise.report.palette import expert_colour

SIZES = {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4}
RULES = torch.randint(0, 60, (2, 60, 2), generator=torch.Generator().manual_seed(1))


def batch(seed, n=16):
    """Sequences of two alphabets, in each of which a letter has two followers."""
    random = torch.Generator().manual_seed(seed)
    domain = torch.arange(n) % 2
    letters = [torch.randint(0, 60, (n,), generator=random)]
    for _ in range(31):
        letters.append(RULES[domain, letters[-1], torch.randint(0, 2, (n,), generator=random)])
    return torch.stack(letters, 1) + 60 * domain.unsqueeze(1), ["first", "second"] * (n // 2)


def counts(model):
    """Slots of each expert, by layer and alphabet."""
    ids, domain = batch(seed=1000, n=32)
    with RouterMonitor(model.eval(), domains="domain") as monitor, torch.no_grad():
        model(ids, domain=domain)
    return {layer: dict(zip(monitor.domains, monitor.domain_counts(layer), strict=True)) for layer in monitor.layers}


def tiny():
    """As on the page."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, num_attention_heads=4))
    upcycle(model, 4, "softmax", layers="every second", generator=torch.Generator().manual_seed(0))
    before = counts(model)
    loss = AuxiliaryLoss(model, coefficient=0.05)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for step in range(60):
        ids, _ = batch(seed=step)
        optimiser.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimiser.step()
    loss.remove()
    return {"before": before, "after": counts(model)}


def draw(found, name):
    """For each layer two bars an expert, its share of the slots of each domain; dotted is an even share."""
    layers = list(found["after"])
    figure, axes = plt.subplots(2, len(layers), figsize=(8.4, 3.8), sharey=True, sharex=True)
    for row, when in zip(axes, ("before", "after"), strict=True):
        for axis, layer in zip(row, layers, strict=True):
            for place, (domain, slots) in enumerate(found[when][layer].items()):
                places = [expert + 0.4 * place - 0.2 for expert in range(len(slots))]
                shares = [count / sum(slots) for count in slots]
                axis.bar(places, shares, 0.38, color=expert_colour(place), label=domain)
                axis.axhline(1.0 / len(slots), color=MUTED, lw=0.8, ls=":")
                axis.set_xticks(range(len(slots)))
            axis.grid(axis="x", visible=False)
        row[0].set_ylabel(f"share, {when}")
    for axis, layer in zip(axes[0], layers, strict=True):
        axis.set_title(f"layer {layer.split('.')[2]}", fontsize=10)
    for axis in axes[1]:
        axis.set_xlabel("expert")
    axes[0][0].legend(fontsize=8, loc="upper right")
    save(figure, name)


def real():
    """Counts of slots by layer and domain before and after, of the run that docs/upcycle.json keeps."""
    kept = json.loads((Path(__file__).parents[1] / "upcycle.json").read_text(encoding="utf-8"))
    routers = kept["cells"]["sparse"]["routers"]
    return {when: {layer: row[when]["domains"] for layer, row in routers.items()} for when in ("before", "after")}


if __name__ == "__main__":
    draw(real(), "upcycle-text")
    draw(tiny(), "upcycle")
