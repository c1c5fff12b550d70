"""`gatewise predict`, from a model folder that the library wrote."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from gatewise.experts import LinearExperts
from gatewise.families import Gaussian
from gatewise.gates import SoftmaxGate
from gatewise.io import CategoricalColumn, ColumnCoding, ModelMetadata, NumericColumn, save_model
from gatewise.model import MixtureOfExperts

DATA = "y,x,colour\n1,0.5,red\n2,1.5,blue\n3,2.5,red\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a model, `model`, and a table, `data.csv`."""
    monkeypatch.chdir(tmp_path)
    model = MixtureOfExperts(SoftmaxGate(1, 2), LinearExperts(2, 2), Gaussian()).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    colour = CategoricalColumn(name="colour", levels=("blue", "red"))
    metadata = ModelMetadata(
        feature_names=("x", "colour=red"),
        gate_feature_names=("x",),
        target_name="y",
        coding=ColumnCoding(columns=(NumericColumn(name="x"), colour)),
    )
    save_model(tmp_path / "model", model, metadata=metadata)
    (tmp_path / "data.csv").write_text(DATA)
    return tmp_path


def test_predictions_with_and_without_the_target(run, folder):
    outcome = run("predict", "model", "data.csv", "--out", "p.csv")
    assert (outcome.code, outcome.out, outcome.err) == (0, "p.csv\n", "")
    frame = pd.read_csv(folder / "p.csv")
    assert frame["line"].tolist() == [2, 3, 4]
    assert (frame["lower"] < frame["mean"]).all()
    assert (frame["mean"] < frame["upper"]).all()
    np.testing.assert_allclose(frame["weight_1"] + frame["weight_2"], 1.0, rtol=1e-14)
    np.testing.assert_allclose(frame["responsibility_1"] + frame["responsibility_2"], 1.0, rtol=1e-14)
    (folder / "new.csv").write_text("colour,x\nblue,1.5\n")
    assert run("predict", "model", "new.csv", "--out", "new.parquet").code == 0
    new = pd.read_parquet(folder / "new.parquet")
    assert list(new.columns) == ["line", "mean", "lower", "upper", "weight_1", "weight_2"]
    assert new["mean"].tolist() == frame["mean"][1:2].tolist()


def test_the_level_widens_the_interval(run, folder):
    run("predict", "model", "data.csv", "--out", "a.csv", "--level", "0.5")
    run("predict", "model", "data.csv", "--out", "b.csv", "--level", "0.99")
    narrow, wide = pd.read_csv("a.csv"), pd.read_csv("b.csv")
    assert (wide["lower"] < narrow["lower"]).all()
    assert (wide["upper"] > narrow["upper"]).all()


def test_dropped_rows_are_announced(run, folder):
    (folder / "gaps.csv").write_text("x,colour\n1,red\n,red\n2,\n3,blue\n")
    outcome = run("predict", "model", "gaps.csv", "--out", "p.csv", "--missing", "drop")
    assert outcome.out == "dropped 2 of 4 rows with missing values, by column: 'x' (1), 'colour' (1)\np.csv\n"
    assert pd.read_csv("p.csv")["line"].tolist() == [2, 5]


def test_rows_with_a_blank_target_are_predicted(run, folder):
    run("predict", "model", "data.csv", "--out", "whole.csv")
    (folder / "gaps.csv").write_text("y,x,colour\n1,0.5,red\n,1.5,blue\n3,2.5,red\n")
    outcome = run("predict", "model", "gaps.csv", "--out", "p.csv")
    assert outcome.out == "the target 'y' is blank in 1 of 3 rows: predicted without it\np.csv\n"
    found, whole = pd.read_csv("p.csv"), pd.read_csv("whole.csv")
    about_y = ["target", "log_density", "responsibility_1", "responsibility_2", "pit"]
    assert found.loc[1, about_y].isna().all()
    pd.testing.assert_frame_equal(found.drop(columns=about_y), whole.drop(columns=about_y))
    pd.testing.assert_frame_equal(found.loc[[0, 2]], whole.loc[[0, 2]])


def newer(folder):
    path = folder / "model" / "config.json"
    config = json.loads(path.read_bytes())
    path.write_text(json.dumps({**config, "schema_version": 3}))


def tampered(folder):
    path = folder / "model" / "config.json"
    path.write_bytes(path.read_bytes().replace(b'"gaussian"', b'"Gaussian"'))


REFUSED = {
    "no model": (None, ["nowhere", "data.csv"], "error: there is no model folder nowhere: check its name"),
    "a file": (None, ["data.csv", "data.csv"], "error: there is no model folder data.csv: check its name"),
    "incomplete": (
        lambda folder: (folder / "model" / "weights.safetensors").unlink(),
        ["model", "data.csv"],
        "error: the model folder model is incomplete: weights.safetensors is missing",
    ),
    "newer": (newer, ["model", "data.csv"], "error: the model folder model has schema version 3, and this Gatewise"),
    "tampered": (tampered, ["model", "data.csv"], "error: the model folder model is damaged: config.json was changed"),
    "no data": (None, ["model", "nowhere.csv"], "error: there is no file nowhere.csv: check its name"),
    "no column": (None, ["model", "tone"], "error: data set tone has no column 'x'; its columns are 'stretchratio'"),
    "unseen level": (
        lambda folder: (folder / "data.csv").write_text("x,colour\n1,red\n2,green\n"),
        ["model", "data.csv"],
        "error: data.csv, line 3 of the file: the column 'colour' has the level 'green', which the model has not seen",
    ),
    "missing": (
        lambda folder: (folder / "data.csv").write_text("x,colour\n1,red\n,blue\n"),
        ["model", "data.csv"],
        "error: data.csv, line 3 of the file: missing values in 1 of 2 rows, by column: 'x' (1)",
    ),
    "level": (None, ["model", "data.csv", "--level", "1"], "error: the level of an interval must lie strictly between"),
    "encoding": (None, ["model", "data.csv", "--encoding", "x"], "error: unknown encoding 'x'"),
}


@pytest.mark.parametrize(("change", "arguments", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(refused, folder, change, arguments, message):
    if change is not None:
        change(folder)
    assert refused("predict", *arguments, "--out", "p.csv").startswith(message)
    assert not (folder / "p.csv").exists()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("p.txt", "error: cannot tell the format of 'p.txt': let the name end in .csv or .parquet"),
        ("no/p.csv", "error: cannot write the file no/p.csv: the folder "),
        ("data.csv", "error: cannot write the file data.csv: it exists; choose another name or allow overwriting"),
    ],
)
def test_outputs_that_are_refused(refused, folder, out, message):
    assert refused("predict", "model", "data.csv", "--out", out).startswith(message)
    assert (folder / "data.csv").read_text() == DATA
