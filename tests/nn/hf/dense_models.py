"""Tiny dense models of many types, drawn at random, with norms and biases that are neither 1 nor 0."""

import os
import warnings

import torch
from torch import Tensor, nn

os.environ["HF_HUB_OFFLINE"] = "1"

VOCABULARY = 64
_NAMES = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_LLAMA = _NAMES | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
_BERT = {key: value for key, value in _LLAMA.items() if key not in ("num_key_value_heads", "head_dim")}
_GPT2 = _NAMES | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_inner": 48}
_BART = _NAMES | {"d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64}
_BART |= {f"{part}_{what}": n for part in ("encoder", "decoder") for what, n in (("layers", 2), ("attention_heads", 4))}

DECODERS: dict[str, tuple[dict, str]] = {
    "llama": (_LLAMA | {"mlp_bias": True}, "model.layers.1.mlp"),
    "qwen3": (_LLAMA, "model.layers.1.mlp"),
    "gemma2": (_LLAMA, "model.layers.1.mlp"),
    "phi3": (_LLAMA, "model.layers.1.mlp"),
    "apertus": (_LLAMA, "model.layers.1.mlp"),
    "lfm2": (_LLAMA | {"full_attn_idxs": [0, 1]}, "model.layers.1.feed_forward"),
    "nemotron": (_LLAMA, "model.layers.1.mlp"),
    "starcoder2": (_LLAMA | {"residual_dropout": 0.0}, "model.layers.1.mlp"),
    "gpt_neox": (_BERT, "gpt_neox.layers.1.mlp"),
    "gpt2": (_GPT2, "transformer.h.1.mlp"),
    "falcon": (_BERT, "transformer.h.1.mlp"),
    "opt": (
        _BERT | {"ffn_dim": 48, "word_embed_proj_dim": 32},
        "model.decoder.layers.1.fc1",
    ),
    "bloom": (_NAMES | {"hidden_size": 32, "n_layer": 2, "n_head": 4}, "transformer.h.1.mlp.dense_h_to_4h"),
    "mpt": (
        _NAMES | {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
        "transformer.blocks.1.ffn.up_proj",
    ),
}
"""Types of causal language models, with the name of the second sparse layer."""

ENCODERS: dict[str, tuple[dict, str]] = {
    "bert": (_BERT, "bert.encoder.layer.1.intermediate"),
    "albert": (_BERT | {"embedding_size": 16}, "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn"),
    "modernbert": (_BERT | {"cls_token_id": 1, "sep_token_id": 2}, "model.layers.1.mlp"),
    "distilbert": (
        _NAMES | {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64},
        "distilbert.transformer.layer.1.ffn",
    ),
}
"""Types of masked language models."""

PAIRS: dict[str, tuple[dict, str]] = {
    "bart": (_BART, "model.decoder.layers.1.fc1"),
    "t5": (
        _NAMES | {"d_model": 32, "d_ff": 48, "num_layers": 2, "num_heads": 4, "d_kv": 8, "decoder_start_token_id": 0},
        "decoder.block.1.layer.2.DenseReluDense",
    ),
}
"""Types of encoders with decoders."""

TYPES = DECODERS | ENCODERS | PAIRS


def dense_model(model_type: str, seed: int = 0, **options) -> nn.Module:
    """A tiny dense model in evaluation mode."""
    import transformers

    kinds = {"AutoModelForMaskedLM": ENCODERS, "AutoModelForSeq2SeqLM": PAIRS, "AutoModelForCausalLM": DECODERS}
    kind = next(name for name, types in kinds.items() if model_type in types)
    configuration = transformers.AutoConfig.for_model(model_type, **TYPES[model_type][0] | options)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = getattr(transformers, kind).from_config(configuration).eval()
        with torch.no_grad():
            for name, value in model.named_parameters():
                if value.ndim == 1 and "act_fn" not in name:
                    value.add_(0.1 * torch.randn_like(value))
    return model


def dense_tokens(n: int = 2, length: int = 12, seed: int = 1) -> Tensor:
    """Token ids (n, length) that are no special ones."""
    return torch.randint(3, VOCABULARY, (n, length), generator=torch.Generator().manual_seed(seed))


def logits_of(model: nn.Module, ids: Tensor | None = None) -> Tensor:
    """What a model of any of these types gives."""
    ids = dense_tokens() if ids is None else ids
    own = {"decoder_input_ids": ids} if model.config.model_type in PAIRS else {}
    with torch.no_grad():
        return model(input_ids=ids, **own).logits
