"""Figures of places: prior against new accuracy (Pareto), and the heat map of forgetting, as matplotlib Figures."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sdft_cli.console import number
from sdft_cli.reporting import records
from sdft_cli.reporting.by_stage import Cell, mean_cells, mean_of, suite_of, title_of
from sdft_cli.reporting.drawing import COLOURS, FAINT, INK, End, Look, label_ends, looks, panels, point
from sdft_cli.reporting.groups import Group
from sdft_cli.runs.results import RunResult
from sdft_cli.stats.continual import seen

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Ways through the stages of more groups than this would hide each other.
FEW = 12


def pareto(groups: Sequence[Group]) -> Figure:
    """Prior accuracy against that on the new tasks: the way of each group through its stages, and the front of ends.

    Of more than `FEW` groups only the ends are drawn, a look a method, and those on the front are named.
    """
    paths = [
        (group, [_place(group, k) for k in range(group.runs[0].last + 1)]) for group in groups if _has_prior(group)
    ]
    few = len(paths) <= FEW
    styled = looks([title_of(group) for group, _ in paths]) if few else _by_method([group for group, _ in paths])
    legend = () if few else list({look.name: look for look in styled}.values())
    foot = "marker: end, 95 % intervals; dotted: no end is better in both"
    foot = f"circle: base model; small numbers: stages; {foot}" if few else foot
    with panels(1, 1, (6.4, 4.2), foot, legend) as (figure, (axis,)):
        for (_, path), look in zip(paths, styled, strict=True):
            _path(axis, path, look, whole=few)
        front = _front([(path[-1][0][0], path[-1][1][0]) for _, path in paths])
        axis.step(*zip(*front, strict=True), where="pre", color=FAINT, linestyle=":", linewidth=1.2, zorder=1)
        axis.margins(0.06)
        axis.set_xlabel("accuracy on the new tasks, mean")
        axis.set_ylabel(f"prior accuracy ({suite_of([group.runs[0] for group, _ in paths])})")
        ends = [_path_end(group, path, look) for (group, path), look in zip(paths, styled, strict=True)]
        label_ends(axis, [end for end, (_, path) in zip(ends, paths, strict=True) if few or _on(front, path)])
    return figure


def forgetting(groups: Sequence[Group]) -> Figure:
    """A heat map a group: accuracies, coloured by their change since the task was learned (prior: since the base)."""
    tables = [_with_prior(group) for group in groups]
    columns, rows = max(len(t["heads"]) for t in tables), max(len(t["rows"]) for t in tables)
    size = (max(3.4, 1.7 + 0.8 * columns), 1.3 + 0.5 * rows)
    foot = "top: accuracy; below: change since the task was learned (prior: since the base); frame: trained here"
    with panels(len(groups), 2, size, foot) as (figure, axes):
        for axis, group, table in zip(axes, groups, tables, strict=True):
            axis.set_title(title_of(group))
            _heat(axis, group.runs[0], table)
    return figure


# --- prior against new -------------------------------------------------------------------------------------------


def _by_method(groups: Sequence[Group]) -> list[Look]:
    methods = list(dict.fromkeys(group.runs[0].method for group in groups))
    styled = dict(zip(methods, looks(methods), strict=True))
    return [styled[group.runs[0].method] for group in groups]


def _has_prior(group: Group) -> bool:
    return all(run.prior and run.prior[0] is not None and run.prior[-1] is not None for run in group.runs)


def _new(run: RunResult, k: int) -> float | None:
    """The mean accuracy after stage ``k`` on all tasks that the run has trained by its end."""
    values = [run.matrix[k][j] for j in seen(run.trained, run.last)]
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _place(group: Group, k: int) -> tuple[Cell, Cell]:
    """Where a group is after stage ``k``: accuracy on the new tasks, and on the prior suite."""
    run, values = group.runs[0], [_new(run, k) for run in group.runs]
    across = run.metric_intervals["average_accuracy"] if k == run.last else None
    return (values[0], across) if len(values) == 1 else mean_of(values), mean_cells(group, None)[k]


def _path(axis: Axes, path: Sequence[tuple[Cell, Cell]], look: Look, whole: bool) -> None:
    """A group's way from the base to its end; of many groups the end alone."""
    known = [(k, x, y) for k, ((x, _), (y, _)) in enumerate(path) if x is not None and y is not None]
    if whole:
        xs, ys = [x for _, x, _ in known], [y for *_, y in known]
        axis.plot(xs, ys, color=look.colour, linestyle=look.dash, linewidth=1.2)
        axis.plot(xs[:1], ys[:1], marker="o", markersize=7, markerfacecolor="none", color=INK, zorder=5)
    for k, x, y in known[1:-1] if whole else ():
        axis.text(x, y, str(k), color=look.colour, fontsize=7.5, ha="center", va="center", zorder=5,
                  bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": look.colour})  # fmt: skip
    (end, across), (prior, up) = path[-1]
    if end is not None and prior is not None:
        point(axis, end, prior, look, across, up)


def _path_end(group: Group, path: Sequence[tuple[Cell, Cell]], look: Look) -> End | None:
    (x, across), (y, _) = path[-1]
    return None if x is None or y is None else (across[1] if across else x, y, title_of(group), look.colour)


def _front(ends: Sequence[tuple[float | None, float | None]]) -> list[tuple[float, float]]:
    """The ends that no other beats in both accuracies, from left to right."""
    known = [(x, y) for x, y in ends if x is not None and y is not None]
    return sorted({(x, y) for x, y in known if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in known)})


