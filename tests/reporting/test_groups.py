"""Groups of runs: only seeds of one recipe are averaged, and every run has a name of its own."""

from __future__ import annotations

import json

from support.run_folder import TASKS, make_run

from sdft_cli.reporting import groups
from sdft_cli.reporting.report_json import gather
from sdft_cli.reporting.settings_tables import chosen_table, settings_tables
from sdft_cli.runs import results


def run(path, method="sdft", seed=0, evaluated=None, **settings):
    """A run whose recipe also has ``settings``, by dotted path written with ``__``."""
    folder = make_run(path, method, items=4, seed=seed, evaluated=evaluated)
    recipe = json.loads((folder / "recipe.json").read_text())
    for key, value in settings.items():
        table, _, name = key.partition("__")
        recipe.setdefault(table, {})[name] = value
    (folder / "recipe.json").write_text(json.dumps(recipe))
    return results.load_run(folder)


def named(*runs):
    grouped = groups.groups_of(runs)
    return {group.name: [r.name for r in group.runs] for group in grouped}, groups.labels(grouped)


def test_seeds_of_one_recipe_are_a_group(tmp_path):
    a, b, c = run(tmp_path / "a"), run(tmp_path / "b", seed=1), run(tmp_path / "c", "sft")
    assert named(a, c, b) == ({"sdft": ["a", "b"], "sft": ["c"]}, ["sdft seed 0", "sdft seed 1", "sft"])


def test_settings_that_differ_separate_runs_and_name_them(tmp_path):
    runs = [run(tmp_path / f"{lr}-{seed}", seed=seed, train__lr=lr) for lr in (1e-4, 5e-5) for seed in (0, 1)]
    by_name, labels = named(*runs)
    assert list(by_name) == ["sdft lr=0.0001", "sdft lr=5e-05"]
    assert labels[3] == "sdft lr=5e-05 seed 1"


def test_of_many_settings_only_the_unusual_are_in_a_name(tmp_path):
    usual = {"train__lr": 1e-4, "train__batch": 8, "teacher__update_rate": 0.01}
    others = [{}, {"train__lr": 2e-4}, {"train__batch": 16}, {"teacher__update_rate": 0.0}]
    runs = [run(tmp_path / str(k), **{**usual, **other}) for k, other in enumerate(others)]
    assert list(named(*runs)[0]) == ["sdft", "sdft lr=0.0002", "sdft batch=16", "sdft update_rate=0"]


def test_the_same_seed_twice_is_not_two_seeds(tmp_path):
    a, b = run(tmp_path / "a"), run(tmp_path / "b")
    assert named(a, b) == ({"sdft": ["a"], "b": ["b"]}, ["sdft", "b"])
    assert named(a, a, a)[1] == ["sdft", "a", "a (3)"]


def test_the_machine_and_unrecorded_settings_do_not_separate_runs(tmp_path):
    a, b = run(tmp_path / "a", runtime__threads=1), run(tmp_path / "b", seed=1, runtime__threads=2)
    assert list(named(a, b)[0]) == ["sdft"]  # how fast it ran
    assert list(named(a, run(tmp_path / "c", seed=1, train__lr=1.0))[0]) == ["sdft"]  # a has not recorded it


def test_unfinished_runs_are_not_averaged_with_finished_ones(tmp_path):
    a, b = run(tmp_path / "a"), run(tmp_path / "b", seed=1, evaluated=len(TASKS) - 1)
    assert len(named(a, b)[0]) == 2


def test_a_key_that_a_side_lacks_counts_as_differing():
    assert groups.differing([{"a": 1, "b": [2]}, {"a": 1, "b": [3], "c": None}]) == ["b", "c"]
    assert [groups.as_text(v) for v in (None, True, 1e-5, [1.0, "x"], [], "x")] == [
        "none",
        "true",
        "1e-05",
        "1, x",
        "none",
        "x",
    ]


def test_seeds_are_pooled_only_if_they_agree_stage_by_stage_and_changed_alike(tmp_path):
    def continued(path, seed, methods, **row):
        folder = make_run(path, methods[-1], items=4, seed=seed)
        recipe = json.loads((folder / "recipe.json").read_text())
        (folder / "recipes").mkdir()
        for number, (task, method) in enumerate(zip(TASKS, methods, strict=True), 1):
            stage = folder / "recipes" / f"{number:02d}-{task}.json"
            stage.write_text(json.dumps({**recipe, "method": method, "train": {"lr": 1e-5}}))
        if row:
            with (folder / "metrics.jsonl").open("a") as f:
                f.write(
                    json.dumps({"kind": "settings", "stage": 1, "task": TASKS[0], "step": 3, "changed": row}) + "\n"
                )
        return results.load_run(folder)

    early, late = ("sdft", "sft", "sft"), ("sdft", "sdft", "sft")
    a, b = continued(tmp_path / "a", 0, late), continued(tmp_path / "b", 1, late)
    c = continued(tmp_path / "c", 2, early)
    d = continued(tmp_path / "d", 3, late, **{"train.lr": [1e-4, 1e-5]})
    e = continued(tmp_path / "e", 4, late, **{"engine.name": ["vllm", "transformers"], "inputs.others.x": ["1", "2"]})
    by_name, _ = named(a, b, c, d, e)
    assert by_name == {"sdft, then sft": ["a", "b", "e"], "c": ["c"], "d": ["d"]}
    assert results.load_run(tmp_path / "a").method == "sdft, then sft"


def test_auto_is_the_number_that_it_came_to(tmp_path):
    def chose(path, seed, *numbers, said="auto"):
        folder = run(path, seed=seed, objective__skip_first=said).folder
        facts = {"rows": 16, "demonstration_tokens": None, "why": "it was measured"}
        rows = [
            {"kind": "skip_first", "stage": k, "task": TASKS[k - 1], "step": 0, "skip_first": number, **facts}
            for k, number in enumerate(numbers, 1)
        ]
        with (folder / "metrics.jsonl").open("a") as f:
            f.writelines(json.dumps(row) + "\n" for row in rows)
        return results.load_run(folder)

    auto, given = chose(tmp_path / "auto", 0, 3, 3, 3), chose(tmp_path / "given", 1, said=3)
    assert named(auto, given)[0] == {"sdft": ["auto", "given"]}
    assert auto.recipe["objective"] == {"skip_first": 3} == given.recipe["objective"]
    other, none = chose(tmp_path / "other", 1, 3, 0, 3), chose(tmp_path / "none", 2, said=0)
    assert named(auto, other)[0] == {"sdft": ["auto", "other"]}  # one recipe, whatever it came to
    assert named(other, none, given)[0] == {"sdft skip_first=3, then 0, then 3": ["other"]} | {
        f"sdft skip_first={k}": [name] for k, name in ((0, "none"), (3, "given"))
    }
    report = gather(groups.groups_of([auto, other]))
    chosen = chosen_table(report["runs"])
    assert [[cell.text for cell in row] for row in chosen.rows][4] == [
        "sdft seed 1", f"2 {TASKS[1]}", "objective.skip_first", "0, because it was measured",
    ]  # fmt: skip
    shown = {row[0].text: row[1].text for row in settings_tables(report, "recipe")[0].rows}
    assert shown["objective.skip_first"] == "3, 3, then 0, then 3"
