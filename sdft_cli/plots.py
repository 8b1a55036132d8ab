"""Figures of one or several runs, as matplotlib Figures; `save` writes PNG, `svg` gives inline SVG.

Methods differ by colour (Okabe & Ito's, safe for the colour-blind), by line and by marker, and are named beside
their lines. Bands and bars are 95 % intervals over items; several seeds of a method are thin lines.
Text and axes carry one ink colour that `svg` turns into ``currentColor``, so that a page may be light or dark.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdft_cli.metrics import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sdft_cli.results import RunResult

    Panels = tuple[Figure, list[Axes]]

INK, FAINT = "#101418", "#808890"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9")
DASHES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
MARKERS = "osD^vP"
_STYLE = {
    "svg.fonttype": "path",
    "svg.hashsalt": "sdft",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlepad": 14.0,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def accuracy_curves(runs: Sequence[RunResult]) -> Figure:
    """Accuracy over global steps, a panel a task and one for the prior suite (the SDFT paper's Figure 3).

    Lines are probes (few items), markers the evaluations before training and after each stage; the dotted line is
    the base model.
    """
    tasks = list(dict.fromkeys(task for run in runs for task in run.tasks))
    panels: list[str | None] = [*tasks, *([None] if any(run.prior for run in runs) else [])]
    foot = "line and band: probes on few items; marker and bar: full test sets; 95 % intervals; dotted: base model"
    with _figure(len(panels), 2, (4.6, 2.7), foot) as (figure, axes):
        for axis, task in zip(axes, panels, strict=True):
            axis.set_title(f"{task}" if task else f"prior suite: {_suite(runs)}", fontweight="bold")
            axis.set_ylim(-0.03, 1.03)
            ends = [_curve(axis, run, style, task) for run, style in _styled(runs)]
            _base_line(axis, [_cells(run, task)[0][0] for run in runs])
            _stage_lines(axis, runs, task)
            _label_ends(axis, ends)
            axis.set_ylabel("accuracy")
            axis.set_xlabel("training step, whole sequence")
    return figure


def prior_against_new(runs: Sequence[RunResult]) -> Figure:
    """Prior accuracy against the new task's, a panel a stage (the paper's Figure 4): hollow before it, filled after.

    A method that learns without forgetting moves straight to the right.
    """
    stages = max(run.last for run in runs)
    foot = "hollow: before the stage; filled: after it; bars: 95 % intervals; dotted: prior accuracy of the base model"
    with _figure(max(1, stages), 3, (3.3, 3.1), foot, shared=True) as (figure, axes):
        for stage, axis in enumerate(axes, start=1):
            names = {run.stages[stage - 1]: None for run in runs if stage <= run.last}
            axis.set_title(f"stage {stage}: {', '.join(names)}", fontweight="bold")
            axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
            ends = [_move(axis, run, style, stage) for run, style in _styled(runs) if run.prior and stage <= run.last]
            _base_line(axis, [run.prior[0] for run in runs if run.prior])
            _label_ends(axis, ends)
            axis.set_xlabel("accuracy on this stage's task")
            axis.set_ylabel(f"prior accuracy ({_suite(runs)})")
    return figure


def matrix_heat(runs: Sequence[RunResult], names: Sequence[str]) -> Figure:
    """The accuracy matrix as a heat map, a panel a run; a frame marks the task that a stage trained."""
    columns, rows = max(len(run.tasks) + bool(run.prior) for run in runs), max(len(run.matrix) for run in runs)
    size = (max(3.2, 1.6 + 0.75 * columns), 1.5 + 0.42 * rows)
    with _figure(len(runs), 2, size, "accuracy; frame: the task that this stage trained") as (figure, axes):
        for axis, run, name in zip(axes, runs, names, strict=True):
            _heat(axis, run)
            axis.set_title(name, fontweight="bold")
    return figure


def training_curves(runs: Sequence[RunResult]) -> Figure:
    """Loss, KL to the teacher, entropy and completion length over global steps."""
    panels = (
        ("loss", "loss (each method's own)"),
        ("kl", "KL between student and teacher (nats/token)"),
        ("entropy", "entropy of the student (nats/token)"),
        ("completion_tokens", "completion length (tokens)"),
    )
    foot = "grey lines: end of a stage; of long runs a running mean over a sixtieth of the steps"
    with _figure(len(panels), 2, (4.6, 2.3), foot) as (figure, axes):
        for axis, (key, title) in zip(axes, panels, strict=True):
            axis.set_title(title, fontweight="bold")
            ends = [_training_curve(axis, run, style, key) for run, style in _styled(runs)]
            _stage_lines(axis, runs, None, names=False)
            _label_ends(axis, ends)
            axis.set_xlabel("training step, whole sequence")
            if not any(ends):
                axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", color=FAINT)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG (white ground, 150 dots an inch)."""
    with _style():
        figure.savefig(path, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    return path


def svg(figure: Figure, title: str = "") -> str:
    """One ``<svg>`` element without external references, its ids made from the drawing alone.

    Its ink is ``currentColor``; a page may brighten the first colour by ``--blue``.
    """
    buffer = io.StringIO()
    with _style():
        quiet = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=quiet)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor").replace(COLOURS[0], f"var(--blue, {COLOURS[0]})")
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    mark = "f" + hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{mark}-", text)
    text = re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", text, count=2)  # the page sizes it, up to --w
    width = round(96 * figure.get_figwidth())
    label = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    head = f'<svg role="img" aria-label="{label}" stroke-linejoin="round" style="--w: {width}px"'
    return text.replace("<svg", head, 1).strip()


