"""An accuracy matrix whose metrics were worked out by hand, and a run folder that measures it; for tests only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from support.run_folder import summary, write_items, write_json

from sdft_cli.runs import results
from sdft_cli.runs.format_version import write_format

#: Percent right by stage and task; stages train the tasks in order.
ORACLE = [[40, 68, 20, 30], [70, 66, 18, 34], [74, 60, 26, 30], [64, 50, 58, 42], [60, 54, 64, 80]]
#: Percent right by stage and part of a prior suite.
PRIOR = [[90, 60], [88, 61], [84, 57], [80, 58], [82, 55]]

TASKS, PARTS = ("a", "b", "c", "d"), ("p", "q")


def oracle_run(
    folder: Path,
    stages: Sequence[str] = TASKS,
    matrix: Sequence[Sequence[int]] = ORACLE,
    prior: Sequence[Sequence[int]] = PRIOR,
) -> results.RunResult:
    """A run whose items give the matrix: the first of 100 items are right, as many as it says."""
    write_format(folder)
    write_json(folder / "recipe.json", {"tasks": list(stages), "method": "sdft", "suite": "micro", "seed": 0})
    for k, row in enumerate(matrix):
        name = stages[k - 1] if k else "base"
        where = folder / "evals" / f"{k:02d}-{name}"
        by_task = zip(dict.fromkeys(stages), row, strict=True)
        tasks = {task: write_items(where / f"{task}.jsonl", _items(task, right)) for task, right in by_task}
        suite = [{**item, "part": p} for p, n in zip(PARTS, prior[k], strict=True) for item in _items(p, n)]
        write_items(where / "suite-micro.jsonl", suite)
        parts = {p: summary([item for item in suite if item["part"] == p]) for p in PARTS}
        mean = sum(part["accuracy"] for part in parts.values()) / 2
        scores = {"stage": k, "task": name, "tasks": tasks}
        write_json(
            where / "scores.json",
            {**scores, "suite": {**summary(suite), "name": "micro", "accuracy": mean, "parts": parts}},
        )
    return results.load_run(folder)


def _items(name: str, right: int) -> list[dict]:
    return [{"id": f"{name}-{i}", "value": float(i < right), "tokens": 1} for i in range(100)]
