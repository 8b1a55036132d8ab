"""How many tokens a model can read at once, and what that leaves for a completion after a prompt.

A model with learned positions fails beyond its window; one with rotary positions answers, and what it answers is noise.
So nothing is ever sampled or scored past it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sdft_cli.models.chat import UNLIMITED, Chat
from sdft_cli.models.chat_template import TemplateRefusal
from sdft_cli.types import Example

if TYPE_CHECKING:
    from sdft_cli.models.protocols import ModelConfig
    from sdft_cli.types import Message

#: What configs call it; the first that is set counts. Sliding windows are none: they bound a layer, not a text.
KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length")
#: Tokens that a window has to leave for a completion, however short demonstrations are: one long prompt must not cut
#: the completions of all others. Of a small window, an eighth.
LEAST = 64
#: Why a row cannot be used.
TOO_LONG, REFUSED = "prompt over the limit", "cannot be rendered"


def window_of(config: ModelConfig) -> int:
    """The context window in tokens, from the model's config alone. Tables of positions that are shifted (OPT's, by 2)
    are longer by the shift, so the config's number is the window there too."""
    text = config.get_text_config()
    if text.model_type == "bloom" or getattr(text, "alibi", False):
        return UNLIMITED
    stated = next((value for key in KEYS if isinstance(value := getattr(text, key, None), int) and value > 0), None)
    return UNLIMITED if stated is None else max(stated, _stretched(text, stated))


def _stretched(text: ModelConfig, stated: int) -> int:
    """The window that a rope stretches the model to; 0 without such a rope. YaRN names the length that it stretches,
    whether or not ``max_position_embeddings`` is already the result; a dynamic rope stretches that number."""
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None)
    kind = (rope.get("rope_type") or rope.get("type")) if isinstance(rope, Mapping) else None
    if not isinstance(rope, Mapping) or kind not in ("yarn", "dynamic"):
        return 0
    original = stated if kind == "dynamic" else rope.get("original_max_position_embeddings")
    factor = rope.get("factor")
    return int(original * factor) if original and factor else 0


# --- what fits -------------------------------------------------------------------------------------------------------


class Fit(NamedTuple):
    """``new_tokens`` fit after every prompt but those of the rows ``too_long``; ``longest`` is the longest of the
    others."""

    new_tokens: int
    longest: int
    too_long: list[str]


def fit(lengths: Mapping[str, int], window: int, wanted: int, least: int) -> Fit:
    """What fits a ``window`` after prompts of these ``lengths`` by row: ``wanted`` tokens, or fewer, but not fewer than
    ``least``; a row that does not leave so many is too long."""
    too_long = [row for row, length in lengths.items() if length + least > window]
    longest = max((length for row, length in lengths.items() if row not in set(too_long)), default=0)
    return Fit(max(least, min(wanted, window - longest)), longest, too_long)


def least_of(chat: Chat, examples: Sequence[Example], wanted: int) -> int:
    """The fewest tokens that a completion must be given, of the ``wanted`` ones: no fewer than 19 in 20 demonstrations
    have, for whatever is cut before its end is no answer."""
    shown = [e.demonstration for e in examples if isinstance(e.demonstration, str)]
    lengths = sorted(len(chat.text_ids(text)) for text in shown)
    demonstrated = lengths[int(0.95 * (len(lengths) - 1))] if lengths else 0
    return min(wanted, max(demonstrated, min(LEAST, chat.window // 8)))


def no_room(length: int, new_tokens: int, chat: Chat) -> str:
    """Why a prompt is too long for the model."""
    return f"{length} tokens and {new_tokens} new ones exceed the model's window of {chat.window}"


class Prompts(NamedTuple):
    """``lengths`` in tokens, by row, of the prompts that may be long; ``refused`` by the chat template, and why."""

    lengths: dict[str, int]
    refused: dict[str, str]


def long_prompts(
    chat: Chat, examples: Sequence[Example], view: Callable[[Example], list[Message]], room: int
) -> Prompts:
    """The prompts that may have more than ``room`` tokens. Others are known by their bytes, as a text has hardly more
    tokens, and are not tokenized."""
    found = Prompts({}, {})
    for example in examples:
        messages = view(example)
        try:
            if 2 * len(chat.render(messages, tools=example.tools).encode()) > room:
                found.lengths[example.id] = len(chat.prompt_ids(messages, tools=example.tools))
        except TemplateRefusal as refusal:
            found.refused[example.id] = refusal.said
    return found
