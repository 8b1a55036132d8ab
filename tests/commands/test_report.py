"""The report: a page that loads nothing, shows model output only as text, and claims no more than was measured."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import statistics
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from rich.console import Console
from support.run_folder import FORGETS, KEEPS, TASKS, make_run

from sdft_cli import console
from sdft_cli.commands.report import gather, report, show
from sdft_cli.console import number
from sdft_cli.errors import UsageError
from sdft_cli.reporting import comparisons, drawing, excerpts, plots, scatter
from sdft_cli.reporting.groups import groups_of
from sdft_cli.runs import results
from sdft_cli.stats import continual, paired
from sdft_cli.stats.across_seeds import seed_test

EVIL = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m\x00\u202e"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two runs, one of which has markup in every completion, and their report."""
    root = tmp_path_factory.mktemp("pair")
    folders = [make_run(root / m, m, rates) for m, rates in (("sdft", KEEPS), ("sft", FORGETS))]
    for path in folders[1].glob("evals/*/*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        hostile = [
            {**r, "completion": EVIL, "extracted": EVIL, "why": EVIL, "prompt": [{"role": "user", "content": EVIL}]}
            for r in rows
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in hostile))
    recipe = json.loads((folders[1] / "recipe.json").read_text())
    (folders[1] / "recipe.json").write_text(json.dumps({**recipe, "data": "/home/someone/secret/data", "note": EVIL}))
    contents = report(folders, root / "out")
    return {"runs": [results.load_run(f) for f in folders], "report": contents, "out": root / "out"}


@pytest.fixture(scope="module")
def page(pair):
    return (pair["out"] / "report.html").read_text()


