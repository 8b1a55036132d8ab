"""How long completions may be where nobody has said so: as long as the demonstrations suggest, ``max_new_tokens=auto``.

The number is a function of the training rows and of the model's tokenizer, and of nothing else. A method, a sampler or
a run do not change it, so training samples and evaluations share it, and all models of one tokenizer that are scored on
a dataset are given the same room, wherever they come from.

Half as much again as all but 1 % of the demonstrations, because a right answer in other words may be longer; never less
than `LEAST`, because an untrained model puts a sentence around a label; in steps of `STEP`, so that a few rows more or
less do not change it; at most `MOST`, the SDFT paper's limit. Demonstrations do not tell it where the model thinks
before it answers, and where they are nothing but gold answers, which a model may have to work out in many words (labels
are not worked out). Then it is `types.NEW_TOKENS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sdft_cli.data import dataset
from sdft_cli.data.labels import labels_of
from sdft_cli.data.lengths import percentiles
from sdft_cli.data.manifest import read_extras
from sdft_cli.types import AUTO, NEW_TOKENS, Example, NewTokens, Task

if TYPE_CHECKING:
    from sdft_cli.models.chat import Chat

LEAST, STEP, MOST = 32, 16, 2048
FACTOR = 1.5
#: Training rows that are measured, evenly spaced: they settle a percentile, and a large dataset is not tokenized again
#: for every evaluation.
MEASURED = 2000


class Limit(NamedTuple):
    """The most new tokens of a completion, and why so many."""

    tokens: int
    why: str


class DemonstratedLimit:
    """The limit that the dataset in ``folder`` suggests for the model with this ``chat``."""

    def __init__(self, folder: Path, chat: Chat):
        self.folder, self.chat = folder, chat

    @cached_property
    def limit(self) -> Limit:
        if self.chat.thinks:
            return Limit(NEW_TOKENS, "the model thinks before it answers, and demonstrations do not tell for how long")
        rows = dataset.read_split(self.folder, "train", "drop")[0] if _has_train(self.folder) else []
        shown = [row for row in rows if row.demonstration]
        if 2 * len(shown) <= len(rows) or not shown:
            return Limit(NEW_TOKENS, "most rows have no demonstration" if rows else "there are no demonstrations")
        rendered = read_extras(self.folder).get("gold_as_demonstration", 0)
        if 2 * rendered > len(shown) and labels_of(row.answer for row in rows) is None:
            return Limit(NEW_TOKENS, "the demonstrations are bare gold answers, without the way to them")
        return self._from(shown[:: ceil(len(shown) / MEASURED)])

    def _from(self, shown: Sequence[Example]) -> Limit:
        lengths = percentiles([_tokens(row, self.chat) for row in shown])
        wanted = STEP * ceil(FACTOR * lengths["p99"] / STEP)
        longest = "" if lengths["max"] <= wanted else f" (the longest has {lengths['max']})"
        why = f"99 % of the demonstrations have at most {lengths['p99']}{longest}"
        return Limit(min(MOST, max(LEAST, wanted)), why)

    def of(self, task: Task, asked: NewTokens | None) -> Task:
        """``task`` with a number as its limit: the one that was ``asked`` for, if any, or else the task's own."""
        wanted = task.max_new_tokens if asked is None else asked
        return replace(task, max_new_tokens=self.limit.tokens if wanted == AUTO else wanted)

    def note(self, task: Task, *asked: NewTokens | None) -> str:
        """What to say of the limit where ``task`` takes it under one of the settings ``asked``; empty elsewhere."""
        taken = AUTO in [task.max_new_tokens if each is None else each for each in asked]
        return f"{task.name}: completions of up to {self.limit.tokens} tokens: {self.limit.why}" if taken else ""


def _has_train(folder: Path) -> bool:
    return "train" in dataset.available_splits(folder)


def _tokens(row: Example, chat: Chat) -> int:
    """Tokens of a demonstration as the model would write it, with the end of its turn."""
    from sdft_cli.models.chat_template import TemplateRefusal
    from sdft_cli.models.views import demonstration_text

    if isinstance(row.demonstration, str):  # its own turn begins at a token's boundary, or one token off
        return len(chat.splitter.ids(row.demonstration)) + 1
    try:
        return len(chat.completion(row)[0])
    except TemplateRefusal:
        return len(chat.splitter.ids(demonstration_text(row))) + 1


def tokens_of(task: Task) -> int:
    """The limit of ``task`` where no demonstrations say one."""
    return NEW_TOKENS if task.max_new_tokens == AUTO else task.max_new_tokens
