"""What several processes cannot do yet, refused before anything is written."""

from __future__ import annotations

from sdft_cli.config.recipe import Recipe
from sdft_cli.distributed.team import team
from sdft_cli.errors import UsageError
from sdft_cli.models.engine import ENGINES


def check_several(recipe: Recipe) -> None:
    """Raise `UsageError` for what ``recipe`` asks of several processes in vain; nothing in one."""
    if team().size == 1:
        return
    whole = recipe.lora.rank == 0
    if recipe.plugins:
        raise UsageError("plug-ins need one process so far", "leave out --gpus or the launcher")
    if getattr(ENGINES.get(recipe.engine.name), "one_process", False):
        raise UsageError(f"engine {recipe.engine.name} needs one process so far", "use --engine transformers")
    if recipe.engine.prefetch:
        raise UsageError("engine.prefetch needs one process so far", "set engine.prefetch=0")
    if whole and recipe.train.optimizer == "adamw8bit":
        hint = "set train.optimizer=adamw"
        raise UsageError("train.optimizer=adamw8bit needs one process so far: its blocks do not follow shards", hint)
    if whole and recipe.teacher and recipe.teacher.storage == "cpu":
        hint = "set teacher.storage=auto, or half"
        raise UsageError("teacher.storage=cpu needs one process so far: with several, the teacher is sharded", hint)
