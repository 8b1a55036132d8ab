"""Published shapes of models, and folders with nothing but such a config."""

from pathlib import Path

from transformers import LlamaConfig, Qwen2Config

#: hidden, inner, layers, heads, key heads, vocabulary, tied.
QWEN = {
    "Qwen2.5-1.5B": (1536, 8960, 28, 12, 2, 151_936, True),
    "Qwen2.5-7B": (3584, 18_944, 28, 28, 4, 152_064, False),
    "Qwen2.5-32B": (5120, 27_648, 64, 40, 8, 152_064, False),
}
LLAMA = {"Llama-3-70B": (8192, 28_672, 80, 64, 8, 128_256, False)}
SHAPES = {**QWEN, **LLAMA}


def folder(name: str, at: Path) -> Path:
    """A model's folder without weights and tokenizer."""
    hidden, inner, layers, heads, keys, vocabulary, tied = SHAPES[name]
    kind, architecture = (LlamaConfig, "LlamaForCausalLM") if name in LLAMA else (Qwen2Config, "Qwen2ForCausalLM")
    kind(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        architectures=[architecture],
    ).save_pretrained(at)
    return at


def parameters(name: str) -> tuple[int, int, int]:
    """By hand: all parameters, those of the decoder's linear layers, and those of an adapter of rank 1 on the latter.
    Qwen2's queries, keys and values have a bias."""
    hidden, inner, layers, heads, keys, vocabulary, tied = SHAPES[name]
    wide = hidden // heads * keys
    linear = layers * (2 * hidden * hidden + 2 * hidden * wide + 3 * hidden * inner)
    biases = layers * (hidden + 2 * wide) * (name in QWEN)
    norms = (2 * layers + 1) * hidden
    ends = [(hidden, hidden), (hidden, wide), (hidden, wide), (hidden, hidden), (hidden, inner), (hidden, inner)]
    adapter = layers * sum(a + b for a, b in [*ends, (inner, hidden)])
    return linear + biases + norms + vocabulary * hidden * (1 if tied else 2), linear, adapter
