"""The report: one page that loads nothing, shows model output as text only, and says no more than was measured."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from runfolder import FORGETS, KEEPS, TASKS, make_run

from sdft_cli import findings, metrics, plots, results
from sdft_cli.console import number
from sdft_cli.errors import UsageError
from sdft_cli.report import report

EVIL = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two runs, one of which says something nasty in every completion, and their report."""
    root = tmp_path_factory.mktemp("pair")
    folders = [make_run(root / m, m, rates) for m, rates in (("sdft", KEEPS), ("sft", FORGETS))]
    for path in folders[1].glob("evals/*/*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        dressed = [
            {**r, "completion": EVIL, "extracted": EVIL, "why": EVIL, "prompt": [{"role": "user", "content": EVIL}]}
            for r in rows
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in dressed))
    recipe = json.loads((folders[1] / "recipe.json").read_text())
    (folders[1] / "recipe.json").write_text(json.dumps({**recipe, "data": "/home/someone/secret/data", "note": EVIL}))
    facts = report(folders, root / "out")
    return {"runs": [results.load_run(f) for f in folders], "facts": facts, "out": root / "out"}


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
    pictures = ["accuracy.png", "matrix.png", "prior.png", "training.png"]
    assert names == sorted([*pictures, "report.html", "report.json", "report.md"])
    assert json.loads((pair["out"] / "report.json").read_text()) == json.loads(json.dumps(pair["facts"]))
    for name in pictures:
        assert (pair["out"] / name).read_bytes().startswith(b"\x89PNG")


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
    assert EVIL in "".join(Reader(page).text)


def test_the_page_holds_the_numbers(pair, page):
    text = "".join(Reader(page).text).replace("−", "-")
    for run in pair["runs"]:
        for row, prior in zip(run.matrix, run.prior, strict=True):
            assert all(number(value) in text for value in [*row, prior])
        for name in metrics.METRICS:
            assert number(run.metrics[name], not name.endswith("accuracy")) in text
        for part, column in run.parts.items():
            assert part in text and number(column.cells[-1]) in text
    gained = pair["facts"]["runs"][0]["changes"][0]["base"]["gained"]
    assert f"base → end: {gained} gained" in text


def test_no_path_of_this_machine(pair, page):
    assert "/home/someone" not in page and "…/data" in page
    assert str(pair["out"].parent) not in page + (pair["out"] / "report.json").read_text()


