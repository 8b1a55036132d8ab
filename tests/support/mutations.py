"""Mutated files, for tests that feed them to every command: what a crash, a bad disk or a hand may leave behind.

Everything follows from a seed. `mutate` changes one file by one of `OPERATORS`; `run` calls the command line in this
process and says what it must not do.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

#: What a leaf of JSON is replaced by: every type, and numbers of every awkward kind.
VALUES: tuple[str, ...] = (
    *("null", "true", "false", "0", "1", "-1", "3", "1e400", "-1e400", "NaN", "-Infinity", "0.5", "-0.5", "7.5"),
    *('""', '"x"', '"../.."', '"a\\u0000b"', '"\\ud83d"', '"\\u2028"', '"a\\nb"', "[]", "{}", "[[]]", '["a"]'),
    *('{"a": 1}', "9" * 25, "9" * 400, "9" * 5000, "1e308", "[" * 300 + "]" * 300, "[" * 5000 + "]" * 5000),
)
#: The same for TOML.
TOML_VALUES: tuple[str, ...] = (
    *("true", "0", "1", "-1", "3", "1e400", "nan", "-inf", "0.5", "-0.5", "7.5", '""', '"x"', '"../.."', "'a b'"),
    *('"a\\u0000b"', "[]", "{}", "[[]]", '["a"]', "[1]", "{ a = 1 }", "[{ a = 1 }]", "1979-05-27", "07:32:00"),
    *("1979-05-27T07:32:00Z", "9" * 25, "9" * 400, "9" * 5000, "0x" + "f" * 5000, "1e308", "[" * 300 + "]" * 300),
)

Rng = random.Random


# --- operators on bytes: each returns what the file holds then, or None where it does not apply ---------------------


def cut(raw: bytes, rng: Rng) -> bytes | None:
    return raw[: rng.randrange(len(raw))] if raw else None


def flip(raw: bytes, rng: Rng) -> bytes | None:
    """One to four bits, in a small file anywhere, in a large one mostly near its beginning, where headers are."""
    if not raw:
        return None
    changed = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        end = len(raw) if rng.random() < 0.5 else min(len(raw), 4096)
        changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def empty(raw: bytes, rng: Rng) -> bytes | None:
    return b"" if raw else None


def garble(raw: bytes, rng: Rng) -> bytes | None:
    """Some bytes in the middle are zeroed or random, as after a power failure."""
    if len(raw) < 8:
        return None
    at = rng.randrange(len(raw))
    length = min(len(raw) - at, rng.choice((1, 16, 512)))
    return raw[:at] + (bytes(length) if rng.random() < 0.5 else rng.randbytes(length)) + raw[at + length :]


def marks(raw: bytes, rng: Rng) -> bytes | None:
    """A byte-order mark, Windows line ends, UTF-16: what editors do."""
    return rng.choice((b"\xef\xbb\xbf" + raw, raw.replace(b"\n", b"\r\n"), raw.decode("latin-1").encode("utf-16")))


def nonsense(raw: bytes, rng: Rng) -> bytes | None:
    return rng.choice(
        (b"hello\n", b"{}", b"[]\n", b"null", b'"x"', b"\0" * 64, b"[" * 100_000, b"../../..\n", b"/etc\n")
    )


def lines(raw: bytes, rng: Rng) -> bytes | None:
    """A line twice, a line less, all in another order, or no line end at the end."""
    every = raw.splitlines(keepends=True)
    if len(every) < 2:
        return None
    at = rng.randrange(len(every))
    kind = rng.randrange(4)
    if kind == 0:
        every.insert(at, every[at])
    elif kind == 1:
        del every[at]
    elif kind == 2:
        rng.shuffle(every)
    else:
        return raw.rstrip(b"\n")
    return b"".join(every)


def leaf(raw: bytes, rng: Rng) -> bytes | None:
    """One value somewhere in the JSON (of one line, for JSONL) is replaced by one of `VALUES`."""
    return _in_json(raw, rng, _replace_leaf)


def key(raw: bytes, rng: Rng) -> bytes | None:
    """One key is deleted, renamed or added."""
    return _in_json(raw, rng, _change_key)


TEXT: tuple[Callable[[bytes, Rng], bytes | None], ...] = (cut, flip, empty, garble, marks, nonsense, lines)
JSON: tuple[Callable[[bytes, Rng], bytes | None], ...] = (leaf, leaf, leaf, leaf, key, key, *TEXT)
BINARY: tuple[Callable[[bytes, Rng], bytes | None], ...] = (cut, flip, empty, garble, nonsense)


def _in_json(raw: bytes, rng: Rng, change: Callable[[Any, Rng, str], Any]) -> bytes | None:
    texts = [raw]
    at = 0
    try:
        json.loads(raw)
    except ValueError:
        texts = raw.split(b"\n")
        full = [i for i, text in enumerate(texts) if text.strip()]
        if not full:
            return None
        at = rng.choice(full)
    try:
        tree = json.loads(texts[at])
    except ValueError:
        return None
    mark = "@@mutated@@"
    tree = change(tree, rng, mark)
    texts[at] = json.dumps(tree).replace(json.dumps(mark), rng.choice(VALUES)).encode()
    return b"\n".join(texts)


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every container with every key or index in it."""
    found = []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in items:
        found.append((tree, name))
        found += _places(value)
    return found


def _replace_leaf(tree: Any, rng: Rng, mark: str) -> Any:
    places = _places(tree)
    if not places or rng.random() < 0.02:
        return mark
    container, name = rng.choice(places)
    container[name] = mark
    return tree


