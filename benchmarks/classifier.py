"""Held-out log-loss of `GatedClassifier`, a tuned logistic regression and tuned gradient boosting, on three problems.

    python benchmarks/classifier.py                     all three, then the table and the picture
    python benchmarks/classifier.py --problem wine      one of them; what the others wrote before stays
    python benchmarks/classifier.py --picture           the table and the picture from what was written before

Twenty stratified splits, a quarter of the rows held out. Everything is tuned inside the training rows alone, by
three-fold cross-validation on the log-loss, on the same folds for every classifier. All see the same columns.
"""

import os

# Read once, when the libraries are loaded: these have to stand before the imports.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", NUMBA_NUM_THREADS="1")

import argparse
import importlib.util
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from rich.console import Console
from rich.table import Table
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, StratifiedKFold, StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from common import OUTPUT, machine, write_json
from gatewise.estimators import GatedClassifier
from gatewise.exceptions import GatewiseWarning

N_SPLITS = 20
HELD_OUT = 0.25
RIDGES = (0.1, 1.0, 10.0)
FOLDS = 3
OURS = "GatedClassifier"
OTHERS = ("LogisticRegression", "HistGradientBoosting")
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "classifier-study.svg"


@dataclass(frozen=True)
class Problem:
    """A data set with what all classifiers do to its columns first.

    Attributes:
        x: features, (n, d).
        y: class codes, (n,).
        steps: transformers in front of every classifier, made anew each time.
        n_experts: the numbers of experts tried.
        n_starts: starts of each fit of `GatedClassifier`.
    """

    x: np.ndarray
    y: np.ndarray
    steps: Callable[[], list[BaseEstimator]]
    n_experts: tuple[int, ...]
    n_starts: int


