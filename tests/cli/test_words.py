"""Messages below the command line speak Python; the command line says the same in its options."""

from pathlib import Path

import numpy as np
import pytest

from gatewise.cli.words import with_options
from gatewise.estimators import GatedRegressor
from gatewise.exceptions import InputError


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("set a ridge (gate_ridge=1)", "set a ridge (--gate-ridge 1)"),
        ("set scale_floor=0.0001 to", "set --scale-floor 0.0001 to"),
        ('n_starts="auto", which goes on', "--starts auto, which goes on"),
        ("(n_starts=2000).", "(--starts 2000)."),
        ('(encoding="utf-32")', "(--encoding utf-32)"),
        ('fit it with objective="least_squares", or', "fit it with --objective least_squares, or"),
        ("(joint=False)", "(--gate-option joint=false)"),
        ("a variance prior (variance_prior=(1, 0.1)); or", "a variance prior (--variance-prior 1 0.1); or"),
        ("down to jobs=1. 5 rows", "down to --jobs 1. 5 rows"),
        ("Binomial(trials=None) takes", "Binomial(trials=None) takes"),
        ("Binomial(trials=7)", "Binomial(trials=7)"),
    ],
)
def test_arguments_become_options(message, expected):
    assert with_options(message) == expected


def test_one_column_for_a_binomial_asks_for_the_trials(run, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    y = np.arange(20) % 4
    Path("d.csv").write_text("y,x\n" + "".join(f"{count},{row}\n" for row, count in enumerate(y)))
    message = refused("fit", "d.csv", "--target", "y", "--family", "binomial")
    assert "needs the trials beside the successes 'y': give --trials COLUMN, or --trials 10, for example" in message
    with pytest.raises(InputError, match="give the number of trials, trials=10 for example"):
        GatedRegressor(family="binomial").fit(np.arange(20.0)[:, None], y)
    options = ["--family", "binomial", "--family-option", "trials=3", "--starts", "1"]
    assert run("fit", "d.csv", "--target", "y", *options).code == 0


def test_trials_are_a_number_or_a_column(run, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    trials, x = random.integers(3, 9, size=60), random.normal(size=60)
    made = random.binomial(trials, 1.0 / (1.0 + np.exp(-x)))
    rows = "".join(f"{y},{n},8,{x:.3f}\n" for y, n, x in zip(made, trials, x, strict=True))
    Path("d.csv").write_text(f"made,shots,8,x\n{rows}")
    Path("e.csv").write_text(f"made,shots,all,x\n{rows}")
    fit = ("--target", "made", "--features", "x", "--family", "binomial", "--experts", "1")
    column = run("fit", "d.csv", *fit, "--trials", "shots")
    assert column.code == 0
    assert column == run("fit", "d.csv", *fit, "--target", "shots")
    assert run("fit", "e.csv", *fit, "--trials", "8", "--out", "fitted").code == 0
    number = run("fit", "e.csv", *fit, "--trials", "8")
    assert number.out == run("fit", "e.csv", *fit, "--family-option", "trials=8").out
    assert number.out == run("fit", "e.csv", *fit, "--trials", "all").out.replace("made, all", "made")
    assert run("predict", "fitted", "e.csv", "--out", "p.csv").code == 0
    assert "--trials 8" in Path("fitted", "report.html").read_text()
    assert "may be the number or the column of that name" in refused("fit", "d.csv", *fit, "--trials", "8")
    assert "has no column 'shot'; its columns" in refused("fit", "d.csv", *fit, "--trials", "shot")
    assert "trials of the binomial family is 0: give a whole number from 1 to 9,007" in refused(
        "fit", "e.csv", *fit, "--trials", "0"
    )
    assert "--trials belongs to --family binomial, not to 'poisson'" in refused(
        "fit", "e.csv", "--target", "made", "--family", "poisson", "--trials", "8"
    )
    twice = ("--trials", "8", "--family-option", "trials=8")
    assert "so does --family-option: give them once" in refused("fit", "e.csv", *fit, *twice)


def test_booleans_are_accepted_and_words_are_pointed_to_classes(run, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bought = np.random.default_rng(0).uniform(size=40) < 0.5
    Path("d.csv").write_text(
        "bought,sex,x\n" + "".join(f"{b},{'Men' if b else 'Women'},{i % 7}\n" for i, b in enumerate(bought))
    )
    arguments = ["--features", "x", "--family", "bernoulli", "--experts", "1"]
    outcome = run("fit", "d.csv", "--target", "bought", *arguments)
    assert outcome.code == 0
    estimator = GatedRegressor(1, family="bernoulli").fit(np.arange(40.0)[:, None] % 7, bought)
    assert f"{estimator.log_likelihood_:.4f}" in outcome.out
    assert "choose the categorical family" in refused("fit", "d.csv", "--target", "sex", *arguments)
    with pytest.raises(InputError, match="fit names of classes with GatedClassifier"):
        GatedRegressor(1, family="bernoulli").fit(np.arange(2.0)[:, None], ["Men", "Women"])


def test_a_line_per_start_goes_to_a_log_where_it_is_asked_for(run):
    arguments = ["fit", "tone", "--target", "tuned", "--starts", "2"]
    assert "start " not in run(*arguments).err
    assert run(*arguments, "--verbose").err.count("start ") == 2
