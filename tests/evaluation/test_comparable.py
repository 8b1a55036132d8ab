"""Scores from different settings are not put into one table, unless forced; then the output warns of it."""

from __future__ import annotations

import json

import pytest
from support.run_folder import KEEPS, SETTINGS, TASKS, make_run

from sdft_cli.commands import report
from sdft_cli.errors import UsageError
from sdft_cli.evaluation import comparable

SAME = {"tooluse": {"view": "prompt", "limit": None, "data": "aa"}, "suite-prior": {"shots": 0}}


def changed(unit: str, **keys) -> dict:
    return {**SAME, unit: {**SAME[unit], **keys}}


def test_equal_settings_are_comparable():
    assert comparable.differences([("a", SAME), ("b", SAME), ("c", {})]) == []
    assert comparable.differences([("a", SAME), ("b", {"science": {"limit": 3}})]) == []  # nothing in common
    assert comparable.check([("a", SAME), ("b", SAME)]) == []


@pytest.mark.parametrize(
    ("unit", "keys", "message"),
    [
        ("tooluse", {"limit": 16}, "the row limit differs: none (a), 16 (b)"),
        ("tooluse", {"view": "context"}, "the view of a row that the model is shown differs"),
        ("tooluse", {"data": "bb"}, "the digest of the test rows differs: aa (a), bb (b)"),
        ("tooluse", {"template": "cc"}, "the chat template differs: not recorded (a), cc (b)"),
        ("suite-prior", {"shots": 5}, "suite-prior: the number of shots differs: 0 (a), 5 (b)"),
        ("suite-prior", {"extra": "x"}, "suite-prior: extra differs"),
    ],
)
def test_each_difference_is_named(unit, keys, message):
    [difference] = comparable.differences([("a", SAME), ("b", changed(unit, **keys))])
    assert message in difference
    with pytest.raises(UsageError, match="not comparable") as caught:
        comparable.check([("a", SAME), ("b", changed(unit, **keys))])
    assert "--force" in caught.value.hint
    assert comparable.check([("a", SAME), ("b", changed(unit, **keys))], forced=True) == [
        f"These scores are not comparable (--force was given): {difference}"
    ]


def test_different_suites_are_not_comparable():
    differences = comparable.differences([("a", {"suite-micro": {}}), ("b", {"suite-prior": {}}), ("c", {})])
    assert differences == ["the suites differ: micro (a), prior (b), none (c)"]


def test_a_long_list_of_names_is_shortened():
    sides = [(f"run{k}", SAME) for k in range(9)] + [("odd", changed("tooluse", limit=2))]
    [difference] = comparable.differences(sides)
    assert "none (run0, run1, 7 more), 2 (odd)" in difference


# --- in a report ---------------------------------------------------------------------------------------------------


def limited(folder, stages):
    """Make some stages of a run look as if they were measured on only 16 rows."""
    for path in folder.glob("evals/*/scores.json"):
        scores = json.loads(path.read_text())
        if scores["stage"] in stages:
            scores["settings"][TASKS[0]] = {**SETTINGS, "limit": 16}
            path.write_text(json.dumps(scores))


def test_a_report_refuses_them_or_warns_when_forced(tmp_path):
    folders = [make_run(tmp_path / name, name, KEEPS, items=6) for name in ("sdft", "sft")]
    limited(folders[1], range(4))
    with pytest.raises(UsageError, match="row limit differs"):
        report.report(folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    facts = report.report(folders, tmp_path / "out", forced=True)
    assert any("not comparable" in warning and "16" in warning for warning in facts["warnings"])
    assert "not comparable" in (tmp_path / "out" / "report.html").read_text()
    assert "not comparable" in (tmp_path / "out" / "report.md").read_text()


def test_a_run_whose_own_stages_differ_is_refused_too(tmp_path):
    folder = make_run(tmp_path / "one", items=6)
    limited(folder, [2])
    with pytest.raises(UsageError, match=r"16 \(one,? stage 2\)"):
        report.report([folder], tmp_path / "out")
