"""Cut and exact completions beside every table of accuracies, under one rule of when silence means "none"."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from sdft_cli.commands.compare import compare, compare_seeds, show, show_seeds
from sdft_cli.reporting import export, report_json
from sdft_cli.reporting.completeness_tables import ALL_ENDED, NONE_CUT, UNKNOWN
from sdft_cli.reporting.groups import Group
from sdft_cli.reporting.results_json import run_results
from sdft_cli.reporting.sections import sections
from sdft_cli.runs.results import RunResult, load_run
from tests.support.run_folder import make_run

TASKS = ("micro-tooluse", "micro-science")
RATES = ([[0.1, 0.3], [0.9, 0.3], [0.8, 0.9]], [0.9, 0.9, 0.9])


def run(folder: Path, cut: list[list[float]] | None, exact: list[list[float | None]] | None, **more: Any) -> RunResult:
    """A run of two stages whose evaluations recorded these shares, by stage and task."""
    make_run(folder, stages=TASKS, rates=RATES, **more)
    for k, file in enumerate(sorted(folder.glob("evals/*/scores.json"))):
        scores = json.loads(file.read_text())
        for j, task in enumerate(TASKS):
            summary = scores["tasks"][task]
            summary |= {"cut": cut[k][j]} if cut else {}
            summary |= {"exact": exact[k][j] if exact[k][j] is not None else summary["accuracy"]} if exact else {}
        if cut:
            scores["suite"]["cut"] = 0.0
        file.write_text(json.dumps(scores))
    return load_run(folder)


def report(*runs: RunResult) -> report_json.ReportData:
    return report_json.gather([Group(each.name, (each,)) for each in runs])


NONE: list[list[Any]] = [[0.0, 0.0]] * 3
RIGHT: list[list[Any]] = [[None, None]] * 3
CUT: list[list[Any]] = [[0.8, 0.25], [0.0, 0.5], [0.0, 0.0]]
EXACT: list[list[Any]] = [[0.0, 0.0], [0.5, 0.0], [0.75, 0.125]]


@pytest.mark.parametrize(
    ("cut", "exact", "note"), [(NONE, RIGHT, ALL_ENDED), (NONE, None, NONE_CUT), (None, None, UNKNOWN)]
)
def test_a_table_without_one_of_completions_says_what_that_means(
    tmp_path: Path, cut: list[list[float]] | None, exact: list[list[float | None]] | None, note: str
) -> None:
    data = report(run(tmp_path / "run", cut, exact))
    (matrix,) = sections(data)["matrix"].tables
    assert matrix.note.endswith(note)
    (results,) = sections(data)["results"].tables
    assert "completions" not in results.note


def test_what_was_cut_or_is_not_exact_follows_the_accuracies(tmp_path: Path) -> None:
    data = report(run(tmp_path / "run", CUT, EXACT))
    matrix, completions = sections(data)["matrix"].tables
    assert not any(note in matrix.note for note in (ALL_ENDED, NONE_CUT, UNKNOWN))
    assert list(completions.heads[1:3]) == [f"{task}\ncut / exact" for task in TASKS]
    shown = [[cell.text for cell in row[1:3]] for row in completions.rows]
    assert shown[0] == ["0.800 / 0.000", "0.250 / 0.000"]
    assert shown[2] == ["0.000 / 0.750", "0.000 / 0.125"]
    (results,) = sections(data)["results"].tables
    assert "after the last stage, mean over tasks: run exact 0.438." in results.note  # (0.75 + 0.125) / 2
    text = export.markdown_section(sections(data)["matrix"])
    assert "0.800 / 0.000" in text


def test_files_for_programs_have_both(tmp_path: Path) -> None:
    loaded = run(tmp_path / "run", CUT, EXACT)
    rows = list(csv.DictReader(io.StringIO(export.accuracy_csv(report(loaded)))))
    of_tasks = [(float(row["cut"]), float(row["exact"])) for row in rows if row["of"] in TASKS]
    assert of_tasks == [pair for cut, exact in zip(CUT, EXACT, strict=True) for pair in zip(cut, exact, strict=True)]
    assert {row["exact"] for row in rows if row["of"] not in TASKS} == {""}
    results = run_results(loaded)
    assert (results["cut"], results["exact"]) == (CUT, EXACT)
    measured = {(m["task"], m["name"]): m for m in report(loaded)["runs"][0]["measures"]}
    assert measured[TASKS[0], "exact"]["end"] == {"value": 0.75, "interval": None}
    old = run(tmp_path / "old", None, None)
    assert run_results(old)["cut"] == [[None, None]] * 3


def test_means_over_seeds_have_their_own(tmp_path: Path) -> None:
    runs = tuple(
        run(tmp_path / str(seed), CUT, [[e] * 2 for e in (0.0, 0.2 * seed, 0.4)], seed=seed) for seed in (1, 2)
    )
    data = report_json.gather([Group("sdft", runs)])
    mean = sections(data)["matrix"].tables[1]
    assert mean.title == "sdft, mean of 2 seeds: completions"
    assert [row[1].text for row in mean.rows] == ["0.800 / 0.000", "0.000 / 0.300", "0.000 / 0.400"]


def test_two_checkpoints_are_compared_with_what_they_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder, finish, exact in zip(folders, ("length", "stop"), (False, True), strict=True):
        make_run(folder, stages=TASKS, rates=RATES)
        for file in folder.glob("evals/02-*/micro-tooluse.jsonl"):
            items = [{**json.loads(line), "finish": finish, "exact": exact} for line in file.read_text().splitlines()]
            file.write_text("".join(json.dumps(item) + "\n" for item in items))
    compared = compare(str(folders[0]), str(folders[1]))
    unit = {row["unit"]: row for row in compared["units"] if row["part"] is None}
    assert (unit[TASKS[0]]["cut"], unit[TASKS[0]]["exact"]) == ((1.0, 0.0), (0.0, 1.0))
    assert unit[TASKS[1]]["cut"] == (None, None)
    show(compared)
    out = capsys.readouterr().out
    assert "cut (at the limit of new tokens): micro-tooluse 1.000 in A, 0.000 in B" in out
    assert "exact (the answer and nothing else): micro-tooluse 0.000 in A, 1.000 in B" in out


def test_groups_of_seeds_are_compared_with_what_they_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method, cut in (("sdft", CUT), ("sft", NONE)):
        for seed in (1, 2):
            ends = [*cut[:2], [0.5, 0.0] if method == "sdft" else [0.0, 0.0]]
            run(tmp_path / f"{method}{seed}", ends, RIGHT, method=method, seed=seed)
    compared = compare_seeds(sorted(tmp_path.iterdir()), "method")
    assert [(g["name"], g["cut"]) for g in compared["groups"]] == [("sdft", 0.25), ("sft", 0.0)]
    show_seeds(compared)
    out = capsys.readouterr().out
    assert "cut: sdft 0.250, sft 0.000 of the completions after the last stage" in out
    assert "exact:" not in out  # each is the accuracy
