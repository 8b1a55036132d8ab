"""The tables of what a report measures besides accuracy: the suite's skills, second scores, pass@k."""

from __future__ import annotations

from collections.abc import Sequence

from sdft_cli.reporting.measures import TOKENS
from sdft_cli.reporting.report_json import RunReport
from sdft_cli.reporting.tables import Cell, Table, estimate_cell, nonempty, run_cell, value_cell


def skill_tables(runs: Sequence[RunReport]) -> list[Table]:
    """A row per run and a column per skill: the change since the base model, and accuracies at the end."""
    sizes = {skill["name"]: skill["n"] for run in runs for skill in run["skills"]}
    heads = ("run", *(f"{name}\nn = {n}" for name, n in sizes.items()))
    ends, changes = [], []
    for run in runs:
        by_name = {skill["name"]: skill for skill in run["skills"]}
        ends.append([run_cell(run), *(estimate_cell(by_name[s]["end"] if s in by_name else None) for s in sizes)])
        changes.append(
            [run_cell(run), *(value_cell(by_name[s]["change"] if s in by_name else None, signed=True) for s in sizes)]
        )
    tables = (Table("Change since the base model", heads, changes), Table("Accuracy at the end", heads, ends))
    return [table for each in tables for table in nonempty(each)] if sizes else []


def measures_table(runs: Sequence[RunReport]) -> Table:
    rows = []
    for run in runs:
        for measure in run["measures"]:
            digits = 1 if measure["name"] == TOKENS else 3
            ends = [estimate_cell(side, digits=digits) for side in (measure["base"], measure["end"])]
            rows.append([run_cell(run), Cell(measure["task"]), Cell(measure["name"]), *ends])
    return Table("", ("run", "task", "measure", "base", "end"), rows, names=3)


def pass_at_table(runs: Sequence[RunReport]) -> Table:
    ks = sorted({k for run in runs for by_k in run["pass_at"].values() for k in by_k}, key=int)
    rows = [
        [run_cell(run), Cell(task), *(estimate_cell(by_k.get(k)) for k in ks)]
        for run in runs
        for task, by_k in run["pass_at"].items()
    ]
    note = "Unbiased estimates; brackets: 95 % intervals over questions."
    return Table("", ("run", "task", *(f"pass@{k}" for k in ks)), rows, note, names=2)
