"""The micro world's tokenizer: Qwen2's byte-level BPE, with every word a single token.

It has to be Qwen2's: loaders choose the tokenizer class by the architecture, and for Qwen2 they rebuild the
pre-tokenizer and keep only vocabulary and merges. Text outside the micro language falls back to bytes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sdft_cli.micro.language import vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerBase:
    """A ``Qwen2Tokenizer``; its token ids are stable because the vocabulary is."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=100_000,  # more than there are merges, so training continues until every word is one token
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator([*vocabulary(), "\n", "\n\n"], trainer)
    vocab = bpe.get_vocab()
    merges = _merges(bpe)
    for special in ("<|endoftext|>", "<|im_start|>", "<|im_end|>"):
        vocab[special] = len(vocab)
    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=merges,
        add_prefix_space=True,  # a word is the same token wherever it occurs
        unk_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=512,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _merges(bpe: Tokenizer) -> list[tuple[str, str]]:
    return [(first, second) for first, second in json.loads(bpe.to_str())["model"]["merges"]]
