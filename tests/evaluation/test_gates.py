"""Gates: one report, from which JSON, JUnit, Markdown and the exit code follow; and what is measured for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.run_folder import FORGETS, KEEPS, TASKS, make_run, unscore

from sdft_cli.errors import UsageError
from sdft_cli.evaluation import gate_reports, gates
from sdft_cli.evaluation.gates import Gate, Measured
from sdft_cli.runs import results
from sdft_cli.stats import bootstrap, continual

AT_MOST, AT_LEAST = Gate("--max-forgetting", "forgetting", 0.1), Gate("--min-accuracy a", "accuracy of a", 0.5, True)
GOOD = ["--max-forgetting", "0.05", "--max-prior-drop", "0.05", "--min-accuracy", f"{TASKS[0]}=0.6"]


# --- the outcome ---------------------------------------------------------------------------------------------------

TABLE = [
    # gate, value, interval, passes under point, proven, safe
    (AT_MOST, 0.05, (0.02, 0.08), True, True, True),
    (AT_MOST, 0.05, (0.00, 0.20), True, True, False),
    (AT_MOST, 0.15, (0.05, 0.20), False, True, False),
    (AT_MOST, 0.15, (0.12, 0.20), False, False, False),
    (AT_MOST, 0.10, (0.10, 0.10), True, True, True),  # exactly on the limit
    (AT_MOST, 0.1 + 1e-12, (0.0, 0.1 + 1e-12), True, True, True),  # a mean of floating-point scores
    (AT_MOST, -0.3, (-0.4, -0.2), True, True, True),
    (AT_LEAST, 0.60, (0.55, 0.70), True, True, True),
    (AT_LEAST, 0.60, (0.45, 0.70), True, True, False),
    (AT_LEAST, 0.45, (0.40, 0.55), False, True, False),
    (AT_LEAST, 0.45, (0.40, 0.49), False, False, False),
]


@pytest.mark.parametrize(("gate", "value", "interval", "point", "proven", "safe"), TABLE)
def test_what_passes_under_each_rule(gate, value, interval, point, proven, safe):
    for rule, passes in (("point", point), ("proven", proven), ("safe", safe)):
        report = gates.decide("run", [(gate, Measured(value, interval))], rule)
        assert report.outcomes[0].passed is passes and report.code == (0 if passes else 3)
        assert (report.outcomes[0].beyond <= 1e-9) is passes


def test_an_outcome_tells_by_how_much_it_failed():
    report = gates.decide("run", [(AT_MOST, Measured(0.15, (0.12, 0.2)))])
    assert report.outcomes[0].beyond == pytest.approx(0.05)
    assert str(report.outcomes[0]) == "forgetting 0.1500 [0.1200, 0.2000], must be at most 0.1: failed by 0.0500"
    proven = gates.decide("run", [(AT_MOST, Measured(0.15, (0.12, 0.2)))], "proven")
    assert "failed by 0.0200 even at the interval's near end" in str(proven.outcomes[0])
    safe = gates.decide("run", [(AT_LEAST, Measured(0.6, (0.45, 0.7)))], "safe")
    assert "must be at least 0.5: failed by 0.0500 at the interval's far end" in str(safe.outcomes[0])


def test_what_was_not_measured_is_an_error_and_no_pass():
    with pytest.raises(UsageError, match="forgetting was not measured") as caught:
        gates.decide("run", [(AT_MOST, Measured(None, lack="one task"))])
    assert caught.value.code == 2 and caught.value.hint == "one task"
    assert gates.decide("run", [(AT_MOST, Measured(0.0))]).code == 0
    for rule in ("proven", "safe"):
        with pytest.raises(UsageError, match="needs an interval"):
            gates.decide("run", [(AT_MOST, Measured(0.0))], rule)
    with pytest.raises(UsageError, match="--gate"):
        gates.decide("run", [], "maybe")


def test_nan_fails_a_gate():
    assert gates.decide("run", [(AT_MOST, Measured(float("nan")))]).code == 3


values = st.floats(-1, 1).flatmap(
    lambda v: st.tuples(st.just(v), st.floats(0, 0.5), st.floats(0, 0.5)).map(lambda t: (t[0], (v - t[1], v + t[2])))
)


@given(st.lists(st.tuples(st.sampled_from([AT_MOST, AT_LEAST]), values), min_size=1, max_size=5), st.text(max_size=20))
def test_every_output_agrees(pairs, subject):
    for rule in gates.RULES:
        report = gates.decide(subject, [(gate, Measured(*measured)) for gate, measured in pairs], rule)
        record = gates.as_json(report)
        assert record["passed"] is (report.code == 0) and record["exit"] == report.code
        passed = [row["passed"] for row in record["gates"]]
        suite = ElementTree.fromstring(gates.as_junit(report))
        assert [case.find("failure") is None for case in suite] == passed
        assert int(suite.get("failures")) == passed.count(False) and int(suite.get("tests")) == len(passed)
        rows = [line for line in gates.as_markdown(report).splitlines() if line.startswith(("| pass", "| **FAIL**"))]
        assert [row.startswith("| pass") for row in rows] == passed
        assert ("failed" in gates.as_markdown(report).splitlines()[0]) is (report.code == 3)


@given(values)
def test_safe_is_stricter_than_point_and_point_than_proven(measured):
    for gate in (AT_MOST, AT_LEAST):
        passed = [gates.decide("run", [(gate, Measured(*measured))], rule).code == 0 for rule in gates.RULES]
        point, proven, safe = passed
        assert (not safe or point) and (not point or proven)


def test_names_cannot_break_the_files():
    gate = Gate('--min-accuracy <b>|`x`\x00"&', 'a|b\n<script>"', 0.5, True)
    report = gates.decide("run|<&>\x1b[0m", [(gate, Measured(0.1))])
    case = ElementTree.fromstring(gates.as_junit(report))[0]
    assert '<b>|`x`?"&' in case.get("name")
    table = [line for line in gates.as_markdown(report).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {5} and "<" not in "".join(table)


# --- what is measured for them ---------------------------------------------------------------------------------------


def run_of(tmp_path: Path, rates=KEEPS, **more) -> results.RunResult:
    return results.load_run(make_run(tmp_path / "run", rates=rates, **more))


def test_forgetting_is_the_fall_from_the_best_stage_since_it_was_learned(tmp_path):
    run = run_of(tmp_path, FORGETS)
    R, last = run.matrix, len(run.matrix) - 1
    by_hand = np.mean([max(R[k][j] for k in range(j + 1, last + 1)) - R[last][j] for j in range(last - 1)])
    forgetting = gate_reports.forgetting(run)
    assert forgetting.value == pytest.approx(by_hand)
    assert forgetting.interval[0] <= forgetting.value <= forgetting.interval[1]
    assert forgetting.value >= -run.metrics["backward_transfer"] - 1e-12


def test_prior_drop_is_minus_the_prior_change(tmp_path):
    run = run_of(tmp_path, FORGETS)
    low, high = run.metric_intervals["prior_change"]
    assert gate_reports.prior_drop(run) == Measured(-run.metrics["prior_change"], (-high, -low))


def test_noise_alone_is_not_proven_to_be_forgetting():
    """Only luck changes. The bootstrap of a maximum finds forgetting every second time, our interval one time in 40."""
    rng, wrong, naive, repeats = np.random.default_rng(0), 0, 0, 80
    trained, n = [0, 1, 2, 3], 100
    least = bootstrap.least_widths(trained, [n] * 4)["backward_transfer"]
    for _ in range(repeats):
        hardness = rng.random((4, n))
        luck = np.where(rng.random((4, 5, n)) < 0.3, rng.random((4, 5, n)), hardness[:, None])
        learned = np.array([[0.7 if k > j else 0.1 for k in range(5)] for j in range(4)])
        tables = list((luck < learned[:, :, None]).astype(float))
        R = np.stack([t.mean(1) for t in tables], 1).tolist()
        backward = bootstrap.metrics(tables, trained, draws=300)["backward_transfer"]
        ends = bootstrap.interval(backward, continual.backward_transfer(R, trained), least)
        falls = bootstrap.interval(bootstrap.fall(tables, trained, 300), continual.fall(R, trained), least, 0.0)
        wrong += -ends[1] > 1e-9
        naive += falls[0] > 1e-9
    assert wrong / repeats < 0.1 < 0.3 < naive / repeats


LACKS = [
    (
        ["--max-forgetting", "0.1"],
        {"stages": TASKS[:1], "rates": ([[0.1], [0.9]], [0.9, 0.9])},
        "nothing earlier to forget",
    ),
    (["--max-forgetting", "0.1"], {"evaluated": 2}, "at stage 2 of 3"),
    (["--max-prior-drop", "0.1"], {"suite": False}, "no prior suite"),
    (["--min-accuracy", "micro=0.5"], {"suite": False}, "measured: micro-tooluse"),
]


@pytest.mark.parametrize(("flags", "run", "hint"), LACKS)
def test_a_gate_on_what_was_not_measured_exits_2(sdft, flags, run, hint):
    make_run(Path("run"), **run)
    code, out, err = sdft("eval", "run", *flags)
    assert code == 2 and out == "" and hint in err


UNSCORED = ["--max-forgetting", "0.1"], ["--min-accuracy", f"{TASKS[0]}=0.5"]


@pytest.mark.parametrize("flags", UNSCORED, ids=" ".join)
def test_a_gate_on_an_unscored_task_exits_2_before_anything_is_measured(sdft, flags):
    unscore(make_run(Path("run")), TASKS[0], why="no judge was asked")
    before = sorted(Path().rglob("*"))
    code, out, err = sdft("eval", "run", *flags, "--out", "out")
    assert code == 2 and out == "" and f"{TASKS[0]} cannot be scored: no judge was asked" in err and "--judge" in err
    assert sorted(Path().rglob("*")) == before


def test_what_was_learned_last_cannot_be_forgotten_and_need_not_be_scored(sdft):
    unscore(make_run(Path("run")), TASKS[2])
    code, out, _ = sdft("eval", "run", "--max-forgetting", "0.2", "--min-accuracy", f"{TASKS[0]}=0.5")
    assert code == 0 and out.count("  pass  ") == 2


def test_forgetting_is_not_taken_from_the_scored_tasks_alone(tmp_path):
    unscore(make_run(tmp_path / "run"), TASKS[1])
    run = results.load_run(tmp_path / "run")
    assert run.metrics["forgetting"] is not None  # over the others
    found = gate_reports.forgetting(run)
    assert found.value is None and f"{TASKS[1]} is not scored" in found.lack


def test_the_scores_of_an_undecided_gate_are_printed_and_written(sdft):
    """A stage in between was not scored, which the last one cannot make good."""
    unscore(make_run(Path("run")), TASKS[0], stages=[2], why="the judge was away")
    code, out, err = sdft("eval", "run", "--max-forgetting", "0.5", "--out", "out", "--json")
    assert code == 2 and "forgetting was not measured; the scores are in out" in err
    scores = json.loads(out)
    assert scores["tasks"][TASKS[1]]["accuracy"] > 0.5
    assert json.loads(Path("out/scores.json").read_text())["tasks"] == scores["tasks"]
    code, out, err = sdft("eval", "run", "--max-forgetting", "0.5")
    assert code == 2 and TASKS[1] in out and "hint:" in err


def test_a_stage_that_was_not_evaluated_hides_the_best(sdft):
    make_run(Path("run"))
    next(Path("run").glob("evals/02-*/scores.json")).unlink()
    code, _, err = sdft("eval", "run", "--max-forgetting", "0.5")
    assert code == 2 and "some stage was not evaluated" in err


def test_stages_that_were_not_measured_alike_are_no_measure_of_forgetting(sdft):
    make_run(Path("run"))
    path = next(Path("run").glob("evals/01-*/scores.json"))
    scores = json.loads(path.read_text())
    scores["settings"][TASKS[0]]["limit"] = 7
    path.write_text(json.dumps(scores))
    code, _, err = sdft("eval", "run", "--max-forgetting", "0.5")
    assert code == 2 and "not comparable" in err and "7 (stage 1)" in err


def test_a_run_without_item_files_has_a_point_and_no_interval(sdft):
    for path in make_run(Path("run")).glob("evals/*/*.jsonl"):
        path.unlink()
    assert sdft("eval", "run", "--max-forgetting", "0.2")[0] == 0
    code, _, err = sdft("eval", "run", "--max-forgetting", "0.2", "--gate", "proven")
    assert code == 2 and "item files" in err


def test_a_gate_on_what_a_run_holds_needs_no_torch(tmp_path):
    make_run(tmp_path / "run")
    code = (
        "import sys\nfrom sdft_cli.cli.app import app\n"
        "app(['eval', 'run', '--max-forgetting', '0.5'], standalone_mode=False)\n"
        "assert not {'torch', 'transformers', 'openai'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_good_run_passes_and_one_that_forgot_exits_3(sdft):
    make_run(Path("good"))
    make_run(Path("bad"), "sft", FORGETS)
    code, out, err = sdft("eval", "good", *GOOD)
    assert code == 0 and out.count("  pass  ") == 3 and err == ""
    files = ["--junit", "out/gates.xml", "--markdown", "out/gates.md"]
    code, out, err = sdft("eval", "bad", *GOOD, *files, "--json")
    scores = json.loads(out)
    assert code == scores["gates"]["exit"] == 3 and "must be at most 0.05: failed by" in err and "hint:" in err
    assert scores["curves"][-1]["stage"] == 3 and scores["metrics"]["backward_transfer"]["value"] < -0.5
    suite = ElementTree.parse("out/gates.xml").getroot()
    assert suite.get("failures") == "3" and [row["passed"] for row in scores["gates"]["gates"]] == [False] * 3
    assert "3 of 3 gates failed" in Path("out/gates.md").read_text()


def test_a_suite_can_have_a_minimum_accuracy(sdft):
    make_run(Path("run"))
    assert sdft("eval", "run", "--min-accuracy", "micro=0.5")[0] == 0
    assert sdft("eval", "run", "--min-accuracy", "micro=0.999")[0] == 3


MISTAKES = [
    (["--max-forgetting", "2"], "not a fraction between 0 and 1"),
    (["--max-forgetting", "nan"], "not a fraction between 0 and 1"),
    (["--min-accuracy", "0.6"], "not of the form TASK=VALUE"),
    (["--min-accuracy", "a=x"], "not of the form TASK=VALUE"),
    (["--min-accuracy", "a=0.5", "--min-accuracy", "a=0.6"], "set twice"),
    (["--min-accuracy", "tooluse=0.5"], "tooluse is not measured here"),
    (["--max-forgetting", "0.1", "--gate", "sure"], "unknown --gate 'sure'"),
    (["--junit", "x.xml"], "none is set"),
    (["--max-forgetting", "0.1", "--limit", "5"], "compares the stages of a run"),
    (["--max-prior-drop", "0.1", "--no-cache"], "compares the stages of a run"),
    (["--pass-at", "0,1"], "k must be between 1 and 128"),
    (["--pass-at", "1,x"], "not whole numbers"),
    (["--pass-at", "1,8", "--samples", "4"], "needs at least 8 samples"),
    (["--samples", "4"], "--pass-at"),
]


@pytest.mark.parametrize(("flags", "message"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_bad_usage_exits_2_before_anything_is_measured(sdft, flags, message):
    make_run(Path("run"), items=4)
    before = sorted(Path().rglob("*"))
    code, out, err = sdft("eval", "run", *flags)
    assert code == 2 and out == "" and message in err and "Traceback" not in err
    assert sorted(Path().rglob("*")) == before


def test_a_single_model_has_no_stages_to_compare(sdft, tiny_model):
    code, _, err = sdft("eval", str(tiny_model), "--max-forgetting", "0.1")
    assert code == 2 and "name a run" in err


# --- the examples ----------------------------------------------------------------------------------------------------

RECIPES = Path(__file__).parents[2] / "recipes" / "ci"


def gate(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(RECIPES / "gate.sh"), *words],
        cwd=folder,
        env={**os.environ, "SDFT": f"{sys.executable} -m sdft_cli", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


def test_the_shell_example(tmp_path):
    make_run(tmp_path / "good")
    make_run(tmp_path / "bad", "sft", FORGETS)
    done = gate(tmp_path, "good", MAX_FORGETTING="0.05")
    assert done.returncode == 0, done.stderr
    assert ElementTree.parse(tmp_path / "gates.xml").getroot().get("failures") == "0"
    done = gate(tmp_path, "bad")
    assert done.returncode == 3 and "failed" in done.stderr
    assert "**FAIL**" in (tmp_path / "gates.md").read_text()
    assert gate(tmp_path, "bad", "--min-accuracy", "nothing=0.5").returncode == 2
    assert gate(tmp_path, "nowhere").returncode == 2 and gate(tmp_path).returncode == 2
    assert not (tmp_path / "gates.md").exists()  # an earlier report is not mistaken for this run's


def test_the_workflow_example_calls_the_shell_example():
    import yaml

    workflow = yaml.safe_load((RECIPES / "github-actions.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = "\n".join(step.get("run", "") for step in steps)
    assert "recipes/ci/gate.sh" in commands and "GITHUB_STEP_SUMMARY" in commands
    assert any("gates.xml" in json.dumps(step.get("with", {})) for step in steps)
