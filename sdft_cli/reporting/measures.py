"""What is measured besides accuracy: second scores, further splits, completion length, pass@k and suite skills."""

from __future__ import annotations

from typing import TypedDict

from sdft_cli.reporting.estimates import Estimate, estimate
from sdft_cli.runs.records import Summary, TaskSummary
from sdft_cli.runs.results import RunResult

#: The name of the mean length of a task's completions among its measures.
TOKENS = "completion tokens"


class Measure(TypedDict):
    """One measure of a task, for the base model and at the end; None where it was not measured."""

    task: str
    name: str
    base: Estimate | None
    end: Estimate | None


class Skill(TypedDict):
    """A skill of the prior suite: accuracy of the base model and at the end, and the change between them."""

    name: str
    n: int
    base: Estimate
    end: Estimate
    change: float | None


def measures(run: RunResult, task: str) -> list[Measure]:
    """A task's second scores, further splits with theirs, and the mean length of its completions."""
    base, end = (_by_name(run.scores(k, task)) for k in (0, run.last))
    names = dict.fromkeys([*end, *base])
    return [{"task": task, "name": name, "base": base.get(name), "end": end.get(name)} for name in names]


def _by_name(summary: TaskSummary | None) -> dict[str, Estimate]:
    if summary is None:
        return {}
    by_name = _second_scores(summary, "")
    if ood := summary.get("ood"):
        by_name["ood"] = estimate(ood["accuracy"], _pair(ood.get("interval")))
        by_name |= _second_scores(ood, "ood ")
    shares = {"cut": summary.get("cut"), "exact": summary.get("exact")}
    by_name |= {name: estimate(share) for name, share in shares.items() if share is not None}
    if summary.get("mean_tokens"):
        by_name[TOKENS] = estimate(summary["mean_tokens"])
    return by_name


def _second_scores(summary: Summary, prefix: str) -> dict[str, Estimate]:
    return {f"{prefix}{name}": estimate(value) for name, value in summary.get("extra", {}).items()}


def pass_at(run: RunResult, task: str) -> dict[str, Estimate]:
    """pass@k of a task at the end, by k as text; empty where it was not measured."""
    summary = run.scores(run.last, task)
    recorded = summary.get("pass_at") if summary else None
    if not recorded:
        return {}
    return {k: estimate(value, _pair(recorded["intervals"][k])) for k, value in recorded["values"].items()}


def skills(run: RunResult) -> list[Skill]:
    """The suite's skills; empty without a suite."""
    rows: list[Skill] = []
    for name, column in run.parts.items():
        base, end = (estimate(column.cells[k], column.intervals[k]) for k in (0, run.last))
        before, after = base["value"], end["value"]
        change = None if before is None or after is None else after - before
        rows.append({"name": name, "n": max(column.counts), "base": base, "end": end, "change": change})
    return rows


def _pair(interval: list[float] | None) -> tuple[float, float] | None:
    """An interval as JSON holds it, as a pair."""
    return (interval[0], interval[1]) if interval else None
