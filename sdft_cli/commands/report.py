"""`sdft report`: from runs, one self-contained HTML page, figures, and tables as Markdown, LaTeX, CSV and JSON.

Reads only run folders: no model, no network. The page states what was measured, with intervals, and what the intervals
do not cover. Left out: a verdict on which method is better from a single seed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.text import Text

from sdft_cli import console
from sdft_cli.errors import UsageError
from sdft_cli.evaluation import comparable
from sdft_cli.reporting import export, page, plots, report_json, summary, terminal
from sdft_cli.reporting.by_stage import single_task
from sdft_cli.reporting.excerpts import excerpts
from sdft_cli.reporting.groups import Group, groups_of
from sdft_cli.reporting.report_json import Report
from sdft_cli.reporting.same_prompts import same_prompts
from sdft_cli.reporting.sections import sections
from sdft_cli.runs.files import write_whole
from sdft_cli.runs.results import RunResult, load_run

#: The sections that are also printed, and written as LaTeX.
_MAIN = ("results", "equal-accuracy", "matrix", "loss")


def report(
    runs: Sequence[Path], out: Path, single: Sequence[Path] = (), forced: bool = False, levels: Sequence[float] = ()
) -> Report:
    """Write the page, the tables, the figures and, last, ``report.json`` into ``out``; returns the JSON.

    ``single`` are runs of one task each, the reference for intransigence. Runs that were measured under different
    settings are refused unless ``forced``; the warnings then list the differences. Recipes are compared at the
    accuracies ``levels``, by default at shares of what they all gain (`equal_accuracy`).
    """
    if not runs:
        raise UsageError("no run to report on", "name run folders, such as runs/<name>")
    loaded, references = ([load_run(folder) for folder in folders] for folders in (runs, single))
    differences = comparable.check([named for run in [*loaded, *references] for named in _settings(run)], forced)
    groups = groups_of(loaded)
    contents = gather(groups, single_task(references), differences, levels)
    out.mkdir(parents=True, exist_ok=True)
    contents["files"] = ["report.html", *_write(contents, groups, out)]
    write_whole(out / "report.json", json.dumps(contents, indent=1) + "\n")
    return contents


def gather(
    groups: Sequence[Group],
    single: Mapping[str, float] | None = None,
    differences: Sequence[str] = (),
    levels: Sequence[float] = (),
) -> Report:
    """Everything that the report states, as JSON. ``differences``: how the settings of evaluations that were forced
    into one report differ; ``levels``: the accuracies to compare recipes at."""
    data = report_json.gather(groups, single, levels)
    return {
        "title": summary.title(data),
        "summary": summary.sentences(data),
        "warnings": [*summary.warnings(data), *differences],
        "files": [],
        **data,
    }


def show(contents: Report) -> None:
    """Terminal output: the results, recipes at equal accuracy, and the accuracies by stage if there are few runs (else
    only the page has them); losses where some task has no accuracy."""
    console.out.print(Text(contents["title"], style="bold"), soft_wrap=True)
    for warning in contents["warnings"]:
        terminal.prose(f"WARNING: {warning}")
    by_name = sections(contents)
    for name in _MAIN:
        if name not in by_name:
            continue
        if not by_name[name].tables:
            terminal.prose(by_name[name].intro)
            console.out.print()
        elif not all(table.folded for table in by_name[name].tables):
            terminal.show(by_name[name], folded=False)


def _settings(run: RunResult) -> list[tuple[str, comparable.Settings]]:
    return [(f"{run.name}, stage {stage}", settings) for stage, settings in run.settings.items()]


def _write(contents: Report, groups: Sequence[Group], out: Path) -> list[str]:
    """Write everything but the JSON; returns the names of the files beside the page."""
    by_name, drawn, beside = sections(contents), plots.draw(groups, out), same_prompts(groups)
    main = [table for name in _MAIN if name in by_name for table in by_name[name].tables]
    texts = {
        "report.md": export.markdown_report(contents, by_name, drawn, beside),
        "tables.tex": export.latex(table for table in main if not table.folded),
        "runs.csv": export.runs_csv(contents),
        "accuracy.csv": export.accuracy_csv(contents),
        "seeds.csv": export.seeds_csv(contents),
    }
    if contents["equal_accuracy"]["stages"]:
        texts["equal_accuracy.csv"] = export.equal_accuracy_csv(contents["equal_accuracy"])
    if any(run["losses"]["heads"] for run in contents["runs"]):
        texts["loss.csv"] = export.loss_csv(contents)
    for name, text in texts.items():
        write_whole(out / name, text)
    write_whole(out / "report.html", page.render(contents, by_name, drawn, excerpts(groups), beside))
    return [*texts, *(f"{figure.name}.{kind}" for figure in drawn for kind in ("png", "svg"))]
