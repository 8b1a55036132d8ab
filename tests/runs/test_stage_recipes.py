"""Settings that differ between stages, as readers are told of them."""

import json
from pathlib import Path

from support.run_folder import make_run

from sdft_cli.config.recipe import Recipe
from sdft_cli.runs.records import StageId
from sdft_cli.runs.results import load_run
from sdft_cli.runs.stage_recipes import StageRecipes, in_short, in_words

A, B = StageId(1, "a"), StageId(2, "b")


def test_a_finished_stage_keeps_its_recipe_and_shares_the_runs_places(tmp_path: Path) -> None:
    recipes = StageRecipes(tmp_path)
    old = Recipe(tasks=("a",), method="sdft", seed=1, model="here", data="old")
    recipes.keep([A], old)
    recipes.keep([A], old.model_copy(update={"seed": 9}))  # the first one counts
    newest = Recipe(tasks=("a", "b"), method="sft", seed=2, model="there", data="new")
    assert recipes.of(A, newest) == newest.model_copy(update={"method": "sdft", "seed": 1})
    assert recipes.of(B, newest) == newest


def test_settings_in_words() -> None:
    first = {"method": "sdft", "seed": 0, "train": {"lr": 1e-5, "batch": 4}, "teacher": {"update_rate": 0.01}}
    last = {"method": "sft", "seed": 0, "train": {"lr": 1e-4, "batch": 4}, "teacher": None}
    told = in_words([first, first, last, first], last)
    assert told["method"] == "sdft, then sft, then sdft" and told["seed"] == 0
    assert told["train"] == {"lr": "1e-05, then 0.0001, then 1e-05", "batch": 4}
    assert told["teacher"] == '{"update_rate": 0.01}, then none, then {"update_rate": 0.01}'
    assert in_words([], first) == first
    assert in_short({"method": ["a", "b"], "sampler.n": [1, 8], "train.lr": [1e-5, None]}) == (
        "method a, then b; train.lr 1e-05, then none"
    )


def test_a_run_says_what_its_stages_were_trained_with_and_what_changed_inside_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", method="sft")
    recipe = json.loads((run / "recipe.json").read_text())
    (run / "recipes").mkdir()
    (run / "recipes" / "01-micro-tooluse.json").write_text(json.dumps({**recipe, "method": "sdft", "tasks": ["x"]}))
    changed = {"inputs.others./home/me/my.py": ["sha256 1", "sha256 2"], "data": ["/home/me/a", "/srv/b"]}
    row = {"kind": "settings", "stage": 1, "task": "micro-tooluse", "step": 7, "changed": changed}
    with (run / "metrics.jsonl").open("a") as f:
        f.write(json.dumps(row) + "\n")
    loaded = load_run(run)
    assert loaded.method == "sdft, then sft" and [r["method"] for r in loaded.stage_recipes] == ["sdft", "sft", "sft"]
    assert loaded.recipe["tasks"] == recipe["tasks"]
    (note,) = loaded.notes
    assert note == (
        "after stage 1 (micro-tooluse), step 7, settings or inputs changed: "
        "inputs.others.…/my.py sha256 1, then sha256 2; data …/a, then …/b"
    )
