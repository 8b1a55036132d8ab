"""Messages to token ids and back, through the tokenizer's own chat template. Nothing is ever truncated."""

from __future__ import annotations

import copy
from bisect import bisect_left
from functools import cached_property
from typing import TYPE_CHECKING

from sdft_cli.errors import UsageError
from sdft_cli.messages import Json, Message
from sdft_cli.models.assistant_turns import AssistantTurns
from sdft_cli.models.chat_template import THINK_TAGS, ChatTemplate, Conversation, TemplateRefusal
from sdft_cli.models.token_splits import TokenSplitter
from sdft_cli.types import Example

if TYPE_CHECKING:
    from sdft_cli.models.protocols import Tokenizer

#: The window of a model without one: alibi biases, or a recurrent state instead of positions.
UNLIMITED = 1 << 30

#: The channel that gpt-oss thinks on, in place of tags.
_ANALYSIS = "<|channel|>analysis"
#: A question that no template holds.
_ASK = "which key opens the quartz cupboard"


class Chat:
    """A tokenizer with its chat template.

    ``thinking`` is the template's switch for every call that does not set it; None leaves it to the template.
    ``eos_id`` ends a raw text: the tokenizer's end-of-sequence token, or the template's where it has none.
    ``end_id`` ends an assistant's turn: the template's own token, or the tokenizer's where it writes none.
    ``window`` is the model's context window in tokens, where the model is known; ``notes`` what a user should know of
    the two together.
    """

    def __init__(self, tokenizer: Tokenizer, thinking: bool | None = None, window: int = UNLIMITED):
        if not getattr(tokenizer, "chat_template", None):
            raise UsageError(
                "the tokenizer has no chat template", "use an instruction-tuned model, or add chat_template.jinja"
            )
        self.tokenizer, self.thinking, self.window = tokenizer, thinking, window
        self.notes: list[str] = []
        self.template, self.splitter = ChatTemplate(tokenizer), TokenSplitter(tokenizer)
        self.turns = AssistantTurns(self.template, self.splitter, tokenizer.eos_token_id)
        end = self.turns.end_id
        eos = end if tokenizer.eos_token_id is None else tokenizer.eos_token_id
        if eos is None:
            raise UsageError("the tokenizer has no end-of-sequence token", "set eos_token in tokenizer_config.json")
        self.eos_id: int = int(eos)
        self.end_id: int = self.eos_id if end is None else end
        pad = tokenizer.pad_token_id
        self.pad_id: int = self.eos_id if pad is None else int(pad)
        self._think_tag = (self.template.think_tags or THINK_TAGS[0])[1]
        self._think_end = self.splitter.inside(self._think_tag)

    def switched(self, thinking: bool | None) -> Chat:
        """The same chat with another default for ``thinking``."""
        other = copy.copy(self)
        other.thinking = thinking
        return other

    # prompts ------------------------------------------------------------------------------------------------

    def render(
        self,
        messages: list[Message],
        generate: bool = True,
        thinking: bool | None = None,
        tools: list[Json] | None = None,
    ) -> str:
        """The text that the model sees; with ``generate``, up to the opening of the assistant's turn.

        Raises `TemplateRefusal` where the template refuses the messages or leaves out any of what is given.
        """
        return self.template.render(self._conversation(messages, thinking, tools), generate)

    def prompt_ids(
        self, messages: list[Message], thinking: bool | None = None, tools: list[Json] | None = None
    ) -> list[int]:
        """Ids of ``messages``, followed by the opening of the assistant's turn; raises as `render` does."""
        return self.splitter.ids(self.render(messages, thinking=thinking, tools=tools))

    def view_ids(self, example: Example, messages: list[Message], thinking: bool | None = None) -> list[int]:
        """Ids of what a view shows of ``example``, with its tools; an error names the row."""
        return self.splitter.ids(self.view_text(example, messages, thinking))

    def view_text(self, example: Example, messages: list[Message], thinking: bool | None = None) -> str:
        """The text of `view_ids`."""
        try:
            return self.render(messages, thinking=thinking, tools=example.tools)
        except TemplateRefusal as refusal:
            raise refusal.of_row(example.id) from refusal

    def _conversation(self, messages: list[Message], thinking: bool | None, tools: list[Json] | None) -> Conversation:
        return Conversation(messages, tools, self.thinking if thinking is None else thinking)

    @property
    def thinks(self) -> bool:
        """Whether the model may think before it answers, under the switch ``thinking``. Some templates open the
        thinking, some leave that to the model, and those that are switched off close it in the prompt."""
        tags = self.template.think_tags
        if tags is None:
            return _ANALYSIS in self.template.source
        try:
            prompt = self.render([{"role": "user", "content": _ASK}])
        except UsageError:  # the template refuses the plainest question, or has no switch
            return False
        return tags[1] not in prompt.rpartition(_ASK)[2]

    # demonstrations -----------------------------------------------------------------------------------------

    def completion(
        self, example: Example, thinking: bool | None = None, shown: list[Message] | None = None
    ) -> tuple[list[int], list[bool]]:
        """Ids of the example's demonstration as the assistant would have written it after its prompt (after ``shown``,
        if a view shows other messages), and the loss mask: True for the assistant's own tokens and the ends of its
        turns, False for tools and for turns of weight 0.

        Raises `TemplateRefusal`, which names the row.
        """
        given = example.demonstration
        turns: list[Message] = given if isinstance(given, list) else [{"role": "assistant", "content": given or ""}]
        prompt = self._conversation(example.prompt if shown is None else shown, thinking, example.tools)
        try:
            return self.turns.ids(prompt, turns)
        except TemplateRefusal as refusal:
            raise refusal.of_row(example.id) from refusal

    # raw text, and back -------------------------------------------------------------------------------------

    def text_ids(self, text: str) -> list[int]:
        """Ids of raw text as the tokenizer writes it (with its beginning-of-sequence token, if it has one), and one
        end-of-sequence token."""
        ids = list(self.tokenizer(text, add_special_tokens=True, verbose=False)["input_ids"])
        return ids if ids and ids[-1] == self.eos_id else [*ids, self.eos_id]

    def thinking_length(self, ids: list[int]) -> int:
        """Length of the thinking that a completion begins with, ``</think>`` included; 0 without a ``</think>``."""
        end = self._think_end
        for i in range(len(ids) - len(end), -1, -1):
            if ids[i : i + len(end)] == end:
                return i + len(end)
        if len(end) == 1 or (tags := self._text(ids).count(self._think_tag)) == 0:
            return 0
        # the tag is no token, and its last one has grown together with what follows
        return (
            bisect_left(range(len(ids)), tags, key=lambda last: self._text(ids[: last + 1]).count(self._think_tag)) + 1
        )

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids of the tokenizer's special tokens, such as those that open and close turns."""
        added = self.tokenizer.added_tokens_decoder.items()
        return frozenset([*self.tokenizer.all_special_ids, *(i for i, token in added if token.special)])

    def decode(self, ids: list[int]) -> str:
        """Text of sampled ids, without special tokens and without the end of the turn."""
        ended = bool(ids) and ids[-1] in (self.end_id, self.eos_id)
        return self._text(ids[:-1] if ended else ids)

    def _text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)
