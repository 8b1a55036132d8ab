"""The same prompts before and after training, with what the base model and every run's last model wrote side by side.

A few test rows of every task, and an item of every part of the suite, chosen by a hash of their id: nobody picks them
by their looks. Left out: runs without a neighbour (`excerpts` shows those), and whatever not all of them were asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdft_cli.reporting.excerpts import Answer, Excerpt, answer, as_text, hash_of, shown_runs
from sdft_cli.reporting.groups import Group
from sdft_cli.runs.records import ItemRecord
from sdft_cli.runs.results import RunResult

#: Test rows of every task.
ROWS = 3
LONGEST = 600

Items = Mapping[str, ItemRecord]


def same_prompts(groups: Sequence[Group]) -> dict[str, list[Excerpt]]:
    """Prompts by task, and by ``suite NAME``; empty unless several runs were measured before and after training."""
    runs = {label: run for label, run in shown_runs(groups) if run.last}
    if len(runs) < 2:
        return {}
    first = next(iter(runs.values()))
    units: dict[str, str | None] = {task: task for task in first.tasks}
    if len({run.suite for run in runs.values()}) == 1 and first.suite:
        units[f"suite {first.suite}"] = None
    found = {name: _of_unit(task, first, runs) for name, task in units.items()}
    return {name: items for name, items in found.items() if items}


def _of_unit(task: str | None, first: RunResult, runs: Mapping[str, RunResult]) -> list[Excerpt]:
    answers: dict[str, Items] = {"base": _items(first, 0, task)}
    answers |= {label: _items(run, run.last, task) for label, run in runs.items() if task is None or task in run.tasks}
    common = set.intersection(*(set(items) for items in answers.values()))
    by_part: dict[str, list[str]] = {}
    for i in sorted(common, key=hash_of):
        by_part.setdefault(answers["base"][i].get("part", ""), []).append(i)
    most = 1 if task is None else ROWS
    chosen = [i for part in sorted(by_part) for i in by_part[part][:most]]
    return [_excerpt(i, {label: items[i] for label, items in answers.items()}) for i in chosen]


def _items(run: RunResult, stage: int, task: str | None) -> Items:
    """The first completion of every item."""
    return {item["id"]: item for item in run.items(stage, task) if not item.get("sample")}


def _excerpt(identity: str, by_label: Mapping[str, ItemRecord]) -> Excerpt:
    item = by_label["base"]
    answers: list[Answer] = [answer(label, of_label, LONGEST) for label, of_label in by_label.items()]
    prompt, gold = as_text(item.get("prompt"), LONGEST), as_text(item.get("answer"), LONGEST)
    return Excerpt(item.get("part", ""), identity, prompt, gold, answers)
