"""Tables and facts as files for other programs: Markdown, LaTeX, CSV. Text in, text out."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from sdft_cli.console import span
from sdft_cli.reporting.tables import Cell, Table, TableGroup
from sdft_cli.stats.continual import METRICS

Row = dict[str, Any]

_LATEX = {
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "−": "$-$",
    "→": r"$\rightarrow$",
    "†": r"\dag{}",
    "…": r"\dots{}",
    "[": "{[}",  # after the end of a line it would begin an option
}


def minus(text: str) -> str:
    """Hyphens before digits as true minus signs; a lone one (no value) as a dash."""
    return "–" if text == "-" else re.sub(r"(?<![\w-])-(?=[\d.])", "−", text)


def interval(cell: Cell) -> str:
    """``[0.881, 0.940]``, or nothing."""
    return minus(span(cell.interval, cell.signed))


# --- Markdown ------------------------------------------------------------------------------------------------------


def markdown_section(section: TableGroup) -> str:
    """The tables under a heading, and their notes; what is folded away is left to the page."""
    parts = [plain(section.intro)]
    for table in section.tables:
        if not table.folded:
            parts += [f"### {plain(table.title)}" if table.title else "", markdown(table), plain(table.note)]
    if any(table.folded for table in section.tables):
        parts.append("More in report.html.")
    return "\n\n".join(filter(None, parts))


def markdown(table: Table) -> str:
    """A table with its intervals beside the values."""
    rule = ["---" if j < table.names else "---:" for j in range(len(table.heads))]
    heads = [plain(head.replace("\n", " ")) for head in table.heads]
    rows = [heads, rule, *([_markdown(cell) for cell in row] for row in table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def plain(text: str) -> str:
    """Text that Markdown shows as it stands."""
    return re.sub(r"([\\|<>&`*_\[\]])", r"\\\1", minus(text)).replace("\n", " ")


def _markdown(cell: Cell) -> str:
    return f"{plain(cell.starred)} {plain(interval(cell))}".strip()


# --- LaTeX ---------------------------------------------------------------------------------------------------------


def latex(tables: Iterable[Table]) -> str:
    """Tables for a paper, to be taken from the file one by one; intervals stand below the values, small."""
    head = "% Made by `sdft report`. Needs \\usepackage{booktabs}.\n"
    return head + "\n".join(map(_latex_table, tables))


def _latex_table(table: Table) -> str:
    columns = "l" * table.names + "r" * (len(table.heads) - table.names)
    heads = [head.split("\n") for head in table.heads]
    height = max(map(len, heads))
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape(table.title)}. {escape(table.note)}}}"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [_latex_row(map(escape, row)) for row in zip(*([""] * (height - len(h)) + h for h in heads), strict=True)]
    lines.append(r"\midrule")
    for row in table.rows:
        lines.append(_latex_row(escape(cell.starred) for cell in row))
        if any(cell.interval for cell in row):
            lines.append(_latex_row(map(_small, row)))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _small(cell: Cell) -> str:
    return rf"{{\scriptsize {escape(interval(cell))}}}" if cell.interval else ""


def escape(text: str) -> str:
    """Text that LaTeX shows as it stands."""
    return "".join(_LATEX.get(letter, letter) for letter in minus(text))


# --- CSV -----------------------------------------------------------------------------------------------------------


def runs_csv(facts: Row) -> str:
    """A line a run: its metrics at the end, each with its interval."""
    ends = [f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high")]
    rows = [
        [*_who(run), len(run["rows"]) - 1, *(v for m in METRICS for v in _triple(run["metrics"][m]))]
        for run in facts["runs"]
    ]
    return _csv([*_WHO, "stages_evaluated", *ends], rows)


def seeds_csv(facts: Row) -> str:
    """A line a group and metric: mean over seeds and t-interval."""
    rows = [
        [group["name"], len(group["seeds"]), metric, *_triple(group["metrics"][metric])]
        for group in facts["groups"]
        for metric in METRICS
    ]
    return _csv(["group", "seeds", "metric", "mean", "low", "high"], rows)


def accuracy_csv(facts: Row) -> str:
    """A line a run, stage and task (or suite): accuracy with its interval."""
    rows = []
    for run in facts["runs"]:
        for k, row in enumerate(run["rows"]):
            for head, n, cell in zip(run["heads"], run["sizes"], row["cells"], strict=True):
                trained = run["stages"][k - 1] if k else None
                rows.append([*_who(run), k, trained, head, *_triple(cell), n if cell["value"] is not None else None])
    return _csv([*_WHO, "stage", "trained", "of", "accuracy", "low", "high", "n"], rows)


_WHO = ("run", "folder", "group", "method", "seed")


def _who(run: Row) -> list[str]:
    return [run["label"], run["name"], run["group"], run["method"], run["seed"]]


def _triple(cell: Row) -> list[float | None]:
    low, high = cell["interval"] or (None, None)
    return [cell["value"], low, high]


def _csv(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(rows)
    return text.getvalue()