Style = dict[str, Any]
Pair = tuple[float, float] | None  # an interval
End = tuple[float, float, str, str]  # where a line ends, and its name and colour


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


@contextmanager
def _figure(panels: int, columns: int, size: tuple[float, float], foot: str, shared: bool = False) -> Iterator[Panels]:
    """A figure with ``panels`` axes, ``columns`` side by side, drawn without any window system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(columns, panels)
    rows = -(-panels // columns)
    with _style():
        figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
        FigureCanvasAgg(figure)
        axes = list(figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared).flat)
        for spare in axes[panels:]:
            spare.remove()
        for axis in axes[:panels]:
            axis.tick_params(labelbottom=True, labelleft=True)
        figure.supxlabel(foot, x=0.005, ha="left", fontsize=7.5, color=FAINT)
        yield figure, axes[:panels]
        figure.draw_without_rendering()  # lays out once, not again for PNG and SVG
        figure.set_layout_engine("none")


def _styled(runs: Sequence[RunResult]) -> list[tuple[RunResult, Style]]:
    """Each run with its method's colour, line, marker and label; only a method's first run carries the label."""
    methods = list(dict.fromkeys(run.method for run in runs))
    seeds = {method: sum(run.method == method for run in runs) for method in methods}
    styled: list[tuple[RunResult, Style]] = []
    for run in runs:
        i, one = methods.index(run.method), seeds[run.method] == 1
        label = run.method if one else f"{run.method} ({seeds[run.method]} runs)"
        style = {"color": COLOURS[i % 6], "dash": DASHES[i % 6], "marker": MARKERS[i % 6], "one": one}
        first = all(earlier.method != run.method for earlier, _ in styled)
        styled.append((run, {**style, "width": 1.8 if one else 1.0, "label": label if first else ""}))
    return styled


def _suite(runs: Sequence[RunResult]) -> str:
    return ", ".join(dict.fromkeys(run.suite for run in runs if run.suite))


def _cells(run: RunResult, task: str | None) -> tuple[list[float | None], list[Pair]]:
    """Accuracies and intervals by stage of a task (None: the prior suite)."""
    rows = len(run.matrix)
    if task is None:
        return run.prior or [None] * rows, run.prior_intervals or [None] * rows
    column = run.columns.get(task)
    return (column.cells, column.intervals) if column else ([None] * rows, [None] * rows)


def _curve(axis: Axes, run: RunResult, style: Style, task: str | None) -> End | None:
    """One run in one panel: probes as a line with a band, evaluations as markers with bars; where it ends."""
    values, intervals = _cells(run, task)
    found = [
        (x, v, pair) for x, v, pair in zip([0, *run.boundaries()], values, intervals, strict=False) if v is not None
    ]
    probes = [(row["global_step"], p["accuracy"], p["n"]) for row in run.probes if (p := _probe(row, task))]
    if probes and style["one"]:
        bands = [wilson(a * n, n) for _, a, n in probes]
        lows, highs = [low for low, _ in bands], [high for _, high in bands]
        axis.fill_between([p[0] for p in probes], lows, highs, color=style["color"], alpha=0.15, linewidth=0)
    line = _line([(x, y) for x, y, _ in found], [(x, y) for x, y, _ in probes])
    if not line:
        return None
    axis.plot(*zip(*line, strict=True), color=style["color"], linestyle=style["dash"], linewidth=style["width"])
    for x, y, pair in found:
        _point(axis, x, y, None, pair if style["one"] else None, style)
    return (*line[-1], style["label"], style["color"]) if style["label"] else None


def _line(full: list[tuple[int, float]], probes: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The points to join: probes, and full evaluations only where no probe goes (they are of other items)."""
    return (
        full
        if not probes
        else [*(p for p in full if p[0] < probes[0][0]), *probes, *(p for p in full if p[0] > probes[-1][0])]
    )


