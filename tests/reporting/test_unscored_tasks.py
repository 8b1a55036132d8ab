"""A task that nothing scores, and losses, in every form of a report."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from support.run_folder import FORGETS, TASKS, add_losses, make_run, unscore

from sdft_cli.commands.report import gather, report, show
from sdft_cli.errors import UsageError
from sdft_cli.reporting import curves, export, results_json, scatter
from sdft_cli.reporting.by_stage import single_task, stage_metrics
from sdft_cli.reporting.groups import groups_of
from sdft_cli.reporting.sections import sections
from sdft_cli.runs import results

A, B, C = TASKS
WHY = "an open answer needs a judge"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run whose second task is open; it and the first have losses."""
    run = make_run(tmp_path / "open")
    unscore(run, B, why=WHY)
    for task in (A, B):
        add_losses(run, task, [2.5, 2.0, 0.5, 0.75])
    return run


def gathered(*folders: Path) -> dict:
    return json.loads(json.dumps(gather(groups_of([results.load_run(folder) for folder in folders]))))


def test_numbers_carry_which_tasks_they_are_over(folder: Path) -> None:
    contents, run = gathered(folder), results.load_run(folder)
    [of_run] = contents["runs"]
    assert of_run["metrics_over"] == [A, C] and of_run["unscored"] == {B: WHY}
    assert "average accuracy over 2 of 3 tasks" in contents["summary"][1]
    assert f"loss of {B} 0.750 nats per token (2.500 before training)" in contents["summary"][1]
    assert f"(40 items per task; {B} is not scored)" in contents["summary"][0]
    assert any(f"{B} is not scored: {WHY}; metrics are over 2 of 3 tasks" in line for line in contents["warnings"])
    assert f"over 2 of 3 tasks; not scored: {B}." in sections(contents)["results"].tables[0].note
    assert stage_metrics(run)[3]["average_accuracy"] == pytest.approx((run.matrix[3][0] + run.matrix[3][2]) / 2)
    assert stage_metrics(run)[2]["average_accuracy"] == run.matrix[2][0]
    row = next(csv.DictReader(io.StringIO(export.runs_csv(contents))))
    assert row["metrics_over"] == f"{A}, {C}" and float(row["average_accuracy"]) == run.metrics["average_accuracy"]


def test_the_matrix_shows_the_column_as_empty_and_the_losses_beside_it(folder: Path) -> None:
    contents = gathered(folder)
    by_name = sections(contents)
    matrix, losses = by_name["matrix"].tables[0], by_name["loss"].tables[0]
    assert matrix.heads[2] == f"{B}\nnot scored" and {row[2].text for row in matrix.rows} == {"-"}
    assert WHY in matrix.note
    assert losses.heads == ["after stage", A, B] and not losses.folded
    assert [row[2].text for row in losses.rows] == ["2.500", "2.000", "0.500", "0.750"]
    assert losses.rows[2][2].mark and losses.rows[2][2].interval == [0.4, 0.6]
    assert f"{B}: demonstrations of 20 test rows" in losses.note
    rows = list(csv.DictReader(io.StringIO(export.loss_csv(contents))))
    assert [(r["stage"], r["of"], r["loss"]) for r in rows[-2:]] == [("3", A, "0.75"), ("3", B, "0.75")]


def test_every_file_of_a_report_has_the_losses(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    show(report([folder], out))
    printed = capsys.readouterr().out
    assert "not scored" in printed and "loss in nats per token" in printed
    assert {"loss.csv", "loss.png", "loss.svg"} <= {path.name for path in out.iterdir()}
    for name in ("report.html", "report.md", "tables.tex"):
        assert "loss in nats per token" in (out / name).read_text(), name


def test_a_run_without_losses_has_no_such_section(tmp_path: Path) -> None:
    contents = report([make_run(tmp_path / "plain")], tmp_path / "report")
    assert "loss" not in sections(contents) and "loss.csv" not in contents["files"]


def test_losses_beside_accuracies_are_folded_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    add_losses(run, A, [2.5, 2.0, 0.5, 0.75])
    contents = report([run], tmp_path / "report")
    assert sections(contents)["loss"].tables[0].folded and not contents["warnings"]
    show(contents)
    assert "nats" not in capsys.readouterr().out


def test_means_over_different_tasks_are_not_compared_without_a_word(folder: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", "sft", FORGETS)
    contents = gathered(folder, other)
    assert any("metrics are over different tasks" in line for line in contents["warnings"])
    assert contents["difference"] is None and not any("intervals of" in line for line in contents["summary"])
    seeds = [make_run(tmp_path / f"seed{k}", seed=k) for k in (1, 2)]
    assert [len(group.runs) for group in groups_of([results.load_run(run) for run in (folder, *seeds)])] == [1, 2]
    groups = groups_of([results.load_run(run) for run in (*seeds, make_run(tmp_path / "sft1", "sft", seed=1))])
    assert len(groups) == 2


def test_mean_losses_over_seeds(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / f"seed{k}", seed=k) for k in (1, 2)]
    for k, run in enumerate(folders):
        add_losses(run, B, [2.5, 2.0, 0.5 + 0.2 * k, 0.75])
    [group] = gathered(*folders)["groups"]
    cells = [row["cells"][0] for row in group["losses"]["rows"]]
    assert [cell["value"] for cell in cells] == pytest.approx([2.5, 2.0, 0.6, 0.75]) and cells[0]["interval"] is None
    add_losses(folders[1], C, [1.0] * 4)
    assert gathered(*folders)["groups"][0]["losses"]["heads"] == []


def test_figures_of_a_run_in_which_nothing_is_scored(folder: Path) -> None:
    unscore(folder, A)
    unscore(folder, C)
    run = results.load_run(folder)
    groups = groups_of([run])
    assert [axis.get_title("left") for axis in curves.accuracy_curves(groups).axes] == ["prior suite: micro"]
    assert [axis.get_title("left") for axis in curves.loss_curves(groups).axes] == [A, B]
    assert not scatter.has_end(run)  # nothing to draw new accuracy against prior
    report([folder], folder / "report")


def test_results_json_has_losses_where_there_are_any(folder: Path) -> None:
    record = results_json.run_results(results.load_run(folder))
    assert record["losses"] == {task: [2.5, 2.0, 0.5, 0.75] for task in (A, B)} and record["metrics_over"] == [A, C]


def test_an_unscored_run_is_no_reference_for_intransigence(tmp_path: Path) -> None:
    rates = ([[0.1], [0.9]], [0.9, 0.9])
    alone = make_run(tmp_path / "alone", rates=rates, stages=(B,))
    unscore(alone, B)
    with pytest.raises(UsageError, match="is not scored: no judge was asked"):
        single_task([results.load_run(alone)])
