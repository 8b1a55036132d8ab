"""Batches in flight: those that are sampled and not used up when a run is stopped between two regular checkpoints.

A regular checkpoint comes at a step without any. A stop cannot wait for one, so the state it saves has them, and the
resumed run uses what the uninterrupted one would have used. Where settings that decide a batch have been changed for
the resumed run, they are dropped and sampled anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdft_cli.config.recipe import Recipe
from sdft_cli.models.batching import Row
from sdft_cli.training.batches import Batch

#: Plain data, which `torch.load` reads without running any code.
Stored = dict[str, Any]


def stored(batches: Sequence[Batch]) -> list[Stored]:
    return [{"rows": [vars(row) for row in batch.rows], "facts": dict(batch.facts)} for batch in batches]


def loaded(batches: Sequence[Stored]) -> list[Batch]:
    return [Batch([Row(**row) for row in batch["rows"]], batch["facts"]) for batch in batches]


def settings(recipe: Recipe) -> Stored:
    """The settings of a phase that decide its batches."""
    train, engine = recipe.train, recipe.engine
    sections = ("sampler", "views", "objective", "reward")
    tree = recipe.model_dump(mode="json")
    of_batches = {name: tree.get(name) for name in sections}
    return {**of_batches, "batch": train.batch, "updates": train.updates, "engine": [engine.name, engine.prefetch]}
