"""Made-up rows for a schema without any, so that queries on it can be told apart by what they return.

Queries that differ on some rows are different; those that agree on all of several fillings are taken for equal, as in
test-suite accuracy (Zhong, Yu & Klein 2020, arXiv 2010.02840). Values are drawn by a seed: the constants of the queries
and their neighbours, small numbers, short texts, dates. There are no NULLs, and a primary key does not repeat.
"""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Iterator, Sequence

from sdft_cli.grading.sqlite_runs import Cell, tables

FILLINGS, ROWS = 8, 12
_TEXTS: tuple[str, ...] = ("a", "b", "ab", "Yes", "No", "x y")
_NUMBERS: tuple[int | float, ...] = (0, 1, 2, 3, 5, 10)
_LITERAL = re.compile(r"""'((?:[^']|'')*)'|"([^"]*)"|(?<![\w.])(\d+(?:\.\d+)?)""")


def fill(connection: sqlite3.Connection, queries: Sequence[str]) -> Iterator[None]:
    """Fill all tables, once for each step of the iteration. The queries' constants are among the values."""
    numbers, texts = _constants(queries)
    schema = {name: connection.execute(f'PRAGMA table_info("{name}")').fetchall() for name in tables(connection)}
    connection.execute("PRAGMA query_only = OFF")
    for seed in range(FILLINGS):
        drawn = random.Random(seed)
        for name, columns in schema.items():
            connection.execute(f'DELETE FROM "{name}"')
            marks = ", ".join("?" for _ in columns)
            for number in range(ROWS):
                values = [_value(drawn, column, number, numbers, texts) for column in columns]
                connection.execute(f'INSERT OR IGNORE INTO "{name}" VALUES ({marks})', values)
        connection.commit()
        yield


def _value(
    drawn: random.Random, column: Sequence[Cell], number: int, numbers: list[int | float], texts: list[str]
) -> Cell:
    """One value for a column of SQLite's ``table_info``: (place, name, type, not null, default, place in the key)."""
    kind = str(column[2]).upper()
    text = any(word in kind for word in ("CHAR", "TEXT", "CLOB", "STRING", "DATE", "TIME")) or not kind
    if column[5]:
        return f"k{number}" if text else number
    if "DATE" in kind or "TIME" in kind:
        dates = [each for each in texts if re.match(r"\d{4}-", each)]
        return drawn.choice([*dates, f"20{drawn.randrange(10, 25)}-0{drawn.randrange(1, 10)}-1{drawn.randrange(10)}"])
    if text and drawn.random() < 0.25:  # numbers are often kept as text
        return str(drawn.choice(numbers))
    return drawn.choice(texts) if text else drawn.choice(numbers)


def _constants(queries: Sequence[str]) -> tuple[list[int | float], list[str]]:
    numbers, texts = list(_NUMBERS), list(_TEXTS)
    for query in queries:
        for single, double, number in _LITERAL.findall(query):
            if number:
                value = float(number) if "." in number else min(int(number), 1 << 40)
                numbers += [value - 1, value, value, value + 1]
            if text := single.replace("''", "'") or double:
                texts += [text, text.replace("%", "z").replace("_", "q")]
    return numbers, texts
