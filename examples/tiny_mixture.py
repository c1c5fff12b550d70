"""Writes a tiny mixture of experts to a folder, with a tokenizer of bytes: `python examples/tiny_mixture.py [DIR]`.

A Mixtral of two layers and eight experts, drawn at random, so that there is something to inspect without a download:
`gatewise routers inspect DIR --text FILE --out routing`.
"""

import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from gatewise.nn.readers import readers_of


def write(folder: str) -> None:
    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=8,
        max_position_embeddings=512,
    )
    model = MixtralForCausalLM(config)
    with torch.no_grad():
        for reader in readers_of(model).values():
            for weight in reader.gate_parameters:
                weight.normal_(std=weight.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def tokenizer() -> PreTrainedTokenizerFast:
    """Each byte of a text in UTF-8 is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_only = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(alphabet)}, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_only.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bytes_only)


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else "tiny-mixture"
    write(folder)
    print(f"a tiny mixture, drawn at random: {folder}")
