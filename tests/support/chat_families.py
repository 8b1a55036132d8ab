"""Tiny tokenizers and models with chat templates in the form of well-known families: made here, offline.

Two kinds of tokenizers: byte-level BPE in which a blank line is one token (Qwen, Llama-3, DeepSeek), and BPE that puts
``▁`` before the first word (Llama-2, Gemma, Phi-3). The templates are written for these tests, in each family's form.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_TEXTS = (
    "what is two and two ?\n\nthe answer is four . the user asks , the assistant says\n",
    "<think>\nhm , two and two\n</think>\n\nfour\n\n[INST] be kind [/INST] user model assistant system tool",
    '{"name": "look", "arguments": {"at": "map"}} result: seven\n\n\n',
    "0 1 2 3 4 5 6 7 8 9 one three five six eight nine ten : ; . , ! ?",
)


@dataclass(frozen=True)
class Family:
    """``end`` is the text of the token that closes an assistant's turn (None: the template writes none)."""

    template: str
    end: str | None
    special: tuple[str, ...]
    eos: str
    bos: str | None = None
    words: str = "bytes"  # or "prepend"


def _chatml(turn: str = "", opening: str = "", before: str = "", after: str = "") -> str:
    """ChatML, with ``turn`` as the text of an assistant's turn and ``opening`` after the generation prompt."""
    assistant = turn or "{{ m.content }}"
    return (
        before + "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{% if m.role == 'assistant' %}"
        + assistant
        + "{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}" + opening + "{% endif %}" + after
    )


#: Where the last question stands; thinking before it is history (Qwen3).
_LAST_ASKED = (
    "{% set ns = namespace(asked=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.asked = loop.index0 %}{% endif %}{% endfor %}"
)
_PARTED = (
    "{% set content = m.content %}{% set reason = m.reasoning_content or '' %}"
    "{% if not reason and '</think>' in content %}"
    "{% set reason = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
)
_THOUGHT = "{{ '<think>\n' + reason.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}"
_CALLS = (
    "{% for c in m.tool_calls or [] %}{{ '\n' if m.content or not loop.first }}"
    "{{ '<tool_call>\n' + ({'name': c.function.name, 'arguments': c.function.arguments} | tojson) + '\n</tool_call>' }}"
    "{% endfor %}"
)
_QWEN_TURN = (
    _PARTED
    + "{% if loop.index0 > ns.asked and (loop.last or reason) %}"
    + _THOUGHT
    + "{% else %}{{ content }}{% endif %}"
) + _CALLS
_TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for t in tools %}{{ t | tojson }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endif %}"
)
_IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>")

_ALTERNATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/...') }}{% endif %}{% endfor %}"
)

