"""Thinking that stands beside an answer, and how it is taken away: the one place that knows how models mark it.

`strip_thinking` removes what reasoning models think of their own accord, in the marks of their chat templates.
`strip_reasoning` also removes reasoning that a prompt asked for in tags, which belongs to the response but is no part
of the answer.
"""

from __future__ import annotations

import re

#: Marks of a thinking block's beginning and end: DeepSeek and Qwen (<think>), others' tags, Seed, Kimi, Magistral,
#: Sky-T1, Command, MedGemma.
_OPENING = re.compile(
    r"<(?:think|thinking|thought|seed:think)>|◁think▷|\[THINK\]|<\|begin_of_thought\|>|<\|START_THINKING\|>|<unused94>",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    r"</(?:think|thinking|thought|seed:think)>|◁/think▷|\[/THINK\]|<\|end_of_thought\|>|<\|END_THINKING\|>|<unused95>",
    re.IGNORECASE,
)
#: The channels of gpt-oss; without its special tokens, its text runs "analysis…assistantfinal…".
_CHANNEL, _FINAL = "<|channel|>", "<|channel|>final<|message|>"
_BARE_CHANNELS = ("analysis", "assistantfinal")
#: Special tokens that wrap the answer of a model that has thought.
_WRAPPING = re.compile(
    r"<\|(?:START_RESPONSE|END_RESPONSE|begin_of_solution|end_of_solution|return|end|start)\|>(?:assistant)?"
)
#: Tags that prompts ask for. Only a closed pair is removed: the answer may follow a tag that was never closed.
_REASONING = ("reasoning", "reason", "scratchpad", "reflection", "analysis", "rationale", "explanation")


def strip_thinking(text: str) -> str:
    """``text`` after its last closing mark, up to an opening mark that is never closed.

    An opening mark may be missing (many chat templates put it into the prompt). A completion that was cut off while
    thinking has no answer, so none of it is graded. Where nothing follows the thinking, the answer is what precedes it.
    """
    if _CHANNEL in text or text.startswith(_BARE_CHANNELS[0]):
        text = _final_channel(text)
    closings = list(_CLOSING.finditer(text))
    opening = _OPENING.search(text, closings[-1].end() if closings else 0)
    if not closings:
        return text[: opening.start()] if opening else text
    rest = text[closings[-1].end() : opening.start() if opening else None]
    first = _OPENING.search(text)
    if not rest.strip() and first and first.start() < closings[0].start():
        rest = text[: first.start()]
    return _WRAPPING.sub("", rest)


def strip_reasoning(text: str) -> str:
    """``text`` without its thinking, and without ``<reasoning>…</reasoning>`` and the like where more stands beside."""
    answer = said = strip_thinking(text)
    for name in _REASONING if "</" in said else ():
        answer = _without_blocks(answer, f"<{name}>", f"</{name}>")
    answer = answer if answer.strip() else said
    return text if answer == text else answer.strip()


def _without_blocks(text: str, opening: str, closing: str) -> str:
    kept, position = [], 0
    while (start := text.find(opening, position)) >= 0 and (end := text.find(closing, start)) >= 0:
        kept.append(text[position:start])
        position = end + len(closing)
    return "".join([*kept, text[position:]])


def _final_channel(text: str) -> str:
    """What gpt-oss says on its final channel; nothing where it has not come to it."""
    if _FINAL in text:
        return _WRAPPING.sub("", text.rsplit(_FINAL, 1)[1])
    if _CHANNEL in text:  # the channel "commentary" holds calls of tools
        closed = _without_blocks(text, f"{_CHANNEL}analysis", "<|end|>")
        return closed.split(f"{_CHANNEL}analysis", 1)[0].replace("<|start|>assistant", "")
    return text.rsplit(_BARE_CHANNELS[1], 1)[1] if _BARE_CHANNELS[1] in text else text