def _on(front: Sequence[tuple[float, float]], path: Sequence[tuple[Cell, Cell]]) -> bool:
    return (path[-1][0][0], path[-1][1][0]) in front


# --- heat map ----------------------------------------------------------------------------------------------------


def _with_prior(group: Group) -> dict[str, Any]:
    """The accuracy matrix of a group, means over its seeds."""
    found = records.mean_matrix(group)
    return found if found["heads"] else records.matrix(group.runs[0])


def _heat(axis: Axes, run: RunResult, table: dict[str, Any]) -> None:
    from matplotlib.patches import Rectangle

    values = [[cell["value"] for cell in row["cells"]] for row in table["rows"]]
    for k, row in enumerate(table["rows"]):
        for j, cell in enumerate(row["cells"]):
            change = _since(values, run, k, j)
            axis.add_patch(Rectangle((j - 0.5, k - 0.5), 1, 1, **_tint(change)))
            text = "–" if cell["value"] is None else f"{cell['value']:.2f}"
            below = "" if change is None else f"\n{number(change, True, 2).replace('-', '−')}"
            axis.text(j, k, text + below, ha="center", va="center")
            if cell["new"]:
                axis.add_patch(Rectangle((j - 0.46, k - 0.45), 0.92, 0.9, fill=False, edgecolor=INK, linewidth=1.6))
    axis.set(xlim=(-0.5, len(table["heads"]) - 0.5), ylim=(len(values) - 0.5, -0.5))
    axis.set_xticks(range(len(table["heads"])), table["heads"], rotation=20, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(values)), [row["name"] for row in table["rows"]])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def _since(values: Sequence[Sequence[float | None]], run: RunResult, k: int, j: int) -> float | None:
    """The change of a cell since its task was last trained; of the suite, since the base. None where that is now, or
    yet to come."""
    suite = j >= len(run.tasks)
    start = 0 if suite else max((stage for stage in range(1, k + 1) if run.trained[stage - 1] == j), default=k)
    now, then = values[k][j], values[start][j]
    return None if start == k or now is None or then is None else now - then


def _tint(change: float | None) -> dict[str, Any]:
    """Blue for gained, orange for lost, the stronger the more; full at half of all items."""
    if change is None or round(change, 2) == 0:
        return {"facecolor": "none", "edgecolor": FAINT, "linewidth": 0.4}
    colour = COLOURS[0] if change > 0 else COLOURS[1]
    return {"facecolor": colour, "alpha": 0.08 + 0.62 * min(1.0, abs(change) / 0.5), "edgecolor": "none"}
