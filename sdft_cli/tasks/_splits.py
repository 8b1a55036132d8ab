"""From raw rows to train, validation and test: seeded, disjoint in prompts, and stable when a row is added.

A source's own division is kept. Where it has none, or holds only training or only evaluation rows, the rows are
split 75 / 5 / 20 (the SDFT paper's science split), so that all three splits exist. Validation is carved out of the
training rows that have a gold answer, else out of the test rows. Rows that ask the same thing share a split. A row of
ours to place that asks what a test row of the source asks is left out; a training row of the source that does is
refused (`deduplicate.overlap`). Rows of a corpus are not questions and go along.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sdft_cli.data.dataset import FILTERED, describe
from sdft_cli.data.deduplicate import HELD_OUT, overlap
from sdft_cli.errors import UsageError
from sdft_cli.tasks._sources import Found, Gathered
from sdft_cli.types import Dropped, Example, Prepared, PrepareOptions

TEST_SHARE, VALIDATION_SHARE = 0.20, 0.05
QUESTIONS = ("train", "validation", "test", "ood")
Splits = dict[str, list[Found]]


def arrange(task: str, gathered: Gathered, options: PrepareOptions, render: Callable[[Any], str]) -> Prepared:
    """Split what was gathered; ``render`` turns a gold answer into a demonstration for ``--demonstrations answer``."""
    left_out: list[Dropped] = []
    notes: list[str] = []
    found = _with_own_ids(gathered.found)
    corpus = [f.example for f in found if f.role == "corpus"]
    found = _without_repeats(_linked([f for f in found if f.role != "corpus"]), left_out)
    found = _as_pool_if_one_sided(found, notes)
    found = _without_clashes(task, found, options, left_out)
    examples: dict[str, list[Example]] = {}
    if found or not corpus:
        splits = _split(found, options.seed, notes)
        _need_all(task, splits, gathered.dropped)
        examples = {name: [_row(f, name) for f in rows] for name, rows in splits.items() if rows}
        examples = _demonstrate(examples, options.demonstrations, render, notes)
    drawn = all(f.role != "train" for f in found)
    examples |= {"corpus": corpus} if corpus else {}
    return Prepared(examples, gathered.dropped + left_out, gathered.source, gathered.licence, notes, drawn)


def _split(found: list[Found], seed: int, notes: list[str]) -> Splits:
    by_role = {role: [f for f in found if f.role == role] for role in (*QUESTIONS, "pool")}
    train, validation, test, ood, pool = by_role.values()
    graded = [f for f in pool if _gold(f) is not None] or pool  # a row without gold cannot be scored
    drawn, rest = _take(graded, round(TEST_SHARE * len(pool)), seed)
    if not validation and rest:
        validation, _ = _take(rest, round(VALIDATION_SHARE * len(pool)), seed)
    held = {id(f) for f in (*drawn, *validation)}
    train, test = train + [f for f in pool if id(f) not in held], test + drawn
    if pool:
        shares = f"{TEST_SHARE:.0%} test, {VALIDATION_SHARE:.0%} validation, the rest train"
        notes.append(f"{len(pool)} rows that the source does not divide were split by seed {seed}: {shares}")
    if not validation:
        train, test, validation = _carve(train, test, seed, notes)
    if all(_gold(f) is None for f in test):
        notes.append("no test row has a gold answer, so none can be scored: add an evaluation file as a source")
    return {"train": train, "validation": validation, "test": test, "ood": ood}


def _carve(
    train: list[Found], test: list[Found], seed: int, notes: list[str]
) -> tuple[list[Found], list[Found], list[Found]]:
    """Validation out of the training rows with a gold answer; where there is none, out of the test rows."""
    graded = [f for f in train if _gold(f) is not None]
    origin, rows = ("training", graded) if graded else ("evaluation", test)
    validation, _ = _take(rows, round(VALIDATION_SHARE * len(rows)), seed)
    held = {id(f) for f in validation}
    notes.append(f"validation: {len(validation)} of the source's {origin} rows, by seed {seed}")
    return [f for f in train if id(f) not in held], [f for f in test if id(f) not in held], validation


def _take(rows: list[Found], wanted: int, seed: int) -> tuple[list[Found], list[Found]]:
    """At least one and at most ``wanted`` rows, whole groups only, and the rest; both in the source's order.

    Groups are ordered by a hash of seed and prompt, so a row more or less in the source moves few others.
    """
    sizes: dict[bytes, int] = {}
    for f in rows:
        sizes[f.keys[0]] = sizes.get(f.keys[0], 0) + 1
    chosen, left = set[bytes](), max(1, wanted)
    for key in sorted(sizes, key=lambda k: hashlib.sha256(f"{seed}/".encode() + k).digest()):
        if sizes[key] <= left:
            chosen.add(key)
            left -= sizes[key]
    return [f for f in rows if f.keys[0] in chosen], [f for f in rows if f.keys[0] not in chosen]


def _as_pool_if_one_sided(found: list[Found], notes: list[str]) -> list[Found]:
    sides = {f.role for f in found} & {"train", "test", "pool"}
    if len(sides) != 1 or sides == {"pool"}:
        return found
    (side,) = sides
    kind = {"train": "training", "test": "evaluation"}[side]
    notes.append(f"the sources hold {kind} rows only, so these are divided into all three splits")
    return [replace(f, role="pool") if f.role == side else f for f in found]


def _without_clashes(task: str, found: list[Found], options: PrepareOptions, left_out: list[Dropped]) -> list[Found]:
    """No row outside test asks what the source's own test rows ask; pool rows follow their twins into train."""
    tested = {f.keys[0]: f for f in reversed(found) if f.role == "test"}
    clashing = [f for f in found if f.role == "train" and f.keys[0] in tested]
    if clashing and options.on_overlap == "error":
        total = sum(f.role == "train" for f in found)
        raise overlap(task, [(_named(f), _named(tested[f.keys[0]])) for f in clashing], total)
    trained = {f.keys[0] for f in found if f.role == "train"} - set(tested)
    kept = []
    for f in found:
        if f.role not in HELD_OUT and f.keys[0] in tested:
            detail = f"{f.example.id}, like {_named(tested[f.keys[0]])}"
            left_out.append(Dropped(f.where, f"{FILTERED}asks what a test row asks", detail))
        else:
            kept.append(replace(f, role="train") if f.role == "pool" and f.keys[0] in trained else f)
    return kept


