"""Recipes: layers, short keys, and errors that name the choices."""

import json
from pathlib import Path

import pytest

from sdft_cli.config.overrides import change, differences, parse_sets
from sdft_cli.config.recipe import Recipe, build, paths
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.errors import UsageError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_layers_win_in_order(tmp_path: Path, tiny_model: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for f in tiny_model.iterdir():
        (model / f.name).write_bytes(f.read_bytes())
    (model / "sdft.toml").write_text("[train]\nlr = 2e-4\nbatch = 8\n[methods.sft.train]\nlr = 3e-4\n")
    file = write(tmp_path / "r.toml", f'tasks = ["micro-tooluse"]\nmodel = "{model}"\n[train]\nbatch = 16\n')
    assert assemble(file, {}, []).train.lr == 2e-4
    assert assemble(file, {"method": "sft"}, []).train.lr == 3e-4
    assert assemble(file, {}, []).train.batch == 16
    assert assemble(file, {}, ["batch=4"]).train.batch == 4
    assert assemble(file, {"seed": 5}, []).seed == 5
    assert assemble(file, {}, []).objective.skip_first == "auto"  # the method's default is the lowest layer


def test_saved_recipes_load_equal(tmp_path: Path) -> None:
    recipe = assemble(None, {"tasks": ["micro-tooluse"]}, ["teacher=frozen", "rank=8"])
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.model_dump(mode="json")))
    assert Recipe.load(tmp_path / "recipe.json") == recipe
    assert recipe.teacher is not None and recipe.teacher.update_rate == 0


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("lr=1e-4", ("train", "lr"), 1e-4),
        ("train.batch=8", ("train", "batch"), 8),
        ("divergence=reverse_kl", ("objective", "divergence"), "reverse_kl"),
        ("teacher=live", ("teacher",), "live"),
        ("importance_cap=none", ("objective", "importance_cap"), None),
        ("target_modules=['q_proj', 'v_proj']", ("lora", "target_modules"), ["q_proj", "v_proj"]),
    ],
)
def test_set_takes_paths_and_unique_leaves(text: str, key: tuple[str, ...], value: object) -> None:
    tree = parse_sets([text])
    for part in key[:-1]:
        tree = tree[part]
    assert tree == {key[-1]: value}


@pytest.mark.parametrize(
    ("sets", "says", "hint"),
    [
        (["trian.lr=1"], "unknown key 'trian.lr'", "train.lr"),
        (["learning_rate=1"], "unknown key", ""),
        (["max_new_tokens=4"], "more than one key", "sampler.max_new_tokens"),
        (["lr"], "no '='", "--set"),
        (["lr=-1"], "train.lr", ""),
        (["divergence=forward"], "forward_kl", ""),
        (["teacher=ghost"], "frozen, live, ema, periodic", ""),
        (["batch=many"], "train.batch", ""),
    ],
)
def test_mistakes_are_named(sets: list[str], says: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        assemble(None, {"tasks": ["micro-tooluse"]}, sets)
    assert says in caught.value.message and hint in caught.value.hint


def test_mistakes_in_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not valid TOML"):
        assemble(write(tmp_path / "a.toml", "x = = 1"), {}, [])
    with pytest.raises(UsageError, match=r"unknown key 'train\.lrr'") as caught:
        assemble(write(tmp_path / "b.toml", "[train]\nlrr = 1"), {}, [])
    assert "train.lr" in caught.value.hint
    with pytest.raises(UsageError, match="no such method"):
        assemble(write(tmp_path / "c.toml", "[methods.stf.train]\nlr = 1"), {}, [])
    with pytest.raises(UsageError, match="unknown key"):
        assemble(write(tmp_path / "d.toml", "[methods.sft.train]\nlrr = 1"), {"method": "sdft"}, [])
    with pytest.raises(UsageError, match="no recipe at"):
        assemble(tmp_path / "none.toml", {}, [])


def test_every_key_is_reachable() -> None:
    assert {"train.lr", "teacher.update_rate", "objective.divergence", "lora.rank", "sampler.n"} <= set(paths())
    assert build([{"tasks": ["a"]}]).tasks == ("a",)


def test_every_shipped_recipe_parses() -> None:
    files = sorted((Path(__file__).parents[2] / "recipes").rglob("*.toml"))
    assert files
    for file in files:
        recipe = assemble(file, {"model": "micro"}, [], point={})  # some hold a grid
        assert recipe.tasks, file


def test_a_started_run_takes_only_settings_that_can_still_change() -> None:
    recipe = assemble(None, {"tasks": ["micro-tooluse"]}, [])
    changed = change(recipe, ["lr=1e-6", "train.eval_every=5", "guards.repetition=none", "engine.prefetch=2"])
    assert (changed.train.lr, changed.train.eval_every, changed.engine.prefetch) == (1e-6, 5, 2)
    assert list(differences(recipe, changed)) == [
        *("train.lr", "train.eval_every", "engine.prefetch", "guards.repetition")
    ]
    for text in ("batch=4", "evaluation.limit=5", "views.teacher=answer", "method=sft"):
        with pytest.raises(UsageError, match="the run has started with another value"):
            change(recipe, [text])
