"""Draws which domains experts take, from the kept counts: `python docs/pictures/upcycle.py` writes upcycle.svg here.

`python docs/pictures/upcycle.py benchmarks/out/upcycle/sparse.json` keeps the counts of a run anew first.
"""

import json
import sys
from pathlib import Path

from draw import MUTED, plt, save

from gatewise.report.palette import expert_colour

KEPT = Path(__file__).with_name("upcycle.json")


def keep(record):
    """The counts of slots of each layer, by domain, before and after."""
    content = json.loads(Path(record).read_text(encoding="utf-8"))
    kept = {
        when: {layer: row["domains"] for layer, row in content[f"monitor {when}"].items()}
        for when in ("before", "after")
    }
    KEPT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def draw():
    """For each layer two bars an expert, its share of the slots of each domain; dotted is an even share."""
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    layers = list(kept["after"])
    figure, axes = plt.subplots(2, len(layers), figsize=(8.4, 3.8), sharey=True, sharex=True)
    for row, when in zip(axes, ("before", "after"), strict=True):
        for axis, layer in zip(row, layers, strict=True):
            for place, (domain, counts) in enumerate(kept[when][layer].items()):
                shares = [count / sum(counts) for count in counts]
                places = [expert + 0.4 * place - 0.2 for expert in range(len(counts))]
                axis.bar(places, shares, 0.38, color=expert_colour(place), label=domain)
                axis.axhline(1.0 / len(counts), color=MUTED, lw=0.8, ls=":")
            axis.grid(axis="x", visible=False)
        row[0].set_ylabel(f"share, {when}")
    for axis, layer in zip(axes[0], layers, strict=True):
        axis.set_title(f"layer {layer.split('.')[2]}", fontsize=10)
    for axis in axes[1]:
        axis.set_xlabel("expert")
        axis.set_xticks(range(0, 8, 2))
    axes[0][0].legend(fontsize=8, loc="upper left")
    save(figure, "upcycle")


if __name__ == "__main__":
    for record in sys.argv[1:]:
        keep(record)
    draw()
