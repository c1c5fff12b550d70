"""The routers of transformers 5.24, read in its sources; tests compare every row with the class itself."""

from gatewise.nn.known.contracts import Attribute, Constant, CorrectionBias, Option, Positive, Refusal, RouterContract

__all__ = ["CONTRACTS", "REFUSALS"]


def _classes(**names: str) -> dict[str, str]:
    """Model types and classes; "folder:Class" where the folder is not named as the type is."""
    found: dict[str, str] = {}
    for model_type, name in names.items():
        folder, _, cls = name.rpartition(":")
        folder = folder or model_type
        found[model_type] = f"transformers.models.{folder}.modeling_{folder}:{cls}"
    return found


_TOP_K: dict[str, Option] = {"top_k": Attribute("top_k")}
_GROUPS: dict[str, Option] = {"n_groups": Attribute("num_group"), "top_groups": Attribute("topk_group")}
_NORM_IS_PLAIN: dict[str, Option] = {
    "renormalise": Attribute("norm_topk_prob", {True: Constant("sum"), False: Constant("none")})
}
# These add 1e-20 to the sum: the same as the larger of both, since a float32 sum above 1e-13 does not see it.
_FLOOR: dict[str, Option] = {"renormalise": Constant("floored_sum"), "floor": Constant(1e-20)}
_NORM_IS_FLOORED: dict[str, Option] = {
    "renormalise": Attribute("norm_topk_prob", {True: Constant("floored_sum"), False: Constant("none")}),
    "floor": Constant(1e-20),
}
_SCORE_FUNCTION: dict[str, Option] = {
    "score": Attribute(
        "score_fn.__class__.__name__",
        {
            "Sigmoid": Constant("sigmoid"),
            "SqrtSoftplusActivation": Constant("sqrt_softplus"),
        },
    )
}
_ROUTED_FACTOR: dict[str, Option] = {"factor": Attribute("routed_scaling_factor")}
_OWN_BUFFER = CorrectionBias("buffer", "e_score_correction_bias")

