"""Figures of lines, as matplotlib Figures: accuracy, the task sequence (Figure 3), training and pass@k.

The runs of a group are thin lines around their mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Literal, NamedTuple

from sdft_cli.reporting import gain_shares, measures
from sdft_cli.reporting.by_stage import accuracies, mean_accuracies
from sdft_cli.reporting.drawing import FAINT, INK, End, Look, label_ends, looks, panels, point, wants_legend
from sdft_cli.reporting.groups import Group, suites_of
from sdft_cli.runs.records import StepRow
from sdft_cli.runs.results import RunResult
from sdft_cli.stats.intervals import Interval, wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series = list[tuple[float, float]]

STEPS = "training step, whole sequence"
#: An axis becomes logarithmic where the means of two groups differ by more than this factor.
FAR = 20


class TrainingPanel(NamedTuple):
    """One measure of a step row: its key there, the panel's title, and the unit on its axis."""

    key: Literal["loss", "kl", "reverse_kl", "divergence", "entropy", "completion_tokens"]
    title: str
    unit: str


TRAINING = (
    TrainingPanel("loss", "Loss", "as the method defines it"),
    TrainingPanel("divergence", "Divergence that the method minimises", "as the method defines it"),
    TrainingPanel("kl", "KL(teacher ‖ student)", "nats per token"),
    TrainingPanel("reverse_kl", "KL(student ‖ teacher), estimated from samples", "nats per token"),
    TrainingPanel("entropy", "Entropy of the student", "nats per token"),
    TrainingPanel("completion_tokens", "Completion length", "tokens"),
)


class EvalPoint(NamedTuple):
    """A mid-training evaluation: the global step, the accuracy, and how many items it was measured on."""

    step: float
    accuracy: float
    n: int


class PassPoint(NamedTuple):
    """pass@k for one k, with its interval over questions."""

    value: float
    interval: Interval | None


def accuracy_curves(groups: Sequence[Group]) -> Figure:
    """Accuracy over training steps, with a panel per task and one for the prior suite.

    Lines are mid-training evaluations on few items; markers are the full evaluations before training and after each
    stage.
    """
    runs = [run for group in groups for run in group.runs]
    scored = [task for task in _tasks(runs) if not all(task in run.unscored for run in runs)]
    tasks: list[str | None] = [*scored, *([None] if any(run.prior for run in runs) else [])]
    foot = "line: evaluations during training (few items); marker: full test sets, 95 % interval; dotted: base model"
    styled, legend = _styled(groups)
    with panels(len(tasks), 2, (5.2, 2.8), foot, legend) as (figure, axes):
        for axis, task in zip(axes, tasks, strict=True):
            axis.set_title(task or f"prior suite: {suites_of(runs)}")
            axis.set(ylim=(-0.03, 1.03), ylabel="accuracy", xlabel=STEPS)
            ends = [_accuracy(axis, group, look, task, band=not legend) for group, look in styled]
            _base_line(axis, [accuracies(run, task)[0]["value"] for run in runs])
            _stages(axis, runs, bold=task)
            label_ends(axis, [] if legend else ends)
    return figure


def has_accuracy(run: RunResult) -> bool:
    """Whether anything of the run was scored, so that `accuracy_curves` has a panel."""
    return bool(run.prior) or len(run.unscored) < len(run.tasks)


def loss_curves(groups: Sequence[Group]) -> Figure:
    """Loss of demonstrations over training steps, a panel per task. Lines are mid-training evaluations on validation
    rows; markers are those before training and after each stage."""
    runs = [run for group in groups for run in group.runs]
    tasks = [task for task in _tasks(runs) if any(task in run.losses for run in runs)]
    foot = "line: validation rows, during training; marker: before training and after each stage, 95 % interval"
    styled, legend = _styled(groups)
    with panels(len(tasks), 2, (5.2, 2.8), foot, legend) as (figure, axes):
        for axis, task in zip(axes, tasks, strict=True):
            axis.set_title(task)
            axis.set(ylabel="nats per token", xlabel=STEPS)
            ends = [_loss_line(axis, group, look, task) for group, look in styled]
            _stages(axis, runs, bold=task)
            label_ends(axis, [] if legend else ends)
    return figure


