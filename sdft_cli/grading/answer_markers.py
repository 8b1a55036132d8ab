"""The words that announce an answer, in many languages: "Answer: x", "Die Antwort ist x", "答案是x", "x is the answer".

A marker is searched for only where its noun occurs, so that most texts cost a few searches for plain words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import regex


class Found(NamedTuple):
    """Where a marker's line begins, where its answer begins and ends, its kind, and whether it denies ("no es")."""

    start: int
    answer: int
    end: int
    kind: str
    denied: bool = False


def _composed(pattern: str) -> regex.Pattern[str]:
    """A pattern for texts in the spelling of `plain_text.plain`, which takes some Thai and Lao vowels apart."""
    return regex.compile(unicodedata.normalize("NFKC", pattern), regex.IGNORECASE)


#: Words between the noun and "is" or a colon: "the answer to question 3 would be", "answer choice is".
_BETWEEN = (
    r"(?:[ ,]+(?:to|for|of|in|on|here|now|then|therefore|thus|hence|the|this|that|your|our|question|problem|part|riddle"
    r"|exercise|item|choice|option|letter|value|number|key|would|should|must|will|has|can|only|then"
    r"|clearly|\#?\d+)(?![\p{L}_])"
    r"|[ ]*\([^()\n]{0,30}\)){0,8}?"
)
_DECORATION = r"[ \t]*[*_`\"')\]]{0,4}[ \t]*"
_SEPARATOR = r"(?::+|=+>?|-+>|→|⇒|-(?=[ \t]))"
_NOUN = r"answers?|ans\b\.?"
_GOOD = (
    r"(?:correct|right|best|final|chosen|appropriate|accurate|true|valid|suitable|likely|my|proper)[ ]+"
    r"(?:option|choice|alternative|letter|response|statement|one|solution|result|value|pick|guess|selection)"
)
_IS = r"(?:is|was|are|be|equals)\b|'s\b"
_ENGLISH_NOUNS = tuple(
    "answer ans correct right best final chosen appropriate accurate true valid suitable likely my proper".split()
)
_NOUNS_BEFORE = ("answer", "choice", "option", "solution")
ENGLISH = regex.compile(
    rf"(?:{_NOUN}|{_GOOD})(?![\p{{L}}_]){_BETWEEN}"
    rf"(?:(?P<label>{_DECORATION}{_SEPARATOR}|(?<=\bans\.)(?=[ ]))|[ ,*_\"'`]*(?P<clause>{_IS})[ \t]*:?)",
    regex.IGNORECASE,
)
#: A heading with nothing beside it: the answer is on the next line.
HEADING = re.compile(
    r"^[ \t#>*_-]*+(?:the[ ]+|my[ ]+)?(?:final[ ]+|correct[ ]+)?answer[ \t#*_:.]*$", re.IGNORECASE | re.MULTILINE
)
#: "B is the answer": the answer precedes the words.
BEFORE = regex.compile(
    r"[ *_\"'`)]+(?:is|was|would be|must be|should be)[ ]+(?:the|my)[ ]+(?:(?:final|correct|right|best"
    r"|only|true|most \w+)[ ]+)*$",
    regex.IGNORECASE,
)
#: Nouns of results that are no answers by name; they count where nothing better is said.
_WEAK_NOUNS = tuple(
    "result output predict label categor class intent sentiment topic conclu solution verdict decision "
    "rating response choice"
    " option".split()
)
WEAK = regex.compile(
    r"^[ \t#>*_-]*(?:so|thus|therefore|hence)?[ ,]*(?:the[ ]+|my[ ]+)?(?:final[ ]+|predicted[ ]+"
    r"|correct[ ]+|overall[ ]+)?"
    r"(?P<noun>result|output|prediction|label|category|class|intent|sentiment|classification|topic"
    r"|conclusion|solution|verdict"
    rf"|decision|rating|response|choice|option)(?![\p{{L}}_])(?:[ ]+of[ ]+[^\n:]{{1,40}}?)?"
    rf"(?:(?P<label>{_DECORATION}{_SEPARATOR})|[ ]*[*_]*(?<!\p{{L}})(?P<clause>{_IS})[ \t]*:?)",
    regex.IGNORECASE | regex.MULTILINE,
)
#: Before "answer is", these show that none is given: "this answer is", "if the answer is", "many think the answer is".
UNANNOUNCED = regex.compile(
    r"\b(?:this|that|which|each|any|no|an|another|whose|wrong|incorrect|to|other|possible|such|what|their|every|please"
    r"|(?:if|whether|suppose|assume|assuming|unless|why|(?:would|might|may|could|people|students|some|many|others)"
    r"[ ]+(?:think|say|believe|assume|guess)(?:[ ]+that)?)[ ]+(?:the|my)?(?:[ ]+correct)?)[ ]*$",
    regex.IGNORECASE,
)

