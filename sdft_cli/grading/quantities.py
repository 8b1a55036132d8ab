"""Numbers in a text, however written: 1,000.5 · 1.000,5 · 1 000 · 3×10^5 · 1.2e-3 · 3/4 · 1 1/2 · \\frac{3}{4} · 50 %.

A number that is only a part of something else is marked ``loose``: of a range (10-20), an alternative (5 or 6), a sum,
a ratio, a date. It is no answer by itself.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from sdft_cli.grading.plain_text import plain, unstyled

#: Digits and powers of ten beyond these are not read: no answer has them, and computing with them takes long.
MOST_DIGITS, MOST_EXPONENT = 1000, 1000
_CURRENCY = r"(?:(?:US|CA|AU|NZ|HK|A|C|R|S)?[$€£¥₹₽₩₺₫฿₦₪]|USD|EUR|GBP|Rs\.?|CHF|INR|JPY|CNY|RMB)"
#: A minus is a sign unless something precedes it that it could be subtracted from.
_SIGN = r"(?:(?<![\w)\]}%°.])[-+]\s?)"
#: Of scripts with spaces between words: a digit after one belongs to a name (x1, CO2).
_LETTERS = "A-Za-z\u00c0-\u024f\u0370-\u052f"
_DIGITS = r"(?:\d{1,3}(?: \d{3})+(?![\d])(?:[.,]\d+)?|\d+(?:[.,'_]\d+)*|(?<![\d.])\.\d+)"
#: What multiplies the number before it; a million may be written in many languages.
_SCALE_WORDS = {
    "thousand": 10**3, "тысяч[аи]?": 10**3, "lakhs?": 10**5, "crores?": 10**7, "trillion": 10**12,
    "mil millones": 10**9, "milliard(?:en?|s)?": 10**9, "miliard[ioy]": 10**9, "billion": 10**9, "mrd": 10**9,
    "bn": 10**9, "миллиард(?:а|ов)?": 10**9, "bilh(?:ão|ões)": 10**9,
    "million(?:en|s)?": 10**6, "milion[iy]": 10**6, "milh(?:ão|ões)": 10**6, "mill(?:ón|ones)": 10**6, "mio": 10**6,
    "mn": 10**6, "миллион(?:а|ов)?": 10**6,
}  # fmt: skip
_SCALE_SIGNS = dict(zip("kKMB千천万萬만億亿억", (10**n for n in (3, 3, 6, 9, 3, 3, 4, 4, 4, 8, 8, 8)), strict=True))
_NUMBER = re.compile(
    rf"(?<![{_LETTERS}\d])(?<!\d\.)(?<![A-Za-z]-)(?<![_^])(?<!\^[-+({{])(?<!\^\(-)"
    rf"(?P<sign>{_SIGN})?(?:{_CURRENCY}\s?)?(?P<sign2>[-+])?(?P<whole>{_DIGITS})"
    r"(?:[eE](?P<e>[-+]?\d+)(?![\w]))?"
    r"(?:\s?[*xX]\s?10\s?(?:\^|\*\*)\s?[({]?(?P<ten>[-+]?\d+)[)}]?|\s?(?:\^|\*\*)\s?[({]?(?P<power>[-+]?\d+)[)}]?)?"
    r"(?:(?:\s+|\s*(?:and|&)\s+)(?P<top>\d+)\s?/\s?(?P<bottom>\d+)(?![\d/])|\s?/\s?(?P<over>\d+(?:\.\d+)?)(?![\d/]))?"
    r"(?P<percent>\s?(?:%|percent\b|per cent\b|pct\b|Prozent\b|por ?ciento\b|por cento\b|pour ?cent\b"
    r"|процент\w*|パーセント))?"
    rf"(?P<scale>\s?(?:(?i:{'|'.join(_SCALE_WORDS)})(?![^\W\d_])\.?|[kKMB]\b"
    rf"|[{''.join(_SCALE_SIGNS).lstrip('kKMB')}]))?"
)
_GROUPED = {
    ",": re.compile(r"(?!0,)\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}"),
    ".": re.compile(r"(?!0\.)\d{1,3}(?:\.\d{3})+"),
    " ": re.compile(r"\d{1,3}(?: \d{3})+"),
    "'": re.compile(r"\d{1,3}(?:'\d{3})+"),
    "_": re.compile(r"\d+(?:_\d+)+"),
}
#: Between two numbers: neither is an answer by itself.
_BETWEEN = re.compile(
    r"\s*(?:-|~|to|bis|à|a|al|до|至|到|から|or|oder|ou|o|or about|or maybe|或|或者|または|или|veya|atau|또는|vs\.?"
    r"|[*+^×÷:]|x|<|>|≤|≥|\.\.+|/)\s*"
    r"|\s*-\s*|\s+(?:times|plus|minus|divided by|mal|modulo|mod)\s+"
)
_LISTED = re.compile(r"\s*(?:,|;|、|and|und|et|y|e|и|和|&|,\s*and)\s*")
_FROM = re.compile(r"\b(?:between|zwischen|entre|from|von|de)\s*\Z", re.IGNORECASE)
_COMPARED = re.compile(r"(?<![-=>])[<>≤≥≠]\s*\Z|(?:\\(?:leq?|geq?|neq?|lt|gt)|!=)\s*\Z")
#: After a number: it is a factor or a coefficient.
_FACTOR = re.compile(
    r"\s?(?:\\?sqrt|√|\\?pi\b|π|!(?=[*+\-/]))|\s?[*]\s?[a-zA-Z(\\]|\^"
    r"|(?<=\d)[a-df-zA-DF-Z]\b(?=\s?[+\-*/^]\s?[\w(])|(?<=\d)i\b"
)


@dataclass(frozen=True)
class Quantity:
    """A number as it is ``written`` at ``start`` to ``end``; ``value`` is None where it is too long to be read.

    ``scale``: the word or letter after it (million) as a factor. ``percent``: a percent sign follows.
    """

    written: str
    start: int
    end: int
    value: Fraction | None
    scale: int = 1
    percent: bool = False
    loose: bool = False


def spelled(text: str) -> str:
    """``text`` with one notation for fractions, powers, products and groups of digits, LaTeX's included."""
    text = unstyled(plain(text))
    if "\\" in text or "{" in text:
        text = _without_latex(text)
    if "<" in text:
        text = re.sub(r"<<[^<>\n]*>>", "", text)  # a calculator's notes, as in GSM8K
        text = re.sub(r"<sup>([^<>\n]{1,20})</sup>", r"^\1", text)
        text = re.sub(r"</?[a-zA-Z][^<>\n]{0,40}>", "", text)
    if "&" in text:
        text = re.sub(r"&(?:nbsp|thinsp|#160);", " ", text)
    text = re.sub(r"\s?(?:±|\+/-|\\pm(?![a-z]))\s?\d[\d.,]*", "", text)
    return text.replace("×", "*").replace("·", "*").replace("⋅", "*")


