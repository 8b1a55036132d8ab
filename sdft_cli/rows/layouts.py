"""Layouts of rows, recognized by the names of their columns: which column is the question, the options, the answer, ….

A layout lists the columns that it needs and those that it may have, by what they are for, each with its usual names.
Names are compared without case, spaces, hyphens and underscores (``Question_Text`` is ``questiontext``). The first
layout whose columns are all there is taken, so the particular ones come before the general ones. Columns that the user
names stand for themselves, and a layout that has no place for one of them is not taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sdft_cli.errors import UsageError
from sdft_cli.rows.columns import GRADER_ROLES, ROLES, Columns, Named
from sdft_cli.rows.layout_table import (
    COMMON,
    ESSENTIAL,
    ESSENTIAL_TEXTS,
    ESSENTIAL_TO_ARTICLES,
    ESSENTIAL_TO_LABELS,
    LAYOUTS,
    NAMEABLE,
    RENDERED,
    TEACHERS,
    Layout,
)
from sdft_cli.rows.option_columns import option_columns
from sdft_cli.rows.values import is_missing
from sdft_cli.types import Json


@dataclass(frozen=True)
class Plan:
    """How rows with the same columns are read: their layout, its columns, and ``parts``, those of its template."""

    layout: Layout
    columns: Columns
    parts: Mapping[str, str] = field(default_factory=dict)

    def left_over(self, fields: Iterable[str]) -> list[str]:
        """The columns among ``fields`` that are not used, though a question may not do without them (see `lost`).
        Messages and other records that are taken apart say everything themselves, and so does a user's template."""
        used = {*self.used, *self.columns.ignore}
        if self.layout.reads == "article":
            return [name for name in fields if squeezed(name) in ESSENTIAL_TO_ARTICLES and name not in used]
        if self.columns.messages or self.layout.reads:
            return []
        needed = ESSENTIAL | (frozenset() if self.columns.template else ESSENTIAL_TEXTS)
        needed |= ESSENTIAL_TO_LABELS if self.layout.kind == "label" else frozenset()
        return [name for name in fields if squeezed(name) in needed and name not in used]

    def lost(self, record: Mapping[str, Json], left_over: Iterable[str]) -> list[str]:
        """The columns among ``left_over`` that say something in this record."""
        said = [name for name in left_over if not is_missing(record[name])]
        return [name for name in said if squeezed(name) not in ESSENTIAL_TEXTS or self._is_new(record, name)]

    def _is_new(self, record: Mapping[str, Json], name: str) -> bool:
        """Whether a column says what none of the columns used does, and is no rendering of these. One word may be the
        code of anything."""
        text = _words(record[name])
        others = [words for each in self.used if (words := _words(record.get(each)))]
        if text.startswith(RENDERED) or (squeezed(name) == "code" and " " not in text):
            return False
        return not any(other in text or text in other for other in others if " " in other)

    @property
    def used(self) -> list[str]:
        return [name for name in (*self.columns.names, *self.parts.values()) if name not in self.columns.ignore]


def plan(named: Columns, fields: Iterable[str], where: str = "the file") -> Plan | None:
    """How rows with these ``fields`` are read; None if no layout has them. ``where`` names their file in errors."""
    fields = [name for name in fields if name and name not in named.ignore]
    refuse(fields, where)
    for layout in LAYOUTS:
        if found := _match(layout, named, fields):
            return found
    return None


def _words(value: Json) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def squeezed(name: str) -> str:
    """A column's name as names are compared."""
    return re.sub(r"[\W_]+", "", name.lower())


def refuse(fields: Iterable[str], where: str) -> None:
    """`UsageError` for a file whose rows mean nothing one by one."""
    names = {squeezed(name) for name in fields}
    if {"parentid", "text", "role"} <= names:
        raise UsageError(
            f"{where}: each row is one message of a tree (parent_id, role, text)",
            "make one row a conversation: a path from the first message to a reply, as a list called messages",
        )
    if {"role", "content"} <= names and not names & {"messages", "conversations"}:
        raise UsageError(
            f"{where}: each row is one message (role, content)",
            "make one row a conversation: a list of its messages called messages",
        )


def _match(layout: Layout, named: Columns, fields: list[str]) -> Plan | None:
    """The layout's columns among ``fields``; None if one that it needs is not there, or one that the user names has no
    place in it."""
    if not _is_marked(layout, named) or set(layout.without.split()) & set(map(squeezed, fields)):
        return None
    roles = {**layout.needs, **layout.may}
    if named.template:  # it is the prompt, whatever the layout has
        roles = {role: names for role, names in roles.items() if role not in ("prompt", "input", "passage")}
    found: dict[str, Named] = dict(named.named)
    if set(found) - {*roles, *COMMON, *_nameable(layout, named)}:
        return None
    taken = {name for column in found.values() for name in ((column,) if isinstance(column, str) else column)}
    free = {squeezed(name): name for name in reversed(fields) if name not in taken}
    for role, names in {**roles, **{role: names for role, names in COMMON.items() if role not in roles}}.items():
        if role not in found:
            found |= _found(role, names, free, in_columns=role == "choices" and layout.template is not None)
        if role in layout.needs and role not in found and role in roles:
            return None
    parts = {role: str(found.pop(role)) for role in list(found) if role not in ROLES}
    columns: dict[str, Any] = {**found}
    return Plan(layout, replace(named, **columns), parts)


def _nameable(layout: Layout, named: Columns) -> set[str]:
    """The roles that a user may give to columns although the layout has no usual names for them."""
    teachers = TEACHERS if "prompt" in layout.needs or named.template else ()
    return {*teachers, *(NAMEABLE if layout.kind in ("option", "label") else ())}


def _found(role: str, names: str, free: dict[str, str], in_columns: bool) -> dict[str, Named]:
    """The column for ``role``, taken out of the ``free`` ones: perhaps one for each option, and for a passage every one
    that has a usual name."""
    found: dict[str, Named] = {}
    several = tuple(free[name] for name in names.split() if name in free) if role == "passage" else ()
    if len(several) > 1:
        found = {role: several}
    elif column := next((free[name] for name in names.split() if name in free and not in_columns), None):
        found = {role: column}
    elif role == "choices":
        found = option_columns(list(free.values()), squeezed)
    for column_or_several in found.values():
        for name in (column_or_several,) if isinstance(column_or_several, str) else column_or_several:
            free.pop(squeezed(name), None)
    return found


def _is_marked(layout: Layout, named: Columns) -> bool:
    """Whether the columns that the user names for the layout's marks have the usual names."""
    usual = {**layout.needs, **layout.may}
    given = {role: column for role, column in named.named.items() if role in layout.marks}
    return all(isinstance(column, str) and squeezed(column) in usual[role].split() for role, column in given.items())


def grader_columns(columns: Columns) -> dict[str, str]:
    """The columns that graders read, by their names in ``meta``."""
    named = {role: column for role in GRADER_ROLES if (column := getattr(columns, role)) is not None}
    return {**named, **columns.further}
