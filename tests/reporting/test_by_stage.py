"""Metrics after every stage against the oracle table, and intransigence against single-task runs."""

from __future__ import annotations

import json

import pytest
from support.oracle import ORACLE, PRIOR, TASKS, oracle_run

from sdft_cli.commands import report
from sdft_cli.errors import UsageError
from sdft_cli.reporting.by_stage import single_task, stage_metrics
from sdft_cli.runs import results

NAN = None


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> results.RunResult:
    return oracle_run(tmp_path_factory.mktemp("oracle") / "run")


def percent(values) -> list:
    return [None if value is None else pytest.approx(value / 100) for value in values]


def test_the_metrics_are_the_oracles_at_every_stage(run):
    rows = stage_metrics(run, dict(zip(TASKS, (0.72, 0.63, 0.66, 0.79), strict=True)))
    assert [row["task"] for row in rows] == [None, *TASKS]
    expected = {
        "average_accuracy": (NAN, 70, 67, 57 + 1 / 3, 64.5),
        "learning_accuracy": (NAN, 70, 65, 62 + 2 / 3, 67),
        "backward_transfer": (NAN, NAN, 4, -8, -10 / 3),
        "forward_transfer": (NAN, NAN, -2, 2, 16 / 3),
        "forgetting": (NAN, NAN, -4, 13, 20 / 3),
        "prior": (75, 74.5, 70.5, 69, 68.5),
        "prior_change": (NAN, -0.5, -4.5, -6, -6.5),
        "intransigence": (NAN, 2, 3, 8, -1),
    }
    for name, values in expected.items():
        assert [row[name] for row in rows] == percent(values), name
    assert json.loads(json.dumps(rows)) == rows
    assert {row["intransigence"] for row in stage_metrics(run)} == {None}


def test_the_last_stage_has_the_runs_own_metrics(run):
    last = stage_metrics(run)[-1]
    assert {name: last[name] for name in run.metrics} == pytest.approx(run.metrics)


def test_single_task_references(run, tmp_path):
    alone = oracle_run(tmp_path / "alone", ("a",), [[40], [72]], PRIOR[:2])
    assert single_task([alone]) == {"a": 0.72} and single_task([]) == {}
    with pytest.raises(UsageError, match="trained 4 tasks"):
        single_task([run])
    untrained = oracle_run(tmp_path / "untrained", ("a",), [[40]], PRIOR[:1])
    with pytest.raises(UsageError, match="has not been evaluated on a yet") as caught:
        single_task([untrained])
    assert "--resume" in caught.value.hint


def test_a_report_measures_intransigence_against_single_task_runs(run, tmp_path):
    alone = [oracle_run(tmp_path / t, (t,), [[40], [best]], PRIOR[:2]).folder for t, best in (("a", 72), ("b", 63))]
    contents = report.report([run.folder], tmp_path / "out", alone)
    curves = json.loads((tmp_path / "out" / "report.json").read_text())["runs"][0]["curves"]
    assert [row["intransigence"] for row in curves] == [None, pytest.approx(0.02), pytest.approx(0.03), None, None]
    assert curves == json.loads(json.dumps(contents["runs"][0]["curves"])) and len(ORACLE) == len(curves)
