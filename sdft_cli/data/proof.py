"""What a dataset's rule of grading is worth, found before any model answers: rows that cannot be won, what a constant
answer scores, and the level of chance.

Every row with a gold answer is graded (`data.gold_checks`). A rule that is slow, because it runs programs or solves
mathematics, grades `SAMPLE` rows of each split, evenly spread, unless rows that cannot be won are to be left out or to
be an error; a note says so.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from sdft_cli import console
from sdft_cli.data.dataset import FILTERED, counted, describe
from sdft_cli.data.gold_checks import UNSCORED, GoldChecks, Outcome, answers, place, refuse_if_hopeless
from sdft_cli.data.manifest import MANIFEST, ConstantAnswer, Grading, SplitGrading
from sdft_cli.errors import UsageError
from sdft_cli.models.views import answer_text
from sdft_cli.types import Dropped, Example, Prepared, Task

ON_UNWINNABLE = ("keep", "drop", "error")
CANNOT_BE_WON = f"{FILTERED}cannot be won: "
#: A rule is slow if it would take longer than this for all rows, in seconds; `PILOT` rows are timed.
SECONDS, PILOT, SAMPLE = 30.0, 20, 200
#: From this share of rows that cannot be won, the rule is to blame rather than the rows.
SUSPICIOUS = 0.5
#: Rows that are named on the screen.
NAMED = 5
#: How often an answer occurs on average, at least, where answers are labels.
LABEL_REPEATS = 2

Splits = dict[str, list[Example]]


class Proof(NamedTuple):
    """The rows, without those that were to be left out, and the manifest's record; None where there is no gold."""

    prepared: Prepared
    grading: Grading | None


def prove(task: Task, prepared: Prepared, on_unwinnable: str = "keep") -> Proof:
    """Grade the gold of every split.

    Raises `UsageError` if no row can be won, with "error" if some row cannot, and with "drop" if a split would be
    empty.
    """
    rows = {split: some for split, some in prepared.splits.items() if split != "corpus"}
    gold = _with_gold(rows)
    sampled = on_unwinnable == "keep" and _is_slow(task, gold)
    graded = {split: _spread(some, SAMPLE) if sampled else some for split, some in rows.items()}
    checks = GoldChecks(task, _with_gold(graded))
    outcomes = checks.outcomes()
    if not outcomes:
        return Proof(prepared, None)
    lost = [outcome for outcome in outcomes if outcome.reason]
    known = [outcome for outcome in outcomes if outcome.proven and not outcome.needs_judge]
    refuse_if_hopeless(task, known, f"task {task.name!r}")
    if lost and on_unwinnable == "error":
        raise _refusal(task, lost, len(known))
    if on_unwinnable == "drop":
        prepared = without(task, prepared, lost)
        graded = {split: prepared.splits[split] for split in rows}
    grading: Grading = {
        "on_unwinnable": on_unwinnable,
        "graded": len(known),
        "unwinnable": counted(_as_dropped(outcome) for outcome in lost),
        "share": len(lost) / len(known) if known else None,
        "splits": _by_split(checks, prepared.splits, graded, outcomes),
    }
    notes = _notes(task, grading, outcomes, len(gold) if sampled else None)
    return Proof(replace(prepared, notes=[*prepared.notes, *notes]), grading)


def without(task: Task, prepared: Prepared, lost: Sequence[Outcome]) -> Prepared:
    """``prepared`` without rows that cannot be won; they are listed as left out by design."""
    rows = {id(outcome.example) for outcome in lost}
    splits = {split: [e for e in some if id(e) not in rows] for split, some in prepared.splits.items()}
    if empty := [split for split, some in prepared.splits.items() if some and not splits[split]]:
        raise UsageError(
            f"task {task.name!r}: no row of {' and '.join(empty)} can be won ({describe(_as_dropped(lost[0]))})",
            "check the task's grader and the rows' answers",
        )
    dropped = [replace(row, reason=f"{CANNOT_BE_WON}{row.reason}") for row in map(_as_dropped, lost)]
    return replace(prepared, splits=splits, dropped=[*prepared.dropped, *dropped])


def grading_lines(grading: Grading | None) -> list[str]:
    """The record for people: what can be won, and for the held-out splits chance and a constant answer."""
    if grading is None:
        return []
    lines, lost = list[str](), grading["unwinnable"]
    if grading["graded"]:
        won = grading["graded"] - lost["count"]
        lines.append(f"grading: {won} of {grading['graded']} rows can be won with their own gold answer")
    lines += [f"    cannot be won: {describe(Dropped(**row))}" for row in lost["rows"][:NAMED]]
    if lost["count"] > NAMED:
        lines.append(f"    and {lost['count'] - NAMED} more, listed in {MANIFEST}")
    for split in ("test", "ood"):
        known = grading["splits"].get(split)
        if known and (constant := known["constant_answer"]):
            chance = "" if known["chance"] is None else f"; chance is {known['chance']:.1%}"
            answer = _short(constant["answer"])
            lines.append(f"{split}: the constant answer {answer!r} scores {constant['score']:.1%}{chance}")
    return lines


def _with_gold(rows: Splits) -> list[Example]:
    """The rows with a gold answer or a demonstration, which may be graded by more than the answer (unit tests, …)."""
    return [e for some in rows.values() for e in some if e.answer is not None or e.demonstration is not None]