#: Nouns of other languages written with spaces between words, and their words for "is". A noun may have endings (case,
#: definiteness), and words may follow it (respuesta correcta, jawaban yang benar).
_SPACED = (
    r"antwort\w{0,2}|lösung|ergebnis|lautet",  # German
    r"réponse\w?|résultat|respuesta\w?|respuestas?|solución|risposta|resposta\w?|resultado|răspuns\w*",  # Romance
    r"antwoord|svaret?|vastaus|svar|svarið",  # Dutch, Scandinavian, Finnish
    r"odpowied\w+|odpověď|odpoveď|odgovor|válasz\w?|atsakymas|atbilde|vastus",  # Polish, Czech, Slovak, Croatian, …
    r"ответ\w?|відповідь|отговор\w*|одговор|адказ|жауап",  # Cyrillic
    r"απάντηση|απαντηση",
    r"cevap|cevab\w*|yanıt\w*|javob|cavab",  # Turkic
    r"jawaban(?:nya)?|jawapan|sagot|jibu|đáp án|câu trả lời|trả lời|antwurd|erantzuna|respondo",
    r"(?:ال)?(?:جواب|إجابة|اجابة|اجابه|إجابه)|پاسخ|ال?خيار الصحيح",
    r"ה?תשובה",
    r"उत्तर|जवाब|উত্তর|জবাব|પ્રશ્નનો જવાબ|જવાબ|ਜਵਾਬ|ਉੱਤਰ|பதில்|விடை|సమాధానం|జవాబు|ಉತ್ತರ|ഉത്തരം|පිළිතුර|መልስ",
    r"პასუხი|պատասխան\w*",
    r"정답|답변|답",
)
_SPACED_IS = (
    r"ist|lautet|wäre|beträgt|heißt|est|serait|sont|es|sería|son|è|e'|sarebbe|sono|é|seria|são|is|är|er"
    r"|on|to|jest|brzmi|je|zní"
    r"|este|és|είναι|это|является|це|هو|هي|هى|היא|הוא|है|হল|হলো|হচ্ছে|છે|là|adalah|ialah|yaitu|ay|ni|은|는"
)
OTHERS = _composed(
    rf"(?<![\p{{L}}\p{{M}}])(?P<noun>{'|'.join(_SPACED)})(?![\p{{Latin}}\p{{Cyrillic}}\p{{Greek}}])"
    rf"(?P<between>(?:[ ,]+(?!(?:{_SPACED_IS})(?![\p{{L}}\p{{M}}]))[\p{{L}}\p{{M}}'’]{{2,}}){{0,5}}?)"
    rf"(?:(?P<label>{_DECORATION}{_SEPARATOR})|[ *_]*(?P<clause>(?:{_SPACED_IS})(?![\p{{L}}\p{{M}}])"
    rf"|(?<=[답변])[은는])[ \t]*:?"
    r"|(?P<bare>[ ]+(?:\p{Ll}{1,2}[ ]+)?(?=[^\p{L}\n]*(?:\p{Lu}(?!\p{L})|\p{N}))))"
)
#: Languages without spaces: the noun may stand within a run of letters, and a word for "is" may be left out.
UNSPACED = _composed(
    r"(?:(?:正确|正確|最终|最終|最佳|标准|标準|参考)?(?:答案|选项|選項|答复|結果|结果)|(?<![回解问問作])答(?=\s*[::])|正解|答え|回答|解答)"
    rf"{_DECORATION}(?:应该|應該|应当|应|應|就|显然|只能|只有|当然|可能|必然|會|会|即|乃|便)?"
    rf"(?:(?P<label>{_SEPARATOR})|(?P<clause>[是为為选選系]|は|が|とは|である)[ \t]*:?"
    r"|(?P<bare>(?=[ \t]*[A-Za-z0-9($\\])))"
    r"|(?:คำตอบ|เฉลย)[\p{Thai}]{0,16}?(?:(?P<label>[ \t*]*:)|(?P<clause>คือ|เป็น)[ \t]*:?|(?P<bare>[ ]+(?=\S)))"
    r"|(?:ចម្លើយ|ຄຳຕອບ|ຄໍາຕອບ|အဖြေ)[\p{Khmer}\p{Lao}\p{Myanmar}]{0,20}?"
    r"(?:(?P<label>[ \t*]*:)|(?P<clause>គឺ|ແມ່ນ|မှာ|သည်)[ \t]*:?|(?P<bare>[ ]+(?=\S)))"
)


#: "La respuesta no es A".
DENIED = regex.compile(
    r"(?<!\p{L})(?:not|no|non|não|ne|не|nicht|nie|inte|ikke|değil|bukan|không|ليس|לא|नहीं)(?!\p{L})|不", regex.IGNORECASE
)


