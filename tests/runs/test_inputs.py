"""Records of inputs: by content, and for large files by size and time of change first."""

import hashlib
import os
from pathlib import Path

import pytest

from sdft_cli.errors import UsageError
from sdft_cli.runs import inputs
from sdft_cli.runs.inputs import compare, read_inputs, record_of, write_inputs


def test_a_record_is_the_files_digest_and_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_bytes(b'{"id": 1}\n\n{"id": 2}')
    record = record_of(file)
    assert record["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (record["rows"], record["bytes"]) == (2, 20)


def test_only_a_large_file_is_trusted_by_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    known = record_of(file)
    stamp = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert record_of(file, known)["sha256"] != known["sha256"]
    monkeypatch.setattr(inputs, "SMALL", 2)
    assert record_of(file, known) == known
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert record_of(file, known)["sha256"] != known["sha256"]


def of(**changed) -> inputs.Inputs:
    file: inputs.FileRecord = {"sha256": "a" * 64, "bytes": 1, "modified": 1}
    model: inputs.ModelRecord = {"files": {"m.bin": file}, "commit": None, "template": "t", "rendered": {"a": "r"}}
    return {"data": {"a": {"test.jsonl": file}}, "model": {**model, **changed}, "others": {}}


def test_differences_have_a_key_and_both_values() -> None:
    assert compare(of(), of()) == []
    (missing,) = compare(of(), of(files={}, commit="c"))[:1]
    assert missing.key == "model.commit" and (missing.before, missing.now) == ("a folder", "the hub, commit c")
    hub = of(files={}, commit="c")
    assert [d.key for d in compare(hub, of(files={}, commit="d", template="u"))] == ["model.commit", "model.template"]
    new_task = of()
    new_task["data"]["b"] = new_task["data"]["a"]
    assert compare(of(), new_task) == []


def test_the_file_is_read_back_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert read_inputs(tmp_path) is None
    write_inputs(tmp_path, of())
    assert read_inputs(tmp_path) == of()
    (tmp_path / "inputs.json").write_text("{")
    with pytest.raises(UsageError, match=r"inputs\.json: not valid JSON"):
        read_inputs(tmp_path)