def has_gain(groups: Sequence[Group]) -> bool:
    """Whether any run learned enough of a task for `sequence` to have a line."""
    runs = [run for group in groups for run in group.runs]
    return any(share is not None for run in gain_shares.shares(runs) for row in run for share in row)


def sequence(groups: Sequence[Group]) -> Figure:
    """The SDFT paper's Figure 3: a panel per group and a line per task, as a share of the best gain over the base."""
    runs = [run for group in groups for run in group.runs]
    tasks = _tasks(runs)
    best = {task: gain_shares.best_gain(runs, task) for task in tasks}
    lines = looks(tasks)
    foot = (
        "0: base model; 1: best of all runs after any stage; marker: full test sets; line: evaluations during training"
    )
    legend = lines if wants_legend(tasks) else ()
    labelled: list[tuple[Axes, list[End | None]]] = []
    with panels(len(groups), 2, (5.2, 2.8), foot, legend) as (figure, axes):
        for axis, group in zip(axes, groups, strict=True):
            axis.set_title(group.title)
            ends = [_share_line(axis, group, look, best[look.name]) for look in lines]
            axis.axhline(0, color=FAINT, linestyle=":", linewidth=1.2, zorder=1)
            axis.set(ylabel="share of the best gain", xlabel=STEPS)
            _stages(axis, group.runs)
            labelled.append((axis, [] if legend else ends))
        low = min(-0.1, *(axis.get_ylim()[0] for axis in axes))
        for axis, ends in labelled:
            axis.set_ylim(low, 1.12)
            label_ends(axis, ends)
    return figure


def has_training(run: RunResult) -> bool:
    """Whether the run logged anything that `training_curves` draws."""
    return any(_numbers(run.steps, panel) for panel in TRAINING)


def training_curves(groups: Sequence[Group]) -> Figure:
    """What was logged over training steps, a panel per measure of `TRAINING`; measures that no run logged have none."""
    runs = [run for group in groups for run in group.runs]
    measured = [panel for panel in TRAINING if any(_numbers(run.steps, panel) for run in runs)]
    foot = "vertical lines: end of a stage; lines of long runs are running means over a sixtieth of the steps"
    styled, legend = _styled(groups)
    with panels(len(measured), 2, (5.2, 2.5), foot, legend) as (figure, axes):
        for axis, panel in zip(axes, measured, strict=True):
            axis.set_title(panel.title)
            axis.set(ylabel=panel.unit, xlabel=STEPS)
            series = [[_smooth(run, panel) for run in group.runs] for group, _ in styled]
            if _far_apart(series):
                axis.set_yscale("log")
                axis.yaxis.set_major_formatter("{x:g}")
            ends = [_line(axis, of_group, look) for of_group, (_, look) in zip(series, styled, strict=True)]
            _stages(axis, runs, names=False)
            label_ends(axis, [] if legend else ends)
    return figure


def pass_at_k(groups: Sequence[Group]) -> Figure:
    """pass@k at the end over k, a panel per task: does training only sharpen, or does it also solve more questions?"""
    runs = [run for group in groups for run in group.runs]
    tasks = [task for task in _tasks(runs) if any(_pass_at(run, task) for run in runs)]
    foot = "unbiased estimates; bars: 95 % intervals over questions"
    styled, legend = _styled(groups)
    with panels(len(tasks), 2, (5.2, 2.8), foot, legend) as (figure, axes):
        for axis, task in zip(axes, tasks, strict=True):
            axis.set_title(task)
            axis.set_xscale("log", base=2)
            ends = [_pass_curve(axis, [_pass_at(run, task) for run in group.runs], look) for group, look in styled]
            ks = sorted({k for run in runs for k in _pass_at(run, task)})
            axis.set_xticks(ks, map(str, ks))
            axis.set(ylim=(-0.03, 1.03), ylabel="pass@k", xlabel="k, completions per question")
            label_ends(axis, [] if legend else ends)
    return figure


