"""Rows inside one JSON object: under the names of splits, in a list such as ``data``, by column, or by id.

Read where the meaning is plain::

    {"train": [{…}, …], "test": [{…}, …]}        rows by split
    {"data": [{…}, …], "version": "1.1"}         a list of rows beside short remarks
    {"rows": [{"row_idx": 0, "row": {…}}, …]}    a page of the hub's API
    {"data": [{"paragraphs": [{"context": "…", "qas": [{…}]}]}]}    SQuAD
    {"question": ["…", …], "answer": ["…", …]}   columns, also as pandas writes them ({"question": {"0": "…"}})
    {"id-1": {…}, "id-2": {…}}                   rows by id

An object that holds lists of rows in any other way is refused; what holds none is a row, or no rows at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sdft_cli.data import hub_features
from sdft_cli.data.raw_rows import Item, Items, NotRead, RawRow, row_of_cells
from sdft_cli.data.split_names import Ambiguous, splits_of_keys
from sdft_cli.errors import UsageError
from sdft_cli.types import Dropped

Object = dict[str, Any]
_LISTS = (
    *("data", "rows", "examples", "instances", "items", "records", "samples", "entries", "questions", "dataset"),
    *("results", "annotations"),
)
#: What all rows of a file may share, its task or its passage: beside a list of rows it would be lost.
_SHARED = (
    *("context", "passage", "article", "paragraph", "text", "story", "document", "background"),
    *("instruction", "instructions", "definition", "task_definition", "task_description", "prompt", "system"),
    *("system_prompt", "template", "prompt_template", "prefix", "choices", "options", "tools", "functions"),
)
_REMARKS = (
    *("description", "citation", "license", "licence", "readme", "features", "schema", "info", "meta", "metadata"),
    *("dataset_info", "config"),
)
_LONG = 300
_HINT = "write the rows as JSONL, one object a line, or in lists under train, validation and test"


def unwrapped(name: str, data: Object) -> Items | None:
    """The rows in ``data``; None if it is no wrapper."""
    for form in (_by_split, _of_pandas, _listed, _by_column, _by_id):
        if (rows := form(name, data)) is not None:
            return rows
    lists = [key for key, value in data.items() if _is_rows(value) and not _is_chat(value)]
    if len(lists) > 1 or (lists and lists[0].lower() in _LISTS):
        some, others = (", ".join(map(repr, keys[:6])) for keys in (lists, [key for key in data if key not in lists]))
        beside = f" beside {others}" if others else ""
        raise UsageError(
            f"{name}: one object has rows under {some}{beside}, and how they belong together is unknown", _HINT
        )
    return None


def _rows(name: str, key: str, values: list[Any], split: str | None = None) -> Items:
    for i, value in enumerate(values):
        where = f"{name}:{key}[{i}]"
        if isinstance(value, dict):
            yield RawRow(value, where, i, split)
        else:
            yield Dropped(where, "not a JSON object", type(value).__name__)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _is_chat(value: list[Object]) -> bool:
    """A list of messages: a row holds one, a file does not."""
    return all(("role" in row and "content" in row) or ("from" in row and "value" in row) for row in value)


# --- the forms: each gives the rows, or None ------------------------------------------------------------------------


def _by_split(name: str, data: Object) -> Items | None:
    held = {key: value for key, value in data.items() if _is_rows(value) or _inner(value)}
    try:
        splits = splits_of_keys(list(held))
    except Ambiguous as error:
        said = " and ".join(error.splits)
        raise UsageError(
            f"{name}: the rows under {error.name!r} are for {said}", "divide them into two lists"
        ) from None
    if not any(splits) or any(_is_chat(value) for value in held.values() if isinstance(value, list)):
        return None
    if strays := [key for key, split in zip(held, splits, strict=True) if split is None and _is_rows(held[key])]:
        raise UsageError(f"{name}: rows under {strays[0]!r}, which is no split, beside {', '.join(held)}", _HINT)
    if shared := [key for key in data if key not in held and _is_shared(key, data[key])]:
        raise UsageError(f"{name}: {shared[0]!r} stands beside {', '.join(held)}, and no row would have it", _HINT)
    return _of_splits(name, {key: split for key, split in zip(held, splits, strict=True) if split}, data)


def _inner(value: Any) -> bool:
    """Whether a value holds rows in a form of its own."""
    return isinstance(value, dict) and bool(value) and _form_of(value) is not None


def _form_of(value: Object) -> Callable[[str, Object], Items | None] | None:
    return next((form for form in (_of_pandas, _listed, _by_column, _by_id) if form("", value) is not None), None)


def _of_splits(name: str, splits: dict[str, str], data: Object) -> Items:
    for key, split in splits.items():
        value = data[key]
        if isinstance(value, list):
            yield from _rows(name, key, value, split)
        elif form := _form_of(value):
            for item in form(f"{name}:{key}", value) or ():
                yield RawRow(item.data, item.where, item.number, split) if isinstance(item, RawRow) else item


def _listed(name: str, data: Object) -> Items | None:
    """A list of rows under a usual name, if nothing beside it belongs to the rows."""
    keys = [key for key, value in data.items() if key.lower() in _LISTS and _is_rows(value)]
    if len(keys) != 1 or not all(_is_remark(key, value) for key, value in data.items() if key != keys[0]):
        return None
    (key,) = keys
    values: list[Object] = data[key]
    if all("row" in row and "row_idx" in row for row in values):
        return _of_hub(name, data, values)
    if all("paragraphs" in row or {"context", "qas"} <= set(row) for row in values):
        return _of_squad(name, key, values)
    return _rows(name, key, values)


def _is_shared(key: str, value: Any) -> bool:
    """Whether a value beside the rows belongs to each of them."""
    return bool(value) and key.lower() in _SHARED


def _is_remark(key: str, value: Any) -> bool:
    """Whether a value beside a list of rows says something of the file, not of the rows."""
    if _is_shared(key, value):
        return False
    if key.lower() in _REMARKS:
        return True
    if isinstance(value, str):
        return len(value) <= _LONG
    if isinstance(value, list):
        return not any(isinstance(item, dict | list) for item in value)
    return not isinstance(value, dict) or not any(_is_rows(item) for item in value.values())


def _of_hub(name: str, data: Object, values: list[Object]) -> Iterator[Item]:
    """A page of the hub's API (``/rows``): labels by name, as its ``features`` say; cut cells make a bad row."""
    listed = data.get("features")
    features = (
        {str(f.get("name")): f.get("type") for f in listed if isinstance(f, dict)} if isinstance(listed, list) else {}
    )
    for i, value in enumerate(values):
        where = f"{name}:rows[{i}]"
        if cut := value.get("truncated_cells"):
            yield Dropped(where, "cut off by the hub's viewer", f"fields: {', '.join(map(str, cut))}")
        elif isinstance(value["row"], dict):
            yield row_of_cells(hub_features.with_label_names(value["row"], features), where, i)
        else:
            yield Dropped(where, "not a JSON object", type(value["row"]).__name__)
    total = data.get("num_rows_total")
    if isinstance(total, int) and total > len(values):
        yield NotRead(f"{name}: {total - len(values)} further rows", "not in this page of the hub's API")


