"""Every family of causal language models that the installed transformers knows, built tiny with random weights.

A family is a config class of transformers' mapping of causal models; a variant is one with other settings (another
rope, a soft cap, a shorter window). Sizes are set by the names that configs use for them (`SIZES`), and by hand where
that is not enough (`SPECIAL`). Windows, chunks and the lengths beyond which a rope changes are shorter than the tests'
sequences, and weights are large, so that a mistake shows as tenths of nats. `NOT_BUILT` names what cannot be built.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

VOCABULARY, PAD, EOS = 1203, 1200, 1202

#: Settings by the name that a config has for them; a config gets those that it knows.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "embedding_dim", "lru_width"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "dff", "dim_ff"), 64),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim", "intermediate_size_mlp", "feed_forward_size"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 32),
    **dict.fromkeys(("shared_intermediate_size", "moe_shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 512),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "top_k_experts", "moe_k", "moe_topk", "num_experts_per_token"), 2),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_group"), 1),
    **dict.fromkeys(("sliding_window", "window_size", "attention_chunk_size", "attention_window_size"), 6),
    **dict.fromkeys(("sliding_window_size",), 6),
    **dict.fromkeys(("initializer_range", "init_std"), 0.3),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "o_lora_rank", "qk_head_dim"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "head_dim", "linear_head_dim"), 8),
    **dict.fromkeys(("linear_num_key_heads",), 2),
    **dict.fromkeys(("linear_num_value_heads", "linear_num_heads"), 4),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("mamba_d_state", "state_size", "ssm_state_size", "mamba_chunk_size", "chunk_size"), 8),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 4),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim"), 16),
    **dict.fromkeys(("mamba_n_groups", "mamba_ngroups", "n_groups"), 1),
    **dict.fromkeys(("index_topk",), 4),
    **dict.fromkeys(("index_head_dim", "hidden_size_per_layer_input"), 8),
    # with few heads most of an indexer's scores are zero, and a tie decides which tokens are attended to
    **dict.fromkeys(("index_n_heads", "indexer_n_heads"), 16),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    # towers
    **dict.fromkeys(("embed_dim", "out_hidden_size", "image_size"), 32),
    **dict.fromkeys(("depth",), 2),
    **dict.fromkeys(("patch_size",), 8),
    "pad_token_id": PAD,
    "bos_token_id": 1201,
    "eos_token_id": EOS,
    "eod_token_id": EOS,
}

WINDOWED = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"] * 2}
HYBRID = {"layer_types": ["linear_attention", "full_attention"] * 2}
INDEXED = {
    "layer_types": ["linear_attention", "indexed_attention"] * 2,
    "indexer_n_heads": 16,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 8,
    "indexer_compress_ratio": 2,
    "hc_lowrank": 8,
}
IN_TEXT_CONFIG = {"text_config": HYBRID}
SPARSE_BLOCKS = {
    "index_n_heads": 2,
    "index_block_size": 4,
    "index_topk_blocks": 2,
    "layer_types": ["full_attention", "minimax_m3_sparse"] * 2,
}
#: A head's keys and values as wide as its queries: latent attention has no groups.
LATENT = {"num_key_value_heads": 4}
DECODER = {"is_decoder": True}
SECTIONED = {
    "text_config": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
    }
}
#: Positions are counted from the id of the padding, which is 1 in these.
PAD_ONE = {"pad_token_id": 1}
PAD_ONE_DECODER = DECODER | PAD_ONE
DYNAMIC = {"rope_parameters": {"rope_type": "dynamic", "factor": 32.0, "rope_theta": 10000.0}}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [1.0, 3.0, 8.0, 20.0],
    "original_max_position_embeddings": 16,
    "factor": 32.0,
}

#: What a family needs beyond `SIZES`.
SPECIAL: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk1", "axk2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa"), LATENT),
    **dict.fromkeys(("longcat_flash", "minicpm3", "youtu"), LATENT),
    "bamba": {"attn_layer_indices": [1, 3]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4},
    "granitemoehybrid": HYBRID,
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    **dict.fromkeys(
        ("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "olmo_hybrid"), HYBRID
    ),
    "kimi_linear": {**HYBRID, **LATENT, "q_lora_rank": None, "mlp_layer_types": ["dense", "sparse"] * 2},
    "minimax": HYBRID,
    "mamba2": {"head_dim": 16},
    "falcon_h1": {"mamba_d_ssm": 64},
    "zamba": {
        **LATENT,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "mamba_dt_rank": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
    },
    "zamba2": {
        **LATENT,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "kv_channels": 8,
        "num_query_groups": 4,
        "mamba_headdim": 16,
        "n_mamba_heads": 4,
        "adapter_rank": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
    },
    "xlstm": {"hidden_size": 128, "embedding_dim": 128, "num_heads": 2, "num_blocks": 4, "chunk_size": 64},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "codegen": {"rotary_dim": 4},
    "gptj": {"rotary_dim": 4},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "cohere_compass_text": {
        **WINDOWED,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
            for kind in ("sliding_attention", "full_attention")
        },
    },
    "deepseek_v2": {**LATENT, "num_experts_per_tok": 2},
    "gemma2": WINDOWED,
    "gemma3": {"text_config": WINDOWED},
    "gemma3_text": WINDOWED,
    "gemma3n_text": {**WINDOWED, "intermediate_size": [64] * 4, "num_kv_shared_layers": 0, "laurel_rank": 4},
    "gemma4_text": WINDOWED,
    "gpt_oss": WINDOWED,
    "inkling_text": {"layer_types": ["hybrid", "hybrid_sliding"] * 2},
    "hrm_text": {"initializer_range": 0.1},  # its cycles amplify rounding
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
    "blt": {"encoder_hash_byte_group_vocab": 50},
    "minimax_m3_vl_text": SPARSE_BLOCKS,
    "minimax_m3_vl": {"text_config": SPARSE_BLOCKS},
    "xlm": {"emb_dim": 32, "causal": True, "is_encoder": True},
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl"), SECTIONED),
    "llama4": {
        "vision_config": {
            **dict.fromkeys(("projector_input_dim", "projector_output_dim", "vision_output_dim"), 16),
            **dict.fromkeys(("intermediate_size",), 64),
        }
    },
    "qwen4_exp": {"text_config": INDEXED},
    "qwen4_exp_text": INDEXED,
    "phi4_multimodal": {
        "audio_config": {"num_blocks": 1, "hidden_size": 16, "nemo_conv_channels": 16, "ext_pw_out_channel": 16}
    },
    "reformer": {
        **DECODER,
        "axial_pos_shape": [16, 32],
        "axial_pos_embds_dim": [16, 16],
        "attention_head_size": 8,
        "attn_layers": ["local", "lsh", "local", "lsh"],
        "local_attn_chunk_length": 8,
        "lsh_attn_chunk_length": 8,
        "num_buckets": 4,
    },
    **dict.fromkeys(("bert", "bert-generation", "big_bird", "electra", "ernie"), DECODER),
    **dict.fromkeys(("megatron-bert", "rembert", "roformer"), DECODER),
    **dict.fromkeys(("camembert", "data2vec-text", "roberta", "roberta-prelayernorm"), PAD_ONE_DECODER),
    **dict.fromkeys(("xlm-roberta", "xlm-roberta-xl"), PAD_ONE_DECODER),
    "roc_bert": {**PAD_ONE_DECODER, "shape_vocab_size": 30, "pronunciation_vocab_size": 30},
    "xmod": {**PAD_ONE_DECODER, "default_language": "en_XX"},
    **dict.fromkeys(("xglm", "prophetnet"), PAD_ONE),
}

#: Further variants: the family, and the settings that make it one.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, dynamic rope": ("llama", {"max_position_embeddings": 16, **DYNAMIC}),
    "llama, linear rope": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}),
    "llama, yarn": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "rope_theta": 10000.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "llama, llama3 rope": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "factor": 8.0,
                "rope_theta": 10000.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "llama, tied head": ("llama", {"tie_word_embeddings": True}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "phi3, longrope": (
        "phi3",
        {"rope_parameters": LONGROPE, "original_max_position_embeddings": 16},
    ),
    "minicpm3, longrope": (
        "minicpm3",
        {**LATENT, "rope_parameters": LONGROPE, "original_max_position_embeddings": 16},
    ),
    "mistral, full attention": ("mistral", {"sliding_window": None}),
    "mistral, sliding window": ("mistral", {"sliding_window": 6}),
    "qwen2, some layers sliding": ("qwen2", {"use_sliding_window": True, "max_window_layers": 2}),
    "qwen3, some layers sliding": ("qwen3", {"use_sliding_window": True, "max_window_layers": 2}),
    "gemma2, strong caps": ("gemma2", {**WINDOWED, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    "gemma2, full attention": ("gemma2", {"layer_types": ["full_attention"] * 4, "attn_logit_softcapping": 2.0}),
    "granite, scaled logits": ("granite", {"logits_scaling": 8.0, "attention_multiplier": 0.1}),
    "cohere, scaled logits": ("cohere", {"logit_scale": 0.25}),
    "falcon, alibi": ("falcon", {"alibi": True}),
    "falcon, new decoder": ("falcon", {"new_decoder_architecture": True}),
    "opt, projected embeddings": ("opt", {"word_embed_proj_dim": 16}),
    "opt, norm after": ("opt", {"do_layer_norm_before": False}),
    "bloom, residual after norm": ("bloom", {"apply_residual_connection_post_layernorm": True}),
    "gpt_neox, one residual": ("gpt_neox", {"use_parallel_residual": False}),
    "mixtral, router noise": ("mixtral", {"router_jitter_noise": 0.3}),
    "mixtral, sliding window": ("mixtral", {"sliding_window": 6}),
    "granite, hybrid without positions": ("granitemoehybrid", {**HYBRID, "position_embedding_type": "nope"}),
    "bert, bidirectional": ("bert", {"is_decoder": False}),
    "roberta, bidirectional": ("roberta", {"is_decoder": False, "pad_token_id": 1}),
}

#: Language models with towers for images or sound, which have no causal class of their own.
MULTIMODAL = (
    *("aria", "aya_vision", "deepseek_vl", "exaone4_5", "idefics2", "idefics3", "internvl", "lfm2_vl", "llava"),
    *("llava_next", "llava_onevision", "minicpmv4_6", "mistral3", "ovis2", "paligemma", "qwen2_audio", "qwen2_vl"),
    *("qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "smolvlm", "voxtral"),
)

#: Families that are not built here, and why.
NOT_BUILT: dict[str, str] = {
    "blt": "reads bytes through a model of its own that cuts them into patches",
    "emu3": "writes images too, in ids that need a map",
    "gemma3n": "its image tower needs the package timm (gemma3n_text is built)",
    "gemma4_assistant": "a drafter that needs the hidden states of another model",
    "gemma4_unified_assistant": "a drafter that needs the hidden states of another model",
    "musicgen": "writes audio codes for a text encoder",
    "musicgen_melody": "writes audio codes for a text encoder",
}


def names() -> list[str]:
    """Every causal family of the installed transformers that is built here, multimodal ones, and the variants."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return [*(n for n in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if n not in NOT_BUILT), *MULTIMODAL, *VARIANTS]


