"""The rule ``number``: equality of numbers, however they are written."""

from __future__ import annotations

import functools
import re
from fractions import Fraction

from sdft_cli.grading.final_answer import Statement, statements
from sdft_cli.grading.grader import Grader
from sdft_cli.grading.quantities import Quantity, in_words, quantities, spelled
from sdft_cli.types import Score

#: Two numbers are equal if they differ by at most this share of the gold one: rounding of floats, nothing else.
_SHARE = Fraction(1, 10**9)
#: Two sides of an equation name one value if they differ by at most this share: "1/3 ≈ 0.33".
_SIDES_SHARE = Fraction(1, 50)
#: Characters of a sentence that are read.
_LONGEST = 2000
#: What may precede a number that begins an answer.
_LEAD = re.compile(
    r"(?:[\s:$*_(\[{\"'`>#≈~=-]|\\[(\[]|about|approximately|approx\.?|roughly|around|exactly|equal to"
    r"|equals|just|only|simply|a total of|nearly|almost"
    r"|the number|the value|precisely|circa|ca\.|ungefähr|etwa|environ|aproximadamente|circa|примерно|约"
    r"|大约|約|is|be|therefore|thus|minus|negative"
    r"|[a-zA-Z]\w{0,2}(?:\([a-z]\))?\s*=|option|und|bo|the|it|und)*\Z",
    re.IGNORECASE,
)
#: After a number and its unit: what is said besides.
_BESIDES = re.compile(
    r"(?:[^\d.;,(\n=]|(?<=[^\W\d])\d|(?<=\^)-?\d|(?<=\^-)\d){0,30}?(?:\s*(?:[.;,(\n]|$|-\s)|\s(?:at|for"
    r"|per|in|on|from|by|with|over|after|within|each|every|because|since|as|than|out of|when|if|and not"
    r"|not|altogether|total|left|respectively|bei|für|pour|para|per|при|für|weil|car|porque)\b)",
    re.IGNORECASE,
)
#: After a number: it is a term of a sum in words ("20 divided by 5 equals 4").
_OPERATOR = re.compile(r"\s+(?:times|plus|minus|(?:divided|multiplied) by)\b", re.IGNORECASE)
_IS = re.compile(
    r"(?:\b(?:is|are|was|were|equals?|gives?|makes|gets?|totals?|becomes?|takes|costs|has|have|needs|weighs|earns|pays|lasts|requires|be|ist|sind|est|sont|es|son|è|é"
    r"|é|to|равно|равен|равна)\b|[=≈:]|是|为|為|は|等于|等於)\s*"
    r"(?:(?:about|approximately|exactly|only|just|a total of|thus|then|therefore)\s+)*\Z",
    re.IGNORECASE,
)
#: Before a number: it is not the answer ("not 15 but 16").
_DENIED = re.compile(r"\b(?:not|isn't|nicht|pas|non|не)\s+(?:about\s+)?\Z|不是\s*\Z", re.IGNORECASE)
_ASIDE = re.compile(r"(?<=[^\s(])\s*\([^()\n]*\)")
#: A word that is no mere joint of a list.
_SAYING = re.compile(r"(?!(?:and|or|und|et|e|y)\b)\b[^\W\d_]{2,}")
_SENTENCE = re.compile(r"(?<=[\w)\]%$°\"'][.!?;])\s+|(?<=[。！？；])")
#: Lines beside an answer that hold other numbers.
_OTHER_LINE = re.compile(
    r"[\s*_#-]*(?:confidence|certainty|probability|explanation|reason(?:ing)?|note|source|reference|hint"
    r"|check|verification|score|difficulty|level"
    r"|time|because|since|step \d+|where|this is because|konfidenz|begründung|erklärung|explication"
    r"|explicación|解释|解释|理由|説明)\b",
    re.IGNORECASE,
)


def number(completion: str, gold: str) -> Score:
    expected = gold_number(gold)
    if expected is None:
        return Score(None, None, f"unscored: the gold answer {gold[:40]!r} is not one number")
    given = _given(completion)
    if not given:
        return Score(0.0, None, f"no number found; expected {expected.written!r}")
    right = any(_equal(reading, expected) for reading in given)
    written = given[0].written
    return Score(float(right), written, "right" if right else f"answered {written}, expected {expected.written}")


