"""The rule ``choice``: the letter of an option, read out of an answer in words.

A gold answer of several labels ("A, C") asks for all of them; alternatives ("A or B") are never right. For what a label
is see `grading.choice_labels`.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import regex

from sdft_cli.grading.choice_labels import Alphabet, Gold, Labels, alphabet_of, canonical, is_choice, named
from sdft_cli.grading.choice_words import (
    AND,
    BECAUSE,
    DENIED,
    FILLER,
    NAMED,
    OPEN,
    OR,
)
from sdft_cli.grading.final_answer import Statement, statements
from sdft_cli.grading.grader import Grader
from sdft_cli.grading.options import option_mentioned, option_said, options_of
from sdft_cli.grading.plain_text import unstyled
from sdft_cli.types import Example, Score


class Reading(NamedTuple):
    """The labels that a text answers with; ``sure`` is false for alternatives ("A or B"), which no gold answer has."""

    labels: Labels
    sure: bool = True

    def __str__(self) -> str:
        return (", " if self.sure else " or ").join(sorted(self.labels))


# --- the completion ---------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def gold_of(gold: str) -> Gold | None:
    """The labels that a gold answer names, by itself or as a completion does; None if it names none."""
    if options := named(gold):
        return options
    reading = _reading(gold, alphabet_of("latin"), run=False)
    return Gold(reading.labels, "latin") if reading and reading.sure else None


def choice(completion: str, gold: str) -> Score:
    expected = gold_of(gold)
    if expected is None:
        return Score(None, None, f"unscored: the gold answer {gold[:40]!r} is no option's letter")
    several = len(expected.labels) > 1
    reading = _reading(completion, alphabet_of(expected.kind), run=several)
    if several and (listed := named(statements(completion)[0].text)):
        reading = Reading(listed.labels)
    written = ", ".join(sorted(expected.labels))
    if reading is None:
        if expected.text and _says(completion, expected.text):
            return Score(1.0, expected.text, "right: the option's text")
        return Score(0.0, None, f"no answer found; expected {written!r}")
    right = reading.sure and reading.labels == expected.labels
    return Score(float(right), str(reading), "right" if right else f"answered {str(reading)!r}, expected {written!r}")


def _says(completion: str, text: str) -> bool:
    """Whether the final answer is the option's text."""
    first = unstyled(statements(completion)[0].text)
    return first.strip(" .\"'").casefold().split() == text.strip(" .\"'").casefold().split()


def _reading(completion: str, alphabet: Alphabet, run: bool) -> Reading | None:
    """The labels that a completion answers with; ``run`` reads "AC" as two of them."""
    *marked, whole = statements(completion)
    text = unstyled(whole.text)
    stated = (
        [*marked, *_further(text, alphabet)]
        if not marked or marked[0].kind not in ("tag", "box", "json", "hash")
        else marked
    )
    for statement in stated:
        if statement.kind == "right":
            return Reading(frozenset({statement.text}))
        content = unstyled(statement.text)
        reading = _last(content, alphabet) if statement.kind == "before" else _announced(content, alphabet, run)
        if reading:
            return reading
    return _unmarked(text, alphabet, run)


def _further(text: str, alphabet: Alphabet) -> list[Statement]:
    """Statements that only a choice is made in, the last first: "I choose B", "B is correct"."""
    found = []
    for label in alphabet.labels(text, max(0, len(text) - _END)):
        if (right := alphabet.right.match(text, label.start())) and _is_label(text, right, alphabet):
            found.append(Statement(canonical(right["label"]), "right"))
        elif alphabet.chosen.search(text, max(0, label.start() - 60), label.start()):
            found.append(Statement(text[label.start() :].split("\n", 1)[0], "clause"))
    return found[::-1]


#: Characters at the end of a text in which a choice may be stated in other words than a marker's.
_END = 800


def _announced(content: str, alphabet: Alphabet, run: bool) -> Reading | None:
    """The labels at the beginning of what a marker announces, or the only one in its first sentence."""
    position = _skip(content, 0, alphabet)
    if (
        run
        and (together := regex.match(rf"{OPEN}([A-H]{{2,8}})(?![\p{{L}}\p{{N}}])", content[position:]))
        and len(set(together[1])) == len(together[1])
    ):
        return Reading(frozenset(together[1]))
    first = alphabet.item.match(content, position)
    if first and not _is_word(content, first) and not DENIED.match(content, first.end()):
        return _corrected(content, first.end(), alphabet) or _together(content, first, alphabet)
    return _only(content, alphabet, sole=True)


