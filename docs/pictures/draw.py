"""Draws the pictures of the documentation: `python docs/pictures/draw.py` writes them beside this file.

The screenshot of the report needs Chromium; without it the others are drawn and the screenshot stays as it is.
"""

import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

from gatewise.datasets import load
from gatewise.estimators import GatedRegressor
from gatewise.exceptions import GatewiseWarning
from gatewise.report import write_report
from gatewise.report.palette import GRID, INK, MUTED, blend, expert_colour

FOLDER = Path(__file__).parent
mpl.use("svg")
mpl.rcParams.update(
    {
        "svg.hashsalt": "gatewise",
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
    }
)


def save(figure, name):
    """Without the date, so that the same drawing is the same file."""
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def grid(frame, feature, n=400):
    values = frame[feature]
    margin = 0.03 * (values.max() - values.min())
    return pd.DataFrame({feature: np.linspace(values.min() - margin, values.max() + margin, n)})


def draw_data(axes, regressor, frame, feature, target):
    """Rows in the mixed colours of their responsibilities, and each expert's line with a band of 1.96 σ."""
    line = grid(frame, feature)
    x, means = line[feature].to_numpy(), regressor.expert_means(line)
    for i, scale in enumerate(regressor.scale_):
        colour = expert_colour(i)
        axes.fill_between(x, means[:, i] - 1.96 * scale, means[:, i] + 1.96 * scale, color=colour, alpha=0.13, lw=0)
        axes.plot(x, means[:, i], color=colour, lw=2.2, label=f"expert {i + 1}, σ = {scale:.2g}")
    shares = regressor.responsibilities(frame[[feature]], frame[target])
    axes.scatter(frame[feature], frame[target], c=blend(shares), s=18, alpha=0.9, linewidths=0.4, edgecolors="white")
    axes.set_ylabel(target)
    axes.legend(loc="upper left", ncols=3, handlelength=1.4, bbox_to_anchor=(0.0, 1.16), borderaxespad=0.0)


def draw_gate(axes, regressor, frame, feature):
    """The gate's weights as filled shares of one."""
    line = grid(frame, feature)
    x, weights = line[feature].to_numpy(), regressor.gate_weights(line)
    below = np.zeros(len(x))
    for i in range(weights.shape[1]):
        above = below + weights[:, i]
        axes.fill_between(x, below, above, color=expert_colour(i), alpha=0.35, lw=0)
        if i:
            axes.plot(x, below, color="white", lw=1.5)
        below = above
    axes.set_ylim(0.0, 1.0)
    axes.set_yticks([0.0, 0.5, 1.0])
    axes.set_ylabel("weight π(x)")
    axes.set_xlabel(feature)
    axes.grid(visible=False)


def two_panels(width=7.2, height=5.0):
    return plt.subplots(2, 1, sharex=True, figsize=(width, height), height_ratios=[3.2, 1.0])


def tone():
    frame = load("tone").frame
    regressor = GatedRegressor(n_experts=2, random_state=0).fit(frame[["stretchratio"]], frame["tuned"])
    figure, (above, below) = two_panels()
    draw_data(above, regressor, frame, "stretchratio", "tuned")
    draw_gate(below, regressor, frame, "stretchratio")
    save(figure, "tone")


