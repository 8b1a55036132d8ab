"""The grader ``sql``: a query is right if it returns what the gold one does, run on the row's database.

On a schema without rows, both are run on several made-up fillings (`made_up_rows`). Without a database, queries are
parsed and compared: equal ones are right, and different ones may still mean the same, so they are unscored. How results
are compared: `result_sets`. How queries are kept from doing harm: `sqlite_runs`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from sdft_cli.grading import made_up_rows
from sdft_cli.grading.grader import Grader
from sdft_cli.grading.result_sets import same_rows
from sdft_cli.grading.sql_text import (
    are_queries,
    find_query,
    is_ordered,
    is_random,
    parsed,
    same_query,
    to_sqlite,
    with_sort_keys,
)
from sdft_cli.grading.sqlite_runs import Failed, Rows, Undecided, has_rows, is_script, opened, query
from sdft_cli.grading.task_rules import strip_thinking
from sdft_cli.types import Example, Json, Score

#: What SQLite says of a query that asks for what is not there, in whatever dialect it was written.
_NOT_THERE = ("no such table", "no such column")


def sql(completion: str, row: Example, folder: Path | None = None) -> Score:
    """The completion's query against the gold one, or against gold rows.

    The row's ``meta`` may have a ``database`` (the path of an SQLite file, or SQL text that makes one), a ``schema``
    (such text, where there is no database) and a ``dialect`` (of queries and text; SQLite's unless given).
    """
    golds = gold_answers(row.answer)
    if not golds:
        return Score(None, None, "unscored: the row has neither a gold query nor gold rows")
    dialect, database = str(row.meta.get("dialect") or "sqlite"), database_of(row)
    given = find_query(strip_thinking(completion), dialect)
    if given is None:
        return Score(0.0, None, "no query found")
    scores = [_scored(given, gold, database, folder, dialect) for gold in golds]
    return max(scores, key=lambda score: -1.0 if score.value is None else score.value)


def database_of(row: Example) -> str:
    """The row's database, or the SQL text of its tables; "" where it has neither."""
    database, schema = row.meta.get("database"), row.meta.get("schema")
    if isinstance(database, str) and database.strip():
        return database
    return schema if isinstance(schema, str) and is_script(schema) else ""


def gold_answers(answer: Json) -> list[Json]:
    """The gold queries, of which any is right, or one list of gold rows; empty if there is neither."""
    if isinstance(answer, str):
        answer = find_query(strip_thinking(answer), "sqlite") or strip_thinking(answer)
        return [answer] if answer.strip() else []
    if isinstance(answer, list) and answer and all(isinstance(each, str) for each in answer):
        return [each for each in answer if each.strip()]
    return [answer] if isinstance(answer, list) else []


def _scored(given: str, gold: Json, database: str, folder: Path | None, dialect: str) -> Score:
    try:
        how = (database, folder, dialect)
        why = _executed(given, gold, *how) if database.strip() else _compared(given, gold, dialect)
    except Undecided as undecided:
        return Score(None, given, f"unscored: {undecided}")
    return Score(float(not why), given, why or "right")


def _compared(given: str, gold: Json, dialect: str) -> str:
    """What is wrong with ``given`` as far as its text tells; "" if nothing. Raises `Undecided`."""
    if not isinstance(gold, str):
        raise Undecided("gold rows need a database that the query can be run on")
    if same_query(given, gold, dialect):
        return ""
    if parsed(gold, dialect) is None:
        raise Undecided("the gold query cannot be parsed, so nothing can be compared with it")
    if parsed(given, dialect) is None:
        return "the query cannot be parsed"
    raise Undecided("without rows in a database nobody knows whether this query returns what the gold one does")


def _executed(given: str, gold: Json, database: str, folder: Path | None, dialect: str) -> str:
    if isinstance(gold, str) and is_random(gold):
        raise Undecided("the gold query returns something else each time")
    given_here = to_sqlite(given, dialect)
    with opened(database, folder, dialect) as connection:
        if isinstance(gold, list):
            return _difference(connection, given_here, rows_of(gold), None, dialect)
        gold_here = to_sqlite(gold, dialect)
        if has_rows(connection):
            expected = _gold_rows(connection, gold_here)
            return _difference(connection, given_here, expected, _runs(connection, gold_here, expected), dialect)
        if given.split() == gold.split():
            return ""
        if (why := _on_made_up_rows(connection, given_here, gold_here, dialect)) is None:
            return _compared(given, gold, dialect)
        return why


def _gold_rows(connection: sqlite3.Connection, gold: str) -> Rows:
    try:
        return query(connection, gold)
    except Failed as error:
        raise Undecided(f"the gold query does not run: {error}") from None


def _difference(
    connection: sqlite3.Connection, given: str, expected: Rows, runs: Sequence[int] | None, dialect: str
) -> str:
    try:
        return same_rows(query(connection, given), expected, runs)
    except Failed as error:
        if dialect != "sqlite" and not str(error).startswith(_NOT_THERE):
            raise Undecided(f"SQLite cannot run this query in {dialect}'s dialect: {error}") from None
        return f"the query does not run: {error}"


def _runs(connection: sqlite3.Connection, gold: str, expected: Rows) -> list[int] | None:
    """The sizes of runs of gold rows between which the order matters; None where it does not matter at all."""
    if not is_ordered(gold):
        return None
    every = [1] * len(expected.rows)
    if (keyed := with_sort_keys(gold, expected.columns)) is None:
        return every
    try:
        rows = query(connection, keyed[0]).rows
    except (Failed, Undecided):
        return every
    if [row[: expected.columns] for row in rows] != expected.rows or any(place >= len(rows[0]) for place in keyed[1]):
        return every
    keys, runs = [tuple(row[place] for place in keyed[1]) for row in rows], list[int]()
    for i, key in enumerate(keys):
        if i and key == keys[i - 1]:
            runs[-1] += 1
        else:
            runs.append(1)
    return runs


def _on_made_up_rows(connection: sqlite3.Connection, given: str, gold: str, dialect: str) -> str | None:
    """How the queries differ on made-up rows; "" if they do not, and None where the gold one returns next to nothing,
    so that agreeing means little."""
    telling = 0
    for _ in made_up_rows.fill(connection, [given, gold]):
        expected = _gold_rows(connection, gold)
        why = _difference(connection, given, expected, _runs(connection, gold, expected), dialect)
        if why:
            return f"on made-up rows: {why}"
        telling += any(cell not in (None, 0) for row in expected.rows for cell in row)
    return "" if telling >= 2 else None


def rows_of(gold: list[Json]) -> Rows:
    """Gold rows: a list of lists, of objects (their values in order), or of single values."""
    rows = [tuple(r.values()) if isinstance(r, dict) else tuple(r) if isinstance(r, list) else (r,) for r in gold]
    cells = [tuple(int(cell) if isinstance(cell, bool) else cell for cell in row) for row in rows]
    if len({len(row) for row in cells}) > 1 or any(isinstance(cell, dict | list) for row in cells for cell in row):
        raise Undecided("the gold rows are not rows of one length, of texts, numbers and nulls")
    return Rows(len(cells[0]) if cells else -1, cells)


def suits(rows: Sequence[Example]) -> bool:
    """Whether every row has a database and a gold answer that is a query."""
    if not all(database_of(row) for row in rows):
        return False
    golds = [gold for row in rows for gold in gold_answers(row.answer) or [None]]
    texts = [gold for gold in golds if isinstance(gold, str)]
    return len(texts) == len(golds) and are_queries(texts)


SQL = Grader(
    "sql",
    "the completion's query returns the gold query's rows (or the gold rows) from the row's SQLite database: in any "
    "order unless the gold one has an ORDER BY, columns in the gold one's order",
    "on one database different queries may return the same by chance, above all nothing; which of several tied rows a "
    "LIMIT keeps is SQLite's choice; a schema without rows is filled with made-up ones, without NULLs; without a "
    "database only queries that are the same once normalized are scored",
    score_row=sql,
    suits_rows=suits,
    columns=("database", "schema", "dialect"),
    files=("database",),
    gold="json",
)
