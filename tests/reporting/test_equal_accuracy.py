"""Recipes at equal accuracy: paths made up by hand, intervals against scipy, and what is said where one falls short."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
from scipy import stats
from support.run_folder import KEEPS, TASKS, make_run

from sdft_cli.errors import UsageError
from sdft_cli.reporting import export, plots, scatter
from sdft_cli.reporting.equal_accuracy import at_equal_accuracy
from sdft_cli.reporting.equal_accuracy_tables import AT_END_NOTE, equal_accuracy_group, sentence
from sdft_cli.reporting.groups import Group
from sdft_cli.reporting.learning_paths import stage_path, whole_path
from sdft_cli.runs import results

ONE, TWO = TASKS[:2]
#: (step, accuracy on the new task, accuracy on the prior suite) in the first stage, its start first.
FAST = [(0, 0.0, 0.9), (10, 0.8, 0.8), (20, 0.9, 0.7)]
SLOW = [(0, 0.1, 0.9), (10, 0.2, 0.9), (20, 0.6, 0.8)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs of one and of two stages, whose evaluations the tests replace."""
    root = tmp_path_factory.mktemp("made")
    runs = {}
    for n in (1, 2):
        rates = [of_tasks[:n] for of_tasks in KEEPS[0]], KEEPS[1]
        runs[n] = results.load_run(make_run(root / str(n), "sdft", rates, TASKS[:n], items=4, steps=20))
    return runs


def row(stage, step, new, prior, other=0.0, phase=0, n=50, suite_n=80):
    """One evaluation during training; ``other`` is the accuracy on the task of the other stage."""
    task, left = (ONE, TWO) if stage == 1 else (TWO, ONE)
    scores = {task: {"accuracy": new, "n": n}, left: {"accuracy": other, "n": n}}
    at = {"stage": stage, "task": task, "step": step, "phase": phase, "global_step": step + 20 * (stage - 1)}
    return {"kind": "eval", **at, "scores": scores, "suite": {"accuracy": prior, "n": suite_n}}


def one_stage(made, points, seed=0, **sizes):
    """A run of one stage with these evaluations."""
    evals = [row(1, *point, **sizes) for point in points]
    return replace(made[1], evals=evals, endings=[], recipe={**made[1].recipe, "seed": seed})


def group(made, name, *seeds, first=0):
    runs = [one_stage(made, points, seed) for seed, points in enumerate(seeds, start=first)]
    return Group(name, tuple(runs))


def shifted(points, by):
    """The same path with ``by`` more lost of the suite after the start."""
    return [(step, new, prior - (by if step else 0)) for step, new, prior in points]


# --- one stage, two recipes ------------------------------------------------------------------------------------------


def test_each_recipe_is_read_where_its_own_path_reaches_the_level(made):
    compared = at_equal_accuracy([group(made, "fast", FAST), group(made, "slow", SLOW)], [0.4])
    [stage] = compared["stages"]
    assert (stage["stage"], stage["name"], stage["n"], stage["suite_n"]) == (1, f"1 {ONE}", 50, 80)
    [level] = stage["levels"]
    fast, slow = level["groups"]
    assert fast["step"]["value"] == pytest.approx(5) and slow["step"]["value"] == pytest.approx(15)
    for since in ("since_start", "since_base"):
        assert fast["change"][since]["value"] == pytest.approx(-0.05)
        assert slow["change"][since]["value"] == pytest.approx(-0.05)
        assert slow["difference"][since] == {"value": pytest.approx(0), "interval": None}
    assert fast["minus"] is fast["difference"] is None and slow["minus"] == "fast"


def test_the_levels_are_shares_of_the_gain_that_all_make(made):
    """From the highest start (0.1) to the lowest end (0.6), rounded down to what is printed."""
    compared = at_equal_accuracy([group(made, "fast", FAST, FAST), group(made, "slow", FAST, SLOW)])
    levels = [(level["accuracy"], level["share"]) for level in compared["stages"][0]["levels"]]
    assert levels == [(0.35, 0.5), (0.475, 0.75), (0.55, 0.9), (0.6, 1.0)]
    assert all(one["reached"] == 2 for level in compared["stages"][0]["levels"] for one in level["groups"])


