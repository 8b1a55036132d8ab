"""The tables of recipes and environments: what differs between groups of runs, and what all runs share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from sdft_cli.config.overrides import leaves
from sdft_cli.reporting.groups import Settings, as_text, differing
from sdft_cli.reporting.report_json import ReportData, RunReport
from sdft_cli.reporting.tables import LONG, NONE, Cell, Table, run_cell, stage_cell
from sdft_cli.runs.stage_recipes import settled_key


def settings_tables(report: ReportData, kind: Literal["recipe", "environment"]) -> list[Table]:
    """The settings that differ, with a column per group, then the common ones. The runs of a group differ in little
    but the seed."""
    by_group = {
        group["name"]: [dict(leaves(run[kind])) for run in report["runs"] if run["group"] == group["name"]]
        for group in report["groups"]
    }
    every = [settings for of_group in by_group.values() for settings in of_group]
    different = differing(every)
    rows = [
        [Cell(key), *(Cell(_values(key, of_group)) for of_group in by_group.values())]
        for key in different
        if not _is_table(key, every)
    ]
    common = [[Cell(key), Cell(as_text(value))] for key, value in every[0].items() if key not in different]
    heads, title = ("setting", *by_group), "Same in all runs" if len(every) > 1 else "All settings"
    tables = (
        Table("Differences", heads, rows, "", len(heads), len(rows) > 2 * LONG),
        Table(title, ("setting", "value"), common, "", 2, True),
    )
    return [table for table in tables if table.rows]


def chosen_table(runs: Sequence[RunReport]) -> Table:
    """What was left to be chosen when a stage began, and what it came to."""
    rows = [
        [
            run_cell(run),
            stage_cell(row["stage"], row["task"]),
            Cell(settled_key(row)),
            Cell(f"{row['skip_first']}, because {row['why']}"),
        ]
        for run in runs
        for row in run["chosen"]
    ]
    return Table("Chosen when a stage began", ("run", "stage", "setting", "auto came to"), rows, names=4)


def _is_table(key: str, sides: Sequence[Mapping[str, object]]) -> bool:
    """Whether some side has settings below ``key``: then another side has switched off the whole table of settings."""
    return any(other.startswith(f"{key}.") for side in sides for other in side)


def _values(key: str, sides: Sequence[Settings]) -> str:
    """The values of one setting in a group's runs, each once."""
    return ", ".join(dict.fromkeys(as_text(side[key]) if key in side else NONE for side in sides))
