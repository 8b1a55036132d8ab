"""Labels: gold answers that are a few values which many rows share, and rows drawn so that each label has its share.

A draw that knows nothing of labels may miss half of them where rows are few, and a file that is sorted by label begins
with one of them. Whatever is drawn here is stratified: in proportion to the labels, by largest remainders, with every
label where there is room for all. A draw takes whole groups of rows, and depends on their names alone, not on their
order.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sdft_cli.types import Example, Json

#: Answers are labels where one has so many rows on average: then a label says what kind of row it is.
LEAST_ROWS = 5
#: No classification has more labels than this, and none by numbers more than that: where there are more, values just
#: repeat.
MOST, MOST_NUMBERS = 256, 20


class Group(NamedTuple):
    """Rows that are drawn together or not at all: their label, how many they are, and the place in the draw."""

    label: str
    size: int
    place: bytes


def labels_of(answers: Iterable[Json]) -> list[str] | None:
    """The label of every answer, where the answers are labels; None where they are not. Rows without an answer have the
    label ''."""
    texts = ["" if answer is None else _text(answer) for answer in answers]
    kinds = {text for text in texts if text}
    rows = sum(map(bool, texts))
    if not 2 <= len(kinds) <= MOST or LEAST_ROWS * len(kinds) > rows:
        return None
    return None if len(kinds) > MOST_NUMBERS and all(map(_is_number, kinds)) else texts


def _text(answer: Json) -> str:
    return answer.strip() if isinstance(answer, str) else json.dumps(answer, sort_keys=True)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True


def drawn(groups: Sequence[Group], count: int, left: int = 0) -> set[int]:
    """The indices of the groups drawn: at most ``count`` rows, of which each label has its share. Of every label
    ``left`` groups are not drawn, as others need some too."""
    remaining = defaultdict[str, list[int]](list)
    for i in sorted(range(len(groups)), key=lambda i: groups[i].place, reverse=True):
        remaining[groups[i].label].append(i)  # the next one is the last
    sizes, chosen = Counter[str](), set[int]()
    for group in groups:
        sizes[group.label] += group.size
    shares = {label: count * size / sum(sizes.values()) for label, size in sizes.items()}
    having = [label for label in remaining if len(remaining[label]) > left]
    least = set(having) if count >= len(having) else set[str]()  # those that are to have a group whatever their share

    passed = Counter[str]()  # groups that no longer fit

    def has_next(label: str) -> bool:
        waiting = remaining[label]
        while waiting and groups[waiting[-1]].size > count:
            waiting.pop()
            passed[label] += 1
        return bool(waiting) and len(waiting) + passed[label] > left

    def key(label: str) -> tuple[bool, float, bytes]:
        return label in least, shares[label], groups[remaining[label][-1]].place

    while candidates := [label for label in remaining if has_next(label)]:
        label = max(candidates, key=key)
        chosen.add(i := remaining[label].pop())
        least.discard(label)
        shares[label] -= groups[i].size
        count -= groups[i].size
    return chosen


def subset(examples: Sequence[Example], limit: int) -> list[Example]:
    """At most ``limit`` of the rows, in their order: each label has its share, where answers are labels; else any rows,
    wherever they are in the file. Which ones depends on the rows' ids."""
    if limit >= len(examples):
        return list(examples)
    places = [hashlib.sha256(example.id.encode()).digest() for example in examples]
    labels = labels_of(example.answer for example in examples) or [""] * len(examples)
    chosen = drawn([Group(label, 1, place) for label, place in zip(labels, places, strict=True)], limit)
    return [example for i, example in enumerate(examples) if i in chosen]
