"""The texts by which an example becomes a student's or a teacher's view.

A view is a function ``(example) -> messages or None``; None means this row has no such view (no signal).
Sources: SDFT's teacher view is quoted from arXiv 2601.19897, section 3; ``official`` is the wording of the
authors' code (a full stop at the end, wrapped in newlines).
"""

from __future__ import annotations

from collections.abc import Callable

from sdft_cli.types import Example, Message

PAPER = (
    "{question}\n\nThis is an example for a response to the question:\n{demonstration}\n\n"
    "Now answer with a response of your own, including the thinking process:"
)
OFFICIAL = "\n" + PAPER[:-1] + ".\n"
#: For thinking models: the paper's last clause drives the length up.
PLAIN = PAPER.replace(", including the thinking process", "")


def demonstration_text(example: Example) -> str:
    """The demonstration as one text; several turns are set one after another with their roles."""
    shown = example.demonstration
    if shown is None or isinstance(shown, str):
        return shown or ""
    if len(shown) == 1:
        return shown[0]["content"]
    return "\n".join(f"{m['role']}: {m['content']}" for m in shown)


def rewrite_last_user(prompt: list[Message], template: str, demonstration: str) -> list[Message]:
    """``prompt`` with its last user turn put into ``template``; system and earlier turns are kept."""
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


def _context(example: Example) -> str:
    return example.context or ""


View = Callable[[Example], list[Message] | None]
VIEWS: dict[str, View] = {
    "prompt": lambda example: example.prompt,
    "demonstration": _shown(PAPER, demonstration_text),
    "demonstration-official": _shown(OFFICIAL, demonstration_text),
    "demonstration-plain": _shown(PLAIN, demonstration_text),
    # Knowledge tasks: the slot holds the article and the answer (the paper's Figure 7 ablates each).
    "context+demonstration": _shown(PAPER, _joined(_context, demonstration_text)),
    "context": _shown(PAPER, _context),
}
