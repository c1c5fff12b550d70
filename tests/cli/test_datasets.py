"""`gatewise datasets`."""

import pytest

from gatewise import datasets


def test_the_list_names_all_with_rows_columns_and_source(run):
    outcome = run("datasets")
    assert outcome.code == 0
    for name in datasets.names():
        dataset = datasets.load(name)
        assert any(
            line.startswith(f"{name} ") and f"{len(dataset.frame)} rows" in line for line in outcome.out.splitlines()
        )
        assert ", ".join(dataset.frame.columns) in outcome.out
        assert dataset.source in outcome.out


def test_one_is_described(run):
    outcome = run("datasets", "aphids")
    assert outcome.code == 0
    assert "cite: Boiteau, G., Singh, M.," in outcome.out
    assert "usual fit: gatewise fit aphids --target plntsInf --features aphRel" in outcome.out


def test_one_is_written(run, refused, tmp_path):
    path = tmp_path / "tone.csv"
    outcome = run("datasets", "tone", "--out", path)
    assert (outcome.code, outcome.out) == (0, f"{path}\n")
    assert path.read_bytes() == datasets.csv_bytes("tone")
    assert "it exists" in refused("datasets", "tone", "--out", path)
    path.write_bytes(b"old")
    assert run("datasets", "tone", "--out", path, "--overwrite").code == 0
    assert path.read_bytes() == datasets.csv_bytes("tone")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["iris"],
            "error: there is no data set 'iris': choose one of aphids, co2, ethanol, npreg, patent, temperature, tone",
        ),
        (["--out", "x.csv"], "error: --out needs the name of a data set: choose one of aphids, co2"),
        (["tone", "--out", "no/such/x.csv"], "error: cannot write the file no/such/x.csv: the folder "),
    ],
)
def test_what_is_refused(refused, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert refused("datasets", *arguments).startswith(message)
    assert list(tmp_path.iterdir()) == []
