"""From source rows to train, validation and test: seeded, disjoint in prompts, and stable when rows are added.

If the source divides its rows, that division is kept. Otherwise, or if it has only training or only evaluation rows,
rows are split 75 / 5 / 20 (the SDFT paper's science split), so that all three splits exist. Validation rows are taken
from the training rows with a gold answer, or from the test rows if there are none. Rows that ask the same question stay
in one split. Of a user's own rows whose answers are labels, each label has its share of every split (`data.labels`). A
row that is ours to place is left out if it asks what a test row of the source asks; a training row of
the source that does so is an error (`deduplicate.overlap_error`). Corpus rows ask nothing and are passed through.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sdft_cli.data.dataset import FILTERED, describe
from sdft_cli.data.deduplicate import HELD_OUT, overlap_error
from sdft_cli.data.labels import Group, drawn, labels_of
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


def arrange(task: str, gathered: Gathered, options: PrepareOptions, render: Render, by_label: bool = False) -> Prepared:
    """Split the gathered rows; ``render`` turns a gold answer into a demonstration for ``--demonstrations answer``.
    ``by_label``: where answers are labels, splits are stratified by them."""
    left_out: list[Dropped] = []
    notes: list[str] = []
    gathered_rows = _with_unique_ids(gathered.rows)
    corpus = [row.example for row in gathered_rows if row.role == "corpus"]
    asking = _with_common_keys([row for row in gathered_rows if row.role != "corpus"])
    rows = _without_repeats(asking, left_out, notes)
    rows = _as_pool_if_one_sided(rows, notes)
    rows = _without_overlap(task, rows, options, left_out)
    examples: dict[str, list[Example]] = {}
    rendered = 0
    if rows or not corpus:
        splits = _split(rows, _Draw(options.seed, _labels(rows) if by_label else {}), notes)
        _need_all(task, splits, gathered.dropped)
        examples = {name: [_example(row, name) for row in split] for name, split in splits.items() if split}
        examples, rendered = _demonstrate(examples, options.demonstrations, render, notes)
    drawn = all(row.role != "train" for row in rows)
    examples |= {"corpus": corpus} if corpus else {}
    if files := gathered.left_out:
        notes.append(f"files left out: {', '.join(files[:_SHOWN])}" + (", …" if len(files) > _SHOWN else ""))
    dropped = gathered.dropped + left_out
    return Prepared(
        examples, dropped, gathered.source, gathered.licence, notes, drawn, rendered, sources=gathered.files
    )


@dataclass(frozen=True)
class _Draw:
    """How rows are drawn: by ``seed``, and where there are ``labels`` (by key), each in its share."""

    seed: int
    labels: Mapping[bytes, str]

    def take(self, rows: list[SourceRow], count: int) -> tuple[list[SourceRow], list[SourceRow]]:
        """At most ``count`` rows (at least one), in whole groups, and the rest; both in the source's order.

        Groups are ordered by a hash of seed and prompt, so adding or removing a row moves few others. Of every label
        one group is left.
        """
        sizes = Counter(row.keys[0] for row in rows)
        keys, count = list(sizes), max(1, count)
        places = [hashlib.sha256(f"{self.seed}/".encode() + key).digest() for key in keys]
        groups = [Group(self.labels.get(k, ""), sizes[k], place) for k, place in zip(keys, places, strict=True)]
        indices = drawn(groups, count, left=1) if self.labels else _first_that_fit(groups, count)
        chosen = {keys[i] for i in indices}
        return [row for row in rows if row.keys[0] in chosen], [row for row in rows if row.keys[0] not in chosen]


def _first_that_fit(groups: Sequence[Group], count: int) -> set[int]:
    chosen = set[int]()
    for i in sorted(range(len(groups)), key=lambda i: groups[i].place):
        if groups[i].size <= count:
            chosen.add(i)
            count -= groups[i].size
    return chosen


def _labels(rows: list[SourceRow]) -> dict[bytes, str]:
    """The label of every group of rows, that of its first row; empty where answers are no labels."""
    labels = labels_of(_gold(row) for row in rows)
    return {row.keys[0]: label for row, label in reversed([*zip(rows, labels, strict=True)])} if labels else {}


def _split(rows: list[SourceRow], draw: _Draw, notes: list[str]) -> Splits:
    by_role = {role: [row for row in rows if row.role == role] for role in (*QUESTIONS, "pool")}
    train, validation, test, ood, pool = by_role.values()
    given = bool(validation)
    graded = [row for row in pool if _gold(row) is not None] or pool  # a row without a gold answer cannot be scored
    chosen, rest = draw.take(graded, round(TEST_SHARE * len(pool)))
    if not validation and rest:
        validation, _ = draw.take(rest, round(VALIDATION_SHARE * len(pool)))
    held_out = {id(row) for row in (*chosen, *validation)}
    train, test = train + [row for row in pool if id(row) not in held_out], test + chosen
    if pool:
        shares = f"{TEST_SHARE:.0%} test, {VALIDATION_SHARE:.0%} validation, the rest train"
        notes.append(f"{len(pool)} rows without a split in the source were split by seed {draw.seed}: {shares}")
    if not validation:
        train, test, validation = _carve(train, test, draw, notes)
    if draw.labels and not (given and not pool):
        notes.append(_of_labels({"train": train, "validation": validation, "test": test}, draw.labels))
    if all(_gold(row) is None for row in test):
        notes.append("no test row has a gold answer, so none can be scored: add an evaluation file as a source")
    return {"train": train, "validation": validation, "test": test, "ood": ood}


def _carve(
    train: list[SourceRow], test: list[SourceRow], draw: _Draw, notes: list[str]
) -> tuple[list[SourceRow], list[SourceRow], list[SourceRow]]:
    """(train, test, validation): validation from the training rows with a gold answer, or from the test rows."""
    graded = [row for row in train if _gold(row) is not None]
    origin, rows = ("training", graded) if graded else ("evaluation", test)
    validation, _ = draw.take(rows, round(VALIDATION_SHARE * len(rows)))
    held_out = {id(row) for row in validation}
    notes.append(f"validation: {len(validation)} of the source's {origin} rows, by seed {draw.seed}")
    train, test = ([row for row in rows if id(row) not in held_out] for rows in (train, test))
    return train, test, validation


def _of_labels(splits: Splits, labels: Mapping[bytes, str]) -> str:
    """That splits are stratified, and which labels a split lacks all the same."""
    kinds = sorted({label for label in labels.values() if label})
    lacking = []
    for split, rows in splits.items():
        there = {labels[row.keys[0]] for row in rows}
        if missing := [label for label in kinds if label not in there]:
            lacking.append(f"{split} has no row of {_few(missing)}")
    drawn_by = f"answers are {len(kinds)} labels, and rows were drawn in proportion to them (stratified)"
    return "; ".join([drawn_by, *lacking])


def _few(labels: Sequence[str]) -> str:
    shown = ", ".join(repr(label if len(label) <= 40 else f"{label[:39]}…") for label in labels[:4])
    return f"{shown} and {len(labels) - 4} more" if len(labels) > 4 else shown


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
) -> tuple[dict[str, list[Example]], int]:
    """In mode "answer", render gold answers as demonstrations for the rows without one; how many training rows have
    one by that."""
    before = after = sum(e.demonstration is None for e in examples["train"])
    if mode == "answer":
        examples = {name: [_rendered(e, render) for e in rows] for name, rows in examples.items()}
        after = sum(e.demonstration is None for e in examples["train"])
        rendered = f"{before - after} train rows have their gold answer as the demonstration"
        notes.append(f"--demonstrations answer: {rendered if before > after else 'no train row needed one'}")
    if after and mode != "teacher":
        hint = "" if mode == "answer" else "; --demonstrations answer renders their gold answers"
        notes.append(f"{after} train rows have no demonstration{hint}")
    return examples, before - after


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
