"""Reading run folders: what is read, what is recomputed, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.run_folder import KEEPS, TASKS, make_run, write_json

from sdft_cli.errors import UsageError
from sdft_cli.runs import results
from sdft_cli.runs.format_version import write_format
from sdft_cli.stats import continual


@pytest.fixture
def folder(tmp_path):
    return make_run(tmp_path / "first", "sdft", KEEPS)


def scores(folder, stage):
    return json.loads(next(folder.glob(f"evals/{stage:02d}-*/scores.json")).read_text())


def rewrite(path, change):
    """Rewrite an item file row by row."""
    rows = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row))


def test_a_finished_run(folder):
    run = results.load_run(folder)
    assert (run.name, run.method, run.tasks, run.stages) == ("first", "sdft", list(TASKS), list(TASKS))
    assert run.finished and run.notes == [] and run.trained == [0, 1, 2] and run.suite == "micro"
    for k in range(4):
        stored = scores(folder, k)
        assert run.matrix[k] == [stored["tasks"][t]["accuracy"] for t in TASKS]
        assert [list(pair) for pair in run.intervals[k]] == [stored["tasks"][t]["interval"] for t in TASKS]
        assert run.prior[k] == pytest.approx(stored["suite"]["accuracy"])
        assert run.prior_intervals[k] == pytest.approx(stored["suite"]["interval"])
    parts = [[column.cells[k] for column in run.parts.values()] for k in range(4)]
    assert run.metrics == continual.summary(run.matrix, [0, 1, 2], parts)
    assert run.metrics["prior_change"] == pytest.approx(run.prior[3] - run.prior[0])
    for name, (low, high) in run.metric_intervals.items():
        assert low <= run.metrics[name] <= high, name
    assert run.seconds == pytest.approx(30 * 0.4 + 4 * 2.0)
    assert run.boundaries() == [100, 200, 300]


def test_items_are_read_on_demand(folder):
    run = results.load_run(folder)
    items = run.items(3, TASKS[0])
    assert len(items) == 40 and np.mean([row["value"] for row in items]) == pytest.approx(run.matrix[3][0])
    assert {row["part"] for row in run.items(0, None)} == set(run.parts)
    assert run.items(9, TASKS[0]) == [] and run.items(3, "other") == []


def test_a_torn_metrics_line_is_ignored_and_later_lines_win(folder):
    path = folder / "metrics.jsonl"
    again = {"kind": "step", "stage": 1, "task": TASKS[0], "step": 50, "global_step": 50, "loss": 9.0, "kl": None}
    path.write_text(path.read_text() + json.dumps(again) + '\n{"kind": "step", "stage": 3, "st')
    run = results.load_run(folder)
    assert len(run.steps) == 30 and [(r["stage"], r["step"]) for r in run.steps] == sorted(
        (r["stage"], r["step"]) for r in run.steps
    )
    assert next(r for r in run.steps if (r["stage"], r["step"]) == (1, 50))["loss"] == 9.0


def test_an_unfinished_run_is_reported_as_far_as_it_goes(tmp_path):
    run = results.load_run(make_run(tmp_path / "part", evaluated=2))
    assert not run.finished and run.last == 2 and run.stages == list(TASKS) and run.trained == [0, 1]
    assert run.notes == ["unfinished: only 2 of 3 stages have been evaluated"]
    assert run.metrics["average_accuracy"] == pytest.approx((run.matrix[2][0] + run.matrix[2][1]) / 2)
    assert run.boundaries() == [100, 200, 300]  # stage 3 has begun
    base = results.load_run(make_run(tmp_path / "base", evaluated=0))
    assert set(base.metrics.values()) == {None} and set(base.metric_intervals.values()) == {None}


def test_an_evaluation_without_scores_does_not_count(folder):
    next(folder.glob("evals/03-*/scores.json")).unlink()
    assert results.load_run(folder).last == 2


def test_a_stage_that_was_not_evaluated_leaves_a_row_of_none(folder):
    next(folder.glob("evals/02-*/scores.json")).unlink()
    run = results.load_run(folder)
    assert run.matrix[2] == [None] * 3 and run.counts[2] == [0] * 3 and run.prior[2] is None
    assert run.finished and run.notes == ["stage 2 was not evaluated"]
    assert run.metrics["average_accuracy"] is not None and run.metrics["backward_transfer"] is None


def test_a_task_trained_twice_has_one_column(tmp_path):
    a, b = "micro-tooluse", "micro-science"
    rates = ([[0.1, 0.1], [0.9, 0.1], [0.4, 0.9], [0.95, 0.6]], [0.9, 0.9, 0.9, 0.9])
    run = results.load_run(make_run(tmp_path / "twice", rates=rates, stages=(a, b, a)))
    assert run.tasks == [a, b] and run.stages == [a, b, a] and run.trained == [0, 1, 0]
    assert run.reference(a) == 3 and run.reference(b) == 2
    assert run.metrics["backward_transfer"] == pytest.approx(run.matrix[3][1] - run.matrix[2][1])


def test_unscored_items_are_left_out_at_every_stage(folder):
    path = next(folder.glob(f"evals/02-*/{TASKS[1]}.jsonl"))
    dropped = {f"{TASKS[1]}-{i:03d}" for i in (0, 39)}
    rewrite(path, lambda row: {**row, "value": None} if row["id"] in dropped else row)
    run = results.load_run(folder)
    assert [row[1] for row in run.counts] == [38] * 4 and run.task_n(TASKS[1]) == 38
    for k in range(4):
        kept = [row["value"] for row in run.items(k, TASKS[1]) if row["id"] not in dropped]
        assert run.matrix[k][1] == pytest.approx(np.mean(kept))
    assert run.notes == [f"{TASKS[1]}: 2 items are left out because some stage did not score them"]


def test_stages_with_other_items_compare_on_the_shared_ones(folder):
    rewrite(next(folder.glob(f"evals/03-*/{TASKS[0]}.jsonl")), lambda row: row if int(row["id"][-3:]) < 25 else None)
    run = results.load_run(folder)
    assert [row[0] for row in run.counts] == [25] * 4 and "15 items" in run.notes[0]


def test_without_item_files_the_recorded_numbers_are_used(folder):
    before = results.load_run(folder)
    for path in folder.glob("evals/*/*.jsonl"):
        path.unlink()
    run = results.load_run(folder)
    assert run.matrix == before.matrix and run.metrics == pytest.approx(before.metrics)
    assert set(run.metric_intervals.values()) == {None} and run.intervals == before.intervals


def test_a_skill_whose_metric_is_not_a_mean_over_items_counts_without_an_interval(folder):
    for path in folder.glob("evals/*/scores.json"):
        stored = json.loads(path.read_text())
        stored["suite"]["parts"]["recall"] |= {"accuracy": 0.4, "correct": 0, "n": 0, "unscored": 20, "interval": None}
        write_json(path, stored)
        rewrite(
            path.parent / "suite-micro.jsonl", lambda row: {**row, "value": None} if row["part"] == "recall" else row
        )
    run = results.load_run(folder)
    others = [run.parts[part].cells[3] for part in ("repeat", "reverse")]
    assert run.prior[3] == pytest.approx((sum(others) + 0.4) / 3) and run.prior_intervals[3] is None
    assert run.metric_intervals["prior_change"] is None and run.parts["recall"].cells == [0.4] * 4


def test_a_run_without_a_suite(tmp_path):
    run = results.load_run(make_run(tmp_path / "bare", suite=False))
    assert run.suite is None and run.prior is None and run.prior_intervals is None
    assert run.metrics["prior_change"] is None and run.metrics["backward_transfer"] is not None


def test_a_task_that_was_added_later_was_not_evaluated_before(folder):
    """`--continue` adds a column, which the early rows may lack."""
    for stage in (0, 1):
        path = next(folder.glob(f"evals/{stage:02d}-*/scores.json"))
        stored = json.loads(path.read_text())
        del stored["tasks"][TASKS[2]]
        path.write_text(json.dumps(stored))
    run = results.load_run(folder)
    assert [row[2] is None for row in run.matrix] == [True, True, False, False]
    assert run.metrics["forward_transfer"] is None and run.metrics["average_accuracy"] is not None
    assert run.metric_intervals["forward_transfer"] is None and run.metric_intervals["average_accuracy"] is not None


def test_notes_of_the_evaluation_are_kept(folder):
    path = next(folder.glob("evals/01-*/scores.json"))
    stored = json.loads(path.read_text())
    for task in TASKS[1:]:
        stored["tasks"][task]["note"] = "scored by whole words"
    path.write_text(json.dumps(stored))
    run = results.load_run(folder)
    assert run.remarks == [f"{TASKS[1]}, {TASKS[2]}: scored by whole words"] and run.notes == []


def test_a_folder_that_is_not_a_run_is_refused_with_a_hint(tmp_path):
    with pytest.raises(UsageError, match="does not exist") as caught:
        results.load_run(tmp_path / "nowhere")
    assert caught.value.hint
    with pytest.raises(UsageError, match="not a run folder"):
        results.load_run(tmp_path)
    write_json(tmp_path / "recipe.json", {"tasks": ["a"]})
    write_format(tmp_path)
    with pytest.raises(UsageError, match="no evaluation yet") as caught:
        results.load_run(tmp_path)
    assert "--resume" in caught.value.hint


@pytest.mark.parametrize("name", ["recipe.json", "environment.json", "evals/01-micro-tooluse/scores.json"])
def test_broken_files_are_named(folder, name):
    (folder / name).write_text('{"half": ')
    with pytest.raises(UsageError, match=name.split("/")[-1]):
        results.load_run(folder)


def test_a_broken_item_line_is_named(folder):
    path = folder / "evals" / "01-micro-tooluse" / f"{TASKS[0]}.jsonl"
    path.write_text(path.read_text() + "{")
    with pytest.raises(UsageError, match=rf"{TASKS[0]}.jsonl:41"):
        results.load_run(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda row: {**row, "value": 1.5}, ":1: value: Input should be less than or equal to 1 (got 1.5)"),
        (lambda row: {**row, "value": "1"}, ":1: value: Input should be a valid number"),
        (lambda row: {**row, "value": True}, ":1: value: Input should be a valid number"),
        (lambda row: {**row, "id": 7}, ":1: id: Input should be a valid string"),
        (lambda row: {**row, "id": "same"}, ":2: item 'same' is also on line 1"),
        (lambda row: {k: v for k, v in row.items() if k != "value"}, ":1: value: Field required"),
    ],
)
def test_items_that_cannot_be_right_are_named(change, says: str, folder) -> None:
    path = next(folder.glob(f"evals/02-*/{TASKS[1]}.jsonl"))
    rewrite(path, change)
    with pytest.raises(UsageError) as caught:
        results.load_run(folder)
    assert f"{path}{says}" in caught.value.message
    assert f"delete {path.parent}: `sdft train --resume --out {folder}` measures" in caught.value.hint


def test_a_file_that_has_lost_items_is_noted(folder) -> None:
    path = next(folder.glob(f"evals/02-*/{TASKS[1]}.jsonl"))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:30]))
    notes = results.load_run(folder).notes
    assert f"stage 2, {TASKS[1]}: 40 items were scored, and 30 are there" in notes


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (("tasks", TASKS[0], "accuracy"), 40.0, f"tasks.{TASKS[0]}.accuracy: Input should be less than or equal to 1"),
        (("tasks", TASKS[0], "interval"), [0.1], f"tasks.{TASKS[0]}.interval: List should have at least 2 items"),
        (("tasks",), [], "tasks: Input should be an object (got [])"),
        (("suite", "parts", "recall", "n"), -1, "suite.parts.recall.n: Input should be greater than or equal to 0"),
        (("suite",), "micro", "suite: Input should be an object (got 'micro')"),
        (("settings", TASKS[0]), 3, f"settings.{TASKS[0]}: Input should be an object (got 3)"),
        (("seconds",), float("nan"), "seconds: Input should be a finite number (got nan)"),
    ],
)
def test_scores_that_cannot_be_right_are_named(keys, value, says: str, folder) -> None:
    path = next(folder.glob("evals/01-*/scores.json"))
    stored = json.loads(path.read_text())
    *above, last = keys
    table = stored
    for key in above:
        table = table[key]
    table[last] = value
    write_json(path, stored)
    with pytest.raises(UsageError) as caught:
        results.load_run(folder)
    assert caught.value.message.startswith(f"{path}: {says}") and str(path.parent) in caught.value.hint


def test_a_folder_of_a_stage_that_cannot_be_is_one_line(folder) -> None:
    odd = folder / "evals" / f"{'9' * 200}-up"
    odd.mkdir()
    (odd / "scores.json").write_bytes(next(folder.glob("evals/01-*/scores.json")).read_bytes())
    with pytest.raises(UsageError, match="the task of stage 4 is unknown"):
        results.load_run(folder)
    odd.rename(folder / "evals" / "1-again")
    with pytest.raises(UsageError, match="are both evaluations of stage 1"):
        results.load_run(folder)