def test_ids_are_unique(page):
    ids = [a["id"] for _, a in Reader(page).tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_the_summary_does_not_overclaim(pair):
    summary = " ".join(pair["facts"]["summary"])
    assert "micro world" in summary and "not about large language models" in summary
    assert "do not overlap for average accuracy, backward transfer, prior change" in summary
    assert "do not show that a method is better" in summary
    assert "40 items a task" in summary and "prior suite micro (60 items)" in summary
    for run in pair["runs"]:
        assert number(run.metrics["backward_transfer"], signed=True) in summary


def test_overlapping_intervals_are_said_to_overlap(tmp_path):
    runs = [results.load_run(make_run(tmp_path / m, m, KEEPS, items=12)) for m in ("sdft", "live")]
    from sdft_cli.report import gather

    summary = " ".join(gather(runs, ["sdft", "live"])["summary"])
    assert "The intervals of sdft and live overlap for" in summary and "do not overlap" not in summary


def test_the_difference_is_paired(pair):
    a, b = pair["runs"]
    found = pair["facts"]["difference"]["backward_transfer"]
    assert found["value"] == pytest.approx(a.metrics["backward_transfer"] - b.metrics["backward_transfer"])
    low, high = found["interval"]
    assert low <= found["value"] <= high


def test_no_difference_between_runs_on_other_items(tmp_path):
    runs = [results.load_run(make_run(tmp_path / str(n), items=n)) for n in (10, 12)]
    assert findings.difference(*runs) is None


def test_changes_are_counted_on_the_items(pair):
    run = pair["runs"][1]
    task = TASKS[0]
    gained, lost = metrics.changes(*({r["id"]: r["value"] for r in run.items(k, task)} for k in (1, 3)))
    row = findings.changes(run)[0]
    assert row["learned"] == {"gained": len(gained), "lost": len(lost), "p": metrics.mcnemar(len(gained), len(lost)).p}
    assert findings.changes(run)[2]["learned"] is None  # learned in the last stage
    suite = findings.changes(run)[3]
    assert suite["n"] == 60 and suite["base"]["lost"] > suite["base"]["gained"]


def test_samples_show_items_that_changed(pair):
    groups = {group["name"]: group for group in findings.samples(pair["runs"][1])}
    assert set(groups) == {*TASKS, "suite micro"}
    first = groups[TASKS[0]]
    kinds = [sample["kind"] for sample in first["samples"]]
    assert (
        kinds.count("forgotten") == 2
        and first["forgotten"] > 2
        and len({s["id"] for s in first["samples"]}) == len(kinds)
    )
    for group in groups.values():
        for sample in group["samples"]:
            start, end = sample["views"][0]["value"], sample["views"][-1]["value"]
            assert {"gained": end > start, "lost": end < start, "forgotten": end < sample["views"][1]["value"]}[
                sample["kind"]
            ]


def test_readable_text():
    assert (
        findings.text([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], 99)
        == "user: a\n\nassistant: b"
    )
    assert findings.text({"x": 1}, 99) == '{"x": 1}' and findings.text(None, 9) == ""
    assert findings.text("abcdef", 3) == "abc … (6 characters)"


def test_markdown_is_plain(pair):
    text = (pair["out"] / "report.md").read_text()
    assert "![Accuracy while training](accuracy.png)" in text and "| backward transfer |" in text
    assert "<" not in re.sub(r"<0\.001", "", text)


def test_seeds_are_tested_over_seeds(tmp_path):
    runs = [
        results.load_run(make_run(tmp_path / f"{m}-{s}", m, rates, items=10, seed=s))
        for m, rates in (("sdft", KEEPS), ("sft", FORGETS))
        for s in (0, 1, 2)
    ]
    found = findings.over_seeds(runs)
    row = next(r for r in found["rows"] if r["metric"] == "average_accuracy")
    values = [run.metrics["average_accuracy"] for run in runs]
    assert row["cells"][0]["value"] == pytest.approx(sum(values[:3]) / 3)
    test = metrics.seed_test([a - b for a, b in zip(values[:3], values[3:], strict=True)])
    assert row["test"]["t_p"] == test.t_p and row["test"]["interval"] == test.interval
    assert found["smallest_p"] == 0.25 and found["pair"] == "sdft − sft"
    assert findings.over_seeds([runs[0], runs[3]]) is None
    assert findings.over_seeds([runs[0], runs[0]]) is None


def test_an_unfinished_run_without_a_suite_and_metrics(tmp_path):
    folder = make_run(tmp_path / "part", evaluated=1, suite=False)
    (folder / "metrics.jsonl").unlink()
    facts = report([folder], tmp_path / "out")
    assert any("Unfinished (1 of 3 stages)" in sentence for sentence in facts["summary"])
    assert any("unfinished: 1 of 3" in warning for warning in facts["warnings"])
    text = "".join(Reader((tmp_path / "out" / "report.html").read_text()).text)
    assert "no prior suite was tested" in text and "not measured" not in text.replace("not measured", "", 1)


def test_runs_that_do_not_compare_are_flagged(tmp_path):
    folders = [make_run(tmp_path / "a", items=6), make_run(tmp_path / "b", "sft", items=6, evaluated=2)]
    recipe = json.loads((folders[1] / "recipe.json").read_text())
    (folders[1] / "recipe.json").write_text(json.dumps({**recipe, "world": 7}))
    from sdft_cli.report import gather

    warnings = " ".join(gather([results.load_run(f) for f in folders], ["a", "b"])["warnings"])
    assert "different worlds" in warnings and "different stages" in warnings


def test_nothing_to_report_on(tmp_path):
    with pytest.raises(UsageError, match="no run"):
        report([], tmp_path / "out")
    with pytest.raises(UsageError, match="does not exist"):
        report([tmp_path / "x"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_figures_are_deterministic_and_names_are_harmless(pair):
    runs = pair["runs"]
    drawn = [plots.svg(plots.prior_against_new(runs), 'a "<b>" & c') for _ in range(2)]
    assert drawn[0] == drawn[1] and drawn[0].startswith("<svg")
    assert 'aria-label="a &quot;&lt;b>&quot; &amp; c"' in drawn[0]
    assert "currentColor" in drawn[0] and "<style" not in drawn[0] and "<!--" not in drawn[0]
