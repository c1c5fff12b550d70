"""Folders that ask for what lies elsewhere, or for too much: each its sentence, and nothing is read from there."""

import json
import shutil

import pytest

pytest.importorskip("transformers")

from gatewise.exceptions import InputError, ModelFolderError
from gatewise.nn.hf import load_model, load_with_routers, save_routers, swap_routers
from tests.nn.hf.tiny_models import tiny_model


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """A mixtral in several files."""
    folder = tmp_path_factory.mktemp("models") / "mixtral"
    tiny_model("mixtral").save_pretrained(folder, max_shard_size="200KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


@pytest.fixture
def copied(sharded, tmp_path):
    shutil.copytree(sharded, tmp_path / "model")
    return tmp_path / "model"


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_several_files_are_read(sharded):
    assert type(load_model(sharded)).__name__ == "MixtralForCausalLM"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"attn_implementation": "someone/kernel"}, "code from elsewhere"),
        ({"_attn_implementation": "someone/kernel@main:flash"}, "code from elsewhere"),
        ({"text_config": {"attn_implementation": "someone/kernel"}}, "code from elsewhere"),
        ({"experts_implementation": "someone/kernel"}, "code from elsewhere"),
        ({"num_hidden_layers": 10**9}, "asks for num_hidden_layers = 1000000000, and the weights are"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "cannot load the model"),
        ({"quantization_config": 5}, "cannot load the model"),
        ({"hidden_size": "many"}, "cannot load the model"),
        ({"hidden_act": "nope"}, "cannot load the model"),
        ({"dtype": "nope"}, "cannot load the model"),
    ],
)
def test_what_a_configuration_may_not_ask_for(copied, values, reason):
    change(copied / "config.json", **values)
    with pytest.raises(ModelFolderError, match=reason):
        load_model(copied)


@pytest.mark.parametrize("name", ["../weights.safetensors", "missing.safetensors", "/etc/hosts", 5, None])
def test_an_index_that_leads_out_of_the_folder(copied, name):
    index = copied / "model.safetensors.index.json"
    files = json.loads(index.read_text())["weight_map"]
    first = next(iter(files.values()))
    # What it leads to is there.
    shutil.copy(copied / first, copied.parent / "weights.safetensors")
    change(index, weight_map={array: name if file == first else file for array, file in files.items()})
    with pytest.raises(ModelFolderError, match="which is no file of that folder"):
        load_model(copied)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"weight_map": 5}', '{"metadata": {}}'])
def test_an_index_that_is_damaged(copied, text):
    (copied / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelFolderError, match="holds no weight_map"):
        load_model(copied)


def test_an_adapter_of_a_model_elsewhere(copied, sharded):
    (copied / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(sharded), "target_modules": ["q_proj"]})
    )
    with pytest.raises(ModelFolderError, match="holds an adapter"):
        load_model(copied)


@pytest.mark.parametrize("what", [5, None, ["model"]])
def test_what_is_no_path(what):
    model = tiny_model("mixtral")
    swap_routers(model)
    for act in (load_model, load_with_routers, lambda path: save_routers(model, path)):
        with pytest.raises(InputError, match="pass the path of a model's folder"):
            act(what)


@pytest.mark.parametrize("value", [1, "yes", None, [[]]])
def test_a_description_whose_bias_is_neither_there_nor_not(copied, value):
    model = load_model(copied)
    swap_routers(model, correction_bias=True)
    save_routers(model, copied)
    file = copied / "gatewise_routers" / "routers.json"
    description = json.loads(file.read_text())
    next(iter(description["routers"].values()))["correction_bias"] = value
    file.write_text(json.dumps(description))
    with pytest.raises(ModelFolderError, match="neither true nor false"):
        load_with_routers(copied)
