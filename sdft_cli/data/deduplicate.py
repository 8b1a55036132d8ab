"""De-duplication: training rows that repeat each other are left out, and so are those that ask what a test row asks.

Test rows are never touched. Prompts are compared by what differs between them (`data.near_duplicates`). Two training
rows count as repeats only if their responses are alike too: a second way to answer is worth learning from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sdft_cli.data.dataset import FILTERED
from sdft_cli.data.near_duplicates import near_duplicates, near_matches, similar
from sdft_cli.errors import UsageError
from sdft_cli.models.views import answer_text, demonstration_text
from sdft_cli.types import Dropped, Example, Prepared, PrepareOptions

ON_OVERLAP = ("error", "drop")
HELD_OUT = ("test", "ood", "validation")
Question = Callable[[Example], str]


def deduplicate(task: str, prepared: Prepared, options: PrepareOptions, question: Question | None = None) -> Prepared:
    """``prepared`` without training rows that repeat another one, or that ask (nearly) what a held-out row asks.

    ``question`` extracts what is compared from an example (the whole prompt by default). If the sources say which rows
    are for training and which for testing, an overlap is an error in them: it raises `UsageError`, unless
    ``options.on_overlap`` is "drop". If the split was drawn by our seed, the training row is left out.
    """
    question = question or whole_prompt
    train, overlapping = _without_overlap(task, prepared, options, question)
    train, repeats = _without_repeats(train, question)
    splits = {**prepared.splits, "train": train} if "train" in prepared.splits else prepared.splits
    return replace(prepared, splits=splits, dropped=prepared.dropped + overlapping + repeats)


def whole_prompt(example: Example) -> str:
    """The text of all messages of the prompt."""
    return example.prompt[0]["content"] if len(example.prompt) == 1 else "\n".join(m["content"] for m in example.prompt)


def overlap_error(task: str, pairs: list[tuple[str, str]], total: int) -> UsageError:
    """The refusal of training rows that ask what test rows ask.

    ``pairs`` name both rows of each overlap, the training row first; ``total`` is the number of training rows.
    """
    training_row, test_row = pairs[0]
    count = f"{len(pairs)} of {total} training rows " + ("asks" if len(pairs) == 1 else "ask")
    return UsageError(
        f"task {task!r}: {count} what a test row asks; the first is {training_row}, which asks what {test_row} asks; "
        "nothing was written",
        "fix the sources, or leave such training rows out with --on-overlap drop; test rows are never dropped",
    )


def _without_overlap(
    task: str, prepared: Prepared, options: PrepareOptions, question: Question
) -> tuple[list[Example], list[Dropped]]:
    """The training rows that ask what no held-out row asks, and the others by name."""
    train = prepared.splits.get("train", [])
    held_out = [(split, e) for split in HELD_OUT for e in prepared.splits.get(split, [])]
    if not (train and held_out):
        return train, []
    matches = near_matches([question(e) for _, e in held_out], [question(e) for e in train])
    tested = [(_name(train[i]), _name(held_out[h][1])) for h, i in matches if held_out[h][0] != "validation"]
    if tested and not prepared.drawn and options.on_overlap == "error":
        raise overlap_error(task, tested, len(train))
    dropped = [_dropped(train[i], f"asks what a {held_out[h][0]} row asks", held_out[h][1]) for h, i in matches]
    overlapping = {i for _, i in matches}
    return [e for i, e in enumerate(train) if i not in overlapping], dropped


def _without_repeats(train: list[Example], question: Question) -> tuple[list[Example], list[Dropped]]:
    """The training rows that repeat no earlier one, and the others by name."""
    same_question: dict[int, list[int]] = {}
    for first, later in near_duplicates([question(e) for e in train]):
        same_question.setdefault(first, [first]).append(later)
    pairs = sorted(pair for rows in same_question.values() for pair in _same_responses(train, rows))
    dropped = [_dropped(train[later], _reason(train[first], train[later]), train[first]) for later, first in pairs]
    repeats = {later for later, _ in pairs}
    return [e for i, e in enumerate(train) if i not in repeats], dropped


def _same_responses(train: list[Example], rows: list[int]) -> list[tuple[int, int]]:
    """(later, first) for those of ``rows``, which all ask the same question, whose responses are alike too."""
    examples = [train[i] for i in rows]
    responses = [demonstration_text(e) or answer_text(e) for e in examples]
    same_answer = lambda a, b: similar(answer_text(examples[a]), answer_text(examples[b]))  # noqa: E731
    return [(rows[later], rows[first]) for first, later in near_duplicates(responses, agree=same_answer)]


def _reason(one: Example, other: Example) -> str:
    same = one.prompt == other.prompt and one.demonstration == other.demonstration
    return "repeats another row" if same else "nearly repeats another row"


def _dropped(example: Example, reason: str, other: Example) -> Dropped:
    return Dropped(str(example.meta.get("row", example.id)), FILTERED + reason, f"{example.id}, like {_name(other)}")


def _name(example: Example) -> str:
    row = example.meta.get("row")
    return f"{example.id!r} ({row})" if row else repr(example.id)