def three_readings():
    """The ordinary and the tight two-expert fits of the tone data, and the three-expert fit."""
    frame = load("tone").frame
    X, y = frame[["stretchratio"]], frame["tuned"]
    matched = (y - X["stretchratio"]).abs() < 0.004
    start = np.column_stack([matched, ~matched]).astype(float)
    fits = [
        ("ordinary", GatedRegressor(2, random_state=0)),
        ("tight", GatedRegressor(2, init=start, n_starts=1)),
        ("three experts", GatedRegressor(3, random_state=0)),
    ]
    figure, panels = plt.subplots(1, 3, sharex=True, sharey=True, figsize=(10.0, 4.0))
    for axes, (name, regressor) in zip(panels, fits, strict=True):
        regressor.fit(X, y)
        line = grid(frame, "stretchratio")
        x, means = line["stretchratio"].to_numpy(), regressor.expert_means(line)
        for i, scale in enumerate(regressor.scale_):
            low, high = means[:, i] - 1.96 * scale, means[:, i] + 1.96 * scale
            axes.fill_between(x, low, high, color=expert_colour(i), alpha=0.13, lw=0)
            axes.plot(x, means[:, i], color=expert_colour(i), lw=1.8, label=f"σ = {scale:.2g}")
        shares = regressor.responsibilities(X, y)
        axes.scatter(X["stretchratio"], y, c=blend(shares), s=13, linewidths=0.3, edgecolors="white")
        axes.set_title(f"{name}: log-likelihood {regressor.log_likelihood_:.1f}", fontsize=10, loc="left")
        axes.set_xlabel("stretchratio")
        axes.set_ylim(1.1, 3.6)
        axes.legend(loc="upper left", handlelength=1.3)
    panels[0].set_ylabel("tuned")
    save(figure, "three-readings")


def separation():
    """The anomalies: the gate that separates and the one with a ridge."""
    frame = load("temperature").frame
    X, y = frame[["Year"]], frame["AnnualAnomaly"]
    figure, panels = plt.subplots(2, 2, sharex=True, sharey="row", figsize=(9.4, 4.8), height_ratios=[3.0, 1.0])
    for column, (name, ridge) in enumerate([("no ridge: the gate separates", 0.0), ("gate_ridge=1", 1.0)]):
        regressor = GatedRegressor(2, gate_ridge=ridge, random_state=0).fit(X, y)
        draw_data(panels[0, column], regressor, frame, "Year", "AnnualAnomaly")
        draw_gate(panels[1, column], regressor, frame, "Year")
        panels[0, column].set_title(name, fontsize=10, loc="right", y=0.02, x=0.98)
    for axes in panels[:, 1]:
        axes.set_ylabel("")
    save(figure, "separation")


def gate():
    """π(x) of three experts in one dimension, and the same weights after a translation of the logits."""
    x = np.linspace(-3.0, 3.0, 401)
    slopes, biases = np.array([-2.0, 0.0, 2.0]), np.array([-1.0, 0.5, -1.5])
    figure, panels = plt.subplots(1, 2, figsize=(9.0, 3.2))
    logits = np.outer(x, slopes) + biases
    weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for i in range(3):
        label = f"β₁ = {slopes[i]:g}, β₀ = {biases[i]:g}"
        panels[0].plot(x, logits[:, i], color=expert_colour(i), lw=2.0, label=label)
        panels[0].plot(x, logits[:, i] + 1.5 * x + 2.0, color=expert_colour(i), lw=1.2, ls=":")
        panels[1].plot(x, weights[:, i], color=expert_colour(i), lw=2.0)
    panels[0].set_ylabel("logit β₁x + β₀")
    panels[0].set_ylim(-8.0, 12.0)
    panels[0].legend(loc="upper left", fontsize=9)
    panels[1].set_ylabel("weight π(x)")
    panels[1].set_ylim(0.0, 1.0)
    for axes in panels:
        axes.set_xlabel("x")
    save(figure, "gate")


def report():
    """The upper part of the report on the tone data, as a browser shows it."""
    browser = shutil.which("chromium")
    if browser is None:
        print("no chromium: report.png stays as it is")
        return
    frame = load("tone").frame
    X, y = frame[["stretchratio"]], frame["tuned"]
    regressor = GatedRegressor(n_experts=2, random_state=0).fit(X, y)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "report.html")
        write_report(regressor, page, X, y, data_name="tone")
        subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--window-size=1180,2240", "--virtual-time-budget=5000"),
                *(f"--screenshot={FOLDER / 'report.png'}", page.as_uri()),
            ],
            check=True,
            capture_output=True,
        )
    with Image.open(FOLDER / "report.png") as screenshot:
        screenshot.convert("RGB").quantize(128).save(FOLDER / "report.png", optimize=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore", GatewiseWarning)
    for draw in (tone, three_readings, separation, gate, report):
        draw()
