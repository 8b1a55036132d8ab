"""How long rows are: percentiles of what student and teacher see and of demonstrations, in characters and in tokens.

Tokens are counted under a model's own chat template, views are those of a method. A view that needs the batch's own
completions has no length yet.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

from sdft_cli.config import locations
from sdft_cli.config.layers import assemble
from sdft_cli.config.recipe import METHODS, Views
from sdft_cli.models.views import VIEWS, demonstration_text
from sdft_cli.types import Example, Message, Prepared

DEFAULT = "sdft"
PARTS = ("student", "teacher", "demonstration")
_RANKS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}

#: Lengths of one example's parts (`PARTS`); None where it has no such part.
Measure = Callable[[Example], Sequence[int | None]]
#: {"characters": {split: {part: {"p50": …}}}, "tokens": the same, "model": its name, "method": whose views}
Lengths = dict[str, Any]


def measure(model: str | None, method: str | None = None) -> Callable[[Prepared], Lengths]:
    """A function from rows to `Lengths`, tokens included where a ``model`` is named; its tokenizer is loaded here."""
    views, method = views_of(model, method), method or DEFAULT
    units: dict[str, Measure] = {"characters": _characters(views)}
    if model:
        units["tokens"] = _tokens(views, model)

    def measured(prepared: Prepared) -> Lengths:
        splits = {s: rows for s, rows in prepared.splits.items() if rows and s != "corpus"}
        found = {unit: {s: _spreads(rows, how) for s, rows in splits.items()} for unit, how in units.items()}
        return {"method": method, **({"model": _label(model)} if model else {}), **found}

    return measured


def views_of(model: str | None, method: str | None = None) -> Views:
    """The views of a method, as the settings that lie beside a ``model`` have them, if one is named."""
    plain: Views = METHODS.get(method or DEFAULT).views
    return assemble(None, {"model": model, "method": method}, []).views if model else plain


def lines(lengths: Lengths) -> list[str]:
    """The train rows' lengths for people, a line a part: tokens where they were counted, else characters."""
    unit = "tokens" if "tokens" in lengths else "characters"
    spreads = lengths[unit].get("train", {})
    return [f"{part}: " + ", ".join(f"{k} {n}" for k, n in spreads[part].items()) + f" {unit}" for part in spreads]


def spread(values: Sequence[int]) -> dict[str, int]:
    """Median, 90th and 99th percentile and maximum, each a value that occurs (nearest rank)."""
    ordered = sorted(values)
    return {name: ordered[ceil(rank * len(ordered)) - 1] for name, rank in _RANKS.items()}


def _spreads(rows: Sequence[Example], how: Measure) -> dict[str, dict[str, int]]:
    known = {part: array("I") for part in PARTS}
    for row in rows:
        for part, length in zip(PARTS, how(row), strict=True):
            if length is not None:
                known[part].append(length)
    return {part: spread(values) for part, values in known.items() if values}


def _characters(views: Views) -> Measure:
    def length(messages: list[Message] | None) -> int | None:
        return sum(len(m["content"]) for m in messages) if messages else None

    def measured(example: Example) -> Sequence[int | None]:
        student, teacher = (_view(name, example) for name in (views.student, views.teacher))
        return length(student), length(teacher), len(demonstration_text(example)) or None

    return measured


def _tokens(views: Views, model: str) -> Measure:
    from sdft_cli.models import pretrained

    chat = pretrained.load_chat(locations.locate(model))
    sides = ((views.student, views.student_thinking), (views.teacher, views.teacher_thinking))

    def measured(example: Example) -> Sequence[int | None]:
        shown = [(_view(name, example), thinking) for name, thinking in sides]
        said = len(chat.completion(example)[0]) if example.demonstration else None
        return (*(len(chat.prompt_ids(m, thinking)) if m else None for m, thinking in shown), said)

    return measured


def _view(name: str | None, example: Example) -> list[Message] | None:
    return VIEWS[name](example) if name in VIEWS else None


def _label(model: str) -> str:
    """The model's name without this machine's folders."""
    return model.rstrip("/").rpartition("/")[2] if model.startswith((".", "/", "~")) else model
