"""The metrics log: appended to, rewound, read by kind; and the validation accuracy it holds."""

import json
from pathlib import Path

import pytest

from sdft_cli.runs.metrics import MetricsLog, validation
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
    assert log.read().steps == log.read().evals == []
    for r in (row("step", 1, 1), row("eval", 1, 1), row("step", 1, 2), row("guard", 1, 2), row("step", 2, 1)):
        log.append(r)
    first = StageId(1, "a")
    assert [(r["stage"], r["step"]) for r in log.read().steps] == [(1, 1), (1, 2), (2, 1)]
    assert [r["step"] for r in log.steps(first)] == [1, 2] and [r["step"] for r in log.steps(first, after=1)] == [2]
    assert log.read().evals == log.evals(first) == [{"global_step": 1, **row("eval", 1, 1)}]
    assert log.evals(StageId(2, "b")) == []


# --- reading what was logged ------------------------------------------------------------------------------------------


def evaluation(stage: int, task: str, n: int = 10, step: int = 1, **scores: float | None) -> dict:
    """A mid-training evaluation."""
    return {
        "stage": stage,
        "task": task,
        "step": step,
        "scores": {t: {"accuracy": a, "n": n} for t, a in scores.items()},
    }


def test_validation_is_each_stages_own_task_at_its_end() -> None:
    rows = [evaluation(1, "a", a=0.1, b=0.9), evaluation(1, "a", a=0.6, b=0.9), evaluation(2, "b", a=0.2, b=0.8, n=30)]
    assert validation(rows, 2) == (pytest.approx(0.7), 40)
    assert validation(rows[:2], 2) is None  # the second stage has not ended
    assert validation([*rows[:2], evaluation(2, "b", b=None)], 2) is None  # nothing could be scored


def test_a_stage_that_ended_with_an_earlier_step_counts_as_of_that_step() -> None:
    rows = [evaluation(1, "a", a=0.1), evaluation(1, "a", step=2, a=0.9), evaluation(1, "a", step=3, a=0.4)]
    assert validation(rows, 1, [{"stage": 1, "model_of": 2}]) == (0.9, 10)
    assert validation(rows, 1, [{"stage": 1, "model_of": 3}]) == validation(rows, 1) == (0.4, 10)


def test_rows_are_sorted_by_kind_and_the_last_of_a_step_counts(tmp_path: Path) -> None:
    at = {"stage": 1, "task": "a", "step": 2}
    rows = [{"kind": "step", **at, "loss": 1.0}, {"kind": "step", **at, "loss": 2.0}, {"kind": "settings", **at}]
    rows += [{"kind": "guard", **at, "guard": name} for name in ("repetition", "truncation")]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"kind": "step", "st')
    logged = MetricsLog(path).read()
    assert [row["loss"] for row in logged.steps] == [2.0] and logged.steps[0]["global_step"] == 2
    assert [row["guard"] for row in logged.guards] == ["repetition", "truncation"]
    assert logged.evals == logged.endings == [] == MetricsLog(tmp_path / "nowhere").read().steps
