"""A task that nothing scores: the metrics are those of the other tasks, and say so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.run_folder import FORGETS, KEEPS, TASKS, add_losses, make_run, unscore, write_json

from sdft_cli.runs import results
from sdft_cli.runs.result_notes import change_note
from sdft_cli.stats import continual
from sdft_cli.stats.intervals import of_scores

A, B, C = TASKS


def test_metrics_are_over_the_scored_tasks_as_if_there_were_no_other(tmp_path: Path) -> None:
    whole = results.load_run(make_run(tmp_path / "whole", rates=FORGETS))
    folder = make_run(tmp_path / "run", rates=FORGETS)
    unscore(folder, B)
    run = results.load_run(folder)
    R = whole.matrix
    assert run.metrics["average_accuracy"] == pytest.approx((R[3][0] + R[3][2]) / 2)
    assert run.metrics["learning_accuracy"] == pytest.approx((R[1][0] + R[3][2]) / 2)
    assert run.metrics["backward_transfer"] == pytest.approx(R[3][0] - R[1][0])
    assert run.metrics["forward_transfer"] == pytest.approx(R[2][2] - R[0][2])
    assert run.metrics["forgetting"] == pytest.approx(max(R[1][0], R[2][0]) - R[3][0])
    assert run.metrics["prior_change"] == whole.metrics["prior_change"]
    assert all(low <= run.metrics[name] <= high for name, (low, high) in run.metric_intervals.items())
    assert run.trained == [0, 1, 2] and run.counted == [0, None, 2] and run.counted_tasks == [A, C]
    assert run.unscored == {B: "no judge was asked"} and [row[1] for row in run.matrix] == [None] * 4
    assert run.notes == [f"{B} is not scored: no judge was asked; metrics are over 2 of 3 tasks ({A}, {C})"]


def test_the_last_task_may_be_the_one_that_is_not_scored(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    R = results.load_run(folder).matrix
    unscore(folder, C)
    run = results.load_run(folder)
    assert run.metrics["average_accuracy"] == pytest.approx((R[3][0] + R[3][1]) / 2)
    assert run.metrics["backward_transfer"] == pytest.approx((R[3][0] - R[1][0] + R[3][1] - R[2][1]) / 2)


def test_without_any_scored_task_there_is_no_metric(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", suite=False)
    for task in TASKS:
        unscore(folder, task)
    run = results.load_run(folder)
    assert set(run.metrics.values()) == {None} and set(run.metric_intervals.values()) == {None}
    assert run.counted_tasks == [] and run.notes[0].endswith("; no metric can be given")


def test_a_task_that_was_scored_at_some_stages_stays_in_the_means_which_are_then_missing(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    unscore(folder, B, [0, 2], why="the judge was away")
    run = results.load_run(folder)
    assert run.unscored == {} and run.counted == [0, 1, 2]
    assert run.metrics["backward_transfer"] is None and run.metrics["learning_accuracy"] is None
    assert run.metrics["average_accuracy"] == pytest.approx(np.mean(run.matrix[3]))
    said = "was not scored before training, after stage 2 (the judge was away): metrics that need it there"
    assert run.notes == [f"{B} {said} are not given"]


def test_a_remark_that_changes_names_its_stages(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    for number, path in enumerate(sorted((folder / "evals").glob("*/scores.json"))):
        scores = json.loads(path.read_text())
        scores["tasks"][A]["note"] = "judged by j; 2 answers are not judged yet" if number == 1 else "judged by j"
        write_json(path, scores)
    remarks = results.load_run(folder).remarks
    assert f"{A} after stage 1: judged by j; 2 answers are not judged yet" in remarks
    assert f"{A} before training and after stage 2 and after stage 3: judged by j" in remarks


def test_an_address_in_a_change_stays_whole() -> None:
    row = {"stage": 1, "task": A, "step": 2, "changed": {"judge.base_url": [None, "http://host:8000/v1"]}}
    assert change_note(row).endswith("judge.base_url none, then http://host:8000/v1")
    row["changed"] = {"data": ["/home/me/data", "/mnt/data"]}
    assert change_note(row).endswith("data …/data, then …/data")


def test_without_item_files_the_summaries_tell(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    unscore(folder, B)
    for path in folder.glob("evals/*/*.jsonl"):
        path.unlink()
    run = results.load_run(folder)
    assert run.counted_tasks == [A, C] and run.unscored == {B: "no item of it was scored"}


def test_means_of_trained_tasks_that_are_left_out_by_hand() -> None:
    """The same numbers as of a matrix that never had the column."""
    rng = np.random.default_rng(0)
    R = rng.random((5, 4)).tolist()
    without = [[row[0], row[2], row[3]] for row in R]
    some = continual.summary(R, [0, None, 2, 3])
    assert some["average_accuracy"] == pytest.approx(np.mean(without[4]))
    assert some["learning_accuracy"] == pytest.approx(np.mean([R[1][0], R[3][2], R[4][3]]))
    assert some["backward_transfer"] == pytest.approx(np.mean([R[4][0] - R[1][0], R[4][2] - R[3][2]]))
    assert some["forward_transfer"] == pytest.approx(np.mean([R[2][2] - R[0][2], R[3][3] - R[0][3]]))
    assert continual.intransigence(R, [0, None, 2, 3], [1.0] * 4)[1] is None


def test_graded_scores_have_their_own_interval(tmp_path: Path) -> None:
    folder, rng = make_run(tmp_path / "run"), np.random.default_rng(0)
    for path in folder.glob(f"evals/*/{A}.jsonl"):
        rows = [json.loads(line) | {"value": round(rng.beta(8, 2), 3)} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run, untouched = results.load_run(folder), results.load_run(make_run(tmp_path / "other"))
    values = [row["value"] for row in run.items(2, A)]
    assert run.intervals[2][0] == of_scores(values) and run.matrix[2][0] == pytest.approx(np.mean(values))
    assert [row[1:] for row in run.intervals] == [row[1:] for row in untouched.intervals]  # right and wrong: Wilson's


def test_losses_are_a_column_of_their_own(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", rates=KEEPS)
    before = results.load_run(folder)
    add_losses(folder, B, [2.5, 2.0, 0.5, 0.75])
    run = results.load_run(folder)
    assert [cell["value"] for cell in run.losses[B]] == [2.5, 2.0, 0.5, 0.75] and list(run.losses) == [B]
    assert (run.metrics, run.matrix, run.notes) == (before.metrics, before.matrix, [])
    path = next(folder.glob("evals/02-*/scores.json"))
    scores = json.loads(path.read_text())
    scores["tasks"][B]["loss"]["rows"] = 19
    write_json(path, scores)
    assert "losses cannot be compared" in results.load_run(folder).notes[0]


def test_a_part_without_accuracy_is_left_out_of_the_prior_suites_mean(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    for path in folder.glob("evals/*/scores.json"):  # a perplexity, as the harness reports it
        scores = json.loads(path.read_text())
        scores["suite"]["parts"]["recall"] |= {"accuracy": None, "metric": "word_perplexity", "interval": None}
        write_json(path, scores)
    run = results.load_run(folder)
    others = [run.parts[part].cells for part in ("repeat", "reverse")]
    assert run.prior == pytest.approx([(a + b) / 2 for a, b in zip(*others, strict=True)])
    assert run.metrics["prior_change"] == pytest.approx(run.prior[3] - run.prior[0])
    assert run.metric_intervals["prior_change"] is not None and run.prior_intervals[3] is not None
    assert run.notes == ["the prior suite's mean is over 2 of 3 parts: recall has no accuracy"]
