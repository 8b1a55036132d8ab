"""Dataset folders: ``data/<task>/`` with one JSONL file for each split, and ``manifest.json`` written last.

Reading names every bad row by file and line; writing is deterministic: the same examples and options give the
same bytes, so no time stamps and no paths of this machine. A raw row of ``train.jsonl``::

    {"id": "tooluse-axolotl-0", "prompt": [{"role": "user", "content": "Your task is …"}], "demonstration": "…",
     "answer": [{"Action": "getRandomAxolotlImage", "Action_Input": "{}"}], "meta": {"api": "Axolotl"}}
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from sdft_cli import __version__
from sdft_cli.errors import SdftError, UsageError, choose
from sdft_cli.types import SPLITS, Dropped, Example, Prepared, PrepareOptions

ON_BAD_ROW = ("error", "drop")
#: A reason that starts so marks a row that is left out by design: it is counted apart and never refused.
FILTERED = "filtered: "
MANIFEST = "manifest.json"
MAX_LISTED = 200
_NEEDABLE = ("demonstration", "context", "answer", "text", "prompt")


class JsonLine(NamedTuple):
    """One non-blank line: its number (from 1) and either the parsed ``data`` or, in ``bad``, why there is none."""

    number: int
    data: Any
    bad: Dropped | None


# --- reading ----------------------------------------------------------------------------------------------------------


def read_split(folder: Path, split: str, on_bad_row: str = "error") -> tuple[list[Example], list[Dropped]]:
    """The examples of one split, and the bad rows that were dropped (none with ``on_bad_row="error"``).

    Raises `UsageError` where the folder or the file does not exist, where no good row is left, and, with
    ``"error"``, where any row is bad: it names the first one and counts them all.
    """
    if on_bad_row not in ON_BAD_ROW:
        raise choose("value for --on-bad-row", on_bad_row, ON_BAD_ROW)
    path = _split_file(folder, split)
    examples, dropped = _parse(read_bytes(path), path.name)
    if dropped and on_bad_row == "error":
        raise bad_rows(dropped, len(examples) + len(dropped), str(path))
    if not examples:
        first = f"; the first is {describe(dropped[0])}" if dropped else ""
        raise UsageError(f"{path} holds no usable row{first}", _prepare_hint(folder))
    return examples, dropped


def held_out(folder: Path) -> dict[str, list[Example]]:
    """The splits that a model is scored on: ``test``, and ``ood`` where the task has one."""
    return {split: read_split(folder, split)[0] for split in held_out_splits(folder)}


def held_out_splits(folder: Path) -> list[str]:
    """``test``, without which nothing is measured, and ``ood`` where it lies in ``folder``."""
    return ["test", *(split for split in available_splits(folder) if split == "ood")]


def available_splits(folder: Path) -> list[str]:
    """The splits that lie in ``folder``, in their usual order; empty where there is no such folder."""
    return [split for split in SPLITS if (folder / f"{split}.jsonl").is_file()]


def read_manifest(folder: Path) -> dict[str, Any]:
    """``manifest.json`` of a dataset folder; `UsageError` where the folder is missing or was left half-written."""
    _need_folder(folder)
    path = folder / MANIFEST
    if not path.is_file():
        raise UsageError(f"{folder} has no {MANIFEST}, so it is no finished dataset", _prepare_hint(folder))
    try:
        manifest = json.loads(read_bytes(path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON: {error}", _prepare_hint(folder)) from error
    if not isinstance(manifest, dict):
        raise UsageError(f"{path} must hold a JSON object", _prepare_hint(folder))
    return manifest


def read_bytes(path: Path) -> bytes:
    """The file's content without a byte-order mark; `UsageError` where it cannot be read or is UTF-16."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(f"{path} is UTF-16", "save it as UTF-8")
    return raw.removeprefix(b"\xef\xbb\xbf")


def json_lines(raw: bytes, name: str) -> Iterator[JsonLine]:
    """Every non-blank line of a JSONL file called ``name``; a line that cannot be read comes with its reason."""
    for number, line in enumerate(raw.split(b"\n"), start=1):  # not splitlines(): JSON text may hold U+2028
        if line.strip():
            yield JsonLine(number, *parse_line(line, f"{name}:{number}"))


