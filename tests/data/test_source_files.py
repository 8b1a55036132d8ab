"""Folders as people have them: every file is read or named as left out, hidden ones are none, names say splits."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from sdft_cli.commands.prepare import prepare
from sdft_cli.data.manifest import read_manifest
from sdft_cli.errors import UsageError
from sdft_cli.types import PrepareOptions

WORDS = "north river seven lamps copper train winter paper orange signal market tower glass engine valley".split()


def asked(i: int) -> str:
    return f"item {i}: " + " ".join(WORDS[(i * 7 + k * k) % len(WORDS)] for k in range(6)) + "?"


def rows(start: int, count: int = 10, **more: Any) -> list[dict[str, Any]]:
    return [{"question": asked(i), "answer": i, **more} for i in range(start, start + count)]


def jsonl(some: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in some).encode()


def table(some: list[dict[str, Any]]) -> bytes:
    return ("question;answer\n" + "".join(f"{row['question']};{row['answer']}\n" for row in some)).encode()


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def prepared(*paths: Path, task: str = "mine", data: Path | None = None, **more: Any) -> tuple[dict, dict[str, Any]]:
    """The rows of each split, and the record of every file in the manifest, by its name."""
    data = data or paths[0].parent / "data-of-the-test"
    (summary,) = prepare([task], {task: list(paths)}, data, PrepareOptions(), **more)
    records = read_manifest(data / task)["sources"]
    assert all(("sha256" in record) != ("left_out" in record) for record in records)
    return summary, {record["file"]: record for record in records}


def left_out(records: dict[str, Any]) -> dict[str, str]:
    return {name: record["left_out"] for name, record in records.items() if "left_out" in record}


def test_every_file_of_a_folder_is_read_in_any_case_and_packed(tmp_path: Path) -> None:
    files = {
        "a.jsonl": jsonl(rows(0)),
        "b.jsonl.gz": gzip.compress(jsonl(rows(10))),
        "C.JSONL": jsonl(rows(20)),
        "d.JSON.GZ": gzip.compress(json.dumps(rows(30)).encode()),
        "E.CSV": table(rows(40)),
        "f.csv.zst": zstandard.ZstdCompressor().compress(table(rows(50))),
        "g.ndjson.bz2": bz2.compress(jsonl(rows(60))),
        "h/i.tsv.xz": lzma.compress(table(rows(70)).replace(b";", b"\t")),
    }
    summary, records = prepared(fill(tmp_path / "in", files))
    assert sum(summary["rows"].values()) == 80
    assert {name: record["rows"] for name, record in records.items()} == {f"in/{name}": 10 for name in files}
    assert all(len(record["sha256"]) == 64 for record in records.values())


def test_what_is_not_read_is_named_with_the_reason(tmp_path: Path) -> None:
    files = {
        "a.jsonl": jsonl(rows(0, 20)),
        "README.md": b"# rows",
        "LICENSE": b"MIT",
        "dataset_infos.json": b'{"default": {"features": {}}}',
        "labels.json": b'["cat", "dog"]',
        "settings.json": b'{"seed": 1, "names": {"a": 1}}',
        "id2label.json": b'{"0": {"name": "cat"}, "1": {"name": "dog"}}',
        "old.xls": b"\xd0\xcf\x11\xe0",
        "more.zip": b"PK\x03\x04",
        "notes.txt": b"remember",
        "plot.png": b"\x89PNG",
        "rows.jsonl.part": b"{",
        "copy of a.jsonl": jsonl(rows(0, 20)),
        "a.jsonl.gz": gzip.compress(jsonl(rows(0, 20))),
        **{f"images/{i}.png": b"\x89PNG" for i in range(50)},
    }
    summary, records = prepared(fill(tmp_path / "in", files))
    assert sum(summary["rows"].values()) == 20
    assert left_out(records) == {
        "in/README.md": "describes the dataset",
        "in/LICENSE": "describes the dataset",
        "in/dataset_infos.json": "describes the dataset",
        "in/labels.json": "no rows; no line of it is a JSON object",
        "in/settings.json": "no rows; its fields are: names, seed",
        "in/id2label.json": "no rows; its fields are: id, name",
        "in/old.xls": "not read: save it as .xlsx or CSV",
        "in/more.zip": "an archive: unpack it",
        "in/notes.txt": "text without columns",
        "in/plot.png": "not a format of rows",
        "in/rows.jsonl.part": "not a format of rows",
        "in/copy of a.jsonl": "a copy of in/a.jsonl",
        "in/a.jsonl.gz": "a copy of in/a.jsonl",
        "in/images/*.png": "not a format of rows (50 files)",
    }
    (note,) = (note for note in summary["notes"] if note.startswith("files left out: "))
    assert "in/labels.json (no rows" in note


def test_rows_of_an_unknown_layout_are_refused_even_beside_others(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", {"a.jsonl": jsonl(rows(0)), "b.json": json.dumps([{"x": 1}, {"x": 2}]).encode()})
    with pytest.raises(UsageError, match=r"b\.json: not a format that task 'mine' reads; its fields are: x"):
        prepared(folder)


def test_a_file_without_any_row_to_use_says_why(tmp_path: Path) -> None:
    image = {"image": {"bytes": "…", "path": "a.png"}}
    for content, says in (
        (jsonl([{**row, **image} for row in rows(0)]), "none of its rows is used; the first is .*: holds an image"),
        (jsonl([{"frage": "a"}]), "its fields are: frage"),
    ):
        with pytest.raises(UsageError, match=says):
            prepared(fill(tmp_path / "in", {"a.jsonl": content}))
    with pytest.raises(UsageError, match="it has no rows") as error:
        prepared(fill(tmp_path / "in2", {"a.csv": b"question,answer\n"}))
    assert "the first row must name the columns" in error.value.hint
    assert "if in2/a.csv is not meant, name the other files one by one" in error.value.hint


def test_hidden_files_and_those_of_systems_are_none_unless_given(tmp_path: Path) -> None:
    hidden = {
        ".ipynb_checkpoints/test.jsonl": jsonl(rows(50)),
        "._a.jsonl": b"\0\x05\x16\x07",
        ".git/x.json": b"{",
        ".cache/huggingface/test.jsonl": jsonl(rows(60)),
        "__MACOSX/test.jsonl": b"\0",
        "sub/.test.csv": b"x",
        "~$book.xlsx": b"\0",
    }
    folder = fill(tmp_path / ".data", {"a.jsonl": jsonl(rows(0, 20)), **hidden})
    summary, records = prepared(folder)
    assert (set(records), sum(summary["rows"].values())) == ({".data/a.jsonl"}, 20)
    given, records = prepared(folder / ".ipynb_checkpoints/test.jsonl", data=tmp_path / "data")
    assert (set(records), sum(given["rows"].values())) == ({"test.jsonl"}, 10)


def test_patterns_and_the_home_folder_as_shells_leave_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "in", {"a.jsonl": jsonl(rows(0, 20)), "b.jsonl": jsonl(rows(20)), "c.csv": b"x,y\n1,2\n"})
    _, records = prepared(tmp_path / "in" / "*.jsonl", data=tmp_path / "data")
    assert set(records) == {"a.jsonl", "b.jsonl"}
    monkeypatch.setenv("HOME", str(tmp_path))
    assert set(prepared(Path("~/in/a.jsonl"), data=tmp_path / "data")[1]) == {"a.jsonl"}
    with pytest.raises(UsageError, match="no source file matches"):
        prepared(tmp_path / "in" / "*.parquet")


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a pipe or a device"):
        prepared(Path("/dev/null"), data=tmp_path / "data")
    with pytest.raises(UsageError, match="no source file or folder at https:") as error:
        prepared(Path("https://example.org/a.jsonl"), data=tmp_path / "data")
    assert "download it" in error.value.hint


SPLITS = {
    "gsm": {"gsm_train.jsonl": "train", "gsm_test.jsonl": "test"},
    "shards": {"data/train_sft-00000-of-00001.jsonl": "train", "data/test_sft-00000-of-00001.jsonl": "test"},
    "TRACE": {"C/train.json": "train", "C/eval.json": "validation", "C/test.json": "test"},
    "no test": {"train.jsonl": "train", "eval.jsonl": "test"},
    "folders": {"training/1.jsonl": "train", "Val/1.jsonl": "validation", "test/1.jsonl": "test"},
    "words within words": {"train.jsonl": "train", "latest.jsonl": None, "my-test.jsonl": "test"},
}


@pytest.mark.parametrize("case", SPLITS)
def test_names_say_splits_as_for_the_hubs_loader(case: str, tmp_path: Path) -> None:
    names = SPLITS[case]
    files = {name: jsonl(rows(20 * i, 20)) for i, name in enumerate(names)}
    summary, records = prepared(fill(tmp_path / "in", files))
    assert {name: records[f"in/{name}"].get("split") for name in names} == names
    tested = list(names.values()).count("test")
    assert summary["rows"]["test"] == 20 * tested
    if "validation" in names.values():
        assert summary["rows"] == {"train": 20, "validation": 20, "test": 20}


def test_sources_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for name in ("gsm_{}/a.jsonl", "{}/a.jsonl"):
        train, test = (tmp_path / name.format(split) for split in ("train", "test"))
        fill(tmp_path, {str(train): jsonl(rows(0, 20)), str(test): jsonl(rows(20))})
        summary, _ = prepared(train.parent, test.parent, data=tmp_path / "data")
        assert summary["rows"]["test"] == 10
    summary, records = prepared(tmp_path / "train/a.jsonl", tmp_path / "test/a.jsonl", data=tmp_path / "data")
    assert summary["rows"]["test"] == 10
    assert set(records) == {"train/a.jsonl", "test/a.jsonl"}


@pytest.mark.parametrize("name", ["train_test.jsonl", "train-dev.jsonl", "test/train.jsonl"])
def test_an_ambiguous_name_is_refused_unless_the_rows_or_a_flag_say_more(name: str, tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", {name: jsonl(rows(0, 20))})
    with pytest.raises(UsageError, match=r"may be for .*, and no row says which") as error:
        prepared(folder)
    assert "--source mine." in error.value.hint
    (summary,) = prepare(["mine"], {"mine.train": [folder]}, tmp_path / "data", PrepareOptions())
    assert sum(summary["rows"].values()) == 20
    fill(folder, {name: jsonl(rows(0, 20, split="train") + rows(20, split="test"))})
    assert prepared(folder)[0]["rows"]["test"] == 10


def test_a_split_column_says_more_than_split_names(tmp_path: Path) -> None:
    kinds = ["train_sft", "Eval", "test-clean"]
    some = [row for i, kind in enumerate(kinds) for row in rows(10 * i, split=kind)]
    summary, _ = prepared(fill(tmp_path / "in", {"a.jsonl": jsonl(some)}))
    assert summary["rows"] == {"train": 10, "validation": 10, "test": 10}
    some = [row for row in some if row["split"] != "test-clean"]
    summary, _ = prepared(fill(tmp_path / "in2", {"a.jsonl": jsonl(some)}))
    assert summary["rows"]["test"] == 10


def test_a_named_task_takes_the_splits_that_are_written_in_a_file(tmp_path: Path) -> None:
    def row(i: int) -> dict[str, Any]:
        choices = {"text": ["1", "2", "3", "4"], "label": list("ABCD")}
        return {"question": asked(i), "choices": choices, "answerKey": "A", "type": "mcq-4-choices"}

    folder = fill(
        tmp_path / "in", {"a.json": json.dumps({"train": [row(i) for i in range(20)], "test": [row(20)]}).encode()}
    )
    assert prepared(folder, task="science")[0]["rows"] == {"train": 19, "validation": 1, "test": 1}


def test_test_rows_that_repeat_each_other_are_kept_and_counted(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", {"train.jsonl": jsonl(rows(0, 20)), "test.jsonl": jsonl(rows(20) + rows(20, 3))})
    summary, _ = prepared(folder)
    assert summary["rows"]["test"] == 13
    assert "held-out rows that repeat another one, and are kept: 3" in summary["notes"]


def test_ids_that_pandas_made_floats(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    some = [{**row, "id": float(i)} for i, row in enumerate(rows(0, 20))]
    pq.write_table(pa.Table.from_pylist(some), tmp_path / "a.parquet")
    prepared(tmp_path / "a.parquet")
    lines = (tmp_path / "data-of-the-test/mine/test.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"] for line in lines} <= {str(i) for i in range(20)}


def test_rows_for_validation_alone_are_divided(tmp_path: Path) -> None:
    summary, _ = prepared(fill(tmp_path / "in", {"web-dev.jsonl": jsonl(rows(0, 40))}))
    assert summary["rows"] == {"train": 30, "validation": 2, "test": 8}
    assert any("validation rows only" in note for note in summary["notes"])


# --- folders of the datasets library and the hub --------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Path]:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def save(dataset: Any) -> Path:
        dataset.save_to_disk(str(tmp_path / "saved"))
        return tmp_path / "saved"

    return save


def test_a_dictionary_of_datasets_saved_to_disk(saved: Any, tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    features = Features({"question": Value("string"), "answer": ClassLabel(names=["no", "yes"])})
    part = lambda start, count: Dataset.from_list(  # noqa: E731
        [{"question": asked(i), "answer": i % 2} for i in range(start, start + count)], features=features
    )
    folder = saved(DatasetDict({"train": part(0, 20), "test": part(20, 10), "validation": part(30, 5)}))
    (folder / "train" / "cache-0123.arrow").write_bytes((folder / "train" / "data-00000-of-00001.arrow").read_bytes())
    summary, records = prepared(folder)
    assert summary["rows"] == {"train": 20, "validation": 5, "test": 10}
    assert left_out(records)["saved/train/cache-0123.arrow"] == "not part of the saved dataset"
    assert left_out(records)["saved/dataset_dict.json"] == "describes the dataset"
    line = json.loads((tmp_path / "data-of-the-test/mine/test.jsonl").read_text().splitlines()[1])
    assert line["answer"] == "yes"  # row 21


def test_one_dataset_saved_to_disk_keeps_its_split(saved: Any, tmp_path: Path) -> None:
    from datasets import Dataset

    folder = saved(Dataset.from_list(rows(20), split="test"))
    train = fill(tmp_path / "more", {"a.jsonl": jsonl(rows(0, 20))})
    assert prepared(folder, train)[0]["rows"]["test"] == 10
    (folder / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(UsageError, match="is missing, which state"):
        prepared(folder, train)


CARD = b"---\nlicense: mit\nconfigs:\n%s---\n# rows\n"


def test_a_repository_whose_card_names_its_files(tmp_path: Path) -> None:
    config = (
        b"- config_name: default\n  data_files:\n  - {split: train, path: 'data/a*'}\n  - {split: test, path: b.csv}\n"
    )
    files = {
        "README.md": CARD % config,
        "data/a1.jsonl": jsonl(rows(0)),
        "data/a2.jsonl": jsonl(rows(10)),
        "b.csv": table(rows(20)),
        "raw/old.jsonl": jsonl(rows(20)),
    }
    summary, records = prepared(fill(tmp_path / "in", files))
    assert summary["rows"]["test"] == 10
    assert left_out(records)["in/raw/old.jsonl"] == "not among the configured files"
    assert [records[f"in/{name}"].get("split") for name in list(files)[1:4]] == ["train", "train", "test"]


def test_a_repository_with_several_configurations_is_refused_by_name(tmp_path: Path) -> None:
    config = b"- config_name: main\n  data_files: a.jsonl\n- config_name: extra\n  data_files: b.jsonl\n"
    folder = fill(tmp_path / "in", {"README.md": CARD % config, "a.jsonl": jsonl(rows(0)), "b.jsonl": jsonl(rows(10))})
    with pytest.raises(UsageError, match="several configurations: main, extra") as error:
        prepared(folder)
    assert error.value.hint == f"choose one: --source TASK=hf:{folder}:main"


def test_pointers_of_git_lfs_and_web_pages_are_named_for_what_they_are(tmp_path: Path) -> None:
    for content, says in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE html>\n<html>", "a web page"),
    ):
        with pytest.raises(UsageError, match=says):
            prepared(fill(tmp_path / "in", {"train.parquet": content}))
