"""Adapters from folders, routed sets in one folder, and what of them is refused."""

import json

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from gatewise.exceptions import InputError, OutputError
from gatewise.lora import Retrieval, Single, attach_router, load_and_route, load_routed, save_routed
from tests.lora.models import NAMES, ids, llama, llama_base, logits, lora, random_gates, with_adapters


@pytest.fixture
def folder(tmp_path):
    model = llama()
    model.save_pretrained(tmp_path)
    for name, gates in random_gates(model).items():
        gates.save_pretrained(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("router", "setting"),
    [("phatgoose", {"top_k": 1, "temperature": 3.0, "granularity": "sequence"}), ("arrow", {}), (Single("c"), {})],
)
def test_a_routed_set_comes_back_by_one_call(tmp_path, router, setting):
    model = llama()
    with attach_router(model, router=router, gates=random_gates(model), **setting) as routed:
        save_routed(routed, tmp_path / "set")
        expected, settings = logits(model, ids()), routed.setting
    found = load_routed(llama_base(), tmp_path / "set")
    assert found.setting == settings
    assert found.adapters == NAMES
    assert torch.equal(logits(found.model, ids()), expected)
    names = {file.name for file in (tmp_path / "set").rglob("*") if file.is_file()}
    assert names <= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "gatewise_gates.json",
        "gatewise_gates.safetensors",
        "gatewise_routing.json",
        "gatewise-manifest.json",
    }
    with pytest.raises(OutputError, match="it exists"), attach_router(model, router="arrow") as routed:
        save_routed(routed, tmp_path / "set")
    with attach_router(model, router="arrow") as routed:
        save_routed(routed, tmp_path / "set", overwrite=True)


def test_the_adapter_default_is_saved_too(tmp_path):
    model = with_adapters(llama_base(), {"default": lora(4, ["q_proj"]), "b": lora(4, ["v_proj"])})
    with attach_router(model, router="arrow") as routed:
        save_routed(routed, tmp_path / "set")
        expected = logits(model, ids())
    assert torch.equal(logits(load_routed(llama_base(), tmp_path / "set").model, ids()), expected)


def test_an_adapter_is_added_from_its_folder(folder):
    whole = load_and_route(llama_base(), [folder / name for name in NAMES])
    expected = logits(whole.model, ids())
    routed = load_and_route(llama_base(), [folder / "a", folder / "b"])
    routed.add("c", folder / "c")
    assert torch.equal(logits(routed.model, ids()), expected)


def test_names_come_from_folders_or_are_given(folder):
    routed = load_and_route(llama_base(), [folder / "a", folder / "b"], names=["x", "y"])
    assert routed.adapters == ("x", "y")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a.b", "a b", "keys", "x" * 101, "a\n"])
def test_names_that_leave_their_folder_or_break_peft(folder, name):
    with pytest.raises(InputError, match="cannot be an adapter's name"):
        load_and_route(llama_base(), [folder / "a"], names=[name])


def test_path_tricks_in_a_saved_set(tmp_path):
    model = llama()
    with attach_router(model, router="arrow") as routed:
        save_routed(routed, tmp_path / "set")
    file = tmp_path / "set" / "gatewise_routing.json"
    description = json.loads(file.read_text())
    for change, message in [
        ({"adapters": ["../a", "b", "c"]}, "cannot be an adapter's name"),
        ({"router": "pickle"}, "unknown router of adapters 'pickle'"),
        ({"router": ["arrow"]}, "damaged"),
        ({"setting": {"top_k": 1}}, "its setting must name eps, granularity"),
        ({"format": 7}, "not of the format 1"),
        ({"options": {"x": 1}}, "needs more than its name"),
        ({"adapters": ["a", "b", "d"]}, "there is no adapter in"),
    ]:
        file.write_text(json.dumps({**description, **change}))
        with pytest.raises(InputError, match=message):
            load_routed(llama_base(), tmp_path / "set")
    file.write_text("no JSON")
    with pytest.raises(InputError, match="cannot be read"):
        load_routed(llama_base(), tmp_path / "set")
    with pytest.raises(InputError, match="holds no routed set"):
        load_routed(llama_base(), tmp_path)


def test_retrieval_cannot_be_saved(tmp_path):
    model = llama()
    router = Retrieval(lambda texts: torch.ones(len(texts), 2), {name: ["x"] for name in NAMES}, decode=str)
    with attach_router(model, router=router) as routed, pytest.raises(InputError, match="its embedder is code"):
        save_routed(routed, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_an_adapter_of_another_base(folder, tmp_path):
    wide = llama_base(d=64)
    with pytest.raises(InputError, match=r"'a' belongs to another base: at 'model\.layers\.0.* reads 32 values"):
        load_and_route(wide, [folder / "a"])
    shallow = llama_base(layers=1)
    with pytest.raises(InputError, match=r"'b' belongs to another base: it changes 'model\.layers\.1"):
        load_and_route(shallow, [folder / "b"])
    # Nothing was put onto the bases.
    assert not any("lora" in name for name, _ in [*wide.named_modules(), *shallow.named_modules()])


def config_with(folder, **changes):
    file = folder / "a" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "'a' uses DoRA"),
        ({"modules_to_save": ["lm_head"]}, "'a' uses modules_to_save"),
        ({"target_parameters": ["x"]}, "'a' uses target_parameters"),
        ({"trainable_token_indices": [1]}, "'a' uses trainable_token_indices"),
        ({"layer_replication": [[0, 2]]}, "'a' uses layer_replication"),
        ({"bias": "all"}, "bias='all'"),
        ({"init_lora_weights": "pissa"}, "changes the base's own weights"),
        ({"peft_type": "IA3"}, "is of the kind IA3, and only LORA"),
        ({"peft_type": "VERA"}, "is of the kind VERA, and only LORA"),
    ],
)
def test_what_is_more_than_plain_lora_is_refused_by_name(folder, changes, message):
    config_with(folder, **changes)
    with pytest.raises(InputError, match=message):
        load_and_route(llama_base(), [folder / "a"])