class Reader(HTMLParser):
    """Tags with their attributes, and the text, of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def test_files(pair):
    names = sorted(path.name for path in pair["out"].iterdir())
    pictures = ["accuracy", "equal-accuracy", "forgetting", "pareto", "sequence", "training"]
    tables = ["accuracy.csv", "equal_accuracy.csv", "runs.csv", "seeds.csv", "tables.tex"]
    tables += ["report.html", "report.json", "report.md"]
    assert names == sorted([*(f"{name}.{kind}" for name in pictures for kind in ("png", "svg")), *tables])
    assert json.loads((pair["out"] / "report.json").read_text()) == json.loads(json.dumps(pair["report"]))
    assert sorted([*pair["report"]["files"], "report.json"]) == names
    for name in pictures:
        assert (pair["out"] / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert ElementTree.parse(pair["out"] / f"{name}.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_the_page_loads_nothing(page):
    tags = Reader(page).tags
    assert not re.search(r"https?://", page)
    assert not {"link", "img", "iframe", "object", "embed", "video", "audio", "form", "base"} & {tag for tag, _ in tags}
    for _, attributes in tags:
        assert "src" not in attributes and attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in re.sub(r"url\(#", "", page) and "@import" not in page


def test_only_the_pages_own_script_may_run(page):
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.S)
    assert len(scripts) == 1 and page.count("<script") == 1
    mark = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = next(a["content"] for tag, a in Reader(page).tags if tag == "meta" and "http-equiv" in a)
    assert f"script-src 'sha256-{mark}'" in policy and "default-src 'none'" in policy


def test_model_output_is_only_text(page):
    assert "<script>alert" not in page and "<img" not in page
    assert console.visible(EVIL) in "".join(Reader(page).text) and not {"\x1b", "\x00", "\u202e"} & set(page)


def test_the_page_holds_the_numbers(pair, page):
    text = "".join(Reader(page).text).replace("−", "-")
    for run in pair["runs"]:
        for row, prior in zip(run.matrix, run.prior, strict=True):
            assert all(number(value) in text for value in [*row, prior])
        for name in continual.METRICS:
            assert number(run.metrics[name], not name.endswith("accuracy")) in text
        for part, column in run.parts.items():
            assert part in text and number(column.cells[-1]) in text
    gained, lost = (pair["report"]["runs"][0]["changes"][0]["base"][kind] for kind in ("gained", "lost"))
    assert f"{gained} gained, {lost} lost" in text


def test_no_path_of_this_machine(pair, page):
    assert "/home/someone" not in page and "…/data" in page
    assert str(pair["out"].parent) not in page + (pair["out"] / "report.json").read_text()


def test_ids_are_unique(page):
    ids = [a["id"] for _, a in Reader(page).tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_the_summary_does_not_overclaim(pair):
    summary = " ".join(pair["report"]["summary"])
    assert "micro world" in summary and "not about large language models" in summary
    assert "do not overlap for average accuracy, backward transfer, prior change" in summary
    assert "do not show that a method is better" in summary
    assert "40 items per task" in summary and "prior suite micro (60 items)" in summary
    for run in pair["runs"]:
        assert number(run.metrics["backward_transfer"], signed=True) in summary


def test_overlapping_intervals_are_reported_as_overlapping(tmp_path):
    runs = [results.load_run(make_run(tmp_path / m, m, KEEPS, items=12)) for m in ("sdft", "live")]
    summary = " ".join(gather(groups_of(runs))["summary"])
    assert "The intervals of sdft and live overlap for" in summary and "do not overlap" not in summary


def test_the_difference_is_paired(pair):
    a, b = pair["runs"]
    difference = pair["report"]["difference"]["backward_transfer"]
    assert difference["value"] == pytest.approx(a.metrics["backward_transfer"] - b.metrics["backward_transfer"])
    low, high = difference["interval"]
    assert low <= difference["value"] <= high


def test_no_difference_between_runs_on_other_items(tmp_path):
    runs = [results.load_run(make_run(tmp_path / str(n), items=n)) for n in (10, 12)]
    assert comparisons.difference(*runs) is None


def test_changes_are_counted_on_the_items(pair):
    run = pair["runs"][1]
    task = TASKS[0]
    gained, lost = paired.changes(*({r["id"]: r["value"] for r in run.items(k, task)} for k in (1, 3)))
    row = comparisons.changes(run)[0]
    assert row["learned"] == {"gained": len(gained), "lost": len(lost), "p": paired.mcnemar(len(gained), len(lost)).p}
    assert comparisons.changes(run)[2]["learned"] is None  # learned in the last stage
    suite = comparisons.changes(run)[3]
    assert suite["n"] == 60 and suite["base"]["lost"] > suite["base"]["gained"]


def test_excerpts_show_items_that_changed_first(pair):
    units = {unit.name: unit for unit in excerpts.of_run(pair["runs"][1])}
    assert set(units) == {*TASKS, "suite micro"}
    first = units[TASKS[0]]
    kinds = [item.kind for item in first.items]
    assert kinds == sorted(kinds, key=list(excerpts.KINDS).index)
    assert kinds.count("forgotten") == 2 and first.counts["forgotten"] > 2
    assert len({item.id for item in first.items}) == len(kinds)
    assert units[TASKS[2]].counts["forgotten"] is None  # the last stage taught it
    for unit in units.values():
        for item in unit.items:
            start, end = item.answers[0].value, item.answers[-1].value
            true = {"gained": end > start, "lost": end < start, "forgotten": end < item.answers[1].value}
            true |= {"still wrong": start == end == 0, "still right": start == end == 1}
            assert true[item.kind]


def test_an_unscored_item_is_shown_as_unscored_and_not_as_wrong(tmp_path):
    folder = make_run(tmp_path / "run", items=6)
    path = folder / "evals" / f"03-{TASKS[2]}" / f"{TASKS[0]}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(json.dumps({**row, "value": None if k == 2 else row["value"]}) + "\n" for k, row in enumerate(rows))
    )
    unit = excerpts.of_run(results.load_run(folder))[0]
    assert unit.counts["unscored"] == 1
    assert [item.id for item in unit.items if item.kind == "unscored"] == [rows[2]["id"]]
    report([folder], tmp_path / "out")
    assert '<span class="soft">unscored</span>' in (tmp_path / "out" / "report.html").read_text()


def test_readable_text():
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert excerpts.as_text(messages, 99) == "user: a\n\nassistant: b"
    assert excerpts.as_text({"x": 1}, 99) == '{"x": 1}' and excerpts.as_text(None, 9) == ""
    assert excerpts.as_text("abcdef", 3) == "abc … (6 characters)"


def test_markdown_is_plain(pair):
    text = (pair["out"] / "report.md").read_text()
    assert "![Accuracy during training](accuracy.png)" in text and "| backward transfer |" in text
    assert not re.search(r"(?<!\\)[<>](?!\s)", text)  # "> " begins a warning


def test_recipes_at_equal_accuracy(pair, page):
    """The table, its figure and a sentence; the numbers are those of the file for other programs."""
    stages = pair["report"]["equal_accuracy"]["stages"]
    assert [stage["stage"] for stage in stages] == [1, 2, 3, None]
    [distilled, sft] = next(level for level in stages[3]["levels"] if level["share"] == 0.9)["groups"]
    change = sft["change"]["since_base"]["value"]
    assert change < distilled["change"]["since_base"]["value"] <= 0
    [said] = [line for line in pair["report"]["summary"] if "at an equal validation accuracy of" in line]
    least = distilled["change"]["since_base"]["value"]
    assert said.endswith(f"sdft {number(least, True)}, sft {number(change, True)}.")
    assert page.count("Prior change at equal accuracy on the new task</h2>") == 1
    markdown = (pair["out"] / "report.md").read_text()
    assert "![Prior change at equal accuracy on the new task](equal-accuracy.png)" in markdown
    assert "| whole sequence |" in markdown and "whole sequence" in (pair["out"] / "tables.tex").read_text()
    rows = (pair["out"] / "equal_accuracy.csv").read_text().splitlines()
    assert len(rows) == 1 + sum(len(level["groups"]) for stage in stages for level in stage["levels"])


def test_levels_that_are_asked_for_are_honoured_or_refused(sdft, pair, tmp_path):
    folders = [str(run.folder) for run in pair["runs"]]
    code, out, _ = sdft("report", *folders, "--out", str(tmp_path / "out"), "--at-accuracy", "0.3,0.99", "--json")
    levels = [level["accuracy"] for level in json.loads(out)["equal_accuracy"]["stages"][0]["levels"]]
    assert code == 0 and levels == [0.3, 0.99]
    code, out, err = sdft("report", folders[0], "--out", str(tmp_path / "one"), "--at-accuracy", "0.5")
    assert code == 2 and "--at-accuracy: no two recipes" in err and not (tmp_path / "one").exists()


def test_seeds_are_tested_over_seeds(tmp_path):
    runs = [
        results.load_run(make_run(tmp_path / f"{m}-{s}", m, rates, items=10, seed=s))
        for m, rates in (("sdft", KEEPS), ("sft", FORGETS))
        for s in (0, 1, 2)
    ]
    contents = gather(groups_of(runs))
    values = [run.metrics["average_accuracy"] for run in runs]
    mean = contents["groups"][0]["metrics"]["average_accuracy"]
    assert mean["value"] == pytest.approx(sum(values[:3]) / 3)
    half = statistics.stdev(values[:3]) / 3**0.5 * 4.302653  # Student's t, two degrees of freedom
    assert mean["interval"] == pytest.approx((mean["value"] - half, min(1.0, mean["value"] + half)))
    expected = seed_test([a - b for a, b in zip(values[:3], values[3:], strict=True)])
    pair = contents["pair"]
    test = pair["tests"]["average_accuracy"]
    assert test["t_p"] == expected.t_p and test["interval"] == expected.interval
    assert pair["smallest_p"] == 0.25 and (pair["a"], pair["b"]) == ("sdft", "sft")
    assert gather(groups_of([runs[0], runs[3]]))["pair"] is None


def test_the_base_is_one_model_for_all_seeds(tmp_path):
    runs = [results.load_run(make_run(tmp_path / str(s), items=10, seed=s)) for s in (0, 1)]
    rows = gather(groups_of(runs))["groups"][0]["rows"]
    assert all(cell["interval"] is None for cell in rows[0]["cells"])
    values = [run.matrix[1][0] for run in runs]
    assert rows[1]["cells"][0]["value"] == pytest.approx(sum(values) / 2) and rows[1]["cells"][0]["new"]


def test_an_unfinished_run_without_a_suite_and_metrics(tmp_path):
    folder = make_run(tmp_path / "part", evaluated=1, suite=False)
    (folder / "metrics.jsonl").unlink()
    contents = report([folder], tmp_path / "out")
    assert any("Unfinished (1 of 3 stages)" in sentence for sentence in contents["summary"])
    assert any("unfinished: only 1 of 3" in warning for warning in contents["warnings"])
    text = "".join(Reader((tmp_path / "out" / "report.html").read_text()).text)
    assert "no prior suite was tested" in text and "not measured" not in text.replace("not measured", "", 1)


def test_a_run_that_has_only_begun(tmp_path, capsys):
    show(report([make_run(tmp_path / "run", evaluated=0, items=6)], tmp_path / "out"))
    assert "0 of 3 stages" in capsys.readouterr().out
    text = "".join(Reader((tmp_path / "out" / "report.html").read_text()).text)
    assert "only the base model has been tested" in text and "average\naccuracy" not in text


def test_runs_that_are_not_comparable_are_flagged(tmp_path):
    folders = [make_run(tmp_path / "a", items=6), make_run(tmp_path / "b", "sft", items=6, evaluated=2)]
    recipe = json.loads((folders[1] / "recipe.json").read_text())
    (folders[1] / "recipe.json").write_text(json.dumps({**recipe, "world": 7}))
    warnings = " ".join(gather(groups_of([results.load_run(f) for f in folders]))["warnings"])
    assert "different worlds" in warnings and "different stages" in warnings


def test_nothing_to_report_on(tmp_path):
    with pytest.raises(UsageError, match="no run"):
        report([], tmp_path / "out")
    with pytest.raises(UsageError, match="does not exist"):
        report([tmp_path / "x"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_figures_are_deterministic_and_names_are_harmless(pair, tmp_path):
    groups = groups_of(pair["runs"])
    drawn = [drawing.save(scatter.pareto(groups), tmp_path / "x", 'a "<b>" & c') for _ in range(2)]
    assert drawn[0] == drawn[1] and drawn[0].startswith("<svg")
    assert 'aria-label="a &quot;&lt;b>&quot; &amp; c"' in drawn[0]
    assert "currentColor" in drawn[0] and "<style" not in drawn[0] and "<!--" not in drawn[0]
    assert not list(tmp_path.glob("*.tmp"))


def test_unmeasured_things_are_not_drawn(tmp_path):
    folder = make_run(tmp_path / "one", stages=TASKS[:1], rates=([[0.1], [0.9]], [0.9, 0.9]), items=6, suite=False)
    (folder / "metrics.jsonl").unlink()
    drawn = plots.draw(groups_of([results.load_run(folder)]), tmp_path)
    assert [plot.name for plot in drawn] == ["accuracy"]


def test_the_best_of_many_recipes_are_drawn(tmp_path):
    rates = [([[0.1], [0.1 * k]], [0.9, 0.9]) for k in range(1, 10)]
    runs = [
        results.load_run(make_run(tmp_path / f"m{k}", f"m{k}", r, TASKS[:1], items=10)) for k, r in enumerate(rates)
    ]
    best = plots.best(groups_of(runs))
    dropped = min(runs, key=lambda run: run.metrics["average_accuracy"])
    assert [group.name for group in best] == [run.method for run in runs if run is not dropped]


def test_endings_guards_and_pass_at_k_are_reported(tmp_path):
    folder = make_run(tmp_path / "run", items=6)
    at = {"stage": 2, "task": TASKS[1], "step": 100, "global_step": 200}
    best = {"step": 60, "validation": 0.875, "prior": 0.9}
    ending = {
        "kind": "ending",
        **at,
        "model_of": 60,
        "why": "best validation",
        "best": best,
        "last": {**best, "step": 100},
    }
    guard = {
        "kind": "guard",
        **at,
        "guard": "repetition",
        "level": "warn",
        "text": "it says car car",
        "hint": "lower lr",
    }
    with (folder / "metrics.jsonl").open("a") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in (ending, guard, {**guard, "guard": "truncation"}))
    path = folder / "evals" / f"03-{TASKS[2]}" / "scores.json"
    scores = json.loads(path.read_text())
    values, intervals = {"1": 0.25, "8": 0.625}, {"1": [0.1, 0.4], "8": [0.5, 0.75]}
    pass_at = {"samples": 8, "questions": 10, "unscored": 0, "mean_tokens": 9.0}
    pass_at |= {"values": values, "intervals": intervals}
    scores["tasks"][TASKS[0]] |= {"pass_at": pass_at, "extra": {"lenient": 0.375}}
    path.write_text(json.dumps(scores))
    contents = report([folder], tmp_path / "out")
    text = " ".join(Reader((tmp_path / "out" / "report.html").read_text()).text)
    for words in (
        "best validation",
        "0.875",
        "repetition",
        "truncation",
        "it says car car",
        "lower lr",
        "lenient",
        "0.375",
    ):
        assert words in text
    assert "pass@8" in text and "0.625" in text and "[0.500, 0.750]" in text
    assert "pass-at-k.svg" in contents["files"]
    assert contents["runs"][0]["endings"][0]["model_of"] == 60 and len(contents["runs"][0]["guards"]) == 2


def test_recipes_are_listed_by_what_differs(pair, page):
    rows = re.findall(r"<tr>(.*?)</tr>", page[page.index('<h2 id="recipe"') :], flags=re.S)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, flags=re.S) for row in rows]
    assert ["method", "sdft", "sft"] in cells  # two columns: it differs
    assert ["tasks", ", ".join(TASKS)] in cells  # one: it is the same


def test_the_terminal_shows_the_results(pair, capsys, monkeypatch):
    monkeypatch.setattr("sdft_cli.console.out", Console(width=80, highlight=False))
    show(pair["report"])
    output = capsys.readouterr().out
    lines = output.splitlines()
    assert max(map(len, lines)) <= 80 and "\x1b" not in output and "…" not in output
    for run in pair["runs"]:
        assert number(run.metrics["backward_transfer"], signed=True) in output
        assert console.span(run.metric_intervals["backward_transfer"], signed=True) in output
        assert all(number(value) in output for row in run.matrix for value in row)
