"""Messages to token ids and back, through the tokenizer's own chat template. Nothing is ever truncated."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from sdft_cli.errors import UsageError
from sdft_cli.models.context_window import UNLIMITED
from sdft_cli.types import Example, Message

if TYPE_CHECKING:
    from sdft_cli.models.protocols import Tokenizer


class Chat:
    """A tokenizer with its chat template.

    ``thinking`` is the template's ``enable_thinking`` for every call that does not set it; None leaves it to the
    template. ``window`` is the model's context window in tokens, where the model is known.
    """

    def __init__(self, tokenizer: Tokenizer, thinking: bool | None = None, window: int = UNLIMITED):
        if not tokenizer.chat_template:
            raise UsageError(
                "the tokenizer has no chat template", "use an instruction-tuned model, or add chat_template.jinja"
            )
        if tokenizer.eos_token_id is None:
            raise UsageError("the tokenizer has no end-of-sequence token", "set eos_token in tokenizer_config.json")
        self.tokenizer, self.thinking, self.window = tokenizer, thinking, window
        self.eos_id: int = int(tokenizer.eos_token_id)
        pad = tokenizer.pad_token_id
        self.pad_id: int = self.eos_id if pad is None else int(pad)
        self._think_end = self._ids("</think>")

    def switched(self, thinking: bool | None) -> Chat:
        """The same chat with another default for ``thinking``."""
        return Chat(self.tokenizer, thinking, self.window)

    def render(self, messages: list[Message], generate: bool = True, thinking: bool | None = None) -> str:
        """The text that the model sees; with ``generate``, up to the opening of the assistant's turn."""
        thinking = self.thinking if thinking is None else thinking
        variables = {} if thinking is None else {"enable_thinking": thinking}
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate, **variables)

    def prompt_ids(self, messages: list[Message], thinking: bool | None = None) -> list[int]:
        """Ids of ``messages``, followed by the opening of the assistant's turn."""
        return self._ids(self.render(messages, thinking=thinking))

    def text_ids(self, text: str) -> list[int]:
        """Ids of raw text and an end-of-sequence token."""
        return [*self._ids(text), self.eos_id]

    def thinking_length(self, ids: list[int]) -> int:
        """Length of the thinking that a completion begins with, ``</think>`` included; 0 without a ``</think>``."""
        end = self._think_end
        for i in range(len(ids) - len(end), -1, -1):
            if ids[i : i + len(end)] == end:
                return i + len(end)
        return 0

    def _ids(self, text: str) -> list[int]:
        # the chat template has already written all special tokens
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def completion(self, example: Example) -> tuple[list[int], list[bool]]:
        """Ids of the example's demonstration as the assistant would have written it, and the loss mask: True for the
        assistant's own tokens, False for the tools' and the user's in a demonstration of several turns."""
        demonstration = example.demonstration
        if isinstance(demonstration, list) and len(demonstration) > 1:
            return self._turns(example, demonstration)
        text = demonstration[0]["content"] if isinstance(demonstration, list) else demonstration or ""
        ids = [*self._ids(text), self.eos_id]
        return ids, [True] * len(ids)

    def _turns(self, example: Example, turns: list[Message]) -> tuple[list[int], list[bool]]:
        history, ids, mask = list(example.prompt), self.prompt_ids(example.prompt), []
        start = len(ids)
        for i, turn in enumerate(turns):
            history = [*history, turn]
            opens_next = i + 1 < len(turns) and turns[i + 1]["role"] == "assistant"
            longer = self._ids(self.render(history, generate=opens_next))
            if longer[: len(ids)] != ids:
                raise UsageError(
                    f"{example.id}: the chat template rewrites earlier turns, so it cannot be trained on a "
                    "demonstration of several turns",
                    "use a template that only appends, or join the turns into one text",
                )
            mask += [turn["role"] == "assistant"] * (len(longer) - len(ids))
            ids = longer
        return ids[start:], mask

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids of the tokenizer's special tokens, such as those that open and close turns."""
        added = self.tokenizer.added_tokens_decoder.items()
        return frozenset([*self.tokenizer.all_special_ids, *(i for i, token in added if token.special)])

    def decode(self, ids: list[int]) -> str:
        """Text of sampled ids, without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)
