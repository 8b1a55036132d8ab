"""Figures of points and cells, as matplotlib Figures: new against prior accuracy (Pareto), prior change on the way to
the new task, and the forgetting map."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from sdft_cli.console import number
from sdft_cli.reporting.by_stage import mean_accuracies
from sdft_cli.reporting.drawing import COLOURS, FAINT, INK, End, Look, label_ends, looks, panels, point, wants_legend
from sdft_cli.reporting.equal_accuracy import Paths, blocks, paths_of
from sdft_cli.reporting.estimates import Estimate, estimate, seed_accuracy
from sdft_cli.reporting.groups import Group, suites_of
from sdft_cli.reporting.matrices import Matrix, matrix, mean_matrix
from sdft_cli.runs.results import RunResult
from sdft_cli.stats.continual import seen

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The paths of more groups than this would hide each other.
FEW = 12


class Place(NamedTuple):
    """Where a group is after a stage: accuracy on the new tasks, and on the prior suite."""

    new: Estimate
    prior: Estimate


Point = tuple[float, float]


def pareto(groups: Sequence[Group]) -> Figure:
    """Accuracy on the new tasks against prior accuracy: each group's path through its stages, and the Pareto front.

    For more than `FEW` groups only the ends are drawn, with a look per method, and only those on the front are named.
    """
    with_prior = [group for group in groups if _has_prior(group)]
    paths = [(group, [_place(group, k) for k in range(group.runs[0].last + 1)]) for group in with_prior]
    few = len(paths) <= FEW
    styles = looks([group.title for group in with_prior]) if few else _by_method(with_prior)
    legend = () if few else list({look.name: look for look in styles}.values())
    foot = "marker: end, 95 % intervals; dotted: front (no end is better in both)"
    foot = f"circle: base model; small numbers: stages; {foot}" if few else foot
    with panels(1, 1, (6.4, 4.2), foot, legend) as (figure, (axis,)):
        for (_, path), look in zip(paths, styles, strict=True):
            _path(axis, path, look, whole=few)
        front = _front([end for _, path in paths if (end := _point(path[-1]))])
        axis.step(*zip(*front, strict=True), where="pre", color=FAINT, linestyle=":", linewidth=1.2, zorder=1)
        axis.margins(0.06)
        axis.set_xlabel("mean accuracy on the new tasks")
        axis.set_ylabel(f"prior accuracy ({suites_of([group.runs[0] for group in with_prior])})")
        ends = [_path_end(group, path[-1], look) for (group, path), look in zip(paths, styles, strict=True)]
        named = [few or _point(path[-1]) in front for _, path in paths]
        label_ends(axis, [end for end, name in zip(ends, named, strict=True) if name])
    return figure


def has_end(run: RunResult) -> bool:
    """Whether a run has a place in `pareto` after its last stage."""
    trained = run.metrics["average_accuracy"] is not None
    return bool(trained and run.prior and run.prior[0] is not None and run.prior[-1] is not None)


def has_paths(groups: Sequence[Group]) -> bool:
    """Whether two groups have paths through the same stage, so that `learning_paths` has a panel."""
    return any(len(paths_of(members, stage)[0]) > 1 for stage, _, members in blocks(groups))


def learning_paths(groups: Sequence[Group]) -> Figure:
    """Change of the prior suite since the base model against accuracy on the new task, at every evaluation during
    training: a panel per stage and one for the whole sequence, a line per group (of several seeds: their mean).

    Where the base model was not evaluated, the change is that since the stage's start."""
    drawn = [(at, name, paths) for at, name, group in blocks(groups) if len(paths := paths_of(group, at)[0]) > 1]
    styles = {group.name: look for group, look in zip(groups, looks([g.title for g in groups]), strict=True)}
    legend = list(styles.values()) if wants_legend([look.name for look in styles.values()]) else []
    foot = "point: an evaluation during training, on few items; ring: the stage's start; thin lines: seeds"
    with panels(len(drawn), 2, (5.2, 3.2), foot, legend) as (figure, axes):
        for axis, (stage, name, paths) in zip(axes, drawn, strict=True):
            axis.set_title(name)
            axis.grid(axis="x", color=FAINT, alpha=0.25)
            since = "base" if all(p.base is not None for of in paths.values() for p in of.values()) else "start"
            ends = [_learning_path(axis, of_group, styles[group], since) for group, of_group in paths.items()]
            which = "the new task" if stage else "all tasks, mean"
            axis.set(
                xlabel=f"validation accuracy on {which}",
                ylabel="prior change" if since == "base" else "prior suite, change in the stage",
            )
            label_ends(axis, [] if legend else ends)
    return figure


