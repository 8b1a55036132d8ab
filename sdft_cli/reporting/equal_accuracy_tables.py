"""The tables of `equal_accuracy`: what each recipe lost of prior skills when it reached the same accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from sdft_cli.console import number, span
from sdft_cli.reporting.equal_accuracy import HEADLINE, EqualAccuracy, GroupAtLevel, Level, StageAtLevels
from sdft_cli.reporting.tables import LONG, NONE, Cell, Table, TableGroup, estimate_cell, nonempty

TITLE = "Prior change at equal accuracy on the new task"
#: Marks a recipe that is read at the end of its stage.
AT_END = "‡"
INTRO = (
    "Recipes that learn at different speeds are compared where they reach the same accuracy, not after the same number "
    "of steps. Accuracies are those of the evaluations during training, on {n} validation rows and {suite_n} items of "
    "the prior suite; they are made monotone before a level is read, because single evaluations are noisy, and "
    "interpolated."
)
IN_STAGE = "Prior change is since the base model, change in the stage since the stage's start."
AT_END_NOTE = f"{AT_END} Read at the end of the stage, because a later phase brings back prior skills."
OVER_SEEDS = (
    "Means over seeds; brackets: 95 % t-intervals. Difference: minus the first recipe that reaches the level, over the "
    "seeds that both have. All runs share these few items, and the intervals do not cover their choice."
)
ONE_SEED = (
    "Difference: minus the first recipe that reaches the level. There is no interval for a single seed, because "
    "evaluations during training keep no items; the standard error of a prior accuracy on {suite_n} items is up to "
    "{error}."
)


def equal_accuracy_group(compared: EqualAccuracy) -> TableGroup:
    """All tables under one heading. Where a single table of all levels would be long, or there are several stages, one
    with a single level of each stage comes first, and all levels follow by stage, folded. Where nothing can be
    compared, there is no table, and the introduction says what is lacking."""
    stages, notes = compared["stages"], _notes(compared["notes"])
    if not stages:
        return TableGroup(TITLE, [], notes)
    n, suite_n = (_sizes([stage[key] for stage in stages]) for key in ("n", "suite_n"))
    intro = f"{INTRO.format(n=n, suite_n=suite_n)} {notes}".rstrip()
    whole = [(stage, stage["levels"]) for stage in stages]
    title = stages[0]["name"] if len(stages) == 1 else ""
    if title and len((table := _table(title, whole)).rows) <= LONG:
        return TableGroup(TITLE, [table], intro)
    first = _table(title, [(stage, _headline(stage)) for stage in stages])
    more = [one for one in whole if len(one[1]) > len(_headline(one[0]))]
    by_stage = [replace(_table(f"All levels: {one[0]['name']}", [one]), folded=True, note="") for one in more]
    return TableGroup(TITLE, [*nonempty(first), *by_stage], intro)


def sentence(compared: EqualAccuracy) -> str:
    """The last stage, or the whole sequence, at one level in plain words; empty where nothing is known of it."""
    stage = compared["stages"][-1] if compared["stages"] else None
    level = _headline(stage)[-1] if stage else None
    if stage is None or level is None or all(one["change"]["since_base"]["value"] is None for one in level["groups"]):
        return ""
    parts = [f"{one['group']} {_in_words(one)}" for one in level["groups"]]
    where = f"on {stage['name'].partition(' ')[2]}" if stage["stage"] else "over all tasks"
    at = f"at an equal validation accuracy of {number(level['accuracy'])} {where}"
    return f"Change on the prior suite {at}: {', '.join(parts)}."


def _in_words(one: GroupAtLevel) -> str:
    change, gap = one["change"]["since_base"], one["difference"]
    if one["reached"] < len(one["seeds"]):
        return f"not reached ({_at_most(one)})"
    difference = gap["since_base"] if gap else None
    ends = f" {span(difference['interval'], True)}" if difference and difference["interval"] else ""
    told = f" (difference {number(difference['value'], True)}{ends})" if difference and ends else ""
    return f"{number(change['value'], True)}{told}"


def _notes(notes: Sequence[str]) -> str:
    """What cannot be compared, and why, in sentences."""
    return " ".join(f"{note[:1].upper()}{note[1:]}." for note in notes)


def _headline(stage: StageAtLevels) -> list[Level]:
    """The levels that stand for a stage: the one at `HEADLINE` of the common gain, or all that were asked for."""
    chosen = [level for level in stage["levels"] if level["share"] in (None, HEADLINE)]
    return chosen or stage["levels"][-1:]


def _sizes(values: Sequence[int]) -> str:
    return " to ".join(map(str, sorted({min(values), max(values)})))


# --- rows ------------------------------------------------------------------------------------------------------------


def _table(title: str, of_stages: Sequence[tuple[StageAtLevels, Sequence[Level]]]) -> Table:
    """Stages with the levels that are shown of each, a row per level and recipe; in the first stage, which begins with
    the base model, there is one change."""
    stages = [stage for stage, _ in of_stages]
    several, first = len(stages) > 1, all(stage["stage"] == 1 for stage in stages)
    heads = [*(["stage"] if several else []), "validation\naccuracy", "recipe", "step"]
    heads += [] if first else ["change in\nthe stage", "difference"]
    heads += ["prior\nchange", "difference"]
    rows = [
        [*([Cell(stage["name"])] if several else []), *_row(stage, level, one, first)]
        for stage, levels in of_stages
        for level in levels
        for one in level["groups"]
    ]
    of_all = [one for _, levels in of_stages for level in levels for one in level["groups"]]
    least = min(stage["suite_n"] for stage in stages)
    one_seed = ONE_SEED.format(suite_n=least, error=number(0.5 / math.sqrt(least)))
    notes = [OVER_SEEDS if any(len(one["seeds"]) > 1 for one in of_all) else one_seed]
    notes += [] if first else [IN_STAGE]
    notes += [AT_END_NOTE] if any(one["at_end"] for one in of_all) else []
    return Table(title, heads, rows, " ".join(notes), names=2 + several)


def _row(stage: StageAtLevels, level: Level, one: GroupAtLevel, first: bool) -> list[Cell]:
    """One recipe at one level."""
    accuracy = Cell(number(level["accuracy"]), sort=level["accuracy"])
    name = Cell(f"{one['group']} {AT_END}" if one["at_end"] else one["group"])
    step = replace(estimate_cell(one["step"], digits=0), interval=None)
    if one["reached"] < len(one["seeds"]):
        step = Cell(f"not reached: {_at_most(one)}")
    sides = (one["change"], one["difference"])
    in_stage = [estimate_cell(side["since_start"] if side else None, signed=True) for side in sides]
    since_base = [estimate_cell(side["since_base"] if side else None, signed=True) for side in sides]
    if stage["stage"] is None:
        in_stage = [Cell(NONE), Cell(NONE)]
    return [accuracy, name, step, *([] if first else in_stage), *since_base]


def _at_most(one: GroupAtLevel) -> str:
    """How far a group comes that does not reach a level: ``0.412 at most``, of several seeds the lowest."""
    missed = len(one["seeds"]) - one["reached"]
    of_seeds = f" in {missed} of {len(one['seeds'])} seeds" if len(one["seeds"]) > 1 else ""
    return f"{number(min(one['highest']))} at most{of_seeds}"
