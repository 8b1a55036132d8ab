"""The tables of a report's results: every run's metrics, means over seeds, and the difference between two groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sdft_cli.console import is_change, pvalue, span
from sdft_cli.reporting.comparisons import SeedComparison
from sdft_cli.reporting.completeness_tables import ends_note
from sdft_cli.reporting.estimates import Estimate
from sdft_cli.reporting.report_json import ReportData
from sdft_cli.reporting.tables import (
    DAGGER,
    LONG,
    NONE,
    Cell,
    Table,
    estimate_cell,
    metric_heads,
    p_cell,
    run_cell,
)
from sdft_cli.stats.continual import METRICS, Metric

OVER_ITEMS = (
    "Brackets: 95 % intervals over the test items of these checkpoints ({draws} paired bootstrap draws, never narrower "
    "than the rule of three allows). They do not cover the variation between training seeds."
)
OVER_SEEDS = "Mean over training seeds; brackets: 95 % t-intervals of the mean."


def result_tables(report: ReportData) -> list[Table]:
    """Means over seeds and their difference, where there are any, and every run."""
    defined = [m for m in METRICS if any(run["metrics"][m]["value"] is not None for run in report["runs"])]
    if not defined:
        return []
    rows = [[run_cell(run), *_metric_cells(run["metrics"], defined)] for run in report["runs"]]
    if difference := report["difference"]:
        a, b = (run["label"] for run in report["runs"])
        rows.append([Cell(f"{a} − {b}"), *(estimate_cell(difference[m], signed=True) for m in defined)])
    notes = [OVER_ITEMS.format(draws=report["draws"])]
    if not all(run["comparable"] for run in report["runs"]):
        notes.append(f"{DAGGER} Measured under other settings than the first run.")
    for run in report["runs"]:
        if run["unscored"]:
            over, tasks = run["metrics_over"], len(set(run["stages"][: len(run["rows"]) - 1]))
            names = ", ".join(run["unscored"])
            notes.append(f"{run['label']}: over {len(over)} of {tasks} tasks; not scored: {names}.")
    if ends := ends_note(report["runs"]):
        notes.append(ends)
    if missing := [m.replace("_", " ") for m in METRICS if m not in defined]:
        notes.append(f"Not defined here: {', '.join(missing)}.")
    over_seeds = _over_seeds(report, defined)
    fold = bool(over_seeds) and len(rows) > LONG
    heads = ("run", *metric_heads(defined))
    return [*over_seeds, Table("Each run, after its last evaluated stage", heads, rows, " ".join(notes), folded=fold)]


def _over_seeds(report: ReportData, defined: Sequence[Metric]) -> list[Table]:
    groups, pair = report["groups"], report["pair"]
    if all(len(group["seeds"]) == 1 for group in groups):
        return []
    rows = [
        [Cell(f"{g['name']} ({_plural(len(g['seeds']), 'seed')})"), *_metric_cells(g["metrics"], defined)]
        for g in groups
    ]
    hint = " `sdft compare --by` tests pairs of methods or settings." if len(groups) > 1 and not pair else ""
    means = Table("Mean over seeds", ("recipe", *metric_heads(defined)), rows, OVER_SEEDS + hint)
    return [means, _tests(pair)] if pair else [means]


def _tests(pair: SeedComparison) -> Table:
    rows = []
    for metric, test in pair["tests"].items():
        difference = estimate_cell(test, signed=True)
        numbers = [replace(difference, interval=None), Cell(span(difference.interval, signed=True) or NONE)]
        rows.append([Cell(metric.replace("_", " ")), *numbers, p_cell(test["t_p"]), p_cell(test["flip_p"])])
    note = f"With {len(pair['seeds'])} paired seeds no sign-flip p can be below {pvalue(pair['smallest_p'])}."
    heads = ("metric", "difference", "95 %\nt-interval", "p\npaired t", "p\nsign-flip")
    return Table(f"{pair['a']} − {pair['b']}, over seeds", heads, rows, note)


def _metric_cells(estimates: Mapping[Metric, Estimate], names: Sequence[Metric]) -> list[Cell]:
    return [estimate_cell(estimates[metric], is_change(metric)) for metric in names]


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