@functools.lru_cache(maxsize=4096)
def gold_number(gold: str) -> Quantity | None:
    """The number that a gold answer names; None if it names none, or several."""
    given = _given(gold)
    return given[0] if given else None


def _equal(given: Quantity, expected: Quantity) -> bool:
    """Whether a reading of one equals a reading of the other: 50 % is 50 or 0.5, 5 million is 5 or 5,000,000, where the
    gold answer does not say which."""
    if given.value is None or expected.value is None:
        return False
    value, gold = given.value, expected.value * expected.scale
    readings = {value * given.scale} | ({value} if expected.scale == 1 else set())
    golds = {gold}
    if given.percent and not expected.percent:
        readings |= {reading / 100 for reading in readings}
    if expected.percent and not given.percent:
        golds |= {gold / 100}
    return any(abs(reading - one) <= abs(one) * _SHARE for reading in readings for one in golds)


def _given(completion: str) -> list[Quantity]:
    """The readings of the number that a text answers with; several where an equation names one value twice."""
    for statement in statements(completion):
        if found := _read(statement):
            return [] if all(quantity.loose for quantity in found) else found
    return []


def _read(statement: Statement) -> list[Quantity]:
    text = statement.text
    if statement.kind == "before":
        return _in_sentence(spelled(text))
    if statement.marked and "\n" not in text.strip():
        return _announced(spelled(text))
    return _in_text(text)


def _announced(text: str) -> list[Quantity]:
    """The number that a marker announces: the first one, or the one that its sentence comes to."""
    sentence = next(filter(None, (part.strip() for part in _SENTENCE.split(text))), "")[:_LONGEST]
    if sides := _equation(sentence):
        return sides
    found = _meant(sentence, quantities(sentence, listed=True))
    if found and _leads(sentence, found[0]):
        return _signed(sentence, found[:1])
    if found:
        return _in_sentence(sentence)
    if word := next(in_words(sentence), None):
        return [Quantity(str(word), 0, 0, word)]
    return _in_sentence(text) if quantities(text) else []


def _leads(sentence: str, one: Quantity) -> bool:
    """Whether a sentence begins with a number that is no term of a sum."""
    return _LEAD.match(sentence[: one.start]) is not None and not _OPERATOR.match(sentence, one.end)


def _meant(sentence: str, found: list[Quantity]) -> list[Quantity]:
    """Without the numbers that are denied."""
    return [one for one in found if not _DENIED.search(sentence, max(0, one.start - 12), one.start)]


def _signed(sentence: str, found: list[Quantity]) -> list[Quantity]:
    """With "minus" or "negative" in words before the number."""
    one = found[0]
    if one.value is not None and re.search(r"\b(?:minus|negative)\s*\Z", sentence[: one.start], re.IGNORECASE):
        return [Quantity(f"-{one.written}", one.start, one.end, -one.value, one.scale, one.percent, one.loose)]
    return found


_CLAUSE = re.compile(r"(?<!\d),\s|,\s(?!\d)|[;\n]|\s(?:because|since|where|so)\s")
_EQUALS = re.compile(r"(?<![<>!-])=+>?|->|→|⇒|≈|≡")


def _equation(sentence: str, latest: bool = False) -> list[Quantity]:
    """The value of the first or ``latest`` clause with an equals sign: its last side that is a bare number,
    and those that agree with it."""
    clauses = _CLAUSE.split(_ASIDE.sub("", sentence))
    equations = [sides for clause in clauses if len(sides := _EQUALS.split(clause)) > 1]
    if not equations or (not latest and len(_EQUALS.split(clauses[0])) < 2):
        return []
    sides = equations[-1 if latest else 0]
    bare = [
        found[0]
        for side in sides
        if len(found := quantities(side)) == 1 and not found[0].loose and not _algebra(side, found[0])
    ]
    if not bare:
        return []
    last = bare[-1]
    agree = [
        one
        for one in bare
        if one.value is not None
        and last.value is not None
        and abs(one.value - last.value) <= abs(last.value) * _SIDES_SHARE
    ]
    return [last, *(one for one in agree if one is not last)]


