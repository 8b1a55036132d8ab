"""A report for other programs: Markdown, LaTeX and CSV. Data in, text out."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

from sdft_cli.console import span, visible
from sdft_cli.reporting.equal_accuracy import SINCE, EqualAccuracy
from sdft_cli.reporting.estimates import Estimate, estimate
from sdft_cli.reporting.excerpts import Excerpt
from sdft_cli.reporting.plots import Drawn
from sdft_cli.reporting.report_json import Report, ReportData, RunReport
from sdft_cli.reporting.sections import ORDER
from sdft_cli.reporting.tables import Cell, Table, TableGroup
from sdft_cli.stats.continual import METRICS

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
    "[": "{[}",  # after a line break it would begin an optional argument
}


def minus(text: str) -> str:
    """Hyphens before digits as minus signs; a lone hyphen (no value) as a dash."""
    return "–" if text == "-" else re.sub(r"(?<![\w-])-(?=[\d.])", "−", text)


def interval(cell: Cell) -> str:
    """``[0.881, 0.940]``, or nothing."""
    return minus(span(cell.interval, cell.signed))


# --- Markdown ------------------------------------------------------------------------------------------------------


def markdown_report(
    report: Report,
    sections: Mapping[str, TableGroup],
    drawn: Sequence[Drawn],
    beside: Mapping[str, Sequence[Excerpt]],
) -> str:
    """Title, summary, warnings, tables, links to the figures, and ``beside``: the same prompts, answered by several
    models."""
    parts = [f"# {plain(report['title'])}", *map(plain, report["summary"])]
    parts += [f"> {plain(warning)}" for warning in report["warnings"]]
    figures = {figure.name: figure for figure in drawn}
    for name in ORDER:
        if name in sections or name in figures:
            parts.append(f"## {plain(sections[name].title if name in sections else figures[name].title)}")
        if name in figures:
            parts.append(f"![{figures[name].title}]({name}.png)")
        if name in sections:
            parts.append(markdown_section(sections[name]))
        if name == "excerpts" and beside:
            parts.append(markdown_excerpts(beside))
    return "\n\n".join(parts) + "\n"


def markdown_section(section: TableGroup) -> str:
    """The tables of a section with their notes; folded tables are left to the page."""
    parts = [plain(section.intro)]
    for table in section.tables:
        if not table.folded:
            parts += [f"### {plain(table.title)}" if table.title else "", markdown(table), plain(table.note)]
    if any(table.folded for table in section.tables):
        parts.append("See report.html for the other tables.")
    return "\n\n".join(filter(None, parts))


def markdown_excerpts(beside: Mapping[str, Sequence[Excerpt]]) -> str:
    """Prompts by unit, and what each model wrote."""
    parts = ["## The same prompts before and after training"]
    for unit, items in beside.items():
        parts.append(f"### {plain(unit)}")
        for item in items:
            gold = f" (gold answer: {plain(item.gold)})" if item.gold else ""
            answers = [f"* **{plain(a.stage)}**: {plain(a.completion) or '(nothing)'}" for a in item.answers]
            parts += [f"{plain(item.prompt)}{gold}", "\n".join(answers)]
    return "\n\n".join(parts)


def markdown(table: Table) -> str:
    """A table with its intervals beside the values."""
    rule = ["---" if j < table.names else "---:" for j in range(len(table.heads))]
    heads = [plain(head.replace("\n", " ")) for head in table.heads]
    rows = [heads, rule, *([_markdown(cell) for cell in row] for row in table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def plain(text: str) -> str:
    """Text that Markdown shows as it stands."""
    return re.sub(r"([\\|<>&`*_\[\]])", r"\\\1", minus(visible(text))).replace("\n", " ")


def _markdown(cell: Cell) -> str:
    return f"{plain(cell.starred)} {plain(interval(cell))}".strip()


# --- LaTeX ---------------------------------------------------------------------------------------------------------


def latex(tables: Iterable[Table]) -> str:
    """Tables to copy into a paper one by one; intervals are below the values, in small print."""
    head = "% Written by `sdft report`. Needs \\usepackage{booktabs}.\n"
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
    return "".join(_LATEX.get(letter, letter) for letter in minus(visible(text)))


# --- CSV -----------------------------------------------------------------------------------------------------------


def runs_csv(report: ReportData) -> str:
    """A line per run: its metrics at the end, each with its interval."""
    ends = [f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high")]
    rows = [
        [
            *_run_columns(run),
            len(run["rows"]) - 1,
            *(v for m in METRICS for v in _triple(run["metrics"][m])),
            ", ".join(run["metrics_over"]),
        ]
        for run in report["runs"]
    ]
    return _csv([*_RUN_HEADS, "stages_evaluated", *ends, "metrics_over"], rows)


def seeds_csv(report: ReportData) -> str:
    """A line per group and metric: mean over seeds and t-interval."""
    rows = [
        [group["name"], len(group["seeds"]), metric, *_triple(group["metrics"][metric])]
        for group in report["groups"]
        for metric in METRICS
    ]
    return _csv(["group", "seeds", "metric", "mean", "low", "high"], rows)


def equal_accuracy_csv(compared: EqualAccuracy) -> str:
    """A line per stage, accuracy and recipe: the steps to it, the prior change there, and its difference from the
    recipe in ``minus``. A recipe that does not reach the accuracy has no values; ``highest`` tells how far the lowest
    of its seeds comes."""
    columns = ("step", "since_start", "since_base", "difference_since_start", "difference_since_base")
    rows: list[list[str | float | None]] = []
    for stage in compared["stages"]:
        for level in stage["levels"]:
            for one in level["groups"]:
                difference = one["difference"] or {"since_start": estimate(None), "since_base": estimate(None)}
                values = [one["step"], *(side[key] for side in (one["change"], difference) for key in SINCE)]
                row: list[str | float | None] = [stage["name"], level["accuracy"], level["share"], one["group"]]
                row += [len(one["seeds"]), one["reached"], min(one["highest"]), one["minus"]]
                rows.append(row + [number for value in values for number in _triple(value)])
    ends = [f"{name}{end}" for name in columns for end in ("", "_low", "_high")]
    heads = ("stage", "accuracy", "share", "group", "seeds", "reached", "highest", "minus", *ends)
    return _csv(heads, rows)


def loss_csv(report: ReportData) -> str:
    """A line per run, stage and task: the loss in nats per token, with its interval."""
    rows = []
    for run in report["runs"]:
        for k, row in enumerate(run["losses"]["rows"]):
            trained = run["stages"][k - 1] if k else None
            for head, text, cell in zip(run["losses"]["heads"], run["losses"]["texts"], row["cells"], strict=True):
                rows.append([*_run_columns(run), k, trained, head, *_triple(cell), text])
    return _csv([*_RUN_HEADS, "stage", "trained", "of", "loss", "low", "high", "texts"], rows)


def accuracy_csv(report: ReportData) -> str:
    """A line per run, stage and task (or suite): accuracy with its interval, and the shares of completions that were
    cut and that are exact."""
    rows = []
    for run in report["runs"]:
        for k, row in enumerate(run["rows"]):
            trained, ends = run["stages"][k - 1] if k else None, run["completeness"][k]
            shares = zip(ends["cut"], ends["exact"], strict=True)
            for head, n, cell, of_ends in zip(run["heads"], run["sizes"], row["cells"], shares, strict=True):
                size = n if cell["value"] is not None else None
                rows.append([*_run_columns(run), k, trained, head, *_triple(cell), size, *of_ends])
    return _csv([*_RUN_HEADS, "stage", "trained", "of", "accuracy", "low", "high", "n", "cut", "exact"], rows)


_RUN_HEADS = ("run", "folder", "group", "method", "seed")


def _run_columns(run: RunReport) -> list[str]:
    return [run["label"], run["name"], run["group"], run["method"], run["seed"]]


def _triple(estimate: Estimate) -> list[float | None]:
    low, high = estimate["interval"] or (None, None)
    return [estimate["value"], low, high]


def _csv(heads: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(rows)
    return text.getvalue()
