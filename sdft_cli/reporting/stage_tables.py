"""The tables of a report's stages: accuracies, metrics and moved items, how stages ended, and what guards reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sdft_cli.console import is_change, number
from sdft_cli.reporting.by_stage import StageMetric
from sdft_cli.reporting.comparisons import Moved
from sdft_cli.reporting.completeness_tables import completeness_note, completeness_table
from sdft_cli.reporting.matrices import Losses, Matrix, MatrixCell
from sdft_cli.reporting.report_json import ReportData, RunReport
from sdft_cli.reporting.result_tables import OVER_SEEDS
from sdft_cli.reporting.tables import (
    NONE,
    Cell,
    Table,
    count_cell,
    estimate_cell,
    metric_heads,
    p_cell,
    run_cell,
    stage_cell,
    value_cell,
)
from sdft_cli.runs.records import EndingFacts, MarkRecord
from sdft_cli.stats.continual import METRICS
from sdft_cli.stats.selection import by_chance

#: The matrices of more runs than this are folded away.
_FEW = 3
OF_CELLS = "* trained in this stage. Brackets: 95 % intervals (Wilson; for the suite, combined over its skills)."
OF_LOSSES = "* trained in this stage. Brackets: 95 % intervals over rows, which all stages share."


def matrix_tables(report: ReportData) -> list[Table]:
    """An accuracy matrix per run, after those of means over seeds; below each, how completions ended."""
    means = [group for group in report["groups"] if len(group["seeds"]) > 1 and group["rows"]]
    note = f"* trained in this stage. {OVER_SEEDS}"
    tables = []
    for group in means:
        title, fold = f"{group['name']}, mean of {len(group['seeds'])} seeds", len(means) > _FEW
        tables.append(_matrix_table(group, title, f"{note} {completeness_note(group)}".rstrip(), fold))
        tables += completeness_table(group, title, fold)
    for run in report["runs"]:
        title, fold = run_cell(run).text, len(report["runs"]) > _FEW
        notes = [OF_CELLS, *(f"{note[:1].upper()}{note[1:]}." for note in run["notes"]), completeness_note(run)]
        tables.append(_matrix_table(run, title, " ".join(filter(None, notes)), fold))
        tables += completeness_table(run, title, fold)
    return tables


def _matrix_table(matrix: Matrix, title: str, note: str, folded: bool) -> Table:
    columns = zip(matrix["heads"], matrix["sizes"], strict=True)
    heads = ["after stage", *(f"{head}\n{f'n = {n}' if n else 'not scored'}" for head, n in columns)]
    rows = [[Cell(row["name"]), *map(_matrix_cell, row["cells"])] for row in matrix["rows"]]
    return Table(title, heads, rows, note, folded=folded)


def loss_tables(report: ReportData) -> list[Table]:
    """The losses of every run, after those of means over seeds; folded where every task has an accuracy."""
    means = [group for group in report["groups"] if len(group["seeds"]) > 1 and group["losses"]["heads"]]
    measured = [run for run in report["runs"] if run["losses"]["heads"]]
    fold = not any(run["unscored"] for run in measured)
    tables = [
        _loss_table(group["losses"], f"{group['name']}, mean of {len(group['seeds'])} seeds", OVER_SEEDS, fold)
        for group in means
    ]
    return [*tables, *(_loss_table(run["losses"], run_cell(run).text, OF_LOSSES, fold) for run in measured)]


def _loss_table(losses: Losses, title: str, note: str, folded: bool) -> Table:
    of = "; ".join(f"{head}: {text}" for head, text in zip(losses["heads"], losses["texts"], strict=True))
    rows = [
        [
            Cell(row["name"]),
            *(replace(estimate_cell(c), mark=c["new"] and c["value"] is not None) for c in row["cells"]),
        ]
        for row in losses["rows"]
    ]
    title = f"{title}: loss in nats per token"
    return Table(title, ["after stage", *losses["heads"]], rows, f"{note} {of}.", folded=folded)


def _matrix_cell(cell: MatrixCell) -> Cell:
    return replace(estimate_cell(cell), mark=cell["new"] and cell["value"] is not None, shade=cell["value"])


def metrics_table(runs: Sequence[RunReport]) -> Table:
    """The metrics after every stage."""
    with_references = any(row["intransigence"] is not None for run in runs for row in run["curves"])
    names: list[StageMetric] = [*METRICS, "prior"]
    if with_references:
        names.append("intransigence")
    rows = [
        [
            run_cell(run),
            stage_cell(row["stage"], row["task"]),
            *(value_cell(row[name], is_change(name) and name != "prior") for name in names),
        ]
        for run in runs
        for row in run["curves"][1:]
    ]
    return Table("", ("run", "after stage", *metric_heads(names)), rows, names=2)


def changes_table(runs: Sequence[RunReport]) -> Table:
    """Items gained and lost."""
    sides = ("base → end:", "since learned:")
    columns = (f"{side}\n{column}" for side in sides for column in ("gained", "lost", "p"))
    rows = [
        [
            run_cell(run),
            Cell(row["name"]),
            count_cell(row["n"]),
            *_moved_cells(row["base"]),
            *_moved_cells(row["learned"]),
        ]
        for run in runs
        for row in run["changes"]
    ]
    note = (
        "p: exact McNemar test on the same items (sign-flip test for graded scores). It compares these checkpoints, "
        "not the methods that made them."
    )
    return Table("", ("run", "task or suite", "n", *columns), rows, note, names=2)


def _moved_cells(moved: Moved | None) -> list[Cell]:
    return [count_cell(moved["gained"]), count_cell(moved["lost"]), p_cell(moved["p"])] if moved else [Cell(NONE)] * 3


def endings_table(runs: Sequence[RunReport]) -> Table:
    """Which step's model each stage ended with, and its validation accuracy."""
    heads = ("run", "stage", "reason", "model of\nstep", "best\nstep", "validation\naccuracy", "last\nstep")
    rows = [
        [
            run_cell(run),
            stage_cell(row["stage"], row["task"]),
            Cell(row["why"]),
            count_cell(row["model_of"]),
            *_mark_cells(row["best"]),
            *_mark_cells(row["last"]),
        ]
        for run in runs
        for row in run["endings"]
    ]
    note = "Step 0 is the model that the stage started from."
    lucky = [f"{run['label']}, stage {row['stage']}" for run in runs for row in run["endings"] if _by_chance(row)]
    if lucky:
        note += f" The best step is within one standard error of the last one: {'; '.join(lucky)}."
    if any(_by_loss(row["best"]) for run in runs for row in run["endings"]):
        note += " Losses are in nats per token, where nothing scores the stage's task."
    return Table("", (*heads, "validation\naccuracy"), rows, note, names=3)


