"""Rows that say the same: repeats among training rows are left out, and none of them may ask what a test row asks.

Test rows are never touched. Prompts are compared by what differs (`sources.near`); two training rows repeat each
other only if their responses do, too, for a second way to answer is worth learning from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sdft_cli.data.dataset import FILTERED
from sdft_cli.data.near_duplicates import alike, near_duplicates, near_matches
from sdft_cli.errors import UsageError
from sdft_cli.models.views import answer_text, demonstration_text
from sdft_cli.types import Dropped, Example, Prepared, PrepareOptions

ON_OVERLAP = ("error", "drop")
HELD_OUT = ("test", "ood", "validation")
Question = Callable[[Example], str]


def screen(task: str, prepared: Prepared, options: PrepareOptions, question: Question | None = None) -> Prepared:
    """``prepared`` with no two training rows alike, and none that asks, exactly or nearly, what a held-out row asks.

    Where the sources say which rows are for training and which for testing, an overlap is theirs to mend: it raises
    `UsageError`, unless ``options.on_overlap`` is "drop". Where our seed split them, the training row is left out.
    """
    asks = question or whole_prompt
    train, left_out = _apart(task, prepared, options, asks)
    train, repeats = _once(train, asks)
    splits = {**prepared.splits, "train": train} if "train" in prepared.splits else prepared.splits
    return replace(prepared, splits=splits, dropped=prepared.dropped + left_out + repeats)


def whole_prompt(example: Example) -> str:
    """All that a prompt says."""
    return example.prompt[0]["content"] if len(example.prompt) == 1 else "\n".join(m["content"] for m in example.prompt)


def overlap(task: str, pairs: list[tuple[str, str]], total: int) -> UsageError:
    """The refusal of training rows that ask what test rows ask; ``pairs`` name both, ``total`` counts the former."""
    mine, held = pairs[0]
    count = f"{len(pairs)} of {total} training rows " + ("asks" if len(pairs) == 1 else "ask")
    return UsageError(
        f"task {task!r}: {count} what a test row asks; the first is {mine}, which asks what {held} asks; "
        "nothing was written",
        "mend the sources, or leave such training rows out with --on-overlap drop; test rows are never dropped",
    )


def _apart(
    task: str, prepared: Prepared, options: PrepareOptions, asks: Question
) -> tuple[list[Example], list[Dropped]]:
    """The training rows that ask something of their own, and the others by name."""
    train = prepared.splits.get("train", [])
    held = [(split, e) for split in HELD_OUT for e in prepared.splits.get(split, [])]
    found = near_matches([asks(e) for _, e in held], [asks(e) for e in train]) if train and held else []
    tested = [(_name(train[i]), _name(held[h][1])) for h, i in found if held[h][0] != "validation"]
    if tested and not prepared.drawn and options.on_overlap == "error":
        raise overlap(task, tested, len(train))
    left_out = [_left_out(train[i], f"asks what a {held[h][0]} row asks", held[h][1]) for h, i in found]
    out = {i for _, i in found}
    return [e for i, e in enumerate(train) if i not in out], left_out


def _once(train: list[Example], asks: Question) -> tuple[list[Example], list[Dropped]]:
    """The training rows that say something new, and the others by name."""
    askers: dict[int, list[int]] = {}
    for first, later in near_duplicates([asks(e) for e in train]):
        askers.setdefault(first, [first]).append(later)
    found = sorted(pair for rows in askers.values() for pair in _same_responses(train, rows))
    repeats = [_left_out(train[later], _how(train[first], train[later]), train[first]) for later, first in found]
    out = {later for later, _ in found}
    return [e for i, e in enumerate(train) if i not in out], repeats


def _same_responses(train: list[Example], rows: list[int]) -> list[tuple[int, int]]:
    """(later, first) of those ``rows``, which all ask the same, that also respond the same."""
    asked = [train[i] for i in rows]
    said = [demonstration_text(e) or answer_text(e) for e in asked]
    alike_answers = lambda a, b: alike(answer_text(asked[a]), answer_text(asked[b]))  # noqa: E731
    return [(rows[later], rows[first]) for first, later in near_duplicates(said, agree=alike_answers)]


def _how(one: Example, other: Example) -> str:
    same = one.prompt == other.prompt and one.demonstration == other.demonstration
    return "repeats another row" if same else "nearly repeats another row"


def _left_out(example: Example, why: str, other: Example) -> Dropped:
    return Dropped(str(example.meta.get("row", example.id)), FILTERED + why, f"{example.id}, like {_name(other)}")


def _name(example: Example) -> str:
    row = example.meta.get("row")
    return f"{example.id!r} ({row})" if row else repr(example.id)