def test_a_recipe_that_learned_nothing_is_listed_and_lowers_no_level(made):
    idle = [(0, 0.1, 0.9), (10, 0.12, 0.9), (20, 0.14, 0.88)]
    compared = at_equal_accuracy([group(made, "idle", idle), group(made, "fast", FAST), group(made, "slow", SLOW)])
    level = compared["stages"][0]["levels"][0]
    assert level["accuracy"] == 0.35
    first, fast, slow = level["groups"]
    assert (first["reached"], first["highest"], first["step"]["value"]) == (0, [0.14], None)
    assert first["minus"] == slow["minus"] == "fast" and first["difference"]["since_base"]["value"] is None
    assert slow["difference"]["since_base"]["value"] is not None and fast["difference"] is None
    [table] = equal_accuracy_group(compared).tables
    assert [cell.text for cell in table.rows[0]] == ["0.350", "idle", "not reached: 0.140 at most", "-", "-"]
    assert "idle not reached (0.140 at most), fast -0.0" in sentence(compared)


def test_a_level_below_the_start_costs_nothing(made):
    compared = at_equal_accuracy([group(made, "fast", FAST), group(made, "slow", SLOW)], [0.05, 0.1])
    for level in compared["stages"][0]["levels"]:
        assert level["groups"][1]["step"]["value"] == 0 and level["groups"][1]["change"]["since_base"]["value"] == 0


def test_one_lucky_evaluation_does_not_reach_a_level(made):
    lucky = [(0, 0.0, 0.9), (5, 0.8, 0.9), (10, 0.0, 0.7), (15, 0.4, 0.6), (20, 0.8, 0.5)]
    compared = at_equal_accuracy([group(made, "lucky", lucky), group(made, "fast", FAST)], [0.8])
    one = compared["stages"][0]["levels"][0]["groups"][0]
    assert one["step"]["value"] == pytest.approx(20) and one["change"]["since_base"]["value"] == pytest.approx(-0.4)


# --- seeds -----------------------------------------------------------------------------------------------------------


def test_intervals_are_students_over_seeds_and_differences_are_paired(made):
    costs = {"fast": [0.1, 0.14, 0.03], "slow": [0.0, 0.06, -0.02]}
    groups = [
        group(made, "fast", *(shifted(FAST, by) for by in costs["fast"])),
        group(made, "slow", *(shifted(SLOW, by) for by in costs["slow"])),
    ]
    back = replace(groups[1], runs=groups[1].runs[::-1])  # pairs go by the seed, not by the order
    compared = at_equal_accuracy([groups[0], back], [0.6])
    fast, slow = compared["stages"][0]["levels"][0]["groups"]
    there = {"fast": [-0.075 - 0.75 * by for by in costs["fast"]], "slow": [-0.1 - by for by in costs["slow"]]}
    for name, one in (("fast", fast), ("slow", slow)):
        theirs = stats.t.interval(0.95, 2, sum(there[name]) / 3, stats.sem(there[name]))
        assert one["change"]["since_base"]["value"] == pytest.approx(sum(there[name]) / 3)
        assert one["change"]["since_base"]["interval"] == pytest.approx(theirs)
    theirs = stats.ttest_rel(there["slow"], there["fast"]).confidence_interval()
    assert slow["difference"]["since_base"]["interval"] == pytest.approx((theirs.low, theirs.high))
    assert "t-intervals" in equal_accuracy_group(compared).tables[0].note


def test_only_common_seeds_are_subtracted(made):
    other = group(made, "slow", SLOW, shifted(SLOW, 0.2), first=1)
    compared = at_equal_accuracy([group(made, "fast", FAST, FAST), other], [0.6])
    slow = compared["stages"][0]["levels"][0]["groups"][1]
    assert slow["seeds"] == ["1", "2"]
    assert slow["difference"]["since_base"] == {"value": pytest.approx(-0.1 + 0.075), "interval": None}
    apart = at_equal_accuracy([group(made, "fast", FAST), group(made, "slow", SLOW, first=5)], [0.6])
    assert apart["stages"][0]["levels"][0]["groups"][1]["difference"]["since_base"]["value"] is None


def test_a_mean_over_the_seeds_that_reach_a_level_is_no_mean(made):
    """The seeds that reach it are the lucky ones."""
    compared = at_equal_accuracy([group(made, "fast", FAST, SLOW, FAST), group(made, "slow", SLOW)], [0.7])
    fast = compared["stages"][0]["levels"][0]["groups"][0]
    assert (fast["reached"], len(fast["seeds"]), fast["change"]["since_base"]["value"]) == (2, 3, None)
    [table] = equal_accuracy_group(compared).tables
    assert table.rows[0][2].text == "not reached: 0.600 at most in 1 of 3 seeds"


def test_one_seed_has_no_interval_and_the_table_says_why(made):
    [table] = equal_accuracy_group(at_equal_accuracy([group(made, "fast", FAST), group(made, "slow", SLOW)])).tables
    assert all(cell.interval is None for row in table.rows for cell in row)
    assert "no interval for a single seed" in table.note and "on 80 items is up to 0.056" in table.note


