"""`gatewise study`: designs listed, shown and begun; runs, their status, and a task run again."""

import json
import tomllib

import pytest

from gatewise.study import Store, catalogue, read_design
from tests.study.conftest import SMALL


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def folder(file, run, tmp_path):
    outcome = run("study", "run", file, "--out", tmp_path / "rows")
    assert outcome.code == 0
    assert outcome.out.startswith("finished: 24 rows in ")
    return tmp_path / "rows"


def test_the_catalogue_is_listed(run):
    outcome = run("study", "list")
    assert (outcome.code, outcome.err) == (0, "")
    assert [line.split()[0] for line in outcome.out.splitlines()] == catalogue()
    listed = json.loads(run("study", "list", "--json").out)
    assert list(listed) == catalogue()
    assert listed["softmax-gaussian-exact"]["paper"].startswith("arXiv:2305.03288")


def test_a_design_is_shown_as_it_is_written(run):
    shown = run("study", "show", "softmax-gaussian-exact")
    assert tomllib.loads(shown.out)["seed"] == 230503288
    filled = json.loads(run("study", "show", "softmax-gaussian-exact", "--json").out)
    assert filled["methods"][0]["objective"] == "likelihood"


def test_a_design_of_ones_own_begins_as_a_copy(run, tmp_path):
    path = tmp_path / "mine.toml"
    outcome = run("study", "new", path)
    assert outcome.code == 0
    assert f"gatewise study run {path} --out DIR" in outcome.out
    assert read_design(str(path)) == read_design("softmax-gaussian-exact")
    again = run("study", "new", path)
    assert (again.code, again.out) == (2, "")
    assert "it exists" in again.err
    assert run("study", "new", path, "--overwrite").code == 0
    assert run("study", "new", tmp_path / "other.toml", "--like", "nothing").code == 2
    assert not (tmp_path / "other.toml").exists()


def test_a_run_goes_on_and_says_so(run, file, folder):
    outcome = run("study", "run", file, "--out", folder)
    assert outcome.out.startswith("finished: 0 rows in ")
    assert "24 of 24 tasks have rows already" in outcome.err


def test_time_sizes_and_replicates(run, file, tmp_path):
    plan = ("--sizes", "40,60", "--sizes", "90", "--replicates", 2, "--seed", 3, "--jobs", 1)
    out = ("study", "run", file, "--out", tmp_path / "rows", *plan)
    stopped = run(*out, "--max-time", "0.000001s")
    assert (stopped.code, stopped.out.split(":")[0]) == (0, "out of time")
    assert "the same command goes on from here" in stopped.err
    assert run(*out).out.startswith("finished: 12 rows")
    design = Store.open(tmp_path / "rows").design
    assert (design.all_sizes(), design.replicates, design.seed) == ([40, 60, 90], 2, 3)


def test_the_status(run, folder):
    text = run("study", "status", folder).out
    assert text.splitlines()[:2] == ["Two lines", "24 of 24 tasks have rows"]
    found = json.loads(run("study", "status", folder, "--json").out)
    assert (found["rows"], found["tasks"], found["quarantined"]) == (24, 24, [])
    assert sum(found["methods"]["exact"]["statuses"].values()) == 12
    part = next((folder / "parts").glob("*.parquet"))
    part.write_bytes(b"damaged")
    assert f"in quarantine: {part.stem}" in run("study", "status", folder).out


def test_a_task_run_again(run, folder):
    assert run("study", "replay", folder, "over/60/1").out == "over/60/1: the same bits\n"
    assert json.loads(run("study", "replay", folder, "over/60/1", "--json").out)["same"] is True
    store = Store.open(folder)
    rows = store.rows().to_dict("records")
    for part in (folder / "parts").glob("*.parquet"):
        part.unlink()
    Store.open(folder).add([{**rows[0], "objective": rows[0]["objective"] + 1e-9}])
    differs = run("study", "replay", folder, rows[0]["key"])
    assert differs.code == 1
    assert "1 columns differ" in differs.out
    assert "objective: stored" in differs.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "nothing", "--out", "rows"), "nothing is no file that can be read"),
        (("run", "FILE", "--out", "rows", "--sizes", "40,sixty"), "--sizes must be whole numbers"),
        (("run", "FILE", "--out", "rows", "--sizes", "1"), "greater than or equal to 2"),
        (("run", "FILE", "--out", "rows", "--max-time", "soon"), "--max-time must be a time such as 90, 20m or 8h"),
        (("run", "FILE", "--out", "rows", "--max-time", "-5m"), "--max-time must be a time such as 90, 20m or 8h"),
        (("run", "FILE", "--out", "rows", "--jobs", "0"), "jobs must be a number of worker processes"),
        (("run", "FILE", "--out", "FILE"), "cannot be used for a study: not a directory"),
        (("status", "nowhere"), "nowhere holds no study"),
        (("replay", "nowhere", "a/1/1"), "nowhere holds no study"),
        (("show", "nothing"), "no study of the catalogue"),
    ],
)
def test_what_cannot_be_done_is_one_line(run, file, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    outcome = run("study", *(file if argument == "FILE" else argument for argument in arguments))
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
