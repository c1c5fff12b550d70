"""A tiny model in a folder, with a tokenizer of words, adapters of two domains, and documents."""

import json

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.lora.models import lora, with_adapters

WORDS = [f"w{index}" for index in range(20)]


def tokenizer():
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


def base(seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=24,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


def write_project(folder):
    """base/, adapters/low, adapters/high, low.jsonl, high.jsonl and both.jsonl."""
    base().save_pretrained(folder / "base")
    tokenizer().save_pretrained(folder / "base")
    configs = {"low": lora(2, ["q_proj", "v_proj"]), "high": lora(4, ["q_proj", "down_proj"])}
    with_adapters(base(), configs).save_pretrained(folder / "adapters")
    generator = torch.Generator().manual_seed(0)
    documents = {}
    for name, (first, last) in {"low": (0, 10), "high": (10, 20)}.items():
        rows = torch.randint(first, last, (6, 9), generator=generator).tolist()
        documents[name] = [{"text": " ".join(WORDS[index] for index in row), "domain": name} for row in rows]
    for name, rows in {**documents, "both": documents["low"] + documents["high"]}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