def _of_squad(name: str, key: str, values: list[Object]) -> Iterator[Item]:
    """SQuAD's articles as the hub's rows: id, title, context, question, answers (``text`` and ``answer_start``)."""
    number = 0
    for i, article in enumerate(values):
        for j, paragraph in enumerate(article.get("paragraphs", [article])):
            for k, asked in enumerate(paragraph.get("qas") or [] if isinstance(paragraph, dict) else []):
                where = f"{name}:{key}[{i}].paragraphs[{j}].qas[{k}]"
                if not isinstance(asked, dict):
                    yield Dropped(where, "not a JSON object", type(asked).__name__)
                    continue
                row = {"title": article.get("title"), "context": paragraph.get("context"), **asked}
                row.pop("plausible_answers", None)
                answers = asked.get("answers")
                if isinstance(answers, list) and all(isinstance(a, dict) for a in answers):
                    row["answers"] = {field: [a.get(field) for a in answers] for field in ("text", "answer_start")}
                yield RawRow({field: value for field, value in row.items() if value is not None}, where, number)
                number += 1


def _of_pandas(name: str, data: Object) -> Items | None:
    """``DataFrame.to_json``: by column and index (its default), or with ``orient="split"``."""
    if set(data) == {"columns", "index", "data"} and all(isinstance(value, list) for value in data.values()):
        columns = [str(column) for column in data["columns"]]
        if all(isinstance(row, list) and len(row) == len(columns) for row in data["data"]):
            return _rows(name, "data", [dict(zip(columns, row, strict=True)) for row in data["data"]])
    inner = list(data.values())
    if not inner or not all(isinstance(value, dict) and value for value in inner):
        return None
    index = list(inner[0])
    if not all(key.isdigit() for key in index) or any(list(value) != index for value in inner):
        return None
    return _rows(name, "index", [{column: data[column][i] for column in data} for i in index])


def _by_column(name: str, data: Object) -> Items | None:
    """Two columns or more, each a list of as many values; not a row of two conversations."""
    values = list(data.values())
    if len(values) < 2 or not all(isinstance(value, list) and value for value in values):
        return None
    if len({len(value) for value in values}) > 1 or any(_is_rows(value) for value in values):
        return None
    return _rows(name, "index", [dict(zip(data, cells, strict=True)) for cells in zip(*values, strict=True)])


def _by_id(name: str, data: Object) -> Items | None:
    """Two objects or more that have fields in common; their keys become the ids of rows that have none."""
    values = list(data.values())
    if len(values) < 2 or not all(isinstance(value, dict) and value for value in values):
        return None
    if not set.intersection(*(set(value) for value in values)):
        return None
    return (
        RawRow(value if "id" in value else {"id": key, **value}, f"{name}[{key!r}]", i)
        for i, (key, value) in enumerate(data.items())
    )
