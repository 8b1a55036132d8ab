"""What runs say on disk, against the oracle table: curves over stages, Figure 3's shares, single-task references."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from support.oracle import ORACLE, PRIOR
from support.run_folder import cell, write_items, write_json

from sdft_cli.commands import report
from sdft_cli.errors import UsageError
from sdft_cli.reporting import comparisons
from sdft_cli.runs import results
from sdft_cli.stats import continual

TASKS, PARTS = ("a", "b", "c", "d"), ("p", "q")
NAN = None


def oracle_run(folder: Path, stages=TASKS, matrix=ORACLE, prior=PRIOR) -> results.RunResult:
    """A run whose items make the table: of 100 items the first so many are right."""
    write_json(folder / "recipe.json", {"tasks": list(stages), "method": "sdft", "suite": "micro", "seed": 0})
    for k, row in enumerate(matrix):
        where = folder / "evals" / f"{k:02d}-{stages[k - 1] if k else 'base'}"
        tasks = {
            t: write_items(where / f"{t}.jsonl", rows(t, n)) for t, n in zip(dict.fromkeys(stages), row, strict=True)
        }
        suite = [{**r, "part": p} for p, n in zip(PARTS, prior[k], strict=True) for r in rows(p, n)]
        write_items(where / "suite-micro.jsonl", suite)
        parts = {p: cell([r for r in suite if r["part"] == p]) for p in PARTS}
        mean = sum(c["accuracy"] for c in parts.values()) / 2
        scores = {"stage": k, "task": stages[k - 1] if k else "base", "tasks": tasks}
        write_json(where / "scores.json", {**scores, "suite": {"name": "micro", "accuracy": mean, "parts": parts}})
    return results.load_run(folder)


def rows(name: str, right: int) -> list[dict]:
    return [{"id": f"{name}-{i}", "value": float(i < right), "tokens": 1} for i in range(100)]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> results.RunResult:
    return oracle_run(tmp_path_factory.mktemp("oracle") / "run")


def percent(values) -> list:
    return [None if value is None else pytest.approx(value / 100) for value in values]


def test_the_curves_are_the_oracle_at_every_stage(run):
    curves = comparisons.curves(run, dict(zip(TASKS, (0.72, 0.63, 0.66, 0.79), strict=True)))
    assert [row["task"] for row in curves] == [None, *TASKS]
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
        assert [row[name] for row in curves] == percent(values), name
    assert json.loads(json.dumps(curves)) == curves
    assert {row["intransigence"] for row in comparisons.curves(run)} == {None}


def test_curves_end_with_the_runs_own_metrics(run):
    last = comparisons.curves(run)[-1]
    assert {name: last[name] for name in run.metrics} == pytest.approx(run.metrics)


def test_normalised_shares_are_of_the_best_run(run, tmp_path):
    """Another run reached 75, 81, 64 and 84: the oracle's last row is 4/7, -14/13, 1 and 25/27 of its gains."""
    better = [ORACLE[0], [75, 68, 20, 30], [74, 81, 26, 30], [64, 50, 64, 42], [60, 54, 64, 84]]
    other = oracle_run(tmp_path / "other", matrix=better)
    mine, theirs = comparisons.normalised([run, other])
    assert mine[-1] == pytest.approx([4 / 7, -14 / 13, 1, 25 / 27])
    assert mine[0] == [0, 0, 0, 0] and theirs[1][0] == 1.0
    alone = comparisons.normalised([run])[0]
    assert [row[1] for row in alone] == [None] * 5  # B never rose above its base: nothing to be a share of


@pytest.mark.parametrize(("best", "known"), [(43, False), (44, True)])
def test_a_gain_within_two_standard_errors_is_none(tmp_path, best, known):
    """Of 100 paired items three more are right: 3.0 points with an error of 1.71; four: 4.0 with one of 1.97."""
    run = oracle_run(tmp_path / "run", ("a",), [[40], [best]], PRIOR[:2])
    error = stats.sem([1.0] * (best - 40) + [0.0] * (140 - best))
    assert bool(best - 40 >= 200 * error) is known
    assert (comparisons.normalised([run])[0][1][0] is not None) is known


def test_single_task_references(run, tmp_path):
    alone = oracle_run(tmp_path / "alone", ("a",), [[40], [72]], PRIOR[:2])
    assert comparisons.single_task([alone]) == {"a": 0.72} and comparisons.single_task([]) == {}
    with pytest.raises(UsageError, match="trained 4 tasks"):
        comparisons.single_task([run])


def test_graded_changes_take_the_sign_flip(run):
    before, after = np.zeros(6), np.array([0.5, 0.5, 0.25, 0.0, -0.0, 0.25])
    column = results.Column([0.0, 0.25], [6, 6], [None, None], [0, 1.5], np.stack([before, after]), tuple("abcdef"))
    found = comparisons._change([column], 0, 1)
    assert found == {"gained": 4, "lost": 0, "p": 2 / 2**4}
    assert continual.sign_flip([0.5, 0.5, 0.25, 0.25]) == found["p"]


def test_a_report_tells_intransigence_against_single_task_runs(run, tmp_path):
    alone = [oracle_run(tmp_path / t, (t,), [[40], [best]], PRIOR[:2]).folder for t, best in (("a", 72), ("b", 63))]
    facts = report.report([run.folder], tmp_path / "out", alone)
    curves = json.loads((tmp_path / "out" / "report.json").read_text())["runs"][0]["curves"]
    assert [row["intransigence"] for row in curves] == [None, pytest.approx(0.02), pytest.approx(0.03), None, None]
    assert curves == json.loads(json.dumps(facts["runs"][0]["curves"]))