def _without_repeats(found: list[Found], left_out: list[Dropped]) -> list[Found]:
    """Each row once; rows that the source holds out are kept as they are."""
    first: dict[bytes, str] = {}
    kept = []
    for f in found:
        e = f.example
        content = json.dumps([f.role, e.prompt, e.demonstration, e.answer], sort_keys=True).encode()
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if f.role not in HELD_OUT and digest in first:
            left_out.append(Dropped(f.where, f"{FILTERED}repeats another row", f"same as {first[digest]}"))
        else:
            first.setdefault(digest, f.where)
            kept.append(f)
    return kept


def _linked(found: list[Found]) -> list[Found]:
    """Rows that share a key, directly or through others, get one key in common."""
    parent: dict[bytes, bytes] = {}

    def root(key: bytes) -> bytes:
        while (above := parent.get(key, key)) != key:
            key = above
        return key

    for f in found:
        for key in f.keys[1:]:
            if (other := root(key)) != (first := root(f.keys[0])):
                parent[other] = first
    keys = ((root(f.keys[0]),) for f in found)
    return [f if f.keys == own else replace(f, keys=own) for f, own in zip(found, keys, strict=True)]


def _with_own_ids(found: list[Found]) -> list[Found]:
    """Ids that occur again (two files of one source) get a number at the end."""
    taken: set[str] = set()
    return [_renamed(f, taken) for f in found]


def _renamed(f: Found, taken: set[str]) -> Found:
    own, n = f.example.id, 1
    while own in taken:
        n += 1
        own = f"{f.example.id}-{n}"
    taken.add(own)
    if n == 1 and (f.held_out is None or f.held_out.id == own):
        return f
    held_out = replace(f.held_out, id=own) if f.held_out else None
    return replace(f, example=replace(f.example, id=own), held_out=held_out)


def _need_all(task: str, splits: Splits, dropped: list[Dropped]) -> None:
    if empty := [name for name, rows in splits.items() if not rows and name != "ood"]:
        total = sum(map(len, splits.values()))
        first = f"; {len(dropped)} are not usable, the first is {describe(dropped[0])}" if dropped else ""
        raise UsageError(
            f"task {task!r}: {total} usable row{'s' * (total != 1)} leave {' and '.join(empty)} empty{first}",
            "give at least three rows with different prompts",
        )


def _demonstrate(
    examples: dict[str, list[Example]], mode: str, render: Callable[[Any], str], notes: list[str]
) -> dict[str, list[Example]]:
    """Render gold answers as demonstrations where that was asked for and the source holds none."""
    bare = sum(e.demonstration is None for e in examples["train"])
    if mode == "answer":
        examples = {name: [_shown(e, render) for e in rows] for name, rows in examples.items()}
        still = sum(e.demonstration is None for e in examples["train"])
        shown = f"{bare - still} train rows show their gold answer as the demonstration"
        notes.append(f"--demonstrations answer: {shown if bare > still else 'the source holds demonstrations already'}")
        bare = still
    if bare and mode != "teacher":
        hint = "" if mode == "answer" else "; --demonstrations answer renders their gold answers"
        notes.append(f"{bare} train rows have no demonstration{hint}")
    return examples


def _shown(example: Example, render: Callable[[Any], str]) -> Example:
    if example.demonstration is not None or example.answer is None:
        return example
    return replace(example, demonstration=render(example.answer))


def _named(f: Found) -> str:
    return f"{f.example.id!r} ({f.where})"


def _gold(f: Found) -> Any:
    return (f.held_out or f.example).answer


def _row(f: Found, split: str) -> Example:
    """The example for ``split``; its ``meta`` says which raw record it came from."""
    example = f.held_out if f.held_out and split != "train" else f.example
    return example if example.meta.get("row") == f.where else replace(example, meta={**example.meta, "row": f.where})
