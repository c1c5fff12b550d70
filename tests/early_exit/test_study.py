"""The study's script in miniature: one command, taken up where it was killed, the same numbers again."""

import importlib.util
import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from tests.early_exit.test_data import idx_bytes

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "exits_study.py"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("exits_study", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["exits_study"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def images(tmp_path):
    """Stripes of ten directions in noise, in the form of MNIST's files."""
    rng = np.random.default_rng(0)
    for name, n in (("train", 460), ("t10k", 150)):
        y = np.arange(n, dtype=np.uint8) % 10
        row, column = np.mgrid[:28, :28]
        angles = y[:, None, None] * np.pi / 10
        waves = np.sin((row * np.cos(angles) + column * np.sin(angles)) * 0.9)
        x = np.clip(128 + 60 * waves + 20 * rng.normal(size=(n, 28, 28)), 0, 255).astype(np.uint8)
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(idx_bytes(x))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx_bytes(y))
    return tmp_path


def test_a_study_goes_on_where_it_was_killed(study, images, tmp_path):
    plan = study.Plan(seeds=1, backbone=200, heads=260, test=150, epochs=1, lambdas=(0.1, 1.0))
    case = study.Fashion("fashion-conv", Namespace(fashion=str(images)), plan, tmp_path)
    study.run_seed(case, 0, plan, tmp_path)
    files = sorted(path.name for path in tmp_path.glob("fashion-conv-0-*.json"))
    assert files == [
        f"fashion-conv-0-{fit}.json"
        for fit in sorted(("frozen-calibrated", "frozen-plain", "joint-calibrated", "joint-plain"))
    ]
    before = study.summary(tmp_path, "fashion-conv", plan)
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in files}
    # As after kill -9 within the last fit: its arrays are there, its numbers are not.
    (tmp_path / "fashion-conv-0-joint-plain.json").unlink()
    study.run_seed(case, 0, plan, tmp_path)
    assert study.summary(tmp_path, "fashion-conv", plan) == before
    kept = [name for name in files if name != "fashion-conv-0-joint-plain.json"]
    assert all((tmp_path / name).stat().st_mtime_ns == times[name] for name in kept)
    assert json.dumps(before, allow_nan=False)
    assert set(before) >= {"joint against frozen, calibrated", "against max_prob, plain"}
