"""Beside every table of accuracies: whether completions were cut, and how many are exact.

The rule of `runs.completeness`: a table of these is left out where no completion was cut and the exact answers are the
right ones, and the note below the accuracies then says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from sdft_cli.console import number
from sdft_cli.reporting.report_json import GroupReport, RunReport
from sdft_cli.reporting.tables import NONE, Cell, Table
from sdft_cli.runs.completeness import differs

OF_SHARES = (
    "Shares of the completions: cut at the limit of new tokens / exact, which is the demonstration or the gold answer "
    "and nothing else."
)
ALL_ENDED = "No completion was cut at the limit of new tokens, and the exact answers are the right ones."
NONE_CUT = "No completion was cut at the limit of new tokens."
UNKNOWN = "Whether completions were cut was not recorded."


def completeness_note(matrix: RunReport | GroupReport) -> str:
    """What a table of accuracies says of its completions where no table of their own follows."""
    cut = [value for row in matrix["completeness"] for value in row["cut"]]
    if all(value is None for value in cut):
        return UNKNOWN
    return "" if _tells(matrix) else ALL_ENDED if _is_exact_known(matrix) else NONE_CUT


def completeness_table(matrix: RunReport | GroupReport, title: str, folded: bool) -> list[Table]:
    """A row per stage and a column per task; none where it would tell no more than the accuracies."""
    if not _tells(matrix):
        return []
    rows = [[Cell(row["name"]), *map(_cell, row["cut"], row["exact"])] for row in matrix["completeness"]]
    heads = ["after stage", *(f"{task}\ncut / exact" for task in matrix["heads"])]
    return [Table(f"{title}: completions", heads, rows, OF_SHARES, folded=folded)]


def ends_note(runs: Sequence[RunReport]) -> str:
    """For a table of metrics: the means over tasks after each run's last stage, where they tell something."""
    told = []
    for run in runs:
        last, tasks = run["completeness"][-1], sum(not head.startswith("prior: ") for head in run["heads"])
        cut, exact = _mean(last["cut"][:tasks]), _mean(last["exact"][:tasks])
        shares = [f"cut {number(cut)}"] if cut else []
        shares += [f"exact {number(exact)}"] if exact is not None and _tells(run) else []
        told += [f"{run['label']} {', '.join(shares)}"] if shares else []
    return f"Of the completions after the last stage, mean over tasks: {'; '.join(told)}." if told else ""


def _tells(matrix: RunReport | GroupReport) -> bool:
    """Whether any completion was cut, or the exact answers of a task are not the right ones."""
    return any(
        bool(cut) or differs(exact, cell["value"])
        for of_ends, of_accuracy in zip(matrix["completeness"], matrix["rows"], strict=True)
        for cut, exact, cell in zip(of_ends["cut"], of_ends["exact"], of_accuracy["cells"], strict=True)
    )


def _is_exact_known(matrix: RunReport | GroupReport) -> bool:
    return any(value is not None for row in matrix["completeness"] for value in row["exact"])


def _cell(cut: float | None, exact: float | None) -> Cell:
    shown = [NONE if value is None else number(value) for value in (cut, exact)]
    return Cell(" / ".join(shown), sort=exact if exact is not None else cut)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
