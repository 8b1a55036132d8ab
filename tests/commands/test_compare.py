"""`sdft compare`: two checkpoints on the same items, and methods over seeds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from support.run_folder import FORGETS, KEEPS, PARTS, SETTINGS, TASKS, make_run, unscore

from sdft_cli.commands import compare
from sdft_cli.errors import UsageError
from sdft_cli.evaluation import cache
from sdft_cli.models import digests
from sdft_cli.reporting import comparisons
from sdft_cli.runs import results
from sdft_cli.stats.across_seeds import seed_mean


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("pair")
    return tuple(str(make_run(root / m, m, rates)) for m, rates in (("sdft", KEEPS), ("sft", FORGETS)))


def units(comparison, part=None) -> dict:
    return {row["unit"]: row for row in comparison["units"] if row["part"] == part}


# --- two checkpoints -----------------------------------------------------------------------------------------------


def test_runs_are_compared_at_their_last_stage(pair):
    comparison = compare.compare(*pair)
    runs = [results.load_run(folder) for folder in pair]
    for task in TASKS:
        row = units(comparison)[task]
        before, after = ({r["id"]: r["value"] for r in run.items(3, task)} for run in runs)
        assert row["gained"] == [i for i in before if after[i] > before[i]] and row["n"] == 40
        assert row["lost"] == [i for i in before if after[i] < before[i]]
        d = np.array([after[i] - before[i] for i in before])
        assert row["difference"] == pytest.approx(d.mean())
        assert row["standard_error"] == pytest.approx(stats.sem(d))
        assert row["p"] == pytest.approx(stats.binomtest(len(row["gained"]), int((d != 0).sum())).pvalue)
    whole = units(comparison)["suite-micro"]
    parts = [units(comparison, part)["suite-micro"]["difference"] for part in PARTS]
    assert whole["difference"] == pytest.approx(np.mean(parts)) and whole["n"] == 60
    assert comparison["metrics"] == comparisons.difference(runs[1], runs[0])


def test_a_stage_is_a_checkpoint_too(pair):
    comparison = compare.compare(f"{pair[0]}/evals/01-{TASKS[0]}", pair[0])
    run = results.load_run(pair[0])
    assert units(comparison)[TASKS[0]]["a"] == pytest.approx(run.matrix[1][0])
    assert units(comparison)[TASKS[0]]["b"] == pytest.approx(run.matrix[3][0]) and comparison["metrics"] is None


def evaluation(folder: Path, rows: list[dict], **settings) -> str:
    folder.mkdir(parents=True)
    (folder / "tooluse.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = {"tasks": {"tooluse": {}}, "suite": None, "settings": {"tooluse": {**SETTINGS, **settings}}}
    (folder / "scores.json").write_text(json.dumps(scores))
    return str(folder)


def rows(values, documents=None) -> list[dict]:
    named = documents or [None] * len(values)
    return [
        {"id": f"r{k}", "value": value, **({"document": name} if name else {})}
        for k, (value, name) in enumerate(zip(values, named, strict=True))
    ]


def test_graded_scores_and_documents(tmp_path):
    a = evaluation(tmp_path / "a", rows([0.5, 0.0, 1.0, None], ["x", "x", "y", "y"]))
    b = evaluation(tmp_path / "b", rows([1.0, 0.25, 1.0, 1.0], ["x", "x", "y", "y"]))
    [row] = compare.compare(a, b)["units"]
    assert (row["n"], row["documents"], row["test"]) == (3, 2, "exact sign-flip of documents")
    assert row["difference"] == pytest.approx(0.25) and row["p"] == 1.0


def test_only_shared_items_count(tmp_path):
    a = evaluation(tmp_path / "a", rows([1.0, 0.0, 0.0]))
    b = evaluation(tmp_path / "b", [*rows([1.0, 1.0]), {"id": "other", "value": 1.0}])
    [row] = compare.compare(a, b)["units"]
    assert row["n"] == 2 and row["gained"] == ["r1"] and row["lost"] == []
    c = evaluation(tmp_path / "c", [{"id": "else", "value": 1.0}])
    with pytest.raises(UsageError, match="share no scored item"):
        compare.compare(a, c)


def test_items_that_only_one_side_has_are_counted_and_named(tmp_path, capsys):
    many = [{"id": f"x{k}", "value": 1.0} for k in range(5)]
    a = evaluation(tmp_path / "a", [*rows([1.0, 0.0, 0.0, None]), *many])
    b = evaluation(tmp_path / "b", [*rows([1.0, 1.0, None, 1.0]), {"id": "other", "value": 1.0}])
    comparison = compare.compare(a, b)
    [row] = comparison["units"]
    assert (row["n"], row["only_a"], row["only_b"]) == (2, [f"x{k}" for k in range(5)], ["other"])
    assert row["unscored"] == ["r2", "r3"] and comparison["uncompared"] == []
    compare.show(comparison)
    said = "tooluse: 5 only in A (x0, x1, x2, …), 1 only in B (other), 2 unscored in A or B (r2, r3); 2 were compared"
    assert f"not compared: {said}" in capsys.readouterr().out


def test_units_and_parts_that_cannot_be_compared_are_named(tmp_path, capsys):
    one, two = (make_run(tmp_path / name) for name in ("one", "two"))
    last = [next(run.glob("evals/03-*")) for run in (one, two)]
    (last[1] / f"{TASKS[1]}.jsonl").unlink()
    unscore(two, TASKS[2])
    for folder, dropped in zip(last, PARTS, strict=False):
        path = folder / "suite-micro.jsonl"
        kept = [line for line in path.read_text().splitlines() if json.loads(line)["part"] != dropped]
        path.write_text("".join(line + "\n" for line in kept))
    comparison = compare.compare(str(one), str(two))
    assert sorted(comparison["uncompared"]) == [
        f"{TASKS[2]}: no item is scored on both sides",
        f"only A was measured on {TASKS[1]}",
        f"suite-micro: only A has the part {PARTS[1]}",
        f"suite-micro: only B has the part {PARTS[0]}",
        "the runs' metrics: they are not over the same items of the same task sequence",
    ]
    assert set(units(comparison)) == {"suite-micro", TASKS[0]}
    compare.show(comparison)
    assert capsys.readouterr().out.count("not compared: ") == 5


def test_a_part_without_shared_items_does_not_hide_the_suite(tmp_path):
    one, two = (make_run(tmp_path / name) for name in ("one", "two"))
    path = next(two.glob("evals/03-*/suite-micro.jsonl"))
    items = [json.loads(line) for line in path.read_text().splitlines()]
    renamed = [row | {"id": f"new-{row['id']}"} if row["part"] == PARTS[0] else row for row in items]
    path.write_text("".join(json.dumps(row) + "\n" for row in renamed))
    comparison = compare.compare(str(one), str(two))
    assert units(comparison)["suite-micro"]["n"] == 40
    assert comparison["uncompared"][0] == f"suite-micro, {PARTS[0]}: no item is scored on both sides"


def test_seeds_over_other_tasks_are_refused_and_forced(tmp_path):
    folders = [make_run(tmp_path / f"{m}{k}", m, seed=k) for m in ("sdft", "sft") for k in (1, 2)]
    unscore(folders[0], TASKS[1])
    with pytest.raises(UsageError, match="the runs have different unscored tasks: micro-science, none"):
        compare.compare_seeds(folders, "method")
    forced = compare.compare_seeds(folders, "method", forced=True)
    assert any("different unscored tasks" in warning for warning in forced["warnings"])


def test_other_settings_are_refused_and_forced(tmp_path):
    a, b = evaluation(tmp_path / "a", rows([1.0])), evaluation(tmp_path / "b", rows([0.0]), limit=9)
    with pytest.raises(UsageError, match=r"row limit differs: none \(A\), 9 \(B\)"):
        compare.compare(a, b)
    with pytest.raises(UsageError, match="--at-accuracy compares runs"):
        compare.compare(a, b, forced=True, levels=[0.5])
    comparison = compare.compare(a, b, forced=True)
    assert comparison["equal_accuracy"] is None
    assert "--force was given" in comparison["warnings"][0] and comparison["units"]


def test_a_model_is_found_by_its_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"name": name}))
        weights = digests.of_weights(name)
        folder = Path(evaluation(tmp_path / f"runs/evals/tooluse-{name}", rows([float(name == "two")])))
        scores = json.loads((folder / "scores.json").read_text())
        (folder / "scores.json").write_text(json.dumps({**scores, "identity": {"weights": weights}}))
    [row] = compare.compare("one", "two")["units"]
    assert (row["a"], row["b"]) == (0.0, 1.0)
    shutil.copytree("runs/evals/tooluse-one", "runs/evals/tooluse-again")
    with pytest.raises(UsageError, match="measured under several settings"):
        compare.compare("one", "two")
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="no evaluation of three") as caught:
        compare.compare("three", "two")
    assert caught.value.hint == "evaluate it first with `sdft eval three`"


def test_unreadable_targets_are_named(tmp_path):
    with pytest.raises(UsageError, match="no model folder"):
        cache.read(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="is neither a run"):
        cache.read("org/model")
    folder = Path(evaluation(tmp_path / "a", rows([1.0])))
    (folder / "tooluse.jsonl").unlink()
    with pytest.raises(UsageError, match="no item files"):
        cache.read(str(folder))


# --- methods over seeds -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("seeds")
    return [
        make_run(root / f"{m}-{s}", m, rates, items=10, seed=s)
        for m, rates in (("sdft", KEEPS), ("sft", FORGETS))
        for s in (0, 1, 2)
    ]


def test_methods_are_compared_over_seeds(seeds):
    comparison = compare.compare_seeds(seeds, "method")
    values = [results.load_run(f).metrics["average_accuracy"] for f in seeds]
    sdft_group, _ = comparison["groups"]
    assert (sdft_group["name"], sdft_group["seeds"]) == ("sdft", ["0", "1", "2"])
    mean, ends = seed_mean(values[:3])
    assert sdft_group["metrics"]["average_accuracy"] == {"value": mean, "interval": ends}
    [pair] = comparison["pairs"]
    test = pair["tests"]["average_accuracy"]
    theirs = stats.ttest_rel(values[:3], values[3:])
    assert test["t_p"] == pytest.approx(theirs.pvalue) and pair["smallest_p"] == test["flip_p"] == 0.25
    assert test["interval"] == pytest.approx(tuple(theirs.confidence_interval()))


def test_seeds_are_paired_by_number_and_not_by_order(seeds):
    comparison = compare.compare_seeds([seeds[2], seeds[0], seeds[3], seeds[5]], "method")
    [pair] = comparison["pairs"]
    a, b = (
        {f.name[-1]: results.load_run(f).metrics["average_accuracy"] for f in part} for part in (seeds[:3], seeds[3:])
    )
    assert pair["seeds"] == ["2", "0"] and pair["smallest_p"] == 0.5
    assert pair["tests"]["average_accuracy"]["value"] == pytest.approx(np.mean([a[s] - b[s] for s in ("0", "2")]))
    [unpaired] = compare.compare_seeds([*seeds[:2], seeds[5]], "method")["pairs"]
    assert unpaired["seeds"] == [] and unpaired["tests"] == {} and unpaired["smallest_p"] is None


def test_another_key_of_the_recipe_can_group(seeds, tmp_path):
    copies = [Path(shutil.copytree(f, tmp_path / f.name)) for f in seeds]
    for folder in copies:
        recipe = json.loads((folder / "recipe.json").read_text())
        rate = 1e-4 if folder.name.startswith("sdft") else 1e-3
        (folder / "recipe.json").write_text(json.dumps({**recipe, "train": {"lr": rate}}))
    comparison = compare.compare_seeds(copies, "lr")
    assert [group["name"] for group in comparison["groups"]] == ["lr=0.0001", "lr=0.001"]
    with pytest.raises(UsageError, match="unknown key"):
        compare.compare_seeds(copies, "learning")


def test_three_groups_are_compared_in_pairs(seeds, tmp_path):
    more = [make_run(tmp_path / f"grpo-{s}", "grpo", KEEPS, items=10, seed=s) for s in (0, 1)]
    comparison = compare.compare_seeds([*seeds, *more], "method")
    assert [(p["a"], p["b"], len(p["seeds"])) for p in comparison["pairs"]] == [
        ("sdft", "sft", 3),
        ("sdft", "grpo", 2),
        ("sft", "grpo", 2),
    ]


def test_comparisons_that_seeds_cannot_support_are_refused(seeds, tmp_path):
    with pytest.raises(UsageError, match="no method has two seeds"):
        compare.compare_seeds([seeds[0], seeds[3]], "method")
    again = shutil.copytree(seeds[0], tmp_path / "again")
    with pytest.raises(UsageError, match="are both sdft with seed 0"):
        compare.compare_seeds([seeds[0], again, seeds[3]], "method")
    short = make_run(tmp_path / "short", "sft", FORGETS, items=10, seed=7, evaluated=2)
    with pytest.raises(UsageError, match="different last stages: 3, 2"):
        compare.compare_seeds([*seeds, short], "method")
    comparison = compare.compare_seeds([*seeds, short], "method", forced=True)
    assert comparison["warnings"] == ["Compared with --force although the runs have different last stages: 3, 2"]


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command(sdft, pair, seeds):
    code, out, err = sdft("compare", *pair)
    assert code == 0 and err == "" and "exact McNemar" in out and "compare several seeds" in out
    assert f"{TASKS[0]}, lost in B: " in out and "--json lists all" in out
    assert max(len(line) for line in out.splitlines() if "0.0" in line and "lost in" not in line) <= 80
    code, out, _ = sdft("compare", *pair, "--json")
    assert code == 0 and {row["unit"] for row in json.loads(out)["units"]} == {*TASKS, "suite-micro"}
    code, out, _ = sdft("compare", *map(str, seeds), "--by", "method")
    assert code == 0 and "With 3 common seeds the smallest possible sign-flip p is 0.250." in out and "3 seeds" in out
    code, out, _ = sdft("compare", *map(str, seeds), "--by", "method", "--json")
    assert json.loads(out)["by"] == "method"


def test_recipes_are_compared_at_equal_accuracy(sdft, pair, seeds):
    code, out, _ = sdft("compare", *map(str, seeds), "--by", "method", "--at-accuracy", "0.5,0.4")
    assert code == 0 and "Prior change at equal accuracy on the new task" in out and "All levels" not in out
    _, out, _ = sdft("compare", *map(str, seeds), "--by", "method", "--at-accuracy", "0.5,0.4", "--json")
    stages = json.loads(out)["equal_accuracy"]["stages"]
    assert [stage["stage"] for stage in stages] == [1, 2, 3, None]
    assert all([level["accuracy"] for level in stage["levels"]] == [0.4, 0.5] for stage in stages)
    _, out, _ = sdft("compare", *map(str, seeds), "--by", "method")
    assert "All levels: whole sequence" in out and out.count("95 % t-intervals. Difference: minus") == 1
    code, out, _ = sdft("compare", *pair, "--json")
    ends = json.loads(out)["equal_accuracy"]["stages"][0]["levels"][-1]["groups"]
    assert [one["group"] for one in ends] == ["A", "B"] and ends[1]["difference"]["since_base"]["value"] < 0


def test_without_evaluations_during_training_a_line_says_what_is_lacking(sdft, tmp_path):
    folders = [
        make_run(tmp_path / f"{m}-{s}", m, items=6, seed=s, suite=False) for m in ("sdft", "sft") for s in (0, 1)
    ]
    code, out, _ = sdft("compare", *map(str, folders), "--by", "method")
    said = "not compared at equal accuracy: no prior suite was evaluated"
    assert code == 0 and said in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compare", "one"], "takes two checkpoints, not 1"),
        (["compare", "a", "b", "c"], "--by method"),
        (["compare", "./a", "./b"], "no model folder at ./a"),
        (["compare", "a", "b", "--by", "method"], "a is not a run folder"),
        (["compare", "a", "b", "--at-accuracy", "80"], "--at-accuracy 80 is no list of accuracies"),
        (["compare", "a", "b", "--at-accuracy", "high"], "such as 0.6,0.8"),
    ],
)
def test_bad_usage(sdft, words, says):
    code, out, err = sdft(*words)
    assert code == 2 and out == "" and says in err and "Traceback" not in err