def test_what_is_loaded_already_is_refused_by_name_too():
    model = get_peft_model(llama_base(), LoraConfig(target_modules=["q_proj"], use_dora=True), adapter_name="z")
    with pytest.raises(InputError, match="'z' uses DoRA"):
        attach_router(model, router="arrow")
    model = get_peft_model(llama_base(), IA3Config(target_modules=["k_proj"], feedforward_modules=[]), adapter_name="z")
    with pytest.raises(InputError, match="is of the kind IA3"):
        attach_router(model, router="arrow")
    model = get_peft_model(llama_base(), LoraConfig(target_modules=["embed_tokens", "q_proj"]), adapter_name="z")
    with pytest.raises(InputError, match=r"changes 'model\.embed_tokens', a Embedding: only linear layers"):
        attach_router(model, router="arrow")
    with pytest.raises(InputError, match=r"pass a peft\.PeftModel"):
        attach_router(llama_base(), ["a"])


def test_folders_that_hold_no_adapter(folder, tmp_path):
    with pytest.raises(InputError, match="there is no adapter in"):
        load_and_route(llama_base(), [tmp_path / "nothing"])
    (folder / "a" / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be read"):
        load_and_route(llama_base(), [folder / "a"])
    (folder / "a" / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match="other files than safetensors are not read"):
        load_and_route(llama_base(), [folder / "a"])
    with pytest.raises(InputError, match="in a list"):
        load_and_route(llama_base(), str(folder / "b"))
    with pytest.raises(InputError, match="two adapters would be called 'b'"):
        load_and_route(llama_base(), [folder / "b", folder / "b"])
    with pytest.raises(InputError, match="1 names for 2 folders"):
        load_and_route(llama_base(), [folder / "b", folder / "c"], names=["b"])


def test_a_changed_weight_makes_the_gates_another_adapters(folder):
    file = folder / "b" / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    tensors[name] = tensors[name] + 1e-3
    save_file(tensors, file)
    with pytest.raises(InputError, match="not those of the adapter 'b'"):
        load_and_route(llama_base(), [folder / "b"])


def test_adapters_with_disjoint_modules(folder):
    """Each module has one adapter, and so nothing is to be chosen: the sum of both, as peft has it with both active."""
    model = with_adapters(llama_base(), {"a": lora(4, ["q_proj"]), "b": lora(4, ["v_proj"])})
    model.base_model.set_adapter(["a", "b"])
    both = logits(model, ids())
    with attach_router(model, router="arrow"):
        torch.testing.assert_close(logits(model, ids()), both, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapters": "a"}, "in a list"),
        ({"adapters": []}, "in a list"),
        ({"adapters": ["a", "a"]}, "named twice"),
        ({"adapters": ["d"]}, "no adapter 'd'"),
        ({"router": "arow"}, "did you mean 'arrow'"),
        ({"router": "single"}, "pass a gatewise.lora.Single"),
        ({"router": Single("z")}, "no adapter 'z' to be the single one"),
        ({"router": "merged_product", "granularity": "sequence"}, "has no scores to average"),
        ({"router": "arrow", "top_k": 0}, "top_k must be a whole number"),
        ({"router": "arrow", "temperature": 0.0}, "the temperature must be a positive number"),
        ({"router": "arrow", "temperature": "d"}, "the temperature must be a positive number"),
        ({"router": "arrow", "granularity": "module"}, "granularity must be one of"),
        ({"router": "arrow", "missing": "zero"}, "missing must be one of"),
        ({"router": "arrow", "eps": -1.0}, "eps must be a positive number"),
    ],
)
def test_settings_out_of_range(options, message):
    model = llama()
    with pytest.raises(InputError, match=message):
        attach_router(model, **options)


def test_examples_for_retrieval_must_be_of_the_pool():
    with pytest.raises(InputError, match="needs examples of every adapter"):
        Retrieval(lambda texts: torch.ones(len(texts), 2), {"a": []}, decode=str)
    with pytest.raises(InputError, match="must give one finite vector for each of 2 texts"):
        Retrieval(lambda texts: torch.ones(1, 2), {"a": ["x", "y"]}, decode=str)
    router = Retrieval(lambda texts: torch.ones(len(texts), 2), {"a": ["x"]}, decode=str)
    with pytest.raises(InputError, match="see 'b'"):
        attach_router(llama(), ["a", "b"], router)