_LATEX = [
    (re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)(?!\d)"), r" \1/\2"),
    (re.compile(r"(-?)\s*\\[dtc]?frac\s*\{\s*(-?)([^{}]+?)\s*\}\s*\{\s*([^{}]+?)\s*\}"), r" \1\2\3/\4"),
    (re.compile(r"\\(?:num|SI|si|qty)\s*\{([^{}]*)\}(?:\s*\{[^{}]*\})?"), r"\1"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"(?<=\d)\s*(?:\\[,;:! ]|~)\s*(?=\d)"), " "),
    (re.compile(r"\\[,;:! ]|~|\\(?:left|right|displaystyle|quad|qquad|limits)(?![a-zA-Z])|\\[()\[\]]"), " "),
    (re.compile(r"\\(?:times|cdot)(?![a-zA-Z])"), "*"),
    (re.compile(r"\^?\s*\{?\s*\\(?:circ|degree)(?![a-zA-Z])\s*\}?"), "°"),
    (re.compile(r"\\approx(?![a-zA-Z])|\\sim(?:eq)?(?![a-zA-Z])"), "≈"),
    (re.compile(r"\\([%$#&])"), r"\1"),
    (re.compile(r"\^\s*\{\s*([^{}]*?)\s*\}"), r"^\1"),
]


