"""The warm-up of the learning rate: how many steps of a phase it takes, and whether the phase ever reaches its rate."""

from __future__ import annotations

from sdft_cli.config.recipe import Recipe, Train
from sdft_cli.errors import UsageError

#: Steps of warm-up where the recipe sets none.
DEFAULT = 10


def warm_up_steps(train: Train, steps: int) -> int:
    """Steps of linear warm-up in a phase of ``steps`` steps: the recipe's, or ten, but then no more than half of the
    phase. A warm-up is meant to be a small part of training; past the half, the rate that was chosen is hardly used."""
    return min(DEFAULT, steps // 2) if train.warmup_steps is None else train.warmup_steps


def check_warm_up(phase: Recipe, steps: int, task: str, inherited: bool = False) -> list[str]:
    """What to say of the warm-up of a phase of ``steps`` steps; ``inherited``: it was set for another phase.

    Raises `UsageError` for one that was asked for and leaves no step at the full rate.
    """
    asked, lr = phase.train.warmup_steps, phase.train.lr
    if asked is not None and asked > 1 and asked >= steps:
        problem = f"{task}: train.warmup_steps={asked}, and there are {steps} steps: the rate never stays at {lr:g}"
        table = "second_phase." if inherited else ""
        raise UsageError(problem, f"set {table}train.warmup_steps to {steps // 2} or less, or train for more steps")
    if asked is None and steps // 2 < DEFAULT:
        return [f"{task}: warm-up over {steps // 2} of {steps} steps, not {DEFAULT} (train.warmup_steps)"]
    return []
