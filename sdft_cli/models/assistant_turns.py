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

#: A word that no template holds.
_MARK = "quartzcontent"


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
    def end(self) -> str:
        """The text by which the template ends an assistant's turn: a special token, or several without anything
        between them if the last is the tokenizer's end of a text (Cohere). Empty if it writes none."""
        found = self._end_in(self.template.end or "")
        return found.group() if found else ""

    @cached_property
    def end_id(self) -> int | None:
        """The last token of `end`; None if the template writes none."""
        return self.splitter.ids(self.end)[-1] if self.end else None

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
            if whole.startswith(opened) and self._thinks_once(opened, whole, reasoning):
                break
        else:
            whole = self._after_opening(prompt, opened, reasoning, bare)
        return self._cut(opened, whole)._replace(trained=is_trained(turn))

    def _thinks_once(self, opened: str, whole: str, reasoning: str) -> bool:
        """Whether what ``whole`` adds to the prompt has the reasoning, and opens thinking no more than once."""
        opening, written = self._opening(opened), whole[len(opened) :]
        begun = opening is not None and not opening.closed
        tags = opening.tags if opening else self.template.think_tags
        twice = tags is not None and written.count(tags[0]) + begun > 1
        return reasoning in written and not (reasoning and twice)

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
        before = opening.before if opening else opened if whole.startswith(opened) else opened.rstrip()
        if not whole.startswith(before):
            raise TemplateRefusal(
                "the chat template writes the assistant's turn otherwise than its generation prompt begins it", MEND
            )
        if before == opened.rstrip() and not reasoning:  # they differ in white space alone
            return opened + whole[len(before) :].lstrip()
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
        if last in self.template.after_reasoning:  # as the family itself writes it
            closing = self.template.after_reasoning
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
        written = [i for i, turn in enumerate(turns) if turn["role"] == "assistant"]
        begins = [self.template.render(prompt.having(*turns[:i]), generate=True) for i in written]
        parts: list[_Part] = []
        for i, begin, after in zip(written, begins, [*begins[1:], whole], strict=True):
            ends = self._end_of(prompt, turns, i, whole, begin)
            # what is between two turns must be there, and in the one text
            if ends is None or not (whole.startswith(after) and after.startswith(ends.until)):
                raise TemplateRefusal(
                    "the chat template rewrites earlier turns, so it cannot be trained on a demonstration of several "
                    "turns",
                    "use a template that only appends, or join the turns into one text",
                )
            if _divided(turns[i])[0] not in ends.until[len(begin) :]:
                raise TemplateRefusal(
                    f"the chat template leaves out the reasoning of the demonstration's turn {i + 1}", MEND
                )
            if parts:
                parts.append(_Part(parts[-1].until, begin, False))
            parts.append(ends._replace(trained=is_trained(turns[i])))
        return parts

    def _end_of(self, prompt: Conversation, turns: Sequence[Message], i: int, whole: str, begin: str) -> _Part | None:
        """The assistant's turn ``i`` in the ``whole`` text, where it starts after ``begin``; None if it isn't there."""
        if not whole.startswith(begin):
            return None
        if i + 1 == len(turns):
            return self._cut(begin, whole)
        limit = self._start_of_next(prompt, turns, i, whole)
        part = self._cut(begin, self.template.render(prompt.having(*turns[: i + 1]), generate=False))
        if not whole[:limit].startswith(part.until):  # as the last turn it is written otherwise: look for its end
            at = whole.find(self.end, len(begin), limit) if self.end else -1
            return None if at < 0 else _Part(begin, whole[: at + len(self.end)], True)
        if part.closed:
            return part
        follows = self._end_in(whole[len(part.until) :])  # such as GLM's <|observation|>
        return _Part(begin, part.until + follows.group(), True) if follows and not follows.start() else None

    def _start_of_next(self, prompt: Conversation, turns: Sequence[Message], i: int, whole: str) -> int:
        """Where in ``whole`` the content of the turn after ``i`` stands, found by putting a mark in its place."""
        marked: Message = {**turns[i + 1], "content": _MARK}
        text = self.template.render(prompt.having(*turns[: i + 1], marked, *turns[i + 2 :]), generate=False)
        same = text.partition(_MARK)[0]
        return len(same) if whole.startswith(same) else len(whole)

    # where a turn ends --------------------------------------------------------------------------------------

    def _cut(self, before: str, whole: str) -> _Part:
        """``whole`` up to and including its last turn's end."""
        end = self.template.end
        if end is not None and whole.endswith(end):
            core = whole[: len(whole) - len(end)]
            found = self._end_in(end)
            return _Part(before, core + end[: found.end()] if found else core, True, bool(found))
        control = "".join(f"{re.escape(name)}|" for name in self.splitter.control_tokens)
        tail = re.search(rf"(?:{control}\s)*$", whole)
        assert tail is not None  # it may be empty
        found = re.search(re.escape(self.end), tail.group()) if self.end else None
        until = whole[: tail.start() + found.end()] if found else whole.rstrip()
        return _Part(before, until, True, bool(tail.group().strip()))

    def _end_in(self, text: str) -> re.Match[str] | None:
        """The first special token in ``text`` (the longest of those that begin there), with those that directly follow
        it up to the tokenizer's end of a text."""
        names = "|".join(map(re.escape, sorted(self.splitter.added_ids, key=len, reverse=True)))
        eos = "" if self.eos_id is None else re.escape(self.splitter.text_of(self.eos_id))
        return re.search(rf"(?:{names})(?:(?:{names})*?{eos})?" if eos else rf"(?:{names})", text) if names else None


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
