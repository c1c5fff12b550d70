"""Sizes are checked before anything is built: what is too large is refused at once, in little memory."""

import re
import resource
from pathlib import Path

import numpy as np
import pytest

from gatewise import GatedClassifier, GatedRegressor
from gatewise.cli import main
from gatewise.exceptions import InputError
from gatewise.experts import build_experts
from gatewise.fit import FitOptions, fit
from gatewise.gates import SoftmaxGate, build_gate
from gatewise.model import MixtureOfExperts
from gatewise.study.design import text_of

HUGE = 10**9


@pytest.fixture(autouse=True)
def little_memory():
    """Whatever a test would build, it cannot take the machine's memory."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**31, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def rows(generator):
    x = generator.normal(size=(50, 3))
    return x, x[:, 0]


@pytest.mark.parametrize("k", [51, 10**5, HUGE])
def test_experts_are_compared_with_the_rows_first(rows, k):
    x, y = rows
    with pytest.raises(InputError, match=f"{k} experts need at least {k} rows with a positive weight; there are 50"):
        GatedRegressor(n_experts=k).fit(x, y)
    with pytest.raises(InputError, match=f"{k} experts need"):
        GatedClassifier(n_experts=k).fit(x, y > 0.0)


def test_rows_of_weight_zero_are_none(rows):
    x, y = rows
    with pytest.raises(InputError, match="3 experts need at least 3 rows with a positive weight; there are 2"):
        GatedRegressor(n_experts=3).fit(x, y, sample_weight=np.arange(50) < 2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SoftmaxGate(1, HUGE), "'softmax' with 1,000,000,000 experts: there may be at most 1,000,000"),
        (lambda: SoftmaxGate(10**6, 10**6), "'softmax' with 1,000,000 features and 1,000,000 experts has more than"),
        (lambda: build_gate("gaussian", 10**5, 3), "has 15,000,450,003 parameters, more than 100,000,000"),
        (lambda: build_experts("feed_forward", 100, 2, hidden=10**6), "parameters, more than 100,000,000"),
        (
            lambda: MixtureOfExperts.build(
                "softmax", "linear", "categorical", 10, 2, family_options={"n_classes": HUGE}
            ),
            "parameters, more than 100,000,000",
        ),
    ],
    ids=["experts", "both", "covariances", "hidden units", "classes"],
)
def test_parts_too_large_for_any_machine(build, message):
    with pytest.raises(InputError, match=re.escape(message)):
        build()


def test_more_parameters_than_can_be_compared_in_pairs(rows):
    x, y = rows
    model = MixtureOfExperts.build("softmax", "feed_forward", "gaussian", 3, 2, expert_options={"hidden": 3000})
    with pytest.raises(InputError, match="the model has 30,010 parameters, more than 20,000"):
        fit(model, x, y)


def test_more_jobs_than_starts(rows):
    assert FitOptions(n_jobs=HUGE).n_jobs == HUGE
    x, y = rows
    y = y + np.random.default_rng(0).normal(size=50)
    assert GatedRegressor(n_experts=1, n_jobs=HUGE, n_starts=2).fit(x, y).n_parameters_ == 5


def changed(**values):
    """The smallest design of the catalogue with other numbers."""
    text = text_of("quick")
    for key, value in values.items():
        text = re.sub(rf"\b{key} = \d+", f"{key} = {value}", text)
    return text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 5000 + "]" * 5000, "is nested more than 32 deep"),
        ("[" + ".".join(["a"] * 5000) + "]\nb = 1", "is nested more than 32 deep"),
        ("a = " + "1" * 5000, "cannot be read: Exceeds the limit"),
        (changed(n_features=HUGE), "n_features: Input should be less than or equal to 10000"),
        (changed(n_experts=HUGE), "n_experts: Input should be less than or equal to 1000"),
        (changed(replicates=HUGE), "replicates: Input should be less than or equal to 10000000"),
        (changed(replicates=10**7), "tasks, more than 10,000,000: take fewer"),
        (changed(high=10**8, n_features=2), "rows of 2 features are more than 100,000,000 numbers"),
    ],
    ids=["arrays", "tables", "digits", "features", "experts", "replicates", "tasks", "rows"],
)
def test_designs(refused, tmp_path, text, message):
    path = tmp_path / "design.toml"
    path.write_text(text, encoding="utf-8")
    assert message in refused("study", "run", path, "--out", tmp_path / "out")
    if "nested" in message or "features: Input" in message:
        assert message in refused("theory", "modulus", path)


def test_plans_and_orders(refused, tmp_path):
    out = tmp_path / "out"
    assert "less than or equal" in refused("study", "run", "quick", "--out", out, "--sizes", 10**12)
    assert "less than or equal" in refused("study", "run", "quick", "--out", out, "--replicates", HUGE)
    assert "m is 1,000,000,000" in refused("theory", "r-bar", HUGE)
    assert "n_features is 1,000,000" in refused("theory", "identify", "--gate", "softmax", "--features", 10**6)
    assert "experts need at least" in refused("fit", "tone", "--target", "tuned", "--experts", HUGE)


def peak_of_memory():
    """The most that this process has had, in kB."""
    return int(re.search(r"VmHWM:\s*([0-9]+) kB", Path("/proc/self/status").read_text())[1])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read as Linux tells it")
def test_a_refusal_takes_no_memory(capsys):
    # 5 sets the peak to what there is now.
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_of_memory()
    code = main(["fit", "tone", "--target", "tuned", "--experts", str(HUGE)])
    assert peak_of_memory() - before < 2**19
    assert (code, capsys.readouterr().err.count("\n")) == (2, 1)
