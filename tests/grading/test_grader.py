"""The contract of graders: what a plug-in's may read of a row, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdft_cli import plugins
from sdft_cli.commands.prepare import prepare
from sdft_cli.data.dataset import read_split
from sdft_cli.errors import UsageError
from sdft_cli.evaluation.units import Unit
from sdft_cli.grading.named_rules import grader, suiting
from sdft_cli.types import Example, PrepareOptions

RULE = """
from sdft_cli.grading.grader import Grader
from sdft_cli.types import Score

def score_row(completion, row, folder):
    return Score({value})

GRADER = Grader("units", "as many units as the row says", "none", score_row=score_row, columns=("units", "tests"))
"""
WORDS = "north river seven lamps copper train winter paper orange signal market tower glass engine valley".split()


@pytest.fixture
def load(tmp_path):
    def loaded(value: str) -> Path:
        (tmp_path / "rule.py").write_text(RULE.replace("{value}", value))
        plugins.load_file(tmp_path / "rule.py")
        return tmp_path

    yield loaded
    plugins.unload_all()


def make(folder: Path, toml: str) -> list[Example]:
    rows = [{"question": " ".join(WORDS[i:] + WORDS[:i]), "answer": str(i), "Einheiten": ["m"] * i} for i in range(12)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "c.toml").write_text(toml)
    options, columns = PrepareOptions(), {"mine": folder / "c.toml"}
    prepare(["mine"], {"mine": [folder / "rows.jsonl"]}, folder / "data", options, columns=columns)
    return [row for split in ("train", "test") for row in read_split(folder / "data" / "mine", split)[0]]


def test_a_plug_ins_grader_reads_columns_of_its_own(load):
    folder = load('float(len(row.meta.get("units", [])) == len(completion))')
    rows = make(folder, 'grader = "units"\nunits = "Einheiten"\n')
    task = plugins.task("mine", folder / "data")
    assert len(rows) > 8
    for row in rows:
        assert row.meta.get("units", []) == ["m"] * int(row.answer)
        assert task.grade("m" * int(row.answer), row).value == 1 and task.grade("mmmmmmmmmmmmm", row).value == 0
    assert read_split(folder / "data" / "mine", "test")[0][0].meta["units"] is not None
    with pytest.raises(UsageError, match="unknown column of task 'mine': 'Einheit'"):
        make(folder, 'grader = "units"\nunits = "Einheit"\n')


def test_what_it_returns_is_checked(load):
    folder = load("2.0")
    with pytest.raises(UsageError, match=r"GRADER\.score_row must return a Score whose value is from 0 to 1"):
        grader("units").score("x", Example("x", []))
    (folder / "rule.py").write_text(RULE.replace("{value}", "1").replace(", folder)", ")"))
    with pytest.raises(UsageError, match=r"GRADER\.score_row must be a function of \(completion, row, folder\)"):
        plugins.load_file(folder / "rule.py")


def test_a_changed_rule_is_another_grader(load, tmp_path):
    folder = load("1.0")
    make(folder, 'grader = "units"\nunits = "Einheiten"\n')

    def digest() -> str:
        return Unit("mine", False, plugins.task("mine", folder / "data")).grader

    first = digest()
    assert first == digest()
    load("0.5")
    assert digest() != first
    manifest = folder / "data" / "mine" / "manifest.json"
    changed = json.loads(manifest.read_text())
    for rule in ({"name": "sql"}, {"name": "json"}, {"name": "code"}):
        manifest.write_text(json.dumps({**changed, "grader": rule, "columns": {}}))
        assert digest() != first
        with_settings = {"sql": {"dialect": "mysql"}, "json": {"json_schema": {"type": "object"}}}.get(rule["name"])
        if with_settings:
            before = digest()
            manifest.write_text(json.dumps({**changed, "grader": rule, "columns": with_settings}))
            assert digest() != before


def test_what_is_stated_once_is_every_rows():
    rule = grader("json", given={"schema": {"type": "array"}})
    assert rule.score("{}", Example("x", [], answer={"a": 1})).why.startswith("unscored: the gold answer breaks")
    own = Example("x", [], answer="{}", meta={"schema": {"type": "object"}})
    assert rule.score("{}", own).value == 1  # the row's own comes first
    with pytest.raises(UsageError, match="grader 'exact' reads no schema") as error:
        grader("exact", given={"schema": {}})
    assert error.value.hint == "graders that do: json, sql"


def test_rules_that_need_the_row_score_no_bare_answer():
    for name in ("json", "sql", "tool-calls", "code"):
        assert grader(name)("x", "y").value is None


def test_what_suits_which_rows():
    def rows(*answers, **more) -> list[Example]:
        return [Example("x", [], answer=answer, **more) for answer in answers]

    assert suiting(["", ""], rows({"a": 1}, [{"b": 2}])) == "json"
    assert suiting(["", ""], rows([{"name": "f", "arguments": {}}], [{"name": "g", "arguments": {}}])) == "tool-calls"
    query = "SELECT name, age, city FROM head WHERE age > 3 AND city = 'x'"
    assert suiting([query], rows(query, meta={"database": "d.sqlite"})) == "sql"
    assert suiting([query], rows(query)) == "judge" and suiting(["one", "two"], rows("one", "two")) == "contains"
    assert suiting(["7"], rows("7")) == "number" and suiting([], []) == "judge"