def _without_latex(text: str) -> str:
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return text


def quantities(text: str, listed: bool = False) -> list[Quantity]:
    """The numbers in a ``text`` that `spelled` has been applied to, from left to right.

    ``listed``: numbers in a list ("3, 4 and 5") are loose too.
    """
    comma = _decimal_comma(text)
    found = [_quantity(match, comma) for match in _NUMBER.finditer(text)]
    loose = [_alone(text, quantity) for quantity in found]
    for i, (one, other) in enumerate(itertools.pairwise(found)):
        between = text[one.end : other.start]
        joined = len(between) < 20 and (
            _BETWEEN.fullmatch(between)
            or (_LISTED.fullmatch(between) and (listed or _FROM.search(text[max(0, one.start - 12) : one.start])))
        )
        if joined or (between.strip() == "" and other.written[0] in "+-"):
            loose[i] = loose[i + 1] = True
    return [_loosened(quantity) if is_loose else quantity for quantity, is_loose in zip(found, loose, strict=True)]


def _alone(text: str, quantity: Quantity) -> bool:
    """Whether what stands beside a number makes it a part of something else."""
    before, after = text[max(0, quantity.start - 8) : quantity.start], text[quantity.end : quantity.end + 12]
    dated = re.match(r"[/:.,]\d|-\d", after) or re.search(r"\d[/:]\Z|\d[-.]\Z", before)
    if "," in quantity.written and before[-1:] in "([" and after[:1] in ")]" and before and after:
        return True  # a pair or an interval
    return bool(
        _COMPARED.search(before)
        or _FACTOR.match(after)
        or re.search(r"[√^]\s?\(?\Z|sqrt\s?[({]?\Z|\w\s?\*\s?\Z", before)
        or dated
    )


def _loosened(quantity: Quantity) -> Quantity:
    return Quantity(
        quantity.written, quantity.start, quantity.end, quantity.value, quantity.scale, quantity.percent, True
    )


def _decimal_comma(text: str) -> bool:
    """Whether a number in the text can only be read with a decimal comma (3,14 or 1.000,5), and none with a point."""
    if "," not in text:
        return False
    commas = re.search(r"(?<![\d.,])(?:0|\d{1,3}(?:\.\d{3})+|\d+),\d+(?![\d,.]*\d)", text)
    if not commas or _GROUPED[","].fullmatch(commas[0]):
        return False
    return not re.search(r"(?<![\d.,])(?:\d{1,3}(?:,\d{3})+|\d+)\.(?!\d{3}(?!\d))\d+(?![\d,])", text)


def _quantity(match: re.Match[str], comma: bool) -> Quantity:
    value = None
    with contextlib.suppress(ValueError, ZeroDivisionError):
        value = _value(match, comma)
    scale = _scale((match["scale"] or "").strip())
    return Quantity(match[0].strip(), match.start(), match.end(), value, scale, bool(match["percent"]), value is None)


def _value(match: re.Match[str], comma: bool) -> Fraction:
    value = _literal(match["whole"], comma)
    if match["e"] or match["ten"]:
        value *= _power(10, match["e"] or match["ten"])
    elif match["power"]:
        value = _power(value, match["power"])
    if match["top"]:
        value += Fraction(int(match["top"]), int(match["bottom"]))
    elif match["over"]:
        value /= Fraction(match["over"])
    return -value if "-" in ((match["sign"] or "") + (match["sign2"] or "")) else value