def forgetting(groups: Sequence[Group]) -> Figure:
    """A heat map per group: accuracies, coloured by their change since the task was learned (prior: since the base)."""
    matrices = [_matrix(group) for group in groups]
    columns, rows = max(len(m["heads"]) for m in matrices), max(len(m["rows"]) for m in matrices)
    size = (max(3.4, 1.7 + 0.8 * columns), 1.3 + 0.5 * rows)
    foot = "top: accuracy; below: change since the task was learned (prior: since the base model); frame: trained here"
    with panels(len(groups), 2, size, foot) as (figure, axes):
        for axis, group, of_group in zip(axes, groups, matrices, strict=True):
            axis.set_title(group.title)
            _heat(axis, group.runs[0], of_group)
    return figure


# --- prior against new -------------------------------------------------------------------------------------------


def _by_method(groups: Sequence[Group]) -> list[Look]:
    methods = list(dict.fromkeys(group.runs[0].method for group in groups))
    styles = dict(zip(methods, looks(methods), strict=True))
    return [styles[group.runs[0].method] for group in groups]


def _has_prior(group: Group) -> bool:
    return all(run.prior and run.prior[0] is not None and run.prior[-1] is not None for run in group.runs)


def _mean_new(run: RunResult, k: int) -> float | None:
    """The mean accuracy after stage ``k`` on all tasks that the run has trained by its end and that are scored; None if
    one is missing."""
    values = [run.matrix[k][j] for j in seen(run.counted, run.last)]
    evaluated = [value for value in values if value is not None]
    return fmean(evaluated) if evaluated and len(evaluated) == len(values) else None


def _place(group: Group, k: int) -> Place:
    run, values = group.runs[0], [_mean_new(run, k) for run in group.runs]
    interval = run.metric_intervals["average_accuracy"] if k == run.last else None
    new = estimate(values[0], interval) if len(values) == 1 else seed_accuracy(values)
    return Place(new, mean_accuracies(group, None)[k])


def _point(place: Place) -> Point | None:
    """Where a place is drawn; None unless both accuracies are there."""
    x, y = place.new["value"], place.prior["value"]
    return None if x is None or y is None else (x, y)


def _path(axis: Axes, path: Sequence[Place], look: Look, whole: bool) -> None:
    """A group's path from the base to its end; unless ``whole``, the end alone."""
    points = [(k, *at) for k, place in enumerate(path) if (at := _point(place))]
    if whole:
        xs, ys = [x for _, x, _ in points], [y for *_, y in points]
        axis.plot(xs, ys, color=look.colour, linestyle=look.dash, linewidth=1.2)
        axis.plot(xs[:1], ys[:1], marker="o", markersize=7, markerfacecolor="none", color=INK, zorder=5)
    for k, x, y in points[1:-1] if whole else ():
        axis.text(x, y, str(k), color=look.colour, fontsize=7.5, ha="center", va="center", zorder=5,
                  bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": look.colour})  # fmt: skip
    if end := _point(path[-1]):
        point(axis, *end, look, path[-1].new["interval"], path[-1].prior["interval"])


def _path_end(group: Group, place: Place, look: Look) -> End | None:
    at, across = _point(place), place.new["interval"]
    return (across[1] if across else at[0], at[1], group.title, look.colour) if at else None


def _front(ends: Sequence[Point]) -> list[Point]:
    """The ends that no other end beats in both accuracies, from left to right."""
    return sorted({(x, y) for x, y in ends if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in ends)})