FAMILIES: dict[str, Family] = {
    "chatml": Family(_chatml(), "<|im_end|>", _IM[:3], "<|im_end|>"),
    # a base model whose tokenizer ends texts otherwise than its template ends turns
    "chatml, base": Family(_chatml(), "<|im_end|>", _IM[:3], "<|endoftext|>"),
    "qwen3": Family(
        _chatml(
            _QWEN_TURN,
            "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}",
            _TOOLS + _LAST_ASKED,
        ),
        "<|im_end|>",
        _IM,
        "<|im_end|>",
    ),
    "qwen3-thinking": Family(
        _chatml(_QWEN_TURN, "{{ '<think>\n' }}", _TOOLS + _LAST_ASKED), "<|im_end|>", _IM, "<|im_end|>"
    ),
    "r1": Family(
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}"
        "{% elif m.role == 'user' %}{{ '<|User|>' + m.content }}"
        "{% elif m.role == 'assistant' %}{% set content = m.content.split('</think>')[-1] %}"
        "{{ '<|Assistant|>' + content + '<|end_of_sentence|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}",
        "<|end_of_sentence|>",
        ("<|begin|>", "<|end_of_sentence|>", "<|User|>", "<|Assistant|>", "<think>", "</think>"),
        "<|end_of_sentence|>",
        "<|begin|>",
    ),
    "gemma": Family(
        "{{ bos_token }}"
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + _ALTERNATE
        + "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n'"
        " + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        "<end_of_turn>",
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        "<eos>",
        "<bos>",
        "prepend",
    ),
    "llama-2": Family(
        "{% if messages[0].role == 'system' %}{% set first = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
        "{% set messages = messages[1:] %}{% else %}{% set first = '' %}{% endif %}"
        + _ALTERNATE
        + "{% for m in messages %}"
        "{% if m.role == 'user' %}"
        "{{ bos_token + '[INST] ' + (first if loop.first else '') + m.content.strip() + ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
        "</s>",
        ("<s>", "</s>"),
        "</s>",
        "<s>",
        "prepend",
    ),
    "llama-3": Family(
        "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n'"
        " + m.content | trim + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        "<|eot_id|>",
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|end_of_text|>",
        "<|begin_of_text|>",
    ),
    "mistral": Family(
        "{{ bos_token }}" + _ALTERNATE + "{% for m in messages %}{% if m.role == 'user' %}"
        "{{ '[INST] ' + m.content + ' [/INST]' }}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
        "</s>",
        ("<s>", "</s>"),
        "</s>",
        "<s>",
        "prepend",
    ),
    "phi-3": Family(
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
        "<|end|>",
        ("<s>", "<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|tool|>"),
        "<|endoftext|>",
        "<s>",
        "prepend",
    ),
    "zephyr": Family(
        "{% for m in messages %}{% if m.role in ('user', 'system', 'assistant') %}"
        "{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        "</s>",
        ("<s>", "</s>"),
        "</s>",
        "<s>",
        "prepend",
    ),
    "glm-4": Family(
        "[gMASK]<sop>{% for m in messages %}"
        "{{ '<|' + ('observation' if m.role == 'tool' else m.role) + '|>\n' + m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
        None,
        ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
        "<|endoftext|>",
    ),
    "plain text": Family(
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}",
        None,
        ("<|endoftext|>",),
        "<|endoftext|>",
    ),
    "tools": Family(
        _TOOLS
        + "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
        + _CALLS
        + "{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "<|im_end|>",
        _IM,
        "<|im_end|>",
    ),
    "generation": Family(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ m.content + '<|im_end|>' }}{% endif %}"
        "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "<|im_end|>",
        _IM[:3],
        "<|im_end|>",
    ),
}


@cache
def _words(kind: str) -> str:
    """A tokenizer's JSON without special tokens, trained on the texts."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        pattern = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE(byte_fallback=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        tokenizer.decoder = decoders.Sequence(steps)
        byte_tokens = [f"<0x{i:02X}>" for i in range(256)]
        trainer = trainers.BpeTrainer(
            vocab_size=600, special_tokens=byte_tokens, max_token_length=8, show_progress=False
        )
    tokenizer.train_from_iterator([text for text in _TEXTS for _ in range(3)], trainer)
    return tokenizer.to_str()


def tokenizer(name: str, **changes: Any):
    """The tokenizer of a family, with its template; ``changes`` are attributes to set otherwise."""
    import json

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    family = FAMILIES[name]
    state = json.loads(_words(family.words))
    if family.words == "prepend":  # bytes are words of the vocabulary, and no tokens of their own
        state["added_tokens"] = []
    more = {"bos_token": family.bos} if family.bos else {}
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        eos_token=family.eos,
        additional_special_tokens=[
            t for t in family.special if not t.startswith(("<tool", "</tool", "<think", "</think"))
        ],
        **more,
    )
    made.add_tokens([t for t in family.special if t not in made.all_special_tokens])
    made.chat_template = family.template
    for attribute, value in changes.items():
        setattr(made, attribute, value)
    return made


def model(folder: Path, name: str, **settings: Any) -> Path:
    """A two-layer Llama with random weights and the family's tokenizer, as an ordinary model folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    made = tokenizer(name)
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=len(made),
        bos_token_id=made.bos_token_id,
        eos_token_id=made.eos_token_id,
        pad_token_id=None,
        **{**shape, "max_position_embeddings": 256, **settings},
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder
