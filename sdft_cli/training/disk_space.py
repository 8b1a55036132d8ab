"""Whether a run's checkpoints will fit on the disk, before any of them is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from sdft_cli.config.recipe import Recipe
from sdft_cli.errors import UsageError
from sdft_cli.training.cost_estimates import GIB, disk_bytes


def free_bytes(folder: Path) -> int:
    """Bytes that are free where ``folder`` is, or will be."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


def held_bytes(folder: Path) -> int:
    """Bytes of the files in ``folder``, which need not exist."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def check_disk(recipe: Recipe, location: str, folder: Path) -> None:
    """Raise `UsageError` where the run in ``folder`` will not fit; what it holds already counts as written."""
    needed = disk_bytes(recipe, location, len(recipe.tasks)) - held_bytes(folder)
    if needed <= (free := free_bytes(folder)):
        return
    raise UsageError(
        f"{folder}: the run needs up to {needed / GIB:.2f} GiB on disk, and {free / GIB:.2f} GiB are free there",
        f"{_smaller(recipe)}, or name a folder on another disk with --out",
    )


def _smaller(recipe: Recipe) -> str:
    """What would make the run smaller."""
    train, changes = recipe.train, []
    if train.checkpoint_every and train.keep_checkpoints > 1:
        changes.append("lower train.keep_checkpoints")
    elif train.checkpoint_every:
        changes.append("set train.checkpoint_every=0 (a killed run then starts its stage anew)")
    if train.best == "keep" and train.eval_every:
        changes.append("set train.best=off")
    if recipe.lora.rank == 0:
        changes.append("set lora.rank=16 (only the adapter is saved)")
    return ", ".join(changes) or "train fewer tasks"