def config_of(name: str) -> Any:
    """The tiny config of a family or variant."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    family, settings = VARIANTS.get(name, (name, {}))
    return _sized(CONFIG_MAPPING[family], {**SPECIAL.get(family, {}), **settings})


def _sized(kind: Any, special: dict[str, Any]) -> Any:
    default = kind()
    known = default.to_dict()
    settings = {
        key: value for key, value in SIZES.items() if known.get(key) is not None or (key in _IDS and key in known)
    }
    for part in getattr(kind, "sub_configs", {}):
        if (inner := getattr(default, part, None)) is not None:
            settings[part] = _sized(type(inner), special.get(part, {}))
    settings |= {key: value for key, value in special.items() if key not in getattr(kind, "sub_configs", {})}
    return kind(**settings)


_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "eod_token_id")


def build(name: str, attention: str | None = None) -> Any:
    """That family's model with random weights, none of them at the value that it starts from."""
    from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM

    config = config_of(name)
    multimodal = config.get_text_config() is not config and type(config) in AutoModelForMultimodalLM._model_mapping
    kind = AutoModelForMultimodalLM if multimodal else AutoModelForCausalLM
    torch.manual_seed(0)
    model = kind.from_config(config, **({} if attention is None else {"attn_implementation": attention})).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, param in model.named_parameters():
            if param.dim() == 1:  # norms that begin at one and biases that begin at zero hide that they are left out
                param.add_(0.1 * torch.randn(param.shape, generator=draw))
            assert param.isfinite().all(), key
    return model


