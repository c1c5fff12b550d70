"""Tiny models of every type, from their own configurations, with routers drawn at random.

Two or three layers, d = 64, E = 8, K = 2; deepseek_v3 and those like it with four groups of two, of which two stay.
"""

import os
import warnings

import torch
from torch import Tensor, nn

os.environ["HF_HUB_OFFLINE"] = "1"

D, E, K, VOCABULARY = 64, 8, 2, 128

TYPES = (
    "mixtral",
    "olmoe",
    "flex_olmo",
    "qwen2_moe",
    "qwen3_moe",
    "qwen3_next",
    "qwen3_5_moe_text",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "deepseek_v4",
    "glm4_moe",
    "glm4_moe_lite",
    "glm_moe_dsa",
    "gpt_oss",
    "minimax_m2",
    "minimax_m3_vl_text",
    "phimoe",
    "granitemoe",
    "ernie4_5_moe",
    "hunyuan_v1_moe",
    "hy_v3",
    "hy_v4",
    "laguna",
    "nemotron_h",
    "dots1",
    "afmoe",
    "cohere2_moe",
    "mellum",
    "solar_open",
    "inkling2_text",
)

# Of the same classes of routers, beyond those that must be there.
MORE_TYPES = (
    "aria_text",
    "axk1",
    "exaone_moe",
    "flint",
    "granitemoe_swa",
    "granitemoeshared",
    "inkling2_loop_text",
    "lara_mini",
    "mimo_v2_flash",
    "minimax",
)

# Whatever of these a configuration has: sizes go by many names.
_SIZES = {
    **dict.fromkeys(("vocab_size", "unpadded_vocab_size"), VOCABULARY),
    "hidden_size": D,
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"), E),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "top_k_experts"), K),
    "shared_expert_intermediate_size": 32,
    **dict.fromkeys(("n_shared_experts", "moe_num_shared_experts", "num_shared_experts"), 1),
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "qk_head_dim": 24,
    "n_group": 4,
    "topk_group": 2,
    "topk_method": "group_limited_greedy",
    **dict.fromkeys(("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index", "moe_layer_interval"), 1),
    "num_nextn_predict_layers": 0,
    "max_position_embeddings": 256,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_sparse_step": 1,
    "sliding_window": 64,
    "enable_moe_block": True,
    "index_n_heads": 2,
    "index_head_dim": 16,
    "index_topk": 16,
    "moe_intermediate_dim": 32,
    "expert_ffn_hidden_size": 32,
    "ffn_hidden_size": 96,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": VOCABULARY,
    "num_kv_shared_layers": 0,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "n_groups": 1,
    "ssm_state_size": 8,
    "chunk_size": 16,
    "o_groups": 2,
    "o_lora_rank": 16,
    "num_hash_layers": 0,
    "hc_mult": 2,
    "moe_router_logit_softcapping": 2.0,
    "router_jitter_noise": 0.05,
}


def tiny_configuration(model_type: str, **options):
    """The configuration of a tiny model; the options replace those above."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cls = CONFIG_MAPPING[model_type]
        default = cls()
        chosen = {name: value for name, value in _SIZES.items() if hasattr(default, name)}
        if "kv_lora_rank" in chosen:
            for name in ("head_dim", "qk_head_dim", "n_groups"):
                chosen.pop(name, None)
            chosen["num_key_value_heads"] = 4
        if hasattr(default, "linear_num_key_heads"):
            chosen["num_hidden_layers"] = 4
        if hasattr(default, "full_attention_interval"):
            chosen["full_attention_interval"] = 2
        if getattr(default, "layer_types", None) is not None and hasattr(default, "linear_num_key_heads"):
            chosen["layer_types"] = ["linear_attention", "full_attention"] * 2
        if model_type == "deepseek_v4":
            chosen["mlp_layer_types"] = ["hash_moe", "moe", "moe"]
        if model_type in ("mixtral", "minimax_m2"):
            # Jitter of the tokens in training, and here not of the router's own.
            chosen.pop("router_jitter_noise", None)
        return cls(**{**chosen, **options})


def tiny_model(model_type: str, seed: int = 0, bias: float = 0.3, logits: float = 1.0, **options) -> nn.Module:
    """A tiny causal language model in evaluation mode, its routers' weights and biases drawn at random.

    Args:
        model_type: one of `TYPES` or `MORE_TYPES`.
        seed: of all weights.
        bias: the standard deviation of the correction biases; 0 for none.
        logits: the standard deviation of the logits, roughly, where tokens have unit variance.
        options: of the configuration.
    """
    from transformers import AutoModelForCausalLM

    configuration = tiny_configuration(model_type, **options)
    # Models draw from the global generator; the state of others' is put back.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = AutoModelForCausalLM.from_config(configuration).eval()
        draw_routers(model, bias, logits)
    return model


@torch.no_grad()
def draw_routers(model: nn.Module, bias: float = 0.3, logits: float = 1.0) -> None:
    """Draw the weights of all routers, their correction biases and tables of tokens from torch's own generator."""
    from gatewise.nn.known import contract_of
    from gatewise.nn.readers import readers_of

    for reader in readers_of(model).values():
        contract = contract_of(reader.module)
        assert contract is not None
        weight = reader.module.get_parameter(contract.weight)
        weight.normal_(0.0, logits * weight.shape[1] ** -0.5)
        if reader.correction_bias is not None:
            reader.correction_bias.copy_(bias * torch.randn(reader.n_experts))
        table = getattr(reader.module, "tid2eid", None)
        if table is not None:
            table.copy_(torch.stack([torch.randperm(reader.n_experts)[: table.shape[1]] for _ in table]))


def tiny_tokens(n_sequences: int = 2, length: int = 12, seed: int = 1) -> Tensor:
    """Token ids (n, length) that are no special ones."""
    return torch.randint(3, VOCABULARY, (n_sequences, length), generator=torch.Generator().manual_seed(seed))


def routers_of(model: nn.Module) -> dict[str, nn.Module]:
    """The routers of Gatewise in a model, by their names."""
    from gatewise.nn import Router

    return {name: module for name, module in model.named_modules() if isinstance(module, Router)}
