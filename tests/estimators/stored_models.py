"""Fitted estimators of many kinds, and all that one can ask of them; `python -m tests.estimators.stored_models FOLDER`.

As a program it loads every estimator of a folder in its own, fresh process and writes what it says.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import gatewise
from gatewise.exceptions import GatewiseWarning
from gatewise.experts import LinearExperts
from gatewise.families import StudentT
from gatewise.fit.constraints import Constraints
from gatewise.gates import CosineGate

N = 90
LEVELS = ("city", "hill", "sea")


def make_data():
    """X as an array and as a frame with a coded category, and targets of all kinds."""
    rng = np.random.default_rng(3)
    x = rng.uniform(-1.0, 1.0, size=(N, 2))
    place = rng.integers(3, size=N)
    frame = pd.DataFrame({"age": 40.0 + 10.0 * x[:, 0], "income": 1e4 * (2.0 + x[:, 1])})
    for code, level in enumerate(LEVELS[1:], start=1):
        frame[f"place={level}"] = place == code
    first = rng.uniform(size=N) < 1.0 / (1.0 + np.exp(-2.0 * x[:, 0]))
    line = np.where(first, 1.0 + x[:, 1], -1.0 - 0.5 * x[:, 1])
    years = pd.Series(np.log(rng.uniform(0.5, 2.0, size=N)), name="log years")
    noise = rng.normal(size=(N, 2))
    return {
        "x": x,
        "frame": frame,
        "years": years,
        "y": pd.Series(line + 0.3 * noise[:, 0], name="wage"),
        "counts": rng.poisson(np.exp(0.6 * line + years.to_numpy())).astype(float),
        "times": np.exp(0.5 * line) * rng.gamma(4.0, 0.25, size=N),
        "plane": pd.DataFrame({"east": line + 0.3 * noise[:, 0], "north": -line + 0.4 * noise[:, 1]}),
        "heavy": line + 0.2 * rng.standard_t(3.0, size=N),
        "labels": np.array(["high", "low", "middle"])[np.digitize(line + noise[:, 0], [-0.7, 0.7])],
        "successes": np.column_stack([rng.binomial(8, 1.0 / (1.0 + np.exp(-line))), np.full(N, 8)]).astype(float),
    }


def held_model():
    """Prototypes of all parts, of which one intercept is held and two slopes are tied."""
    gate = CosineGate(2, 2)
    constraints = Constraints(
        frozen={"experts.bias": [True, False]}, tied=[[("experts.weight", (0, 0)), ("experts.weight", (1, 0))]]
    )
    experts = LinearExperts(2, 2, n_dispersion=2)
    return {"gate": gate, "expert": experts, "family": StudentT(), "constraints": constraints}


def cases():
    """Estimator, names of X, y and offset in the data, by name."""
    regressor, classifier = gatewise.GatedRegressor, gatewise.GatedClassifier
    few = {"n_starts": 1, "random_state": 1}
    return {
        "gaussian": (regressor(shared_scale=True, n_starts=4, random_state=1), "x", "y", None),
        "poisson": (regressor(expert_features=["age", "income"], family="poisson", **few), "frame", "counts", "years"),
        "laplace": (regressor(gate="laplace", max_iter=5, **few), "frame", "y", None),
        "gamma": (
            regressor(
                family="gamma", expert="polynomial_basis", expert_options={"degree": 2}, n_starts=8, random_state=1
            ),
            "x",
            "times",
            None,
        ),
        "classes": (classifier(gate_features=["income"], expert_ridge=0.1, **few), "frame", "labels", None),
        "plane": (
            regressor(gate="gaussian", gate_options={"joint": True}, family="multivariate_gaussian", **few),
            "x",
            "plane",
            None,
        ),
        "student": (
            regressor(gate="cosine", family="student_t", family_options={"df": 4.0}, **few),
            "frame",
            "heavy",
            None,
        ),
        "negative binomial": (
            regressor(
                3,
                gate="top_k",
                gate_options={"inner": "softmax", "n_active": 2},
                family="negative_binomial",
                gate_features=(0,),
                max_iter=5,
                **few,
            ),
            "x",
            "counts",
            None,
        ),
        "tree": (
            regressor(3, gate="hierarchical", gate_options={"groups": [2, 1]}, max_iter=5, **few),
            "frame",
            "y",
            None,
        ),
        "network": (
            regressor(expert="feed_forward", expert_options={"hidden": 2}, expert_ridge=0.01, max_iter=5, **few),
            "x",
            "y",
            None,
        ),
        "squares": (
            regressor(gate="sigmoid", gate_options={"normalised": False}, objective="least_squares", max_iter=5, **few),
            "frame",
            "y",
            None,
        ),
        "held": (regressor(**held_model(), max_iter=5, **few), "x", "heavy", None),
        "binomial": (
            regressor(
                family="binomial", init="split", variance_prior=None, n_starts=1, random_state=np.random.default_rng(5)
            ),
            "x",
            "successes",
            None,
        ),
    }


def said_by(estimator, X, y, offset):
    """Everything that an estimator says about some data, by name."""
    given = {} if offset is None else {"offset": offset}
    said = {"predict": estimator.predict(X, **given), "gate_weights": estimator.gate_weights(X)}
    said["score"] = estimator.score(X, y, **given)
    said["text"] = np.array([estimator.summary().to_text(), estimator.summary(0.8).to_json(), str(estimator.status_)])
    said["covariance"] = estimator.covariance_.to_numpy()
    said["parameters"] = estimator.parameters_.to_csv()
    if estimator.result_.kind == "likelihood":
        for name in ("predict_log_density", "responsibilities", "score_log_density"):
            said[name] = getattr(estimator, name)(X, y, **given)
        if estimator.model_.family.name != "binomial":
            said["sample"] = estimator.sample(X, random_state=7, **given)
    for name in ("predict_proba", "decision_function", "expert_probabilities"):
        if hasattr(estimator, name):
            said[name] = getattr(estimator, name)(X)
    if hasattr(estimator, "expert_means"):
        said["expert_means"] = estimator.expert_means(X, **given)
    if hasattr(estimator, "predict_interval") and estimator.result_.kind == "likelihood":
        family = estimator.model_.family
        if not family.event_size:
            said["interval"] = estimator.predict_interval(X, **given)
    fitted = {name: value for name, value in vars(estimator).items() if name.endswith("_") and not name.startswith("_")}
    said["attributes"] = np.array(sorted(fitted))
    return {name: np.asarray(value) for name, value in said.items()}


def fit_all():
    """The estimators of all cases, fitted."""
    data = make_data()
    fitted = {}
    for name, (estimator, x, y, offset) in cases().items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GatewiseWarning)
            estimator.fit(data[x], data[y], **({} if offset is None else {"offset": data[offset]}))
        fitted[name] = estimator
    return fitted


def main(folder):
    """Load all estimators of a folder and write what they say."""
    data = make_data()
    for name, (estimator, x, y, offset) in cases().items():
        loaded = type(estimator).load(folder / name)
        said = said_by(loaded, data[x], data[y], None if offset is None else data[offset])
        np.savez(folder / f"{name}.npz", **said)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
