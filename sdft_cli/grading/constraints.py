"""Verifiable constraints on the form of a completion: "in one word", "in capital letters", "three items, by commas".

Each is a function of the completion and the constraint's value; it returns what is wrong, or "" where it is kept.
`broken` applies those that an item names. The idea is that of IFEval (Zhou et al., arXiv 2311.07911); the rules and
their names are our own. Emphasis, quotes and code marks around the text are no part of its form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from sdft_cli.grading.exactness import same, unwrapped
from sdft_cli.grading.plain_text import plain, unstyled
from sdft_cli.types import Json

_SENTENCE_END = re.compile(r"[.!?…]+[\"')\]]*(?=\s|$)")
_MARKER = re.compile(r"^\s*(?:\d+[.)]|[-*•–])\s+")
_JOINTS = re.compile(r"\s*(?:[,;]\s*(?:and|or)\s+|[,;]|\s(?:and|or)\s)\s*", re.IGNORECASE)
_AROUND = " \t\n\"'`*_"
_STOPS = ".!? "


def broken(text: str, constraints: Mapping[str, Json]) -> str:
    """What is wrong with the first of ``constraints`` (by name) that ``text`` breaks; "" if it keeps them all. Raises
    KeyError for an unknown name."""
    checked = (CONSTRAINTS[name](text.strip(), value) for name, value in constraints.items())
    return next((problem for problem in checked if problem), "")


# --- lists ------------------------------------------------------------------------------------------------------------


def entries(text: str) -> list[str]:
    """The entries of a text that is a list: its lines if it has several, else what commas, "and" and "or" separate.
    Bullets, numbers and a final full stop are left out, and small and capital letters are made equal."""
    lines = [line for line in text.split("\n") if line.strip()]
    parts = lines if len(lines) > 1 else _JOINTS.split(text)
    return [_entry(part) for part in parts if _entry(part)]


def _entry(text: str) -> str:
    return same(_MARKER.sub("", text)).strip(_AROUND + ",;").removesuffix(".")


def lists(text: str) -> Iterator[list[str]]:
    """Every list that a text may be read as: all of it, its paragraphs and lines, each also without what introduces it
    up to a colon, and without a word such as "is" that precedes it."""
    paragraphs = [part for part in re.split(r"\n\s*\n", text) if part.strip()]
    for block in dict.fromkeys([text, *paragraphs, *(line for line in text.split("\n") if line.strip())]):
        _, _, after = block.partition(":")
        _, _, said = block.partition(" is ")
        _, _, were = block.partition(" are ")
        yield from (entries(part) for part in (block, after, said, were) if part.strip())


def same_entry(one: str, other: str) -> bool:
    """Whether two entries are equal but for an article and the ending of a plural."""
    return not _numbers_of(one).isdisjoint(_numbers_of(other))


def _numbers_of(text: str) -> set[str]:
    bare = re.sub(r"^(?:an?|the)\s+", "", text.casefold())
    return {bare, bare.removesuffix("s"), bare.removesuffix("es")}


# --- constraints ------------------------------------------------------------------------------------------------------


def _words(text: str, limits: Sequence[int]) -> str:
    """``[least, most]`` words."""
    count = sum(any(map(str.isalnum, word)) for word in unstyled(text).split())
    least, most = limits
    return "" if least <= count <= most else f"{count} words, expected {_span(least, most)}"


def _sentences(text: str, wanted: int) -> str:
    count = sum(any(map(str.isalnum, part)) for part in _SENTENCE_END.split(text))
    return "" if count == wanted else f"{count} sentences, expected {wanted}"


def _lines(text: str, wanted: int) -> str:
    count = sum(bool(line.strip()) for line in text.split("\n"))
    return "" if count == wanted else f"{count} lines, expected {wanted}"


def _items(text: str, wanted: int) -> str:
    """So many different entries, and nothing else."""
    count = len(set(entries(text)))
    return "" if count == wanted else f"{count} different entries, expected {wanted}"


def _among(text: str, accepted: Sequence[str]) -> str:
    """Every entry is one of those that are accepted."""
    stray = [entry for entry in entries(text) if not any(same_entry(entry, each) for each in accepted)]
    return f"{stray[0]!r} is not one of those asked for" if stray else ""


def _case(text: str, wanted: str) -> str:
    """``upper`` or ``lower``: no letter of the other case."""
    made = text.upper() if wanted == "upper" else text.lower()
    return "" if made == text and any(map(str.isalpha, text)) else f"not in {wanted} case"


def _starts(text: str, beginning: str) -> str:
    kept = same(text).lstrip(_AROUND).startswith(same(beginning))
    return "" if kept else f"does not start with {beginning!r}"


def _ends(text: str, ending: str) -> str:
    kept = same(text).rstrip(_AROUND)
    wanted = same(ending).rstrip(".")
    kept = kept if wanted[-1:] in "!?" else kept.rstrip(_STOPS)
    return "" if kept.endswith(wanted) else f"does not end with {ending!r}"


def _without(text: str, forbidden: Sequence[str]) -> str:
    """None of the words occurs as a whole word; of signs and single letters, none occurs at all."""
    for word in forbidden:
        pattern = rf"\b{re.escape(word)}\b" if len(word) > 1 else re.escape(word)
        if re.search(pattern, plain(text), re.IGNORECASE):
            return f"has {word!r}, which was to be avoided"
    return ""


def _mentions(text: str, words: Sequence[str]) -> str:
    """All of these words occur, as whole words."""
    missing = [word for word in words if not re.search(rf"\b{re.escape(word)}\b", plain(text), re.IGNORECASE)]
    return f"does not have the word {missing[0]!r}" if missing else ""


def _literal(text: str, accepted: Sequence[str]) -> str:
    """One of these texts occurs, letter for letter and sign for sign."""
    found = any(each in plain(text) for each in accepted)
    return "" if found else f"does not have {accepted[0]!r} as it is"


def _only(text: str, accepted: Sequence[str]) -> str:
    """The whole text is one of these, but for quotes and a full stop around it."""
    forms = {form for whole in (text, unwrapped(text)) for form in (whole.strip(), whole.strip().removesuffix("."))}
    return "" if any(plain(form) in accepted for form in forms) else f"is not {accepted[0]!r} and nothing else"


def _pattern(text: str, pattern: str) -> str:
    """A regular expression matches the whole text."""
    return "" if re.fullmatch(pattern, plain(text), re.DOTALL) else "does not have the form that was asked for"


def _span(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"


#: Every constraint by the name that an item gives it.
CONSTRAINTS: dict[str, Callable[[str, Json], str]] = {
    "words": _words,
    "sentences": _sentences,
    "lines": _lines,
    "items": _items,
    "among": _among,
    "case": _case,
    "starts": _starts,
    "ends": _ends,
    "without": _without,
    "mentions": _mentions,
    "literal": _literal,
    "only": _only,
    "pattern": _pattern,
}