CONTRACTS: tuple[RouterContract, ...] = (
    RouterContract(
        formula="w = s of the K largest s, divided by their sum if norm_topk_prob; s = softmax(z)",
        routers=_classes(
            flex_olmo="FlexOlmoTopKRouter",
            lara_mini="LaraMiniTopKRouter",
            mellum="MellumTopKRouter",
            olmoe="OlmoeTopKRouter",
            qwen2_moe="Qwen2MoeTopKRouter",
            qwen3_moe="Qwen3MoeTopKRouter",
            qwen3_next="Qwen3NextTopKRouter",
            qwen3_omni_moe_text="qwen3_omni_moe:Qwen3OmniMoeThinkerTextTopKRouter",
            qwen3_omni_moe_talker_text="qwen3_omni_moe:Qwen3OmniMoeTalkerTextTopKRouter",
            qwen4_exp_text="qwen4_exp:Qwen4ExpTextTopKRouter",
        ),
        options={**_TOP_K, "score": Constant("softmax"), **_NORM_IS_PLAIN},
        exact=False,
    ),
    RouterContract(
        formula="w = s / Σ s of the K largest s; s = softmax(z)",
        routers=_classes(mixtral="MixtralTopKRouter", minimax="MiniMaxTopKRouter"),
        options={**_TOP_K, "score": Constant("softmax"), "renormalise": Constant("sum")},
    ),
    RouterContract(
        formula="w = s / Σ s of the K largest s; s = softmax(z)",
        routers=_classes(
            qwen3_5_moe_text="qwen3_5_moe:Qwen3_5MoeTopKRouter",
            qwen3_vl_moe_text="qwen3_vl_moe:Qwen3VLMoeTextTopKRouter",
        ),
        options={**_TOP_K, "score": Constant("softmax"), "renormalise": Constant("sum")},
        exact=False,
    ),
    RouterContract(
        formula="w = s / Σ s of the K largest s; s = softmax(z)",
        routers=_classes(hunyuan_v1_moe="HunYuanMoEV1Gate"),
        options={**_TOP_K, "score": Constant("softmax"), "renormalise": Constant("sum")},
        weight="wg.weight",
    ),
    RouterContract(
        formula="w = softmax of the K largest z",
        routers=_classes(
            aria_text="aria:AriaTextTopKRouter",
            granitemoe="GraniteMoeTopKRouter",
            granitemoe_swa="GraniteMoeSWATopKRouter",
            granitemoehybrid="GraniteMoeHybridTopKRouter",
            granitemoeshared="GraniteMoeSharedTopKRouter",
        ),
        options={**_TOP_K, "score": Constant("softmax"), "renormalise": Constant("sum")},
        exact=False,
    ),
    RouterContract(
        formula="w = softmax of the K largest z, with a bias in z",
        routers=_classes(gpt_oss="GptOssTopKRouter"),
        options={**_TOP_K, "score": Constant("softmax"), "renormalise": Constant("sum")},
        gate_bias="bias",
        exact=False,
    ),
    RouterContract(
        formula="w = s of the K largest s; s = softmax(z)",
        routers=_classes(jamba="JambaTopKRouter"),
        options={**_TOP_K, "score": Constant("softmax"), "renormalise": Constant("none")},
        exact=False,
    ),
    RouterContract(
        formula="w = factor · s of the K largest s in the groups with the largest s; s = softmax(z)",
        routers=_classes(
            deepseek_v2="DeepseekV2TopkRouter",
            deepseek_ocr2_text="deepseek_ocr2:DeepseekOcr2TextTopkRouter",
            unlimited_ocr_text="unlimited_ocr:UnlimitedOcrTextTopkRouter",
        ),
        options={
            **_TOP_K,
            "score": Constant("softmax"),
            "renormalise": Constant("none"),
            **_ROUTED_FACTOR,
            **{
                name: Attribute("topk_method", {"greedy": Constant(1), "group_limited_greedy": own})
                for name, own in _GROUPS.items()
            },
            "group_score": Constant("largest"),
        },
    ),
    RouterContract(
        formula="w = factor · s / Σ s of the K largest s + b in the best groups; s = σ(z)",
        routers=_classes(
            axk1="AXK1TopkRouter",
            bailing_hybrid="BailingHybridTopkRouter",
            deepseek_v3="DeepseekV3TopkRouter",
            deepseek_v32="DeepseekV32TopkRouter",
            dots1="Dots1TopkRouter",
            dots3_note_text="dots3_note:Dots3NoteTextTopkRouter",
            exaone_moe="ExaoneMoeTopkRouter",
            glm4_moe="Glm4MoeTopkRouter",
            glm4_moe_lite="Glm4MoeLiteTopkRouter",
            glm4v_moe_text="glm4v_moe:Glm4vMoeTextTopkRouter",
            glm5_next_text="glm5_next:Glm5NextTextTopkRouter",
            glm_moe_dsa="GlmMoeDsaTopkRouter",
            hy_v4="HYV4TopkRouter",
            hy_v4_vl_text="hy_v4_vl:HYV4VLTopkRouter",
            kimi_linear="KimiLinearTopkRouter",
            mimo_v2_flash="MiMoV2FlashTopkRouter",
            nemotron_h="NemotronHTopkRouter",
            solar_open="SolarOpenTopkRouter",
        ),
        options={**_TOP_K, "score": Constant("sigmoid"), **_NORM_IS_FLOORED, **_ROUTED_FACTOR, **_GROUPS},
        bias=_OWN_BUFFER,
    ),
    RouterContract(
        formula="w = s / Σ s of the K largest s + b in the best groups; s = σ(z)",
        routers=_classes(beam="BeamTopKRouter"),
        options={**_TOP_K, "score": Constant("sigmoid"), **_NORM_IS_FLOORED, **_GROUPS},
        bias=_OWN_BUFFER,
    ),
    RouterContract(
        formula="w = factor · s / Σ s of the K largest s + b; s by scoring_func",
        routers=_classes(
            inkling2_text="inkling2:Inkling2TopKRouter",
            inkling2_loop_text="inkling2_loop:Inkling2LoopTopKRouter",
        ),
        options={**_TOP_K, **_SCORE_FUNCTION, **_FLOOR, **_ROUTED_FACTOR},
        bias=_OWN_BUFFER,
    ),
    RouterContract(
        formula="w = factor · s / Σ s of the K largest s + b; s by scoring_func",
        routers=_classes(deepseek_v4="DeepseekV4TopKRouter"),
        options={**_TOP_K, **_SCORE_FUNCTION, **_FLOOR, **_ROUTED_FACTOR},
        bias=_OWN_BUFFER,
        exact=False,
    ),
    RouterContract(
        formula="w = factor · s / Σ s of the K experts in a table by token id; s by scoring_func",
        routers=_classes(deepseek_v4="DeepseekV4HashRouter"),
        options={**_TOP_K, **_SCORE_FUNCTION, **_FLOOR, **_ROUTED_FACTOR},
        exact=False,
        skipped="its experts are a fixed function of the token ids, which a gate does not see",
    ),
    RouterContract(
        formula="w = s / Σ s of the K largest s + b; s = σ(z)",
        routers=_classes(
            minimax_m3_vl_text="minimax_m3_vl:MiniMaxM3VLTopKRouter",
            step3p5="step3p7:Step3p7TopKRouter",
        ),
        options={**_TOP_K, "score": Constant("sigmoid"), "renormalise": Constant("sum")},
        bias=_OWN_BUFFER,
    ),
    RouterContract(
        formula="w = s / Σ s of the K largest s + b; s = σ(z)",
        routers=_classes(minimax_m2="MiniMaxM2TopKRouter"),
        options={**_TOP_K, "score": Constant("sigmoid"), "renormalise": Constant("sum")},
        bias=CorrectionBias("argument", "e_score_correction_bias"),
    ),
    RouterContract(
        formula="w = factor · s / Σ s of the K largest s + b; s = σ(z)",
        routers=_classes(hy_v3="HYV3TopKRouter", dots3_note_vision_encoder="dots3_note:Dots3NoteVisionTopKRouter"),
        options={
            **_TOP_K,
            "score": Constant("sigmoid"),
            **_FLOOR,
            "factor": Attribute("router_scaling_factor"),
        },
        bias=CorrectionBias("argument", "e_score_correction_bias"),
    ),
    RouterContract(
        formula="w = factor · s / Σ s of the K largest s + b; s = σ(z)",
        routers=_classes(afmoe="AfmoeTokenChoiceRouter"),
        options={**_TOP_K, "score": Constant("sigmoid"), **_FLOOR, "factor": Attribute("route_scale")},
        bias=CorrectionBias("argument", "expert_bias"),
        weight="gate.weight",
    ),
    RouterContract(
        formula="w = s / max(Σ s, norm_min) of the K largest s + b; s = softmax(z)",
        routers=_classes(
            ernie4_5_moe="Ernie4_5_MoeTopKRouter",
            ernie4_5_vl_moe_text="ernie4_5_vl_moe:Ernie4_5_VLMoeMoeTopKRouter",
        ),
        options={
            **_TOP_K,
            "score": Constant("softmax"),
            "renormalise": Constant("floored_sum"),
            "floor": Attribute("norm_min"),
        },
        bias=CorrectionBias("submodule", "moe_statics.e_score_correction_bias"),
        exact=False,
    ),
    RouterContract(
        formula="w = s / Σ s of the K largest s + b; s = σ(c · tanh(z/c))",
        routers=_classes(laguna="LagunaTopKRouter"),
        options={
            **_TOP_K,
            "score": Constant("sigmoid"),
            "renormalise": Constant("sum"),
            "cap": Positive("router_logit_softcapping"),
        },
        bias=CorrectionBias("parameter", "e_score_correction_bias"),
        capped=True,
        exact=False,
    ),
    RouterContract(
        formula="w = softmax or sigmoid (divided by its sum if norm_topk_prob) of the K largest z",
        routers=_classes(cohere2_moe="Cohere2MoeTopKRouter"),
        options={
            **_TOP_K,
            "score": Attribute("expert_selection_fn", {"softmax": Constant("softmax"), "sigmoid": Constant("sigmoid")}),
            "renormalise": Attribute(
                "expert_selection_fn",
                {"softmax": Constant("sum"), "sigmoid": _NORM_IS_PLAIN["renormalise"]},
            ),
        },
        exact=False,
    ),
    RouterContract(
        formula="w = s of the K largest s, divided by their sum if norm_topk_prob; s = σ(z)",
        routers=_classes(flint="FlintTopKRouter"),
        options={**_TOP_K, "score": Constant("sigmoid"), **_NORM_IS_PLAIN},
    ),
    RouterContract(
        formula="w = factor · s (divided by its sum if norm_topk_prob) of the K largest s in the best groups; "
        "s = softmax(z)",
        routers=_classes(mistral4="Mistral4TopkRouter"),
        options={**_TOP_K, "score": Constant("softmax"), **_NORM_IS_FLOORED, **_ROUTED_FACTOR, **_GROUPS},
        exact=False,
    ),
    RouterContract(
        formula="w = factor · s / Σ s of the K largest s in the best groups; s = softmax(z)",
        routers=_classes(mistral_large4_text="mistral_large4:MistralLarge4TextTopkRouter"),
        options={**_TOP_K, "score": Constant("softmax"), **_FLOOR, **_ROUTED_FACTOR, **_GROUPS},
    ),
    RouterContract(
        formula="two times the largest z left, w = softmax of those near it (the sparse mixer, without its sampling)",
        routers=_classes(phimoe="PhimoeTopKRouter"),
        options={
            "top_k": Constant(2),
            "score": Constant("softmax"),
            "renormalise": Constant("none"),
            "method": Constant("sparse_mixer"),
            "mixer_epsilon": Attribute("router_jitter_noise"),
        },
        exact=False,
        jitter=Attribute("input_jitter_noise"),
    ),
)

REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        _classes(llama4_text="llama4:Llama4Router"),
        "it gives a pair of dense scores (T, E) and logits, and the layer weights every expert's inputs by the scores",
    ),
    Refusal(
        _classes(
            gemma4_text="gemma4:Gemma4TextRouter", diffusion_gemma_text="diffusion_gemma:DiffusionGemmaTextRouter"
        ),
        "it normalises and scales its tokens, gives probabilities in the place of logits, and scales the weights of "
        "every expert by a learned number",
    ),
    Refusal(
        _classes(zaya="ZayaRouter"),
        "it carries a state from layer to layer and has a class for no expert",
    ),
    Refusal(
        _classes(inkling_text="inkling:InklingTopkRouter"),
        "it scores the shared experts too and gives their weights beside those of the others",
    ),
    Refusal(
        _classes(axk2="AXK2TopkRouter"),
        "it gives experts of the groups that are out the score 0, which can be above that of others",
    ),
    Refusal(
        _classes(kolibri1="Kolibri1TopKRouter"),
        "it adds its correction bias to the logits and not to the scores",
    ),
    Refusal(
        _classes(lfm2_moe="Lfm2MoeTopKRouter"),
        "it adds 1e-6 to the sum of the weights, which no selection does",
    ),
)
