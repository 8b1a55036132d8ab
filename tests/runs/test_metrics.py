"""The metrics log: appended to, rewound, read by kind."""

import json
from pathlib import Path

from sdft_cli.runs.metrics import MetricsLog
from sdft_cli.runs.records import StageId


def row(kind: str, stage: int, step: int) -> dict:
    return {"kind": kind, "stage": stage, "task": "ab"[stage - 1], "step": step}


def test_rewinding_drops_what_comes_after_and_torn_lines(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.rewind(StageId(1, "a"), -1)  # nothing was logged yet
    assert not log.path.exists()
    for stage, step in ((1, 1), (1, 2), (2, 1), (2, 2)):
        log.append(row("step", stage, step))
    with log.path.open("a") as f:
        f.write('{"stage": 2, "st')
    log.rewind(StageId(2, "b"), 1)
    rows = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [(r["stage"], r["step"]) for r in rows] == [(1, 1), (1, 2), (2, 1)]


def test_rows_are_read_by_kind_stage_and_step(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert log.steps() == log.evals() == []
    for r in (row("step", 1, 1), row("eval", 1, 1), row("step", 1, 2), row("guard", 1, 2), row("step", 2, 1)):
        log.append(r)
    first = StageId(1, "a")
    assert [(r["stage"], r["step"]) for r in log.steps()] == [(1, 1), (1, 2), (2, 1)]
    assert [r["step"] for r in log.steps(first)] == [1, 2] and [r["step"] for r in log.steps(first, after=1)] == [2]
    assert log.evals() == log.evals(first) == [row("eval", 1, 1)] and log.evals(StageId(2, "b")) == []
