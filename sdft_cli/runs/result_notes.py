"""What a reader of a run's results must know before trusting the numbers, in sentences without a full stop."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from sdft_cli.runs.evaluations import lost_items, read_items
from sdft_cli.runs.loss_columns import LossColumn, changed
from sdft_cli.runs.matrix_columns import Column
from sdft_cli.runs.records import Scores, SettingsRow, Summary
from sdft_cli.runs.stage_recipes import in_short, text


def coverage_notes(
    stages: Sequence[str], by_stage: Mapping[int, Scores], columns: Mapping[str, Column], parts: Mapping[str, Column]
) -> list[str]:
    """Which stages and items are missing."""
    notes = []
    if max(by_stage) < len(stages):
        notes.append(f"unfinished: only {max(by_stage)} of {len(stages)} stages have been evaluated")
    notes += [f"stage {k} was not evaluated" for k in range(max(by_stage)) if k not in by_stage]
    dropped = {**{t: c.dropped for t, c in columns.items()}, "the suite": sum(p.dropped for p in parts.values())}
    notes += [f"{t}: {n} items are left out because some stage did not score them" for t, n in dropped.items() if n]
    return notes


def unscored_notes(columns: Mapping[str, Column], trained: Sequence[str]) -> list[str]:
    """Which tasks were not scored at all, so that the metrics are over the others, or at some stages only.
    ``trained`` are the tasks of the evaluated stages."""
    trained = list(dict.fromkeys(trained))
    never = {task: reason for task, column in columns.items() if (reason := column.never_scored)}
    counted = [task for task in trained if task not in never]
    over = f"metrics are over {len(counted)} of {len(trained)} tasks ({', '.join(counted)})"
    over = over if counted else "no metric can be given"
    notes = [f"{t} is not scored: {reason}" + (f"; {over}" if t in trained else "") for t, reason in never.items()]
    for task, column in columns.items():
        if column.unscored and task not in never:
            stages = ", ".join(f"after stage {k}" if k else "before training" for k in column.unscored)
            reason = next(iter(column.unscored.values()))
            notes.append(f"{task} was not scored {stages} ({reason}): metrics that need it there are not given")
    return notes


def part_notes(parts: Mapping[str, Column]) -> list[str]:
    """Which parts of the prior suite have no accuracy at any stage, so that its mean is over the others."""
    without = [name for name, part in parts.items() if all(cell is None for cell in part.cells)]
    over = f"the prior suite's mean is over {len(parts) - len(without)} of {len(parts)} parts"
    return [f"{over}: {', '.join(without)} {'has' if len(without) == 1 else 'have'} no accuracy"] if without else []


def loss_notes(losses: Mapping[str, LossColumn]) -> list[str]:
    """Losses that cannot be compared between stages."""
    said = "stages measured the loss of different texts, so their losses cannot be compared"
    return [f"{task}: {said}" for task, column in losses.items() if changed(column)]


def change_note(row: SettingsRow) -> str:
    """``after stage 1 (a), step 400, settings or inputs changed: train.lr 1e-05, then 5e-06``."""
    told = in_short({_short(key): [_short(text(value)) for value in pair] for key, pair in row["changed"].items()})
    where = f"after stage {row['stage']} ({row['task']}), step {row['step']}" if row["stage"] else "before stage 1"
    return f"{where}, settings or inputs changed: {told}"


def _short(text: str) -> str:
    """``text`` without the folders of an absolute path in it, which say nothing to readers elsewhere; URLs stay."""
    if "://" in text:
        return text
    before, slash, path = text.partition(os.sep)
    return before + "…/" + PurePath(path).name if slash and os.path.isabs(slash + path) else text


def lost_item_notes(folder: Path, by_stage: Mapping[int, Scores]) -> list[str]:
    """Item files that have not as many items as were scored."""
    notes = []
    for stage, scores in by_stage.items():
        units = [*scores["tasks"], *([f"suite-{scores['suite']['name']}"] if scores["suite"] else [])]
        for unit, items in ((unit, read_items(folder, stage, unit)) for unit in units):
            if items and (lost := lost_items(unit, items, scores["tasks"], scores["suite"])):
                notes.append(f"stage {stage}, {lost}")
    return notes


def remarks_of(by_stage: Mapping[int, Scores]) -> list[str]:
    """What tasks and suites note about their own scoring; a remark that several share is listed once. One that changes
    from stage to stage names the stages."""
    stages_of: dict[str, dict[str, list[str]]] = {}  # by name and note
    for stage, scores in by_stage.items():
        suite, when = scores["suite"], f"after stage {stage}" if stage else "before training"
        summaries: list[tuple[str, Summary]] = [*scores["tasks"].items()]
        summaries += [(f"suite {suite['name']}", suite), *suite["parts"].items()] if suite else []
        for name, summary in summaries:
            if summary.get("note"):
                stages_of.setdefault(name, {}).setdefault(summary["note"], []).append(when)
    subjects: dict[str, dict[str, None]] = {}
    for name, notes in stages_of.items():
        for note, stages in notes.items():
            subject = name if len(notes) == 1 else f"{name} {' and '.join(stages)}"
            subjects.setdefault(note, {})[subject] = None
    return [f"{', '.join(names)}: {note}" for note, names in subjects.items()]
