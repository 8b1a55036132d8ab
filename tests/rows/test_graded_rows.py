"""User's rows whose grader reads more than a gold answer in words: from the file to the score, and wherever the dataset
is moved."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sdft_cli import plugins
from sdft_cli.commands.prepare import prepare
from sdft_cli.data.dataset import read_split
from sdft_cli.data.manifest import read_manifest
from sdft_cli.errors import UsageError
from sdft_cli.grading import code as code_rule
from sdft_cli.llm.rejection_sampling import Demonstrations
from sdft_cli.llm.types import Reply, TeacherOptions
from sdft_cli.rows.column_flags import parse_pairs
from sdft_cli.types import Example, Prepared, PrepareOptions

WORDS = "north river seven lamps copper train winter paper orange signal market tower glass engine valley".split()
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {}}}}}


def ask(i: int) -> str:
    return f"item {i}: " + " ".join(WORDS[(i * 7 + k * k) % len(WORDS)] for k in range(6)) + "?"


def make(folder: Path, rows: list[dict[str, Any]], toml: str = "", name: str = "rows.jsonl") -> list[Example]:
    """Prepare the rows as task ``mine``; all that are prepared."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {}
    if toml:
        (folder / "c.toml").write_text(toml)
        columns = {"mine": folder / "c.toml"}
    prepare(["mine"], {"mine": [folder / name]}, folder / "data", PrepareOptions(), columns=columns)
    return rows_of(folder)


def rows_of(folder: Path) -> list[Example]:
    splits = ("train", "validation", "test")
    return [row for split in splits for row in read_split(folder / "data" / "mine", split)[0]]


def grades(folder: Path, rows: list[Example], say) -> list[float | None]:
    task = plugins.task("mine", folder / "data")
    return [task.grade(say(row), row).value for row in rows]


def grader(folder: Path) -> dict[str, str]:
    return read_manifest(folder / "data" / "mine")["grader"]


# --- SQL ------------------------------------------------------------------------------------------------------------


def database(path: Path, rows: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (a INTEGER, b TEXT)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(i, f"b{i}") for i in range(rows)])
    return path


def questions(**more: Any) -> list[dict[str, Any]]:
    return [{"question": ask(i), "answer": f"SELECT b FROM t WHERE a = {i}", **more} for i in range(12)]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("shop.sqlite", "shop.sqlite"),
        ("dbs/my shop.db", "dbs/my shop.db"),
        ("shop.sqlite", "shop"),
        ("database/shop/shop.sqlite", "shop"),
        ("dev_databases/shop/shop.sqlite", "shop"),
    ],
)
def test_databases_are_copied_and_found_wherever_the_dataset_is(tmp_path, place, value):
    file = database(tmp_path / "src" / place)
    rows = make(tmp_path / "src", questions(database=value))
    (place_in_dataset,) = {row.meta["database"] for row in rows}
    assert grader(tmp_path / "src") == {"name": "sql", "chosen": grader(tmp_path / "src")["chosen"]}
    moved = tmp_path / "elsewhere"
    shutil.move(tmp_path / "src" / "data", moved / "data")
    shutil.rmtree(tmp_path / "src")
    copied = moved / "data" / "mine" / place_in_dataset
    assert copied.parent.name == "databases" and copied.stem.startswith(f"{file.stem}-") and copied.suffix == ".sqlite"
    assert [p.name for p in copied.parent.iterdir()] == [copied.name]  # once, though every row names it
    assert place_in_dataset in read_manifest(moved / "data" / "mine")["sha256"]
    assert grades(moved, rows, lambda row: f"```sql\n{row.answer.lower()}\n```") == [1] * 12
    assert grades(moved, rows, lambda row: "SELECT b FROM t WHERE a = 99") == [0] * 12


def test_a_changed_database_takes_the_place_of_the_old_one(tmp_path):
    database(tmp_path / "shop.sqlite")
    make(tmp_path, questions(database="shop.sqlite"))
    folder = tmp_path / "data" / "mine" / "databases"
    (folder / "notes.txt").write_text("mine")
    before = {path.name for path in folder.glob("*.sqlite")}
    database(tmp_path / "shop.sqlite", rows=13)
    rows = make(tmp_path, questions(database="shop.sqlite"))
    after = {path.name for path in folder.glob("*.sqlite")}
    assert len(before) == len(after) == 1 and before != after and (folder / "notes.txt").exists()
    assert grades(tmp_path, rows, lambda row: row.answer) == [1] * 12
    (folder / "notes.txt").unlink()
    make(tmp_path, [{"question": ask(i), "answer": str(i)} for i in range(12)], name="others.jsonl")
    assert not folder.exists()


def test_what_is_only_in_a_databases_log_is_copied_too(tmp_path):
    connection = sqlite3.connect(database(tmp_path / "shop.sqlite", rows=1))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executemany("INSERT INTO t VALUES (?, ?)", [(i, f"b{i}") for i in range(1, 12)])
    connection.commit()
    assert (tmp_path / "shop.sqlite-wal").stat().st_size  # as it is while another program has the database open
    rows = make(tmp_path, questions(database="shop.sqlite"))
    assert sum(path.is_file() for path in (tmp_path / "data" / "mine" / "databases").iterdir()) == 1
    assert grades(tmp_path, rows, lambda row: f"SELECT 'b{row.answer.split()[-1]}'") == [1] * 12
    connection.close()


