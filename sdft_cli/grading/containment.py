"""The rule ``contains``: the completion says the gold answer somewhere.

A number is not found with another sign, within a larger number or within a formula, and a name not with a sign that
makes it another one (C in C++). JSON is compared by value; yes, no, true and false by what the completion answers; an
article, or a letter that is a word, only with the final answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from sdft_cli.grading.exactness import same, stated_forms
from sdft_cli.grading.final_answer import Statement, spoken, statements, tagged
from sdft_cli.grading.grader import Grader
from sdft_cli.grading.plain_text import plain
from sdft_cli.grading.polarity import POLARITIES, polarity
from sdft_cli.grading.words import ARTICLES, Token, gold_tokens, tokens_near
from sdft_cli.types import Json, Score

#: A gold answer of more words is a text: a right answer hardly ever repeats it word for word.
FEW_WORDS = 8
#: The same for scripts without spaces, in characters.
FEW_CHARACTERS = 24
#: Attempts to read JSON in a completion that has many brackets.
_ATTEMPTS = 200
_FUNCTION_WORDS = frozenset(
    "a an the is are was of to in it on at be or and not by as he she we you they this that i if so do "
    "for with from der die das ein"
    " und le la les un une el los las o os um il".split()
)
#: Letters that are words, or ends of words after an apostrophe.
_LOOSE_LETTERS = frozenset("aioeyustdm")
#: Korean words after a noun without a space: subject, object, place, "is".
_PARTICLES = frozenset(
    "은 는 이 가 을 를 의 에 에서 와 과 도 로 으로 라고 이라고 만 부터 까지 이다 다 입니다 이에요 예요"
    " 이고 이며 였다 이었다 이라는 라는 임 인 였습니다 이었습니다".split()
)
#: Words of Arabic and Hebrew that are written together with the next one: and, in, to, from, the.
_PREFIXES = {
    "arabic": ("و", "ف", "ب", "ل", "ك", "وب", "ول", "فب"),
    "hebrew": ("ו", "ב", "ל", "מ", "ה", "ש", "כ", "וב", "ול", "וה", "מה", "שה", "של"),
}
#: Signs that make a number or a letter a part of a formula. Before: "= 5", "+5" and "$5" are a 5.
_BINDS_BEFORE, _BINDS_AFTER = frozenset("-*/^√¬_\\&"), frozenset("-*/^+#_&")


def contains(completion: str, gold: str) -> Score:
    expected = gold_tokens(gold)
    if (value := _json(gold)) is not None:
        return _score(any(_equal(given, value) for given in _values(_searched(completion))), gold)
    if not expected:  # nothing but punctuation
        return _score(plain(gold).strip() in _searched(completion), gold)
    if same(gold) in POLARITIES:
        return polarity(completion, gold)
    if len(expected) == 1 and (expected[0].text in _FUNCTION_WORDS or expected[0].text in _LOOSE_LETTERS):
        return _score(_answers(completion, gold), gold)
    return _score(any(occurrences(given, gold) for given in tokens_near(_searched(completion), gold)), gold)


def _score(right: bool, gold: str) -> Score:
    why = "contains the gold answer" if right else f"does not contain {gold!r}"
    return Score(float(right), gold.strip() if right else None, why)


def _searched(completion: str) -> str:
    """What is searched: the inside of a final answer's tag, else the whole completion."""
    text = spoken(completion)
    return next(iter(tagged(text)), text)


def _answers(completion: str, gold: str) -> bool:
    """Whether the final answer is the gold one; "A." and "a" are one answer."""
    first = statements(completion)[0]
    wanted = stated_forms(Statement(gold, "whole"))
    return not {same(form) for form in wanted}.isdisjoint(same(form) for form in stated_forms(first))


# --- words ------------------------------------------------------------------------------------------------------------


def occurrences(given: Sequence[Token], text: str) -> list[tuple[int, int]]:
    """Where ``text`` occurs in ``given`` as a whole, not bound into something else and not directly denied."""
    expected = _without_article(gold_tokens(text))
    size = len(expected)
    if not size:
        return []
    first = expected[0].text
    return [
        (start, start + size)
        for start in range(len(given) - size + 1)
        if (given[start].text.endswith(first) or given[start].text.startswith(first))
        and all(_same(given[start + k], expected[k], k == 0, k == size - 1) for k in range(size))
        and _free(given, start, size, expected)
    ]


def _without_article(expected: Sequence[Token]) -> Sequence[Token]:
    """Without what does not matter at the beginning: +5 is 5, the Beatles are Beatles."""
    if len(expected) < 2:
        return expected
    plus = expected[0].text == "+" and expected[1].kind == "number"
    return expected[1:] if plus or expected[0].text in ARTICLES else expected


