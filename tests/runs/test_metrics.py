"""The metrics log: appended to, rewound, read by kind; and the validation accuracy it holds."""

import json
from pathlib import Path

import pytest

from sdft_cli.errors import UsageError
from sdft_cli.runs.metrics import MetricsLog, validation, validation_loss
from sdft_cli.runs.records import StageId

#: What a row of each kind needs.
NEEDS = {
    "step": {},
    "eval": {"scores": {}, "suite": None},
    "guard": {"guard": "repetition", "level": "warn", "text": "", "hint": ""},
    "settings": {"changed": {"train.lr": [1e-5, 1e-4]}},
}


def row(kind: str, stage: int, step: int, **more: object) -> dict:
    return {"kind": kind, "stage": stage, "task": "ab"[stage - 1], "step": step, **NEEDS[kind], **more}


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


def with_loss(row: dict, task: str, value: float) -> dict:
    row["scores"][task]["loss"] = {"value": value, "tokens": 5, "rows": 2}
    return row


def test_validation_loss_is_each_stages_own_too() -> None:
    rows = [with_loss(evaluation(1, "a", step=k, a=None, b=0.5), "a", x) for k, x in ((1, 3.0), (2, 1.0), (3, 2.0))]
    rows.append(with_loss(evaluation(2, "b", a=None, b=0.9), "b", 0.5))
    assert validation_loss(rows, 2) == (2.0 + 0.5) / 2
    assert validation_loss(rows, 2, [{"stage": 1, "model_of": 2}]) == (1.0 + 0.5) / 2
    assert validation_loss(rows[:3], 2) is None  # the second stage has not ended
    assert validation_loss([*rows[:3], evaluation(2, "b", b=0.9)], 2) is None  # or has no loss


def test_a_stage_that_ended_with_an_earlier_step_counts_as_of_that_step() -> None:
    rows = [evaluation(1, "a", a=0.1), evaluation(1, "a", step=2, a=0.9), evaluation(1, "a", step=3, a=0.4)]
    assert validation(rows, 1, [{"stage": 1, "model_of": 2}]) == (0.9, 10)
    assert validation(rows, 1, [{"stage": 1, "model_of": 3}]) == validation(rows, 1) == (0.4, 10)


def test_rows_are_sorted_by_kind_and_the_last_of_a_step_counts(tmp_path: Path) -> None:
    rows = [row("step", 1, 2, loss=1.0), row("step", 1, 2, loss=2.0), row("settings", 1, 2)]
    rows += [row("guard", 1, 2, guard=name) for name in ("repetition", "truncation")]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"kind": "step", "st')
    logged = MetricsLog(path).read()
    assert [row["loss"] for row in logged.steps] == [2.0] and logged.steps[0]["global_step"] == 2
    assert [row["guard"] for row in logged.guards] == ["repetition", "truncation"]
    assert logged.evals == logged.endings == [] == MetricsLog(tmp_path / "nowhere").read().steps


BROKEN = {
    "no JSON": ("{", "2: not valid JSON: EOF"),
    "cut off": ('{"kind": "step", "st', "2: not valid JSON: EOF"),
    "a number": ("17", "2: Input should be an object (got 17)"),
    "another kind": ('{"kind": "stap", "stage": 1}', "2: task: Field required"),
    "no kind": ('{"stage": 1, "task": "a", "step": 3}', "2: Unable to extract tag using discriminator 'kind'"),
    "a missing key": ('{"kind": "step", "stage": 1, "step": 3}', "2: step.task: Field required"),
    "a wrong type": (
        '{"kind": "step", "stage": "1", "task": "a", "step": 3}',
        "2: step.stage: Input should be a valid",
    ),
    "a share above 1": (
        json.dumps(row("eval", 1, 3, suite={"accuracy": 7.0, "n": 3})),
        "2: eval.suite.accuracy: Input",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line_is_named_unless_a_kill_cut_off_the_last_one(name: str, tmp_path: Path) -> None:
    text, says = BROKEN[name]
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append(row("step", 1, 1))
    with log.path.open("a") as f:
        f.write(text)
    assert len(log.read().steps) == 1  # no line end: a kill came while it was written
    with log.path.open("a") as f:
        f.write("\n")
    for read in (log.read, lambda: log.rewind(StageId(1, "a"), 9)):
        with pytest.raises(UsageError) as caught:
            read()
        assert f"metrics.jsonl:{says}" in caught.value.message and "\n" not in caught.value.message


def test_a_row_of_a_later_versions_kind_is_kept_and_not_read(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.path.write_text('{"kind": "temperature", "stage": 1, "task": "a", "step": 1, "celsius": 70}\n')
    log.append(row("step", 1, 1))
    before = log.path.read_text()
    log.rewind(StageId(1, "a"), 1)
    assert log.path.read_text() == before and len(log.read().steps) == 1


def test_a_row_that_is_not_finite_is_read(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append(row("step", 1, 1, loss=float("nan"), grad_norm=float("inf"), added_later=[1]))
    [step] = log.read().steps
    assert step["loss"] != step["loss"] and step["grad_norm"] == float("inf") and step["added_later"] == [1]
