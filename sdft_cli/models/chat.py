"""Messages to token ids and back, through the tokenizer's own chat template. Ids never get cut here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdft_cli.errors import UsageError
from sdft_cli.types import Example, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Chat:
    """One tokenizer with its chat template. ``thinking`` sets the template's own switch where a call does not; None
    leaves it alone."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, thinking: bool | None = None):
        if not tokenizer.chat_template:
            raise UsageError(
                "the tokenizer has no chat template", "use an instruction-tuned model, or add chat_template.jinja"
            )
        if tokenizer.eos_token_id is None:
            raise UsageError("the tokenizer has no end-of-sequence token", "set eos_token in tokenizer_config.json")
        self.tokenizer, self.thinking = tokenizer, thinking
        self.eos_id: int = int(tokenizer.eos_token_id)
        pad = tokenizer.pad_token_id
        self.pad_id: int = self.eos_id if pad is None else int(pad)
        self._think_end = self._ids("</think>")

    def switched(self, thinking: bool | None) -> Chat:
        """The same chat, with thinking on or off by default."""
        return Chat(self.tokenizer, thinking)

    def render(self, messages: list[Message], generate: bool = True, thinking: bool | None = None) -> str:
        """The text that the model sees."""
        thinking = self.thinking if thinking is None else thinking
        more = {} if thinking is None else {"enable_thinking": thinking}
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate, **more)
        return str(text)

    def prompt_ids(self, messages: list[Message], thinking: bool | None = None) -> list[int]:
        """Ids of ``messages`` followed by the opening of the assistant's turn."""
        return self._ids(self.render(messages, thinking=thinking))

    def text_ids(self, text: str) -> list[int]:
        """Ids of raw text, closed by the end-of-sequence token."""
        return [*self._ids(text), self.eos_id]

    def thinking_length(self, ids: list[int]) -> int:
        """How many of a completion's first tokens are its thinking, ``</think>`` included; 0 if that never comes."""
        end = self._think_end
        for i in range(len(ids) - len(end), -1, -1):
            if ids[i : i + len(end)] == end:
                return i + len(end)
        return 0

    def _ids(self, text: str) -> list[int]:
        # the template has written all special tokens itself
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def completion(self, example: Example) -> tuple[list[int], list[bool]]:
        """Ids of the example's demonstration as the assistant would have written them, and which of them are
        the assistant's own (the loss mask): in a demonstration of several turns the tools' and user's are not."""
        shown = example.demonstration
        if isinstance(shown, list) and len(shown) > 1:
            return self._turns(example, shown)
        text = shown[0]["content"] if isinstance(shown, list) else shown or ""
        ids = [*self._ids(text), self.eos_id]
        return ids, [True] * len(ids)

    def _turns(self, example: Example, turns: list[Message]) -> tuple[list[int], list[bool]]:
        history, ids, mask = list(example.prompt), self.prompt_ids(example.prompt), []
        start = len(ids)
        for i, turn in enumerate(turns):
            history = [*history, turn]
            more = i + 1 < len(turns) and turns[i + 1]["role"] == "assistant"
            now = self._ids(self.render(history, generate=more))
            if now[: len(ids)] != ids:
                raise UsageError(
                    f"{example.id}: the chat template rewrites earlier turns, so a demonstration of several turns "
                    "cannot be trained on",
                    "use a template whose output only grows, or join the turns into one text",
                )
            mask += [turn["role"] == "assistant"] * (len(now) - len(ids))
            ids = now
        return ids[start:], mask

    def decode(self, ids: list[int]) -> str:
        """Text of sampled ids, special tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))
