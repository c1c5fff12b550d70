"""Folders of JSON and safetensors: the same bits again, and everything else refused."""

import json

import pytest
import torch

from gatewise.early_exit import POLICIES, EarlyExitModel
from gatewise.exceptions import ModelFolderError, OutputError
from tests.early_exit.conftest import small_network

SETTINGS = {"fixed": {"setting": 1}, "patience": {"setting": 2}, "oracle": {"setting": 0}, "jei": {"lam": 0.3}}


def copy_of(model, digits, **options):
    return EarlyExitModel(
        model.backbone, **{"exits": [0, 1, 2, 3], "n_classes": 10, "example": digits["test"][0][:2], **options}
    )


@pytest.mark.parametrize("name", list(POLICIES))
def test_what_is_loaded_gives_the_same_bits(frozen, digits, tmp_path, name):
    frozen.set_policy(name, **SETTINGS.get(name, {"budget": 0.6}))
    frozen.save(tmp_path / "model")
    loaded = copy_of(frozen, digits).load(tmp_path / "model")
    x, y = digits["test"]
    for mine, theirs in ((frozen.simulate(x, y), loaded.simulate(x, y)),):
        assert torch.equal(mine.logits, theirs.logits)
        assert torch.equal(mine.exit_index, theirs.exit_index)
        assert torch.equal(mine.cost, theirs.cost)
    assert loaded.policy.remarks == frozen.policy.remarks
    assert loaded.policy.setting == frozen.policy.setting
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json",
        "exits.safetensors",
        "gatewise-manifest.json",
    ]


def test_a_loaded_sweep_serves_other_policies(joint, digits, tmp_path):
    joint.save(tmp_path / "model")
    loaded = copy_of(joint, digits).load(tmp_path / "model")
    for options in ({"lam": 0.5}, {"budget": 0.9}):
        for model in (joint, loaded):
            model.set_policy("jei", **options)
        x = digits["test"][0]
        assert torch.equal(joint.infer(x).logits, loaded.infer(x).logits)
        assert joint.policy.lam == loaded.policy.lam


def test_measured_costs_are_kept(frozen, digits, tmp_path):
    model = copy_of(frozen, digits)
    model.measure_costs(digits["test"][0][:8], repeats=1, clock="cpu")
    model.save(tmp_path / "model")
    loaded = copy_of(frozen, digits).load(tmp_path / "model")
    assert loaded.costs == model.costs
    exits = torch.tensor([0, 4, 2])
    assert loaded.costs.predicted_milliseconds(exits, 8) == model.costs.predicted_milliseconds(exits, 8)


def test_folders_of_others_are_refused(frozen, digits, tmp_path):
    frozen.save(tmp_path / "model")
    other = EarlyExitModel(small_network(seed=9), exits=[0, 1, 2, 3], n_classes=10, example=digits["test"][0][:2])
    with pytest.raises(ModelFolderError, match="is of another backbone: its parameters are not those of the model's"):
        other.load(tmp_path / "model")
    with pytest.raises(
        ModelFolderError, match=r"has the exits \['0', '1', '2', '3', ''\], and the model \['0', '1', ''\]"
    ):
        copy_of(frozen, digits, exits=[0, 1]).load(tmp_path / "model")
    with pytest.raises(OutputError, match="it exists"):
        frozen.save(tmp_path / "model")
    frozen.save(tmp_path / "model", overwrite=True)


def test_damaged_folders_are_refused(frozen, digits, tmp_path):
    frozen.set_policy("margin", budget=0.6)
    frozen.save(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    weights = tmp_path / "model" / "exits.safetensors"
    text, content = config.read_text(), weights.read_bytes()
    plain = json.loads(text)
    fresh = copy_of(frozen, digits)
    for changed, said in (
        (text.replace('"threshold": ', '"threshold": 1'), "was changed after it was written"),
        ("{", "is not JSON"),
        (json.dumps({**plain, "schema_version": 99}), "update Gatewise"),
    ):
        config.write_text(changed)
        with pytest.raises(ModelFolderError, match=said):
            fresh.load(tmp_path / "model")
    config.write_text(text)
    weights.write_bytes(content[:-4] + b"\0\0\0\1")
    with pytest.raises(ModelFolderError, match="checksum does not match"):
        fresh.load(tmp_path / "model")
    weights.unlink()
    with pytest.raises(ModelFolderError, match="is missing"):
        fresh.load(tmp_path / "model")
    assert fresh.policy is None
