"""The figure of `step.py`: the parts of a step side by side, memory beyond the weights, and scaling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sides import PARTS

from sdft_cli.reporting import drawing

MB = 1e6
#: Six colours and two greys, so that eight parts differ in colour alone.
COLOURS = dict(zip([*PARTS, "other"], (*drawing.COLOURS, drawing.INK, "#b4bac0"), strict=True))
AXES = {"batch": "batch", "new": "maximum new tokens", "vocab": "vocabulary", "layers": "parameters"}


def draw(rows: dict[str, Any], path: Path) -> None:
    """Write ``path`` as PNG and as SVG, whatever its suffix."""
    cases, scaling = rows["cases"], rows["scaling"]
    machine = rows["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "transformers", "trl") if name in machine)
    where = f"{machine['cpu']}, {machine['instructions']}"
    foot = f"CPU seconds of one thread, {machine['precision']}, medians over turns; {where}; {versions}"
    count = len(cases) + bool(cases) + len(scaling)
    with drawing.panels(count, 4 if count > 4 else count, (4.0, 2.9), foot) as (figure, axes):
        if cases:
            legend(figure)
        for axis, row in zip(axes, cases, strict=False):
            bars(axis, row)
        if cases:
            memory(axes[len(cases)], cases)
        for axis, (what, points) in zip(axes[count - len(scaling) :], scaling.items(), strict=True):
            curve(axis, what, points)
        drawing.save(figure, path.with_suffix(""), "Parts of a step, memory and scaling: sdft and TRL")


def legend(figure: Any) -> None:
    """The parts' colours, above all panels."""
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=part) for part, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))


def bars(axis: Any, row: dict[str, Any]) -> None:
    """One bar per side, made of its parts. TRL's student and teacher passes include the output heads, ours do not."""
    names = list(row["sides"])
    start = [0.0] * len(names)
    for part, colour in COLOURS.items():
        widths = [max(0.0, {**side["parts"], "other": side["other"]}[part]) for side in row["sides"].values()]
        axis.barh(names, widths, left=start, color=colour, edgecolor="white", linewidth=0.6)
        start = [a + b for a, b in zip(start, widths, strict=True)]
    axis.invert_yaxis()
    case = row["case"]
    axis.set_title(f"{case['name']}: V {case['vocab']:,}, batch {case['batch']}, up to {case['new']}")
    axis.set_xlabel("CPU seconds per step")


def memory(axis: Any, cases: list[dict[str, Any]]) -> None:
    """Memory beyond the weights, one group of bars per case."""
    names = list(cases[0]["sides"])
    for i, look in enumerate(drawing.looks(names)):
        places = [at + (i - (len(names) - 1) / 2) * 0.8 / len(names) for at in range(len(cases))]
        heights = [row["sides"][look.name]["beyond_bytes"] / MB for row in cases]
        axis.bar(places, heights, 0.75 / len(names), color=look.colour, label=look.name)
    axis.set_xticks(range(len(cases)), [row["case"]["name"] for row in cases])
    axis.set_title("MB beyond the weights")
    axis.set_ylim(top=1.3 * axis.get_ylim()[1])
    axis.legend(fontsize=8, ncols=2, loc="upper left")


def curve(axis: Any, what: str, points: list[dict[str, Any]]) -> None:
    """CPU milliseconds per completion token, by side."""
    xs = [row["parameters"] if what == "layers" else row["case"][what] for row in points]
    ends: list[drawing.End | None] = []
    for look in drawing.looks(list(points[0]["sides"])):
        ys = [1e3 / row["sides"][look.name]["tokens_per_second"] for row in points]
        axis.plot(xs, ys, linestyle=look.dash, marker=look.marker, markersize=4, color=look.colour)
        ends.append((xs[-1], ys[-1], look.name, look.colour))
    _plain_logs(axis, xs)
    axis.set_title("CPU ms per completion token")
    axis.set_xlabel(AXES[what])
    drawing.label_ends(axis, ends)


def _plain_logs(axis: Any, xs: list[float]) -> None:
    """Logarithmic axes with plain numbers: ticks at every point of ``xs``, and at 1, 2, 5, 10, ... on the y axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(xs, [_short(x) for x in xs])
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    for each in (axis.xaxis, axis.yaxis):
        each.set_minor_locator(NullLocator())


def _short(number: float) -> str:
    """1203 as 1.2k, 26800000 as 26.8M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:g}"
