"""Data by name: files come first, then the shipped data sets."""

import pytest

from gatewise.exceptions import InputError
from gatewise.io.sources import open_table, usual_features


def test_a_file_of_that_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = open_table("tone")
    assert (shipped.n_rows, shipped.source, shipped.positions[0]) == (150, "data set tone", 2)
    assert usual_features("tone", "tuned") == ["stretchratio"]
    (tmp_path / "tone").write_text("tuned,b\n1,2\n")
    assert open_table("tone").names == ["tuned", "b"]
    assert usual_features("tone", "tuned") is None


def test_usual_features_belong_to_the_usual_target():
    assert usual_features("npreg", "yn") == ["x", "x_squared"]
    assert usual_features("npreg", "yp") is None
    assert usual_features("elsewhere.csv", "y") is None


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("tones", "there is no file tones and no data set of that name: did you mean 'tone'"),
        ("tone.csv", r"there is no file tone\.csv: check its name"),
        ("n" * 300, "there is no file n+ and no data set of that name"),
        ("folder/tone", "there is no file folder/tone: check its name"),
    ],
)
def test_neither_is_refused(tmp_path, monkeypatch, name, pattern):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=pattern):
        open_table(name)
