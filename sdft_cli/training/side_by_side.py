"""How many runs fit into memory side by side."""

from __future__ import annotations

from collections.abc import Sequence

from sdft_cli.models import pretrained
from sdft_cli.training.available_memory import free_bytes
from sdft_cli.training.cost_estimates import footprint, load_of
from sdft_cli.training.preflight import most as longest
from sdft_cli.training.run_plan import RunPlan


def most(plans: Sequence[RunPlan], wanted: int) -> int:
    """At most ``wanted`` runs, and at least one: as many as have room on their device by their predicted peaks."""
    free = free_bytes(pretrained.placement(plans[0].recipe.runtime)[0])
    if free is None:
        return wanted
    peaks = sorted((peak(plan) for plan in plans), reverse=True)
    return max((k for k in range(1, wanted + 1) if sum(peaks[:k]) <= free), default=1)


def peak(plan: RunPlan) -> int:
    """The most bytes that the run is predicted to hold at once."""
    load = load_of(plan.recipe, *longest(plan.stages))
    return footprint(plan.recipe, plan.location, len(plan.stages), load)["predicted_peak_bytes"]
