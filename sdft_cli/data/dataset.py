"""Dataset folders: ``data/<task>/`` with one JSONL file per split, and a manifest that is written last.

Reading names every bad row by file and line. Writing is deterministic: the same examples and options give the same
bytes, so there are no time stamps and no paths of this machine. A raw row of ``train.jsonl``::

    {"id": "tooluse-axolotl-0", "prompt": [{"role": "user", "content": "Your task is …"}], "demonstration": "…",
     "answer": [{"Action": "getRandomAxolotlImage", "Action_Input": "{}"}], "meta": {"api": "Axolotl"}}
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sdft_cli import __version__
from sdft_cli.data import row_files
from sdft_cli.data.jsonl import json_lines, read_bytes
from sdft_cli.data.manifest import (
    FORMAT,
    MANIFEST,
    DropCounts,
    Manifest,
    ManifestExtras,
    check_manifest,
    prepare_command,
)
from sdft_cli.errors import UsageError, choose, explained
from sdft_cli.runs.files import check_place
from sdft_cli.types import SPLITS, Dropped, Example, Json, Prepared, PrepareOptions

ON_BAD_ROW = ("error", "drop")
#: Marks the reason of a row that is left out by design: it is counted apart, and is never an error.
FILTERED = "filtered: "
MAX_LISTED = 200
_NEEDABLE = ("demonstration", "context", "answer", "text", "prompt")


# --- reading ----------------------------------------------------------------------------------------------------------


def read_split(folder: Path, split: str, on_bad_row: str = "error") -> tuple[list[Example], list[Dropped]]:
    """The examples of one split of a finished dataset, and the bad rows that were dropped (none with "error").

    Raises `UsageError` if the dataset or the split does not exist or has another format version, and as
    `read_examples` does.
    """
    check_manifest(folder)
    path = folder / f"{split}.jsonl"
    if not path.is_file():
        present = ", ".join(available_splits(folder)) or "none"
        if is_raw_text(folder):
            hint = "--method cpt trains on it; sdft prepare --teacher MODEL writes questions about it"
            raise UsageError(f"{folder} is raw text and has no {split} split", hint)
        raise UsageError(
            f"{folder} has no {split} split (splits: {present})", f"prepare it again with: {prepare_command(folder)}"
        )
    return read_examples(path, on_bad_row)


def read_examples(path: Path, on_bad_row: str = "error") -> tuple[list[Example], list[Dropped]]:
    """The examples in one JSONL file, and the bad rows that were dropped (none with "error").

    Raises `UsageError` if there is no good row, and, with "error", for any bad row: it names the first one and counts
    them all.
    """
    if on_bad_row not in ON_BAD_ROW:
        raise choose("value for --on-bad-row", on_bad_row, ON_BAD_ROW)
    examples, dropped = _parse(read_bytes(path), path.name)
    if dropped and on_bad_row == "error":
        raise bad_rows(dropped, len(examples) + len(dropped), str(path))
    if not examples:
        first = f"; the first is {describe(dropped[0])}" if dropped else ""
        raise UsageError(f"{path} has no usable row{first}", "fix the rows, or make the file again")
    return examples, dropped


def held_out(folder: Path, on_bad_row: str = "error") -> dict[str, list[Example]]:
    """The splits a model is scored on: ``test``, and ``ood`` if the task has one."""
    if is_raw_text(folder):
        return {"test": []}
    return {split: read_split(folder, split, on_bad_row)[0] for split in held_out_splits(folder)}


def is_raw_text(folder: Path) -> bool:
    """Whether a dataset is nothing but a corpus: it trains continual pre-training, and nothing can be asked of it."""
    return available_splits(folder) == ["corpus"]


def held_out_splits(folder: Path) -> list[str]:
    """``test``, which every evaluation needs, and ``ood`` if ``folder`` has it."""
    return ["test", *(split for split in available_splits(folder) if split == "ood")]


def available_splits(folder: Path) -> list[str]:
    """The splits in ``folder``, in their usual order; empty if there is no such folder."""
    return [split for split in SPLITS if (folder / f"{split}.jsonl").is_file()]


def check_demonstrations(examples: list[Example], needs: tuple[str, ...]) -> list[Dropped]:
    """One entry for each example in which a field of ``needs`` is missing, empty or blank (the first such field)."""
    for name in needs:
        if name not in _NEEDABLE:
            raise choose("needed field", name, _NEEDABLE)
    lacking = []
    for example in examples:
        for name in needs:
            if lack := _lack(getattr(example, name)):
                lacking.append(Dropped(example.id, f"{lack} {name}"))
                break
    return lacking


def bad_rows(dropped: list[Dropped], total: int, what: str) -> UsageError:
    """The one error for bad rows: names the first and counts them all."""
    count = f"{len(dropped)} of {total} rows {'is' if len(dropped) == 1 else 'are'} bad"
    return UsageError(
        f"{what}: {count}; the first is {describe(dropped[0])}",
        "fix the rows, or leave them out with --on-bad-row drop",
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
    lines_by_id: dict[str, int] = {}
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
        if example.id in lines_by_id:
            dropped.append(Dropped(where, "duplicate id", f"{example.id!r} is also on line {lines_by_id[example.id]}"))
            continue
        if field := _blank_field(example):
            dropped.append(Dropped(where, f"empty {field}", f"id {example.id!r}"))
            continue
        lines_by_id[example.id] = number
        examples.append(example)
    return examples, dropped


def _blank_field(example: Example) -> str | None:
    """The first field that is present but blank; whether a field may be absent is for the method to decide."""
    for name in ("demonstration", "context", "answer", "text"):
        if (value := getattr(example, name)) is not None and _lack(value):
            return name
    return "prompt" if example.text is None and _lack(example.prompt) else None


def _lack(value: Json) -> str | None:
    """None if ``value`` has content; else "no" (it is None) or "empty" (blank, or messages without content)."""
    if value is None:
        return "no"
    if isinstance(value, str):
        return None if value.strip() else "empty"
    if isinstance(value, list) and value and all(isinstance(m, dict) and {"role", "content"} <= set(m) for m in value):
        return None if any(str(m["content"]).strip() or m.get("tool_calls") for m in value) else "empty"
    return "empty" if isinstance(value, list | dict) and not value else None


# --- writing ----------------------------------------------------------------------------------------------------------


def write_dataset(
    folder: Path, task_name: str, prepared: Prepared, options: PrepareOptions, extra: ManifestExtras
) -> Manifest:
    """Write ``prepared`` as dataset folder ``folder`` and return its manifest, which includes ``extra``.

    Everything is written to a sibling folder first, the manifest last, and then moved into place, so the dataset is
    there completely or not at all. An older dataset in ``folder`` is replaced; a folder that is not a dataset is
    refused. Other people's files beside the splits are kept.
    """
    check_target(folder)
    check_ids(task_name, prepared)
    partial = _partial(folder)
    with _writing(folder):
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            splits = {f"{s}.jsonl": prepared.splits[s] for s in SPLITS if prepared.splits.get(s)}
            hashes = {name: _write_examples(partial / name, examples) for name, examples in splits.items()}
            hashes |= row_files.copy(prepared.files, partial)
            manifest = _manifest(task_name, prepared, options, hashes, extra)
            text = json.dumps(manifest, ensure_ascii=False, indent=1) + "\n"
            (partial / MANIFEST).write_text(text, encoding="utf-8")
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)  # on a full disk, others need its space
            raise
        _move_into_place(partial, folder)
    return manifest


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """The system's errors in this block, as errors about the dataset ``folder``."""
    try:
        yield
    except OSError as error:
        if told := explained(error, str(folder)):
            raise type(told)(f"cannot write {told.message}", told.hint) from error
        raise


