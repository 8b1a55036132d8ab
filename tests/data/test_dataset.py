"""Dataset folders: reading names every bad row; writing is complete, repeatable, and spares other people's files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from sdft_cli.data import dataset
from sdft_cli.data.dataset import check_demonstrations, read_examples, read_split, write_dataset
from sdft_cli.data.manifest import FORMAT, read_manifest
from sdft_cli.errors import UsageError
from sdft_cli.types import Dropped, Example, Prepared, PrepareOptions

GOOD = {"id": "a", "prompt": [{"role": "user", "content": "why?"}], "demonstration": "so", "answer": "so"}


def line(**changes) -> str:
    return json.dumps({k: v for k, v in {**GOOD, **changes}.items() if v is not ...})


def folder(tmp_path: Path, *lines: str | bytes, split: str = "train") -> Path:
    """A dataset folder with these lines in one split."""
    place = tmp_path / "toy"
    place.mkdir(exist_ok=True)
    (place / "manifest.json").write_text(json.dumps({"format": FORMAT}))
    raw = b"\n".join(x if isinstance(x, bytes) else x.encode() for x in lines)
    (place / f"{split}.jsonl").write_bytes(raw + b"\n")
    return place


BAD = [
    ("cut off", '{"id": "b", "prom', "broken JSON"),
    ("not a number", line(id="b", answer=...)[:-1] + ', "answer": NaN}', "broken JSON"),
    ("half a surrogate pair", line(id="b", answer=...)[:-1] + ', "answer": "\\ud800"}', "broken JSON"),
    ("too deep", "[" * 100_000, "broken JSON"),
    ("Latin-1", line(id="b").encode()[:-1] + b', "x": "\xe9"}', "not UTF-8"),
    ("a list", "[1]", "wrong field"),
    ("no id", line(id=...), "wrong field"),
    ("unknown field", line(id="b", promt="x"), "wrong field"),
    ("unknown role", line(id="b", prompt=[{"role": "me", "content": "x"}]), "wrong field"),
    ("prompt is text", line(id="b", prompt="why?"), "wrong field"),
    ("no prompt", line(id="b", prompt=...), "wrong field"),
    ("same id", line(), "duplicate id"),
    ("empty demonstration", line(id="b", demonstration=""), "empty demonstration"),
    ("blank demonstration", line(id="b", demonstration=" \n"), "empty demonstration"),
    ("blank turns", line(id="b", demonstration=[{"role": "assistant", "content": " "}]), "empty demonstration"),
    ("blank answer", line(id="b", answer=" "), "empty answer"),
    ("empty list of calls", line(id="b", answer=[]), "empty answer"),
    ("blank prompt", line(id="b", prompt=[{"role": "user", "content": " "}]), "empty prompt"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_row_is_named_by_line(tmp_path, bad, reason):
    place = folder(tmp_path, line(), "", bad, line(id="z"))
    examples, dropped = read_split(place, "train", "drop")
    assert [e.id for e in examples] == ["a", "z"]
    assert [(d.where, d.reason) for d in dropped] == [("train.jsonl:3", reason)]
    with pytest.raises(UsageError) as error:
        read_split(place, "train")
    assert "1 of 3 rows is bad" in error.value.message
    assert "train.jsonl:3" in error.value.message
    assert "--on-bad-row drop" in error.value.hint


def test_a_good_split_is_read_unchanged(tmp_path):
    rows = [line(), line(id="b", demonstration=[{"role": "assistant", "content": "x"}], context="c", meta={"k": 1})]
    examples, dropped = read_split(folder(tmp_path, *rows), "train")
    assert [e.to_dict() for e in examples] == [json.loads(r) for r in rows]
    assert dropped == []


def test_unicode_line_separators_in_text_do_not_split_a_row(tmp_path):
    raw = json.dumps({**GOOD, "answer": "one\u2028two\x85"}, ensure_ascii=False)
    assert read_split(folder(tmp_path, raw), "train")[0][0].answer == "one\u2028two\x85"


def test_a_byte_order_mark_is_skipped(tmp_path):
    place = folder(tmp_path, b"\xef\xbb\xbf" + line().encode())
    assert len(read_split(place, "train")[0]) == 1
    (place / "train.jsonl").write_bytes(line().encode("utf-16"))
    with pytest.raises(UsageError, match="UTF-16"):
        read_split(place, "train", "drop")


def test_errors_about_missing_things_say_what_to_do(tmp_path):
    with pytest.raises(UsageError, match="no dataset at") as error:
        read_split(tmp_path / "tooluse", "train")
    assert error.value.hint.endswith(f"sdft prepare --tasks tooluse --data {tmp_path}")
    with pytest.raises(UsageError, match="no dataset at") as error:
        read_split(Path("data") / "nothing", "train")
    assert error.value.hint.endswith("sdft prepare --tasks nothing")
    place = folder(tmp_path, line())
    with pytest.raises(UsageError, match=r"no test split \(splits: train\)"):
        read_split(place, "test")
    with pytest.raises(UsageError, match="no usable row"):
        read_split(folder(tmp_path, "{"), "train", "drop")
    with pytest.raises(UsageError, match="on-bad-row") as error:
        read_split(place, "train", "ignore")
    assert "drop, error" in error.value.hint


def test_a_file_of_rows_needs_no_dataset_around_it(tmp_path):
    (tmp_path / "general.jsonl").write_text(line() + "\n")
    assert [e.id for e in read_examples(tmp_path / "general.jsonl")[0]] == ["a"]


# --- the manifest -----------------------------------------------------------------------------------------------------

OTHER_FORMATS = {
    "older, without a version": ({"task": "toy"}, "has no format version: the dataset was prepared by an older sdft"),
    "newer": ({"format": FORMAT + 1}, f"has format version {FORMAT + 1}, and this sdft reads version {FORMAT}"),
    "another type": ({"format": "1"}, "has format version '1'"),
    "not an object": ([1], "has no format version"),
}


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_a_dataset_of_another_format_is_refused_with_the_command_that_prepares_it_again(name, tmp_path):
    manifest, message = OTHER_FORMATS[name]
    place = folder(tmp_path, line())
    (place / "manifest.json").write_text(json.dumps(manifest))
    for read in (read_manifest, lambda folder: read_split(folder, "train")):
        with pytest.raises(UsageError) as error:
            read(place)
        assert f"{place}/manifest.json {message}" in error.value.message
        assert "\n" not in error.value.message
        assert error.value.hint == f"prepare it again with: sdft prepare --tasks toy --data {tmp_path}"


def test_the_command_names_source_and_teacher_if_the_dataset_had_them(tmp_path):
    place = folder(tmp_path, line())
    (place / "manifest.json").write_text(json.dumps({"sources": [{"file": "x.csv"}], "teacher": {"model": "m"}}))
    with pytest.raises(UsageError) as error:
        read_manifest(place)
    command = f"sdft prepare --source toy=PATH --data {tmp_path} and the same --teacher"
    assert error.value.hint.startswith(f"prepare it again with: {command}")


def test_an_unfinished_or_broken_manifest_is_refused(tmp_path):
    place = folder(tmp_path, line())
    (place / "manifest.json").write_text("{")
    with pytest.raises(UsageError, match=r"manifest\.json: not valid JSON"):
        read_split(place, "train")
    (place / "manifest.json").unlink()
    with pytest.raises(UsageError, match=r"no manifest\.json, so it is not a finished dataset"):
        read_split(place, "train")


def test_preparing_again_replaces_a_dataset_of_another_format(tmp_path):
    place = folder(tmp_path, line())
    (place / "manifest.json").write_text(json.dumps({"task": "toy"}))
    write_dataset(place, "toy", prepared(), PrepareOptions(), {})
    assert read_manifest(place)["format"] == FORMAT


# --- fields -----------------------------------------------------------------------------------------------------------


def test_rows_without_a_needed_field_are_named():
    rows = [
        Example("ok", [], demonstration="x", answer=0),
        Example("none", []),
        Example("blank", [], demonstration=" ", answer=""),
        Example("no-answer", [], demonstration="x"),
        Example("turns", [], demonstration=[{"role": "assistant", "content": ""}], answer={"a": ""}),
        Example("empty arguments", [], demonstration="x", answer=[{"Action": "a", "Action_Input": "{}"}]),
    ]  # fmt: skip
    assert [(d.where, d.reason) for d in check_demonstrations(rows, ("demonstration", "answer"))] == [
        ("none", "no demonstration"),
        ("blank", "empty demonstration"),
        ("no-answer", "no answer"),
        ("turns", "empty demonstration"),
    ]
    assert check_demonstrations(rows, ()) == []
    with pytest.raises(UsageError, match="demo"):
        check_demonstrations(rows, ("demo",))


# --- writing ----------------------------------------------------------------------------------------------------------


def prepared(n: int = 3) -> Prepared:
    rows = [Example(f"r{i}", [{"role": "user", "content": f"é {i}"}], "d" if i else None, answer="x") for i in range(n)]
    dropped = [Dropped("f:1", "broken JSON"), Dropped("f:2", dataset.FILTERED + "other type")]
    return Prepared({"train": rows, "test": rows[:1]}, dropped, "a source", "MIT", ["a note"])


def contents(place: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in place.iterdir()}


def test_what_is_written_is_read_back(tmp_path):
    place = tmp_path / "data" / "toy"
    manifest = write_dataset(place, "toy", prepared(), PrepareOptions("answer", 5, 6), {"more": 1})
    assert manifest == read_manifest(place)
    assert next(iter(manifest)) == "format" and manifest["format"] == FORMAT
    assert manifest["rows"] == {"train": 3, "test": 1}
    assert manifest["with_demonstration"] == 2
    assert (manifest["seed"], manifest["world"], manifest["demonstrations"], manifest["more"]) == (5, 6, "answer", 1)
    assert (manifest["source"], manifest["licence"], manifest["notes"]) == ("a source", "MIT", ["a note"])
    assert manifest["dropped"]["reasons"] == {"broken JSON": 1}
    assert manifest["filtered"]["reasons"] == {"other type": 1}
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((place / name).read_bytes()).hexdigest() == digest
    assert read_split(place, "train")[0] == prepared().splits["train"]
    assert sorted(p.name for p in place.parent.iterdir()) == ["toy"]
    assert dataset.available_splits(place) == ["train", "test"]


def test_same_input_gives_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_dataset(tmp_path / name / "toy", "toy", prepared(), PrepareOptions(), {})
    assert contents(tmp_path / "one" / "toy") == contents(tmp_path / "two" / "toy")
    assert str(tmp_path).encode() not in b"".join(contents(tmp_path / "one" / "toy").values())


def test_dropped_rows_are_all_counted_and_listed_up_to_a_limit(tmp_path):
    many = prepared()
    many.dropped = [Dropped(f"f:{i}", "broken JSON") for i in range(500)]
    manifest = write_dataset(tmp_path / "toy", "toy", many, PrepareOptions(), {})
    assert (manifest["dropped"]["count"], len(manifest["dropped"]["rows"])) == (500, 200)


def test_an_older_dataset_is_replaced_and_other_files_are_kept(tmp_path):
    place = tmp_path / "toy"
    write_dataset(place, "toy", prepared(), PrepareOptions(), {})
    (place / "mine.txt").write_text("keep")
    fewer = prepared(2)
    del fewer.splits["test"]
    write_dataset(place, "toy", fewer, PrepareOptions(), {})
    assert sorted(contents(place)) == ["manifest.json", "mine.txt", "train.jsonl"]
    assert read_manifest(place)["rows"] == {"train": 2}


def test_a_folder_that_is_not_a_dataset_is_never_replaced(tmp_path):
    place = tmp_path / "toy"
    place.mkdir()
    (place / "train.jsonl").write_text("precious")
    with pytest.raises(UsageError, match="is not a dataset and will not be replaced"):
        write_dataset(place, "toy", prepared(), PrepareOptions(), {})
    assert contents(place) == {"train.jsonl": b"precious"}
    with pytest.raises(UsageError, match="is a file"):
        write_dataset(place / "train.jsonl" / "toy", "toy", prepared(), PrepareOptions(), {})


def test_a_half_written_dataset_is_refused_and_can_be_prepared_again(tmp_path, monkeypatch):
    place = tmp_path / "toy"
    write_dataset(place, "toy", prepared(), PrepareOptions(), {})
    real, moved = Path.replace, []

    def replace_once(self, target):
        if moved:
            raise KeyboardInterrupt
        moved.append(target)
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_once)
        with pytest.raises(KeyboardInterrupt):
            write_dataset(place, "toy", prepared(2), PrepareOptions(), {})
    with pytest.raises(UsageError, match="not a finished dataset"):
        read_split(place, "train")
    write_dataset(place, "toy", prepared(2), PrepareOptions(), {})
    assert read_manifest(place)["rows"]["train"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["toy"]


def test_two_rows_with_the_same_id_are_refused(tmp_path):
    twice = prepared()
    twice.splits["train"] += twice.splits["train"][:1]
    with pytest.raises(UsageError, match="'r0'"):
        write_dataset(tmp_path / "toy", "toy", twice, PrepareOptions(), {})
    assert not (tmp_path / "toy").exists()
