"""Split names in the names of files, folders, columns' values and configurations, found as the hub's loader finds them.

A keyword (``train``, ``dev``, ``test``, …) counts if it stands between delimiters: ``gsm_train.jsonl``,
``test_sft-00000-of-00001.parquet`` and ``dev/part1.csv`` name a split; ``latest.jsonl`` and ``contest.jsonl`` do not.
Beyond the loader, case does not matter, ``testset`` and ``TestData`` are understood, and a name with keywords of two
splits (``train_test.jsonl``) is ambiguous instead of going to whichever is looked for first. ``eval`` means the test
split, but beside a file called ``test`` it is for validation.

The keywords are those of `datasets.data_files`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

#: `eval` until it is known whether there is a test split beside it.
EVAL = "eval"
_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
    EVAL: ("eval", "evaluation"),
    "ood": ("ood",),
}
_SPLIT_OF = {word: split for split, words in _KEYWORDS.items() for word in words}
_SPLIT_OF |= {f"{word}set": split for word, split in _SPLIT_OF.items() if word != "ood"}
#: The delimiters of the hub's loader, and a capital after a small letter.
_DELIMITER = re.compile(r"[-._\s\d]+|(?<=[a-z])(?=[A-Z])")


class Ambiguous(Exception):
    """A name with the keywords of two splits."""

    def __init__(self, name: str, splits: Sequence[str]):
        super().__init__(name)
        self.name, self.splits = name, list(splits)


class _Found(NamedTuple):
    """The split that a name says (None: none), the folder of whatever says so, and the name of the source."""

    split: str | None
    beside: str = ""
    top: str = ""


def split_of_name(name: str) -> str | None:
    """The split that ``name`` says (`EVAL` for ``eval``); None if it says none. Raises `Ambiguous`."""
    found = dict.fromkeys(_SPLIT_OF[w] for word in _DELIMITER.split(name) if (w := word.lower()) in _SPLIT_OF)
    if len({resolved(split, has_test=False) for split in found}) > 1:
        raise Ambiguous(name, list(found))
    return ("test" if "test" in found else next(iter(found))) if found else None


def resolved(split: str | None, has_test: bool) -> str | None:
    """``split``, with `EVAL` as validation if there is a test split beside it, and else as test."""
    return ("validation" if has_test else "test") if split == EVAL else split


def splits_of_keys(keys: Sequence[str]) -> list[str | None]:
    """The split of each of some names that stand side by side. Raises `Ambiguous`."""
    found = [split_of_name(key) for key in keys]
    return [resolved(split, "test" in found) for split in found]


def splits_of_files(names: Sequence[str], has_test: bool = False) -> list[str | Ambiguous | None]:
    """The split that each of a task's files says in its name or in those of its folders.

    ``names`` are paths within the sources, without suffixes; the first folder is the source itself. It counts only if
    nothing below it says anything, and it is a keyword, or the sources are told apart so (``gsm_train``, ``gsm_test``).
    ``has_test``: some file was given as a test file, so that ``eval`` is for validation.
    """
    found = [_found(name) for name in names]
    tops = {split for place in found if isinstance(place, _Found) and (split := _last_word(place.top))}
    found = [_by_source(place, len(tops) > 1) for place in found]
    tested = {place.beside for place in found if isinstance(place, _Found) and place.split == "test"}
    return [
        place if isinstance(place, Ambiguous) else resolved(place.split, has_test or place.beside in tested)
        for place in found
    ]


def _found(name: str) -> _Found | Ambiguous:
    """What the file and the folders within its source say."""
    *folders, last = PurePosixPath(name).parts
    top, *inner = folders or ("",)
    pieces = [*inner, last]
    try:
        said = [(split, i) for i, piece in enumerate(pieces) if (split := split_of_name(piece))]
    except Ambiguous as error:
        return error
    if not said:
        return _Found(None, "", top)
    if len({resolved(split, has_test=False) for split, _ in said}) > 1:
        return Ambiguous("/".join(pieces[i] for _, i in said), [split for split, _ in said])
    split, i = said[-1]
    return _Found(split, "/".join([top, *pieces[:i]]))


def _by_source(place: _Found | Ambiguous, told_apart: bool) -> _Found | Ambiguous:
    """``place``, with the split that its source says where it says none itself."""
    if isinstance(place, Ambiguous) or place.split:
        return place
    return _Found(_last_word(place.top) if told_apart else _SPLIT_OF.get(place.top.lower()))


def _last_word(name: str) -> str | None:
    return _SPLIT_OF.get(_DELIMITER.split(name)[-1].lower())