def _skip(content: str, position: int, alphabet: Alphabet) -> int:
    """Where a label may begin: after fillers, and after labels that are denied ("not A but B")."""
    while True:
        before = position
        if (filler := FILLER.match(content, position)) and filler.end() > position:
            position = filler.end()
        if denial := alphabet.denial.match(content, position):
            position = alphabet.contrast.match(content, denial.end()).end()
        elif (label := alphabet.item.match(content, position)) and (denied := DENIED.match(content, label.end())):
            position = alphabet.contrast.match(content, denied.end()).end()
        if position == before:
            return position


def _together(content: str, first: regex.Match[str], alphabet: Alphabet) -> Reading:
    """``first`` and the labels that are joined to it."""
    labels, sure, end = {canonical(first[1])}, True, first.end()
    while joint := alphabet.joint.match(content, end):
        further = alphabet.item.match(content, joint.end())
        if not further or DENIED.match(content, further.end()):
            break
        if joint["comma"] and not joint["or2"] and not _listed(content, further.end()):
            break
        labels.add(canonical(further[1]))
        sure, end = sure and not (joint["or"] or joint["or2"]), further.end()
    return Reading(frozenset(labels), sure or len(labels) == 1)


def _listed(content: str, end: int) -> bool:
    """Whether a label after a comma ends there, so that it is one of a list and not the subject of what follows."""
    return regex.match(rf"\s*(?:[,、;.)\]。*\"'$]|$|\n|(?:{AND}|{OR})\b|are\b|both\b)", content[end:]) is not None


def _corrected(content: str, start: int, alphabet: Alphabet) -> Reading | None:
    for correction in alphabet.correction.finditer(content[:400], start):
        for label in alphabet.item.finditer(content, correction.end(), correction.end() + 60):
            if not _is_word(content, label):
                return Reading(frozenset({canonical(label[1])}))
    return None


def _only(content: str, alphabet: Alphabet, sole: bool) -> Reading | None:
    """The only label in the first sentence that is marked as an option: "(B)", "option B". With ``sole`` it need not be
    marked, if there is no other."""
    sentence = regex.split(r"(?<=[\w)\]\"'][.!?])\s+(?=\p{Lu})|[。\n]", content, maxsplit=1)[0][:400]
    bare = alphabet.denial.sub(" ", sentence)
    strong = [m for m in alphabet.strong.finditer(bare) if not DENIED.match(bare, m.end()) and not _reads_on(bare, m)]
    named = {canonical(m["label"]) for m in strong}
    if not named and sole:
        named = {canonical(m["label"]) for m in alphabet.labels(bare) if _is_label(bare, m, alphabet)}
    if len(named) != 1:
        return None
    item = alphabet.item.match(bare, strong[0].start("label")) if strong else None
    return _together(bare, item, alphabet) if item else Reading(frozenset(named))


def _reads_on(text: str, label: regex.Match[str]) -> bool:
    """Whether an article or pronoun follows a colon, as in "Answer: A dog"."""
    word = _ARTICLE.match(text, label.start("label"))
    return word is not None and text[label.start() : label.start() + 1] not in "([【「" and _is_word(text, word)


_ARTICLE = regex.compile(r"([AI])")


def _last(content: str, alphabet: Alphabet) -> Reading | None:
    """The labels before "is the answer"."""
    announced = _announced(content, alphabet, run=False)
    if announced:
        return announced
    labels = [m for m in alphabet.labels(content) if _is_label(content, m, alphabet)]
    return Reading(frozenset({canonical(labels[-1]["label"])})) if labels else None


def _unmarked(text: str, alphabet: Alphabet, run: bool) -> Reading | None:
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return None
    enumerates = _enumerates(lines, alphabet)
    lines[0], lines[-1] = lines[0][:_LONGEST], lines[-1][-_LONGEST:]
    first = None if enumerates else alphabet.first.match(text)
    if first and not _is_word(text, first) and (reading := _announced(text[:_LONGEST], alphabet, run)):
        return reading
    if run and (reading := _announced(lines[0], alphabet, run)) and len(reading.labels) > 1:
        return reading
    for line in (lines[-1], lines[0]):
        if alone := alphabet.alone.fullmatch(line):
            return Reading(frozenset({canonical(alone[1])}))
    if last := _ending(lines[-1], alphabet):
        return last
    return _only(text, alphabet, sole=False) if len(text.split()) <= _SHORT and len(lines) == 1 else None