def test_one_database_for_all_rows_and_a_dialect(tmp_path):
    database(tmp_path / "shop.sqlite")
    gold = [{"question": ask(i), "answer": f"SELECT b::text FROM t WHERE a = {i}"} for i in range(12)]
    toml = 'grader = "sql"\ndatabase = "shop.sqlite"\ndialect = "postgres"\n'
    rows = make(tmp_path, gold, toml)
    assert grader(tmp_path) == {"name": "sql", "dialect": '"postgres"'} and rows[0].meta["database"].startswith(
        "databases/shop-"
    )
    assert grades(tmp_path, rows, lambda row: row.answer.replace("::text", "::varchar")) == [1] * 12


def test_a_schema_in_the_row_stays_there(tmp_path):
    rows = make(tmp_path, questions(schema="CREATE TABLE t (a INTEGER, b TEXT)"))
    assert grader(tmp_path)["name"] == "sql" and not (tmp_path / "data" / "mine" / "databases").exists()
    assert grades(tmp_path, rows, lambda row: row.answer.replace("a =", "NOT a <>")) == [1] * 12
    assert grades(tmp_path, rows, lambda row: row.answer.replace("a =", "a <>")) == [0] * 12


def test_a_database_that_is_not_there_is_told(tmp_path):
    toml = 'database = "db"\ngrader = "sql"\n'
    with pytest.raises(UsageError, match="there is no such database"):
        make(tmp_path, questions(db="none.sqlite"), toml)
    (tmp_path / "none.sqlite").write_text("not a database")
    with pytest.raises(UsageError, match=r"none\.sqlite is not an SQLite database"):
        make(tmp_path, questions(db="none.sqlite"), toml)
    make(tmp_path / "b", questions(database="nowhere"))  # a column that only has the usual name
    notes = " ".join(read_manifest(tmp_path / "b" / "data" / "mine")["notes"])
    assert "databases that are not beside the rows are not used (12 rows)" in notes
    with pytest.raises(UsageError, match="unknown dialect 'postgras'"):
        make(tmp_path, questions(), 'grader = "sql"\ndialect = "postgras"\n')
    with pytest.raises(UsageError, match="grader 'number' reads no dialect"):
        make(tmp_path, questions(), 'grader = "number"\ndialect = "mysql"\n')


# --- JSON -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_text", [False, True])
def test_objects_are_chosen_for_json(tmp_path, as_text):
    golds = [{"n": i, "of": [1, {"x": None}]} for i in range(12)]
    rows = make(
        tmp_path, [{"question": ask(i), "answer": json.dumps(g) if as_text else g} for i, g in enumerate(golds)]
    )
    assert grader(tmp_path)["name"] == "json"
    say = lambda row: f'```json\n{{"of": [1.0, {{"x": null}}], "n": {int(row.id.split("-")[1]) - 1}}}\n```'  # noqa: E731
    assert grades(tmp_path, rows, say) == [1] * 12
    assert all(json.loads(row.demonstration)["of"] for row in rows)  # as JSON, not as Python writes it
    assert grades(tmp_path, rows, lambda row: row.demonstration) == [1] * 12


def test_demonstrations_that_are_json_are_gold_answers(tmp_path):
    for form in ("{%s}", "```json\n{%s}\n```", "<think>hm</think>{%s}"):
        rows = make(tmp_path, [{"prompt": ask(i), "completion": form % f'"n": {i}'} for i in range(12)])
        assert grader(tmp_path)["name"] == "json" and grades(tmp_path, rows, lambda row: row.answer) == [1] * 12


def test_empty_lists_are_gold_answers_too(tmp_path):
    golds = [[] if i % 3 else [i] for i in range(12)]
    rows = make(tmp_path, [{"question": ask(i), "answer": g} for i, g in enumerate(golds)], 'grader = "json"\n')
    assert len(rows) == 12 and grades(tmp_path, rows, lambda row: "[]").count(1) == 8


def test_a_schema_for_all_rows_by_table_and_by_file(tmp_path):
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}}
    (tmp_path / "n.json").write_text(json.dumps(schema))
    table = '[json_schema]\ntype = "object"\n[json_schema.properties.n]\ntype = "integer"\nminimum = 3\n'
    rows = [{"question": ask(i), "answer": {"n": i + 3}} for i in range(12)]
    for toml in (f'grader = "json"\n{table}', 'grader = "json"\njson_schema = "n.json"\n'):
        made = make(tmp_path, rows, toml)
        task = plugins.task("mine", tmp_path / "data")
        score = task.grade('{"n": 1}', made[0])
        assert score.why == "breaks the schema: n: 1 is less than the minimum of 3"
        assert score.extra == {"parses": 1.0, "valid": 0.0}
        assert grades(tmp_path, made, lambda row: row.demonstration) == [1] * 12
    with pytest.raises(UsageError, match="no JSON Schema"):
        make(tmp_path, rows, 'grader = "json"\njson_schema = { type = "objekt" }\n')


