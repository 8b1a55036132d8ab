"""A user's own rows: every layout and file format, splits, graders, and a task that is found again by its name."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sdft_cli import plugins
from sdft_cli.commands.prepare import prepare
from sdft_cli.data.dataset import read_split
from sdft_cli.data.manifest import read_manifest
from sdft_cli.errors import UsageError
from sdft_cli.rows.column_flags import column_flags
from sdft_cli.rows.columns import columns_of
from sdft_cli.types import Example, PrepareOptions

WORDS = "north river seven lamps copper train winter paper orange signal market tower glass engine valley".split()


def ask(i: int) -> str:
    return f"item {i}: " + " ".join(WORDS[(i * 7 + k * k) % len(WORDS)] for k in range(6)) + "?"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines = [json.dumps(row) for row in rows]
        path.write_text(json.dumps(rows) if path.suffix == ".json" else "\n".join(lines) + "\n")
    return path


def make(folder: Path, rows: list[dict[str, Any]] | dict[str, list], toml: str = "", name: str = "x.jsonl", **more):
    """Prepare ``rows`` (or those of several files by source key) as task ``mine``; its summary and rows by split."""
    files = rows if isinstance(rows, dict) else {"mine": rows}
    sources = {key: [write(folder / f"{key}-{name}", some)] for key, some in files.items()}
    columns = {}
    if toml:
        (folder / "c.toml").write_text(toml)
        columns = {"mine": folder / "c.toml"}
    options = PrepareOptions(**more)
    (summary,) = prepare(list(sources), sources, folder / "data", options, columns=columns)
    return summary, {split: read_split(folder / "data" / "mine", split)[0] for split in summary["rows"]}


def first(splits: dict[str, list[Example]], number: int = 1) -> Example:
    return next(
        e for rows in splits.values() for e in rows if e.meta["row"].endswith((f":{number}", f"[{number - 1}]"))
    )


USER, REPLY = {"role": "user", "content": "and then?"}, {"role": "assistant", "content": "so"}

PROMPT, KIND = ("user", ask(1)), {"role": "system", "content": "be kind"}


def asking(i: int) -> dict[str, str]:
    return {"role": "user", "content": ask(i)}


#: layout -> a row, the prompt of the first one, its demonstration
LAYOUTS = {
    "prompt and completion": (lambda i: {"prompt": ask(i), "completion": f"so {i}"}, [PROMPT], "so 1"),
    "instruction and output": (
        lambda i: {"instruction": ask(i), "input": "" if i % 2 else "here", "output": f"so {i}"},
        [PROMPT],
        "so 1",
    ),
    "instruction, input and output": (
        lambda i: {"instruction": ask(i), "input": f"n {i}", "output": f"so {i}"},
        [("user", f"{ask(1)}\n\nn 1")],
        "so 1",
    ),
    "question and answer": (lambda i: {"Question": ask(i), "Answer": f"so {i}"}, [PROMPT], "so 1"),
    "messages": (lambda i: {"messages": [KIND, asking(i), REPLY]}, [("system", "be kind"), PROMPT], "so"),
    "messages of parts": (
        lambda i: {"messages": [{"role": "user", "content": [{"type": "text", "text": ask(i)}]}, REPLY]},
        [PROMPT],
        "so",
    ),
    "conversations": (
        lambda i: {"conversations": [{"from": "human", "value": ask(i)}, {"from": "gpt", "value": "so"}]},
        [PROMPT],
        "so",
    ),
    "chat prompt and completion": (lambda i: {"prompt": [asking(i)], "completion": [REPLY]}, [PROMPT], "so"),
    "system column": (
        lambda i: {"prompt": ask(i), "system": "be kind", "response": "so"},
        [("system", "be kind"), PROMPT],
        "so",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_recognized_by_their_columns(layout, tmp_path):
    row, prompt, demonstration = LAYOUTS[layout]
    summary, splits = make(tmp_path, [row(i) for i in range(1, 41)])
    example = first(splits)
    assert [(m["role"], m["content"]) for m in example.prompt] == prompt
    assert example.demonstration == demonstration
    assert summary["rows"] == {"train": 30, "validation": 2, "test": 8}
    assert summary["with_demonstration"] == 30


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.tsv", "x.parquet"])
def test_file_formats_give_the_same_rows(name, tmp_path):
    rows = [{"question": ask(i) + ' "q", a\nb', "answer": str(i)} for i in range(1, 41)]
    _, splits = make(tmp_path, rows, name=name)
    read = {(e.prompt[0]["content"], e.answer) for split in splits.values() for e in split}
    assert read == {(row["question"], row["answer"]) for row in rows}


def test_several_turns_and_tools(tmp_path):
    turns = [USER, REPLY, {"role": "user", "content": "x"}, REPLY, {"role": "tool", "content": "7"}, REPLY]
    rows = [{"messages": [{"role": "user", "content": ask(i)}, REPLY, *turns]} for i in range(1, 21)]
    _, splits = make(tmp_path, rows)
    example = first(splits)
    assert [m["role"] for m in example.prompt] == ["user", "assistant", "user", "assistant", "user"]
    assert [m["role"] for m in example.demonstration] == ["assistant", "tool", "assistant"]


def test_toml_names_columns_splits_and_grader(tmp_path):
    rows = [{"frage": ask(i), "wert": f"= {i}", "teil": "probe" if i > 30 else "train", "nr": i} for i in range(1, 41)]
    toml = """
        prompt = "frage"
        answer = "wert"
        id = "nr"
        split = "teil"
        splits = { probe = "test" }
        grader = "number"
        licence = "CC0"
        max_new_tokens = 7
    """
    summary, splits = make(tmp_path, rows, toml)
    assert summary["rows"] == {"train": 28, "validation": 2, "test": 10}
    assert summary["licence"] == "CC0"
    assert {e.id for e in splits["test"]} == {str(i) for i in range(31, 41)}
    manifest = read_manifest(tmp_path / "data" / "mine")
    assert (manifest["grader"], manifest["max_new_tokens"]) == ({"name": "number"}, 7)
    task = plugins.task("mine", tmp_path / "data")
    assert task.max_new_tokens == 7
    assert task.grade("that makes 31.0", splits["test"][0]).value == 1
    assert task.grade("that makes 13", splits["test"][0]).value == 0


def test_semicolons_are_recognized_and_other_delimiters_can_be_named(tmp_path):
    lines = [f"{ask(i)};so, {i}" for i in range(1, 21)]
    (tmp_path / "a.csv").write_text("\n".join(["prompt;completion", *lines]))
    (tmp_path / "b.csv").write_text("\n".join(["prompt|completion", *(line.replace(";", "|") for line in lines)]))
    (tmp_path / "c.toml").write_text('delimiter = "|"')
    for name, columns in (("a", {}), ("b", {"b": tmp_path / "c.toml"})):
        prepare([name], {name: [tmp_path / f"{name}.csv"]}, tmp_path / "data", PrepareOptions(), columns=columns)
    first, second = (read_split(tmp_path / "data" / name, "train")[0] for name in "ab")
    assert {e.demonstration for e in first} == {e.demonstration for e in second} <= {f"so, {i}" for i in range(1, 21)}


def test_splits_by_flag_by_column_and_by_file_name(tmp_path):
    rows = [{"prompt": ask(i), "completion": "so"} for i in range(60)]
    summary, _ = make(tmp_path / "a", {"mine": rows[:30], "mine.test": rows[30:40], "mine.ood": rows[40:45]})
    assert summary["rows"] == {"train": 28, "validation": 2, "test": 10, "ood": 5}
    marked = [{**row, "split": ("train", "dev", "test")[i % 3]} for i, row in enumerate(rows)]
    summary, splits = make(tmp_path / "b", marked)
    assert summary["rows"] == {"train": 20, "validation": 20, "test": 20}
    assert {e.meta["row"].split(":")[1] for e in splits["validation"]} == {str(i + 1) for i in range(1, 60, 3)}
    for folder, train, test in (
        ("c", "train.jsonl", "test.jsonl"),
        ("d", "train-00000-of-00001.parquet", "test/0.csv"),
    ):
        write(tmp_path / folder / train, rows[:40])
        write(tmp_path / folder / test, rows[40:])
        (summary,) = prepare(["mine"], {"mine": [tmp_path / folder]}, tmp_path / "data", PrepareOptions())
        assert summary["rows"] == {"train": 38, "validation": 2, "test": 20}


GRADERS = [
    ([{"question": ask(i), "answer": "ABC"[i % 3]} for i in range(40)], "choice"),
    ([{"question": ask(i), "answer": i * 1.5} for i in range(40)], "number"),
    ([{"question": ask(i), "answer": f"the {WORDS[i % 15]} one"} for i in range(40)], "contains"),
    ([{"question": ask(i), "answer": " ".join(WORDS)} for i in range(40)], "judge"),
    ([{"messages": [{"role": "user", "content": ask(i)}, REPLY]} for i in range(40)], "contains"),
]


@pytest.mark.parametrize(("rows", "grader"), GRADERS, ids=[g for _, g in GRADERS])
def test_a_grader_that_suits_the_answers_is_chosen_and_noted(rows, grader, tmp_path):
    summary, splits = make(tmp_path, rows)
    assert read_manifest(tmp_path / "data" / "mine")["grader"] == {"name": grader, "chosen": "by the answers"}
    assert any(repr(grader) in note or "with a judge" in note for note in summary["notes"])
    assert all(e.answer is not None for e in splits["test"])
    value = plugins.task("mine", tmp_path / "data").grade(str(splits["test"][0].answer), splits["test"][0]).value
    assert value == (None if grader == "judge" else 1.0)


def test_any_of_several_gold_answers_is_right(tmp_path):
    _, splits = make(tmp_path, [{"question": ask(i), "answer": [f"n{i}", "none"]} for i in range(20)])
    task = plugins.task("mine", tmp_path / "data")
    example = splits["test"][0]
    assert [task.grade(text, example).value for text in (f"it is {example.answer[0]}", "None!", "what")] == [1, 1, 0]


def test_answers_become_demonstrations_unless_a_teacher_is_to_write_them(tmp_path):
    rows = [{"question": ask(i), "answer": i} for i in range(20)]
    assert make(tmp_path / "a", rows)[0]["with_demonstration"] == 15
    assert make(tmp_path / "b", rows, demonstrations="teacher")[0]["with_demonstration"] == 0


def test_unused_columns_are_noted(tmp_path):
    summary, _ = make(tmp_path, [{"question": ask(i), "answer": i, "topic": "a", "score": 3} for i in range(20)])
    assert "unused columns: score, topic" in summary["notes"]


def test_equal_input_gives_equal_bytes_without_paths_of_this_machine(tmp_path):
    rows = [{"question": ask(i), "answer": i} for i in range(50)]
    for name in ("one", "two"):
        make(tmp_path / name, rows)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n / "data" / "mine").iterdir()} for n in ("one", "two"))
    assert one == two
    assert str(tmp_path).encode() not in b"".join(one.values())


def test_bad_rows_are_refused_and_can_be_dropped(tmp_path):
    rows = [{"question": ask(i), "answer": i} for i in range(40)]
    source = write(tmp_path / "x.jsonl", [*rows, {"question": "", "answer": 1}])
    with pytest.raises(UsageError, match=r"1 of 41 rows is bad; the first is x\.jsonl:41: empty prompt"):
        prepare(["mine"], {"mine": [source]}, tmp_path / "data", PrepareOptions())
    (summary,) = prepare(["mine"], {"mine": [source]}, tmp_path / "data", PrepareOptions(), "drop")
    assert [d["where"] for d in summary["dropped"]] == ["x.jsonl:41"]


def test_the_task_is_found_by_its_name(tmp_path):
    make(tmp_path, [{"question": ask(i), "answer": i} for i in range(20)])
    assert plugins.task("mine", tmp_path / "data").name == "mine"
    assert plugins.task("science", tmp_path / "data").grader is None
    with pytest.raises(UsageError, match="unknown task 'mime'") as error:
        plugins.task("mime", tmp_path / "data")
    assert "did you mean 'mine'" in error.value.hint
    manifest = tmp_path / "data" / "mine" / "manifest.json"
    whole = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({k: v for k, v in whole.items() if k != "grader"}))
    with pytest.raises(UsageError, match="unknown task 'mine'") as error:
        plugins.task("mine", tmp_path / "data")
    assert "--plugin" in error.value.hint
    manifest.write_text(json.dumps({k: v for k, v in whole.items() if k != "format"}))
    with pytest.raises(UsageError, match="has no format version"):
        plugins.task("mine", tmp_path / "data")
    with pytest.raises(UsageError, match="unknown task 'mime'"):  # a dataset that cannot be read is not in the way
        plugins.task("mime", tmp_path / "data")


def test_train_and_eval_by_name(tmp_path, tiny_model):
    make(tmp_path, [{"question": ask(i), "answer": i} for i in range(20)])
    where = ["--tasks", "mine", "--data", str(tmp_path / "data"), "--json"]
    sets = ["max_steps=1", "batch=2", "sampler.max_new_tokens=4", "evaluation.max_new_tokens=4"]
    words = ["--model", str(tiny_model), "--out", str(tmp_path / "run"), *(w for s in sets for w in ("--set", s))]
    (record,) = sdft("train", *where, *words)["runs"].values()
    assert record["tasks"] == ["mine"]
    scores = sdft("eval", str(tiny_model), *where, "--limit", "2", "--max-new-tokens", "4", "--no-cache")
    assert scores["tasks"]["mine"]["n"] == 2


def test_raw_text_trains_without_questions(tmp_path, tiny_model):
    rows = write(tmp_path / "rows.jsonl", [{"text": f"{ask(i)} {ask(i + 1)}"} for i in range(20)])
    (summary,) = sdft("prepare", "--source", f"mine={rows}", "--data", str(tmp_path / "data"), "--json")["tasks"]
    assert summary["rows"] == {"corpus": 20}
    where = ["--tasks", "mine", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), "--json"]
    sets = ["max_steps=1", "batch=2", "sampler.max_new_tokens=16"]
    words = ["--method", "cpt", "--model", str(tiny_model), *(w for s in sets for w in ("--set", s))]
    (record,) = sdft("train", *where, *words)["runs"].values()
    assert record["tasks"] == ["mine"]
    notes = (tmp_path / "run" / "evals" / "01-mine" / "scores.json").read_text()
    assert json.loads(notes)["tasks"]["mine"]["n"] == 0


def test_columns_in_a_flag(tmp_path):
    rows = write(tmp_path / "rows.jsonl", [{"Frage, lang": ask(i), "Zahl": i, "Teil": "Probe"} for i in range(20)])
    flags = ['mine:prompt="Frage, lang",answer=Zahl', "split=Teil,splits.Probe=test,grader=number"]
    words = [word for flag in flags for word in ("--columns", flag)]
    (summary,) = sdft("prepare", "--source", f"mine={rows}", *words, "--data", str(tmp_path / "data"), "--json")[
        "tasks"
    ]
    assert sum(summary["rows"].values()) == 20
    manifest = read_manifest(tmp_path / "data" / "mine")
    assert manifest["columns"] == {
        "prompt": "Frage, lang",
        "answer": "Zahl",
        "split": "Teil",
        "splits": {"Probe": "test"},
        "grader": "number",
    }
    (again,) = prepare(
        ["mine"],
        {"mine": [rows]},
        tmp_path / "again",
        PrepareOptions(),
        columns={"mine": column_flags(flags, ["mine"])["mine"]},
    )
    assert again["rows"] == summary["rows"]


def test_a_prepared_task_is_made_again_with_its_columns(tmp_path):
    rows = write(
        tmp_path / "rows.jsonl", [{"Frage": ask(i), "a": "x", "b": "y", "Wahl": "ab"[i % 2]} for i in range(20)]
    )
    columns = columns_of({"prompt": "Frage", "choices": ["a", "b"], "answer": "Wahl", "max_new_tokens": 9}, "columns")
    (summary,) = prepare(["mine"], {"mine": [rows]}, tmp_path / "data", PrepareOptions(), columns={"mine": columns})
    found = plugins.task("mine", tmp_path / "data")
    assert (found.grader["name"], found.max_new_tokens) == ("choice", 9)
    made = found.prepare([rows], PrepareOptions())
    assert {split: len(some) for split, some in made.splits.items()} == summary["rows"]
    first_row, kept = made.splits["train"][0], read_split(tmp_path / "data" / "mine", "train")[0][0]
    assert (first_row.prompt, first_row.answer) == (kept.prompt, kept.answer)
    assert found.grade(f"The answer is {kept.answer}.", kept).value == 1


def sdft(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "sdft_cli", *words], check=False, capture_output=True, text=True, timeout=115
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