def parse_line(raw: bytes, where: str) -> tuple[Any, Dropped | None]:
    """What one line of JSONL holds, or None and why it cannot be read."""
    try:
        return parse_json(raw), None
    except UnicodeDecodeError as error:
        return None, Dropped(where, "not UTF-8", f"byte {error.start + 1} of the line")
    except (ValueError, RecursionError) as error:
        return None, Dropped(where, "broken JSON", str(error))


def parse_json(raw: bytes) -> Any:
    """Strict JSON from UTF-8 bytes: no NaN, no half of a surrogate pair (no tokenizer can take one)."""
    data = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    if b"\\ud" in raw.lower():
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("half of a surrogate pair (\\ud8xx without its other half)") from error
    return data


def check_demonstrations(examples: list[Example], needs: tuple[str, ...]) -> list[Dropped]:
    """One entry for each example that lacks a field in ``needs``, or holds it empty or blank (the first such field)."""
    for name in needs:
        if name not in _NEEDABLE:
            raise choose("needed field", name, _NEEDABLE)
    found = []
    for example in examples:
        for name in needs:
            if lack := _lack(getattr(example, name)):
                found.append(Dropped(example.id, f"{lack} {name}"))
                break
    return found


def bad_rows(dropped: list[Dropped], total: int, what: str) -> UsageError:
    """The one error for bad rows: the first by name, and how many there are."""
    count = f"{len(dropped)} of {total} rows {'is' if len(dropped) == 1 else 'are'} bad"
    return UsageError(
        f"{what}: {count}; the first is {describe(dropped[0])}",
        "mend the rows, or leave them out with --on-bad-row drop",
    )


def describe(dropped: Dropped) -> str:
    """``train.jsonl:7: broken JSON (Expecting ',' …)``."""
    return f"{dropped.where}: {dropped.reason}" + (f" ({dropped.detail})" if dropped.detail else "")


def is_filtered(dropped: Dropped) -> bool:
    """Left out by design (another type of question, a duplicate, …) rather than bad."""
    return dropped.reason.startswith(FILTERED)


def _parse(raw: bytes, name: str) -> tuple[list[Example], list[Dropped]]:
    examples: list[Example] = []
    dropped: list[Dropped] = []
    seen: dict[str, int] = {}
    for number, data, bad in json_lines(raw, name):
        where = f"{name}:{number}"
        if bad:
            dropped.append(bad)
            continue
        try:
            example = Example.from_dict(data, where)
        except UsageError as error:
            dropped.append(Dropped(where, "wrong field", error.message.removeprefix(f"{where}: ")))
            continue
        if example.id in seen:
            dropped.append(Dropped(where, "duplicate id", f"{example.id!r} is also on line {seen[example.id]}"))
            continue
        if lack := _present_but_blank(example):
            dropped.append(Dropped(where, f"empty {lack}", f"id {example.id!r}"))
            continue
        seen[example.id] = number
        examples.append(example)
    return examples, dropped


def _present_but_blank(example: Example) -> str | None:
    """A field that stands in the row but says nothing; one that is absent is the method's business."""
    for name in ("demonstration", "context", "answer", "text"):
        if (value := getattr(example, name)) is not None and _lack(value):
            return name
    return "prompt" if example.text is None and _lack(example.prompt) else None


def _lack(value: Any) -> str | None:
    """None if ``value`` says something; else "no" (it is None) or "empty" (blank, or messages without content)."""
    if value is None:
        return "no"
    if isinstance(value, str):
        return None if value.strip() else "empty"
    if isinstance(value, list) and value and all(isinstance(m, dict) and {"role", "content"} <= set(m) for m in value):
        return None if any(str(m["content"]).strip() for m in value) else "empty"
    return "empty" if isinstance(value, list | dict) and not value else None


def _split_file(folder: Path, split: str) -> Path:
    _need_folder(folder)
    path = folder / f"{split}.jsonl"
    if not path.is_file():
        there = ", ".join(available_splits(folder)) or "none"
        raise UsageError(f"{folder} has no {split} split (there: {there})", _prepare_hint(folder))
    return path


def _need_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UsageError(f"no dataset at {folder}", _prepare_hint(folder))


def _prepare_hint(folder: Path) -> str:
    return f"make it with: sdft prepare --tasks {folder.name}"


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# --- writing ----------------------------------------------------------------------------------------------------------