def _change_key(tree: Any, rng: Rng, mark: str) -> Any:
    places = [(container, name) for container, name in _places(tree) if isinstance(container, dict)]
    if not places:
        return mark
    container, name = rng.choice(places)
    kind = rng.randrange(3)
    if kind == 0:
        del container[name]
    elif kind == 1:
        container[rng.choice(("x", "", "../up", "kind", "task", name.upper()))] = container.pop(name)
    else:
        container[rng.choice(("x", "", "added_later"))] = mark
    return tree


# --- operators on files ------------------------------------------------------------------------------------------


def mutate(file: Path, rng: Rng) -> str:
    """Change ``file`` in one way; returns a description of it."""
    if rng.random() < 0.12:
        return _replace(file, rng)
    raw = file.read_bytes()
    operators = JSON if file.suffix in (".json", ".jsonl") else TEXT if len(raw) < 4096 else BINARY
    while True:
        operator = rng.choice(operators)
        changed = operator(raw, rng)
        if changed is not None and changed != raw:
            break
    file.unlink()  # it may be a hard link
    file.write_bytes(changed)
    return f"{operator.__name__} {file.name}"


def _replace(file: Path, rng: Rng) -> str:
    kind = rng.choice(("deleted", "folder", "full folder", "loop", "dangling"))
    file.unlink()
    if "folder" in kind:
        file.mkdir()
        if kind == "full folder":
            (file / "x").write_text("x")
    elif kind == "loop":
        file.symlink_to(file.name)
    elif kind == "dangling":
        file.symlink_to("nowhere")
    return f"{kind} {file.name}"


def toml(text: str, rng: Rng, keys: list[str]) -> str:
    """A recipe with one to three mutations; ``keys`` are dotted paths that it may set."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        text = rng.choice((_toml_value, _toml_value, _toml_key, _toml_key, _toml_table, _toml_bytes, _toml_lines))(
            text, rng, keys
        )
    return text


def _toml_value(text: str, rng: Rng, keys: list[str]) -> str:
    rows = text.splitlines()
    places = [i for i, row in enumerate(rows) if "=" in row]
    if not places:
        return text
    at = rng.choice(places)
    rows[at] = f"{rows[at].partition('=')[0]}= {rng.choice(TOML_VALUES)}"
    return "\n".join(rows) + "\n"


def _toml_key(text: str, rng: Rng, keys: list[str]) -> str:
    """A key of the recipe, at the top or in a table where it may not belong, with any value."""
    name = rng.choice(
        (*keys, *(path.rpartition(".")[2] for path in keys), "methods.sft", "grid.lr", "x", '""', '"a b"')
    )
    line = f"{name} = {rng.choice(TOML_VALUES)}\n"
    return line + text if rng.random() < 0.6 else text + line


def _toml_table(text: str, rng: Rng, keys: list[str]) -> str:
    name = rng.choice(
        (*keys, "methods", "methods.sft", "methods.no", "methods.sft.train", "grid", "methods.sft.grid", "x")
    )
    head = rng.choice((f"[{name}]", f"[[{name}]]"))
    leaf = rng.choice(keys).rpartition(".")[2]
    return f"{text}{head}\n{leaf} = {rng.choice(TOML_VALUES)}\n"


def _toml_bytes(text: str, rng: Rng, keys: list[str]) -> str:
    raw = text.encode("utf-8", "surrogateescape")
    changed = rng.choice((cut, flip, garble, marks, nonsense, empty))(raw, rng)
    return (raw if changed is None else changed).decode("utf-8", "surrogateescape")


def _toml_lines(text: str, rng: Rng, keys: list[str]) -> str:
    raw = text.encode("utf-8", "surrogateescape")
    return (lines(raw, rng) or raw).decode("utf-8", "surrogateescape")


# --- the command line ---------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """How a command ended; ``problem`` is empty if it did so in order."""

    code: int
    out: str
    err: str
    problem: str


def run(*words: str, codes: tuple[int, ...] = (0, 2)) -> Outcome:
    """``sdft WORDS`` in this process. It must end with one of ``codes``, and where it ends with 2, in one error and its
    hint."""
    from sdft_cli import plugins
    from sdft_cli.cli import app

    plugins.unload_all()
    out, err = io.StringIO(), io.StringIO()
    crash = ""
    with (
        mock.patch.object(sys, "argv", ["sdft", *words]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            app.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            code, crash = 70, "".join(traceback.format_exception(error)[-6:])
    printed = err.getvalue()
    return Outcome(code, out.getvalue(), printed, crash or _problem(code, printed, codes))


def _problem(code: int, err: str, codes: tuple[int, ...]) -> str:
    if code not in codes:
        return f"exit code {code}: {err[-600:]}"
    if "Traceback" in err:
        return f"a traceback: {err[-600:]}"
    if code != 2:
        return ""
    rows = err.splitlines()
    errors, hints = ([row for row in rows if row.startswith(word)] for word in ("error: ", "hint: "))
    if len(errors) != 1 or len(hints) != 1 or rows[-1] != hints[0] or rows[-2] != errors[0]:
        return f"not one error and its hint: {err[-600:]}"
    if len(errors[0]) > 700 or len(hints[0]) < 12:
        return f"a long error, or a hint that says nothing: {err[-1200:]}"
    return ""


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What is below a folder; equal as long as nothing was written there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        stat = path.lstat()
        found[str(path.relative_to(folder))] = (stat.st_mode, stat.st_size, 0 if path.is_dir() else stat.st_mtime_ns)
    return found


def remove(path: Path) -> None:
    """Whatever is at ``path``, if anything."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