def found(text: str) -> Iterator[Found]:
    """Every marker in ``text``, with the rest of its line as its answer; ``kind`` is label, clause, before or weak."""
    folded = text.lower()
    if len(folded) != len(text):
        folded = text  # a letter whose small form is longer: positions would differ
    yield from _english(text, folded)
    if any(noun in folded for noun in (_ASCII_NOUNS if text.isascii() else _NOUNS)):
        for match in (*OTHERS.finditer(text), *UNSPACED.finditer(text)):
            yield _marker(text, match)
    for line in sorted({text.rfind("\n", 0, at) + 1 for at in _places(folded, _WEAK_NOUNS)}):
        if match := WEAK.match(text, line):
            yield _marker(text, match)._replace(kind="weak")


def _places(text: str, words: Iterable[str]) -> list[int]:
    """Where any of ``words`` begins; searching for each is faster than one pattern of all."""
    places = []
    for word in words:
        at = text.find(word)
        while at >= 0:
            places.append(at)
            at = text.find(word, at + len(word))
    return sorted(places)


def _english(text: str, folded: str) -> Iterator[Found]:
    end = 0
    for at in _places(folded, _ENGLISH_NOUNS):
        if at < end or (at and (text[at - 1].isalnum() or text[at - 1] == "_") and text[at - 1].isascii()):
            continue
        if match := ENGLISH.match(text, at):
            marker, end = _marker(text, match), match.end()
            if marker.kind == "label" or not UNANNOUNCED.search(text, max(marker.start, at - 40), at):
                yield marker
    if " the " in folded or " my " in folded:
        for at in _places(folded, _NOUNS_BEFORE):
            yield from _before(text, at)
    if "answer" in folded:
        for match in HEADING.finditer(text):
            yield Found(match.start(), match.end(), match.end(), "label")


def _before(text: str, noun: int) -> Iterator[Found]:
    if said := BEFORE.search(text, max(0, noun - 60), noun):
        start = _sentence_start(text, said.start())
        yield Found(start, start, said.start(), "before")


def _marker(text: str, match: regex.Match[str]) -> Found:
    start, end = text.rfind("\n", 0, match.start()) + 1, text.find("\n", match.end())
    kind = "label" if match["label"] is not None else "clause"
    denied = kind == "clause" and DENIED.search(match[0]) is not None
    return Found(start, match.end(), len(text) if end < 0 else end, kind, denied)


_SENTENCE_START = re.compile(r"[.!?。！？][\"')*_]*\s+|\n")


def _sentence_start(text: str, end: int) -> int:
    """Where the sentence begins that ends at ``end``; a sentence of an answer is short."""
    window = max(0, end - 200)
    return max((match.end() for match in _SENTENCE_START.finditer(text, window, end)), default=window)


#: What the nouns of other languages begin with: where none of these occurs, their patterns need not be tried.
_ASCII_NOUNS = (
    *(
        "antwo",
        "ergebnis",
        "respuesta",
        "risposta",
        "resposta",
        "resultado",
        "svar",
        "vastaus",
        "odpow",
        "odgovor",
        "lautet",
    ),
    *("atsakym", "atbilde", "vastus", "cevap", "cevab", "javob", "cavab", "jawab", "jawap", "sagot", "jibu", "antwurd"),
    *("erantzuna", "respondo"),
)
_NOUNS = tuple(
    unicodedata.normalize("NFKC", noun)
    for noun in (
        *_ASCII_NOUNS,
        *(
            "lösung",
            "réponse",
            "résultat",
            "soluci",
            "răspuns",
            "odpověď",
            "odpoveď",
            "válasz",
            "ответ",
            "відпов",
            "отговор",
        ),
        *(
            "одговор",
            "адказ",
            "жауап",
            "απάντησ",
            "απαντησ",
            "yanıt",
            "đáp án",
            "trả lời",
            "جواب",
            "إجاب",
            "اجاب",
            "پاسخ",
            "خيار",
        ),
        *(
            "תשובה",
            "उत्तर",
            "जवाब",
            "উত্তর",
            "জবাব",
            "જવાબ",
            "ਜਵਾਬ",
            "ਉੱਤਰ",
            "பதில்",
            "விடை",
            "సమాధానం",
            "జవాబు",
            "ಉತ್ತರ",
            "ഉത്തരം",
        ),
        *(
            "පිළිතුර",
            "መልስ",
            "პასუხი",
            "պատասխան",
            "답",
            "答",
            "选项",
            "選項",
            "结果",
            "結果",
            "正解",
            "คำตอบ",
            "เฉลย",
            "ចម្លើយ",
            "ຄຳຕອບ",
        ),
        *("ຄໍາຕອບ", "အဖြေ"),
    )
)