# --- tool calls -----------------------------------------------------------------------------------------------------


def turn(i: int) -> dict[str, Any]:
    if i % 4 == 0:
        return {"role": "assistant", "content": "Which one do you mean?"}
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": json.dumps({"at": i})}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def test_demonstrations_that_call_tools_are_gold_answers(tmp_path):
    rows = [{"messages": [{"role": "user", "content": ask(i)}, turn(i)], "tools": [LOOK]} for i in range(12)]
    made = make(tmp_path, rows)
    assert grader(tmp_path)["name"] == "tool-calls"
    number = lambda row: int(row.id.split("-")[1]) - 1  # noqa: E731
    assert all(row.answer == [{"name": "look", "arguments": {"at": number(row)}}] for row in made if number(row) % 4)
    call = lambda row: f'<tool_call>{{"name": "look", "arguments": {{"at": {number(row)}}}}}</tool_call>'  # noqa: E731
    assert grades(tmp_path, made, call) == [float(number(row) % 4 > 0) for row in made]
    assert grades(tmp_path, made, lambda row: "Please tell me more.") == [float(number(row) % 4 == 0) for row in made]


def test_of_several_turns_the_first_is_what_a_completion_is_compared_with(tmp_path):
    def after(i: int) -> list[dict[str, Any]]:
        return [turn(4 * i + 1), {"role": "tool", "content": "7"}, {"role": "assistant", "content": f"It is {i}."}]

    rows = [{"messages": [{"role": "user", "content": ask(i)}, *after(i)], "tools": [LOOK]} for i in range(12)]
    made = make(tmp_path, rows)
    assert grader(tmp_path)["name"] == "tool-calls" and len(made[0].demonstration) == 3
    assert grades(tmp_path, made, lambda row: f"look(at={row.answer[0]['arguments']['at']})") == [1] * 12


# --- code -----------------------------------------------------------------------------------------------------------


def programs() -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"write f{i}: {ask(i)}",
            "completion": f"def f{i}(x): return x + {i}",
            "tests": f"assert f{i}(1) == {i + 1}",
        }
        for i in range(8)
    ]


def test_code_runs_only_where_the_user_says_so(tmp_path):
    make(tmp_path, programs())
    assert grader(tmp_path)["name"] != "code"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="the sandbox is for Linux")
def test_unit_tests_decide(tmp_path):
    rows = make(tmp_path, programs(), 'grader = "code"\n')
    assert grades(tmp_path, rows[:3], lambda row: f"```python\n{row.demonstration}\n```") == [1, 1, 1]
    assert grades(tmp_path, rows[:2], lambda row: row.demonstration.replace("+", "-")) == [0, 0]


def test_where_code_cannot_be_confined_the_grader_is_refused(tmp_path, monkeypatch):
    def unready() -> None:
        raise UsageError("generated code can be confined on Linux only")

    monkeypatch.setattr(code_rule.programs, "ready", unready)
    with pytest.raises(UsageError, match="Linux only") as error:
        make(tmp_path, programs(), 'grader = "code"\n')
    assert 'grader = "code" runs what a model writes' in error.value.hint
    assert not (tmp_path / "data").exists()


# --- shares ---------------------------------------------------------------------------------------------------------


def test_where_values_are_shares_the_user_says_which_replies_are_demonstrations(tmp_path):
    """A teacher's reply that is not word for word the gold answer is paid for and thrown away otherwise."""
    rows = [{"question": ask(i), "answer": ask(i + 1)} for i in range(12)]
    make(tmp_path, rows, 'grader = "rouge"\n')
    teacher = TeacherOptions(model="micro", samples=1)
    task = plugins.task("mine", tmp_path / "data")
    prepared = Prepared({"train": [replace(row, demonstration=None) for row in rows_of(tmp_path)]})
    with pytest.raises(UsageError, match="its grader gives shares") as error:
        Demonstrations(task, prepared, teacher)
    assert "accept=0.5" in error.value.hint
    made = make(tmp_path, rows, 'grader = "rouge"\naccept = 0.4\n')
    task = plugins.task("mine", tmp_path / "data")
    assert task.accept == 0.4 and plugins.task("micro-science", tmp_path).accept == 1.0
    half = " ".join(str(made[0].answer).split()[:4])
    assert 0.4 < (task.grade(half, made[0]).value or 0) < 1
    exchange = Demonstrations(task, prepared, teacher).exchanges[0]
    next(exchange)
    with pytest.raises(StopIteration) as accepted:
        exchange.send([Reply(half, "stop", 1, 1)])
    assert accepted.value.value.examples[0].demonstration == half
    for wrong in ("0", "1.5", '"x"', "true"):
        with pytest.raises(UsageError, match="accept = "):
            make(tmp_path, rows, f'grader = "rouge"\naccept = {wrong}\n')
    assert parse_pairs("accept=0.5,answer=Zahl") == {"accept": 0.5, "answer": "Zahl"}
