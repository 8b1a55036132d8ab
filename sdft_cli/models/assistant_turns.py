"""What a demonstration trains: the assistant's turns as the chat template writes them, and their token ids.

A turn is everything between the generation prompt and the template's end of a turn (``<|im_end|>``, ``</s>``, …), the
end included and nothing behind it. A template that writes no end gets the tokenizer's end-of-sequence token.
Where the generation prompt opens a block of thinking that the template leaves out of a finished turn (DeepSeek-R1), the
turn is the thinking, the closing tag and the answer, as the model will write them after that prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from sdft_cli.messages import Message, is_trained
from sdft_cli.models.chat_template import MEND, REASONING_KEYS, THINK_TAGS, ChatTemplate, Conversation, TemplateRefusal
from sdft_cli.models.token_splits import TokenSplitter


class _Part(NamedTuple):
    """A part of a rendered conversation: it begins after ``before`` and ends with ``until``, both from the first
    character on. Without ``closed`` it lacks an end of its own."""

    before: str
    until: str
    trained: bool
    closed: bool = True


class _Opening(NamedTuple):
    """The thinking that a generation prompt begins: ``before`` is the prompt without it."""

    before: str
    tags: tuple[str, str]
    newline: bool
    closed: bool


class AssistantTurns:
    """The turns of demonstrations under ``template``; ``eos_id`` ends a turn that the template leaves open."""

    def __init__(self, template: ChatTemplate, splitter: TokenSplitter, eos_id: int | None):
        self.template, self.splitter, self.eos_id = template, splitter, eos_id

    @cached_property
    def end_id(self) -> int | None:
        """The token by which the template ends an assistant's turn; None if it writes none."""
        found = self._first_special(self.template.end or "")
        return self.splitter.added_ids[found.group()] if found else None

    def ids(self, prompt: Conversation, turns: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """Ids of ``turns`` after ``prompt``, and which of them are trained on: those of the assistant's turns, but for
        turns of weight 0.

        Raises `TemplateRefusal` where the template has no way to write them.
        """
        parts = self._several(prompt, turns) if len(turns) > 1 else [self._only(prompt, turns[0])]
        ids: list[int] = []
        mask: list[bool] = []
        for part in parts:
            piece = self.splitter.continuation(part.before, part.until)
            if not part.closed and (not piece or piece[-1] != self.eos_id):
                if self.eos_id is None:
                    raise TemplateRefusal("neither the chat template nor the tokenizer has a token to end it", MEND)
                piece.append(self.eos_id)
            ids += piece
            mask += [part.trained] * len(piece)
        return ids, mask

    # one turn -----------------------------------------------------------------------------------------------

    def _only(self, prompt: Conversation, turn: Message) -> _Part:
        opened = self.template.render(prompt, generate=True)
        reasoning, bare = _divided(turn)
        for form in self._with_reasoning(turn, reasoning, bare):
            whole = self.template.render(prompt.having(form), generate=False)
            if whole.startswith(opened) and reasoning in whole[len(opened) :]:
                break
        else:
            whole = self._after_opening(prompt, opened, reasoning, bare)
        return self._cut(opened, whole)._replace(trained=is_trained(turn))

    def _with_reasoning(self, turn: Message, reasoning: str, bare: Message) -> list[Message]:
        """The turn in the forms in which templates show its reasoning, as given first."""
        if not reasoning:
            return [turn]
        tagged = self._tagged(reasoning, bare) if self.template.think_tags else None
        named: list[Message] = [{**bare, key: reasoning} for key in REASONING_KEYS]  # type: ignore[misc]
        return [turn, *named, *([tagged] if tagged else [])]

    def _tagged(self, reasoning: str, bare: Message) -> Message:
        first, last = self.template.think_tags or THINK_TAGS[0]
        return {**bare, "content": f"{first}\n{reasoning}\n{last}\n\n{bare['content']}"}

    def _after_opening(self, prompt: Conversation, opened: str, reasoning: str, bare: Message) -> str:
        """The whole text where the template's own finished turn has no thinking, or not what the prompt opens."""
        whole = self.template.render(prompt.having(bare), generate=False)
        opening = self._opening(opened)
        before = opening.before if opening else opened
        if not whole.startswith(before):
            raise TemplateRefusal(
                "the chat template writes the assistant's turn otherwise than its generation prompt begins it", MEND
            )
        tags = opening.tags if opening else self.template.think_tags
        if tags is None:
            raise TemplateRefusal(
                "the chat template has no place for the demonstration's reasoning",
                "use a thinking model, or leave the reasoning out",
            )
        first, last = tags
        answer = re.sub(rf"^\s*{re.escape(first)}\s*{re.escape(last)}\s*", "", whole[len(before) :])
        if opening and opening.closed:
            if reasoning:
                raise TemplateRefusal(
                    "the demonstration has reasoning, and the prompt has thinking switched off",
                    "set views.student_thinking=true, or leave the reasoning out",
                )
            return opened + answer
        closing = f"\n{last}\n\n" if not opening or opening.newline else last
        if answer.lstrip().startswith(last):
            closing = ""
        return opened + ("" if opening else f"{first}\n") + reasoning + closing + answer

    def _opening(self, opened: str) -> _Opening | None:
        for first, last in THINK_TAGS:
            pattern = rf"{re.escape(first)}(\s*)({re.escape(last)}\s*)?$"
            if found := re.search(pattern, opened):
                return _Opening(opened[: found.start()], (first, last), "\n" in found[1], bool(found[2]))
        return None

    # several turns ------------------------------------------------------------------------------------------

    def _several(self, prompt: Conversation, turns: Sequence[Message]) -> list[_Part]:
        """The parts in turn: what the assistant wrote, and what stands between."""
        whole = self.template.render(prompt.having(*turns), generate=False)
        parts: list[_Part] = []
        for i in (i for i, turn in enumerate(turns) if turn["role"] == "assistant"):
            begins = self.template.render(prompt.having(*turns[:i]), generate=True)
            ends = self._end_of(prompt.having(*turns[: i + 1]), whole, begins, last=i + 1 == len(turns))
            if ends is None or not whole.startswith(begins):
                raise TemplateRefusal(
                    "the chat template rewrites earlier turns, so it cannot be trained on a demonstration of several "
                    "turns",
                    "use a template that only appends, or join the turns into one text",
                )
            reasoning, _ = _divided(turns[i])
            if reasoning not in ends.until[len(begins) :]:
                raise TemplateRefusal(
                    f"the chat template leaves out the reasoning of the demonstration's turn {i + 1}", MEND
                )
            if parts:
                parts.append(_Part(parts[-1].until, begins, False))
            parts.append(ends._replace(trained=is_trained(turns[i])))
        return parts

    def _end_of(self, upto: Conversation, whole: str, begins: str, last: bool) -> _Part | None:
        """The assistant's turn that ``upto`` ends with, found in the ``whole`` text; it starts after ``begins``."""
        if last:
            return self._cut(begins, whole)
        alone = self.template.render(upto, generate=False)
        part = self._cut(begins, alone)
        if part.closed and whole.startswith(part.until):
            return part
        if self.end_id is not None:  # as the conversation's last turn it is written otherwise: look for its end
            end = self.splitter.text_of(self.end_id)
            at = whole.find(end, len(begins))
            return None if at < 0 else _Part(begins, whole[: at + len(end)], True)
        follows = self._first_special(whole[len(part.until) :])  # such as GLM's <|observation|>
        if whole.startswith(part.until) and follows and not follows.start():
            return _Part(begins, part.until + follows.group(), True)
        return None

    # where a turn ends --------------------------------------------------------------------------------------

    def _cut(self, before: str, whole: str) -> _Part:
        """``whole`` up to and including its last turn's end."""
        end = self.template.end
        if end is not None and whole.endswith(end):
            core = whole[: len(whole) - len(end)]
            found = self._first_special(end)
            return _Part(before, core + end[: found.end()] if found else core, True, bool(found))
        control = "".join(f"{re.escape(name)}|" for name in self.splitter.control_tokens)
        tail = re.search(rf"(?:{control}\s)*$", whole)
        assert tail is not None  # it may be empty
        usual = "" if self.end_id is None else self.splitter.text_of(self.end_id)
        found = re.search(re.escape(usual), tail.group()) if usual else None
        found = found or self._first_special(tail.group())
        until = whole[: tail.start() + found.end()] if found else whole[: tail.start()]
        return _Part(before, until, True, bool(found))

    def _first_special(self, text: str) -> re.Match[str] | None:
        """The first special token in ``text``; the longest of those that begin there."""
        names = sorted(self.splitter.added_ids, key=len, reverse=True)
        return re.search("|".join(map(re.escape, names)), text) if names else None


def _divided(turn: Message) -> tuple[str, Message]:
    """The reasoning of a turn, given as such or in tags at the beginning of its content, and the turn without it."""
    given = turn.get("reasoning_content", "").strip()
    bare: Message = {**turn}
    bare.pop("reasoning_content", None)
    for first, last in THINK_TAGS:
        found = re.match(rf"\s*{re.escape(first)}(.*?){re.escape(last)}\s*", turn["content"], re.DOTALL)
        if found and not given:
            return found[1].strip(), {**bare, "content": turn["content"][found.end() :]}
    return given, bare
