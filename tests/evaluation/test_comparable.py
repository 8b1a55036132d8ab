"""Numbers from different settings do not stand in one table, unless forced; then the output says so."""

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


def test_equal_settings_are_alike():
    assert comparable.differences([("a", SAME), ("b", SAME), ("c", {})]) == []
    assert comparable.differences([("a", SAME), ("b", {"science": {"limit": 3}})]) == []  # nothing in common
    assert comparable.check([("a", SAME), ("b", SAME)]) == []


@pytest.mark.parametrize(
    ("unit", "keys", "says"),
    [
        ("tooluse", {"limit": 16}, "the limit of rows differs: none (a), 16 (b)"),
        ("tooluse", {"view": "context"}, "what the model was shown"),
        ("tooluse", {"data": "bb"}, "the test rows (data) differs: aa (a), bb (b)"),
        ("tooluse", {"template": "cc"}, "the chat template differs: not recorded (a), cc (b)"),
        ("suite-prior", {"shots": 5}, "suite-prior: the number of shots differs: 0 (a), 5 (b)"),
        ("suite-prior", {"own": "x"}, "suite-prior: own differs"),
    ],
)
def test_each_difference_is_named(unit, keys, says):
    [found] = comparable.differences([("a", SAME), ("b", changed(unit, **keys))])
    assert says in found
    with pytest.raises(UsageError, match="not measured alike") as caught:
        comparable.check([("a", SAME), ("b", changed(unit, **keys))])
    assert "--force" in caught.value.hint
    assert comparable.check([("a", SAME), ("b", changed(unit, **keys))], forced=True) == [
        f"Forced together though not measured alike: {found}"
    ]


def test_other_suites_are_no_common_ground():
    found = comparable.differences([("a", {"suite-micro": {}}), ("b", {"suite-prior": {}}), ("c", {})])
    assert found == ["the suites differ: micro (a), prior (b), none (c)"]


def test_many_holders_are_shortened():
    sides = [(f"run{k}", SAME) for k in range(9)] + [("odd", changed("tooluse", limit=2))]
    [found] = comparable.differences(sides)
    assert "none (run0, run1, 7 more), 2 (odd)" in found


# --- where it is asked ---------------------------------------------------------------------------------------------


def limited(folder, stages):
    """Pretend that some stages of a run were measured on 16 rows only."""
    for path in folder.glob("evals/*/scores.json"):
        scores = json.loads(path.read_text())
        if scores["stage"] in stages:
            scores["settings"][TASKS[0]] = {**SETTINGS, "limit": 16}
            path.write_text(json.dumps(scores))


def test_a_report_refuses_them_and_says_so_when_forced(tmp_path):
    folders = [make_run(tmp_path / name, name, KEEPS, items=6) for name in ("sdft", "sft")]
    limited(folders[1], range(4))
    with pytest.raises(UsageError, match="limit of rows differs"):
        report.report(folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    facts = report.report(folders, tmp_path / "out", forced=True)
    assert any("Forced together" in warning and "16" in warning for warning in facts["warnings"])
    assert "Forced together" in (tmp_path / "out" / "report.html").read_text()
    assert "Forced together" in (tmp_path / "out" / "report.md").read_text()


def test_a_run_whose_own_stages_differ_is_no_table_either(tmp_path):
    folder = make_run(tmp_path / "one", items=6)
    limited(folder, [2])
    with pytest.raises(UsageError, match=r"16 \(one,? stage 2\)"):
        report.report([folder], tmp_path / "out")
