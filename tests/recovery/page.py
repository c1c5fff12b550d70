"""The table, the truths and the picture of the page on parameter recovery, from the measured figures."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from tests.recovery.truths import EXPERTS, TRUTHS, Truth

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "recovery.md"
PICTURE = DOCS / "pictures" / "recovery.svg"

Figures = dict[str, dict[str, Any]]


def table(figures: Figures) -> str:
    """One line per truth: what was measured, and nothing else."""
    lines = [
        "| gate | identified parameters | quantities | largest \\|z\\| | mean z² | LR / parameters | seconds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for truth in TRUTHS:
        if truth.title not in figures:
            continue
        found = figures[truth.title]
        z, m = np.array(found["z"]), found["n_parameters"]
        lines.append(
            f"| {truth.title} | {m} | {z.shape[1]} | {np.abs(z).max():.2f} | {(z**2).mean():.2f} | "
            f"{np.mean(found['gain']) / m:.2f} | {np.median(found['seconds']):.1f} |"
        )
    return "\n".join(lines)


def truths() -> str:
    """The parameters of all truths, as they stand in the code."""
    lines = ["experts, in their order: slopes, intercept, σ"]
    lines += [f"  {slopes}  {intercept:g}  {scale:g}" for slopes, intercept, scale in EXPERTS]
    for truth in TRUTHS:
        lines += ["", f"{truth.title}: {_how(truth)}"]
        lines += [f"  {name} = {_shown(value)}" for name, value in truth.parameters.items()]
    return "\n".join(lines)


def _how(truth: Truth) -> str:
    inputs = {
        "normal": "x from N(0, I)",
        "uniform": "x uniform on [−2, 2]³",
        "gate": "x from the gate's own Gaussian mixture",
    }
    units = "" if truth.standardise == "auto" else ", fitted in the inputs' own units"
    return f"k = {truth.n_experts}, {inputs[truth.inputs]}{units}"


def _shown(value: Any) -> str:
    return str(np.round(np.array(value), 4).tolist()).replace("-", "−")


def replaced(page: str, name: str, content: str) -> str:
    """The page with new content between the marks of that name."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end of {name} -->)", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"the page has no marks for {name!r}")
    return pattern.sub(lambda match: match[1] + content + match[2], page)


def rendered(page: str, figures: Figures) -> str:
    """The page with the present table and truths."""
    page = replaced(page, "table", table(figures))
    return replaced(page, "truths", f"```\n{truths()}\n```")


def write_page(figures: Figures) -> None:
    """Bring the page up to date."""
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8"), figures), encoding="utf-8")


def draw(figures: Figures) -> None:
    """All z of each truth on a line, and the quantiles of all together against those of the normal distribution."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    from gatewise.report.palette import GRID, INK, MUTED, expert_colour

    style = {
        "svg.hashsalt": "gatewise",
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "xtick.color": MUTED,
        "ytick.color": INK,
    }
    titles = [truth.title for truth in TRUTHS if truth.title in figures]
    with mpl.rc_context(style):
        size = {"figsize": (10.0, 0.24 * len(titles) + 1.2), "width_ratios": (3, 2)}
        figure, (left, right) = plt.subplots(1, 2, layout="constrained", **size)
        for place, title in enumerate(titles):
            z = np.ravel(figures[title]["z"])
            left.plot(z, np.full(len(z), place), "|", color=expert_colour(0), alpha=0.35, markersize=7)
        for bound in (-5.0, 5.0):
            left.axvline(bound, color=expert_colour(1), linewidth=1.0)
        left.set_yticks(range(len(titles)), titles)
        left.set_ylim(len(titles) - 0.5, -0.5)
        left.set_xlabel("(estimate − truth) / standard error")
        every = np.sort(np.concatenate([np.ravel(figures[title]["z"]) for title in titles]))
        expected = norm.ppf((np.arange(len(every)) + 0.5) / len(every))
        right.plot(expected, expected, color=MUTED, linewidth=1.0)
        right.plot(expected, every, ".", color=expert_colour(0), markersize=3)
        right.set_xlabel("normal quantile")
        right.set_ylabel(f"quantile of all {len(every):,} together")
        figure.savefig(PICTURE, metadata={"Date": None})
        plt.close(figure)
