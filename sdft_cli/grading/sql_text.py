"""SQL as text: a query found in a completion, parsed by sqlglot, translated, and compared without running it."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sdft_cli.errors import choose
from sdft_cli.grading.fences import fenced

if TYPE_CHECKING:
    from sqlglot.expressions import Expression

#: How a query begins; where prose and a query are mixed, capitals are surely the query.
_BEGINS = re.compile(r"\b(?:SELECT|WITH|VALUES)\b", re.IGNORECASE)
_STARTS = re.compile(r"[\s(]*(?:--[^\n]*\n\s*|/\*.*?\*/\s*)*[\s(]*(?:SELECT|WITH|VALUES)\b", re.IGNORECASE | re.DOTALL)
_TAGGED = re.compile(r"<(answer|sql|query)>(.*?)(?:</\1>|\Z)", re.IGNORECASE | re.DOTALL)
_TO_SEMICOLON = re.compile(r"""(?:'(?:[^']|'')*'|"[^"]*"|`[^`]*`|--[^\n]*|[^;'"`])*""")
#: Beginnings that are tried in one completion: prose may hold the words many times.
_TRIED = 24
#: So many gold answers of a dataset are parsed to see whether they are queries.
_PARSED = 100


@functools.cache
def _sqlglot() -> None:
    logging.getLogger("sqlglot").setLevel(logging.CRITICAL)  # it warns of syntax that it passes on unread


def check_dialect(name: str) -> None:
    """Raise `UsageError` unless sqlglot knows the dialect."""
    from sqlglot.dialects import Dialect

    if name not in Dialect.classes:
        raise choose("dialect", name, sorted(filter(None, Dialect.classes)))


@functools.lru_cache(maxsize=2048)
def parsed(sql: str, dialect: str) -> Expression | None:
    """The one query that ``sql`` is, not to be changed; None if it is not one, or cannot be parsed."""
    import sqlglot
    from sqlglot import exp

    _sqlglot()
    try:
        statements = [each for each in sqlglot.parse(sql, read=dialect) if each is not None]
    except (sqlglot.errors.SqlglotError, RecursionError, ValueError):
        return None
    query = statements[0] if len(statements) == 1 and isinstance(statements[0], exp.Query | exp.Values) else None
    return query if query is None or not query.find(exp.Command) else None


def find_query(text: str, dialect: str) -> str | None:
    """The query in a completion; None if there is none.

    It is the last one in a block of code, else inside ``<answer>``, ``<sql>`` or ``<query>``, else the completion
    itself where it begins like a query, else the last part of the prose that can be parsed as one.
    """
    blocks = [block.text for block in fenced(text) if _STARTS.match(block.text)]
    tagged = [inside for _, inside in _TAGGED.findall(text) if _STARTS.match(inside)]
    if blocks or tagged:
        return (blocks or tagged)[-1].strip()
    whole = text.strip()
    if _STARTS.match(whole):
        return _without_prose(whole, dialect)
    found = list(_in_prose(text, dialect))
    written = [query for query in found if re.match(r"SELECT|WITH|VALUES", query)]
    return next(reversed(written or found), None)


def _without_prose(whole: str, dialect: str) -> str:
    """The query that the text begins with; all of it where another query follows, which no database will run."""
    alone = whole.rstrip("; \n")
    if ("\n" not in alone and ";" not in alone) or parsed(whole, dialect):
        return whole
    query = next((part.strip() for part in _ends(whole, 0) if parsed(part, dialect)), whole)
    return whole if _STARTS.match(whole[len(query) :].lstrip("; \n")) else query


def _in_prose(text: str, dialect: str) -> Iterator[str]:
    position = 0
    for begin in list(_BEGINS.finditer(text))[:_TRIED]:
        if begin.start() < position:
            continue
        for candidate in _ends(text, begin.start()):
            query = parsed(candidate, dialect)
            if query is not None and (begin[0].isupper() or query.args.get("from_") or query.args.get("from")):
                position = begin.start() + len(candidate)
                yield candidate.strip()
                break


def _ends(text: str, start: int) -> Iterator[str]:
    """The text from ``start`` to where a query may end: a semicolon, a blank line, the end of the line."""
    matched = _TO_SEMICOLON.match(text, start)
    to_semicolon = matched[0] if matched else text[start:]
    yield to_semicolon
    paragraph = re.split(r"\n\s*\n|`", to_semicolon)[0]
    yield paragraph
    line = paragraph.split("\n")[0]
    yield line
    yield line.rstrip().rstrip(".")


# --- what a query says ------------------------------------------------------------------------------------------------


