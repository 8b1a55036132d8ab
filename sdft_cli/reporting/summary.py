"""A report in sentences: what was measured, what came out, and what that does not show. Made from facts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdft_cli.console import is_change, number, pvalue, span
from sdft_cli.stats import continual

Row = dict[str, Any]

MICRO = (
    "Tasks named micro-… come from a micro world: invented words and rules, and a very small model. "
    "What happens there is evidence about the code and the mechanics of the methods, not about large language models."
)
OF_ITEMS = (
    "Intervals of a run are 95 % intervals over test items of its last checkpoint; they do not cover training "
    "again, so by themselves they do not show that a method is better."
)
HEADLINE = ("average_accuracy", "backward_transfer", "prior_change")
#: Of more runs than this, the tables speak alone.
_FEW = 4


def title(facts: Row) -> str:
    """Which recipes, on which tasks."""
    names, sequences = [group["name"] for group in facts["groups"]], _sequences(facts)
    who = ", ".join(names[:-1]) + f" and {names[-1]}" if 1 < len(names) <= _FEW else names[0]
    who = who if len(names) <= _FEW else f"{len(names)} recipes"
    return f"{who} on {' → '.join(sequences[0])}" if len(sequences) == 1 else f"{who} on several sequences of tasks"


def sentences(facts: Row) -> list[str]:
    """Plain language, a thought a sentence."""
    runs, seeded = facts["runs"], any(len(group["seeds"]) > 1 for group in facts["groups"])
    found = [_measured(facts)]
    if seeded and len(facts["groups"]) <= _FEW:
        found += _over_seeds(facts)
    elif len(runs) <= _FEW:
        found += [_outcome(run) for run in runs]
    if len(runs) == 2 and runs[0]["group"] != runs[1]["group"]:
        found.append(_compared(*runs))
    found.append(OF_ITEMS)
    return [*found, MICRO] if any(task.startswith("micro-") for run in runs for task in run["stages"]) else found


def warnings(facts: Row) -> list[str]:
    """What a reader must know before comparing."""
    runs = facts["runs"]
    found = [f"{run['label']}: {note}" for run in runs for note in run["notes"]]
    for key in ("world", "model", "suite"):
        if len({str(run["recipe"].get(key)) for run in runs}) > 1:
            found.append(f"The runs have different {key}s: their numbers do not compare.")
    if len(_sequences(facts)) > 1:
        found.append("The runs trained different sequences of tasks: their metrics do not compare.")
    if len({len(run["rows"]) for run in runs}) > 1:
        found.append("The runs have come to different stages: their metrics do not compare.")
    silent = [run["label"] for run in runs if not any(run["settings"].values())]
    if silent and len(runs) > 1:
        who = "No run" if len(silent) == len(runs) else f"Not every run (not {', '.join(silent)})"
        found.append(f"{who} recorded how it was measured: template, limit and test rows could not be compared.")
    return list(dict.fromkeys(found))


def _sequences(facts: Row) -> list[list[str]]:
    """The distinct sequences of tasks."""
    return [list(stages) for stages in dict.fromkeys(tuple(run["stages"]) for run in facts["runs"])]


def _measured(facts: Row) -> str:
    runs, sequences = facts["runs"], _sequences(facts)
    order = f"on {', then '.join(sequences[0])}" if len(sequences) == 1 else "on sequences of tasks that differ"
    who = "One run trained a model" if len(runs) == 1 else f"{len(runs)} runs each trained a model"
    tested = [n for run in runs for head, n in zip(run["heads"], run["sizes"], strict=True) if not _is_suite(head)]
    sizes = f"{min(tested)}" if min(tested) == max(tested) else f"{min(tested)} to {max(tested)}"
    pairs = [(head, n) for run in runs for head, n in zip(run["heads"], run["sizes"], strict=True) if _is_suite(head)]
    suites = dict.fromkeys(f"{head.removeprefix('prior: ')} ({n} items)" for head, n in pairs)
    suite = f" and on the prior suite {', '.join(suites)}" if suites else "; no prior suite was tested"
    when = "Before training and after every stage it was tested on all its tasks"
    return f"{who} {order}. {when} ({sizes} items a task){suite}."


def _is_suite(head: str) -> bool:
    return head.startswith("prior: ")


def _outcome(run: Row) -> str:
    """One run's numbers, with intervals."""
    last = len(run["rows"]) - 1
    begun = set(run["stages"][:last])
    if not begun:
        return f"{run['label']}: only the base model has been tested."
    cells = zip(run["heads"], run["rows"][0]["cells"], strict=True)
    base = [cell["value"] for head, cell in cells if head in begun and cell["value"] is not None]
    before = f", from {number(sum(base) / len(base))} before training" if len(base) == len(begun) else ""
    parts = [f"{run['label']}: average accuracy {_quoted(run, 'average_accuracy')}{before}"]
    for metric, name in (("backward_transfer", "backward transfer"), ("prior_change", "prior suite")):
        if run["metrics"][metric]["value"] is not None:
            parts.append(f"{name} {_quoted(run, metric)}{_if_null(run, metric)}")
    unfinished = "" if run["finished"] else f"Unfinished ({last} of {len(run['stages'])} stages): "
    return unfinished + "; ".join(parts) + "."


def _quoted(run: Row, metric: str) -> str:
    signed, found = is_change(metric), run["metrics"][metric]
    return f"{number(found['value'], signed)} {span(found['interval'], signed)}".strip()


def _if_null(run: Row, metric: str) -> str:
    pair = run["metrics"][metric]["interval"]
    return " (the interval includes no change)" if pair and pair[0] <= 0 <= pair[1] else ""


def _compared(a: Row, b: Row) -> str:
    """For each headline metric, whether the two intervals overlap."""
    verdicts: dict[bool, list[str]] = {True: [], False: []}
    for metric in HEADLINE:
        x, y = (run["metrics"][metric]["interval"] for run in (a, b))
        if x and y:
            verdicts[continual.overlap(x, y)].append(metric.replace("_", " "))
    apart = f"do not overlap for {', '.join(verdicts[False])}" if verdicts[False] else ""
    touching = f"overlap for {', '.join(verdicts[True])}" if verdicts[True] else ""
    said = "; they ".join(filter(None, (apart, touching))) or "are missing"
    return f"The intervals of {a['label']} and {b['label']} {said}."


def _over_seeds(facts: Row) -> list[str]:
    """The seed means of the headline metrics, with the difference of two groups where there is one."""
    said = []
    for metric in HEADLINE:
        cells: Sequence[tuple[str, float | None]] = [
            (g["name"], g["metrics"][metric]["value"]) for g in facts["groups"]
        ]
        if all(value is None for _, value in cells):
            continue
        means = ", ".join(f"{name} {number(value, is_change(metric))}" for name, value in cells)
        test = facts["pair"] and facts["pair"]["tests"][metric]
        gap = f"; difference {number(test['value'], True)} {span(test['interval'], True)}" if test else ""
        said.append(f"Mean {metric.replace('_', ' ')} over seeds: {means}{gap}.")
    if facts["pair"]:
        n, least = len(facts["pair"]["seeds"]), pvalue(facts["pair"]["smallest_p"])
        said.append(f"With {n} paired seeds no exact sign-flip p can be below {least}.")
    return said