# --- lines -------------------------------------------------------------------------------------------------------


def _tasks(runs: Sequence[RunResult]) -> list[str]:
    return list(dict.fromkeys(task for run in runs for task in run.tasks))


def _styled(groups: Sequence[Group]) -> tuple[list[tuple[Group, Look]], Sequence[Look]]:
    """Each group with its look, and the looks that a legend must explain (none where names fit beside the lines)."""
    names = [group.title for group in groups]
    styles = looks(names)
    return list(zip(groups, styles, strict=True)), styles if wants_legend(names) else ()


def _evals(run: RunResult, task: str | None) -> list[EvalPoint]:
    """The mid-training evaluations of a task (None: of the prior suite)."""
    scores = [(row["global_step"], row["suite"] if task is None else row["scores"].get(task)) for row in run.evals]
    return [
        EvalPoint(step, score["accuracy"], score["n"])
        for step, score in scores
        if score and score["n"] and score["accuracy"] is not None
    ]


def _joined(run: RunResult, task: str | None) -> Series:
    """The points that a line joins: mid-training evaluations, and full ones before the first and after the last of
    them (not between, because they are measured on other items)."""
    ends = zip([0, *run.boundaries()], accuracies(run, task), strict=False)
    full: Series = [(at, value) for at, accuracy in ends if (value := accuracy["value"]) is not None]
    evals: Series = [(at, value) for at, value, _ in _evals(run, task)]
    if not evals:
        return full
    return [*(p for p in full if p[0] < evals[0][0]), *evals, *(p for p in full if p[0] > evals[-1][0])]


def _line(axis: Axes, series: Sequence[Series], look: Look) -> End | None:
    """One series as a line; for several, each as a thin line and their mean where all of them have a point."""
    drawn = [points for points in series if points]
    if not drawn:
        return None
    for points in drawn if len(drawn) > 1 else ():
        axis.plot(*zip(*points, strict=True), color=look.colour, linewidth=0.7, alpha=0.35, zorder=1)
    tables = [dict(points) for points in drawn]
    mean = [(x, fmean(t[x] for t in tables)) for x, _ in drawn[0] if all(x in t for t in tables)]
    line = mean or drawn[0]  # runs that have no step in common have no mean
    axis.plot(*zip(*line, strict=True), color=look.colour, linestyle=look.dash, linewidth=1.6)
    return (*line[-1], look.name, look.colour)


def _accuracy(axis: Axes, group: Group, look: Look, task: str | None, band: bool) -> End | None:
    """One group in one panel: its line, a band around the evaluations of a single run, and markers after stages."""
    run = group.runs[0]
    evals = _evals(run, task) if band and len(group.runs) == 1 else []
    if evals:
        lows, highs = zip(*(wilson(value * n, n) for _, value, n in evals), strict=True)
        axis.fill_between([at for at, _, _ in evals], lows, highs, color=look.colour, alpha=0.12, linewidth=0)
    end = _line(axis, [_joined(run, task) for run in group.runs], look)
    for at, accuracy in zip([0, *run.boundaries()], mean_accuracies(group, task), strict=False):
        if accuracy["value"] is not None:
            point(axis, at, accuracy["value"], look, up=accuracy["interval"])
    return end


def _loss_line(axis: Axes, group: Group, look: Look, task: str) -> End | None:
    """One group's losses in a task's panel: its line, and markers after stages."""
    lines: list[Series] = []
    for run in group.runs:
        scores = [(row["global_step"], row["scores"].get(task)) for row in run.evals]
        lines.append([(at, score["loss"]["value"]) for at, score in scores if score and "loss" in score])
    end = _line(axis, lines, look)
    for k, at in enumerate([0, *group.runs[0].boundaries()][: group.runs[0].last + 1]):
        cells = [run.losses[task][k] for run in group.runs if task in run.losses]
        measured = [cell for cell in cells if cell]
        if measured:
            ends = measured[0].get("interval") if len(measured) == 1 else None
            point(axis, at, fmean(cell["value"] for cell in measured), look, up=(ends[0], ends[1]) if ends else None)
    return end