def to_sqlite(sql: str, dialect: str) -> str:
    """``sql`` in SQLite's dialect; as it is where it cannot be translated."""
    import sqlglot

    if dialect == "sqlite":
        return sql
    _sqlglot()
    try:
        return ";".join(sqlglot.transpile(sql, read=dialect, write="sqlite"))
    except (sqlglot.errors.SqlglotError, RecursionError, ValueError):
        return sql


def is_random(sql: str) -> bool:
    """Whether a query returns something else each time."""
    return re.search(r"\brandom(?:blob)?\s*\(", sql, re.IGNORECASE) is not None


def is_ordered(sql: str) -> bool:
    """Whether the outermost query has an ORDER BY."""
    query = parsed(sql, "sqlite")
    if query is None:
        return re.search(r"\bORDER\s+BY\b[^()]*;?\s*\Z", sql, re.IGNORECASE) is not None
    return query.unnest().args.get("order") is not None


def with_sort_keys(sql: str, columns: int) -> tuple[str, list[int]] | None:
    """The query with whatever it is sorted by among its columns, and the places of these: rows with equal keys may come
    in any order. None where that cannot be told. ``columns`` is how many columns it has of its own."""
    from sqlglot import exp

    query = parsed(sql, "sqlite")
    order = query.args.get("order") if query else None
    if not isinstance(query, exp.Query) or order is None:
        return None
    names = [each.alias_or_name.lower() for each in query.selects] if len(query.selects) == columns else []
    written = [each.unalias().sql("sqlite").lower() for each in query.selects] if names else []
    places: list[int] = []
    added: list[Expression] = []
    for key in (each.this for each in order.expressions):
        text = key.sql("sqlite").lower()
        if isinstance(key, exp.Literal) and key.is_int:
            places.append(int(key.this) - 1)
        elif isinstance(key, exp.Column) and not key.table and key.name.lower() in names:
            places.append(names.index(key.name.lower()))
        elif text in written:
            places.append(written.index(text))
        else:
            places.append(columns + len(added))
            added.append(key.copy())
    if added and (not isinstance(query, exp.Select) or query.args.get("distinct")):
        return None
    return (query.select(*added) if added else query).sql("sqlite"), places


def same_query(given: str, gold: str, dialect: str) -> bool:
    """Whether two queries are the same for certain: in text, or once parsed and normalized (names in any case, table
    aliases renamed, conditions simplified and sorted). False means only that nobody knows."""
    if given.strip(" \n;").split() == gold.strip(" \n;").split():
        return True
    return bool(set(_normal_forms(given, dialect)) & set(_normal_forms(gold, dialect)))


@functools.lru_cache(maxsize=1024)
def _normal_forms(sql: str, dialect: str) -> list[str]:
    from sqlglot import exp
    from sqlglot.errors import SqlglotError
    from sqlglot.optimizer.qualify import qualify
    from sqlglot.optimizer.simplify import simplify

    query, forms = parsed(sql, dialect), []
    if query is None:
        return []
    query = _plainly_written(query, dialect)
    forms.append(query.sql(dialect, comments=False))
    try:
        settings = {"validate_qualify_columns": False, "quote_identifiers": False, "identify": False}
        qualified = qualify(query.copy(), dialect=dialect, canonicalize_table_aliases=True, **settings)
        if len(list(qualified.find_all(exp.Table))) == 1 and not qualified.find(exp.Subquery):
            for column in qualified.find_all(exp.Column):
                column.set("table", None)
        if isinstance(qualified, exp.Select) and not qualified.args.get("order"):  # which may refer to a name
            qualified.set("expressions", [each.unalias() for each in qualified.expressions])
        forms.append("qualified: " + simplify(qualified, dialect=dialect).sql(dialect, comments=False))
    except (SqlglotError, RecursionError, ValueError, AttributeError, KeyError):
        pass  # the optimizer does not know everything; the first form stands
    return forms


def _plainly_written(query: Expression, dialect: str) -> Expression:
    """Unquoted names in lower case, quoted ones without their quotes, and no INNER before JOIN."""
    from sqlglot import exp
    from sqlglot.optimizer.normalize_identifiers import normalize_identifiers

    query = query.copy()
    if dialect == "sqlite":  # which takes a quoted name that does not exist for a text, so its case is kept
        for name in query.find_all(exp.Identifier):
            name.set("this", name.name if name.args.get("quoted") else name.name.lower())
    else:
        query = normalize_identifiers(query, dialect=dialect)
    for name in query.find_all(exp.Identifier):
        name.set("quoted", False)
    for join in query.find_all(exp.Join):
        if join.args.get("kind") == "INNER":
            join.set("kind", None)
    return query


def are_queries(golds: Sequence[str]) -> bool:
    """Whether every text begins like a query, and the first ones can be parsed."""
    begin = bool(golds) and all(map(_STARTS.match, golds))
    return begin and all(parsed(gold, "sqlite") is not None for gold in golds[:_PARSED])
