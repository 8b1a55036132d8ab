"""Near-duplicate texts: an exact set-similarity join on word pairs that is not misled by text shared by many rows.

A text is the set of its pairs of neighbouring words (`data.words`): plain words without case and punctuation,
everything else (numbers, formulas, SMILES, code) as written. Two texts are near duplicates if the Jaccard similarity of
their sets, |a & b| / |a | b|, reaches the threshold: at 0.8 one changed word in nineteen, or an appended one in six.

A passage that occurs in several texts (a preamble, an article, the sentence around a slot) counts as one item however
long it is, so that rows are compared by what differs: `PASSAGE` words in `ROWS` texts, or `LONG_PASSAGE` in two. The
price: three long texts that differ in single words only are taken for one template, and all of them are kept.

The join is exact: only the rarest items of each set are looked up, and two sets that are similar enough share one of
these (Bayardo et al., WWW 2007; Xiao et al., WWW 2008). Words and pairs are represented by 64-bit hashes. Memory
beside the texts: 5 bytes per word while counting, then up to 9 for every item that another text also has.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING

from sdft_cli.data import words

if TYPE_CHECKING:
    import numpy as np

THRESHOLD = 0.8
PASSAGE, ROWS, LONG_PASSAGE = 9, 3, 100
_ODD = 6364136223846793005  # Knuth's multiplier: a hash of several hashes is a polynomial in it, modulo 2**64
_ROUNDING = 1e-9

Agree = Callable[[int, int], bool]


def near_duplicates(
    texts: Sequence[str], threshold: float = THRESHOLD, agree: Agree | None = None
) -> list[tuple[int, int]]:
    """(earlier, later) for every text that repeats an earlier one, exactly or nearly; in the order of ``later``.

    ``earlier`` is the first such text that repeats none itself: drop the second number of each pair, and every dropped
    text resembles one that is kept. ``agree(earlier, later)`` may reject a pair (rows whose answers differ).
    """
    items = _Items(texts)
    kept = _Index(threshold)
    pairs = []
    for later, text in enumerate(texts):
        size, ids = items.of(text)
        earlier = kept.first(size, ids, later, agree)
        if earlier is None:
            kept.add(later, size, ids)
        else:
            pairs.append((earlier, later))
    return pairs


def near_matches(reference: Sequence[str], texts: Sequence[str], threshold: float = THRESHOLD) -> list[tuple[int, int]]:
    """(i, j) for every ``texts[j]`` that repeats a text of ``reference``, of which ``reference[i]`` is the first."""
    items = _Items([*reference, *texts])
    index = _Index(threshold)
    for row in _firsts(reference).tolist():
        index.add(row, *items.of(reference[row]))
    firsts = ((index.first(*items.of(text), i), i) for i, text in enumerate(texts))
    return [(row, i) for row, i in firsts if row is not None]


def similar(one: str, other: str, threshold: float = THRESHOLD) -> bool:
    """Whether two texts are near duplicates, compared without regard to passages that other texts share."""
    a, b = _pairs(one), _pairs(other)
    return len(a & b) / len(a | b) >= threshold


class _Items:
    """The items texts are compared by; those that at least two texts have are numbered, the rarest first."""

    def __init__(self, texts: Sequence[str]):
        import numpy as np

        self.words = _Words()
        # what occurs in n texts is repeated n - 1 times
        distinct = _firsts(texts)  # a whole text that occurs twice is not a shared passage
        windows = _repeated(lambda: (_joined(self.words.of(texts[i]), PASSAGE) for i in distinct))
        self.twice, rows = np.unique(windows, return_counts=True)
        self.often = rows >= ROWS - 1
        del windows
        items = _repeated(lambda: (self._hashes(self.words.of(text)) for text in texts))
        self.values, rows = np.unique(items, return_counts=True)
        order = np.argsort(rows, kind="stable")
        self.rank = np.empty(len(order), np.uint32)
        self.rank[order] = np.arange(len(order), dtype=np.uint32)

    def of(self, text: str) -> tuple[int, list[int]]:
        """How many items ``text`` has, and the numbers of those that another text also has, in ascending order."""
        import numpy as np

        hashes = np.unique(self._hashes(self.words.of(text)))
        places, present = _find(hashes, self.values)
        return len(hashes), np.sort(self.rank[places[present]]).tolist()

    def _hashes(self, words: np.ndarray) -> np.ndarray:
        """One hash for every pair outside shared passages, and one for each of these."""
        import numpy as np

        if len(words) < 2:  # one item: the word, or that there is none
            return np.append(words, np.int64(len(words)))[:1]
        pairs = _joined(words, 2)
        shared = self._shared(words)
        if not shared.any():
            return pairs
        whole = [hash(words[start : end + 1].tobytes()) for start, end in _runs(shared)]
        return np.concatenate([pairs[~shared], np.array(whole, np.int64)])

    def _shared(self, words: np.ndarray) -> np.ndarray:
        """Which of the pairs lie in a passage that other texts also have."""
        import numpy as np

        shared = np.zeros(len(words) - 1, bool)
        places, present = _find(_joined(words, PASSAGE), self.twice)
        if not present.any():
            return shared
        starts = present & self.often[places]
        for start, end in _runs(present):
            starts[start:end] |= end - start > LONG_PASSAGE - PASSAGE
        for i in range(PASSAGE - 1):
            shared[i : i + len(starts)] |= starts
        return shared


class _Index:
    """Texts by their rarest items: ``postings`` maps an item to the places of the texts with it in their prefix.

    ``ids`` has the numbered items of all texts, end to end; those of the text at place ``p`` end at ``ends[p + 1]``.
    """

    def __init__(self, threshold: float):
        self.threshold = threshold
        self.postings: dict[int, list[int]] = {}
        self.rows, self.sizes, self.ids, self.ends = array("q"), array("I"), array("I"), array("Q", [0])

    def add(self, row: int, size: int, ids: list[int]) -> None:
        for item in self._prefix(size, ids):
            self.postings.setdefault(item, []).append(len(self.rows))
        self.rows.append(row)
        self.sizes.append(size)
        self.ids.extend(ids)
        self.ends.append(len(self.ids))

    def first(self, size: int, ids: list[int], later: int, agree: Agree | None = None) -> int | None:
        """The row added first that is similar enough and, if ``agree`` is given, agrees with row ``later``."""
        places = {place for item in self._prefix(size, ids) for place in self.postings.get(item, ())}
        low, high = self.threshold * size - _ROUNDING, size / self.threshold + _ROUNDING
        items = set(ids)
        for place in sorted(p for p in places if low <= self.sizes[p] <= high):
            both = len(items.intersection(self.ids[self.ends[place] : self.ends[place + 1]]))
            near = both / (size + self.sizes[place] - both) >= self.threshold
            if near and (agree is None or agree(self.rows[place], later)):
                return self.rows[place]
        return None

    def _prefix(self, size: int, ids: list[int]) -> list[int]:
        """Those of the rarest items that are numbered; items that no other text has are the rarest of all."""
        length = size - ceil(self.threshold * size - _ROUNDING) + 1
        return ids[: max(0, length - (size - len(ids)))]


class _Words(dict[str, int]):
    """White-space separated chunk -> the hash of its word: a cache that is emptied when it is full."""

    FULL = 1 << 13

    def of(self, text: str) -> np.ndarray:
        """The hashes of all words of ``text`` in their order."""
        import numpy as np

        chunks = words.chunks(text)
        return np.fromiter(map(self.__getitem__, chunks), np.int64, len(chunks))

    def __missing__(self, chunk: str) -> int:
        if len(self) >= self.FULL:
            self.clear()
        self[chunk] = value = hash(words.word(chunk))
        return value


def _pairs(text: str) -> set[tuple[str, ...]]:
    listed = words.words(text)
    return set(pairwise(listed)) if len(listed) > 1 else {tuple(listed)}


def _firsts(texts: Sequence[str]) -> np.ndarray:
    """The places of the texts that no earlier text equals."""
    import numpy as np

    return np.sort(np.unique(np.fromiter(map(hash, texts), np.int64, len(texts)), return_index=True)[1])


def _repeated(hashes: Callable[[], Iterable[np.ndarray]]) -> np.ndarray:
    """Every hash as often as arrays have it, less one; in ascending order.

    The lower halves are sorted first: most hashes occur once, and half the memory is enough to see which.
    """
    import numpy as np

    halves = np.unique(_again(array("I"), (np.unique(some).astype(np.uint32) for some in hashes())))
    return _again(array("q"), (_in_halves(np.unique(some), halves) for some in hashes()))


def _in_halves(hashes: np.ndarray, halves: np.ndarray) -> np.ndarray:
    return hashes[_find(hashes.astype(halves.dtype), halves)[1]]


def _again(buffer: array[int], hashes: Iterable[np.ndarray]) -> np.ndarray:
    """All hashes in ascending order, each once less than it occurs. ``buffer`` is an empty array of their type."""
    import numpy as np

    for some in hashes:
        buffer.frombytes(some.tobytes())
    ordered = np.frombuffer(buffer, buffer.typecode) if buffer else np.empty(0, buffer.typecode)
    ordered.sort()  # in place: this is the largest thing in memory
    return ordered[1:][ordered[1:] == ordered[:-1]]


def _joined(words: np.ndarray, count: int) -> np.ndarray:
    """One hash for every ``count`` words in a row; none if there are fewer."""
    import numpy as np

    if len(words) < count:
        return np.empty(0, np.int64)
    return np.convolve(words, np.int64(_ODD) ** np.arange(count), "valid")  # in whole numbers, modulo 2**64


def _find(hashes: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of ``hashes`` in the ascending ``values``, and which of them are present there."""
    import numpy as np

    if not len(values):
        return np.zeros(len(hashes), np.int64), np.zeros(len(hashes), bool)
    places = values.searchsorted(hashes).clip(max=len(values) - 1)
    return places, values[places] == hashes


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """(start, end) of every unbroken run of True."""
    import numpy as np

    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))