def check_target(folder: Path) -> None:
    """Refuse to write over anything but a dataset folder; changes nothing."""
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                raise UsageError(f"{place} is a file, not a folder", "name another folder with --data")
            break
    ours = (folder / MANIFEST).is_file() or _partial(folder).is_dir()  # the latter is left by a run that was killed
    if folder.is_dir() and any(folder.iterdir()) and not ours:
        raise UsageError(
            f"{folder} has files but no {MANIFEST}, so it is not a dataset and will not be replaced",
            "move it away first",
        )
    check_place(folder)


def check_ids(task_name: str, prepared: Prepared) -> None:
    """Refuse a task that gives two rows of one split the same id: resuming and scoring tell rows apart by it."""
    for split, examples in prepared.splits.items():
        if split not in SPLITS:
            raise choose(f"split of task {task_name!r}", split, SPLITS)
        if repeated := [i for i, n in Counter(e.id for e in examples).items() if n > 1]:
            raise UsageError(f"task {task_name!r}, {split}: two rows have the id {repeated[0]!r}", "make ids unique")


def _partial(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


def _move_into_place(partial: Path, folder: Path) -> None:
    """A new folder in one rename; over an old one file by file, without a manifest until all files are there."""
    if not folder.exists():
        partial.rename(folder)
        return
    (folder / MANIFEST).unlink(missing_ok=True)
    row_files.move(partial, folder)
    for name in (*(f"{split}.jsonl" for split in SPLITS), MANIFEST):
        if (partial / name).exists():
            (partial / name).replace(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    partial.rmdir()


def _manifest(
    task_name: str, prepared: Prepared, options: PrepareOptions, hashes: dict[str, str], extra: ManifestExtras
) -> Manifest:
    train = prepared.splits.get("train", [])
    return {
        "format": FORMAT,
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
        "dropped": counted(d for d in prepared.dropped if not is_filtered(d)),
        "filtered": counted(d for d in prepared.dropped if is_filtered(d)),
        "sha256": hashes,
        "sdft": __version__,
        **extra,
    }


def counted(dropped: Iterable[Dropped]) -> DropCounts:
    """Every reason counted, and the first `MAX_LISTED` rows by name."""
    chosen = list(dropped)
    return {
        "count": len(chosen),
        "reasons": dict(sorted(Counter(d.reason.removeprefix(FILTERED) for d in chosen).items())),
        "rows": [{"where": d.where, "reason": d.reason, "detail": d.detail} for d in chosen[:MAX_LISTED]],
    }


def _write_examples(path: Path, examples: list[Example]) -> str:
    """Write one row per line, holding one at a time in memory; returns the file's SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as out:
        for example in examples:
            line = f"{json.dumps(example.to_dict(), ensure_ascii=False)}\n".encode()
            digest.update(line)
            out.write(line)
    return digest.hexdigest()
