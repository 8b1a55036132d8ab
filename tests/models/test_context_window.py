"""Context windows as configs name them, against what tiny models of these families can in fact read."""

from pathlib import Path

import pytest
import torch
import transformers
from transformers import PretrainedConfig

from sdft_cli.models import pretrained
from sdft_cli.models.context_window import UNLIMITED, fit, least_of, long_prompts, window_of

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0}
CONFIGS: dict[str, tuple[PretrainedConfig, int]] = {
    "learned, n_positions": (transformers.GPT2Config(n_positions=48), 48),
    "learned, shifted by 2": (transformers.OPTConfig(max_position_embeddings=48), 48),
    "rotary, n_positions": (transformers.GPTJConfig(n_positions=48, rotary_dim=4), 48),
    "rotary": (transformers.Qwen2Config(max_position_embeddings=48), 48),
    "a sliding window is none": (transformers.MistralConfig(max_position_embeddings=48, sliding_window=8), 48),
    "YaRN that the number leaves out": (
        transformers.Qwen2Config(max_position_embeddings=32, rope_parameters=YARN),
        128,
    ),
    "YaRN that the number counts": (transformers.Qwen2Config(max_position_embeddings=128, rope_parameters=YARN), 128),
    "a dynamic rope": (
        transformers.LlamaConfig(
            max_position_embeddings=32, rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
        ),
        128,
    ),
    "alibi, with a table of biases": (transformers.MptConfig(max_seq_len=48), 48),
    "alibi": (transformers.BloomConfig(seq_length=48), UNLIMITED),
    "alibi by a switch": (transformers.FalconConfig(alibi=True), UNLIMITED),
    "recurrent": (transformers.MambaConfig(), UNLIMITED),
    "inside a multimodal config": (
        transformers.Gemma3Config(text_config={"max_position_embeddings": 48, "num_hidden_layers": 2}),
        48,
    ),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_the_window_of_a_config(case: str) -> None:
    config, window = CONFIGS[case]
    assert window_of(config) == window


@pytest.mark.parametrize(
    "config",
    [
        transformers.GPT2Config(n_positions=16, n_embd=16, n_layer=1, n_head=2, vocab_size=32),
        transformers.OPTConfig(
            max_position_embeddings=16, hidden_size=16, ffn_dim=16, word_embed_proj_dim=16, num_hidden_layers=1,
            num_attention_heads=2, vocab_size=32,
        ),
    ],
    ids=["gpt2", "opt"],
)  # fmt: skip
def test_a_model_with_learned_positions_reads_its_window_and_not_a_token_more(config: PretrainedConfig) -> None:
    model, window = transformers.AutoModelForCausalLM.from_config(config), window_of(config)
    assert model(torch.ones(1, window, dtype=torch.long)).logits.shape[1] == window
    with pytest.raises(IndexError):
        model(torch.ones(1, window + 1, dtype=torch.long))


def test_what_fits_is_lowered_for_all_rows_and_not_below_the_least() -> None:
    lengths = {"a": 10, "b": 70, "c": 95}
    assert fit(lengths, window=1000, wanted=50, least=10) == (50, 95, [])
    assert fit(lengths, window=100, wanted=50, least=5) == (5, 95, [])
    assert fit(lengths, window=100, wanted=50, least=6) == (30, 70, ["c"])
    assert fit(lengths, window=100, wanted=50, least=50) == (50, 10, ["b", "c"])


def test_completions_get_as_many_tokens_as_demonstrations_need(tiny_model: Path) -> None:
    from sdft_cli.types import Example

    chat = pretrained.load_chat(str(tiny_model))
    rows = [Example(str(i), [{"role": "user", "content": "a"}], "one two three " * (i + 1)) for i in range(10)]
    needed = sorted(len(chat.tokenizer(str(r.demonstration))["input_ids"]) + 1 for r in rows)
    chat.window = 80
    assert least_of(chat, rows, 1000) in needed[-2:] and least_of(chat, rows, 5) == 5
    assert least_of(chat, [Example("x", rows[0].prompt)], 1000) == 10
    chat.window = 4096
    assert least_of(chat, rows, 1000) == 64


def test_prompts_that_are_short_by_their_bytes_are_not_tokenized(tiny_model: Path) -> None:
    from sdft_cli.types import Example

    chat = pretrained.load_chat(str(tiny_model))
    assert chat.window == 512 and chat.switched(None).window == 512
    rows = [Example(str(n), [{"role": "user", "content": "ab " * n}]) for n in (1, 200)]
    found = long_prompts(chat, rows, lambda row: row.prompt, room=200)
    text = chat.tokenizer.apply_chat_template(rows[1].prompt, tokenize=False, add_generation_prompt=True)
    assert found.lengths == {"200": len(chat.tokenizer(text)["input_ids"])} and not found.refused
