"""Passages of a record as text: a text, a list of texts or sentences, a table, and how datasets nest them."""

from __future__ import annotations

from sdft_cli.rows.formats import BadRow
from sdft_cli.rows.values import as_text, is_missing, parsed
from sdft_cli.types import Json


def passage_text(value: Json, column: str) -> str | None:
    """The passage as one text, paragraphs between blank lines; None if there is none. Raises `BadRow`."""
    value = parsed(value) if isinstance(value, str) else value
    if is_missing(value):
        return None
    if isinstance(value, dict):
        return _of_object(value, column)
    if isinstance(value, list):
        return "\n\n".join(part for each in value if (part := _paragraph(each, column))) or None
    return as_text(value, "passage", column)


def _of_object(value: dict[str, Json], column: str) -> str | None:
    """PubMedQA's ``contexts``, HotpotQA's titles with sentences, a table's header and rows, else one text."""
    header, rows = value.get("header"), value.get("rows")
    if isinstance(rows, list):
        lines = ([header] if isinstance(header, list) else []) + rows
        return "\n".join(" | ".join(map(str, line)) if isinstance(line, list) else str(line) for line in lines)
    titles, sentences = value.get("title"), value.get("sentences")
    if isinstance(titles, list) and isinstance(sentences, list):
        return passage_text([list(pair) for pair in zip(titles, sentences, strict=False)], column)
    for name in ("contexts", "passages", "paragraphs", "text", "passage_text", "context"):
        if not is_missing(value.get(name)) and value[name] != []:
            return passage_text(value[name], column)
    raise BadRow("passage is not text", f"field {column!r} is an object with {', '.join(value) or 'nothing'}")


def _paragraph(value: Json, column: str) -> str:
    """A part of a passage: text, ``[title, [sentences]]``, or an object with a title and a text."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], list):
        return f"{value[0]}\n{''.join(map(str, value[1])).strip()}"
    if isinstance(value, dict):
        names = ("paragraph_text", "text", "passage_text", "content", "passage", "context")
        said = next((value[name] for name in names if isinstance(value.get(name), str)), None)
        if said is None:
            raise BadRow("passage is not text", f"field {column!r} holds an object with {', '.join(value)}")
        title = value.get("title")
        return f"{title}\n{said}" if isinstance(title, str) and title.strip() else said
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if is_missing(value) else as_text(value, "passage", column)
