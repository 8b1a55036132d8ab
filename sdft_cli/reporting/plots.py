"""The figures of a report: under what title and for which runs each is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from sdft_cli.reporting import curves, drawing, measures, scatter
from sdft_cli.reporting.groups import Group
from sdft_cli.runs.results import RunResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The lines of more groups than this cannot be told apart; then those with the best average accuracy are drawn.
MOST = 8


@dataclass(frozen=True)
class Plot:
    """A figure, and the runs for which it ``makes_sense``. ``every``: it shows all groups, however many. ``shows``:
    whether there would be anything to see in it."""

    name: str
    title: str
    caption: str
    draw: Callable[[Sequence[Group]], Figure]
    makes_sense: Callable[[RunResult], bool]
    every: bool = False
    shows: Callable[[Sequence[Group]], bool] = lambda groups: True


@dataclass(frozen=True)
class Drawn:
    """A figure as it was saved; ``svg`` is for the page."""

    name: str
    title: str
    caption: str
    svg: str


PLOTS = (
    Plot(
        "sequence",
        "The task sequence",
        "Each line is a task: it should rise in its own stage and stay up in later stages.",
        curves.sequence,
        lambda run: run.last > 1,
        shows=curves.has_gain,
    ),
    Plot("accuracy", "Accuracy during training", "", curves.accuracy_curves, curves.has_accuracy),
    Plot(
        "pareto",
        "New tasks against prior skills",
        "To the right: new tasks are learned. Downwards: skills of the base model are forgotten.",
        scatter.pareto,
        scatter.has_end,
        every=True,
    ),
    Plot(
        "equal-accuracy",
        "Prior change at equal accuracy on the new task",
        "At one place from left to right, recipes are equally good at the new task; higher lines forget less.",
        scatter.learning_paths,
        lambda run: bool(run.evals and run.prior),
        shows=scatter.has_paths,
    ),
    Plot(
        "loss",
        "Loss of demonstrations",
        "Lower is better; it is no accuracy.",
        curves.loss_curves,
        lambda run: bool(run.losses),
    ),
    Plot("forgetting", "Forgetting", "", scatter.forgetting, lambda run: run.last > 1 and curves.has_accuracy(run)),
    Plot(
        "pass-at-k",
        "pass@k",
        "",
        curves.pass_at_k,
        lambda run: any(measures.pass_at(run, task) for task in run.tasks),
    ),
    Plot(
        "training",
        "Training curves",
        "Losses and divergences of different methods are not comparable; KL is in nats per token for every method.",
        curves.training_curves,
        curves.has_training,
    ),
)


def draw(groups: Sequence[Group], out: Path) -> list[Drawn]:
    """Draw every figure that makes sense into ``out``, as PNG and SVG."""
    drawn = []
    for plot in PLOTS:
        suitable = [group for group in groups if any(map(plot.makes_sense, group.runs))]
        if suitable and plot.shows(suitable):
            selected = suitable if plot.every else best(suitable)
            selection = f"The {MOST} of {len(suitable)} groups with the best average accuracy."
            caption = " ".join(filter(None, (plot.caption, selection if len(selected) < len(suitable) else "")))
            svg = drawing.save(plot.draw(selected), out / plot.name, plot.title)
            drawn.append(Drawn(plot.name, plot.title, caption, svg))
    return drawn


def best(groups: Sequence[Group]) -> list[Group]:
    """The `MOST` groups with the best average accuracy, in the order given."""
    means = {g.name: fmean(run.metrics["average_accuracy"] or 0.0 for run in g.runs) for g in groups}
    ranked = sorted(groups, key=lambda group: -means[group.name])[:MOST]
    return [group for group in groups if group in ranked]
