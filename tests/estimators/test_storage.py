"""A fitted estimator is a folder: it comes back in another process as it was, or is refused with the reason."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars
import pytest
import torch
from sklearn.exceptions import NotFittedError

from gatewise import GatedClassifier, GatedRegressor, load_model, save_model
from gatewise.cli import main
from gatewise.exceptions import FitWarning, InputError, ModelFolderError, OutputError
from gatewise.io import prepare_training, read_table
from gatewise.io.sealed import canonical_checksum
from gatewise.report import render_report
from tests.estimators import stored_models

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def fitted():
    """Fitted estimators by name; no test changes them."""
    return stored_models.fit_all()


@pytest.fixture(scope="module")
def folders(fitted, tmp_path_factory):
    """Where each of them is saved, and where a fresh process has written what they say."""
    parent = tmp_path_factory.mktemp("estimators")
    for name, estimator in fitted.items():
        estimator.save(parent / name)
    command = [sys.executable, "-m", "tests.estimators.stored_models", str(parent)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return parent


@pytest.mark.parametrize("name", stored_models.cases())
def test_a_fresh_process_says_the_same(fitted, folders, name):
    data = stored_models.make_data()
    _, x, y, offset = stored_models.cases()[name]
    before = stored_models.said_by(fitted[name], data[x], data[y], None if offset is None else data[offset])
    after = np.load(folders / f"{name}.npz")
    assert sorted(before) == sorted(after.files)
    for what, value in before.items():
        assert value.dtype == after[what].dtype, what
        assert value.shape == after[what].shape, what
        assert value.tobytes() == after[what].tobytes(), what


def plain_parameters(estimator):
    """The parameters as text, without the addresses of objects, which `test_among_them…` looks at."""
    return {name: re.sub(" at 0x[0-9A-Fa-f]+", "", repr(value)) for name, value in estimator.get_params().items()}


@pytest.mark.parametrize("name", stored_models.cases())
def test_loading_and_saving_again_gives_the_same_files(fitted, folders, name):
    loaded = type(fitted[name]).load(folders / name)
    assert json.dumps(plain_parameters(loaded)) == json.dumps(plain_parameters(fitted[name]))
    again = loaded.folder_files(loaded.folder_metadata())
    first = {file: (folders / name / file).read_bytes() for file in again}
    assert again["weights.safetensors"] == first["weights.safetensors"]
    assert again["fit.safetensors"] == first["fit.safetensors"]
    fits = [json.loads(files["fit.json"]) for files in (first, again)]
    for fit in fits:
        # They hang on the time of creation in the configuration.
        del fit["sha256"], fit["config_sha256"]
    assert fits[0] == fits[1]


def test_among_them_are_rivals_and_kept_prototypes(fitted, folders):
    assert any(estimator.result_.rivals for estimator in fitted.values())
    held, loaded = fitted["held"], GatedRegressor.load(folders / "held")
    assert type(loaded.gate) is type(held.gate)
    for name, value in held.gate.state_dict().items():
        assert torch.equal(value, loaded.gate.state_dict()[name])
    assert loaded.family == held.family
    assert loaded.constraints.tied == held.constraints.tied
    assert loaded.parameters_["held"].any()
    # A second fit uses what came back.
    data = stored_models.make_data()
    loaded.set_params(max_iter=1)
    with pytest.warns(FitWarning):
        loaded.fit(data["x"], data["heavy"])
    assert loaded.expert.bias[0] == loaded.model_.experts.bias[0]


def test_generators_come_back_in_their_state(fitted, folders):
    loaded = GatedRegressor.load(folders / "binomial")
    expected = fitted["binomial"].random_state
    assert loaded.random_state.bit_generator.state == expected.bit_generator.state


def test_columns_are_checked_as_before(fitted, folders):
    data = stored_models.make_data()
    loaded = GatedRegressor.load(folders / "poisson")
    assert loaded.feature_names_in_.tolist() == list(data["frame"])
    with pytest.raises(InputError, match="feature names"):
        loaded.predict(data["frame"].iloc[:, :3], offset=0.0)
    with pytest.raises(InputError, match="was fitted with an offset"):
        loaded.predict(data["frame"])
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        loaded.predict(data["frame"].to_numpy(), offset=data["years"])
    assert loaded.folder_metadata().offset_name == "log years"


def test_a_report_can_be_made_of_it(fitted, folders):
    data = stored_models.make_data()
    pages = [
        render_report(estimator, data["x"], data["y"])
        for estimator in (fitted["gaussian"], GatedRegressor.load(folders / "gaussian"))
    ]
    assert pages[0] == pages[1]


def test_the_low_level_loader_and_the_command_take_the_folder(fitted, folders, tmp_path):
    data = stored_models.make_data()
    saved = load_model(folders / "poisson")
    assert saved.metadata.feature_names == ("age", "income")
    table = data["frame"].assign(**{"log years": data["years"]}).astype(float)
    table.to_csv(tmp_path / "new.csv", index=False)
    assert main(["predict", str(folders / "poisson"), str(tmp_path / "new.csv"), "--out", str(tmp_path / "p.csv")]) == 0
    mean = fitted["poisson"].predict(data["frame"], offset=data["years"])
    assert pd.read_csv(tmp_path / "p.csv")["mean"].to_numpy() == pytest.approx(mean, rel=1e-14)


def test_names_that_clash_in_one_table(tmp_path):
    X = pd.DataFrame({"y": np.linspace(-1.0, 1.0, 40), "offset": np.cos(np.arange(40.0))})
    counts = np.arange(40) % 3.0
    regressor = GatedRegressor(1, family="poisson").fit(X, counts, offset=np.zeros(40))
    regressor.save(tmp_path / "m")
    metadata = load_model(tmp_path / "m").metadata
    assert (metadata.target_name, metadata.offset_name) == ("y_", "offset_")
    loaded = GatedRegressor.load(tmp_path / "m")
    assert loaded.target_name_ == "y"
    assert loaded.summary().to_text() == regressor.summary().to_text()


TABLE = "claims,years,age,place,sex\n" + "".join(
    f"{(i * 7) % 4},{1 + i % 3},{20 + (i * 13) % 50},{('city', 'hill', 'sea')[i % 3]},{'fm'[i % 7 > 3]}\n"
    for i in range(60)
)


def test_the_folder_of_the_command_line_is_taken(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("claims.csv").write_text(TABLE)
    options = ["--target", "claims", "--exposure", "years", "--family", "poisson", "--experts", "1", "--out", "out"]
    assert main(["fit", "claims.csv", *options]) == 0
    loaded = GatedRegressor.load("out")
    assert loaded.summary().to_text() in capsys.readouterr().out
    assert loaded.feature_names_ == ["age", "place=hill", "place=sea", "sex=m"]
    predictions = pd.read_csv("out/predictions.csv")
    table = pd.read_csv("claims.csv")
    offset = np.log(table["years"])
    for frame in (
        table,
        table[["sex", "place", "age"]],
        table.astype({"place": "category"}),
        polars.from_pandas(table),
        prepare_training(read_table("claims.csv"), "claims", features=["age", "place", "sex"]).design,
    ):
        assert loaded.predict(frame, offset=offset) == pytest.approx(predictions["mean"].to_numpy(), rel=1e-14)
    with pytest.raises(InputError, match=r"X, row 0 of the table: the column 'place' has the level 'moon'"):
        loaded.predict(table.assign(place="moon"), offset=offset)
    with pytest.raises(InputError, match="X has no column 'sex'"):
        loaded.predict(table.drop(columns="sex"), offset=offset)
    with pytest.raises(InputError, match="was fitted with the exposure 'years'"):
        loaded.predict(table)
    # What the folder says of the columns goes on to the next folder.
    loaded.save("again")
    assert load_model("again").metadata == load_model("out").metadata
    assert main(["predict", "again", "claims.csv", "--out", "p.csv"]) == 0
    assert pd.read_csv("p.csv")["mean"].equals(predictions["mean"])


def test_classes_of_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{'abc'[(i * i) % 3]},{i % 11},{i % 5}\n" for i in range(60))
    Path("t.csv").write_text("kind,u,v\n" + rows)
    assert main(["fit", "t.csv", "--target", "kind", "--family", "categorical", "--experts", "1", "--out", "out"]) == 0
    loaded = GatedClassifier.load("out")
    assert loaded.classes_.tolist() == ["a", "b", "c"] or loaded.classes_.tolist() == ["a", "b"]
    predictions = pd.read_csv("out/predictions.csv")
    probabilities = loaded.predict_proba(pd.read_csv("t.csv")[["u", "v"]])
    columns = [f"probability_{label}" for label in loaded.classes_]
    assert probabilities == pytest.approx(predictions[columns].to_numpy(), rel=1e-14)
    with pytest.raises(ModelFolderError, match=r"holds a GatedClassifier, not a GatedRegressor: load it with GatedCla"):
        GatedRegressor.load("out")


def test_what_is_there_is_not_replaced(fitted, tmp_path):
    estimator = fitted["squares"]
    (tmp_path / "empty").mkdir()
    estimator.save(tmp_path / "empty")
    with pytest.raises(OutputError, match=r"cannot write the folder .*empty: it exists"):
        estimator.save(tmp_path / "empty")
    estimator.save(tmp_path / "empty", overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="mine"):
            estimator.save(tmp_path / "mine", overwrite=overwrite)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine"]


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(NotFittedError):
        GatedRegressor().save(tmp_path / "m")
    x = np.linspace(-1.0, 1.0, 40)[:, None]
    regressor = GatedRegressor(1, random_state=0).fit(x, x[:, 0] ** 2)
    regressor.set_params(time_limit=Path("a"))
    with pytest.raises(InputError, match="is no plain data and cannot be saved"):
        regressor.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_its_fit_is_refused(fitted, tmp_path):
    estimator = fitted["gaussian"]
    save_model(tmp_path / "m", estimator.model_, metadata=estimator.folder_metadata())
    with pytest.raises(ModelFolderError, match=r"holds a model without its fit .*gatewise\.load_model"):
        GatedRegressor.load(tmp_path / "m")
    with pytest.raises(ModelFolderError, match=r"there is no model folder .*nowhere"):
        GatedRegressor.load(tmp_path / "nowhere")


FILES = ("config.json", "weights.safetensors", "fit.json", "fit.safetensors")


@pytest.fixture
def folder(fitted, tmp_path):
    """A folder of the fit with rivals, to be damaged."""
    fitted["gamma"].save(tmp_path / "m")
    return tmp_path / "m"


@pytest.mark.parametrize("file", FILES)
def test_changed_bytes_are_noticed(folder, file):
    rng = np.random.default_rng(FILES.index(file))
    whole = (folder / file).read_bytes()
    for place in rng.integers(len(whole), size=40):
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        (folder / file).write_bytes(changed)
        with pytest.raises(ModelFolderError):
            GatedRegressor.load(folder)
        (folder / file).write_bytes(whole[:place])
        with pytest.raises(ModelFolderError):
            GatedRegressor.load(folder)
    if not file.startswith("fit.j"):
        (folder / file).unlink()
        with pytest.raises(
            ModelFolderError, match=f"incomplete: {file} is missing" if "safe" in file else "is missing"
        ):
            GatedRegressor.load(folder)


def test_files_of_two_fits_are_told_apart(fitted, folder, folders):
    (folder / "fit.json").write_bytes((folders / "laplace" / "fit.json").read_bytes())
    with pytest.raises(ModelFolderError, match=r"fit\.json is of another model than config\.json"):
        GatedRegressor.load(folder)


def leaves(value, path=()):
    """The paths to everything in some JSON that is no list or object."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if entries is None:
        return [path]
    return [path, *(leaf for name, entry in entries for leaf in leaves(entry, (*path, name)))]


def replaced(value, path, new):
    """Some JSON with another value at a path."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("times", [50, pytest.param(150, marks=pytest.mark.slow)])
def test_a_fit_changed_with_care_is_refused_or_loads(folder, times):
    """Values of another kind, with checksums that match: one error, or a fit that can be summarised."""
    content = json.loads((folder / "fit.json").read_bytes())
    places = [place for place in leaves({name: content[name] for name in ("state", "shared")}) if place]
    rng = np.random.default_rng(0)
    others = [
        None,
        True,
        -1,
        10**9,
        1.5,
        "x",
        [],
        {},
        {"$": "os.system"},
        {"$": "model"},
        {"$": "shared", "place": 9999},
    ]
    others += [{"$": "array", "name": "0"}, {"$": "tuple", "items": [1]}, {"$": []}, {"$": "FitStatus", "name": "x"}]
    n_refused = 0
    for _ in range(times):
        place = places[rng.integers(len(places))]
        changed = replaced(content, place, others[rng.integers(len(others))])
        changed["sha256"] = canonical_checksum(changed)
        (folder / "fit.json").write_text(json.dumps(changed))
        try:
            GatedRegressor.load(folder).summary().to_text()
        except ModelFolderError:
            n_refused += 1
    assert n_refused > times / 2