def _is_slow(task: Task, rows: Sequence[Example]) -> bool:
    """Whether grading all rows would take long. The first one is not timed: it may start a worker."""
    pilot = _spread(rows, PILOT + 1)
    GoldChecks(task, pilot[:1])
    began = time.monotonic()
    GoldChecks(task, pilot[1:])
    needed = (time.monotonic() - began) / max(1, len(pilot) - 1) * len(rows)
    if needed > SECONDS / 10:
        console.err.print(f"{task.name}: grading the gold answers", soft_wrap=True)
    return needed > SECONDS


def _spread(rows: Sequence[Example], count: int) -> list[Example]:
    """At most ``count`` of the rows, evenly spread."""
    return [rows[i * len(rows) // count] for i in range(count)] if len(rows) > count else list(rows)


def _by_split(
    checks: GoldChecks, splits: Splits, graded: Splits, outcomes: Sequence[Outcome]
) -> dict[str, SplitGrading]:
    by_row = {id(outcome.example): outcome for outcome in outcomes}
    labels = _labels(checks.task, {split: splits[split] for split in graded})
    return {
        split: _split(checks, split, len(splits[split]), rows, [by_row[id(e)] for e in rows if id(e) in by_row], labels)
        for split, rows in graded.items()
        if splits.get(split)
    }


def _split(
    checks: GoldChecks, split: str, total: int, rows: Sequence[Example], outcomes: Sequence[Outcome], labels: int | None
) -> SplitGrading:
    known = [outcome for outcome in outcomes if outcome.proven and not outcome.needs_judge]
    scored = [outcome.example for outcome in known if outcome.reason != UNSCORED]
    return {
        "rows": total,
        "graded": len(known),
        "unwinnable": sum(outcome.reason != "" for outcome in known),
        "need_judge": sum(outcome.needs_judge for outcome in outcomes),
        "unproven": sum(not outcome.proven for outcome in outcomes),
        "constant_answer": _constant_answer(checks, scored) if split != "train" else None,
        "chance": _chance(checks.task, rows, labels),
    }


def _constant_answer(checks: GoldChecks, rows: Sequence[Example]) -> ConstantAnswer | None:
    """The most frequent gold answer, given to every row; None if there are no rows.

    ``rows`` are those whose own gold is scored. Where a rule does not score the constant answer, that is no credit.
    """
    given = [(texts[0], example) for example in rows if (texts := answers(checks.task, example))]
    if not given:
        return None
    ((completion, _),) = Counter(text for text, _ in given).most_common(1)
    source = next(example for text, example in given if text == completion)
    scores = [checks.task.grade(checks.form(completion), example).value or 0.0 for example in rows]
    answer = answer_text(source) if checks.task.render else completion
    return {"answer": answer, "score": sum(scores) / len(scores)}


def _chance(task: Task, rows: Sequence[Example], labels: int | None) -> float | None:
    """What guessing scores: among a row's own options, the task's, or the labels; None where there are none."""
    choices = [example.meta.get("choices") for example in rows]
    if rows and all(isinstance(options, list) and options for options in choices):
        return sum(1 / len(options) for options in choices if isinstance(options, list)) / len(rows)
    options = task.options or labels
    return 1 / options if options else None


def _labels(task: Task, splits: Splits) -> int | None:
    """How many labels there are, where the answers are labels: each row has one, the training rows have all of them,
    and they repeat; None otherwise."""
    given = {
        split: [answers(task, example) for example in rows if example.answer is not None]
        for split, rows in splits.items()
    }
    if any(len(texts) != 1 for some in given.values() for texts in some):
        return None
    trained = Counter(texts[0] for texts in given.get("train", []))
    held_out = {texts[0] for split, some in given.items() if split != "train" for texts in some}
    repeated = trained.total() >= LABEL_REPEATS * len(trained)
    return len(trained) if len(trained) > 1 and held_out and held_out <= set(trained) and repeated else None


def _notes(task: Task, grading: Grading, outcomes: Sequence[Outcome], of: int | None) -> list[str]:
    """What a reader of the manifest should know. ``of``: how many gold answers there are, if not all were graded."""
    notes = []
    if of is not None:
        notes.append(
            f"the rule is slow: {len(outcomes)} of {of} gold answers were graded, evenly spread over the splits"
        )
    if judged := sum(outcome.needs_judge for outcome in outcomes):
        nobody = task.grader is not None and task.grader["name"] == "none"
        reason = "the task's grader is none" if nobody else "only a judge can score open answers"
        notes.append(f"{judged} gold answers were not checked: {reason}")
    if paraphrased := sum(outcome.paraphrased for outcome in outcomes):
        notes.append(
            f"{paraphrased} demonstrations get no credit: the rule, which stands in for a judge, does not find their "
            "gold answers in them"
        )
    if unproven := sum(not outcome.proven for outcome in outcomes):
        notes.append(
            f"for {unproven} rows it is not known whether they can be won: the rule does not accept the bare answer, "
            "and no demonstration shows a form that it accepts"
        )
    lost = grading["unwinnable"]["count"]
    if lost > SUSPICIOUS * grading["graded"]:
        notes.append(f"{lost} of {grading['graded']} rows cannot be won: is this the right grader?")
    return notes


def _refusal(task: Task, lost: Sequence[Outcome], graded: int) -> UsageError:
    first = describe(_as_dropped(lost[0]))
    return UsageError(
        f"task {task.name!r}: {len(lost)} of {graded} rows cannot be won; the first is {first}",
        "mend these rows or the grader, or leave them out with --on-unwinnable drop",
    )


def _as_dropped(outcome: Outcome) -> Dropped:
    return Dropped(place(outcome.example), outcome.reason, outcome.detail)


def _short(text: str, most: int = 40) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
