"""From source rows to train, validation and test: seeded, disjoint in prompts, and stable when rows are added.

If the source divides its rows, that division is kept. Otherwise, or if it has only training or only evaluation rows,
rows are split 75 / 5 / 20 (the SDFT paper's science split), so that all three splits exist. Validation rows are taken
from the training rows with a gold answer, or from the test rows if there are none. Rows that ask the same question stay
in one split. A row that is ours to place is left out if it asks what a test row of the source asks; a training row of
the source that does so is an error (`deduplicate.overlap_error`). Corpus rows ask nothing and are passed through.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

from sdft_cli.data.dataset import FILTERED, describe
from sdft_cli.data.deduplicate import HELD_OUT, overlap_error
from sdft_cli.errors import UsageError
from sdft_cli.rows.formats import Gathered, SourceRow
from sdft_cli.types import Dropped, Example, Json, Prepared, PrepareOptions

TEST_SHARE, VALIDATION_SHARE = 0.20, 0.05
QUESTIONS = ("train", "validation", "test", "ood")
#: So many of the files that were left out are shown; the manifest lists all of them.
_SHOWN = 8
Splits = dict[str, list[SourceRow]]
#: Turns a gold answer into a demonstration.
Render = Callable[[Json], str]


def arrange(task: str, gathered: Gathered, options: PrepareOptions, render: Render) -> Prepared:
    """Split the gathered rows; ``render`` turns a gold answer into a demonstration for ``--demonstrations answer``."""
    left_out: list[Dropped] = []
    notes: list[str] = []
    gathered_rows = _with_unique_ids(gathered.rows)
    corpus = [row.example for row in gathered_rows if row.role == "corpus"]
    asking = _with_common_keys([row for row in gathered_rows if row.role != "corpus"])
    rows = _without_repeats(asking, left_out, notes)
    rows = _as_pool_if_one_sided(rows, notes)
    rows = _without_overlap(task, rows, options, left_out)
    examples: dict[str, list[Example]] = {}
    if rows or not corpus:
        splits = _split(rows, options.seed, notes)
        _need_all(task, splits, gathered.dropped)
        examples = {name: [_example(row, name) for row in split] for name, split in splits.items() if split}
        examples = _demonstrate(examples, options.demonstrations, render, notes)
    drawn = all(row.role != "train" for row in rows)
    examples |= {"corpus": corpus} if corpus else {}
    if files := gathered.left_out:
        notes.append(f"files left out: {', '.join(files[:_SHOWN])}" + (", …" if len(files) > _SHOWN else ""))
    dropped = gathered.dropped + left_out
    return Prepared(examples, dropped, gathered.source, gathered.licence, notes, drawn, sources=gathered.files)


def _split(rows: list[SourceRow], seed: int, notes: list[str]) -> Splits:
    by_role = {role: [row for row in rows if row.role == role] for role in (*QUESTIONS, "pool")}
    train, validation, test, ood, pool = by_role.values()
    graded = [row for row in pool if _gold(row) is not None] or pool  # a row without a gold answer cannot be scored
    drawn, rest = _take(graded, round(TEST_SHARE * len(pool)), seed)
    if not validation and rest:
        validation, _ = _take(rest, round(VALIDATION_SHARE * len(pool)), seed)
    held_out = {id(row) for row in (*drawn, *validation)}
    train, test = train + [row for row in pool if id(row) not in held_out], test + drawn
    if pool:
        shares = f"{TEST_SHARE:.0%} test, {VALIDATION_SHARE:.0%} validation, the rest train"
        notes.append(f"{len(pool)} rows without a split in the source were split by seed {seed}: {shares}")
    if not validation:
        train, test, validation = _carve(train, test, seed, notes)
    if all(_gold(row) is None for row in test):
        notes.append("no test row has a gold answer, so none can be scored: add an evaluation file as a source")
    return {"train": train, "validation": validation, "test": test, "ood": ood}


def _carve(
    train: list[SourceRow], test: list[SourceRow], seed: int, notes: list[str]
) -> tuple[list[SourceRow], list[SourceRow], list[SourceRow]]:
    """(train, test, validation): validation from the training rows with a gold answer, or from the test rows."""
    graded = [row for row in train if _gold(row) is not None]
    origin, rows = ("training", graded) if graded else ("evaluation", test)
    validation, _ = _take(rows, round(VALIDATION_SHARE * len(rows)), seed)
    held_out = {id(row) for row in validation}
    notes.append(f"validation: {len(validation)} of the source's {origin} rows, by seed {seed}")
    train, test = ([row for row in rows if id(row) not in held_out] for rows in (train, test))
    return train, test, validation


def _take(rows: list[SourceRow], count: int, seed: int) -> tuple[list[SourceRow], list[SourceRow]]:
    """At most ``count`` rows (at least one), in whole groups, and the rest; both in the source's order.

    Groups are ordered by a hash of seed and prompt, so adding or removing a row moves few others.
    """
    sizes: dict[bytes, int] = {}
    for row in rows:
        sizes[row.keys[0]] = sizes.get(row.keys[0], 0) + 1
    chosen, left = set[bytes](), max(1, count)
    for key in sorted(sizes, key=lambda k: hashlib.sha256(f"{seed}/".encode() + k).digest()):
        if sizes[key] <= left:
            chosen.add(key)
            left -= sizes[key]
    return [row for row in rows if row.keys[0] in chosen], [row for row in rows if row.keys[0] not in chosen]


def _as_pool_if_one_sided(rows: list[SourceRow], notes: list[str]) -> list[SourceRow]:
    sides = {row.role for row in rows} & {"train", "validation", "test", "pool"}
    if sides - {"validation"}:
        sides -= {"validation"}
    if len(sides) != 1 or sides == {"pool"}:
        return rows
    (side,) = sides
    kind = {"train": "training", "test": "evaluation"}.get(side, side)
    notes.append(f"the sources have {kind} rows only, so these are divided into all three splits")
    return [replace(row, role="pool") if row.role == side else row for row in rows]


def _without_overlap(
    task: str, rows: list[SourceRow], options: PrepareOptions, left_out: list[Dropped]
) -> list[SourceRow]:
    """No row outside test asks what the source's own test rows ask; pool rows follow their duplicates into train."""
    tested = {row.keys[0]: row for row in reversed(rows) if row.role == "test"}
    overlapping = [row for row in rows if row.role == "train" and row.keys[0] in tested]
    if overlapping and options.on_overlap == "error":
        total = sum(row.role == "train" for row in rows)
        raise overlap_error(task, [(_name(row), _name(tested[row.keys[0]])) for row in overlapping], total)
    trained = {row.keys[0] for row in rows if row.role == "train"} - set(tested)
    kept = []
    for row in rows:
        if row.role not in HELD_OUT and row.keys[0] in tested:
            detail = f"{row.example.id}, like {_name(tested[row.keys[0]])}"
            left_out.append(Dropped(row.where, f"{FILTERED}asks what a test row asks", detail))
        else:
            kept.append(replace(row, role="train") if row.role == "pool" and row.keys[0] in trained else row)
    return kept


