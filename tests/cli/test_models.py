"""`gatewise fit` and `gatewise predict` with other gates, families and objectives than the defaults."""

import json

import numpy as np
import pandas as pd
import pytest

from gatewise.estimators import GatedClassifier, GatedRegressor
from gatewise.io import ModelMetadata, load_model, save_model

pytestmark = pytest.mark.filterwarnings("ignore::gatewise.exceptions.FitWarning")

# One start and few iterations: what is tested is the way from the command line to the fit and back, not the fit.
QUICK = ["--starts", "1", "--max-iter", "30"]
SAME = {"n_starts": 1, "max_iter": 30, "random_state": 0}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a table, `d.csv`."""
    monkeypatch.chdir(tmp_path)
    table().to_csv("d.csv", index=False)
    return tmp_path


def table(n=90, seed=4) -> pd.DataFrame:
    """Targets of several kinds from two regimes."""
    rng = np.random.default_rng(seed)
    x, z, years = rng.normal(size=n), rng.normal(size=n), rng.uniform(0.5, 4.0, size=n)
    first = rng.uniform(size=n) < 1.0 / (1.0 + np.exp(-3.0 * x))
    centre = np.where(first, 0.5 + 0.5 * z, 1.5 - 0.5 * z)
    trials = rng.integers(3, 9, size=n)
    code = np.where(rng.uniform(size=n) < 0.2, 10, np.where(rng.uniform(size=n) < 1.0 / (1.0 + np.exp(-centre)), 2, -1))
    return pd.DataFrame(
        {
            "x": x,
            "z": z,
            "years": years,
            "visits": rng.poisson(years * np.exp(centre)),
            "length": centre + 0.2 * rng.normal(size=n),
            "width": 2.0 * centre + 0.5 * rng.normal(size=n),
            "wins": rng.binomial(trials, 1.0 / (1.0 + np.exp(-centre))),
            "games": trials,
            "code": code,
            "kind": np.array(["rock, hard", "sand", "clay"])[np.searchsorted([-1, 2, 10], code)],
        }
    )


def features(*names):
    return ["--features", ",".join(names or ("x", "z"))]


def statistics(outcome) -> dict:
    assert outcome.code == 0, outcome
    return json.loads(outcome.out)["statistics"]


def predictions_again(run) -> pd.DataFrame:
    """The predictions of the fit in `out`, which `gatewise predict` must repeat byte for byte."""
    assert run("predict", "out", "d.csv", "--out", "p.csv", "--level", "0.95", "--overwrite").code == 0
    with open("p.csv", "rb") as again, open("out/predictions.csv", "rb") as first:
        assert again.read() == first.read()
    return pd.read_csv("p.csv")


def test_counts_with_an_exposure(run, refused, folder):
    arguments = ["fit", "d.csv", "--target", "visits", *features(), *QUICK, "--family", "poisson"]
    outcome = run(*arguments, "--exposure", "years", "--out", "out")
    assert outcome.code == 0, outcome
    frame = table()
    estimator = GatedRegressor(family="poisson", **SAME)
    estimator.fit(frame[["x", "z"]], frame["visits"], offset=np.log(frame["years"]))
    assert f"{estimator.log_likelihood_:.4f}" in outcome.out
    # The summary, its JSON and the report say what the exposure was.
    assert "with the offset log(years)" in outcome.out.split("\n\n")[0]
    assert "with the offset log(years)" in (folder / "out" / "report.html").read_text()
    statistics = json.loads((folder / "out" / "summary.json").read_text())["statistics"]
    assert (statistics["offset"], statistics["weights"]) == ("log(years)", None)
    metadata = load_model("out").metadata
    assert (metadata.exposure_name, metadata.offset_name, metadata.class_names) == ("years", None, None)
    found = predictions_again(run)
    np.testing.assert_allclose(found["mean"], estimator.predict(frame[["x", "z"]], np.log(frame["years"])), rtol=1e-9)
    np.testing.assert_allclose(found["log_density"].sum(), estimator.log_likelihood_, rtol=1e-9)
    assert "pit" not in found
    # Features are all columns without another role.
    frame[["x", "z", "visits", "years", "games"]].to_csv("few.csv", index=False)
    roles = ["--target", "visits", "--exposure", "years", "--weights", "games"]
    weighed = run("fit", "few.csv", *roles, "--family", "poisson", *QUICK).out
    assert "(weights games)" in weighed
    note = weighed.splitlines()[0]
    assert note == "features: 'x', 'z' (all columns but the target, the weights and the exposure)"
    frame.drop(columns="years").to_csv("no.csv", index=False)
    assert "no column 'years'" in refused("predict", "out", "no.csv", "--out", "q.csv")
    frame.assign(years=frame["years"].where(frame.index != 3, 0.0)).to_csv("zero.csv", index=False)
    message = "zero.csv, line 5 of the file: the exposure 'years' is not positive (0.0); correct it, or leave"
    assert message in refused("predict", "out", "zero.csv", "--out", "q.csv")
    assert message in refused(*["zero.csv" if a == "d.csv" else a for a in arguments], "--exposure", "years")


@pytest.mark.parametrize(("target", "classes"), [("kind", ["clay", "rock, hard", "sand"]), ("code", [-1, 2, 10])])
def test_classes_by_text_and_by_whole_numbers(run, folder, target, classes):
    arguments = ["--family", "categorical", *features("x"), *QUICK, "--expert-ridge", "0.5"]
    outcome = run("fit", "d.csv", "--target", target, *arguments, "--out", "out")
    assert outcome.code == 0, outcome
    frame = table()
    estimator = GatedClassifier(expert_ridge=0.5, **SAME).fit(frame[["x"]], frame[target])
    assert estimator.classes_.tolist() == classes
    assert f"logits against {target}={classes[-1]}" in outcome.out
    names = tuple(map(str, classes))
    assert load_model("out").metadata.class_names == names
    found = predictions_again(run)
    np.testing.assert_allclose(
        found[[f"probability_{name}" for name in names]], estimator.predict_proba(frame[["x"]]), rtol=1e-9
    )
    assert found["target"].tolist() == frame[target].tolist()
    np.testing.assert_allclose(found["log_density"].sum(), estimator.log_likelihood_, rtol=1e-9)
    assert "lower" not in found
    frame.drop(columns=target).to_csv("new.csv", index=False)
    assert run("predict", "out", "new.csv", "--out", "new.parquet").code == 0
    assert list(pd.read_parquet("new.parquet")) == [c for c in found if c not in ("target", "log_density")][:-2]


def test_a_class_that_the_fit_has_not_seen(run, refused, folder):
    run("fit", "d.csv", "--target", "kind", "--family", "categorical", *features("x"), *QUICK, "--out", "out")
    table().assign(kind="chalk").to_csv("chalk.csv", index=False)
    assert "'chalk' in row 0, and the model knows the classes 'clay'" in refused(
        "predict", "out", "chalk.csv", "--out", "p.csv"
    )


@pytest.mark.parametrize(
    ("family", "targets", "options"),
    [
        ("multivariate_gaussian", ["length", "width"], ["covariance=diagonal"]),
        ("binomial", ["wins", "games"], []),
    ],
)
def test_targets_with_several_columns(run, folder, family, targets, options):
    arguments = ["fit", "d.csv", "--family", family, *features(), *QUICK, "--out", "out"]
    for option in options:
        arguments += ["--family-option", option]
    outcome = run(*arguments, *(part for target in targets for part in ("--target", target)))
    assert outcome.code == 0, outcome
    assert f"for {', '.join(targets)}, {family} family" in outcome.out
    frame = table()
    estimator = GatedRegressor(family=family, family_options=dict(o.split("=") for o in options) or None, **SAME)
    estimator.fit(frame[["x", "z"]], frame[targets])
    assert load_model("out").metadata.target_columns == tuple(targets)
    found = predictions_again(run)
    means = ["mean_1", "mean_2"] if family == "multivariate_gaussian" else "mean"
    np.testing.assert_allclose(found[means], estimator.predict(frame[["x", "z"]]), rtol=1e-9)
    assert found[["target_1", "target_2"]].to_numpy().tolist() == frame[targets].to_numpy().tolist()
    np.testing.assert_allclose(found["log_density"].sum(), estimator.log_likelihood_, rtol=1e-9)
    assert "lower" not in found
    frame.drop(columns=targets[1]).to_csv("half.csv", index=False)
    assert run("predict", "out", "half.csv", "--out", "half-p.csv").code == 0
    assert "target_1" not in pd.read_csv("half-p.csv")


@pytest.mark.parametrize(
    ("gate", "options", "given"),
    [
        ("hierarchical", ["groups=[2, 1]", "inner=laplace"], {"groups": [2, 1], "inner": "laplace"}),
        ("top_k", ["n_active=2", "select_on=logit"], {"n_active": 2, "select_on": "logit"}),
    ],
)
def test_gates_with_options(run, folder, gate, options, given):
    arguments = ["fit", "d.csv", "--target", "length", "--experts", "3", "--gate", gate, *features(), *QUICK[:3], "5"]
    for option in options:
        arguments += ["--gate-option", option]
    found = statistics(run(*arguments, "--json"))
    frame = table()
    estimator = GatedRegressor(3, gate=gate, gate_options=given, **{**SAME, "max_iter": 5})
    estimator.fit(frame[["x", "z"]], frame["length"])
    assert found["log_likelihood"] == estimator.log_likelihood_
    assert found["gate"] == gate
    assert given.items() <= found["gate_options"].items()


def test_experts_with_options_and_no_standardisation(run, folder):
    arguments = ["fit", "d.csv", "--target", "length", *features("z"), *QUICK, "--gate", "modified_softmax"]
    found = run(*arguments, "--expert", "polynomial_basis", "--expert-option", "degree=3", "--standardise", "off")
    assert "polynomial_basis experts" in found.out
    assert "z(z)" not in found.out
    assert "z(z)" in run(*arguments).out


def test_least_squares(run, folder):
    arguments = ["fit", "d.csv", "--target", "length", "--objective", "least_squares", *features(), *QUICK]
    gate = ["--gate", "sigmoid", "--gate-option", "normalised=false"]
    outcome = run(*arguments, *gate, "--out", "out")
    assert outcome.code == 0, outcome
    assert "residual sum of squares" in outcome.out
    assert "AIC" not in outcome.out
    assert json.loads((folder / "out" / "summary.json").read_text())["statistics"]["aic"] is None
    frame = table()
    estimator = GatedRegressor(
        objective="least_squares", gate="sigmoid", gate_options={"normalised": False}, **SAME
    ).fit(frame[["x", "z"]], frame["length"])
    found = predictions_again(run)
    assert list(found) == ["line", "mean", "weight_1", "weight_2"]
    np.testing.assert_allclose(found["mean"], estimator.predict(frame[["x", "z"]]), rtol=1e-9)
    # A gate that is normalised has weights that are probabilities, and still there is no distribution.
    assert run(*arguments, "--out", "out", "--overwrite").code == 0
    assert load_model("out").metadata.objective == "least_squares"
    assert list(predictions_again(run)) == ["line", "mean", "weight_1", "weight_2"]


def test_an_offset_that_python_saved(run, refused, folder):
    frame = table().assign(log_years=lambda f: np.log(f["years"]))
    frame.to_csv("d.csv", index=False)
    estimator = GatedRegressor(family="poisson", **SAME)
    estimator.fit(frame[["x", "z"]], frame["visits"], offset=frame["log_years"])
    names = ("x", "z")
    metadata = ModelMetadata(
        feature_names=names, gate_feature_names=names, target_name="visits", offset_name="log_years"
    )
    save_model("model", estimator.model_, metadata=metadata)
    assert run("predict", "model", "d.csv", "--out", "p.csv").code == 0
    expected = estimator.predict(frame[["x", "z"]], frame["log_years"])
    np.testing.assert_allclose(pd.read_csv("p.csv")["mean"], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gate-option", "tau=1"], "the gate 'softmax' has no option 'tau': it takes no options"),
        (["--gate-option", "tau"], "--gate-option must be written as NAME=VALUE, not 'tau'"),
        (["--gate", "cosine", "--gate-option", "tau=1"], "the gate 'cosine' has no option 'tau': it has temperature, "),
        (["--gate", "gaussian", "--gate-option", "joint=no"], "the option 'joint' of the gate 'gaussian' is true or "),
        (["--expert", "callable"], "the expert 'callable' needs the option 'function'"),
        (["--expert-option", "degree=2"], "the expert 'linear' has no option 'degree': it takes no options"),
        (["--family-option", "df=2"], "the family 'gaussian' has no option 'df': it takes no options"),
        (["--gate", "hierarchical", "--gate-option", "groups=[2,1]"], "the groups [2, 1] hold 3 experts, not 2"),
        (["--gate", "sigmoid", "--gate-option", "normalised=false"], "the weights of the sigmoid gate are not normal"),
        (["--exposure", "years"], "the gaussian family has no offset: only families with a log link do"),
        (["--exposure", "x"], "the column 'x' is the exposure and cannot be a feature too; leave it out"),
        (["--exposure", "kind", "--family", "poisson"], "the exposure 'kind' must be numeric"),
        (["--family", "poisson"], "the target is "),
        (["--family", "multivariate_gaussian"], "y has shape (90,): targets with several columns are a table"),
        (["--target", "width"], "y should be a 1d array, got an array of shape (90, 2)"),
        (["--target", "length"], "the column 'length' is named twice among the columns of the target"),
        (["--expert-ridge", "-1"], "expert_ridge must be a non-negative number, not -1.0"),
        (["--objective", "least_squares", "--variance-prior", "1", "1"], "variance_prior belongs to the likelihood"),
    ],
)
def test_what_is_refused(refused, folder, arguments, message):
    assert message in refused("fit", "d.csv", "--target", "length", *features(), *QUICK, *arguments)


@pytest.mark.parametrize(
    ("target", "arguments", "message"),
    [
        ("length", [], "the target 'length' must name classes, by text or whole numbers, but is '"),
        ("kind", ["--target", "code"], "classes are one column, and the target has 2: name one"),
        ("kind", ["--exposure", "years"], "the categorical family has no exposure: only families of counts do"),
        ("kind", ["--shared-scale"], "--shared-scale has no meaning for the categorical family, which has no scale"),
        ("kind", ["--scale-floor", "0.1"], "--scale-floor has no meaning for the categorical family"),
        ("kind", ["--variance-prior", "1", "1"], "--variance-prior has no meaning for the categorical family"),
        ("kind", ["--objective", "least_squares"], "--objective least_squares needs targets that are numbers"),
        ("kind", ["--family-option", "n_classes=3"], "--family-option has no meaning for classes: their number is"),
    ],
)
def test_what_is_refused_for_classes(refused, folder, target, arguments, message):
    family = ["--family", "categorical"]
    assert message in refused("fit", "d.csv", "--target", target, *features(), *QUICK, *family, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--objective", "both"], "Invalid value for '--objective'"),
        (["--standardise", "yes"], "Invalid value for '--standardise'"),
    ],
)
def test_usage_errors(run, folder, arguments, message):
    outcome = run("fit", "d.csv", "--target", "length", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert f"Error: {message}" in outcome.err