def _algebra(side: str, one: Quantity) -> bool:
    """Whether a side of an equation is more than a number with a unit."""
    return (
        re.search(r"[*+/^]\s*\Z|[-]\s*\Z|\w\s*[*+^-]\s*$", side[: one.start]) is not None
        or re.match(r"\s*[*+^]|\s+-\s", side[one.end :]) is not None
    )


def _in_text(text: str) -> list[Quantity]:
    """The number that an unmarked text ends with; its first line, where that is nothing but a number."""
    lines = [line for line in text.split("\n") if any(map(str.isdigit, line))]
    kept = [line for line in lines if not _OTHER_LINE.match(line)] or lines
    if not kept:
        word = list(in_words(spelled(text.strip().split("\n")[-1]))) if len(text) < 200 else []
        return [Quantity(str(word[-1]), 0, 0, word[-1])] if word else []
    first = text.strip().split("\n", 1)
    if (
        len(first) > 1
        and (alone := quantities(spelled(first[0])))
        and len(alone) == 1
        and _LONE.fullmatch(spelled(first[0]))
        and (_WORDS.match(first[1]) or first[1].startswith("\n"))
    ):
        return alone
    return _in_sentence(spelled(kept[-1]))


_LONE = re.compile(r"\W{0,4}[\d.,/ ^*-]+\W{0,4}(?:[^\W\d]+[\^\d/]*\W{0,3}){0,2}")
_WORDS = re.compile(r"\s*[(*_\"']*[^\W\d_]{2,}")


def _in_sentence(text: str) -> list[Quantity]:
    """The number that the last sentence with a number comes to."""
    sentences = [part for part in _SENTENCE.split(text) if any(map(str.isdigit, part))]
    if not sentences:
        return []
    sentence = _ASIDE.sub("", sentences[-1][-_LONGEST:])
    if not any(map(str.isdigit, sentence)):
        sentence = sentences[-1]
    if not (found := _meant(sentence, quantities(sentence, listed=not _SAYING.search(sentence)))):
        return []
    if (sides := _equation(sentence.rsplit(", so ", 1)[-1], latest=True)) and sides[0].end:
        return sides
    if _leads(sentence, found[0]) and (len(found) == 1 or _BESIDES.match(sentence, found[0].end)):
        return _signed(sentence, found[:1])
    last = [one for one in found if _IS.search(sentence, max(0, one.start - 60), one.start)]
    if last and last[-1] is not found[-1] and not last[-1].loose and _said_besides(sentence[last[-1].end :]):
        return [last[-1]]
    return _signed(sentence, [found[-1]])


def _said_besides(rest: str) -> bool:
    """Whether what follows a number only says when, where or for whom, and states no further result."""
    return (
        _BESIDES.match(rest) is not None
        and re.search(r"\b(?:so|and|then|total|therefore|thus|hence|leaving|which|giving)\b|[,;:=]", rest) is None
    )


# --- gold answers that the rule is chosen for -------------------------------------------------------------------------


def is_number(gold: str) -> bool:
    """Whether a gold answer is nothing but a number, with a currency or a percent sign at most."""
    text = spelled(gold).strip().strip("$").strip()
    found = quantities(text)
    return len(found) == 1 and not found[0].loose and found[0].written.strip("$ ") == text.strip("$ ")


NUMBER = Grader(
    "number",
    "the final answer is the gold number, however written: 1,000 · 1.000,0 · 1e3 · 3/4 · \\frac{3}{4} · 50 % · five",
    "nothing is rounded (0.33 is not 1/3); units are ignored (5 m is 5 km); 1,234 is read as in English, unless another"
    " number beside it has a decimal comma; of several numbers in an unmarked text the last counts; expressions with"
    " roots, π or variables are not computed; number words are read in English and Chinese only",
    number,
    suits=is_number,
)