# --- stages ----------------------------------------------------------------------------------------------------------


def two_stages(made, endings=()):
    evals = [row(1, 0, 0.0, 1.0), row(1, 10, 0.8, 0.9), row(1, 20, 0.6, 0.7)]
    evals += [row(2, 10, 0.5, 0.6, other=0.5), row(2, 20, 1.0, 0.4, other=0.4)]
    return replace(made[2], evals=evals, endings=list(endings))


def test_a_later_stage_starts_with_the_model_of_the_one_before(made):
    run = two_stages(made)
    path = stage_path(run, 2)
    assert [(p.step, p.new, p.prior) for p in path.points] == [(0, 0.0, 0.7), (10, 0.5, 0.6), (20, 1.0, 0.4)]
    at = path.reaches(0.75)
    assert path.since_start(at) == pytest.approx(0.5 - 0.7) and path.since_base(at) == pytest.approx(0.5 - 1.0)
    whole = whole_path(run)
    assert [p.step for p in whole.points] == [0, 10, 20, 30, 40] and whole.points[-1].n == 100
    assert [p.new for p in whole.points] == pytest.approx([0.0, 0.4, 0.3, 0.5, 0.7])


def test_a_path_ends_with_the_model_that_the_stage_ended_with(made):
    ending = {"kind": "ending", "stage": 1, "task": ONE, "step": 20, "why": "best validation", "model_of": 10}
    run = two_stages(made, [ending])
    assert [p.step for p in stage_path(run, 1).points] == [0, 10]
    assert stage_path(run, 2).points[0] == (0, 0.0, 0.9, 50)
    assert [p.step for p in whole_path(run).points] == [0, 10, 30, 40]
    nothing = two_stages(made, [{**ending, "model_of": 0}])
    assert stage_path(nothing, 1) == "the stage ended with the model that it began with"
    assert stage_path(nothing, 2).points[0] == (0, 0.0, 1.0, 50)


def test_several_stages_are_summed_up_at_one_level_each(made):
    groups = [Group("a", (two_stages(made),)), Group("b", (two_stages(made),))]
    compared = at_equal_accuracy(groups)
    assert [stage["name"] for stage in compared["stages"]] == [f"1 {ONE}", f"2 {TWO}", "whole sequence"]
    first, *others = equal_accuracy_group(compared).tables
    assert [row[0].text for row in first.rows] == [
        name for name in (f"1 {ONE}", f"2 {TWO}", "whole sequence") for _ in "ab"
    ]
    assert [row[4].text for row in first.rows][-2:] == ["-", "-"] and not first.folded
    assert "since the stage's start" in first.note and list(first.heads)[4:6] == ["change in\nthe stage", "difference"]
    assert [len(table.rows) for table in others] == [8, 8, 8] and all(table.folded for table in others)
    other = replace(two_stages(made), stages=[TWO, ONE], trained=[1, 0])
    apart = at_equal_accuracy([*groups, Group("c", (other,))])
    assert [one["group"] for one in apart["stages"][0]["levels"][0]["groups"]] == ["a", "b"]
    assert apart["stages"][-1]["name"] == f"whole sequence {ONE} → {TWO}"


def test_a_phase_that_repairs_is_read_at_its_end(made):
    """What fine-tuning alone had lost at that accuracy is not what the method costs."""
    first = [row(1, 0, 0.0, 0.9), row(1, 10, 0.9, 0.4), row(1, 20, 0.9, 0.8, phase=1)]
    repaired = replace(made[1], evals=first, endings=[])
    compared = at_equal_accuracy([Group("sft+reinvoke", (repaired,)), group(made, "fast", FAST)], [0.45])
    one, fast = compared["stages"][0]["levels"][0]["groups"]
    assert (one["step"]["value"], one["at_end"]) == (20, True) and not fast["at_end"]
    assert one["change"]["since_base"]["value"] == pytest.approx(-0.1)
    [table] = equal_accuracy_group(compared).tables
    assert table.rows[0][1].text == "sft+reinvoke ‡" and AT_END_NOTE in table.note


# --- what is lacking -------------------------------------------------------------------------------------------------