def _share_line(axis: Axes, group: Group, look: Look, best: gain_shares.Best | None) -> End | None:
    """One task of Figure 3 in a group's panel."""
    task, series = look.name, []
    for run in group.runs:
        base = accuracies(run, task)[0]["value"]
        shares = [(at, gain_shares.share(value, base, best)) for at, value in _joined(run, task)]
        series.append([(at, value) for at, value in shares if value is not None])
    end = _line(axis, series, look)
    full = [[accuracy["value"] for accuracy in accuracies(run, task)] for run in group.runs]
    for k, at in enumerate([0, *group.runs[0].boundaries()][: group.runs[0].last + 1]):
        ends = [share for values in full if (share := gain_shares.share(values[k], values[0], best)) is not None]
        if ends:
            point(axis, at, fmean(ends), look)
    return end


def _numbers(rows: Sequence[StepRow], panel: TrainingPanel) -> list[tuple[StepRow, float]]:
    """The rows that have a finite value for a panel, each with it."""
    values = [(row, row.get(panel.key)) for row in rows]
    return [(row, value) for row, value in values if value is not None and math.isfinite(value)]


def _smooth(run: RunResult, panel: TrainingPanel) -> Series:
    """A measure of training; for long runs a running mean within each stage."""
    numbers = _numbers(run.steps, panel)
    window = max(1, len(numbers) // 60)
    series: Series = []
    for i, (row, _) in enumerate(numbers):
        recent = numbers[max(0, i + 1 - window) : i + 1]
        series.append((row["global_step"], fmean(value for r, value in recent if r["stage"] == row["stage"])))
    return series


def _far_apart(series: Sequence[Sequence[Series]]) -> bool:
    """Whether a linear axis would flatten a group: all values are positive, and one mean is `FAR` times another."""
    of_groups = [[y for points in of_group for _, y in points] for of_group in series]
    drawn = [values for values in of_groups if values]
    means = [fmean(values) for values in drawn]
    return bool(drawn) and min(map(min, drawn)) > 0 and max(means) > FAR * min(means)


def _pass_at(run: RunResult, task: str) -> dict[int, PassPoint]:
    """pass@k by k, where it could be estimated."""
    estimates = measures.pass_at(run, task)
    return {int(k): PassPoint(v, e["interval"]) for k, e in estimates.items() if (v := e["value"]) is not None}


def _pass_curve(axis: Axes, of_runs: Sequence[Mapping[int, PassPoint]], look: Look) -> End | None:
    for k, (value, interval) in of_runs[0].items() if len(of_runs) == 1 else ():
        point(axis, k, value, look, up=interval)
    return _line(axis, [[(k, value) for k, (value, _) in by_k.items()] for by_k in of_runs], look)


def _base_line(axis: Axes, values: Sequence[float | None]) -> None:
    for value in {round(v, 6) for v in values if v is not None}:
        axis.axhline(value, color=FAINT, linestyle=":", linewidth=1.2, zorder=1)


def _stages(axis: Axes, runs: Sequence[RunResult], bold: str | None = None, names: bool = True) -> None:
    """Mark where stages end, with the task of each on top (in bold type if it is ``bold``).

    Nothing is marked where the stages of the runs differ, because the marks would fit only some of them.
    """
    longest = max(runs, key=lambda run: len(run.boundaries()))
    ends = longest.boundaries()
    if any(run.boundaries() != ends[: len(run.boundaries())] or run.stages != longest.stages for run in runs):
        return
    for x in ends[:-1]:
        axis.axvline(x, color=FAINT, linewidth=0.8, alpha=0.7, zorder=0)
    for k, (left, right) in enumerate(zip([0, *ends], ends, strict=False) if names else (), start=1):
        task, room = longest.stages[k - 1], 40 * (right - left) / ends[-1]
        name = task if len(task) <= room else f"stage {k}"
        axis.text((left + right) / 2, 1.0, name, ha="center", va="bottom", fontsize=7.5,
                  color=INK if task == bold else FAINT, fontweight="bold" if task == bold else "normal",
                  transform=axis.get_xaxis_transform())  # fmt: skip
