"""Views: the texts by which an example becomes what a student or a teacher sees, one `View` object each.

A recipe names them in ``views.student`` and ``views.teacher``; a plug-in may define one as ``VIEW``.
Sources: SDFT's teacher view is quoted from arXiv 2601.19897, section 3; ``official`` is the wording of the
authors' code (a full stop at the end, wrapped in newlines).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from sdft_cli.contracts import Contract
from sdft_cli.errors import shown
from sdft_cli.messages import arguments_of
from sdft_cli.plugins import Room
from sdft_cli.types import Example, Message

PAPER = (
    "{question}\n\nThis is an example for a response to the question:\n{demonstration}\n\n"
    "Now answer with a response of your own, including the thinking process:"
)
OFFICIAL = "\n" + PAPER[:-1] + ".\n"
#: Of the wordings tried on labels and JSON, the one that SmolLM2 follows best when it is sampled (ours).
VERBATIM = "{question}\n\nReply with exactly this:\n{demonstration}"
#: The same words where a model looks for instructions, and the question as the student sees it (wording ours).
SYSTEM = (
    "This is an example for a response to the user's last message:\n{demonstration}\n\n"
    "Answer that message with a response of your own."
)
#: OPSD's teacher (arXiv 2601.18734; wording ours): it sees the solution and must find its own way to it.
REFERENCE = (
    "{question}\n\n=== Reference solution begins ===\n{demonstration}\n=== Reference solution ends ===\n\n"
    "Understand the reasoning above. Without copying or paraphrasing it, derive the same answer independently, step by "
    "step, and put the final answer in \\boxed{}."
)
#: RLSD's teacher (arXiv 2604.03128; wording ours): it sees the final answer alone.
ANSWER = (
    "{question}\n\nReference: the correct final answer is\n{demonstration}\n\n"
    "Solve the question by your own approach, and answer in the format it asks for."
)
_THINK = ", including the thinking process"
#: For thinking models: the paper's last clause drives the length up.
PLAIN = PAPER.replace(_THINK, "")


def demonstration_text(example: Example) -> str:
    """The demonstration as one text; several turns are set one after another with their roles."""
    shown = example.demonstration
    if shown is None or isinstance(shown, str):
        return shown or ""
    if len(shown) == 1:
        return message_text(shown[0])
    return "\n".join(f"{m['role']}: {message_text(m)}" for m in shown)


def message_text(message: Message) -> str:
    """Everything that a message says, as one text: its reasoning in tags, its content, its tool calls as JSON."""
    reasoning = message.get("reasoning_content", "").strip()
    thought = f"<think>\n{reasoning}\n</think>\n\n" if reasoning else ""
    calls = [
        json.dumps({"name": call["function"]["name"], "arguments": arguments_of(call)}, ensure_ascii=False)
        for call in message.get("tool_calls", [])
    ]
    said = [message["content"]] if message["content"] or not calls else []
    return thought + "\n".join([*said, *calls])


def rewrite_last_user(prompt: list[Message], template: str, demonstration: str) -> list[Message]:
    """``prompt`` with its last user turn put into ``template``; system and earlier turns are kept."""
    at = max(i for i, m in enumerate(prompt) if m["role"] == "user")
    # str.replace and not str.format: questions and demonstrations hold braces of their own
    head, tail = template.split("{question}")
    text = head + prompt[at]["content"] + tail.replace("{demonstration}", demonstration)
    return [*prompt[:at], {**prompt[at], "content": text}, *prompt[at + 1 :]]


class Attempts(NamedTuple):
    """What happened to a prompt in the batch: a successful completion by another sample, feedback on a failed one."""

    sibling: str | None = None
    feedback: str | None = None


NOTHING_HAPPENED = Attempts()


#: How a view shows an example, given what has happened to its prompt.
Render = Callable[[Example, Attempts], list[Message] | None]


@dataclass(frozen=True)
class View:
    """One way to show an example. ``render(example, attempts)`` gives messages, or None where the example has nothing
    to show in it: such a row carries no signal. A view that ``needs_attempts`` exists only once a batch is graded; one
    that ``asks_to_think`` wants the thinking process in the answer."""

    name: str
    summary: str
    render: Render
    needs_attempts: bool = False
    asks_to_think: bool = False

    def __call__(self, example: Example, attempts: Attempts = NOTHING_HAPPENED) -> list[Message] | None:
        return self.render(example, attempts)


def _shown(name: str, summary: str, template: str, slot: Callable[[Example], str]) -> View:
    """The last user turn put into ``template``, with what ``slot`` reads of the example."""

    def render(example: Example, attempts: Attempts) -> list[Message] | None:
        text = slot(example)
        return rewrite_last_user(example.prompt, template, text) if text.strip() else None

    return View(name, summary, render, asks_to_think=_THINK in template)


def _joined(*parts: Callable[[Example], str]) -> Callable[[Example], str]:
    return lambda example: "\n".join(t for t in (p(example) for p in parts) if t)


def answer_text(example: Example) -> str:
    """The gold answer as text: as it is, or as JSON."""
    known = example.answer
    return known if isinstance(known, str) else "" if known is None else json.dumps(known, ensure_ascii=False)


def _context(example: Example) -> str:
    return example.context or ""


def _after_attempts(sibling_part: str, feedback_part: str, end: str) -> Render:
    """The prompt, then what happened in the batch; None where there is neither a sibling nor feedback."""

    def render(example: Example, attempts: Attempts) -> list[Message] | None:
        pairs = ((sibling_part, attempts.sibling), (feedback_part, attempts.feedback))
        parts = [part.replace("{text}", text) for part, text in pairs if text]
        if not parts:
            return None
        at = max(i for i, m in enumerate(example.prompt) if m["role"] == "user")
        text = "\n\n".join([example.prompt[at]["content"], *parts, end])
        return [*example.prompt[:at], {**example.prompt[at], "content": text}, *example.prompt[at + 1 :]]

    return render


def _in_system(example: Example, attempts: Attempts) -> list[Message] | None:
    """The demonstration behind the prompt's own system text, or as one; a template's default one gives way to it."""
    text = demonstration_text(example)
    if not text.strip():
        return None
    shown = SYSTEM.replace("{demonstration}", text)
    first, *rest = example.prompt
    if first["role"] != "system":
        return [{"role": "system", "content": shown}, *example.prompt]
    said = [first["content"], shown] if first["content"].strip() else [shown]
    return [{**first, "content": "\n\n".join(said)}, *rest]


def _asked_again(example: Example, attempts: Attempts) -> list[Message] | None:
    """The demonstration as an answer that has been given, and the question once more. There is no wording of ours that
    a student could take over, and the teacher begins as the demonstration does."""
    text, at = demonstration_text(example), max(i for i, m in enumerate(example.prompt) if m["role"] == "user")
    return [*example.prompt, {"role": "assistant", "content": text}, example.prompt[at]] if text.strip() else None


def _sibling_as_demonstration(example: Example, attempts: Attempts) -> list[Message] | None:
    return rewrite_last_user(example.prompt, PAPER, attempts.sibling) if attempts.sibling else None


_SHIPPED = (
    View("prompt", "the prompt alone", lambda example, attempts: example.prompt),
    _shown(
        "demonstration",
        "a demonstration (SDFT's teacher, in the paper's wording)",
        PAPER,
        demonstration_text,
    ),
    _shown("demonstration-official", "the same in the wording of the authors' code", OFFICIAL, demonstration_text),
    _shown("demonstration-plain", "the same without asking for the thinking process", PLAIN, demonstration_text),
    _shown("demonstration-verbatim", "the demonstration, to be repeated as it is", VERBATIM, demonstration_text),
    View("demonstration-system", "the demonstration in the system message, the question as it is", _in_system),
    View("demonstration-turn", "the question answered by the demonstration, and asked again", _asked_again),
    # Knowledge tasks: the slot holds the article and the answer (the paper's Figure 7 ablates each).
    _shown("context+demonstration", "article and demonstration", PAPER, _joined(_context, demonstration_text)),
    _shown("context", "the article alone", PAPER, _context),
    _shown("answer-as-demonstration", "the gold answer in the demonstration's place", PAPER, answer_text),
    _shown("reference", "a reference solution, not to be copied (OPSD's teacher)", REFERENCE, demonstration_text),
    _shown("answer", "the final answer alone (RLSD's teacher)", ANSWER, answer_text),
    View(
        "attempts",
        "a successful completion of the same prompt, feedback on a failed one, or both (SDPO's teacher)",
        _after_attempts(
            "A correct solution of this question:\n{text}",
            "What was said about an attempt that failed:\n{text}",
            "Solve the question above correctly.",
        ),
        needs_attempts=True,
    ),
    View(
        "sibling-as-demonstration",
        "a successful completion of the same prompt in the demonstration's place",
        _sibling_as_demonstration,
        needs_attempts=True,
        asks_to_think=True,
    ),
)
#: Every view that can be named, by name; `plugins` adds those of methods' files and of users' own.
VIEWS: dict[str, View] = {view.name: view for view in _SHIPPED}


def _messages(result: object, *_: object) -> object:
    """What a plug-in's view must give."""
    rows = result if isinstance(result, list) else [None]
    if result is not None and not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in rows):
        raise ValueError(f"a list of messages, each with 'role' and 'content', or None, not {shown(result)}")
    return result


VIEW_ROOM: Room[View] = Room(
    "view",
    Contract(
        (View,),
        {"render": ("example", "attempts")},
        "VIEW = View(name, summary, render) with View from sdft_cli.models.views",
        results={"render": _messages},
    ),
    table=VIEWS,
    beside="METHOD",
)
