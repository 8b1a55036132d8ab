"""Tiny models of several architectures with random weights."""

import shutil
from pathlib import Path
from typing import Any

import torch

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
