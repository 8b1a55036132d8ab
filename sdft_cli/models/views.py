"""What student and teacher see: the templates that turn an example into messages.

Sources: SDFT's teacher view is quoted from arXiv 2601.19897, section 3; ``official`` is the wording of the
authors' code (a full stop at the end, wrapped in newlines).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from sdft_cli.contracts import Contract
from sdft_cli.plugins import Room
from sdft_cli.types import Example, Message

PAPER = (
    "{question}\n\nThis is an example for a response to the question:\n{demonstration}\n\n"
    "Now answer with a response of your own, including the thinking process:"
)
OFFICIAL = "\n" + PAPER[:-1] + ".\n"
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
#: For thinking models: the paper's last clause drives the length up.
PLAIN = PAPER.replace(", including the thinking process", "")


def demonstration_text(example: Example) -> str:
    """The demonstration as one text; several turns become one paragraph each, beginning with the role."""
    shown = example.demonstration
    if shown is None or isinstance(shown, str):
        return shown or ""
    if len(shown) == 1:
        return shown[0]["content"]
    return "\n".join(f"{m['role']}: {m['content']}" for m in shown)


def rewrite_last_user(prompt: list[Message], template: str, demonstration: str) -> list[Message]:
    """``prompt`` with its last user turn wrapped in ``template``; system and earlier turns are kept."""
    at = max(i for i, m in enumerate(prompt) if m["role"] == "user")
    # str.replace and not str.format: questions and demonstrations hold braces of their own
    head, tail = template.split("{question}")
    text = head + prompt[at]["content"] + tail.replace("{demonstration}", demonstration)
    return [*prompt[:at], {**prompt[at], "content": text}, *prompt[at + 1 :]]


def _shown(template: str, slot: Callable[[Example], str]) -> Callable[[Example], list[Message] | None]:
    def view(example: Example) -> list[Message] | None:
        text = slot(example)
        return rewrite_last_user(example.prompt, template, text) if text.strip() else None

    return view


def _joined(*parts: Callable[[Example], str]) -> Callable[[Example], str]:
    return lambda example: "\n".join(t for t in (p(example) for p in parts) if t)


def answer_text(example: Example) -> str:
    """The gold answer as text: as it is, or as JSON."""
    known = example.answer
    return known if isinstance(known, str) else "" if known is None else json.dumps(known, ensure_ascii=False)


def _context(example: Example) -> str:
    return example.context or ""


@dataclass(frozen=True)
class View:
    """``build(example)`` gives the messages that are shown, or None if the example has no such view (no signal)."""

    name: str
    build: Callable[[Example], list[Message] | None]

    def __call__(self, example: Example) -> list[Message] | None:
        return self.build(example)


@dataclass(frozen=True)
class RolloutView:
    """A view that also needs the batch's own completions (SDPO), so it exists only while training.

    ``build(example, sibling, feedback)``: ``sibling`` is a successful completion of the same prompt, ``feedback`` what
    was said about the row's own completion; either may be None. No messages (None) means no signal.
    """

    name: str
    build: Callable[[Example, str | None, str | None], list[Message] | None]

    def __call__(self, example: Example, sibling: str | None, feedback: str | None) -> list[Message] | None:
        return self.build(example, sibling, feedback)


_VIEWS = (
    View("prompt", lambda example: example.prompt),
    View("demonstration", _shown(PAPER, demonstration_text)),
    View("demonstration-official", _shown(OFFICIAL, demonstration_text)),
    View("demonstration-plain", _shown(PLAIN, demonstration_text)),
    # Knowledge tasks: the slot holds the article and the answer (the paper's Figure 7 ablates each).
    View("context+demonstration", _shown(PAPER, _joined(_context, demonstration_text))),
    View("context", _shown(PAPER, _context)),
    View("answer-as-demonstration", _shown(PAPER, answer_text)),
    View("reference", _shown(REFERENCE, demonstration_text)),
    View("answer", _shown(ANSWER, answer_text)),
)
#: By name; `plugins.load_file` puts a plug-in's views in as well.
VIEWS: dict[str, View] = {view.name: view for view in _VIEWS}
VIEW_ROOM = Room(
    "view",
    Contract((View,), {"build": ("example",)}, "VIEW = View(name, build) with View from sdft_cli.models.views"),
    table=VIEWS,
)


def _after_attempts(
    sibling_part: str, feedback_part: str, end: str
) -> Callable[[Example, str | None, str | None], list[Message] | None]:
    """The prompt with a successful sibling and feedback below it; None if there is neither."""

    def view(example: Example, sibling: str | None, feedback: str | None) -> list[Message] | None:
        parts = [
            part.replace("{text}", text) for part, text in ((sibling_part, sibling), (feedback_part, feedback)) if text
        ]
        at = max(i for i, m in enumerate(example.prompt) if m["role"] == "user")
        if not parts:
            return None
        text = "\n\n".join([example.prompt[at]["content"], *parts, end])
        return [*example.prompt[:at], {**example.prompt[at], "content": text}, *example.prompt[at + 1 :]]

    return view


def _sibling_as_demonstration(example: Example, sibling: str | None, feedback: str | None) -> list[Message] | None:
    return rewrite_last_user(example.prompt, PAPER, sibling) if sibling else None


_ROLLOUT_VIEWS = (
    RolloutView(
        "attempts",
        _after_attempts(
            "A correct solution of this question:\n{text}",
            "What was said about an attempt that failed:\n{text}",
            "Solve the question above correctly.",
        ),
    ),
    RolloutView("sibling-as-demonstration", _sibling_as_demonstration),
)
#: By name, like `VIEWS`.
ROLLOUT_VIEWS: dict[str, RolloutView] = {view.name: view for view in _ROLLOUT_VIEWS}
ROLLOUT_VIEW_ROOM = Room(
    "rollout view",
    Contract(
        (RolloutView,),
        {"build": ("example", "sibling", "feedback")},
        "ROLLOUT_VIEW = RolloutView(name, build) with RolloutView from sdft_cli.models.views",
    ),
    table=ROLLOUT_VIEWS,
)