def _probe(row: dict[str, Any], task: str | None) -> dict[str, Any] | None:
    found = row.get("suite") if task is None else row.get("scores", {}).get(task)
    return found if found and found.get("n") and found.get("accuracy") is not None else None


def _point(axis: Axes, x: float, y: float, across: Pair, up: Pair, style: Style) -> None:
    """A marker with interval bars."""
    bars = [[[max(0.0, v - pair[0])], [max(0.0, pair[1] - v)]] if pair else None for v, pair in ((x, across), (y, up))]
    colour = style["color"]
    axis.errorbar(
        [x], [y], xerr=bars[0], yerr=bars[1], fmt=style["marker"], markersize=5, color=colour, elinewidth=1.2,
        capsize=2, markerfacecolor=style.get("fill", colour), clip_on=False, zorder=4,
    )  # fmt: skip


def _move(axis: Axes, run: RunResult, style: Style, stage: int) -> End | None:
    """One run in one stage of Figure 4: from before the stage to after it."""
    task = run.stages[stage - 1]
    (new, new_ends), (prior, prior_ends) = _cells(run, task), _cells(run, None)
    points = [(new[k], prior[k], new_ends[k], prior_ends[k], k) for k in (stage - 1, stage)]
    known = [(x, y, across, up, k) for x, y, across, up, k in points if x is not None and y is not None]
    axis.plot([p[0] for p in known], [p[1] for p in known], color=style["color"], linestyle=style["dash"], lw=1.0)
    for x, y, across, up, k in known:
        _point(axis, x, y, across, up, {**style, **({} if k == stage else {"fill": "none"})})
    if not known or not style["label"]:
        return None
    x, y, across, _, _ = known[-1]
    return (across[1] if across else x, y, style["label"], style["color"])


