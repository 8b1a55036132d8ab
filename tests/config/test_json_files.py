"""JSON files of ours: whatever is wrong with one is one error that names the file, the line and the key."""

import os
from pathlib import Path
from typing import NotRequired

import pytest

from sdft_cli.config import json_files
from sdft_cli.config.json_files import Count, Ends, Record, Share, Unbounded
from sdft_cli.errors import UsageError, shown


class Point(Record):
    share: Share
    count: NotRequired[Count]
    ends: NotRequired[Ends | None]
    gap: NotRequired[Unbounded]


class Plot(Record):
    points: dict[str, Point]


SOUND = '{"points": {"a": {"share": 1, "count": 2, "ends": [0, 1], "gap": NaN}}, "later": [{"x": null}]}'

#: What a file holds, and what the error says behind its name.
BROKEN = {
    "": "not valid JSON: EOF while parsing a value at line 1 column 0",
    '{"points": {': "not valid JSON: EOF while parsing an object at line 1 column 12",
    "[]": "Input should be an object (got [])",
    "{}": "points: Field required",
    '{"points": {"a": {}}}': "points.a.share: Field required",
    '{"points": {"a": {"share": "1"}}}': "points.a.share: Input should be a valid number (got '1')",
    '{"points": {"a": {"share": true}}}': "points.a.share: Input should be a valid number (got True)",
    '{"points": {"a": {"share": NaN}}}': "points.a.share: Input should be a finite number (got nan)",
    '{"points": {"a": {"share": 1e400}}}': "points.a.share: Input should be a finite number (got inf)",
    '{"points": {"a": {"share": 1.5}}}': "points.a.share: Input should be less than or equal to 1 (got 1.5)",
    '{"points": {"a": {"share": 1, "count": 2.0}}}': "points.a.count: Input should be a valid integer (got 2.0)",
    '{"points": {"a": {"share": 1, "count": -1}}}': "points.a.count: Input should be greater than or equal to 0",
    f'{{"points": {{"a": {{"share": 1, "count": {"9" * 400}}}}}}}': "points.a.count: Input should be less",
    f'{{"points": {"9" * 5000}}}': "not valid JSON: number out of range",
    '{"points": {"a": {"share": 1, "ends": [0]}}}': "points.a.ends: List should have at least 2 items",
    "[" * 100_000: "not valid JSON: recursion limit exceeded",
    '{"points": "\udcff"}': "not valid JSON: invalid unicode code point",
    "\0\0\0": "not valid JSON: expected value at line 1 column 1",
}


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "plot.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError) as caught:
        json_files.read(path, Plot, "restore it")
    assert caught.value.message.startswith(f"{path}: {BROKEN[text]}") and caught.value.hint == "restore it"
    assert "\n" not in caught.value.message and len(caught.value.message) < len(str(path)) + 200


@pytest.mark.parametrize("text", [SOUND, "\ufeff" + SOUND, SOUND.replace(", ", ",\r\n")])
def test_a_sound_file_keeps_what_is_unknown(text: str, tmp_path: Path) -> None:
    (tmp_path / "plot.json").write_bytes(text.encode())
    plot = json_files.read(tmp_path / "plot.json", Plot, "")
    assert plot["later"] == [{"x": None}] and plot["points"]["a"]["ends"] == [0, 1]
    assert plot["points"]["a"]["gap"] != plot["points"]["a"]["gap"]


def test_what_is_no_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    for name in ("folder", "loop", "dangling", "pipe"):
        assert json_files.exists(tmp_path / name)
        with pytest.raises(UsageError, match=f"cannot read .*{name}: ") as caught:
            json_files.read(tmp_path / name, Plot, "restore it")
        assert caught.value.hint == "restore it"
    assert not json_files.exists(tmp_path / "nothing")


def test_lines_are_numbered_and_may_hold_other_line_separators(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('"a\u2028b"\r\n\n  \n3'.encode())
    read = [(number, json_files.parse(text, str | int, "", "")) for number, text in json_files.lines(path, "")]
    assert read == [(1, "a\u2028b"), (4, 3)]


def test_any_value_is_shown_in_one_line() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert shown(10**5000) == "an enormous int" and shown(nested) == "an enormous list"
    assert shown("a\n" * 100) == repr("a\n" * 100)[:80] + "…" and shown("a  b") == "'a b'"
