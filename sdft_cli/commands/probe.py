"""The `probe` command: before training, is the model, shown the demonstrations, a teacher worth learning from?

Measured in `training.probe`, judged in `training.probe_advice`, printed in `reporting.probe`. Nothing is written.
"""

from __future__ import annotations

from sdft_cli.config.recipe import Recipe
from sdft_cli.training.probe_advice import advise
from sdft_cli.training.probe_record import ProbeReport

LIMIT = 64


def probe(recipe: Recipe, limit: int = LIMIT) -> ProbeReport:
    """Every task of ``recipe`` on at most ``limit`` train rows each, and the warnings drawn from that."""
    from sdft_cli.training.probe import measure

    measured = measure(recipe, limit)
    return {**measured, "warnings": [advice for task in measured["tasks"] for advice in advise(task)]}
