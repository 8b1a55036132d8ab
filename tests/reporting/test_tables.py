"""Tables as text: no cell is cut at any width, and CSV, LaTeX and Markdown hold the numbers of the run folders."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from support.run_folder import FORGETS, KEEPS, TASKS, make_run

from sdft_cli.commands.report import gather
from sdft_cli.console import number, span
from sdft_cli.reporting import export, terminal
from sdft_cli.reporting.groups import groups_of
from sdft_cli.reporting.sections import sections
from sdft_cli.reporting.tables import Cell, Table
from sdft_cli.runs import results
from sdft_cli.stats import continual
from sdft_cli.stats.intervals import wilson


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    folders = [
        make_run(root / f"{method}-{seed}", method, rates, items=12, seed=seed)
        for method, rates in (("sdft", KEEPS), ("sft", FORGETS))
        for seed in (0, 1)
    ]
    runs = [results.load_run(folder) for folder in folders]
    return {"runs": runs, "report": gather(groups_of(runs)), "folders": folders}


def accuracy(folder, stage, file, part=None):
    """From the item lines alone."""
    (path,) = (folder / "evals").glob(f"{stage:02d}-*/{file}.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    values = [row["value"] for row in rows if part in (None, row.get("part"))]
    return sum(values) / len(values), len(values)


# --- terminal ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 100, 160, 250])
def test_no_line_is_too_wide_and_no_cell_is_cut(seeds, width):
    for section in sections(seeds["report"]).values():
        for table in section.tables:
            lines = list(terminal.lines(table, width))
            least = sum(
                max(len(line) for line in [*table.heads[j].split("\n"), *(row[j].text for row in table.rows)])
                for j in range(table.names)
            )
            if least < width / 2:
                assert max(map(len, lines)) <= width
            text = "\n".join(lines)
            assert all(cell.text in text for row in table.rows for cell in row)


def test_a_table_is_whole_if_wide_enough_and_else_continues_below(seeds):
    runs = sections(seeds["report"])["results"].tables[-1]
    whole, parts = list(terminal.lines(runs, 160)), list(terminal.lines(runs, 80))
    assert "" not in whole and parts.count("") == 1
    assert sum(line.startswith("run ") for line in parts) == 2
    for run in seeds["runs"]:
        for name in continual.METRICS:
            text = number(run.metrics[name], not name.endswith("accuracy"))
            assert text in "\n".join(whole) and text in "\n".join(parts)
    for lines in (whole, parts):
        assert span(seeds["runs"][0].metric_intervals["average_accuracy"]) in "\n".join(lines)


def test_shorter_intervals_before_another_part():
    cells = [Cell("0.500", (0.401, 0.599)), Cell("+0.500", (-0.401, 0.599), signed=True)]
    table = Table("", ("", "a", "b"), [[Cell("x"), *cells]])
    assert "[0.401, 0.599]  [-0.401, +0.599]" in "\n".join(terminal.lines(table, 40))
    short = list(terminal.lines(table, 30))
    assert "0.40-0.60  -0.40 +0.60" in "\n".join(short) and "" not in short
    assert list(terminal.lines(table, 20)).count("") == 1


def test_marks_are_stars_and_columns_line_up():
    table = Table("", ("name", "two\nlines"), [[Cell("a"), Cell("0.5", mark=True)], [Cell("bb"), Cell("0.25")]])
    assert list(terminal.lines(table, 80)) == [
        "        two",
        "name  lines",
        "────  ─────",
        "a      *0.5",
        "bb     0.25",
    ]


# --- CSV -------------------------------------------------------------------------------------------------------------


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_accuracy_csv_holds_every_cell(seeds):
    rows = rows_of(export.accuracy_csv(seeds["report"]))
    assert len(rows) == 4 * 4 * (len(TASKS) + 1)
    for row in rows:
        folder = next(f for f in seeds["folders"] if f.name == row["folder"])
        stage = int(row["stage"])
        if row["of"] in TASKS:
            value, n = accuracy(folder, stage, row["of"])
            low, high = wilson(value * n, n)
            assert float(row["low"]) == pytest.approx(low) and float(row["high"]) == pytest.approx(high)
        else:
            parts = [accuracy(folder, stage, "suite-micro", part) for part in ("repeat", "reverse", "recall")]
            value, n = sum(v for v, _ in parts) / 3, sum(n for _, n in parts)
        assert float(row["accuracy"]) == pytest.approx(value) and int(row["n"]) == n
        assert row["trained"] == (TASKS[stage - 1] if stage else "")


def test_runs_csv_and_seeds_csv(seeds):
    ends = {folder.name: sum(accuracy(folder, 3, task)[0] for task in TASKS) / 3 for folder in seeds["folders"]}
    rows = rows_of(export.runs_csv(seeds["report"]))
    assert {row["folder"]: pytest.approx(float(row["average_accuracy"])) for row in rows} == ends
    assert [(row["method"], row["seed"], row["group"]) for row in rows][2] == ("sft", "0", "sft")
    assert all(float(r["prior_change_low"]) <= float(r["prior_change"]) <= float(r["prior_change_high"]) for r in rows)
    means = {
        row["group"]: row for row in rows_of(export.seeds_csv(seeds["report"])) if row["metric"] == "average_accuracy"
    }
    for method in ("sdft", "sft"):
        a, b = (ends[f"{method}-{seed}"] for seed in (0, 1))
        half = 12.7062 * abs(a - b) / 2  # t of one degree of freedom, s / sqrt(2) = |a - b| / 2
        assert float(means[method]["mean"]) == pytest.approx((a + b) / 2)
        assert float(means[method]["low"]) == pytest.approx(max(0.0, (a + b) / 2 - half), abs=1e-4)


# --- Markdown and LaTeX ----------------------------------------------------------------------------------------------


def test_markdown_has_a_cell_for_each_head(seeds):
    for section in sections(seeds["report"]).values():
        for table in section.tables:
            rows = export.markdown(table).splitlines()
            counts = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
            assert counts == {len(table.heads) + 1} and len(rows) == len(table.rows) + 2


def test_names_cannot_break_markdown_or_latex():
    evil = "a|b_c & 50% $x^2$ \\end{table} <b> `c`"
    table = Table(evil, ("", evil), [[Cell(evil), Cell("-0.5", (-1.0, 0.0), True)]], evil)
    row = export.markdown(table).splitlines()[2]
    assert r"a\|b\_c" in row and r"\<b\>" in row and "−0.500" not in row and "−0.5 " in row
    text = export.latex([table])
    assert r"a|b\_c \& 50\% \$x\textasciicircum{}2\$ \textbackslash{}end\{table\}" in text
    assert text.count(r"\end{table}") == 1
    assert r"{\scriptsize {[}$-$1.000, 0.000]} \\" in text and r"& $-$0.5 \\" in text


def test_latex_has_the_numbers_and_balanced_braces(seeds):
    text = export.latex(t for section in sections(seeds["report"]).values() for t in section.tables)
    for run in seeds["runs"]:
        assert number(run.metrics["average_accuracy"]) in text
    plain = re.sub(r"\\\\|\\[{}]", "", text)  # line ends, and braces that are text
    assert plain.count("{") == plain.count("}")
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == text.count(r"\toprule")


def test_minus_signs():
    assert export.minus("-") == "–" and export.minus("-0.5 [-0.6, +0.1]") == "−0.5 [−0.6, +0.1]"
    assert export.minus("micro-2 a-b 5e-05") == "micro-2 a-b 5e-05"


# --- what tables contain ---------------------------------------------------------------------------------------------


def test_undefined_metrics_are_named_in_the_note(tmp_path):
    folder = make_run(tmp_path / "one", stages=TASKS[:1], rates=([[0.1], [0.9]], [0.9, 0.8]), items=6)
    (runs,) = sections(gather(groups_of([results.load_run(folder)])))["results"].tables
    assert runs.heads == ("run", "average\naccuracy", "learning\naccuracy", "prior\nchange")
    assert "Not defined here: backward transfer, forward transfer, forgetting." in runs.note


def test_runs_measured_under_other_settings_carry_a_dagger(tmp_path):
    runs = [results.load_run(make_run(tmp_path / m, m, items=6)) for m in ("sdft", "sft")]
    runs[1].settings[3][TASKS[0]]["limit"] = 5
    report = gather(groups_of(runs), differences=["Forced together"])
    results_, matrix = (sections(report)[name] for name in ("results", "matrix"))
    assert [row[0].text for row in results_.tables[-1].rows][:2] == ["sdft", "sft †"]
    assert "†" in results_.tables[-1].note and matrix.tables[1].title == "sft †"
    assert "Forced together" in report["warnings"]


def test_a_table_of_settings_that_is_switched_off_is_listed_once(seeds):
    report = json.loads(json.dumps(seeds["report"]))
    for run in report["runs"]:
        run["recipe"] |= {"teacher": {"rate": 0.01} if run["method"] == "sdft" else None}
    (differences, _) = sections(report)["recipe"].tables
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in differences.rows}
    assert rows["teacher.rate"] == ["0.01", "-"] and "teacher" not in rows
    assert rows["seed"] == ["0, 1", "0, 1"] and rows["method"] == ["sdft", "sft"]
