"""The rule ``yes-no``: which of two answers a completion gives; and the words for them in many languages."""

from __future__ import annotations

import regex

from sdft_cli.grading.final_answer import Statement, statements
from sdft_cli.grading.grader import Grader
from sdft_cli.grading.plain_text import plain, unstyled
from sdft_cli.types import Score

_YES = (
    "yes yeah yep yup true ja oui si sí sì sim да так tak ano áno igen evet hai ya vâng có đúng ναι نعم "
    "أجل بله آری כן हाँ हां জি হ্যাঁ ஆம் అవును"
    " 是 是的 对 對 正确 正確 はい ええ 예 네 그렇다 ใช่ kyllä jah jā taip"
    " da tak ndiyo oo opo richtig wahr vrai verdadero verdadeiro vero waar sant"
    " верно правда prawda correct right"
).split()
_NO = (
    "no nope nah false nein non não нет ні nie ne nem hayır tidak bukan không sai όχι لا كلا نه خیر לא "
    "नहीं না இல்லை కాదు"
    " 否 不 不是 不对 不對 错 錯误 错误 いいえ いや 아니요 아니오 아니 아니다 ไม่ ไม่ใช่ ei nē"
    " hapana hindi falsch faux falso fout onwaar falskt"
    " неверно ложь fałsz incorrect wrong nee nej nei"
).split()
#: Every word that answers such a question, and which of the two it is.
POLARITIES = {plain(word).casefold(): word in _YES for word in (*_YES, *_NO)}
#: Pairs of words that are each other's opposite: a completion may use either pair ("No" for "false").
_WORD = regex.compile(r"[\p{L}\p{M}]+(?:'[\p{L}]+)?")
#: "No" that is no answer: an idiom, or the determiner of a noun.
_IDIOM = regex.compile(
    r"\b(?:no (?:problem|doubt|question|worries|wonder|matter|longer|more|less|one|way to|need|idea|such"
    r"|other|evidence|reason|difference|change|effect"
    r"|significant|single|clear|direct|real|known|further|two|sooner|thanks|offen[cs]e|surprise|choice"
    r"|exception|means|sign|information)|yes/no|yes or no"
    r"|yes-no|true/false|true or false|right (?:now|away|here|there|hand|side|after|before)|all right"
    r"|the right|correct(?:ly|ion)|no\. ?\d+)\b",
    regex.IGNORECASE,
)
_DENIED = regex.compile(r"\b(?:not|isn't|n't|never|cannot be|nicht|pas|не)\s+(?:\w+ly\s+)?$", regex.IGNORECASE)
#: After a leading "no", these begin a sentence of their own; any other word makes it a determiner ("no dogs bark").
_SENTENCE = regex.compile(
    r"\s*(?:[\p{P}\n]|$|\s(?:it|that|this|they|he|she|i|the|because|since|as|you|we|there|not|a|an|these"
    r"|those|its|his|her|if|in|for|es|el|la|lo|le"
    r"|il|elle|das|der|die|weil|porque|parce|and|but|sir|madam)\b)",
    regex.IGNORECASE,
)
_UNSPACED = regex.compile(
    r"\s*(?:不是的?|不对|不對|不|是的?|对|對|否|错误?|錯誤?|正确|正確|はい|いいえ|ええ|예|네|아니[요오]?|ใช่|ไม่ใช่|ไม่)"
)


def polarity(completion: str, gold: str) -> Score:
    wanted = POLARITIES.get(unstyled(plain(gold)).strip(" .\"'!").casefold())
    if wanted is None:
        return Score(None, None, f"unscored: the gold answer {gold[:40]!r} is neither yes nor no, true nor false")
    given = next((said for statement in statements(completion) if (said := _said(statement))), [])
    if len(set(given)) != 1:
        return Score(0.0, None, f"{'both answers are' if given else 'no answer'} given; expected {gold.strip()!r}")
    right = given[0] == wanted
    answer = "yes" if given[0] else "no"
    return Score(float(right), answer, "right" if right else f"answered {answer}, expected {gold.strip()!r}")


def is_polarity(gold: str) -> bool:
    """Whether a gold answer is yes or no, or true or false, in some language."""
    return unstyled(plain(gold)).strip(" .\"'!").casefold() in POLARITIES


def _said(statement: Statement) -> list[bool]:
    """What a statement answers: its first word, if that is an answer; else every answer in it."""
    text = _IDIOM.sub(" ", unstyled(statement.text)).strip(" \t\n\"'`*#:.-()[]{}$")
    if leading := _UNSPACED.match(text):
        return [
            POLARITIES.get(
                leading[0].strip().rstrip("的").casefold(), POLARITIES.get(leading[0].strip().casefold(), False)
            )
        ]
    found = [
        (match, POLARITIES[folded]) for match in _WORD.finditer(text) if (folded := match[0].casefold()) in POLARITIES
    ]
    found = [(match, answer) for match, answer in found if _is_answer(text, match, answer)]
    said = [answer != bool(_DENIED.search(text, max(0, match.start() - 20), match.start())) for match, answer in found]
    if (
        found
        and found[0][0].start() == 0
        and not regex.match(r"\s*(?:and|or|und|oder|et|ou|y|o|/)\s", text[found[0][0].end() :])
    ):
        return said[:1]
    return said


def _is_answer(text: str, match: regex.Match[str], answer: bool) -> bool:
    word = match[0].casefold()
    if (
        word
        in (
            "no",
            "ne",
            "so",
            "on",
            "ei",
            "oo",
            "da",
            "si",
            "ja",
            "tak",
            "hai",
            "ano",
            "non",
            "nie",
            "pas",
            "right",
            "correct",
            "wrong",
            "sai",
            "la",
        )
        and match.start()
    ):
        before = text[max(0, match.start() - 40) : match.start()].rstrip()
        announced = before.endswith((".", ",", ":", ";", "!", "-", "\n")) or regex.search(
            r"\b(?:is|be|say|so|then|answer|therefore|thus|hence|i'd say|but|(?:yes|no|true|false),? (?:and|or))$",
            before,
            regex.IGNORECASE,
        )
        return bool(announced) and _SENTENCE.match(text, match.end()) is not None
    if word in ("no", "non", "ne", "nie"):
        return _SENTENCE.match(text, match.end()) is not None
    return True


YES_NO = Grader(
    "yes-no",
    "the completion answers yes (true, correct) or no (false, incorrect) as the gold answer does, in many languages",
    "yes and true are one answer, and so are no and false; an answer without any of these words is wrong",
    polarity,
    suits=is_polarity,
)
