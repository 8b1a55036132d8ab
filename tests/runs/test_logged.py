"""The rows of metrics.jsonl by kind, and the validation accuracy they hold."""

from __future__ import annotations

import json

import pytest

from sdft_cli.runs.logged import read_log, validation


def row(stage: int, task: str, n: int = 10, step: int = 1, **scores: float | None) -> dict:
    """A mid-training evaluation."""
    return {
        "stage": stage,
        "task": task,
        "step": step,
        "scores": {t: {"accuracy": a, "n": n} for t, a in scores.items()},
    }


def test_validation_is_each_stages_own_task_at_its_end() -> None:
    rows = [row(1, "a", a=0.1, b=0.9), row(1, "a", a=0.6, b=0.9), row(2, "b", a=0.2, b=0.8, n=30)]
    assert validation(rows, 2) == (pytest.approx(0.7), 40)
    assert validation(rows[:2], 2) is None  # the second stage has not ended
    assert validation([*rows[:2], row(2, "b", b=None)], 2) is None  # nothing could be scored


def test_a_stage_that_ended_with_an_earlier_step_counts_as_of_that_step() -> None:
    rows = [row(1, "a", a=0.1), row(1, "a", step=2, a=0.9), row(1, "a", step=3, a=0.4)]
    assert validation(rows, 1, [{"stage": 1, "model_of": 2}]) == (0.9, 10)
    assert validation(rows, 1, [{"stage": 1, "model_of": 3}]) == validation(rows, 1) == (0.4, 10)


def test_rows_are_sorted_by_kind_and_the_last_of_a_step_counts(tmp_path) -> None:
    at = {"stage": 1, "task": "a", "step": 2}
    rows = [{"kind": "step", **at, "loss": 1.0}, {"kind": "step", **at, "loss": 2.0}, {"kind": "settings", **at}]
    rows += [{"kind": "guard", **at, "guard": name} for name in ("repetition", "truncation")]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"kind": "step", "st')
    logged = read_log(path)
    assert [row["loss"] for row in logged.steps] == [2.0] and logged.steps[0]["global_step"] == 2
    assert [row["guard"] for row in logged.guards] == ["repetition", "truncation"]
    assert logged.evals == logged.endings == [] == read_log(tmp_path / "nowhere").steps
