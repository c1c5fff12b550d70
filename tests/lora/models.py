"""Tiny models of random weights with adapters of different ranks, scales and modules."""

import copy
import warnings
from functools import cache

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from gatewise.lora import GateSet
from gatewise.lora.places import fingerprint_of, places_of

NAMES = ("a", "b", "c")


def llama_base(d=32, layers=2):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=48,
        hidden_size=d,
        intermediate_size=2 * d,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


def with_adapters(base, configs) -> PeftModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        names = list(configs)
        model = get_peft_model(base, configs[names[0]], adapter_name=names[0])
        for name in names[1:]:
            model.add_adapter(name, configs[name])
    return model.eval()


def lora(r, modules, **options):
    return LoraConfig(r=r, target_modules=modules, init_lora_weights=False, **{"lora_alpha": 8, **options})


def mixed_configs(first="q_proj", **options):
    """Ranks 4, 8 and 16, different scales, partly disjoint modules."""
    return {
        "a": lora(4, ["q_proj", "v_proj", "up_proj"], lora_alpha=16, **options),
        "b": lora(8, ["q_proj", "k_proj", "down_proj"], use_rslora=True, **options),
        "c": lora(16, ["q_proj", "v_proj", "down_proj"], **options),
    }


@cache
def _llama():
    return with_adapters(llama_base(), mixed_configs())


def llama(dtype=torch.float32) -> PeftModel:
    """A Llama with three adapters, a copy of its own."""
    return copy.deepcopy(_llama()).to(dtype).eval()


@cache
def _t5():
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=48,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=0,
    )
    base = T5ForConditionalGeneration(config).eval()
    configs = {"a": lora(4, ["q", "v", "wi"]), "b": lora(8, ["q", "k", "v"]), "c": lora(8, ["q", "v", "wo"])}
    return with_adapters(base, configs)


def t5() -> PeftModel:
    return copy.deepcopy(_t5())


@cache
def _gpt2():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=48, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    configs = {
        "a": lora(4, ["c_attn"], fan_in_fan_out=True),
        "b": lora(8, ["c_attn", "c_fc"], fan_in_fan_out=True),
    }
    return with_adapters(GPT2LMHeadModel(config).eval(), configs)


def gpt2() -> PeftModel:
    """Conv1D layers, whose weights are transposed."""
    return copy.deepcopy(_gpt2())


def ids(rows=3, length=7, seed=0):
    return torch.randint(3, 48, (rows, length), generator=torch.Generator().manual_seed(seed))


def random_gates(model, names=None, seed=0, openness=0.2) -> dict[str, GateSet]:
    """Gates of random numbers that belong to the model's adapters."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name in names or list(model.peft_config):
        sizes = {place: view.n_features for place, view in places_of(model, [name]).items()}
        vectors = {place: 0.1 * torch.randn(size, generator=generator) for place, size in sizes.items()}
        means = {place: torch.randn(size, generator=generator) for place, size in sizes.items()}
        found[name] = GateSet(vectors, means, dict.fromkeys(sizes, openness), (), fingerprint_of(model, name)[0])
    return found


def mapped(gates: GateSet, change) -> GateSet:
    """The same gates with other vectors."""
    vectors = {name: change(vector) for name, vector in gates.vectors.items()}
    return GateSet(vectors, gates.means, gates.openness, gates.losses, gates.checksums)


def logits(model, tokens, **options):
    with torch.no_grad():
        return model(input_ids=tokens, **options).logits
