"""Figures of lines: accuracy, the sequence (Figure 3), training and pass@k, as matplotlib Figures.

A group's several runs are thin lines around their mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sdft_cli.reporting import comparisons, records
from sdft_cli.reporting.by_stage import cells, mean_cells, suite_of, title_of
from sdft_cli.reporting.drawing import FAINT, INK, End, Look, label_ends, looks, panels, point, wants_legend
from sdft_cli.reporting.groups import Group
from sdft_cli.runs.results import RunResult
from sdft_cli.stats.continual import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
Series = list[tuple[float, float]]

STEPS = "training step, whole sequence"
#: Means of groups that are so many times each other want a logarithmic axis.
FAR = 20
#: What is drawn of training: key, title, unit.
TRAINING = (
    ("loss", "Loss", "each method's own"),
    ("kl", "KL between student and teacher", "nats a token"),
    ("entropy", "Entropy of the student", "nats a token"),
    ("completion_tokens", "Completion length", "tokens"),
)


def accuracy_curves(groups: Sequence[Group]) -> Figure:
    """Accuracy over training steps, a panel a task and one for the prior suite.

    Lines are evals (few items), markers the evaluations before training and after each stage.
    """
    runs = [run for group in groups for run in group.runs]
    tasks: list[str | None] = list(dict.fromkeys(task for run in runs for task in run.tasks))
    every = [*tasks, *([None] if any(run.prior for run in runs) else [])]
    foot = "line: evals on few items; marker and bar: full test sets, 95 % interval; dotted: base model"
    drawn, legend = _named(groups)
    with panels(len(every), 2, (5.2, 2.8), foot, legend) as (figure, axes):
        for axis, task in zip(axes, every, strict=True):
            axis.set_title(task or f"prior suite: {suite_of(runs)}")
            axis.set(ylim=(-0.03, 1.03), ylabel="accuracy", xlabel=STEPS)
            ends = [_accuracy(axis, group, look, task, band=not legend) for group, look in drawn]
            _base_line(axis, [cells(run, task)[0][0] for run in runs])
            _stages(axis, runs, own=task)
            label_ends(axis, [] if legend else ends)
    return figure


def sequence(groups: Sequence[Group]) -> Figure:
    """The SDFT paper's Figure 3: a panel a group, a line a task, as a share of the best gain over the base."""
    runs = [run for group in groups for run in group.runs]
    tasks = list(dict.fromkeys(task for run in runs for task in run.tasks))
    best = {task: comparisons.best_gain(runs, task) for task in tasks}
    lines = looks(tasks)
    foot = "0: base model; 1: best of all runs at the end of a stage; marker: full test sets, line: evals on few items"
    legend = lines if wants_legend(tasks) else ()
    named: list[tuple[Axes, list[End | None]]] = []
    with panels(len(groups), 2, (5.2, 2.8), foot, legend) as (figure, axes):
        for axis, group in zip(axes, groups, strict=True):
            axis.set_title(title_of(group))
            ends = [_share_line(axis, group, look, best[look.name]) for look in lines]
            axis.axhline(0, color=FAINT, linestyle=":", linewidth=1.2, zorder=1)
            axis.set(ylabel="share of the best gain", xlabel=STEPS)
            _stages(axis, group.runs)
            named.append((axis, [] if legend else ends))
        low = min(-0.1, *(axis.get_ylim()[0] for axis in axes))
        for axis, ends in named:
            axis.set_ylim(low, 1.12)
            label_ends(axis, ends)
    return figure


def training_curves(groups: Sequence[Group]) -> Figure:
    """Loss, KL to the teacher, entropy and completion length over training steps, as far as they were measured."""
    runs = [run for group in groups for run in group.runs]
    measured = [row for row in TRAINING if any(step.get(row[0]) is not None for run in runs for step in run.steps)]
    foot = "vertical lines: end of a stage; of long runs a running mean over a sixtieth of the steps"
    drawn, legend = _named(groups)
    with panels(len(measured), 2, (5.2, 2.5), foot, legend) as (figure, axes):
        for axis, (key, title, unit) in zip(axes, measured, strict=True):
            axis.set_title(title)
            axis.set(ylabel=unit, xlabel=STEPS)
            series = [[_smooth(run, key) for run in group.runs] for group, _ in drawn]
            if _far_apart(series):
                axis.set_yscale("log")
                axis.yaxis.set_major_formatter("{x:g}")
            ends = [_line(axis, of, look) for of, (_, look) in zip(series, drawn, strict=True)]
            _stages(axis, runs, names=False)
            label_ends(axis, [] if legend else ends)
    return figure


def pass_at_k(groups: Sequence[Group]) -> Figure:
    """pass@k at the end over k, a panel a task: does training sharpen, or does it also reach more?"""
    runs = [run for group in groups for run in group.runs]
    tasks = [t for t in dict.fromkeys(task for run in runs for task in run.tasks) if any(_pass(r, t) for r in runs)]
    foot = "unbiased estimates; bars: 95 % intervals over questions"
    drawn, legend = _named(groups)
    with panels(len(tasks), 2, (5.2, 2.8), foot, legend) as (figure, axes):
        for axis, task in zip(axes, tasks, strict=True):
            axis.set_title(task)
            axis.set_xscale("log", base=2)
            ends = [_pass_curve(axis, [_pass(run, task) for run in group.runs], look) for group, look in drawn]
            ks = sorted({k for run in runs for k in _pass(run, task)})
            axis.set_xticks(ks, map(str, ks))
            axis.set(ylim=(-0.03, 1.03), ylabel="pass@k", xlabel="k, completions of each question")
            label_ends(axis, [] if legend else ends)
    return figure


# --- lines -------------------------------------------------------------------------------------------------------


