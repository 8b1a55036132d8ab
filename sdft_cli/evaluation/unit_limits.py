"""The limits of new tokens of units as numbers, which for ``auto`` takes the tokenizer of the model that is scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdft_cli import console
from sdft_cli.data.completion_limits import DemonstratedLimit
from sdft_cli.evaluation.units import Unit
from sdft_cli.types import NewTokens, Task

if TYPE_CHECKING:
    from sdft_cli.evaluation.loaded_model import LoadedModel


class UnitLimits:
    """Of units whose datasets are in ``data``, where ``asked`` is the setting of the evaluation."""

    def __init__(self, data: Path, asked: NewTokens | None):
        self.data, self.asked = data, asked
        self.known: dict[str, Task] = {}

    def of(self, unit: Unit, model: LoadedModel) -> Unit:
        """The unit with its task's limit as a number; where demonstrations say it, that is told once."""
        if unit.task is None:
            return unit
        if unit.name not in self.known:
            limit = DemonstratedLimit(self.data / unit.name, model.chat)
            self.known[unit.name] = limit.of(unit.task, self.asked)
            if said := limit.note(unit.task, self.asked):
                console.err.print(said, highlight=False, markup=False, soft_wrap=True)
        return replace(unit, task=self.known[unit.name])
