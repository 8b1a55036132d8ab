"""Graders that give a share in [0, 1] of how alike two texts are: ``rouge``, ``f1`` and ``edit``.

Each is a stand-in for a judge of meaning. Such values are no counts of right answers: the interval of their mean is
that of `stats.intervals.of_scores`, and a completion counts as right, for pass@k and for a teacher's reply that is to
become a demonstration, only at 1.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter

from sdft_cli.grading.final_answer import final_answer
from sdft_cli.grading.grader import Grader
from sdft_cli.grading.task_rules import strip_thinking
from sdft_cli.grading.tokens import plain, tokens
from sdft_cli.types import Score

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def rouge_l(completion: str, gold: str) -> Score:
    """F1 of the longest common subsequence of tokens (Lin 2004), as rouge-score's ``rougeL`` without stemming."""
    from rapidfuzz.distance import LCSseq

    given, expected = tokens(strip_thinking(completion)), tokens(strip_thinking(gold))
    if not expected:
        return _no_words(gold)
    common = LCSseq.similarity(given, expected)
    return _scored(
        completion, f1_of(common, len(given), len(expected)), f"{common} of {len(expected)} gold tokens in order"
    )


def f1(completion: str, gold: str) -> Score:
    """F1 of the tokens that the answers share, in any order, as SQuAD's official script counts them.

    What is compared is the final answer, where the completion marks one (`grading.final_answer`), or all of it,
    whichever is better.
    """
    expected = squad_tokens(strip_thinking(gold))
    if not expected:
        return _no_words(gold)
    texts = dict.fromkeys((final_answer(completion)[0], strip_thinking(completion)))
    given = max((squad_tokens(text) for text in texts), key=lambda tokens_: _shared(tokens_, expected))
    common = sum((Counter(given) & Counter(expected)).values())
    return _scored(completion, _shared(given, expected), f"{common} of {len(expected)} gold tokens")


def edit(completion: str, gold: str) -> Score:
    """1 - Levenshtein's distance / the longer text's length, in characters after canonical composition (NFC)."""
    from rapidfuzz.distance import Levenshtein

    given, expected = (unicodedata.normalize("NFC", strip_thinking(text).strip()) for text in (completion, gold))
    if not expected:
        return _no_words(gold)
    distance = Levenshtein.distance(given, expected)
    return _scored(completion, 1 - distance / max(len(given), len(expected)), f"{distance} edits from the gold answer")


def _shared(given: list[str], expected: list[str]) -> float:
    return f1_of(sum((Counter(given) & Counter(expected)).values()), len(given), len(expected))


def squad_tokens(text: str) -> list[str]:
    """SQuAD's tokens: lower case, without punctuation and the articles a, an and the, divided at white space; in
    scripts without spaces, character by character."""
    kept = "".join(c for c in plain(text) if not (c in string.punctuation or unicodedata.category(c).startswith("P")))
    return [part for word in _ARTICLE.sub(" ", kept).split() for part in _parts(word)]


def _parts(word: str) -> list[str]:
    """A word as one token, or a stretch of a script without spaces as its characters."""
    return [word] if word.isascii() else tokens(word) or [word]


def f1_of(common: int, given: int, expected: int) -> float:
    """The harmonic mean of precision and recall, from counts of tokens."""
    return 2 * common / (given + expected) if common else 0.0


def _scored(completion: str, value: float, why: str) -> Score:
    return Score(value, strip_thinking(completion).strip()[:200], why)


def _no_words(gold: str) -> Score:
    return Score(None, None, f"unscored: the gold answer {gold[:40]!r} has nothing to compare with")


ROUGE = Grader(
    "rouge",
    "rougeL: F1 of the longest common subsequence of words, from 0 to 1 (characters in scripts without spaces)",
    "it sees words, not meaning: a paraphrase scores low and a contradiction (with or without a 'not') high; no stems "
    "and no synonyms; long texts are not worth more than short ones",
    rouge_l,
    graded=True,
)
F1 = Grader(
    "f1",
    "F1 of the words shared with the gold answer, in any order, from 0 to 1, as SQuAD counts them; the best of several",
    "the order of words and negation do not matter; punctuation is removed, so -5 is 5 and 3.5 is 35; only English "
    "articles are; a right answer within a long one scores low",
    f1,
    graded=True,
)
EDIT = Grader(
    "edit",
    "likeness of the texts, from 0 to 1: 1 - edits of single characters / length of the longer text",
    "it sees characters, not meaning; texts that have nothing in common still share some 0.2; case counts",
    edit,
    graded=True,
)
