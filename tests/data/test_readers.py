"""Every file format and layout of JSON, as tools write them, gives its rows; broken ones give one clear line."""

from __future__ import annotations

import bz2
import datetime
import decimal
import gzip
import io
import json
import lzma
import random
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from sdft_cli.data import cells, json_rows
from sdft_cli.data.readers import NotRead, RawRow, read_rows
from sdft_cli.errors import UsageError
from sdft_cli.types import Dropped

ROWS = [{"question": f'q{i}, "so"; ü\t|', "answer": f"a{i}"} for i in range(3)]


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def read(file: Path, **more: Any) -> list[Any]:
    return list(read_rows(file.name, file, **more))


def data(file: Path, **more: Any) -> list[dict[str, Any]]:
    items = read(file, **more)
    assert all(isinstance(item, RawRow) for item in items), items
    return [item.data for item in items]


def as_json(folder: Path, value: Any, name: str = "x.json") -> list[Any]:
    return read(written(folder, name, json.dumps(value).encode()))


LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
ZSTD = zstandard.ZstdCompressor(write_checksum=True)

# --- packed files -----------------------------------------------------------------------------------------------------

PACKED = {
    "gzip": gzip.compress(LINES),
    "gzip in two members": gzip.compress(LINES[:40]) + gzip.compress(LINES[40:]),
    "zstd": ZSTD.compress(LINES),
    "zstd in two frames": ZSTD.compress(LINES[:40]) + ZSTD.compress(LINES[40:]),
    "zstd behind a skippable frame": b"\x50\x2a\x4d\x18\x03\0\0\0abc" + ZSTD.compress(LINES),
    "bzip2": bz2.compress(LINES),
    "xz": lzma.compress(LINES),
}


@pytest.mark.parametrize("kind", PACKED)
def test_packed_files_are_known_by_their_bytes_whatever_they_are_called(kind: str, tmp_path: Path) -> None:
    for name in ("x.jsonl", "x.jsonl.gz", "x", "x.json.zst"):
        assert data(written(tmp_path, name, PACKED[kind])) == ROWS