def write_dataset(
    folder: Path, task_name: str, prepared: Prepared, options: PrepareOptions, extra: dict[str, Any]
) -> dict[str, Any]:
    """Write ``prepared`` as dataset folder ``folder`` and return its manifest; ``extra`` is merged into it.

    Everything is written to a sibling folder first, the manifest last, and then moved into place, so that a
    dataset is there whole or not at all. An older dataset in ``folder`` is replaced; a folder that is not one
    of ours is refused. Files that somebody else put beside the splits are kept.
    """
    check_target(folder)
    check_ids(task_name, prepared)
    partial = _partial(folder)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        splits = {f"{s}.jsonl": prepared.splits[s] for s in SPLITS if prepared.splits.get(s)}
        hashes = {name: _write_rows(partial / name, examples) for name, examples in splits.items()}
        manifest = _manifest(task_name, prepared, options, hashes) | extra
        (partial / MANIFEST).write_bytes(_pretty(manifest))
        _move_into_place(partial, folder)
    except OSError as error:
        raise SdftError(f"cannot write {folder}: {error.strerror}", "check the disk and the permissions") from error
    return manifest


def check_target(folder: Path) -> None:
    """Refuse to write over anything that is not a dataset folder of ours; changes nothing."""
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                raise UsageError(f"{place} is a file, not a folder", "name another folder with --data")
            break
    ours = (folder / MANIFEST).is_file() or _partial(folder).is_dir()  # the latter: a killed run left off midway
    if folder.is_dir() and any(folder.iterdir()) and not ours:
        raise UsageError(f"{folder} holds files but no {MANIFEST}, so it is not ours to replace", "move it away first")


def check_ids(task_name: str, prepared: Prepared) -> None:
    """Refuse a task that gives two rows of one split the same id: neither resume nor a score could tell them apart."""
    for split, examples in prepared.splits.items():
        if split not in SPLITS:
            raise choose(f"split of task {task_name!r}", split, SPLITS)
        if repeated := [i for i, n in Counter(e.id for e in examples).items() if n > 1]:
            raise UsageError(f"task {task_name!r}, {split}: two rows have the id {repeated[0]!r}", "make ids unique")


def _partial(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


def _move_into_place(partial: Path, folder: Path) -> None:
    """A new folder in one rename; over an old one file by file, without a manifest until all are there."""
    if not folder.exists():
        partial.rename(folder)
        return
    (folder / MANIFEST).unlink(missing_ok=True)
    for name in (*(f"{split}.jsonl" for split in SPLITS), MANIFEST):
        if (partial / name).exists():
            (partial / name).replace(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    partial.rmdir()


def _manifest(task_name: str, prepared: Prepared, options: PrepareOptions, hashes: dict[str, str]) -> dict[str, Any]:
    train = prepared.splits.get("train", [])
    return {
        "task": task_name,
        "source": prepared.source,
        "licence": prepared.licence,
        "rows": {split: len(prepared.splits[split]) for split in SPLITS if prepared.splits.get(split)},
        "with_demonstration": sum(e.demonstration is not None for e in train),
        "demonstrations": options.demonstrations,
        "on_overlap": options.on_overlap,
        "seed": options.seed,
        "world": options.world,
        "notes": prepared.notes,
        "dropped": _account(prepared.dropped, lambda d: not is_filtered(d)),
        "filtered": _account(prepared.dropped, is_filtered),
        "sha256": hashes,
        "sdft": __version__,
    }


def _account(dropped: list[Dropped], which: Callable[[Dropped], bool]) -> dict[str, Any]:
    """Every reason counted, and the first `MAX_LISTED` rows by name."""
    chosen = [d for d in dropped if which(d)]
    return {
        "count": len(chosen),
        "reasons": dict(sorted(Counter(d.reason.removeprefix(FILTERED) for d in chosen).items())),
        "rows": [asdict(d) for d in chosen[:MAX_LISTED]],
    }


def _write_rows(path: Path, examples: list[Example]) -> str:
    """One row a line, none of which is held longer than it takes to write it; returns the file's SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as out:
        for example in examples:
            line = f"{json.dumps(example.to_dict(), ensure_ascii=False)}\n".encode()
            digest.update(line)
            out.write(line)
    return digest.hexdigest()


def _pretty(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, ensure_ascii=False, indent=1) + "\n").encode("utf-8")
