"""The `probe` command: before training, will self-distillation work on this model and these rows, and with which
settings?

Measured in `training.probe`, judged in `training.probe_advice`, made into a recipe in `training.probe_recipe`, printed
in `reporting.probe`. Nothing is written but the recipe, if a file is named for it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sdft_cli.config.recipe import Recipe
from sdft_cli.errors import UsageError
from sdft_cli.runs.files import check_place, write_whole
from sdft_cli.training.probe_advice import advise, verdict
from sdft_cli.training.probe_record import ProbeReport

if TYPE_CHECKING:
    from sdft_cli.training.memory_outlook import Hardware

LIMIT = 64


def probe(
    recipe: Recipe,
    limit: int = LIMIT,
    quick: bool = False,
    recipe_file: Path | None = None,
    hardware: Hardware | None = None,
) -> ProbeReport:
    """Every task of ``recipe`` on at most ``limit`` train rows each, what is concluded from it, and a recipe, which is
    written to ``recipe_file``. ``quick`` leaves out the costly parts (`training.probe.measure`). Of ``hardware``
    it is told what fits there."""
    from sdft_cli.training.memory_outlook import THIS_MACHINE
    from sdft_cli.training.probe import measure
    from sdft_cli.training.probe_recipe import FILE, recommend

    if recipe_file:
        _check_free(recipe_file)
    measured = measure(recipe, limit, quick, hardware or THIS_MACHINE)
    verdicts = [verdict(task) for task in measured["tasks"]]
    advised = recommend(recipe, measured, verdicts, str(recipe_file or FILE))
    if recipe_file and advised:
        _check_free(recipe_file)  # it may have appeared in the meantime
        write_whole(recipe_file, advised["toml"])
    warnings = [advice for task in measured["tasks"] for advice in advise(task)]
    return {**measured, "verdicts": verdicts, "recipe": advised, "warnings": warnings}


def _check_free(file: Path) -> None:
    """Raise `UsageError` for a file that is there already, and `OSError` for a place that cannot be written to."""
    if os.path.lexists(file):
        raise UsageError(f"{file} is there already, and --write-recipe replaces nothing", "name another file")
    check_place(file.absolute().parent)
