"""Terminal output that every command shares: numbers and tables as text, and the two streams.

Results go to `out` (stdout), progress and notes to `err` (stderr), so that ``--json`` owns stdout. Tables read well
without colour. The progress of training is in `training.display`, a report's tables in `reporting.terminal`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich import box
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.control import Control
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

# --- text of others -------------------------------------------------------------------------------------------

#: Control characters but for line ends and tabs, marks that change the direction of text, and halves of characters.
_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n)"
)


def visible(text: str) -> str:
    """``text`` without commands to whatever shows it: ``\\x1b`` and the like stand where they were.

    What a model or a file says could otherwise recolour, rename or overwrite a terminal, or show other words than it
    holds.
    """
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)


class _Visible:
    """Something to print, with its text made `visible`; its colours are our own."""

    def __init__(self, renderable: ConsoleRenderable):
        self.renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.renderable, options):
            shown = segment.text if segment.control else visible(segment.text)
            yield segment if shown == segment.text else Segment(shown, segment.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self.renderable)


class _AllVisible(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [one if isinstance(one, Control) else _Visible(one) for one in renderables]


def _console(stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    console.push_render_hook(_AllVisible())
    return console


out = _console(stderr=False)
err = _console(stderr=True)


def is_live(console: Console = err) -> bool:
    """Whether the console is a terminal on which a line can be rewritten."""
    return console.is_terminal and not console.is_dumb_terminal


# --- numbers -------------------------------------------------------------------------------------------------


def number(value: float | None, signed: bool = False, digits: int = 3) -> str:
    """``0.917`` (``+0.017`` if signed), or ``-`` for None."""
    if value is None:
        return "-"
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text[1:] if float(text) == 0 and text[0] in "+-" else text


def span(interval: Sequence[float] | None, signed: bool = False) -> str:
    """``[0.881, 0.940]``, or nothing for None."""
    return f"[{number(interval[0], signed)}, {number(interval[1], signed)}]" if interval else ""


def pvalue(p: float | None) -> str:
    """``0.031``, ``<0.001``, or ``-`` for None."""
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def clock(seconds: float) -> str:
    """``0:42``, ``12:03`` or ``1:05:09``."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def duration(seconds: float) -> str:
    """``a minute``, ``52 minutes`` or ``3.5 hours``: as roughly as a time can be known that has yet to pass."""
    if seconds < 90:
        return "a minute"
    return f"{seconds / 60:.0f} minutes" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} hours"


def is_change(metric: str) -> bool:
    """Whether a metric is a difference, shown with its sign (the others are accuracies)."""
    return not metric.endswith("accuracy")


# --- tables --------------------------------------------------------------------------------------------------


def plain_table(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None, names: int = 0) -> Table:
    """A table of text cells; heads have one or two lines. The first ``names`` columns are left-aligned, the others
    right-aligned; columns move closer together where ``width`` (None: the terminal's) is short."""
    widths = [max(map(len, [*head.split("\n"), *cells])) for head, *cells in zip(heads, *rows, strict=True)]
    loose = sum(widths) + 2 * len(widths) <= (width or out.width)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, int(loose), 0, 0), pad_edge=False)
    for column, head in enumerate(heads):
        table.add_column(Text(head), justify="left" if column < names else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