def _power(base: Fraction | int, exponent: str) -> Fraction:
    power = int(exponent[:8])
    if abs(power) > MOST_EXPONENT or abs(Fraction(base)) > 10**6:
        raise ValueError
    return Fraction(base) ** power


def _literal(written: str, comma: bool) -> Fraction:
    """Digits with separators as a number; ValueError where they are no number, such as 1.2.3 or 3,4,5."""
    if len(written) > MOST_DIGITS:
        raise ValueError
    marks = [mark for mark in written if not mark.isdigit()]
    last = marks[-1] if marks else ""
    if last in (",", ".") and (marks.count(last) == 1 or not _GROUPED[last].fullmatch(written)):
        whole, _, decimals = written.rpartition(last)
        ambiguous = len(marks) == 1 and _GROUPED[last].fullmatch(written)
        decimal = (comma if last == "," else not comma) if ambiguous else marks.count(last) == 1
        if decimal:
            return Fraction(f"{_ungrouped(whole)}.{decimals}")
    return Fraction(_ungrouped(written))


def _ungrouped(written: str) -> str:
    for mark, grouped in _GROUPED.items():
        if grouped.fullmatch(written):
            return written.replace(mark, "")
    if written and not written.isdigit():
        raise ValueError
    return written or "0"


def _scale(word: str) -> int:
    if word in _SCALE_SIGNS:
        return _SCALE_SIGNS[word]
    factors = (
        factor for written, factor in _SCALE_WORDS.items() if re.fullmatch(written, word.rstrip("."), re.IGNORECASE)
    )
    return next(factors, 1) if word else 1


# --- numbers in words -------------------------------------------------------------------------------------------------

_SMALL = dict(
    zip(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
        "sixteen seventeen"
        " eighteen nineteen".split(),
        range(20),
        strict=True,
    )
)
_SMALL |= {word: 10 * i for i, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
_LARGE = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_WORD = rf"(?:{'|'.join([*_SMALL, *_LARGE])})"
_IN_WORDS = re.compile(
    rf"\b(?P<sign>minus |negative )?(?P<words>{_WORD}(?:(?:[ -]|,? and )+{_WORD})*)\b(?! of\b)", re.IGNORECASE
)
_HAN = {**{c: i for i, c in enumerate("〇一二三四五六七八九")}, "零": 0, "两": 2, "兩": 2}
_HAN_UNITS = {"十": 10, "百": 100, "千": 1000}
_IN_HAN = re.compile(r"[负負]?[〇零一二两兩三四五六七八九十百千万萬亿億]+")


def in_words(text: str) -> Iterator[Fraction]:
    """Numbers written in English words (twenty-one) or Chinese numerals (二十一); "one of" is none."""
    for match in _IN_WORDS.finditer(text):
        value = _of_words(re.split(r"[ ,-]+", match["words"].lower()))
        yield Fraction(-value if match["sign"] else value)
    for han in _IN_HAN.findall(text):
        yield Fraction(-_of_han(han[1:]) if han[0] in "负負" else _of_han(han))


def _of_words(words: list[str]) -> int:
    total = part = 0
    for word in words:
        if word in _SMALL:
            part += _SMALL[word]
        elif word == "hundred":
            part = max(part, 1) * 100
        elif word in _LARGE:
            total, part = total + max(part, 1) * _LARGE[word], 0
    return total + part


def _of_han(numerals: str) -> int:
    total = part = digit = 0
    for numeral in numerals:
        if numeral in _HAN:
            digit = digit * 10 + _HAN[numeral] if digit else _HAN[numeral]
        elif numeral in _HAN_UNITS:
            part, digit = part + max(digit, 1) * _HAN_UNITS[numeral], 0
        else:
            total, part, digit = total + max(part + digit, 1) * (10**4 if numeral in "万萬" else 10**8), 0, 0
    return total + part + digit