def save(name: str, folder: Path, tokenizer: Path) -> Path:
    """`build`'s model as a folder, with the files of ``tokenizer``'s folder."""
    build(name).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (tokenizer / file).is_file():
            shutil.copy(tokenizer / file, folder / file)
    return folder


# --- the few that the tests of packing and of the fast decoder name ---------------------------------------------------

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1203,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 1200,
    "bos_token_id": None,
    "eos_token_id": 1202,
}


#: Architectures by the name of their config, what is special about each, and whether they may be packed.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "llama": ("LlamaConfig", {}, True),
    "qwen2, one head a key": ("Qwen2Config", {"num_key_value_heads": 4}, True),
    "qwen3, norms on queries and keys": ("Qwen3Config", {"head_dim": 16}, True),
    "mistral, full attention": ("MistralConfig", {"sliding_window": None}, True),
    "mistral, sliding window": ("MistralConfig", {"sliding_window": 4}, False),
    "qwen3, some layers sliding": (
        "Qwen3Config",
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
        False,
    ),
    "gemma, norms of 1 + weight": ("GemmaConfig", {"head_dim": 16}, True),
    "gemma2, capped scores": ("Gemma2Config", {"head_dim": 16, "sliding_window": 4}, False),
    "gpt2, learnt positions": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}, True),
}


def random_model(name: str, folder: Path, tokenizer: Path) -> Path:
    """A model of that architecture with random weights and the tiny model's tokenizer."""
    import transformers
    from transformers import AutoModelForCausalLM

    kind, special, _ = ARCHITECTURES[name]
    shared = {} if kind == "GPT2Config" else SMALL
    config = getattr(transformers, kind)(**{**shared, "vocab_size": 1203, "eos_token_id": 1202, **special})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (tokenizer / file).is_file():
            shutil.copy(tokenizer / file, folder / file)
    return folder