def _mark_cells(mark: MarkRecord | None) -> list[Cell]:
    if mark is None:
        return [Cell(NONE), Cell(NONE)]
    value = Cell(f"loss {number(mark.get('loss'))}") if _by_loss(mark) else value_cell(mark["validation"])
    return [count_cell(mark["step"]), value]


def _by_chance(row: EndingFacts) -> bool:
    """Whether the best step's accuracy is the higher one by chance as likely as not."""
    best, last = row["best"], row["last"]
    if not best or not last or best["step"] == last["step"]:
        return False
    higher, lower, n = best["validation"], last["validation"], best.get("n")
    return bool(higher is not None and lower is not None and n and by_chance(higher, lower, n))


def _by_loss(mark: MarkRecord | None) -> bool:
    """Whether a mark has a loss and no accuracy."""
    return mark is not None and mark["validation"] is None and mark.get("loss") is not None


def guards_table(runs: Sequence[RunReport]) -> Table:
    """What guards reported during training."""
    rows = [
        [
            run_cell(run),
            stage_cell(row["stage"], row["task"]),
            count_cell(row["step"]),
            *(Cell(text) for text in (row["guard"], row["level"], row["text"], row["hint"])),
        ]
        for run in runs
        for row in run["guards"]
    ]
    return Table("", ("run", "stage", "step", "guard", "level", "finding", "remedy"), rows, names=7)
