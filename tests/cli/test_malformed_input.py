"""Malformed files of the user's own, of every sort: one clear error with file and line, a hint, exit code 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

WORDS = "north river seven lamps copper train winter paper orange signal market tower glass engine valley".split()


def row(i: int, **changes: object) -> dict[str, object]:
    prompt = f"item {i}: " + " ".join(WORDS[(i * 7 + k * k) % len(WORDS)] for k in range(6))
    whole = {"id": f"r{i}", "prompt": prompt, "completion": f"answer {i}", **changes}
    return {key: value for key, value in whole.items() if value is not ...}


def jsonl(*extra: object, rows: int = 40) -> bytes:
    """Sound rows, then the ``extra`` ones; text and bytes are written as they are."""
    lines = [json.dumps(row(i)).encode() for i in range(rows)]
    for one in extra:
        lines.append(
            one if isinstance(one, bytes) else one.encode() if isinstance(one, str) else json.dumps(one).encode()
        )
    return b"\n".join(lines) + b"\n"


def table(*extra: str) -> bytes:
    lines = ["prompt,completion", *(f"{row(i)['prompt']},answer {i}" for i in range(40)), *extra]
    return ("\n".join(lines) + "\n").encode()


def parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([row(i) for i in range(40)]), path)
    path.write_bytes(path.read_bytes()[:-200])


def nan_in_parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"question": row(i)["prompt"], "answer": float("nan") if i == 7 else float(i)} for i in range(40)]
    pq.write_table(pa.Table.from_pylist(rows), path)


def turn(role: object, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


USER, SAID = turn("user", "why so?"), turn("assistant", "so.")

#: name -> file, what it holds (bytes, or a function that makes it), what the error says
CASES: dict[str, tuple[str, bytes | Callable[[Path], None], str]] = {
    "no file": ("x.jsonl", lambda path: None, "no source file or folder at x.jsonl"),
    "empty file": ("x.jsonl", b"", "x.jsonl is empty"),
    "blank lines only": ("x.jsonl", b"\n \n\n", "x.jsonl is empty"),
    "folder without data": ("x", Path.mkdir, "x has no .json, "),
    "Latin-1 line": (
        "x.jsonl",
        jsonl('{"prompt": "caf\xe9", "completion": "y"}'.encode("latin-1")),
        "x.jsonl:41: not UTF-8",
    ),
    "UTF-16 cut off": ("x.jsonl", jsonl().decode().encode("utf-16")[:-1], "x.jsonl is broken UTF-16"),
    "UTF-16 without a mark": ("x.jsonl", jsonl().decode().encode("utf-16-le"), "x.jsonl is UTF-16 or not text"),
    "cut off": ("x.jsonl", jsonl('{"prompt": "a'), "x.jsonl:41: broken JSON"),
    "NaN": ("x.jsonl", jsonl('{"prompt": "a", "completion": NaN}'), "x.jsonl:41: no demonstration and no answer"),
    "Infinity": (
        "x.jsonl",
        jsonl('{"prompt": "a", "completion": Infinity}'),
        "x.jsonl:41: broken JSON (Infinity is not JSON)",
    ),
    "half a surrogate": (
        "x.jsonl",
        jsonl('{"prompt": "a", "completion": "\\ud83d"}'),
        "x.jsonl:41: broken JSON (lone sur",
    ),
    "nested too deeply": ("x.jsonl", jsonl("[" * 100_000), "x.jsonl:41: broken JSON"),
    "a list for a row": ("x.jsonl", jsonl([1, 2]), "x.jsonl:41: not a JSON object (list)"),
    "a line of 50 MB": (
        "x.jsonl",
        jsonl({"prompt": "a", "completion": "b" * 50_000_000}),
        "x.jsonl:41: line too long (50 MB",
    ),
    "missing column": ("x.jsonl", jsonl(row(41, prompt=...)), "x.jsonl:41: unknown format (fields: completion, id)"),
    "no known column at all": ("x.jsonl", b'{"frage": "a", "antwort": "b"}\n' * 3, "x.jsonl: not a format"),
    "empty prompt": ("x.jsonl", jsonl(row(41, prompt="  ")), "x.jsonl:41: empty prompt (field 'prompt')"),
    "empty answer": (
        "x.jsonl",
        jsonl(row(41, completion=...), row(42, completion=..., answer="")),
        "x.jsonl:41: no demonstration and",
    ),
    "blank answer": ("x.jsonl", jsonl(row(41, answer=" ")), "x.jsonl:41: empty answer"),
    "null for text": ("x.jsonl", jsonl(row(41, prompt=None)), "x.jsonl:41: no prompt (field 'prompt' is null)"),
    "mixed types": (
        "x.jsonl",
        jsonl(row(41, prompt={"a": 1})),
        "x.jsonl:41: prompt is not text (field 'prompt' is dict)",
    ),
    "duplicate id": ("x.jsonl", jsonl(row(3)), "x.jsonl:41: duplicate id ('r3' is also the id of row 4)"),
    "id of another type": ("x.jsonl", jsonl(row(41, id=None)), "x.jsonl:41: no id"),
    "unknown role": (
        "x.jsonl",
        jsonl({"messages": [turn("me", "hi"), SAID]}),
        "x.jsonl:41: unknown role (messages[0] has 'me'",
    ),
    "nested nulls": ("x.jsonl", jsonl({"messages": [USER, None]}), "x.jsonl:41: message is not an object (messages[1]"),
    "null content": ("x.jsonl", jsonl({"messages": [turn("user", None), SAID]}), "x.jsonl:41: content is not text"),
    "no messages": ("x.jsonl", jsonl({"messages": []}), "x.jsonl:41: no messages"),
    "nobody asks": ("x.jsonl", jsonl({"messages": [SAID]}), "x.jsonl:41: no user's turn"),
    "ends with a tool": (
        "x.jsonl",
        jsonl({"messages": [USER, turn("tool", "7")]}),
        "x.jsonl:41: demonstration does not end",
    ),
    "unknown split": ("x.jsonl", jsonl(row(41, split="later")), "x.jsonl:41: unknown split ('split' is 'later'"),
    "JSON array cut off": (
        "x.json",
        json.dumps([row(i) for i in range(40)]).encode()[:-30],
        "x.json is not valid JSON",
    ),
    "bad row in a JSON array": (
        "x.json",
        json.dumps([*(row(i) for i in range(40)), 5]).encode(),
        "x.json[40]: not a JSON object",
    ),
    "too few rows": ("x.jsonl", jsonl(rows=2), "leave"),
    "ragged CSV": ("x.csv", table("a,b,c"), "x.csv:42: ragged row (3 fields, the header has 2)"),
    "bad CSV quoting": ("x.csv", table('"a"b,c'), "x.csv:42: broken CSV"),
    "open CSV quote": ("x.csv", table('"a,c', "d,e"), "broken CSV: unexpected end of data"),
    "Latin-1 CSV": ("x.csv", table() + "caf\xe9,b\n".encode("latin-1"), "x.csv:42: not UTF-8"),
    "two columns of one name": ("x.csv", b"prompt,prompt\na,b\n", "x.csv:1: two columns are called 'prompt'"),
    "CSV header alone": ("x.csv", b"prompt,completion\n", "x.csv: not a format"),
    "empty CSV cell": ("x.csv", table("a,"), "x.csv:42: no demonstration and no answer"),
    "truncated Parquet": ("x.parquet", parquet, "x.parquet is not a readable Parquet file"),
    "NaN in Parquet": ("x.parquet", nan_in_parquet, "x.parquet[7]: no demonstration and no answer"),
    "not Parquet": ("x.parquet", b"hello there\n", "x.parquet: not a format"),
}

#: name -> TOML, what the error says
COLUMNS = {
    "bad TOML": ("prompt = \n", "c.toml: not valid TOML"),
    "unknown key": ('promt = "prompt"', "unknown key in c.toml: 'promt'"),
    "unknown column": ('prompt = "promt"', "unknown column of task 'mine': 'promt'"),
    "unknown grader": ('grader = "exactly"', "unknown grader 'exactly'"),
    "regex without a pattern": ('grader = "regex"', "grader 'regex' needs a pattern"),
    "broken pattern": ('pattern = "(a"', "is no regular expression"),
    "wrong type": ("prompt = 3", "prompt = 3 is not text"),
    "unknown split": ('split = "id"\nsplits = { a = "later" }', "unknown split in c.toml: 'later'"),
    "a wide delimiter": ('delimiter = "||"', "is not one character"),
}


@pytest.fixture
def refused(sdft, tmp_path: Path):
    """Run `sdft prepare …` in an empty folder, where it must fail and write nothing; the lines of its error."""

    def run(*words: str) -> list[str]:
        before = sorted(tmp_path.rglob("*"))
        code, out, err = sdft("prepare", *words)
        assert (code, out) == (2, "")
        assert sorted(tmp_path.rglob("*")) == before
        return err.splitlines()

    return run


@pytest.mark.parametrize("name", CASES)
def test_a_malformed_file_is_one_clear_error(name: str, refused, tmp_path: Path) -> None:
    file, content, says = CASES[name]
    if isinstance(content, bytes):
        (tmp_path / file).write_bytes(content)
    else:
        content(tmp_path / file)
    error, hint = refused("--source", f"mine={file}")
    assert error.startswith("error: ") and says in error
    assert hint.startswith("hint: ") and len(hint) > 10
    assert len(error) < 500


@pytest.mark.parametrize("name", COLUMNS)
def test_a_malformed_columns_file_is_one_clear_error(name: str, refused, tmp_path: Path) -> None:
    toml, says = COLUMNS[name]
    (tmp_path / "x.jsonl").write_bytes(jsonl())
    (tmp_path / "c.toml").write_text(toml)
    error, _hint = refused("--source", "mine=x.jsonl", "--columns", "mine=c.toml")
    assert says in error


FLAGS = [
    (("--source", "mine=x.jsonl", "--columns", "c.toml"), "no file at c.toml"),
    (("--source", "mine=x.jsonl", "--columns", "other=c.toml"), "--columns is given for 'other'"),
    (("--source", "mine.later=x.jsonl"), "unknown split in --source mine.later: 'later'"),
    (("--source", "mine/../up=x.jsonl"), "cannot be the name of a task"),
    (("--source", "science.test=x.jsonl"), "task 'science' knows its columns and splits"),
    (("--source", "mine=hf:"), "not a dataset of the hub"),
    (("--source", "mine=x.jsonl", "--on-overlap", "keep"), "unknown --on-overlap 'keep'"),
    (("--tasks", "other", "--source", "mine=x.jsonl"), "--source is given for 'mine'"),
]


@pytest.mark.parametrize(("words", "says"), FLAGS, ids=[" ".join(words) for words, _ in FLAGS])
def test_wrong_flags_are_one_clear_error(words: tuple[str, ...], says: str, refused, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(jsonl())
    assert says in refused(*words)[0]


def test_a_byte_order_mark_and_windows_line_endings_are_accepted(sdft, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"\xef\xbb\xbf" + jsonl().replace(b"\n", b"\r\n"))
    (tmp_path / "y.csv").write_bytes(b"\xef\xbb\xbf" + table().replace(b"\n", b"\r\n"))
    _, out, _ = sdft("prepare", "--source", "x=x.jsonl", "--source", "y=y.csv", "--json")
    assert [sum(task["rows"].values()) for task in json.loads(out)["tasks"]] == [40, 40]