def _without_repeats(rows: list[SourceRow], left_out: list[Dropped], notes: list[str]) -> list[SourceRow]:
    """Each row once; rows that the source holds out are kept, and a note counts those that repeat another."""
    first: dict[bytes, str] = {}
    kept, twice = [], 0
    for row in rows:
        e = row.example
        content = json.dumps([row.role, e.prompt, e.tools, e.demonstration, e.answer], sort_keys=True).encode()
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if row.role not in HELD_OUT and digest in first:
            left_out.append(Dropped(row.where, f"{FILTERED}repeats another row", f"same as {first[digest]}"))
        else:
            twice += digest in first
            first.setdefault(digest, row.where)
            kept.append(row)
    if twice:
        notes.append(f"held-out rows that repeat another one, and are kept: {twice}")
    return kept


def _with_common_keys(rows: list[SourceRow]) -> list[SourceRow]:
    """Give rows that share a key, directly or through other rows, one key in common (union-find)."""
    parent: dict[bytes, bytes] = {}

    def root(key: bytes) -> bytes:
        while (above := parent.get(key, key)) != key:
            key = above
        return key

    for row in rows:
        for key in row.keys[1:]:
            if (other := root(key)) != (first := root(row.keys[0])):
                parent[other] = first
    roots = ((root(row.keys[0]),) for row in rows)
    return [row if row.keys == keys else replace(row, keys=keys) for row, keys in zip(rows, roots, strict=True)]


def _with_unique_ids(rows: list[SourceRow]) -> list[SourceRow]:
    """An id that occurs again (in a second file of one source) gets a number at its end."""
    taken: set[str] = set()
    return [_renamed(row, taken) for row in rows]


def _renamed(row: SourceRow, taken: set[str]) -> SourceRow:
    name, n = row.example.id, 1
    while name in taken:
        n += 1
        name = f"{row.example.id}-{n}"
    taken.add(name)
    if n == 1 and (row.held_out is None or row.held_out.id == name):
        return row
    held_out = replace(row.held_out, id=name) if row.held_out else None
    return replace(row, example=replace(row.example, id=name), held_out=held_out)


def _need_all(task: str, splits: Splits, dropped: list[Dropped]) -> None:
    if empty := [name for name, rows in splits.items() if not rows and name != "ood"]:
        total = sum(map(len, splits.values()))
        first = f"; {len(dropped)} are not usable, the first is {describe(dropped[0])}" if dropped else ""
        rows_leave = "1 usable row leaves" if total == 1 else f"{total} usable rows leave"
        raise UsageError(
            f"task {task!r}: {rows_leave} {' and '.join(empty)} empty{first}",
            "give at least three rows with different prompts",
        )


def _demonstrate(
    examples: dict[str, list[Example]], mode: str, render: Render, notes: list[str]
) -> dict[str, list[Example]]:
    """In mode "answer", render gold answers as demonstrations for the rows without one."""
    before = after = sum(e.demonstration is None for e in examples["train"])
    if mode == "answer":
        examples = {name: [_rendered(e, render) for e in rows] for name, rows in examples.items()}
        after = sum(e.demonstration is None for e in examples["train"])
        rendered = f"{before - after} train rows have their gold answer as the demonstration"
        notes.append(f"--demonstrations answer: {rendered if before > after else 'no train row needed one'}")
    if after and mode != "teacher":
        hint = "" if mode == "answer" else "; --demonstrations answer renders their gold answers"
        notes.append(f"{after} train rows have no demonstration{hint}")
    return examples


def _rendered(example: Example, render: Render) -> Example:
    if example.demonstration is not None or example.answer is None:
        return example
    return replace(example, demonstration=render(example.answer))


def _name(row: SourceRow) -> str:
    return f"{row.example.id!r} ({row.where})"


def _gold(row: SourceRow) -> Json:
    return (row.held_out or row.example).answer


def _example(row: SourceRow, split: str) -> Example:
    """The row's example for ``split``; its ``meta`` says which raw record it came from."""
    example = row.held_out if row.held_out and split != "train" else row.example
    meta = {**example.meta, "row": row.where}
    return example if example.meta.get("row") == row.where else replace(example, meta=meta)
