"""GGUF files of tiny models, written as llama.cpp's converter writes them."""

from __future__ import annotations

import json
from pathlib import Path

import torch

_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
}


def write_llama(file: Path, core, tokenizer, quantised: bool = False) -> dict[str, torch.Tensor]:
    """A Llama with its tokenizer (byte-level BPE); the weights that the file stands for, by their names in ``core``.

    With ``quantised``, matrices of the layers are stored in 8 bits.
    """
    import gguf

    config, writer = core.config, gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    _write_tokenizer(writer, tokenizer)
    stored = {}
    for name, weight in core.state_dict().items():
        kind = next(k for k in _NAMES if f".{k}." in f".{name}")
        layer = f"blk.{name.split('.')[2]}." if ".layers." in name else ""
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(_NAMES[kind])
        array = (_interleaved(weight, heads) if heads else weight).float().numpy()
        stored[name] = weight
        if quantised and layer and weight.ndim == 2:
            packed = gguf.quants.quantize(array, gguf.GGMLQuantizationType.Q8_0)
            back = torch.from_numpy(gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q8_0))
            stored[name] = _halves(back, heads) if heads else back
            writer.add_tensor(f"{layer}{_NAMES[kind]}.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(f"{layer}{_NAMES[kind]}.weight", array.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stored


def _interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a head in llama.cpp's order: the two halves of a rotation side by side."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _write_tokenizer(writer, tokenizer) -> None:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    by_id = {i: word for word, i in tokenizer.get_vocab().items()}
    special = set(tokenizer.all_special_ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([by_id[i] for i in range(len(by_id))])
    writer.add_token_types([3 if i in special else 1 for i in range(len(by_id))])
    writer.add_token_merges([" ".join(m) if isinstance(m, list) else m for m in state["model"]["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
