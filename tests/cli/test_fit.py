"""`gatewise fit`: what it prints, what it writes, and what it refuses."""

import json
import shlex

import numpy as np
import pandas as pd
import pytest

from gatewise import datasets
from gatewise.cli.words import for_command_line
from gatewise.estimators import GatedRegressor
from gatewise.io import load_model
from tests.report.pages import Page

FILES = [
    "model/config.json",
    "model/weights.safetensors",
    "model/fit.json",
    "model/fit.safetensors",
    "summary.json",
    "summary.txt",
    "predictions.csv",
    "report.html",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def timeless(summary: str) -> dict:
    """A summary's JSON without the time that the fit took."""
    content = json.loads(summary)
    assert content["statistics"].pop("seconds") > 0
    return content


def two_lines(n=60, seed=3) -> pd.DataFrame:
    """Rows around two lines, chosen by x, with a text column that shifts the target and a weight."""
    random = np.random.default_rng(seed)
    x = random.uniform(-1, 1, n)
    group = random.choice(["north", "south", "west"], n)
    first = random.uniform(size=n) < 1 / (1 + np.exp(-3 * x))
    shift = np.where(group == "south", 1.0, 0.0)
    y = np.where(first, 1 + 2 * x, -1 - x) + shift + 0.1 * random.standard_normal(n)
    return pd.DataFrame({"y": y, "x": x, "group": group, "w": random.uniform(0.5, 2.0, n)})


def test_the_summary_is_the_estimators(run, folder):
    outcome = run("fit", "tone", "--target", "tuned", "--seed", "0", "--starts", "4", "--json")
    assert (outcome.code, outcome.err) == (0, "features: 'stretchratio' (the usual ones of this data set)\n")
    frame = datasets.load("tone").frame
    estimator = GatedRegressor(n_starts=4, random_state=0).fit(frame[["stretchratio"]], frame["tuned"])
    summary = timeless(outcome.out)
    assert summary["statistics"]["log_likelihood"] == estimator.log_likelihood_
    assert summary == timeless(for_command_line(estimator).summary(0.95).to_json())
    # The maximum with the gate on stretchratio, from an independent program with an exact Hessian.
    assert summary["statistics"]["log_likelihood"] == pytest.approx(142.84801414175612, rel=1e-9)
    assert list(folder.iterdir()) == []


def test_text_is_printed_with_what_was_coded(run, folder):
    two_lines().to_csv(folder / "d.csv", index=False)
    outcome = run("fit", "d.csv", "--target", "y", "--weights", "w", "--starts", "2")
    lines = outcome.out.splitlines()
    assert lines[:3] == [
        "features: 'x', 'group' (all columns but the target and the weights)",
        "coded the column 'group' as 'group=south', 'group=west'; the reference level is 'north', the first in sorted "
        "order",
        "",
    ]
    assert lines[3].startswith("Mixture of 2 linear experts for y")
    assert "Status: WEAK_SEARCH." in outcome.out
    assert "group=south" in outcome.out
    assert sorted(path.name for path in folder.iterdir()) == ["d.csv"]


def test_options_reach_the_estimator(run, folder):
    frame = two_lines()
    frame.to_csv(folder / "d.csv", index=False)
    outcome = run(
        "fit", "d.csv", "--target", "y", "--features", "x,group", "--gate-features", "x", "--experts", "3",
        "--expert", "constant", "--shared-scale", "--seed", "5", "--starts", "3", "--max-iter", "300", "--tol", "1e-7",
        "--scale-floor", "0.01", "--gate-ridge", "0.5", "--weights", "w", "--level", "0.8", "--json",
    )  # fmt: skip
    assert outcome.code == 0
    assert outcome.err.startswith("coded the column 'group' as 'group=south', 'group=west';")
    design = pd.DataFrame(
        {"x": frame["x"], **{f"group={g}": (frame["group"] == g).astype(float) for g in ("south", "west")}}
    )
    estimator = GatedRegressor(
        n_experts=3,
        expert="constant",
        gate_features=["x"],
        shared_scale=True,
        n_starts=3,
        max_iter=300,
        tol=1e-7,
        scale_floor=0.01,
        gate_ridge=0.5,
        random_state=5,
    )
    estimator.fit(design, frame["y"], sample_weight=frame["w"])
    assert timeless(outcome.out) == timeless(for_command_line(estimator).summary(0.8).to_json())


@pytest.mark.parametrize("arguments", [["--gate-features", "none"], ["--gate-features", ""]])
def test_constant_weights(run, folder, arguments):
    outcome = run("fit", "tone", "--target", "tuned", "--starts", "8", "--json", *arguments)
    statistics = json.loads(outcome.out)["statistics"]
    assert statistics["gate_features"] == []
    assert statistics["n_parameters"] == 7


def test_predict_with_constant_weights(run, folder):
    run("fit", "tone", "--target", "tuned", "--starts", "2", "--gate-features", "none", "--out", "out")
    assert run("predict", "out", "tone", "--out", "p.csv").code == 0
    predictions = pd.read_csv("p.csv")
    assert predictions["weight_1"].nunique() == 1
    assert len(predictions) == 150


def test_experts_and_gate_may_see_different_columns(run, folder):
    frame = two_lines().assign(z=np.linspace(-1.0, 1.0, 60) ** 3)
    frame.to_csv("two.csv", index=False)
    outcome = run(
        *("fit", "two.csv", "--target", "y", "--features", "x", "--gate-features", "z", "--starts", "3"),
        *("--variance-prior", "1", "0.1", "--out", "out"),
    )
    assert outcome.code == 0, outcome
    assert "softmax gate on z" in outcome.out
    assert "inverse-gamma prior (1, 0.1)" in outcome.out
    metadata = load_model("out/model").metadata
    assert (metadata.feature_names, metadata.gate_feature_names) == (("x",), ("z",))
    assert run("predict", "out", "two.csv", "--out", "again.csv", "--level", "0.95").code == 0
    fitted, again = pd.read_csv("out/predictions.csv"), pd.read_csv("again.csv")
    pd.testing.assert_frame_equal(fitted, again)
    estimator = GatedRegressor(
        2, gate_features=["z"], expert_features=["x"], n_starts=3, variance_prior=(1.0, 0.1), random_state=0
    ).fit(frame[["x", "z"]], frame["y"])
    np.testing.assert_allclose(fitted["mean"], estimator.predict(frame[["x", "z"]]), rtol=1e-12)


def test_repeated_options_and_commas_name_the_same_columns(run, folder):
    arguments = ["fit", "npreg", "--target", "yn", "--starts", "1", "--json"]
    once = run(*arguments, "--features", "x,x_squared", "--gate-features", "x")
    twice = run(*arguments, "--features", "x", "--features", "x_squared", "--gate-features", "x")
    assert once.code == 0
    assert timeless(once.out) == timeless(twice.out)


@pytest.fixture
def fitted(run, folder):
    """A folder with the outputs of a fit in `out` and its table in `d.csv`."""
    two_lines().to_csv(folder / "d.csv", index=False)
    outcome = run(
        "fit",
        "d.csv",
        "--target",
        "y",
        "--features",
        "x,group",
        "--gate-features",
        "x",
        "--starts",
        "2",
        "--out",
        "out",
    )
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-len(FILES) - 1 :] == ["written:", *(f"out/{name}" for name in FILES)]
    return folder


