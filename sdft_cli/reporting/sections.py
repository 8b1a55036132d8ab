"""The sections of a report: which tables stand under which heading, and in what order the page shows them."""

from __future__ import annotations

from sdft_cli.reporting.equal_accuracy_tables import equal_accuracy_group
from sdft_cli.reporting.measure_tables import measures_table, pass_at_table, skill_tables
from sdft_cli.reporting.report_json import ReportData
from sdft_cli.reporting.result_tables import result_tables
from sdft_cli.reporting.settings_tables import chosen_table, settings_tables
from sdft_cli.reporting.stage_tables import (
    changes_table,
    endings_table,
    guards_table,
    loss_tables,
    matrix_tables,
    metrics_table,
)
from sdft_cli.reporting.tables import TableGroup, nonempty

#: Sections of tables, figures and excerpts by name, from top to bottom. Tables and a figure may share a section.
ORDER = (
    *("results", "sequence", "accuracy", "pareto", "equal-accuracy", "forgetting", "matrix", "loss", "curves"),
    *("changes", "skills", "measures", "pass-at-k", "training", "endings", "guards", "excerpts"),
    *("recipe", "environment"),
)


def sections(report: ReportData) -> dict[str, TableGroup]:
    """All tables of a report by section; sections without a table are left out, but for the one at
    equal accuracy, which then says why it has none."""
    runs = report["runs"]
    remarks = " ".join(f"{remark}." for remark in dict.fromkeys(remark for run in runs for remark in run["remarks"]))
    moved = "Did this checkpoint change? “Since learned” compares the end with the last stage that trained the task."
    likelihood = (
        "Mean negative log-likelihood in nats per token of what each row should be answered with, after the student's "
        "prompt. Lower is better. It is no accuracy: an answer in other words may be as good."
    )
    groups = {
        "results": TableGroup("Results", result_tables(report)),
        "equal-accuracy": equal_accuracy_group(report["equal_accuracy"]),
        "matrix": TableGroup("Accuracy after every stage", matrix_tables(report), remarks),
        "loss": TableGroup("Loss of demonstrations after every stage", loss_tables(report), likelihood),
        "curves": TableGroup("Metrics after every stage", nonempty(metrics_table(runs), fold=True)),
        "changes": TableGroup("Items gained and lost", nonempty(changes_table(runs)), moved),
        "skills": TableGroup("The prior suite, skill by skill", skill_tables(runs)),
        "measures": TableGroup("Other measures", nonempty(measures_table(runs))),
        "pass-at-k": TableGroup("pass@k", nonempty(pass_at_table(runs))),
        "endings": TableGroup("How stages ended", nonempty(endings_table(runs))),
        "guards": TableGroup("Guard warnings", nonempty(guards_table(runs))),
        "recipe": TableGroup("Recipe", [*settings_tables(report, "recipe"), *nonempty(chosen_table(runs))]),
        "environment": TableGroup("Environment", settings_tables(report, "environment")),
    }
    return {name: group for name, group in groups.items() if group.tables or (name == "equal-accuracy" and group.intro)}