def _heat(axis: Axes, run: RunResult) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    rows = [[*row, *([run.prior[k]] if run.prior else [])] for k, row in enumerate(run.matrix)]
    cividis = colormaps["cividis"]
    for k, row in enumerate(rows):
        for j, value in enumerate(row):
            face = cividis(value) if value is not None else "none"
            axis.add_patch(Rectangle((j - 0.5, k - 0.5), 1, 1, facecolor=face, edgecolor="none"))
            ink, text = ("#ffffff" if value < 0.55 else "#000000", f"{value:.2f}") if value is not None else (INK, "–")
            axis.text(j, k, text, ha="center", va="center", color=ink)
    for k, j in enumerate(run.trained, start=1):
        axis.add_patch(Rectangle((j - 0.46, k - 0.44), 0.92, 0.88, fill=False, edgecolor="#d55e00", linewidth=2))
    heads = [*run.tasks, *([f"prior: {run.suite}"] if run.prior else [])]
    axis.set_xlim(-0.5, len(heads) - 0.5)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xticks(range(len(heads)), heads, rotation=20, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(rows)), ["base", *(f"{k} {run.stages[k - 1]}" for k in range(1, len(rows)))])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def _training_curve(axis: Axes, run: RunResult, style: Style, key: str) -> End | None:
    """One method's curve: of long runs a running mean within each stage, over the faint raw values."""
    rows = [row for row in run.steps if row.get(key) is not None]
    if not rows:
        return None
    window, at = max(1, len(rows) // 60), [row["global_step"] for row in rows]
    near = [
        [r for r in rows[max(0, i + 1 - window) : i + 1] if r["stage"] == rows[i]["stage"]] for i in range(len(rows))
    ]
    mean = [sum(row[key] for row in group) / len(group) for group in near]
    axis.plot(at, mean, color=style["color"], linestyle=style["dash"], linewidth=1.2)
    if window > 1:
        axis.plot(at, [row[key] for row in rows], color=style["color"], linewidth=0.6, alpha=0.3, zorder=1)
    return (at[-1], mean[-1], style["label"], style["color"]) if style["label"] else None


def _base_line(axis: Axes, values: Sequence[float | None]) -> None:
    for value in {round(v, 6) for v in values if v is not None}:
        axis.axhline(value, color=FAINT, linestyle=":", linewidth=1.2, zorder=1)


def _stage_lines(axis: Axes, runs: Sequence[RunResult], task: str | None, names: bool = True) -> None:
    """Where stages end, in grey if all runs agree (then with the stage's task on top), else in the run's colour."""
    boundaries = {tuple(run.boundaries()) for run in runs}
    for run, style in _styled(runs):
        ends = run.boundaries()
        colour = FAINT if len(boundaries) == 1 else style["color"]
        for x in ends[:-1]:
            axis.axvline(x, color=colour, linewidth=0.8, alpha=0.7, zorder=0)
    if names and len(boundaries) == 1:
        longest = max(runs, key=lambda run: run.last)
        for k, (left, right) in enumerate(zip([0, *ends], ends, strict=False), start=1):
            own = task is not None and longest.stages[k - 1] == task
            axis.text((left + right) / 2, 1.0, f"stage {k}" + (" (this task)" if own else ""), ha="center", va="bottom",
                      fontsize=7.5, color=INK if own else FAINT, transform=axis.get_xaxis_transform())  # fmt: skip


def _label_ends(axis: Axes, ends: Sequence[End | None]) -> None:
    """Name each line to the right of its end; names that would touch are pushed apart."""
    named = sorted((end for end in ends if end), key=lambda end: end[1])
    low, high = axis.get_ylim()
    heights = _apart([end[1] for end in named], 0.085 * (high - low), low)
    for (x, _, label, colour), height in zip(named, heights, strict=True):
        axis.annotate(
            label, (x, height), (7, 0), textcoords="offset points", color=colour, fontweight="bold", va="center",
            annotation_clip=False,
        )  # fmt: skip


def _apart(heights: Sequence[float], gap: float, low: float) -> list[float]:
    """Sorted heights moved as little as need be so that neighbours are ``gap`` apart and none is below ``low``."""
    groups: list[tuple[float, int]] = []  # (middle, count) of touching neighbours
    for height in heights:
        middle, count = height, 1
        while groups and middle - groups[-1][0] < gap * (count + groups[-1][1]) / 2:
            before, number = groups.pop()
            middle, count = (before * number + middle * count) / (number + count), number + count
        groups.append((max(middle, low + gap * count / 2), count))
    return [middle + gap * (i - (count - 1) / 2) for middle, count in groups for i in range(count)]