def _named(groups: Sequence[Group]) -> tuple[list[tuple[Group, Look]], Sequence[Look]]:
    """Each group with its look, and the looks for a legend where names do not fit beside lines."""
    names = [title_of(group) for group in groups]
    styled = looks(names)
    return list(zip(groups, styled, strict=True)), styled if wants_legend(names) else ()


def _evals(run: RunResult, task: str | None) -> list[tuple[float, float, int]]:
    """Step, accuracy and number of items of a task's evals."""
    rows = [
        (row["global_step"], row.get("suite") if task is None else row.get("scores", {}).get(task)) for row in run.evals
    ]
    return [(at, p["accuracy"], p["n"]) for at, p in rows if p and p.get("n") and p.get("accuracy") is not None]


def _joined(run: RunResult, task: str | None) -> Series:
    """The points to join: evals, and full evaluations only where no probe goes (they are of other items)."""
    ends = zip([0, *run.boundaries()], cells(run, task), strict=False)
    full: Series = [(at, value) for at, (value, _) in ends if value is not None]
    evals: Series = [(at, value) for at, value, _ in _evals(run, task)]
    if not evals:
        return full
    return [*(p for p in full if p[0] < evals[0][0]), *evals, *(p for p in full if p[0] > evals[-1][0])]


def _line(axis: Axes, series: Sequence[Series], look: Look) -> End | None:
    """One series as a line; of several their mean, where all of them are, with each as a thin line."""
    known = [one for one in series if one]
    if not known:
        return None
    for one in known if len(known) > 1 else ():
        axis.plot(*zip(*one, strict=True), color=look.colour, linewidth=0.7, alpha=0.35, zorder=1)
    tables = [dict(one) for one in known]
    mean = [(x, fmean(t[x] for t in tables)) for x, _ in known[0] if all(x in t for t in tables)]
    shown = mean or known[0]  # runs that were never looked at in the same step have no mean
    axis.plot(*zip(*shown, strict=True), color=look.colour, linestyle=look.dash, linewidth=1.6)
    return (*shown[-1], look.name, look.colour)


def _accuracy(axis: Axes, group: Group, look: Look, task: str | None, band: bool) -> End | None:
    """One group in one panel: its line, a band around the evals of a single run, and the evaluations."""
    run = group.runs[0]
    evals = _evals(run, task) if band and len(group.runs) == 1 else []
    if evals:
        lows, highs = zip(*(wilson(value * n, n) for _, value, n in evals), strict=True)
        axis.fill_between([at for at, _, _ in evals], lows, highs, color=look.colour, alpha=0.12, linewidth=0)
    end = _line(axis, [_joined(run, task) for run in group.runs], look)
    for at, (value, pair) in zip([0, *run.boundaries()], mean_cells(group, task), strict=False):
        if value is not None:
            point(axis, at, value, look, up=pair)
    return end


def _share_line(axis: Axes, group: Group, look: Look, best: tuple[float, float] | None) -> End | None:
    """One task of Figure 3 in a group's panel."""
    task, series = look.name, []
    for run in group.runs:
        base = cells(run, task)[0][0]
        shares = [(at, comparisons.share(value, base, best)) for at, value in _joined(run, task)]
        series.append([(at, value) for at, value in shares if value is not None])
    end = _line(axis, series, look)
    bases = [cells(run, task)[0][0] for run in group.runs]
    for k, at in enumerate([0, *group.runs[0].boundaries()][: group.runs[0].last + 1]):
        ends = [comparisons.share(cells(r, task)[k][0], base, best) for r, base in zip(group.runs, bases, strict=True)]
        known = [value for value in ends if value is not None]
        if known:
            point(axis, at, fmean(known), look)
    return end


def _smooth(run: RunResult, key: str) -> Series:
    """A measure of training: of long runs a running mean within each stage."""
    rows = [row for row in run.steps if row.get(key) is not None and math.isfinite(row[key])]
    window = max(1, len(rows) // 60)
    near = [
        [r for r in rows[max(0, i + 1 - window) : i + 1] if r["stage"] == row["stage"]] for i, row in enumerate(rows)
    ]
    return [(row["global_step"], fmean(r[key] for r in group)) for row, group in zip(rows, near, strict=True)]


def _far_apart(series: Sequence[Sequence[Series]]) -> bool:
    """Whether groups would hide each other on a linear axis: all values positive, one mean `FAR` times another."""
    found = [[y for one in of for _, y in one] for of in series]
    known = [values for values in found if values]
    means = [fmean(values) for values in known]
    return bool(known) and min(map(min, known)) > 0 and max(means) > FAR * min(means)


def _pass(run: RunResult, task: str) -> dict[int, Row]:
    """What is known of pass@k, by k."""
    return {int(k): cell for k, cell in records.pass_at(run, task).items() if cell["value"] is not None}


def _pass_curve(axis: Axes, of: Sequence[dict[int, Row]], look: Look) -> End | None:
    for k, cell in of[0].items() if len(of) == 1 else ():
        point(axis, k, cell["value"], look, up=cell["interval"])
    return _line(axis, [[(k, cell["value"]) for k, cell in found.items()] for found in of], look)


def _base_line(axis: Axes, values: Sequence[float | None]) -> None:
    for value in {round(v, 6) for v in values if v is not None}:
        axis.axhline(value, color=FAINT, linestyle=":", linewidth=1.2, zorder=1)


def _stages(axis: Axes, runs: Sequence[RunResult], own: str | None = None, names: bool = True) -> None:
    """Where stages end, with the task that each trains on top (bold if it is the panel's ``own``); only where all runs
    agree, for else the lines would say nothing."""
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
                  color=INK if task == own else FAINT, fontweight="bold" if task == own else "normal",
                  transform=axis.get_xaxis_transform())  # fmt: skip
