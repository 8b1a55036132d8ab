"""Text to token ids, and the ids that continue others: what a model writes after the ids of its prompt."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdft_cli.models.protocols import Tokenizer

#: Texts after which a piece is tokenised as inside a text: some tokenizers put a blank before the first word of all.
_BEFORE = ("a", "\n", ".")


class TokenSplitter:
    """The ids of texts under ``tokenizer``; the chat template has already written all special tokens."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer

    def ids(self, text: str) -> list[int]:
        """Ids of ``text`` alone."""
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    @cached_property
    def added_ids(self) -> dict[str, int]:
        """The tokens that are found in a text before it is split into words, by their text."""
        added = {str(token): int(i) for i, token in self.tokenizer.added_tokens_decoder.items()}
        return {text: i for text, i in added.items() if text.strip()}

    @cached_property
    def control_tokens(self) -> list[str]:
        """Those that the tokenizer itself calls special; others, such as ``</tool_call>``, are words of a turn."""
        added = self.tokenizer.added_tokens_decoder.values()
        return [str(token) for token in added if token.special and str(token).strip()]

    def text_of(self, special_id: int) -> str:
        """The text of a special token."""
        return next(text for text, i in self.added_ids.items() if i == special_id)

    def continuation(self, before: str, whole: str) -> list[int]:
        """The ids by which ``whole``, tokenised as one text, goes on after ``before``, which it begins with.

        A token that straddles the boundary is split there, since a model goes on after the ids of ``before``: what
        is left of it is tokenised by itself.
        """
        first, all_ids = self.ids(before), self.ids(whole)
        if all_ids[: len(first)] == first:
            return all_ids[len(first) :]
        same = next(i for i, (a, b) in enumerate(zip(first, [*all_ids, None], strict=False)) if a != b)
        known = self._text(first)
        for at in range(same, len(all_ids) + 1):  # one or two tokens on
            text = self._text(all_ids[:at])
            if len(text) >= len(known) and text.startswith(known):
                return [*self.inside(text[len(known) :]), *all_ids[at:]]
        return self.inside(whole[len(before) :])

    def inside(self, text: str) -> list[int]:
        """Ids of ``text`` as it is tokenised in the middle of a text."""
        if not text:
            return []
        for anchor in _BEFORE:
            first, both = self.ids(anchor), self.ids(anchor + text)
            if both[: len(first)] == first:
                return both[len(first) :]
        return self.ids(text)

    def _text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