@pytest.mark.parametrize("kind", [kind for kind in PACKED if "two" not in kind])
def test_a_packed_file_that_is_cut_off_or_broken_is_one_error(kind: str, tmp_path: Path) -> None:
    large = b"".join(json.dumps({"n": i, "m": i * i % 977}).encode() + b"\n" for i in range(6_000))
    pack = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}.get(kind, ZSTD.compress)
    whole = pack(large)
    for content in (whole[:-5], whole[: len(whole) // 2], whole[:200] + bytes(100) + whole[300:]):
        file = written(tmp_path, "x.jsonl.packed", content)
        with pytest.raises(UsageError, match=r"x\.jsonl\.packed is cut off or broken|cannot read .*x\.jsonl\.packed"):
            read(file)


def test_what_unpacks_to_no_end_is_read_within_the_limit_of_a_line(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(json_rows, "LONGEST_LINE", 100_000)
    monkeypatch.setattr(json_rows, "LARGEST_VALUE", 1_000_000)
    bomb = b'{"question": "' + b"a" * 12_000_000 + b'"}\n'
    _, item, _ = read(written(tmp_path, "x.jsonl.gz", gzip.compress(b"{}\n" + bomb + b"{}\n")))
    assert (item.where, item.reason) == ("x.jsonl.gz:2", "line too long")
    with pytest.raises(UsageError, match="one value of more than"):
        read(written(tmp_path, "x.json.gz", gzip.compress(b"[" + bomb * 2)))


REFUSED = {
    "zip": (lambda: zipped({"a.jsonl": LINES}), "is a ZIP archive", "unpack it"),
    "ods": (lambda: zipped({"mimetype": b"application/vnd.oasis.opendocument.spreadsheet"}), "spreadsheet", ".xlsx"),
    "tar.gz": (lambda: gzip.compress(tarred()), "is a tar archive", "unpack it"),
    "twice": (lambda: gzip.compress(gzip.compress(LINES)), "packed twice", "unpack it"),
    "xls": (lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an old Excel file", ".xlsx"),
    "pickle": (lambda: b"\x80\x04\x95" + bytes(50), "a Python pickle", "export"),
    "sqlite": (lambda: b"SQLite format 3\0" + bytes(100), "a SQLite database", "export"),
    "pdf": (lambda: b"%PDF-1.7\n\0", "a PDF", "text"),
    "broken zip": (lambda: b"PK\x03\x04" + bytes(50), "a broken ZIP archive", "download"),
}


def zipped(files: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarred() -> bytes:
    with tarfile.open(fileobj=(stream := io.BytesIO()), mode="w") as archive:
        info = tarfile.TarInfo("a.jsonl")
        info.size = len(LINES)
        archive.addfile(info, io.BytesIO(LINES))
    return stream.getvalue()


@pytest.mark.parametrize("kind", REFUSED)
def test_files_of_other_kinds_are_refused_with_what_to_do(kind: str, tmp_path: Path) -> None:
    content, says, hint = REFUSED[kind]
    with pytest.raises(UsageError, match=says) as error:
        read(written(tmp_path, "x.jsonl", content()))
    assert hint in error.value.hint


# --- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings_with_a_byte_order_mark(encoding: str, tmp_path: Path) -> None:
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    text = "question,answer\n" + "".join(f'"q{i}, ü",a{i}\n' for i in range(5000))
    rows = [{"question": f"q{i}, ü", "answer": f"a{i}"} for i in range(5000)]
    assert data(written(tmp_path, "x.csv", (mark + text).encode(encoding))) == rows
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    assert data(written(tmp_path, "x.jsonl", (mark + lines).encode(encoding))) == rows
    assert data(written(tmp_path, "x.json", (mark + json.dumps(rows)).encode(encoding))) == rows


def test_another_encoding_is_named_with_the_line_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x\.csv:2: not UTF-8") as error:
        read(written(tmp_path, "x.csv", "question,answer\ncafé,1\n".encode("cp1252")))
    assert "iconv -f WINDOWS-1252 -t UTF-8 x.csv" in error.value.hint


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends(end: str, tmp_path: Path) -> None:
    rows = [{"question": "a b", "answer": "1"}, {"question": "c", "answer": "2"}]
    table = end.join(["question,answer", "a b,1", "c,2", ""])
    assert data(written(tmp_path, "x.csv", table.encode())) == rows
    lines = end.join(map(json.dumps, rows)) + end
    assert data(written(tmp_path, "x.jsonl", lines.encode())) == rows


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_found_in_the_rows(delimiter: str, tmp_path: Path) -> None:
    import csv

    rows = [{"Frage, kurz": f"so, {i}; a|b" * (i % 3), "Antwort": f"x{i}, y"} for i in range(1, 90)]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    wanted = [{key: value or None for key, value in row.items()} for row in rows]
    for name in ("x.csv", "x.tsv", "x.data"):
        assert data(written(tmp_path, name, stream.getvalue().encode())) == wanted


def test_missing_cells_blank_rows_and_an_index_without_a_name(tmp_path: Path) -> None:
    table = b" ,Question , answer\n0,what,nan\n1,why,\n,,\n2,NaN,nan of it\n"
    assert data(written(tmp_path, "x.csv", table)) == [
        {"Question": "what", "answer": None},
        {"Question": "why", "answer": None},
        {"Question": None, "answer": "nan of it"},
    ]


def test_excels_line_with_the_delimiter(tmp_path: Path) -> None:
    table = b"\xef\xbb\xbfsep=;\r\nquestion;answer\r\na, b;1\r\n"
    (row,) = read(written(tmp_path, "x.csv", table))
    assert (row.data, row.where) == ({"question": "a, b", "answer": "1"}, "x.csv:3")


def test_quotes_are_text_in_a_file_with_tabs_that_does_not_quote(tmp_path: Path) -> None:
    table = b'question\tanswer\n"So," he said, and left\tan 5" pipe\n"b"\t"c"\n'
    assert data(written(tmp_path, "x.tsv", table)) == [
        {"question": '"So," he said, and left', "answer": 'an 5" pipe'},
        {"question": '"b"', "answer": '"c"'},
    ]


def test_a_delimiter_at_the_end_of_every_line(tmp_path: Path) -> None:
    assert data(written(tmp_path, "x.csv", b"question,answer\na,b,\nc,d,\n"))[1] == {"question": "c", "answer": "d"}
    (row,) = read(written(tmp_path, "x.csv", b"question,answer\na,b,c\n"))
    assert row.reason == "ragged row"


def test_files_joined_with_their_byte_order_marks(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    assert data(written(tmp_path, "x.jsonl", mark + LINES + mark + LINES)) == ROWS * 2


def test_a_table_without_a_header_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two columns are called '1'") as error:
        read(written(tmp_path, "x.csv", b"What is it?,1,2,1,A\nAnd then?,3,4,5,B\n"))
    assert "the first line must name the columns" in error.value.hint


def test_what_a_file_holds_counts_and_not_its_name(tmp_path: Path) -> None:
    assert data(written(tmp_path, "x.csv", LINES)) == ROWS
    assert data(written(tmp_path, "x.txt", LINES)) == ROWS
    for text in ("[a link](b) and text", '["So," he said, and left.]\nAnd so on.', '{"a" is a letter}'):
        assert data(written(tmp_path, "x.md", text.encode())) == [{"title": "x", "text": text}]


# --- JSON -------------------------------------------------------------------------------------------------------------

WRAPPED = {
    "data": {"data": ROWS, "version": "1.1"},
    "Examples": {"Examples": ROWS, "info": {"author": "x"}},
    "orient=split": {"columns": ["question", "answer"], "index": [0, 1, 2], "data": [list(r.values()) for r in ROWS]},
    "orient=table": {"schema": {"fields": [{"name": "question"}]}, "data": ROWS},
    "pandas": {key: {str(i): row[key] for i, row in enumerate(ROWS)} for key in ROWS[0]},
    "columns": {key: [row[key] for row in ROWS] for key in ROWS[0]},
    "array": ROWS,
}


@pytest.mark.parametrize("form", WRAPPED)
@pytest.mark.parametrize("indent", [None, 2])
def test_rows_in_one_value(form: str, indent: int | None, tmp_path: Path) -> None:
    text = json.dumps(WRAPPED[form], indent=indent)
    assert data(written(tmp_path, "x.json", text.encode())) == ROWS


@pytest.mark.parametrize("bad", ['{"question": "q", "answer": "\\ud800"}', '{"question": "q", "answer": Infinity}'])
@pytest.mark.parametrize("place", [0, 1])
def test_a_value_that_is_no_json_is_a_bad_row_on_every_line(bad: str, place: int, tmp_path: Path) -> None:
    """The first line of a file is read like all others, though it also tells what kind of file it is."""
    lines = [json.dumps(row) for row in ROWS]
    lines.insert(place, bad)
    items = list(read_rows("x.jsonl", written(tmp_path, "x.jsonl", "\n".join(lines).encode())))
    assert [item.data for item in items if isinstance(item, RawRow)] == ROWS
    assert [(item.where, item.reason) for item in items if isinstance(item, Dropped)] == [
        (f"x.jsonl:{place + 1}", "broken JSON")
    ]


def test_rows_by_split_and_by_id(tmp_path: Path) -> None:
    items = as_json(tmp_path, {"train": ROWS, "eval": {"data": ROWS[:1]}, "test": ROWS[:2], "version": 2})
    assert [(item.data, item.split, item.where) for item in items] == [
        *((row, "train", f"x.json:train[{i}]") for i, row in enumerate(ROWS)),
        (ROWS[0], "validation", "x.json:eval:data[0]"),
        *((row, "test", f"x.json:test[{i}]") for i, row in enumerate(ROWS[:2])),
    ]
    items = as_json(tmp_path, {"q1": ROWS[0], "q2": {**ROWS[1], "id": 7}})
    assert [item.data for item in items] == [{"id": "q1", **ROWS[0]}, {**ROWS[1], "id": 7}]


def test_single_rows_are_no_wrappers(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for row in ({"messages": said}, {"prompt": said[:1], "completion": said[1:]}, {"question": "q", "answer": ["a"]}):
        assert [item.data for item in as_json(tmp_path, row)] == [row]
    conversations = {"messages": [said, said], "id": ["a", "b"]}
    assert [item.data for item in as_json(tmp_path, conversations)] == [
        {"messages": said, "id": "a"},
        {"messages": said, "id": "b"},
    ]


@pytest.mark.parametrize(
    "value",
    [
        {"train": ROWS, "more": ROWS},
        {"train_test": ROWS, "dev": ROWS},
        {"algebra": ROWS, "geometry": ROWS},
        {"context": "A passage.", "questions": ROWS},
        {"Definition": ["Say which."], "Positive Examples": [], "Instances": ROWS},
        {"instruction": "Answer as a pirate.", "data": ROWS},
        {"system_prompt": "Be brief.", "train": ROWS, "test": ROWS[:1]},
        {"tools": [{"name": "look"}], "data": ROWS},
    ],
)
def test_wrappers_that_would_lose_something_are_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        as_json(tmp_path, value)
    assert error.value.hint


def test_a_page_of_the_hubs_api(tmp_path: Path) -> None:
    label = {"names": ["no", "yes"], "_type": "ClassLabel"}
    page = {
        "features": [
            {"feature_idx": 0, "name": "question", "type": {"dtype": "string", "_type": "Value"}},
            {"feature_idx": 1, "name": "answer", "type": label},
        ],
        "rows": [
            {"row_idx": 5, "row": {"question": "a", "answer": 1}, "truncated_cells": []},
            {"row_idx": 6, "row": {"question": "b", "answer": -1}, "truncated_cells": ["question"]},
        ],
        "num_rows_total": 100,
        "num_rows_per_page": 2,
        "partial": False,
    }
    row, cut, rest = as_json(tmp_path, page)
    assert row.data == {"question": "a", "answer": "yes"}
    assert isinstance(cut, Dropped) and cut.reason == "cut off by the hub's viewer"
    assert rest == NotRead("x.json: 98 further rows", "not in this page of the hub's API")


def test_squad_becomes_rows_with_their_passage(tmp_path: Path) -> None:
    answers = [{"text": "Paris", "answer_start": 3}, {"text": "in Paris", "answer_start": 0}]
    asked = [{"id": f"i{k}", "question": f"where {k}?", "answers": answers} for k in range(2)]
    squad = {"version": "v2.0", "data": [{"title": "T", "paragraphs": [{"context": "In Paris.", "qas": asked}] * 2}]}
    items = as_json(tmp_path, squad)
    assert len(items) == 4
    assert items[3].where == "x.json:data[0].paragraphs[1].qas[1]"
    assert items[0].data == {
        "title": "T", "context": "In Paris.", "id": "i0", "question": "where 0?",
        "answers": {"text": ["Paris", "in Paris"], "answer_start": [3, 0]},
    }  # fmt: skip


def test_objects_in_a_row_over_several_lines(tmp_path: Path) -> None:
    text = "\n".join(json.dumps(row, indent=2) for row in ROWS)
    assert data(written(tmp_path, "x.json", text.encode())) == ROWS


def test_nan_of_pandas_is_a_missing_value(tmp_path: Path) -> None:
    assert data(written(tmp_path, "x.jsonl", b'{"question": "a", "answer": NaN}\n{"b": 1}\n'))[0]["answer"] is None
    assert data(written(tmp_path, "x.json", b'[{"question": "a", "answer": NaN}]'))[0]["answer"] is None


# --- Parquet and Arrow ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parquet", "arrow file", "arrow stream"])
def test_types_of_columns(kind: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    noon = datetime.datetime(2024, 5, 1, 12)
    columns = {
        "decimal": pa.array([decimal.Decimal("12.50"), decimal.Decimal("3.00")]),
        "date": pa.array([datetime.date(2024, 5, 1)] * 2),
        "time": pa.array([noon, noon.replace(hour=0)], pa.timestamp("us")),
        "bytes": pa.array([b"caf\xc3\xa9", None]),
        "dictionary": pa.array(["a", "b"]).dictionary_encode(),
        "nested": pa.array([[{"role": "user", "content": "a"}], []]),
        "float": pa.array([float("nan"), 1.5]),
        "large": pa.array(["x", "y"], pa.large_string()),
        "bool": pa.array([True, None]),
    }
    table, file = pa.table(columns), tmp_path / "x.parquet"
    if kind == "parquet":
        pq.write_table(table, file)
    else:
        new = pa.ipc.new_file if kind == "arrow file" else pa.ipc.new_stream
        with new(str(file), table.schema) as writer:
            writer.write_table(table)
    first, second = data(file)
    assert first == {
        "decimal": 12.5, "date": "2024-05-01", "time": "2024-05-01T12:00:00", "bytes": "café", "dictionary": "a",
        "nested": [{"role": "user", "content": "a"}], "float": None, "large": "x", "bool": True,
    }  # fmt: skip
    assert (second["decimal"], second["time"], second["float"]) == (3, "2024-05-01", 1.5)


def test_labels_by_name_and_images_left_out(tmp_path: Path) -> None:
    import datasets as d

    features = d.Features(
        {
            "question": d.Value("string"),
            "image": d.Image(),
            "answer": d.ClassLabel(names=["no", "yes"]),
            "tags": d.List(d.ClassLabel(names=["x", "y"])),
        }
    )
    rows = [{"question": "a", "image": None, "answer": 1, "tags": [1, 0]}, {"question": "b", "answer": -1, "tags": []}]
    rows += [{"question": "c", "image": {"bytes": b"\x89PNG\xff", "path": "c.png"}, "answer": 0, "tags": []}]
    d.Dataset.from_list(rows, features=features).to_parquet(str(tmp_path / "x.parquet"))
    first, second, third = read(tmp_path / "x.parquet")
    assert first.data == {"question": "a", "image": None, "answer": "yes", "tags": ["y", "x"]}
    assert second.data["answer"] is None
    assert (third.where, third.reason) == ("x.parquet[2]", "filtered: holds an image, a sound or a video")


# --- Excel ------------------------------------------------------------------------------------------------------------


def book(file: Path, **sheets: list[list[Any]]) -> Path:
    import openpyxl

    workbook = openpyxl.Workbook()
    workbook.remove(workbook.active)
    for title, table in sheets.items():
        sheet = workbook.create_sheet(title)
        for row in table:
            sheet.append(row)
    workbook.save(file)
    return file


def test_the_cells_of_a_workbook(tmp_path: Path) -> None:
    noon, day = datetime.datetime(2024, 5, 1, 12), datetime.datetime(2024, 5, 1)
    table = [
        [], [None, None],
        [" question ", "answer", "when", None],
        ["a", 7, day, None], [], ["b", 1.5, noon], ["c", "007", None], ["d", True, None], ["e", "#N/A", "  "],
    ]  # fmt: skip
    items = read(book(tmp_path / "x.xlsx", Sheet=table))
    assert [item.data for item in items] == [
        {"question": "a", "answer": 7, "when": "2024-05-01"},
        {"question": "b", "answer": 1.5, "when": "2024-05-01T12:00:00"},
        {"question": "c", "answer": "007", "when": None},
        {"question": "d", "answer": True, "when": None},
        {"question": "e", "answer": None, "when": None},
    ]
    assert [item.where for item in items][:2] == ["x.xlsx:4", "x.xlsx:6"]


def test_formulas_without_values_and_stray_cells_make_bad_rows(tmp_path: Path) -> None:
    table = [["question", "answer"], ["a", "=1+1"], ["b", 2], ["c", 3, "stray"]]
    lost, row, stray = read(book(tmp_path / "x.xlsx", Sheet=table))
    assert (lost.where, lost.reason) == ("x.xlsx:2", "a formula without a value")
    assert row.data == {"question": "b", "answer": 2}
    assert stray.reason == "ragged row"


def test_sheets(tmp_path: Path) -> None:
    table = [["question", "answer"], ["a", 1]]
    file = book(tmp_path / "x.xlsx", First=table, Other=table)
    row, other = read(file)
    assert (row.where, row.split) == ("x.xlsx[First]:2", None)
    assert other.name == "x.xlsx[Other]" and "sheet = " in other.why
    assert read(file, sheet="Other")[0].where == "x.xlsx[Other]:2"
    with pytest.raises(UsageError, match=r"unknown sheet of x\.xlsx: 'Othr'"):
        read(file, sheet="Othr")
    file = book(tmp_path / "y.xlsx", train=table, test=table, notes=[["remember"]])
    assert [getattr(item, "split", item.name if isinstance(item, NotRead) else "") for item in read(file)] == [
        "train", "test", "y.xlsx[notes]",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="has no sheets"):
        read(written(tmp_path, "x.csv", b"question,answer\na,b\n"), sheet="First")


def test_a_sheet_whose_size_is_stated_wrongly_is_read_whole(tmp_path: Path) -> None:
    whole = book(tmp_path / "x.xlsx", Sheet=[["question", "answer"], ["a", 1], ["b", 2]])
    with zipfile.ZipFile(whole) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    sheet = parts["xl/worksheets/sheet1.xml"]
    parts["xl/worksheets/sheet1.xml"] = sheet.replace(b'<dimension ref="A1:B3"', b'<dimension ref="A1"')
    assert parts["xl/worksheets/sheet1.xml"] != sheet
    assert data(written(tmp_path, "y.xlsx", zipped(parts)))[1] == {"question": "b", "answer": 2}


def test_a_broken_workbook_is_one_error(tmp_path: Path) -> None:
    whole = book(tmp_path / "x.xlsx", Sheet=[["question"], *([f"text {i}"] for i in range(2000))]).read_bytes()
    for content in (whole[:-100], whole[:900] + bytes(300) + whole[1200:]):
        with pytest.raises(UsageError, match=r"x\.xlsx"):
            read(written(tmp_path, "x.xlsx", content))


# --- cells ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('[{"role": "user", "content": "it\'s"}]', [{"role": "user", "content": "it's"}]),
        ("[{'role': 'user', 'content': \"it's\", 'name': None}]", [{"role": "user", "content": "it's", "name": None}]),
        (' {"a": [1, true, null]} ', {"a": [1, True, None]}),
        ("[1, 2", "[1, 2"),
        ("[a link](b)", "[a link](b)"),
        ("{x: 1}", "{x: 1}"),
        ("[" * 100_000, "[" * 100_000),
        ("12", "12"),
        (7, 7),
    ],
)
def test_text_of_a_cell_that_spells_a_list_or_an_object(text: Any, value: Any) -> None:
    assert cells.parsed(text) == value


# --- broken bytes -----------------------------------------------------------------------------------------------------


def sound(folder: Path) -> list[bytes]:
    """A small file of every kind."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([{**row, "messages": [{"role": "user", "content": "x"}]} for row in ROWS * 5])
    pq.write_table(table, folder / "parquet")
    for new, name in ((pa.ipc.new_stream, "stream"), (pa.ipc.new_file, "file")):
        with new(str(folder / name), table.schema) as writer:
            writer.write_table(table)
    book(
        folder / "book.xlsx",
        Sheet=[["question", "answer"], *([f"q{i}", f"={i}+1" if i % 7 == 0 else i] for i in range(20))],
    )
    made = [(folder / name).read_bytes() for name in ("parquet", "stream", "file", "book.xlsx")]
    wrapped = [json.dumps(value).encode() for value in WRAPPED.values()]
    return [LINES, *wrapped, *PACKED.values(), *made, b'question;answer\n"q; a";1\n' * 9, "ä\tb\n".encode("utf-16")]


def mutated(rng: random.Random, content: bytes) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(content) or 1)
        end = rng.choice((at, at + 1, at + rng.randrange(1, 40), len(content)))
        content = content[:at] + rng.randbytes(rng.randrange(0, 10)) + content[end:]
    return content


def check_mutations(folder: Path, count: int, seed: int) -> None:
    rng, kinds = random.Random(seed), sound(folder)
    for _ in range(count):
        name = "x" + rng.choice((".jsonl", ".json", ".csv", ".tsv", ".txt", ".xlsx", ".parquet", ".gz", ""))
        file = written(folder, name, mutated(rng, rng.choice(kinds)))
        try:
            read(file)
        except UsageError as error:
            assert "\n" not in error.message and error.hint, error.message


def test_broken_bytes_end_in_one_error_or_in_rows(tmp_path: Path) -> None:
    check_mutations(tmp_path, 400, seed=0)


@pytest.mark.slow
def test_thousands_of_broken_files(tmp_path: Path) -> None:
    check_mutations(tmp_path, 10_000, seed=1)
