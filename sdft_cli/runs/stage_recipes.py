"""The settings that finished stages were trained with, where they are not those of ``recipe.json``.

    runs/<name>/recipes/NN-<task>.json

``recipe.json`` is the recipe of the stages that are under way or to come. When it changes, because a run is continued
or resumed with other settings, the recipe of every stage that is finished by then is put here. A run whose settings
never changed has no such folder.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdft_cli.config import json_files
from sdft_cli.config.overrides import differences
from sdft_cli.config.recipe import Recipe
from sdft_cli.config.recipe_layers import absolute_paths
from sdft_cli.config.run_changes import OF_METHOD
from sdft_cli.config.toml_tables import Layer, merge
from sdft_cli.runs.files import write_whole
from sdft_cli.runs.records import SkipFirstRow, StageId
from sdft_cli.types import Json

#: What all stages of a run share, whatever their own settings are.
SHARED = ("tasks", "model", "data", "suite", "world", "plugins", "evaluation", "judge")


@dataclass(frozen=True)
class StageRecipes:
    """The recipes of the stages of the run in ``run``."""

    run: Path

    def path(self, stage: StageId) -> Path:
        return self.run / "recipes" / f"{stage}.json"

    def of(self, stage: StageId, newest: Recipe) -> Recipe:
        """The recipe of ``stage``, where ``newest`` is that of ``recipe.json``."""
        if not self.path(stage).is_file():
            return newest
        return Recipe.load(self.path(stage)).model_copy(update={key: getattr(newest, key) for key in SHARED})

    def keep(self, stages: Iterable[StageId], recipe: Recipe) -> None:
        """Put the recipe of those ``stages`` here that have none yet."""
        for stage in stages:
            if not self.path(stage).is_file():
                write_whole(self.path(stage), json.dumps(recipe.model_dump(mode="json"), indent=2) + "\n")


def changed_settings(old: Recipe, new: Recipe) -> dict[str, list[Json]]:
    """The keys in which the recipe of a run changes, each with its old and its new value. Further tasks are no change,
    nor is a path that is written out."""
    changed = differences(absolute_paths(old), absolute_paths(new))
    return {key: values for key, values in changed.items() if key != "tasks"}


def own_settings(changed: dict[str, list[Json]]) -> dict[str, list[Json]]:
    """Those of ``changed`` keys that are a stage's own."""
    return {key: values for key, values in changed.items() if key.split(".")[0] not in SHARED}


class RecipeFacts(json_files.Record, total=False):
    """What is read of the recipe of a run that is only reported on: it may be of a version with other keys."""

    method: str | dict[str, Json]
    tasks: list[str]
    suite: str | None
    model: str
    seed: int
    world: int


# --- for readers ------------------------------------------------------------------------------------------------------


def by_stage(run: Path, newest: Layer, stages: Sequence[str]) -> list[Layer]:
    """The recipe of every stage, as it is on disk; ``newest`` is the content of ``recipe.json``."""
    paths = [StageRecipes(run).path(StageId(number, task)) for number, task in enumerate(stages, 1)]
    shared = {key: newest[key] for key in SHARED if key in newest}
    hint = "restore the file, or train again in another folder (--out)"
    return [
        {**json_files.read(path, RecipeFacts, hint), **shared} if json_files.exists(path) else newest for path in paths
    ]


def settled(recipes: Sequence[Layer], chosen: Iterable[SkipFirstRow]) -> list[Layer]:
    """The recipe of every stage with the numbers that an ``auto`` came to in it."""
    told = list(recipes)
    for row in chosen:
        at = row["stage"] - 1
        if at < len(told):
            *tables, key = settled_key(row).split(".")
            own: Layer = {key: row["skip_first"]}
            for table in reversed(tables):
                own = {table: own}
            told[at] = merge(told[at], own)
    return told


def settled_key(row: SkipFirstRow) -> str:
    """The dotted path of the setting whose ``auto`` came to a number."""
    return ("second_phase." if row.get("phase") else "") + "objective.skip_first"


def in_words(recipes: Sequence[Layer], newest: Layer) -> Layer:
    """``newest``, where each setting in which the stages differ tells all their values: ``sdft, then sft``."""
    told: Layer = {}
    for key in dict.fromkeys(key for recipe in [*recipes, newest] for key in recipe):
        values = [recipe.get(key) for recipe in recipes] or [newest.get(key)]
        tables = [value for value in values if isinstance(value, dict)]
        if all(value == values[0] for value in values):
            told[key] = values[0]
        elif len(tables) == len(values):
            told[key] = in_words(tables, tables[-1])
        else:
            told[key] = ", then ".join(text(value) for value, _ in itertools.groupby(values))
    return told


def in_short(changed: Mapping[str, Sequence[Json]]) -> str:
    """``method sdft, then sft; train.lr 1e-05, then 0.0001``. Of another method, its own sections are left out."""
    keys = [key for key in changed if "method" not in changed or key.split(".")[0] not in OF_METHOD]
    pairs = [f"{key} {text(changed[key][0])}, then {text(changed[key][1])}" for key in keys]
    return "; ".join(pairs)


def text(value: Json) -> str:
    """A setting's value as a person would write it."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
