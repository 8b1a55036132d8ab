"""What all figures share: panels, the look of lines, names at the ends of lines, and how figures are saved.

Series differ in colour (Okabe & Ito's palette, safe for colour-blind readers), line style and marker. They are named at
their ends or, where that takes too much room, in a legend. Text and axes have one ink colour, which an inline SVG turns
into ``currentColor`` so that it suits light and dark pages.
"""

from __future__ import annotations

import hashlib
import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdft_cli.runs.files import write_whole
from sdft_cli.stats.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Panels = tuple[Figure, list[Axes]]

INK, FAINT = "#101418", "#737b83"
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
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlepad": 14.0,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}
#: The longest name, and the most names, that still fit at the ends of lines.
_LONGEST, _MOST = 16, 4
#: Characters of a figure's footnote that fit into an inch of its width.
PER_INCH = 16

End = tuple[float, float, str, str]  # where a line ends, its name and colour


@dataclass(frozen=True)
class Look:
    """How one series is drawn, and its name."""

    name: str
    colour: str
    dash: str | tuple[int, tuple[int, ...]]
    marker: str


def looks(names: Sequence[str]) -> list[Look]:
    """A look per name; from the seventh on, colours repeat with other line styles and markers."""
    places = [(i % 6, (i + i // 6) % 6) for i in range(len(names))]
    return [Look(n, COLOURS[i], DASHES[j], MARKERS[j]) for n, (i, j) in zip(names, places, strict=True)]


@contextmanager
def panels(
    count: int, columns: int, size: tuple[float, float], foot: str, legend: Sequence[Look] = ()
) -> Iterator[Panels]:
    """A figure with ``count`` axes of ``size`` inches, ``columns`` of them side by side; needs no window system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(columns, count)
    rows = -(-count // columns)
    with _style():
        figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
        FigureCanvasAgg(figure)
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for spare in axes[count:]:
            spare.remove()
        figure.supxlabel(
            textwrap.fill(foot, int(PER_INCH * figure.get_figwidth())), x=0.005, ha="left", fontsize=7.5, color=FAINT
        )
        if legend:
            _legend(figure, legend)
        yield figure, axes[:count]
        figure.draw_without_rendering()  # lays out once, not again for PNG and SVG
        figure.set_layout_engine("none")


def wants_legend(names: Sequence[str]) -> bool:
    """Whether names are too many or too long for the ends of their lines."""
    return len(names) > _MOST or max(map(len, names), default=0) > _LONGEST


def _legend(figure: Figure, entries: Sequence[Look]) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=s.colour, linestyle=s.dash, marker=s.marker, markersize=4, label=s.name) for s in entries
    ]
    widest = max(len(look.name) for look in entries)
    columns = max(1, min(len(entries), int(figure.get_figwidth() / (0.65 + 0.075 * widest))))
    figure.legend(handles=lines, loc="outside upper left", ncols=columns, handlelength=3.2)


def point(
    axis: Axes, x: float, y: float, look: Look, across: Interval | None = None, up: Interval | None = None
) -> None:
    """A marker with interval bars."""
    bars = [[[max(0.0, v - pair[0])], [max(0.0, pair[1] - v)]] if pair else None for v, pair in ((x, across), (y, up))]
    axis.errorbar(
        [x], [y], xerr=bars[0], yerr=bars[1], fmt=look.marker, markersize=5, color=look.colour, elinewidth=1.2,
        capsize=2, clip_on=False, zorder=4,
    )  # fmt: skip


def label_ends(axis: Axes, ends: Sequence[End | None]) -> None:
    """Name each line to the right of its end; names that would touch are pushed apart."""
    axis.autoscale_view()  # limits that depend on the data are set lazily, and the transform below needs them
    within = axis.transScale + axis.transLimits  # from data to fractions of the axis
    labels = sorted((float(within.transform(end[:2])[1]), *end) for end in ends if end)
    heights = _apart([label[0] for label in labels], 0.085)
    for (_, x, _, name, colour), height in zip(labels, heights, strict=True):
        axis.annotate(
            name, (x, height), (7, 0), xycoords=axis.get_xaxis_transform(), textcoords="offset points", color=colour,
            fontweight="bold", va="center", annotation_clip=False,
        )  # fmt: skip


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Sorted heights, moved as little as possible so that neighbours are ``gap`` apart and all are within 0 and 1."""
    groups: list[tuple[float, int]] = []  # (middle, count) of touching neighbours
    for height in heights:
        middle, count = height, 1
        while groups and middle - groups[-1][0] < gap * (count + groups[-1][1]) / 2:
            before, number = groups.pop()
            middle, count = (before * number + middle * count) / (number + count), number + count
        groups.append((max(middle, gap * count / 2), count))
    moved = [middle + gap * (i - (count - 1) / 2) for middle, count in groups for i in range(count)]
    return [min(height, 1 - gap * (len(moved) - 1 - i)) for i, height in enumerate(moved)]


# --- saving ------------------------------------------------------------------------------------------------------


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def save(figure: Figure, path: Path, title: str) -> str:
    """Write ``path`` as PNG (white background, 150 dpi) and as SVG; returns the SVG for a page (`inline`)."""
    image, drawing = io.BytesIO(), io.StringIO()
    with _style():
        figure.savefig(image, format="png", dpi=150, facecolor="white", metadata={"Software": None})
        quiet = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(drawing, format="svg", transparent=True, metadata=quiet)
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", drawing.getvalue(), flags=re.S)
    white = svg.replace("<svg ", '<svg style="background: #fff" ', 1)
    for suffix, content in ((".png", image.getvalue()), (".svg", white.encode())):
        write_whole(path.with_name(path.name + suffix), content)
    return inline(svg, title, round(96 * figure.get_figwidth()))


def inline(svg: str, title: str, width: int) -> str:
    """One ``<svg>`` element without external references, whose ids depend on the drawing alone.

    Its ink is ``currentColor``. A page may set the first colour with ``--blue``; ``--w`` is the figure's natural width.
    """
    text = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(COLOURS[0], f"var(--blue, {COLOURS[0]})")
    text = text.replace("#ffffff", "var(--ground, #fff)")
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    mark = "f" + hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{mark}-", text)
    text = re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", text, count=2)
    label = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    head = f'<svg role="img" aria-label="{label}" stroke-linejoin="round" style="--w: {width}px"'
    return text.replace("<svg", head, 1).strip()