# --- prior change on the way to the new task ---------------------------------------------------------------------


def _learning_path(axis: Axes, paths: Paths, look: Look, since: str) -> End:
    """One group in one panel: each seed, and the mean of the evaluations that all seeds have."""
    zeros = [
        path.base if since == "base" and path.base is not None else path.points[0].prior for path in paths.values()
    ]
    pairs = zip(paths.values(), zeros, strict=True)
    of_seeds = [{point.step: (point.new, point.prior - zero) for point in path.points} for path, zero in pairs]
    for points in of_seeds if len(of_seeds) > 1 else ():
        axis.plot(*zip(*points.values(), strict=True), color=look.colour, linewidth=0.7, alpha=0.35, zorder=1)
    shared = [step for step in of_seeds[0] if all(step in points for points in of_seeds)]
    means = [tuple(fmean(points[step][k] for points in of_seeds) for k in (0, 1)) for step in shared]
    xs, ys = [x for x, _ in means], [y for _, y in means]
    axis.plot(xs, ys, color=look.colour, linestyle=look.dash, linewidth=1.4, marker=look.marker, markersize=3.5)
    axis.plot(xs[:1], ys[:1], marker="o", markersize=8, markerfacecolor="none", color=INK, zorder=5)
    return xs[-1], ys[-1], look.name, look.colour


# --- heat map ----------------------------------------------------------------------------------------------------


def _matrix(group: Group) -> Matrix:
    """The accuracy matrix of a group, means over its seeds; of its first run where the seeds' suites differ."""
    means = mean_matrix(group)
    return means if means["heads"] else matrix(group.runs[0])


def _heat(axis: Axes, run: RunResult, of_group: Matrix) -> None:
    from matplotlib.patches import Rectangle

    values = [[cell["value"] for cell in row["cells"]] for row in of_group["rows"]]
    for k, row in enumerate(of_group["rows"]):
        for j, cell in enumerate(row["cells"]):
            change = _change(values, run, k, j)
            axis.add_patch(Rectangle((j - 0.5, k - 0.5), 1, 1, **_tint(change)))
            text = "–" if cell["value"] is None else f"{cell['value']:.2f}"
            below = "" if change is None else f"\n{number(change, True, 2).replace('-', '−')}"
            axis.text(j, k, text + below, ha="center", va="center")
            if cell["new"]:
                axis.add_patch(Rectangle((j - 0.46, k - 0.45), 0.92, 0.9, fill=False, edgecolor=INK, linewidth=1.6))
    axis.set(xlim=(-0.5, len(of_group["heads"]) - 0.5), ylim=(len(values) - 0.5, -0.5))
    axis.set_xticks(range(len(of_group["heads"])), of_group["heads"], rotation=20, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(values)), [row["name"] for row in of_group["rows"]])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def _change(values: Sequence[Sequence[float | None]], run: RunResult, k: int, j: int) -> float | None:
    """The change of a cell since its task was last trained; for the suite, since the base.

    None in the stage that trained the task, and before it.
    """
    suite = j >= len(run.tasks)
    start = 0 if suite else max((stage for stage in range(1, k + 1) if run.trained[stage - 1] == j), default=k)
    now, then = values[k][j], values[start][j]
    return None if start == k or now is None or then is None else now - then


def _tint(change: float | None) -> dict[str, str | float]:
    """A patch's style: blue for gained, orange for lost; stronger for larger changes, full at half of all items."""
    if change is None or round(change, 2) == 0:
        return {"facecolor": "none", "edgecolor": FAINT, "linewidth": 0.4}
    colour = COLOURS[0] if change > 0 else COLOURS[1]
    return {"facecolor": colour, "alpha": 0.08 + 0.62 * min(1.0, abs(change) / 0.5), "edgecolor": "none"}
