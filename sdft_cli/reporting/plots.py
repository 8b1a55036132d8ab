"""Which figures a report has, when, and under what title; drawn one after the other and saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from sdft_cli.reporting import curves, drawing, records, scatter
from sdft_cli.reporting.groups import Group
from sdft_cli.runs.results import RunResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Lines of more groups than this cannot be told apart; these have the best average accuracy.
MOST = 8


@dataclass(frozen=True)
class Plot:
    """A figure that is drawn of the runs for which it ``makes_sense``; ``every``: of all groups, however many."""

    name: str
    title: str
    caption: str
    draw: Callable[[Sequence[Group]], Figure]
    makes_sense: Callable[[RunResult], bool]
    every: bool = False


@dataclass(frozen=True)
class Drawn:
    """A figure as it stands in the output folder, and in the page."""

    name: str
    title: str
    caption: str
    svg: str


PLOTS = (
    Plot(
        "sequence",
        "The sequence, task by task",
        "Each line is a task: it should rise in its own stage and stay up in later ones.",
        curves.sequence,
        lambda run: run.last > 1,
    ),
    Plot("accuracy", "Accuracy while training", "", curves.accuracy_curves, lambda run: True),
    Plot(
        "pareto",
        "Prior skills against the new tasks",
        "To the right is learning, downwards is forgetting what the base model could do.",
        scatter.pareto,
        lambda run: bool(run.last and run.prior and run.prior[0] is not None and run.prior[-1] is not None),
        every=True,
    ),
    Plot("forgetting", "Forgetting", "", scatter.forgetting, lambda run: run.last > 1),
    Plot(
        "pass-at-k",
        "pass@k",
        "",
        curves.pass_at_k,
        lambda run: any(records.pass_at(run, task) for task in run.tasks),
    ),
    Plot(
        "training",
        "Training curves",
        "Losses of different methods do not compare.",
        curves.training_curves,
        lambda run: bool(run.steps),
    ),
)


def draw(groups: Sequence[Group], out: Path) -> list[Drawn]:
    """Draw what makes sense into ``out``, each as PNG and SVG."""
    found = []
    for plot in PLOTS:
        fit = [group for group in groups if any(map(plot.makes_sense, group.runs))]
        if fit:
            shown = fit if plot.every else best(fit)
            left_out = len(fit) - len(shown)
            more = f" Shown are the {MOST} of {len(fit)} with the best average accuracy." if left_out else ""
            svg = drawing.save(plot.draw(shown), out / plot.name, plot.title)
            found.append(Drawn(plot.name, plot.title, plot.caption + more, svg))
    return found


def best(groups: Sequence[Group]) -> list[Group]:
    """At most `MOST` groups, those whose average accuracy is best, in the order given."""
    means = {g.name: fmean(run.metrics["average_accuracy"] or 0.0 for run in g.runs) for g in groups}
    ranked = sorted(groups, key=lambda group: -means[group.name])[:MOST]
    return [group for group in groups if group in ranked]