def test_the_outputs_are_complete_and_agree(run, fitted):
    out = fitted / "out"
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert found == {*FILES, "gatewise-manifest.json"}
    frame = two_lines()
    design = pd.DataFrame(
        {"x": frame["x"], **{f"group={g}": (frame["group"] == g).astype(float) for g in ("south", "west")}}
    )
    estimator = GatedRegressor(gate_features=["x"], n_starts=2, random_state=0).fit(design, frame["y"])
    assert timeless((out / "summary.json").read_text()) == timeless(for_command_line(estimator).summary(0.95).to_json())
    text = (out / "summary.txt").read_text()
    assert text.startswith("coded the column 'group' as 'group=south', 'group=west';")
    assert text.endswith("\n\n" + for_command_line(estimator).summary(0.95).to_text() + "\n")
    saved = load_model(out)
    assert saved.metadata.feature_names == ("x", "group=south", "group=west")
    assert saved.metadata.gate_feature_names == ("x",)
    for name, array in estimator.model_.state_dict().items():
        assert np.array_equal(array.numpy(), saved.model.state_dict()[name].numpy()), name
    predictions = pd.read_csv(out / "predictions.csv")
    assert predictions["line"].tolist() == list(range(2, 62))
    # The same formulas, once in a batch of frames and once through the estimator.
    np.testing.assert_allclose(predictions["mean"], estimator.predict(design), rtol=1e-12)
    np.testing.assert_allclose(
        predictions[["lower", "upper"]], estimator.predict_interval(design, level=0.95), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(predictions["log_density"].sum(), estimator.log_likelihood_, rtol=1e-10)
    np.testing.assert_allclose(
        predictions[["responsibility_1", "responsibility_2"]],
        estimator.responsibilities(design, frame["y"]),
        atol=1e-12,
    )
    assert "<html" in (out / "report.html").read_text()


@pytest.mark.parametrize("model", ["out", "out/model"])
def test_predict_repeats_the_predictions_of_the_fit(run, fitted, model):
    assert run("predict", model, "d.csv", "--out", "p.csv", "--level", "0.95").code == 0
    assert (fitted / "p.csv").read_bytes() == (fitted / "out" / "predictions.csv").read_bytes()


def test_predict_from_parquet_codes_in_the_same_way(run, fitted):
    frame = two_lines().assign(group=lambda f: f["group"].astype("category"))
    frame.to_parquet(fitted / "d.parquet")
    run("predict", "out", "d.parquet", "--out", "p.csv", "--level", "0.95")
    first, second = pd.read_csv(fitted / "p.csv"), pd.read_csv(fitted / "out" / "predictions.csv")
    assert first["row"].tolist() == list(range(1, 61))
    pd.testing.assert_frame_equal(first.drop(columns="row"), second.drop(columns="line"), check_exact=True)


def test_overwriting_needs_permission_and_replaces_all(run, refused, fitted):
    arguments = ["fit", "tone", "--target", "tuned", "--starts", "1", "--out", "out"]
    before = (fitted / "out" / "summary.json").read_bytes()
    assert refused(*arguments) == (
        "error: cannot write the folder out: it exists; choose another name or allow overwriting (--overwrite)"
    )
    assert (fitted / "out" / "summary.json").read_bytes() == before
    assert run(*arguments, "--overwrite").code == 0
    assert json.loads((fitted / "out" / "summary.json").read_text())["statistics"]["target"] == "tuned"
    (fitted / "out" / "notes.txt").write_text("mine")
    assert "it holds 'notes.txt', which Gatewise did not write" in refused(*arguments, "--overwrite")


def test_a_failure_while_writing_leaves_nothing(run, folder, monkeypatch, capsys):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gatewise.files.atomic.os.rename", full)
    outcome = run("fit", "tone", "--target", "tuned", "--starts", "1", "--out", "out")
    assert outcome.code == 2
    assert outcome.err == "error: cannot write the folder out: no space left on device\n"
    assert list(folder.iterdir()) == []


def test_dropped_rows_are_announced_and_left_out(run, folder):
    frame = two_lines()
    frame.loc[[3, 7], "x"] = np.nan
    frame.to_csv(folder / "d.csv", index=False)
    arguments = ["--target", "y", "--features", "x", "--starts", "1"]
    outcome = run("fit", "d.csv", *arguments, "--missing", "drop")
    assert outcome.out.startswith("dropped 2 of 60 rows with missing values, by column: 'x' (2)\n\n")
    frame.dropna().to_csv(folder / "complete.csv", index=False)
    complete = run("fit", "complete.csv", *arguments)
    assert outcome.out.split("\n\n", 1)[1] == complete.out


def test_every_encoding_gives_the_same_fit(run, folder):
    text = two_lines().rename(columns={"x": "größe"}).to_csv(index=False)
    outputs = []
    for name, encoding, options in (
        ("a.csv", "utf-8", []),
        ("b.csv", "utf-8-sig", []),
        ("c.csv", "utf-16", []),
        ("d.csv", "latin-1", ["--encoding", "latin-1"]),
    ):
        (folder / name).write_bytes(text.encode(encoding))
        outputs.append(run("fit", name, "--target", "y", "--features", "größe", "--starts", "1", "--json", *options))
    assert {outcome.code for outcome in outputs} == {0}
    assert all(timeless(outcome.out) == timeless(outputs[0].out) for outcome in outputs[1:])


def rows(*lines: str) -> bytes:
    return ("\n".join(lines) + "\n").encode()


GOOD = [f"{i + (i * i) % 7},{i},{(i * 5) % 11},1" for i in range(30)]
HEADER = "y,x,z,w"

REFUSED = {
    "missing file": (None, [], "error: there is no file d.csv: check its name"),
    "empty file": (b"", [], "error: d.csv is empty: a header line and rows are needed"),
    "header only": (rows(HEADER), [], "error: d.csv has a header but no rows"),
    "missing column": (
        rows(HEADER, *GOOD),
        ["--features", "x,q"],
        "error: d.csv has no column 'q'; its columns are 'y', 'x'",
    ),
    "missing target": (
        rows("a,x,z,w", *GOOD),
        [],
        "error: d.csv has no column 'y'; its columns are 'a', 'x', 'z', 'w'",
    ),
    "duplicate column": (rows("y,x,x,w", *GOOD), [], "error: d.csv: the columns 2 and 3 are both named 'x'"),
    "non-numeric target": (
        rows(HEADER, *GOOD, "high,1,2,1"),
        [],
        "error: d.csv, line 32 of the file: the target 'y' must be numeric but is 'high'",
    ),
    "NaN": (
        rows(HEADER, *GOOD, "1,nan,2,1"),
        [],
        "error: d.csv, line 32 of the file: the column 'x' is not a finite number below 1e+100 but 'nan'",
    ),
    "Inf": (
        rows(HEADER, *GOOD, "1,2,-Inf,1"),
        [],
        "error: d.csv, line 32 of the file: the column 'z' is not a finite number below 1e+100 but '-Inf'",
    ),
    "missing values": (
        rows(HEADER, *GOOD, ",1,,1", "1,2,,1"),
        [],
        "error: d.csv, line 32 of the file: missing values in 2 of 32 rows, by column: 'y' (1), 'z' (2); fill them in",
    ),
    "constant target": (
        rows("a,x,z,y", *GOOD),
        [],
        "error: the target 'y' is constant at 1: there is nothing to explain",
    ),
    "constant feature": (rows(HEADER, *GOOD), ["--features", "x,w"], "error: column 'w' is constant at 1: remove it"),
    "constant text": (
        rows("y,x,z,c", *(f"{line[:-2]},one" for line in GOOD)),
        [],
        "error: d.csv: the column 'c' has the same value in every row, 'one'; leave it out",
    ),
    "collinear features": (
        rows("y,x,z,double", *(f"{line[:-2]},{2 * i}" for i, line in enumerate(GOOD))),
        [],
        "error: column 'double' is a linear combination of the columns before it, 'double' = ",
    ),
    "collinear after coding": (
        rows("y,x,sex,male", *(f"{line.split(',')[0]},{i},{'fm'[i % 2]},{i % 2}" for i, line in enumerate(GOOD))),
        [],
        "error: column 'male' is a linear combination of the columns before it, 'male' = ",
    ),
    "more experts than rows": (rows(HEADER, *GOOD), ["--features", "x", "--experts", "31"], "error: 31 experts need"),
    "fewer rows than parameters": (
        rows(HEADER, *GOOD),
        ["--features", "x,z", "--experts", "5"],
        "error: d.csv: the model has 32 parameters and the table only 30 usable rows; use fewer experts or features",
    ),
    "negative weights": (
        rows(HEADER, *GOOD, "1,2,3,-0.5"),
        ["--weights", "w"],
        "error: d.csv, line 32 of the file: the weight 'w' is negative (-0.5)",
    ),
    "only zero weights": (
        rows(HEADER, *(line[:-1] + "0" for line in GOOD)),
        ["--weights", "w"],
        "error: every sample_weight is zero: at least one row must count",
    ),
    "unknown gate": (
        rows(HEADER, *GOOD),
        ["--gate", "deep"],
        "error: unknown gate 'deep': choose one of activation_dense_to_sparse, cosine",
    ),
    "unknown expert": (
        rows(HEADER, *GOOD),
        ["--expert", "deep"],
        "error: unknown expert 'deep': choose one of callable, constant",
    ),
    "unknown family": (rows(HEADER, *GOOD), ["--family", "cauchy"], "error: unknown family 'cauchy'"),
    "ragged row": (
        rows(HEADER, *GOOD, "1,2,3"),
        [],
        "error: d.csv, line 32 of the file has 3 fields where the header has 4: correct that line",
    ),
    "NUL bytes": (rows(HEADER, *GOOD) + b"\0", [], "error: d.csv contains NUL bytes, the first in line 32 of the file"),
    "latin-1": (
        "y,größe\n1,2\n".encode("latin-1"),
        [],
        "error: d.csv is not valid UTF-8: byte 0xf6 at position 4 (line 1 of the file); save it as UTF-8, or name its "
        "encoding, for example --encoding latin-1",
    ),
    "unknown encoding": (rows(HEADER, *GOOD), ["--encoding", "klingon"], "error: unknown encoding 'klingon'"),
    "mixed column": (
        rows(HEADER, *GOOD, "1,two,2,1"),
        [],
        "error: d.csv: the column 'x' mixes text and numbers, 'two' in line 32 of the file and '",
    ),
    "too many levels": (
        rows("y,name", *(f"{i},name{i}" for i in range(51))),
        [],
        "error: d.csv: the column 'name' has 51 distinct texts, more than 50",
    ),
    "feature twice": (
        rows(HEADER, *GOOD),
        ["--features", "x,x"],
        "error: the column 'x' is named twice among the features",
    ),
    "target as feature": (
        rows(HEADER, *GOOD),
        ["--features", "y"],
        "error: the column 'y' is the target and cannot be",
    ),
    "target as gate feature": (
        rows(HEADER, *GOOD),
        ["--features", "x", "--gate-features", "y"],
        "error: the column 'y' is the target and cannot be a gate feature too",
    ),
    "no features": (rows(HEADER, *GOOD), ["--features", ""], "error: there is no feature: name at least one column"),
    "level": (
        rows(HEADER, *GOOD),
        ["--level", "1.5"],
        "error: the level of an interval must lie strictly between 0 and 1",
    ),
    "tolerance": (
        rows(HEADER, *GOOD),
        ["--features", "x", "--tol", "-1"],
        "error: tol must be a positive number, not -1.0",
    ),
    "time limit": (
        rows(HEADER, *GOOD),
        ["--features", "x", "--time-limit", "0"],
        "error: time_limit must be a positive",
    ),
    "scale floor": (
        rows(HEADER, *GOOD),
        ["--features", "x", "--scale-floor", "2"],
        "error: scale_floor must lie strictly",
    ),
    "gate ridge": (
        rows(HEADER, *GOOD),
        ["--features", "x", "--gate-ridge", "-1"],
        "error: gate_ridge must be a non-neg",
    ),
    "jobs": (
        rows(HEADER, *GOOD),
        ["--features", "x", "--jobs", "0"],
        "error: n_jobs must be a whole number other than 0",
    ),
    "no parent": (rows(HEADER, *GOOD), ["--out", "no/out"], "error: cannot write the folder no/out: the folder "),
    "a file in the way": (
        rows(HEADER, *GOOD),
        ["--out", "d.csv"],
        "error: cannot write the folder d.csv: a file has that name",
    ),
    "not ours": (
        rows(HEADER, *GOOD),
        ["--out", ".", "--overwrite"],
        "error: cannot write the folder '.': it has no name of its own; name a new folder",
    ),
}


@pytest.mark.parametrize(("content", "options", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_input(refused, folder, content, options, message):
    if content is not None:
        (folder / "d.csv").write_bytes(content)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    out = [] if "--out" in options else ["--out", "out"]
    assert refused("fit", "d.csv", "--target", "y", "--starts", "1", *options, *out).startswith(message)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_an_unwritable_folder(refused, folder, monkeypatch):
    # The tests may run as root, to whom nothing is forbidden.
    monkeypatch.setattr("gatewise.files.atomic.os.access", lambda path, mode: False)
    assert refused("fit", "tone", "--target", "tuned", "--out", "out").startswith(
        "error: cannot write the folder out: no permission to write in "
    )


def test_an_unwritable_file_system(refused, folder):
    assert refused("fit", "tone", "--target", "tuned", "--starts", "1", "--out", "/proc/out").startswith(
        "error: cannot write the folder /proc/out: "
    )


def test_ctrl_c_before_a_result_ends_with_130(run, folder, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(GatedRegressor, "fit", interrupted)
    outcome = run("fit", "tone", "--target", "tuned", "--out", "out")
    assert outcome.code == 130
    assert outcome.err == "error: interrupted before there was a result; nothing was written\n"
    assert list(folder.iterdir()) == []


def test_other_defects_are_not_dressed_up_as_input_errors(run, folder, monkeypatch):
    """They leave `main`, so that Python prints their traceback and ends with 1."""
    monkeypatch.setattr(GatedRegressor, "fit", lambda *arguments, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("fit", "tone", "--target", "tuned")


def test_the_reports_command_makes_the_fit_again(run, folder):
    """Every kind of option: flags, repeated, with two values, with a choice, and names that a shell would split."""
    frame = two_lines().rename(columns={"x": "x $1 'a'", "group": "-group"})
    frame.to_csv(folder / "my data.csv", index=False)
    options = ["--target", "y", "--features", "x $1 'a'", "--features=-group", "--gate-features", "x $1 'a'"]
    options += ["--weights", "w", "--shared-scale", "--variance-prior", "1", "0.1", "--standardise", "off"]
    options += ["--expert", "polynomial_basis", "--expert-option", "degree=2", "--starts", "2", "--seed", "3"]
    assert run("fit", "my data.csv", *options, "--out", "result", "--overwrite").code == 0
    command = Page((folder / "result" / "report.html").read_text(encoding="utf-8")).text
    command = command[command.index("gatewise fit") : command.index(" Written by")]
    program, *words = shlex.split(command)
    assert program == "gatewise"
    assert not {"--out", "--overwrite"} & set(words)
    again = run(*words, "--json")
    assert again.code == 0
    assert timeless(again.out) == timeless((folder / "result" / "summary.json").read_text(encoding="utf-8"))


def test_advice_names_options_and_the_saved_fit_names_arguments(run, folder):
    outcome = run("fit", "tone", "--target", "tuned", "--starts", "2", "--seed", "0", "--out", "out")
    advice = "more starts, or --starts auto, which goes on"
    assert advice in " ".join(outcome.out.split())
    assert advice in " ".join((folder / "out" / "summary.txt").read_text().split())
    assert advice in (folder / "out" / "report.html").read_text()
    loaded = GatedRegressor.load("out")
    assert 'more starts, or n_starts="auto", which goes on' in loaded.result_.findings[0].message


def test_the_interval_of_predictions_is_that_of_python(run, folder):
    run("fit", "tone", "--target", "tuned", "--starts", "2", "--seed", "0", "--out", "out")
    run("predict", "out", "tone", "--out", "p.csv")
    predictions = pd.read_csv("p.csv")
    interval = GatedRegressor.load("out").predict_interval(datasets.load("tone").frame[["stretchratio"]])
    np.testing.assert_allclose(predictions[["lower", "upper"]], interval, rtol=1e-12)