def test_what_is_lacking_is_said(made):
    fast, slow = group(made, "fast", FAST), group(made, "slow", SLOW)
    alike = one_stage(made, SLOW)
    cases = {
        "no prior suite was evaluated": replace(alike, suite=None),
        "nothing was evaluated during training": replace(alike, evals=[]),
        "the start was not evaluated": replace(alike, evals=alike.evals[1:]),
        "not evaluated on the same items": replace(alike, evals=[row(1, 0, 0.1, 0.9, suite_n=40), *alike.evals[1:]]),
    }
    for why, run in cases.items():
        compared = at_equal_accuracy([fast, Group("lacking", (run,))])
        assert compared["stages"] == [] and why in compared["notes"][0] and "(lacking)" in compared["notes"][0]
        section = equal_accuracy_group(compared)
        assert section.tables == [] and section.intro.startswith(f"1 {ONE}: not compared at equal accuracy: ")
        assert why in section.intro and sentence(compared) == ""
        with_others = at_equal_accuracy([fast, slow, Group("lacking", (run,))])
        assert len(with_others["stages"]) == 1 and why in equal_accuracy_group(with_others).intro
        with pytest.raises(UsageError, match=f"--at-accuracy: .*{why}"):
            at_equal_accuracy([fast, Group("lacking", (run,))], [0.5])
    assert at_equal_accuracy([fast]) == {"stages": [], "notes": []}
    with pytest.raises(UsageError, match="no two recipes trained the same task"):
        at_equal_accuracy([fast], [0.5])


def test_an_evaluation_without_a_score_is_no_point(made):
    run = one_stage(made, FAST)
    unscored = row(1, 15, None, 0.1)
    path = stage_path(replace(run, evals=[*run.evals[:2], unscored, run.evals[2]]), 1)
    assert [p.step for p in path.points] == [0, 10, 20]


def test_other_numbers_of_items_are_said(made):
    few = Group("few", (one_stage(made, SLOW, n=20),))
    [note] = at_equal_accuracy([group(made, "fast", FAST), few])["notes"]
    assert note == f"1 {ONE}: compared over different numbers of items (50, 20 rows, 80 of the suite)"


# --- words and files -------------------------------------------------------------------------------------------------


def test_the_table_and_the_sentence(made):
    compared = at_equal_accuracy([group(made, "fast", FAST), group(made, "slow", SLOW)], [0.48])
    section = equal_accuracy_group(compared)
    [table] = section.tables
    assert "on 50 validation rows and 80 items of the prior suite" in section.intro
    assert list(table.heads) == ["validation\naccuracy", "recipe", "step", "prior\nchange", "difference"]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["0.480", "fast", "6", "-0.060", "-"],
        ["0.480", "slow", "17", "-0.070", "-0.010"],
    ]
    assert sentence(compared) == (
        f"Change on the prior suite at an equal validation accuracy of 0.480 on {ONE}: fast -0.060, slow -0.070."
    )


def test_of_many_recipes_one_level_stands_first_and_the_others_are_folded(made):
    groups = [group(made, f"recipe {k}", shifted(FAST, k / 100)) for k in range(5)]
    first, every = equal_accuracy_group(at_equal_accuracy(groups)).tables
    assert {row[0].text for row in first.rows} == {"0.810"} and len(first.rows) == 5 and not first.folded
    assert len(every.rows) == 20 and every.folded
    [asked] = equal_accuracy_group(at_equal_accuracy(groups, [0.3, 0.4])).tables
    assert len(asked.rows) == 10


def test_the_csv_file(made):
    compared = at_equal_accuracy([group(made, "fast", FAST), group(made, "slow", SLOW, shifted(SLOW, 0.1))], [0.6])
    fast, slow = csv.DictReader(io.StringIO(export.equal_accuracy_csv(compared)))
    assert (fast["stage"], fast["accuracy"], fast["share"], fast["minus"]) == (f"1 {ONE}", "0.6", "", "")
    assert float(fast["step"]) == pytest.approx(7.5) and fast["step_low"] == ""
    assert float(slow["since_base"]) == pytest.approx(-0.15) and slow["seeds"] == slow["reached"] == "2"
    assert float(slow["since_base_low"]) < -0.15 and float(slow["difference_since_base"]) == pytest.approx(-0.025)


def test_the_figure_draws_every_evaluation(made):
    groups = [group(made, "fast", FAST, shifted(FAST, 0.1)), group(made, "slow", SLOW)]
    assert scatter.has_paths(groups) and not scatter.has_paths(groups[:1])
    [axis] = scatter.learning_paths(groups).axes
    lines = [list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axis.lines]
    assert [pytest.approx(pair) for pair in [(0.0, 0.0), (0.8, -0.15), (0.9, -0.25)]] in lines  # the mean of two seeds
    assert [pytest.approx(pair) for pair in [(0.1, 0.0), (0.2, 0.0), (0.6, -0.1)]] in lines
    assert "equal-accuracy" in {plot.name for plot in plots.PLOTS} and axis.get_ylabel() == "prior change"
