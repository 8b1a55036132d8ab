"""A tokenizer's chat template: messages in, text out. What it refuses or leaves out is an error, never silence.

Templates differ in how they take tool calls and content; the form that one takes is found by rendering. A template that
does not know a role, a tool or a call renders the rest as if it were not there, so each is looked for in the text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import jinja2

from sdft_cli.errors import UsageError
from sdft_cli.messages import Json, Message, formed_call, merged_system, with_call_ids

if TYPE_CHECKING:
    from sdft_cli.models.protocols import Tokenizer

MEND = "mend the rows, or leave them out with --on-bad-row drop"
#: A template is a program of somebody else's: it raises what jinja, or Python under it, raises.
_RAISED = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
#: The names under which templates read the thinking of an assistant's turn (Qwen and DeepSeek; Groq's API; gpt-oss).
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
#: The switches by which templates turn thinking on and off (Qwen and most others; DeepSeek V3.1, Granite).
_SWITCHES = ("enable_thinking", "thinking")
#: Tags around thinking, as templates write them.
THINK_TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
#: Words that no template holds, for probes.
_ASK, _REPLY, _TOOL = "which key opens the quartz cupboard", "quartz keys are brass", "open_quartz_cupboard"


class TemplateRefusal(UsageError):
    """The chat template cannot show a row: ``said`` is why, and the message also names the row once it is known."""

    def __init__(self, said: str, hint: str, row: str = ""):
        super().__init__(f"row {row}: {said}" if row else said, hint)
        self.said = said

    def of_row(self, name: str) -> TemplateRefusal:
        """The same refusal of the row called ``name``."""
        return TemplateRefusal(self.said, self.hint, name)


class Conversation(NamedTuple):
    """Messages with the tools that the assistant may call; ``thinking`` switches it on or off (None: the template's
    default)."""

    messages: list[Message]
    tools: list[Json] | None = None
    thinking: bool | None = None

    def having(self, *turns: Message) -> Conversation:
        """The same with further ``turns`` at its end."""
        return self._replace(messages=[*self.messages, *turns])


class _Form(NamedTuple):
    """How a template takes what other templates take otherwise: call arguments as JSON text and not as an object; the
    missing content of a turn with tool calls as null and not as ""; ids of calls in nine characters (Mistral); content
    as a list of parts and not as text."""

    arguments_as_text: bool = False
    null_content: bool = False
    short_ids: bool = False
    parts: bool = False


class ChatTemplate:
    """The chat template of ``tokenizer``."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self._known_tools: dict[bool, bool] = {}

    def render(self, conversation: Conversation, generate: bool) -> str:
        """The text of ``conversation``; with ``generate``, up to the opening of the assistant's turn.

        Raises `TemplateRefusal` where the template refuses it, or leaves out a turn, a tool or a tool call.
        """
        if conversation.thinking is not None and not self.has_switch:
            raise UsageError(
                "the chat template has no switch for thinking",
                "leave views.student_thinking and views.teacher_thinking out",
            )
        raised, left_out = [], []
        for form in self._forms(conversation):
            try:
                text = self._write(conversation, generate, form)
            except TemplateRefusal as refusal:
                raised.append(refusal)
                continue
            try:
                self._check(text, conversation, generate, form)
            except TemplateRefusal as refusal:
                left_out.append(refusal)
            else:
                return text
        raise self._explained((left_out or raised)[0], conversation, generate)

    @cached_property
    def has_switch(self) -> bool:
        """Whether thinking can be switched on or off."""
        return any(re.search(rf"\b{name}\b", self.source) for name in _SWITCHES)

    @property
    def source(self) -> str:
        """The template's source, or all of them where there are several by name."""
        template = self.tokenizer.chat_template or ""
        return template if isinstance(template, str) else "\n".join(map(str, template.values()))

    @cached_property
    def end(self) -> str | None:
        """What the template writes after an assistant's content, to the end of the text; None where it refuses the
        plainest conversation there is."""
        asked = Conversation([{"role": "user", "content": _ASK}, {"role": "assistant", "content": _REPLY}])
        try:
            return self.render(asked, generate=False).rpartition(_REPLY)[2]
        except UsageError:
            return None

    @cached_property
    def after_reasoning(self) -> str:
        """What the template writes between an assistant's reasoning and its content; empty if it shows no reasoning."""
        for key in REASONING_KEYS:
            turn: Json = {"role": "assistant", "content": _REPLY, key: _ASK}
            try:
                text = self.render(Conversation([{"role": "user", "content": "?"}, turn]), generate=False)
            except UsageError:
                continue
            if _ASK in text:
                return text.partition(_ASK)[2].partition(_REPLY)[0]
        return ""

    @cached_property
    def think_tags(self) -> tuple[str, str] | None:
        """The tags that the template itself puts around thinking; None if it has none."""
        return next((tags for tags in THINK_TAGS if tags[1] in self.source), None)

    # forms --------------------------------------------------------------------------------------------------

    def _forms(self, conversation: Conversation) -> Iterator[_Form]:
        """The forms to try, the usual one first."""
        either = (False, True) if any(m.get("tool_calls") for m in conversation.messages) else (False,)
        for short_ids, null_content, arguments_as_text in product(either, either, either):
            yield _Form(arguments_as_text, null_content, short_ids, self._takes_parts)

    @cached_property
    def _takes_parts(self) -> bool:
        """Whether content must be a list of parts: such a template shows nothing of a text."""
        return self._shows_content(_Form(parts=True)) and not self._shows_content(_Form())

    def _shows_content(self, form: _Form) -> bool:
        try:
            return _ASK in self._write(Conversation([{"role": "user", "content": _ASK}]), True, form)
        except TemplateRefusal:
            return False

    def _write(self, conversation: Conversation, generate: bool, form: _Form) -> str:
        on = conversation.thinking
        try:
            return self.tokenizer.apply_chat_template(
                _formed(conversation.messages, form),
                tools=conversation.tools or None,
                tokenize=False,
                add_generation_prompt=generate,
                **({} if on is None else dict.fromkeys(_SWITCHES, on)),
            )
        except _RAISED as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise TemplateRefusal(f"the chat template refuses the messages: {said[:300]}", MEND) from error

    # nothing is left out ------------------------------------------------------------------------------------

    def _check(self, text: str, conversation: Conversation, generate: bool, form: _Form) -> None:
        """Raise `TemplateRefusal` for a turn, a tool or a tool call that is not in ``text``."""
        messages, tools = conversation.messages, conversation.tools
        if tools and not self._shows_tools(text, tools, messages):
            raise TemplateRefusal(
                "the chat template does not show the row's tools", f"use a model whose template knows tools; or {MEND}"
            )
        missing = [i for i, m in enumerate(messages) if m["content"].strip() not in text]  # perhaps only escaped
        called = [i for i, m in enumerate(messages) if m.get("tool_calls")]
        if not missing and not called:
            return
        marked = self._write(conversation._replace(messages=_marked(messages, missing, called)), generate, form)
        for i in (i for i in missing if _content_mark(i) not in marked):
            raise TemplateRefusal(f"the chat template leaves out turn {i + 1}, of role {messages[i]['role']!r}", MEND)
        for i in called:
            if not all(_call_mark(i, k) in marked for k in range(len(messages[i]["tool_calls"]))):
                raise TemplateRefusal(
                    f"the chat template leaves out the tool calls of turn {i + 1}",
                    f"use a model whose template knows tool calls; or {MEND}",
                )

    def _shows_tools(self, text: str, tools: list[Json], messages: list[Message]) -> bool:
        """Whether ``text`` has every tool. A name might also be a word of the messages, so the template is tried with
        one that cannot be, with a system message or without one as in ``messages``."""
        after_system = messages[0]["role"] == "system"
        if after_system not in self._known_tools:
            self._known_tools[after_system] = self._knows_tools(messages[:1] if after_system else [])
        return self._known_tools[after_system] and all(tool["function"]["name"] in text for tool in tools)

    def _knows_tools(self, before: list[Message]) -> bool:
        tool = {"name": _TOOL, "description": _TOOL, "parameters": {"type": "object", "properties": {}}}
        probe = Conversation([*before, {"role": "user", "content": _ASK}], [{"type": "function", "function": tool}])
        try:
            return _TOOL in self._write(probe, True, _Form(parts=self._takes_parts))
        except TemplateRefusal:
            return True  # then the row's own text decides

    def _explained(self, refusal: TemplateRefusal, conversation: Conversation, generate: bool) -> TemplateRefusal:
        """The refusal, with the hint that helps where a system message is what the template cannot take."""
        merged = merged_system(conversation.messages)
        if merged == conversation.messages:
            return refusal
        try:
            self.render(conversation._replace(messages=merged), generate)
        except UsageError:
            return refusal
        return TemplateRefusal(
            refusal.said,
            "this model has no such system message: sdft prepare --merge-system puts its text before the user's",
        )