def _enumerates(lines: list[str], alphabet: Alphabet) -> bool:
    """Whether the text goes through the options one by one, from the first on."""
    if not alphabet.line.match(lines[0]) or alphabet.alone.fullmatch(lines[0]):
        return False
    starts = [canonical(start[1]) for line in lines if (start := alphabet.line.match(line))]
    return starts[:2] in (["A", "B"], ["1", "2"], ["I", "II"])


#: Characters of a line that are read.
_LONGEST = 1000
#: A text of more words may have a single letter for many reasons.
_SHORT = 20


def _ending(line: str, alphabet: Alphabet) -> Reading | None:
    """The label that a line ends with; "A or B" is none."""
    labels = [
        m for m in alphabet.labels(line) if m["label"].isupper() or not m["label"].isascii() or m["label"].isdigit()
    ]
    if (
        not labels
        or regex.fullmatch(
            r"[\W_]*(?:です|である|だ|と思います|でしょう|になります|번|입니다|이다|है|。)*[\W_]*",
            line[labels[-1].end() :],
        )
        is None
    ):
        return None
    label = labels[-1]
    if NAMED.search(line, max(0, label.start() - 30), label.start()) or any(
        denial.end() > label.start() for denial in alphabet.denial.finditer(line, max(0, label.start() - 30))
    ):
        return None
    for first in labels[:-1][-3:]:
        if any(
            denial.end() > first.start()
            for denial in alphabet.denial.finditer(line, max(0, first.start() - 30), first.end())
        ):
            continue
        item = alphabet.item.match(line, first.start())
        joined = item and _together(line, item, alphabet)
        if item and not line[item.end() : label.start()].strip():
            return Reading(frozenset({canonical(item[1]), canonical(label["label"])}))
        if joined and canonical(label["label"]) in joined.labels and len(joined.labels) > 1:
            return joined
    return Reading(frozenset({canonical(label["label"])}))


def _is_word(text: str, label: regex.Match[str]) -> bool:
    """Whether a letter is the article or the pronoun: "A cat", "I think", "a bit"."""
    if label[1] not in ("A", "I", "a", "i", "o", "e", "y", "O", "E", "Y", "u", "à"):
        return False
    if label[0].strip()[-1:] in ")]}」】":
        return False
    return _AS_WORD.match(text, label.end()) is not None or (
        label[1].islower() and _BEFORE_LETTER.match(text, label.end()) is not None
    )


_AS_WORD = regex.compile(rf"\s+(?!(?:{BECAUSE}|is|was|which|it|from|with|so|in|on|at|to)\b)\p{{Ll}}|'\p{{L}}")
_BEFORE_LETTER = regex.compile(r"\s+\p{L}(?!\p{L})")


def _is_label(text: str, label: regex.Match[str], alphabet: Alphabet) -> bool:
    """Whether a letter within a sentence is an option's, going by what stands around it."""
    written, start = label["label"], label.start("label")
    if alphabet.kind == "latin":
        bracketed = text[start - 1 : start] in ("(", "[", "「", "【") or text[label.end("label") :][:1] == ")"
        if not written.isupper() and not bracketed:
            return False
        if (
            written in ("A", "I", "O", "Y", "E")
            and not bracketed
            and regex.match(r"\s+(?!is\b|was\b|or\b|and\b)\p{Ll}|'", text[label.end("label") :])
        ):
            return False
    return not NAMED.search(text, max(0, start - 30), start) and not DENIED.match(text, label.end("label"))


def choice_of_row(completion: str, row: Example, folder: Path | None = None) -> Score:
    """The rule for a row that may tell its options' texts: an option may also be named by its text."""
    options = options_of(row)
    said = option_said(completion, options) if options else None
    if said is None:
        score = CHOICE(completion, row.answer)
        said = (
            option_mentioned(completion, options) if options and (score.value, score.extracted) == (0.0, None) else None
        )
        if said is None:
            return score
    score = CHOICE(canonical(chr(ord("A") + said)), row.answer)
    return replace(score, extracted=options[said][:200])


CHOICE = Grader(
    "choice",
    "the final answer names the gold option by its letter or number: B, (b), B. because, option B is correct, 答案是B",
    "an option named by its text alone is right only where the row or the gold answer tells the text; in a short"
    " sentence, a letter that is a name (E. coli) may be read as an option",
    choice,
    suits=is_choice,
    score_row=choice_of_row,
)