def regimes(n: int = 1_000, d: int = 5, seed: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """Three classes whose logits change sign with the first feature: below 0 they are Ax, above −Ax, softly."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, d))
    coefficients = random.normal(size=(2, d))
    sign = np.where(random.uniform(size=n) < 1.0 / (1.0 + np.exp(-4.0 * x[:, 0])), -1.0, 1.0)
    logits = np.column_stack([sign[:, None] * (x @ coefficients.T), np.zeros(n)])
    return x, (logits + random.gumbel(size=logits.shape)).argmax(axis=1)


def problem_named(name: str) -> Problem:
    """One of the three problems."""
    if name == "regimes":
        return Problem(*regimes(), list, (1, 2, 3, 4), 3)
    if name == "wine":
        return Problem(*load_wine(return_X_y=True), list, (1, 2, 3, 4), 3)
    return Problem(*load_digits(return_X_y=True), lambda: [PCA(10, random_state=0)], (1, 2, 3, 4), 2)


NAMES = ("regimes", "wine", "digits")


def searches(problem: Problem, seed: int) -> dict[str, GridSearchCV]:
    """The classifiers, each with its grid."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)

    def search(grids: list[dict[str, list[Any]]], *steps: BaseEstimator) -> GridSearchCV:
        pipeline = make_pipeline(*problem.steps(), *steps)
        last = pipeline.steps[-1][0]
        named = [{f"{last}__{name}": values for name, values in grid.items()} for grid in grids]
        return GridSearchCV(pipeline, named, scoring="neg_log_loss", cv=folds, error_score="raise")

    # One ridge for gate and experts; 1 is C = 1 of the logistic regression.
    gated = [{"n_experts": list(problem.n_experts), "expert_ridge": [ridge], "gate_ridge": [ridge]} for ridge in RIDGES]
    boosting = {"learning_rate": [0.03, 0.1], "max_leaf_nodes": [4, 15], "max_iter": [50, 200]}
    return {
        OURS: search(gated, GatedClassifier(n_starts=problem.n_starts, random_state=seed)),
        OTHERS[0]: search([{"C": list(np.logspace(-3, 3, 13))}], StandardScaler(), LogisticRegression(max_iter=10_000)),
        OTHERS[1]: search([boosting], HistGradientBoostingClassifier(early_stopping=False, random_state=seed)),
    }


def evaluate(problem: Problem, split: int, train: np.ndarray, test: np.ndarray) -> dict[str, dict[str, Any]]:
    """Each classifier on one split: held-out log-loss and accuracy, what was chosen, CPU seconds, how the fit ended."""
    results = {}
    for name, search in searches(problem, split).items():
        begin = time.process_time()
        search.fit(problem.x[train], problem.y[train])
        seconds = time.process_time() - begin
        probabilities = search.predict_proba(problem.x[test])
        last = search.best_estimator_[-1]
        results[name] = {
            "log_loss": float(log_loss(problem.y[test], probabilities, labels=search.classes_)),
            "accuracy": float((search.classes_[probabilities.argmax(axis=1)] == problem.y[test]).mean()),
            "chosen": {key.rpartition("__")[2]: value for key, value in search.best_params_.items()},
            "cpu_seconds": seconds,
            "status": last.status_.name if isinstance(last, GatedClassifier) else None,
        }
    return results


def run(name: str, console: Console) -> dict[str, Any]:
    """All splits of one problem."""
    problem = problem_named(name)
    splitter = StratifiedShuffleSplit(N_SPLITS, test_size=HELD_OUT, random_state=0)
    splits, sizes = [], (0, 0)
    for split, (train, test) in enumerate(splitter.split(problem.x, problem.y)):
        sizes = len(train), len(test)
        splits.append(evaluate(problem, split, train, test))
        losses = ", ".join(f"{classifier} {result['log_loss']:.4f}" for classifier, result in splits[-1].items())
        console.print(f"{name}, split {split + 1} of {N_SPLITS}: {losses}")
    return {
        "rows": len(problem.y),
        "columns": problem.x.shape[1],
        "classes": len(np.unique(problem.y)),
        "train_rows": sizes[0],
        "test_rows": sizes[1],
        "n_starts": problem.n_starts,
        "splits": splits,
        "machine": machine() | {"scikit-learn": sklearn.__version__, "date": datetime.now(UTC).date().isoformat()},
    }


def paired(study: dict[str, Any], other: str) -> tuple[float, float, np.ndarray]:
    """Mean difference of the log-losses, GatedClassifier less another; half a 95 % interval; the differences.

    Splits share rows, so their differences are correlated. The variance of their mean is taken as (1/J + n₂/n₁) s²
    for J splits with n₁ rows to train and n₂ to test (Nadeau and Bengio 2003), with J − 1 degrees of freedom.
    """
    differences = np.array([split[OURS]["log_loss"] - split[other]["log_loss"] for split in study["splits"]])
    inflation = 1.0 / len(differences) + study["test_rows"] / study["train_rows"]
    half = stats.t.ppf(0.975, len(differences) - 1) * np.sqrt(inflation * differences.var(ddof=1))
    return float(differences.mean()), float(half), differences


def tables(studies: dict[str, dict[str, Any]]) -> list[str]:
    """Two tables in Markdown: what came out, and the paired differences."""
    lines = [
        "| problem | classifier | log-loss, mean (sd) | accuracy | CPU s per split, with tuning | chosen most often |",
        "|---|---|---:|---:|---:|---|",
    ]
    for name, study in studies.items():
        for classifier in (OURS, *OTHERS):
            results = [split[classifier] for split in study["splits"]]
            losses = np.array([result["log_loss"] for result in results])
            accuracy = np.mean([result["accuracy"] for result in results])
            seconds = np.mean([result["cpu_seconds"] for result in results])
            chosen = [json.dumps(result["chosen"], sort_keys=True) for result in results]
            common = max(sorted(set(chosen)), key=chosen.count)
            what = ", ".join(f"{key} {value:.3g}" for key, value in json.loads(common).items())
            lines.append(
                f"| {name} | {classifier} | {losses.mean():.4f} ({losses.std(ddof=1):.4f}) | {accuracy:.3f} | "
                f"{seconds:.1f} | {what}: {chosen.count(common)} of {len(chosen)} |"
            )
    lines += ["", "| problem | GatedClassifier less | mean difference | 95 % interval | splits in its favour |"]
    lines.append("|---|---|---:|---:|---:|")
    for name, study in studies.items():
        for other in OTHERS:
            mean, half, differences = paired(study, other)
            interval = f"{mean - half:+.4f} to {mean + half:+.4f}"
            better = f"{int((differences < 0.0).sum())} of {len(differences)}"
            lines.append(f"| {name} | {other} | {mean:+.4f} | {interval} | {better} |")
    return lines


def draw(studies: dict[str, dict[str, Any]]) -> None:
    """Every split's difference as a dot, their mean with its interval as a bar."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    from gatewise.report.palette import INK, MUTED, expert_colour

    mpl.rcParams.update({"svg.hashsalt": "gatewise", "font.size": 10, "text.color": INK, "axes.edgecolor": MUTED})
    figure, panels = plt.subplots(1, len(studies), figsize=(10.0, 2.9), sharey=True, constrained_layout=True)
    for axes, (name, study) in zip(np.atleast_1d(panels), studies.items(), strict=True):
        axes.axvline(0.0, color=MUTED, lw=1.0)
        for row, other in enumerate(OTHERS):
            mean, half, differences = paired(study, other)
            heights = row + np.linspace(-0.22, 0.22, len(differences))
            axes.scatter(differences, heights, s=12, color=expert_colour(row), alpha=0.45, linewidths=0.0)
            axes.errorbar(mean, row, xerr=half, color=expert_colour(row), lw=2.2, capsize=4, marker="o", ms=6)
        axes.set_title(name, fontsize=10, loc="left")
        axes.set_yticks(range(len(OTHERS)), [f"against\n{other}" for other in OTHERS])
        axes.set_ylim(len(OTHERS) - 0.5, -0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("difference of held-out log-loss")
    figure.savefig(PICTURE, metadata={"Date": None})


def written() -> dict[str, Any]:
    """What the last runs wrote."""
    path = OUTPUT / "classifier.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def main() -> None:
    """Read the options, run, print, write, draw."""
    parser = argparse.ArgumentParser(description="Compare classifiers by their held-out log-loss.")
    parser.add_argument("--problem", choices=NAMES, help="run one problem only")
    parser.add_argument("--picture", action="store_true", help="run none: table and picture from the last runs")
    arguments = parser.parse_args()
    # The picture is drawn last: what it needs should not be missing only then.
    if importlib.util.find_spec("matplotlib") is None:
        parser.error("the picture needs matplotlib: pip install -c constraints.txt -e '.[docs]'")
    console = Console(width=None if sys.stdout.isatty() else 160)
    warnings.simplefilter("ignore", GatewiseWarning)
    wanted = () if arguments.picture else NAMES if arguments.problem is None else (arguments.problem,)
    for name in wanted:
        study = run(name, console)
        # Read only now: another problem may have been written meanwhile.
        write_json("classifier.json", written() | {name: study})
    everything = written()
    studies = {name: everything[name] for name in NAMES if name in everything}
    console.print("\n".join(tables(studies)))
    endings = [(name, split[OURS]["status"]) for name, study in studies.items() for split in study["splits"]]
    summary = Table(title="How the chosen GatedClassifier ended")
    for heading in ("problem", "status", "splits"):
        summary.add_column(heading)
    for ending in sorted(set(endings)):
        summary.add_row(*ending, str(endings.count(ending)))
    console.print(summary)
    draw(studies)
    console.print(f"Drawn: {PICTURE}")


if __name__ == "__main__":
    main()
