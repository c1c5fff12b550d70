"""Draws the picture of the page on the modulus, from the measured table: `python docs/pictures/theory_modulus.py`."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
from draw import save

from gatewise.report.palette import MUTED, expert_colour

TABLE = Path(__file__).parents[1] / "theory" / "modulus-table.json"
SHOWN = [
    ("softmax-linear", "exact", "experts.bias[0]", "b, exact"),
    ("laplace-1d", "two atoms for one, W inside the support", "gate.centre[0,0]", "W of a Laplace gate, two atoms"),
    ("softmax-linear", "two atoms for one", "gate.weight[0,0]", "β₁, two atoms"),
    ("softmax-linear", "three atoms for one", "experts.log_scale[0]", "σ, three atoms"),
    ("softmax-linear", "two atoms for one", "experts.bias[0]", "b, two atoms"),
    ("softmax-linear", "three atoms for one", "experts.bias[0]", "b, three atoms"),
]
FLOORS = 300


def main() -> None:
    table = {(row["case"], row["setting"], row["parameter"]): row for row in json.loads(TABLE.read_text())}
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.9), width_ratios=(1.2, 1.0))
    for i, (case, setting, parameter, label) in enumerate(SHOWN):
        row = table[case, setting, parameter]["measured"]
        used = [j for j, above in enumerate(row["above_floor"]) if above > FLOORS]
        deltas = [row["deltas"][j] for j in used]
        colour = expert_colour(i)
        left.loglog(deltas, [row["distances"][j] for j in used], "o-", ms=3, color=colour, label=label)
        right.semilogx(deltas[1:], [row["slopes"][j - 1] for j in used[1:]], "o-", ms=3, color=colour)
        right.annotate(f"{row['exponent']:.2f}", (deltas[-1], row["exponent"]), (-4, 3), textcoords="offset points",
                       ha="right", fontsize=8, color=colour)  # fmt: skip
    floor = max(
        row["measured"]["distances"][0] / row["measured"]["above_floor"][0]
        for key, row in table.items()
        if key[:3] in {shown[:3] for shown in SHOWN}
    )
    left.axhline(floor, color=MUTED, lw=1.2, ls=(0, (4, 2)))
    left.annotate("rounding", (0.3, floor), (0, 3), textcoords="offset points", ha="right", fontsize=8, color=MUTED)
    left.set_xlabel("displacement δ")
    left.set_ylabel("least distance w(δ)")
    left.legend(loc="upper center", bbox_to_anchor=(0.95, -0.2), fontsize=8, ncols=3, handlelength=1.4)
    right.set_xlabel("displacement δ")
    right.set_ylabel("slope of log w against log δ")
    right.set_xlim(left=2e-5)
    save(figure, "modulus")


if __name__ == "__main__":
    main()
