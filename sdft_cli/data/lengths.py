"""Lengths of rows: percentiles of the student's view, the teacher's view and the demonstration.

In characters, and in tokens under a model's own chat template; the views are those of a method. A view that needs the
batch's own completions has no length yet.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from math import ceil
from typing import TYPE_CHECKING

from sdft_cli.config import model_locations
from sdft_cli.config.recipe import METHODS, Views
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.data.manifest import Lengths, Percentiles, SplitLengths
from sdft_cli.models.views import VIEWS, demonstration_text, message_text
from sdft_cli.types import Example, Message, Prepared

if TYPE_CHECKING:
    from sdft_cli.models.chat import Chat

DEFAULT_METHOD = "sdft"
PARTS = ("student", "teacher", "demonstration")

#: Lengths of one example's parts (`PARTS`); None if it has no such part.
Measure = Callable[[Example], Sequence[int | None]]


def measurer(model: str | None, method: str | None = None) -> Callable[[Prepared], Lengths]:
    """A function that measures rows, in tokens too if a ``model`` is named; its tokenizer is loaded here."""
    views, method = views_of(model, method), method or DEFAULT_METHOD
    in_characters = _characters(views)
    in_tokens = _tokens(views, model) if model else None

    def measure(prepared: Prepared) -> Lengths:
        splits = {split: rows for split, rows in prepared.splits.items() if rows and split != "corpus"}
        characters = {split: _percentiles_of(rows, in_characters) for split, rows in splits.items()}
        if not (model and in_tokens):
            return {"method": method, "characters": characters}
        tokens = {split: _percentiles_of(rows, in_tokens) for split, rows in splits.items()}
        return {"method": method, "model": _label(model), "characters": characters, "tokens": tokens}

    return measure


def views_of(model: str | None, method: str | None = None) -> Views:
    """The views of a method; if a ``model`` is named, with the settings that lie beside it."""
    defaults: Views = METHODS.get(method or DEFAULT_METHOD).views
    return assemble(None, {"model": model, "method": method}, []).views if model else defaults


def lines(lengths: Lengths) -> list[str]:
    """One line per part of the training rows, in tokens if they were counted, else in characters."""
    unit, splits = _finest(lengths)
    train = splits.get("train", {})
    return [f"{part}: {_percentile_text(percentiles)} {unit}" for part, percentiles in train.items()]


def percentiles(values: Sequence[int]) -> Percentiles:
    """Median, 90th and 99th percentile and maximum, each a value that occurs (nearest rank)."""
    ordered = sorted(values)

    def rank(share: float) -> int:
        return ordered[ceil(share * len(ordered)) - 1]

    return {"p50": rank(0.5), "p90": rank(0.9), "p99": rank(0.99), "max": ordered[-1]}


def _finest(lengths: Lengths) -> tuple[str, SplitLengths]:
    return ("tokens", lengths["tokens"]) if "tokens" in lengths else ("characters", lengths["characters"])


def _percentile_text(values: Percentiles) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _percentiles_of(rows: Sequence[Example], measure: Measure) -> dict[str, Percentiles]:
    lengths = {part: array("I") for part in PARTS}
    for row in rows:
        for part, length in zip(PARTS, measure(row), strict=True):
            if length is not None:
                lengths[part].append(length)
    return {part: percentiles(values) for part, values in lengths.items() if values}


def _characters(views: Views) -> Measure:
    def length(messages: list[Message] | None) -> int | None:
        return sum(len(message_text(m)) for m in messages) if messages else None

    def measure(example: Example) -> Sequence[int | None]:
        student, teacher = (_view(name, example) for name in (views.student, views.teacher))
        return length(student), length(teacher), len(demonstration_text(example)) or None

    return measure


def _tokens(views: Views, model: str) -> Measure:
    from sdft_cli.models import pretrained

    chat = pretrained.load_chat(model_locations.locate(model))
    sides = ((views.student, views.student_thinking), (views.teacher, views.teacher_thinking))

    def measure(example: Example) -> Sequence[int | None]:
        prompts = [(_view(name, example), thinking) for name, thinking in sides]
        lengths = (len(chat.view_ids(example, m, thinking)) if m else None for m, thinking in prompts)
        return *lengths, _demonstration_tokens(chat, example, views.student_thinking, prompts[0][0])

    return measure


def _demonstration_tokens(
    chat: Chat, example: Example, thinking: bool | None, shown: list[Message] | None
) -> int | None:
    """As it is trained on; where the template has no way to write it, as the text that a teacher sees."""
    from sdft_cli.models.chat_template import TemplateRefusal

    if not example.demonstration:
        return None
    try:
        return len(chat.completion(example, thinking, shown)[0])
    except TemplateRefusal:
        return len(chat.splitter.ids(demonstration_text(example)))


def _view(name: str | None, example: Example) -> list[Message] | None:
    return VIEWS[name](example) if name in VIEWS else None


def _label(model: str) -> str:
    """The model's name without the folders of this machine."""
    return model.rstrip("/").rpartition("/")[2] if model.startswith((".", "/", "~")) else model