def _same(given: Token, expected: Token, first: bool, last: bool) -> bool:
    if given.text == expected.text:
        return True
    if given.kind != "word" or expected.kind != "word":
        return False
    stem, ending, beginning = expected.text, given.text, ""
    if last and ending.startswith(stem) and "가" <= stem[-1] <= "힣":
        return ending[len(stem) :] in _PARTICLES
    if first and given.text.endswith(stem) and len(stem) > 2:
        beginning = given.text[: -len(stem)]
        return (
            beginning in _PREFIXES["arabic" if "\u0600" <= stem[0] <= "\u06ff" else "hebrew"]
            if "\u0590" <= stem[0] <= "\u06ff"
            else False
        )
    return False


def _free(given: Sequence[Token], start: int, size: int, expected: Sequence[Token]) -> bool:
    """Whether what stands around an occurrence leaves its meaning alone."""
    before, after = given[start - 1] if start else None, given[start + size] if start + size < len(given) else None
    if before is not None and _denies(given, start):
        return False
    head, tail = expected[0], expected[-1]
    formula = head.kind == "number" or _is_variable(head)
    if (
        before is not None
        and formula
        and before.kind == "sign"
        and (before.text in _BINDS_BEFORE or _adds(given, start))
    ):
        return False
    if head.text == "-" and len(expected) > 1 and before is not None and before.kind == "number" and given[start].glued:
        return False
    if after is None or after.kind != "sign":
        return True
    if after.text in ("++", "#") or (after.glued and after.text in "+-" and _is_variable(tail)):
        return not (after.glued and tail.kind == "word")
    return not (
        after.text in _BINDS_AFTER and (tail.kind == "number" or _is_variable(tail)) and not _ends(given, start + size)
    )


def _adds(given: Sequence[Token], start: int) -> bool:
    """Whether a plus before an occurrence adds it to something: "2+5", but not "is +5"."""
    plus = given[start - 1]
    binary = plus.text == "+" and start > 1 and (plus.glued or not given[start].glued)
    return binary and given[start - 2].kind in ("number", "word")


def _is_variable(token: Token) -> bool:
    return token.kind == "word" and len(token.text) == 1


def _ends(given: Sequence[Token], sign: int) -> bool:
    """Whether nothing follows a sign that it could join: "5*", "5 -"."""
    return sign + 1 >= len(given) or not (
        given[sign + 1].kind in ("number", "word") and (given[sign + 1].glued or given[sign].text in "^*/+")
    )


def _denies(given: Sequence[Token], start: int) -> bool:
    words = [token.text for token in given[max(0, start - 2) : start]]
    if words[-1] in ("not", "never", "nor", "nicht", "kein", "keine", "pas", "не") or (
        words[-1:] == ["t"] and words[0] in ("isn", "aren", "wasn")
    ):
        return True
    return (
        "".join(words).endswith(("不是", "并非", "並非")) or words == ["rather", "than"] or words == ["instead", "of"]
    )


# --- JSON -------------------------------------------------------------------------------------------------------------

_DECODER = json.JSONDecoder()


def _json(text: str) -> Json:
    """The object or list that all of a text is; None for anything else."""
    text = text.strip()
    if text[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _values(text: str) -> Iterator[Json]:
    """The JSON objects and lists in a text."""
    position = 0
    for _ in range(_ATTEMPTS):
        starts = [start for start in (text.find("{", position), text.find("[", position)) if start >= 0]
        if not starts:
            return
        try:
            value, position = _DECODER.raw_decode(text, min(starts))
            yield value
        except (ValueError, RecursionError):
            position = min(starts) + 1


def _equal(one: Json, other: Json) -> bool:
    """Equality of JSON: 1 is 1.0, but not true."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


# --- gold answers that the rule is chosen for -------------------------------------------------------------------------


def is_short(gold: str) -> bool:
    """Whether a gold answer is short enough to stand in a completion word for word."""
    found = gold_tokens(gold)
    characters = sum(token.kind == "character" for token in found)
    return 0 < len(gold.split()) <= FEW_WORDS and characters <= FEW_CHARACTERS


CONTAINS = Grader(
    "contains",
    "the completion contains the gold answer's words, numbers and signs, in order and next to each other",
    'a list of every possibility counts as right, and so does a mention that is denied in other words than "not"; a'
    " paraphrase or another inflection is wrong; in scripts without spaces, a part of a longer word is found too",
    contains,
    suits=is_short,
)
