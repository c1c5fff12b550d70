"""Draws the picture of the page on rate studies, from the kept points: `python docs/pictures/study.py`."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from draw import save

from gatewise.report.palette import MUTED, expert_colour

KEPT = Path(__file__).parents[1] / "theory" / "simulated.json"
SHOWN = ("softmax-gaussian-exact", "k2", "loss.D1")


def main() -> None:
    study, method, measure = SHOWN
    entry = json.loads(KEPT.read_text(encoding="utf-8"))[study]
    points = next(each for each in entry["points"] if (each["method"], each["measure"]) == (method, measure))
    sizes = np.array(points["sizes"], dtype=float)
    quartiles = np.array(points["quartiles"])
    figure, axis = plt.subplots(figsize=(7.2, 3.9))
    axis.fill_between(sizes, quartiles[:, 0], quartiles[:, 1], color=expert_colour(0), alpha=0.15, lw=0)
    for place, statistic in enumerate(("mean", "median")):
        colour = expert_colour(place)
        slope = next(
            each["slope"]
            for each in entry["slopes"]
            if (each["method"], each["measure"], each["statistic"]) == (method, measure, statistic)
        )
        values = np.array(points[statistic])
        label = f"{statistic}: {slope['value']:.3f} [{slope['low']:.3f}, {slope['high']:.3f}]"
        axis.loglog(sizes, values, "o", ms=2.5, color=colour)
        centre = np.log(sizes).mean()
        line = np.exp(np.log(values).mean() + slope["value"] * (np.log(sizes) - centre))
        axis.loglog(sizes, line, color=colour, label=label)
    reference = np.exp(np.log(points["mean"]).mean() - 0.5 * (np.log(sizes) - centre))
    axis.loglog(sizes, reference, color=MUTED, ls=(0, (4, 2)), lw=1.2, label="proved: −1/2")
    axis.set_xlabel("sample size n")
    axis.set_ylabel("loss D1")
    axis.legend(fontsize=9)
    save(figure, "study")


if __name__ == "__main__":
    main()