def _formed(messages: list[Message], form: _Form) -> list[Json]:
    """The messages as a template of this ``form`` takes them; ``weight`` is ours and not the template's."""
    given = with_call_ids(messages, _short) if form.short_ids else messages
    formed: list[dict[str, Json]] = [{k: v for k, v in m.items() if k != "weight"} for m in given]
    for message in formed:
        if calls := message.get("tool_calls"):
            message["tool_calls"] = [formed_call(call, form.arguments_as_text) for call in calls]
            if form.null_content and not message["content"]:
                message["content"] = None
        if form.parts and message["content"] is not None:
            message["content"] = [{"type": "text", "text": message["content"]}]
    return formed


def _short(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:9]


def _marked(messages: list[Message], contents: list[int], calls: list[int]) -> list[Message]:
    """``messages`` with a mark of its own in place of each of these contents and calls."""
    marked: list[Message] = [*messages]
    for i in contents:
        marked[i] = {**marked[i], "content": _content_mark(i)}
    for i in calls:
        renamed = [
            {**call, "function": {**call["function"], "name": _call_mark(i, k)}}
            for k, call in enumerate(messages[i]["tool_calls"])
        ]
        marked[i] = {**marked[i], "tool_calls": renamed}
    return marked


def _content_mark(turn: int) -> str:
    return f"quartz{turn}turn"


def _call_mark(turn: int, number: int) -> str:
    return f"quartz{turn}call{number}x"
