"""What a table is: cells of text under heads. Terminal, page, Markdown and LaTeX all print these same tables.

Minus signs are written as hyphens; each medium typesets them in its own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sdft_cli.console import number, pvalue
from sdft_cli.reporting.estimates import Estimate
from sdft_cli.reporting.report_json import RunReport
from sdft_cli.stats.intervals import Interval

#: Marks a run that was measured under other settings than the first.
DAGGER = "†"
#: Tables with more rows than this are folded away.
LONG = 16
#: Stands where there is no value.
NONE = "-"


@dataclass(frozen=True)
class Cell:
    """Text, its interval, and what it sorts by (None: its text). ``mark`` puts a star before it, ``shade`` from 0 to 1
    sets the strength of its background."""

    text: str
    interval: Interval | None = None
    signed: bool = False
    sort: float | None = None
    mark: bool = False
    shade: float | None = None

    @property
    def starred(self) -> str:
        return f"*{self.text}" if self.mark else self.text


@dataclass(frozen=True)
class Table:
    """Rows of cells under heads of up to two lines; the first ``names`` columns hold names, the others numbers.

    ``folded``: long or of minor interest, so a page may hide it behind its title.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    names: int = 1
    folded: bool = False


@dataclass(frozen=True)
class TableGroup:
    """Tables under one heading."""

    title: str
    tables: Sequence[Table]
    intro: str = ""


def nonempty(table: Table, fold: bool = False) -> list[Table]:
    """The table, unless it has no rows; folded if it is long, or if ``fold``."""
    return [replace(table, folded=fold or len(table.rows) > LONG)] if table.rows else []


def estimate_cell(estimate: Estimate | None, signed: bool = False, digits: int = 3) -> Cell:
    """A value with its interval."""
    if estimate is None or estimate["value"] is None:
        return Cell(NONE)
    return Cell(number(estimate["value"], signed, digits), estimate["interval"], signed, estimate["value"])


def value_cell(value: float | None, signed: bool = False) -> Cell:
    """A value without an interval."""
    return Cell(NONE) if value is None else Cell(number(value, signed), signed=signed, sort=value)


def count_cell(value: int | None) -> Cell:
    return Cell(NONE) if value is None else Cell(str(value), sort=value)


def p_cell(value: float | None) -> Cell:
    return Cell(pvalue(value), sort=value)


def run_cell(run: RunReport) -> Cell:
    """The run's label, with a dagger where its numbers are not comparable with the first run's."""
    return Cell(run["label"] if run["comparable"] else f"{run['label']} {DAGGER}")


def stage_cell(stage: int, task: str | None) -> Cell:
    return Cell(f"{stage} {task}", sort=stage)


def metric_heads(names: Sequence[str]) -> list[str]:
    """The names of metrics, a word per line."""
    return [name.replace("_", "\n") for name in names]
