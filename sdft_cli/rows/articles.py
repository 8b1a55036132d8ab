"""Articles: raw text for a corpus, and the context of questions about it. Text files may begin with front matter.

An article is a record with a ``text`` (and a ``title``, an ``id``, a ``url``), or a text file. Front matter is a table
between two lines ``---`` (YAML) or ``+++`` (TOML) at the beginning of a file; its entries are kept in ``meta``, its
``title`` is the article's.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from sdft_cli.data.dataset import FILTERED
from sdft_cli.data.raw_rows import RawRow
from sdft_cli.data.source_files import TEXT_SUFFIXES, stem, suffix
from sdft_cli.rows.formats import Record, SourceRow, slug, text
from sdft_cli.rows.values import as_text, is_missing
from sdft_cli.types import Dropped, Example, Json, Message

_FRONT = re.compile(
    r"\A(?P<mark>---|\+\+\+)[ \t]*\r?\n(?P<table>.*?)(?:\r?\n)?^(?P=mark)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE
)
_HEADING = re.compile(r"^#[ \t]+(\S.*?)[ \t#]*$", re.MULTILINE)
#: Names of files that say nothing of what is in them.
_GENERAL = ("index", "readme", "_index", "main")


def is_text_file(where: str) -> bool:
    return suffix(where) in TEXT_SUFFIXES


def article(task: str, row: RawRow, body_column: str = "text", title_column: str = "title") -> SourceRow:
    """The corpus row of an article; raises `BadRow` for one without text."""
    body = text(row.data, body_column, "article text")
    more: dict[str, Json] = {}
    if is_text_file(row.where):
        more, body = front_matter(body)
        body = text({body_column: body}, body_column, "article text")
        name = "/".join(Path(stem(row.where)).parts[1:]) or stem(row.where)
        title = str(more.pop("title", "")).strip() or _title(name, body)
    else:
        title = "" if is_missing(row.data.get(title_column)) else as_text(row.data[title_column], "title", title_column)
        name = key_of(row.data, ("id",)) or (slug(title) if title else str(row.number))
        more = {k: row.data[k] for k in ("url",) if isinstance(row.data.get(k), str)}
    meta = {**({"title": title} if title else {}), **more, "article": name}
    return SourceRow(Example(f"{task}-article-{slug(name)}", [], text=body, meta=meta), "corpus", (), row.where)


def front_matter(body: str) -> tuple[dict[str, Json], str]:
    """The entries of a text's front matter, as JSON, and the rest of the text; {} if there is none that can be read."""
    body = body.removeprefix("\ufeff")
    if not (match := _FRONT.match(body)):
        return {}, body
    try:
        table = tomllib.loads(match["table"]) if match["mark"] == "+++" else _yaml(match["table"])
    except ValueError:
        return {}, body
    if not isinstance(table, dict):
        return {}, body
    return {str(key): _plain(value) for key, value in table.items() if not is_missing(value)}, body[
        match.end() :
    ].strip()


def _yaml(table: str) -> Json:
    import yaml  # type: ignore[import-untyped]  # huggingface_hub brings it

    try:
        return yaml.safe_load(table)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _plain(value: Json) -> Json:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(each) for each in value]
    if isinstance(value, date):
        return as_text(value, "date", "date")
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _title(name: str, body: str) -> str:
    """The file's name; the first heading, or the folder's name, where that says nothing."""
    *folders, stem = name.split("/")
    if stem.lower() not in _GENERAL:
        return stem
    heading = _HEADING.search(body)
    return heading[1] if heading else folders[-1] if folders else stem


def key_of(data: Record, names: Sequence[str]) -> str:
    """The value of the first of these fields that names an article; "" if none does."""
    values = (data.get(name) for name in names)
    return next((str(v) for v in values if isinstance(v, str | int) and str(v).strip()), "")


def attached(rows: Sequence[SourceRow], dropped: list[Dropped]) -> list[SourceRow]:
    """The rows, each question with the text of its article as context; repeated articles are left out."""
    articles: dict[str, SourceRow] = {}
    kept = []
    for row in rows:
        first = articles.setdefault(row.example.meta["article"], row) if row.role == "corpus" else row
        if first is row:
            kept.append(row)
            continue
        repeated = first.example.text == row.example.text
        reason = f"{FILTERED}repeats another article" if repeated else "another article has this id"
        dropped.append(Dropped(row.where, reason, f"like {first.where}"))
    for row in list(articles.values()):  # a question may also name the title, or the file without its folders
        for name in (row.example.meta.get("title"), Path(row.example.meta["article"]).name):
            articles.setdefault(str(name), row)
    return [_with_context(row, articles) for row in kept]


def _with_context(row: SourceRow, articles: dict[str, SourceRow]) -> SourceRow:
    example, name = row.example, row.example.meta.get("article", "")
    found = articles.get(name)
    if row.role == "corpus" or found is None or example.context is not None:
        return row
    asked: Message = {**example.prompt[-1]}
    asked["content"] = asked["content"].removeprefix(f"{name}\n\n")  # a column called article may look like a passage
    prompt = [*example.prompt[:-1], asked]
    return replace(row, example=replace(example, prompt=prompt, context=found.example.text))
