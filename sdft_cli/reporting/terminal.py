"""Tables on the terminal: readable without colour and from 60 columns up.

Intervals are below their values. A table that is too wide gets shorter intervals if it then fits; otherwise it
continues below with the same name columns. Cells are never cut or wrapped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from sdft_cli import console
from sdft_cli.reporting.tables import Cell, Table, TableGroup

_GAP = "  "
#: Sentences are no wider than this on a wide terminal.
_PROSE = 100
Block = list[str]  # the lines of one cell


def show(section: TableGroup, folded: bool = True) -> None:
    """Print the section's tables, each under its title; without ``folded``, only those that are not folded."""
    width = console.out.width
    prose(section.intro)
    for table in section.tables:
        if folded or not table.folded:
            console.out.print(Text(table.title, style="bold"), soft_wrap=True)
            for line in lines(table, width):
                console.out.print(Text(line), soft_wrap=True)
            prose(table.note)
            console.out.print()


def prose(text: str) -> None:
    """Print a sentence or two, wrapped."""
    if text:
        console.out.print(Text(text), width=min(console.out.width, _PROSE))


def lines(table: Table, width: int) -> Iterator[str]:
    """The table's lines, split into as many parts as ``width`` requires."""
    long, short = _columns(table, short=False), _columns(table, short=True)
    columns = short if _width(long) > width >= _width(short) else long
    for number, part in enumerate(_parts(columns, table.names, width)):
        if number:
            yield ""
        widths = [max(len(line) for block in column for line in block) for column in part]
        yield from _row([column[0] for column in part], widths, table.names, low=True)
        yield _GAP.join("─" * width for width in widths)
        for row in zip(*(column[1:] for column in part), strict=True):
            yield from _row(row, widths, table.names)


def _columns(table: Table, short: bool) -> list[list[Block]]:
    """Each column's blocks, its head first."""
    cells = zip(*table.rows, strict=True)
    return [
        [head.split("\n"), *(_block(c, short) for c in column)] for head, column in zip(table.heads, cells, strict=True)
    ]


def _parts(columns: Sequence[list[Block]], names: int, width: int) -> list[list[list[Block]]]:
    """Columns by part, each part starting with the name columns; parts are as even as possible."""
    first, rest = list(columns[:names]), list(columns[names:])
    for count in range(1, len(rest) + 1):
        size = -(-len(rest) // count)
        parts = [first + rest[i : i + size] for i in range(0, len(rest), size)]
        if all(_width(part) <= width for part in parts):
            return parts
    return [[*first, column] for column in rest] or [first]


def _width(columns: Sequence[list[Block]]) -> int:
    widths = [max(len(line) for block in column for line in block) for column in columns]
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _row(blocks: Sequence[Block], widths: Sequence[int], names: int, low: bool = False) -> Iterator[str]:
    """The lines of one row; ``low``: shorter blocks are aligned with its bottom."""
    height = max(map(len, blocks))
    filled = [[""] * (height - len(b)) + b if low else b + [""] * (height - len(b)) for b in blocks]
    for line in zip(*filled, strict=True):
        texts = [t.ljust(w) if j < names else t.rjust(w) for j, (t, w) in enumerate(zip(line, widths, strict=True))]
        yield _GAP.join(texts).rstrip()


def _block(cell: Cell, short: bool) -> Block:
    """The cell's text, and its interval below."""
    interval = _short(cell) if short else console.span(cell.interval, cell.signed)
    return [cell.starred, interval] if interval else [cell.starred]


def _short(cell: Cell) -> str:
    """``0.88-0.94``; for changes ``-0.05 +0.02``."""
    if cell.interval is None:
        return ""
    low, high = (console.number(end, cell.signed, 2) for end in cell.interval)
    return f"{low} {high}" if cell.signed else f"{low}-{high}"
