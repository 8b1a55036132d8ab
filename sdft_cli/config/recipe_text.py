"""A recipe file written for people: TOML with the reason for each value above it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence

from sdft_cli.types import Json

#: Columns of a comment.
WIDTH = 79


def recipe_text(head: Sequence[str], settings: Iterable[tuple[str, Json, str]]) -> str:
    """TOML of ``settings`` (dotted key, value, reason or an empty text) in tables, below the comments ``head``.

    A value of None cannot be written in TOML, so its key is left out.
    """
    tables: dict[str, list[str]] = {"": []}
    for key, value, reason in settings:
        if value is not None:
            table, _, name = key.rpartition(".")
            tables.setdefault(table, []).extend([*comment(reason), f"{name} = {value_text(value)}"])
    parts = [[line for text in head for line in comment(text)], tables.pop("")]
    parts += [[f"[{table}]", *lines] for table, lines in tables.items()]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def comment(text: str) -> list[str]:
    """``text`` as lines of a comment; one that is indented is a command, and is not broken."""
    if text.startswith("  "):
        return [f"# {text}"]
    return [f"# {line}" for line in textwrap.wrap(text, WIDTH - 2, break_long_words=False, break_on_hyphens=False)]


def value_text(value: Json) -> str:
    """A value as TOML writes it: text, a number, a truth value, or a list of these."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(value_text, value))}]"
    if isinstance(value, float):
        return number_text(value)
    # what JSON escapes is escaped alike in TOML, but for DEL, which TOML does not take as it is
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def number_text(value: float) -> str:
    """A number that reads back as the same; small ones as rates are written, such as 5e-5."""
    mantissa, _, exponent = f"{value:.15e}".partition("e")
    short = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return short if 0 < abs(value) < 1e-2 and float(short) == value else repr(value)
