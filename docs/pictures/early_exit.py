"""Draws the frontiers of the study of exit policies, from docs/exits-study.json: writes exit-policies.svg here."""

import json
from pathlib import Path

from draw import MUTED, plt, save

from gatewise.report.palette import expert_colour

STUDY = Path(__file__).parents[1] / "exits-study.json"
POLICIES = ("max_prob", "optimal_stopping", "jei", "geometric", "patience", "fixed")
TITLES = {
    "minilm-newsgroups": "MiniLM, 20 Newsgroups",
    "fashion-conv": "conv net, Fashion-MNIST",
    "fashion-transformer": "transformer, Fashion-MNIST",
}


def frontiers():
    """Accuracy at equal cost of every policy with the common calibration, and of jointly trained heads."""
    study = json.loads(STUDY.read_text(encoding="utf-8"))
    cases = [name for name in TITLES if name in study]
    figure, every = plt.subplots(1, len(cases), figsize=(4.0 * len(cases), 3.6), squeeze=False)
    for axes, case in zip(every[0], cases, strict=True):
        costs = study[case]["costs of curves"]
        curves = {name: study[case]["frozen-calibrated"]["curves"][name] for name in POLICIES}
        curves["jei, joint"] = study[case]["joint-calibrated"]["curves"]["jei"]
        for number, (name, values) in enumerate(curves.items()):
            points = [(cost, 100 * value) for cost, value in zip(costs, values, strict=True) if value is not None]
            last = number == len(curves) - 1
            axes.plot(
                *zip(*points, strict=True), color=expert_colour(number), lw=1.6, ls="--" if last else "-", label=name
            )
        axes.set_title(TITLES[case], color=MUTED, fontsize=10)
        axes.set_xlabel("cost, share of the network")
        axes.set_xlim(0.1, 1.0)
    every[0][0].set_ylabel("accuracy, %")
    every[0][-1].legend(frameon=False, fontsize=8)
    save(figure, "exit-policies")


if __name__ == "__main__":
    frontiers()
