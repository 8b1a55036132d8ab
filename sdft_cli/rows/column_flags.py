"""Columns that are named in flags: ``--columns 'mytask:prompt=Frage,answer=Zahl'``, or the name of a TOML file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sdft_cli.config.toml_tables import parse_toml, read_toml
from sdft_cli.errors import UsageError
from sdft_cli.rows.columns import KEYS, Columns, columns_of, read_columns
from sdft_cli.types import Json

#: Whatever is written between two commas: quoted text, a list, a table, or a bare name.
_PAIR = re.compile(
    r"""\s*(?P<key>[\w.-]+)\s*=\s*(?P<value>"(?:\\.|[^"\\])*"|'[^']*'|\[[^\]]*\]|\{[^}]*\}|[^,]*?)\s*(?:,|\Z)"""
)
#: A template without quotes goes on to the end of the flag, as it may hold anything.
_TEMPLATE = re.compile(r"""\s*(?P<key>template)\s*=\s*(?P<value>[^"'\s].*)""", re.DOTALL)
_SETTING = re.compile(rf",\s*(?P<key>{'|'.join(KEYS)})=")
_FORM = "write --columns 'mytask:prompt=Frage,answer=Zahl', or --columns mytask=mytask.toml"
_TASK = r"[A-Za-z0-9][A-Za-z0-9_-]*"


def column_flags(flags: Sequence[str], tasks: Sequence[str]) -> dict[str, Path | Columns]:
    """What ``--columns`` flags give by task: ``TASK=FILE.toml`` or ``TASK:KEY=COLUMN,…``, each without its task if
    there is only one. A file by itself is read later; several flags for one task are taken together. Raises
    `UsageError`."""
    names = list(dict.fromkeys(name.partition(".")[0] for name in tasks))
    written: dict[str, list[Path | str]] = {}
    for flag in flags:
        task, given = _parted(flag, names)
        written.setdefault(task, []).append(given)
    alone = {task: each[0] for task, each in written.items() if isinstance(each[0], Path) and len(each) == 1}
    return alone | {task: _together(task, each) for task, each in written.items() if task not in alone}


def _together(task: str, written: Sequence[Path | str]) -> Columns:
    """The columns of several flags for one task."""
    settings: dict[str, Json] = {}
    for each in written:
        further = _file(each) if isinstance(each, Path) else parse_pairs(each)
        if twice := [key for key in further if settings.get(key, further[key]) != further[key]]:
            raise UsageError(f"--columns gives {twice[0]!r} of task {task!r} twice", "leave one of them out")
        settings |= further
    return columns_of(settings, "--columns")


def _parted(flag: str, tasks: list[str]) -> tuple[str, Path | str]:
    """The task that a flag is for, and its file or its pairs."""
    if match := re.match(rf"\s*({_TASK}):(?=.*=)", flag):
        return match[1], flag[match.end() :]
    before, equals, after = flag.partition("=")
    only = tasks[0] if len(tasks) == 1 else None
    if flag and only and (not equals or Path(flag).is_file()):
        return only, Path(flag)
    is_task = before in tasks or before.strip() not in KEYS
    if equals and after and is_task and (_is_file_name(after) or (before in tasks and before not in KEYS)):
        return before, Path(after)
    if not equals or not after or not only:
        raise UsageError(f"--columns {flag}: neither TASK=FILE.toml nor TASK:KEY=COLUMN", _FORM)
    return only, flag


def _is_file_name(text: str) -> bool:
    return text.lower().endswith(".toml") or Path(text).is_file()


def _file(path: Path) -> dict[str, Json]:
    read_columns(path)  # complains with the file's name
    return read_toml(path)


def parse_pairs(text: str) -> dict[str, Json]:
    """``KEY=COLUMN,…`` as a table. A column with a comma is quoted; ``[a, b]`` are several, ``{a = "test"}`` a table.
    Raises `UsageError`."""
    pairs: dict[str, Json] = {}
    at = 0
    while at < len(text):
        match = _TEMPLATE.match(text, at) or _PAIR.match(text, at)
        if not match or not match["value"]:
            rest = text[at:].strip()
            raise UsageError(
                f"--columns: {rest!r} is not KEY=COLUMN", f'{_FORM}; quote a name with a comma: prompt="a, b"'
            )
        if match.re is _TEMPLATE and (more := _SETTING.search(match["value"])):
            raise UsageError(
                f"--columns: the template holds {more[0]!r}, which looks like a setting",
                f"a template without quotes goes on to the end: put {more['key']}=… before it, or quote the template",
            )
        key, value = match["key"], _value(match["key"], match["value"])
        table, dot, inner = key.partition(".")
        if key in pairs or (dot and inner in pairs.get(table, {})):
            raise UsageError(f"--columns: {key!r} is given twice", "leave one of them out")
        if dot:
            pairs.setdefault(table, {})[inner] = value
        else:
            pairs[key] = value
        at = match.end()
    return pairs


def _value(key: str, written: str) -> Json:
    if written[0] == "[":
        return _listed(written)
    if written[0] == "'":
        return written[1:-1]
    if written[0] in '"{' and not (key == "template" and written[0] == "{"):
        try:
            return parse_toml(f"value = {written}")["value"]
        except ValueError as error:
            raise UsageError(f"--columns: {key}={written} cannot be read: {error}", _FORM) from error
    if key == "accept" and re.fullmatch(r"\d*\.?\d+", written):
        return float(written)
    return int(written) if key in ("max_new_tokens", "first_index") and written.isdecimal() else written


def _listed(written: str) -> list[str]:
    """The entries of ``[a, "b, c"]``, quoted or not."""
    entries = re.findall(r"""\s*("(?:\\.|[^"\\])*"|'[^']*'|[^,]+?)\s*(?:,|\Z)""", written[1:-1])
    return [entry[1:-1] if entry[:1] in "\"'" else entry for entry in entries]
