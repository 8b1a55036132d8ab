"""Groups of runs: only seeds of one recipe are averaged, and every run has a name of its own."""

from __future__ import annotations

import json

from support.run_folder import TASKS, make_run

from sdft_cli.reporting import groups
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
