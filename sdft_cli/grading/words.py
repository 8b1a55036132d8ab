"""A text as words, numbers and signs, so that one can be found within another.

Words are those of Unicode, with their combining marks; small and capital letters are equal. In scripts without spaces
each character (grapheme) stands for itself, but for Katakana, whose runs are words. Signs and operators are kept;
punctuation, brackets and hyphens within words are not.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

import regex

from sdft_cli.grading.plain_text import plain, unpointed, unstyled

_NO_SPACES = r"\p{Han}\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_TOKEN = regex.compile(
    r"(?P<number>(?<=[(\[{])\d+(?=(?:,-?\d+)+[)\]}])|(?<=[(\[{](?:-?\d+,){1,9}-?)\d+|\d+(?:[.,:]\d+)+|\d+|(?<![\p{L}\d.])\.\d+)"
    rf"|(?P<kana>[\p{{Katakana}}ー\u3099\u309a]+)|(?P<character>(?=[{_NO_SPACES}])\X)"
    rf"|(?P<word>(?![{_NO_SPACES}\p{{Katakana}}])[\p{{L}}\p{{M}}\p{{Pc}}]"
    rf"(?:(?![{_NO_SPACES}\p{{Katakana}}])[\p{{L}}\p{{M}}\p{{Pc}}\d])*+)"
    r"|(?P<sign><=|>=|!=|==|->|=>|\+\+|--|[\p{S}%#&@*/\\\-!?§†‡•…])"
)
_GROUPED_DIGITS = regex.compile(r"\d{1,3}(?:,\d{3})+")
#: One sign for what may be written as several.
_SIGNS = {
    "<=": "≤",
    ">=": "≥",
    "!=": "≠",
    "==": "=",
    "->": "→",
    "=>": "⇒",
    "×": "*",
    "·": "*",
    "⋅": "*",
    "÷": "/",
}
_LATEX = {
    "geq": "≥", "ge": "≥", "leq": "≤", "le": "≤", "neq": "≠", "ne": "≠", "times": "*", "cdot": "*", "div": "/",
    "pm": "±", "to": "→", "rightarrow": "→", "Rightarrow": "⇒", "infty": "∞", "cup": "∪", "cap": "∩", "in": "∈",
    "neg": "¬", "approx": "≈", "pi": "π", "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "theta": "θ",
    "lambda": "λ", "mu": "μ", "sigma": "σ", "omega": "ω", "circ": "°", "%": "%", "$": "$", "sqrt": "√",
    "lt": "<", "gt": ">",
}  # fmt: skip
_COMMAND = regex.compile(r"\\([a-zA-Z]+|[%$])")
_FRACTION = regex.compile(r"\\[dt]?frac\s*\{([^{}]+)\}\s*\{([^{}]+)\}")
_DOLLARS = regex.compile(r"\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\d)|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_SUBSCRIPT = regex.compile(r"(?<=\p{L})_\{?(\d+)\}?(?![\p{L}\d_])|(?<=\p{L})_\{?(\d+)\}?(?=\p{Lu})")
_PRODUCT = regex.compile(r"(?<=(?<!\w)\w\s?)[·⋅](?=\s?\w(?!\w))")
_PERCENT = regex.compile(r"(?<=\d)\s?(?:percent|per cent)\b", regex.IGNORECASE)


#: Before a gold answer they do not matter: the Beatles are Beatles.
ARTICLES = ("a", "an", "the")


class Token(NamedTuple):
    """A word, number or sign; ``glued``: no space separates it from the one before."""

    text: str
    kind: str
    glued: bool


def tokens(text: str) -> list[Token]:
    """The words, numbers and signs of ``text`` in one spelling."""
    return _tokens(_one_spelling(text))


def tokens_near(text: str, gold: str) -> Iterator[list[Token]]:
    """`tokens` of the parts of ``text`` in which ``gold`` may occur: a long text need not be taken apart as a whole."""
    text, anchor = _one_spelling(text), _anchor(gold)
    if not anchor or len(text) <= 3 * _AROUND:
        yield _tokens(text)
        return
    start, end, places = 0, -1, 0
    at = text.find(anchor)
    while at >= 0 and places < _MOST_PLACES:
        if at - _AROUND > end >= 0:
            yield _tokens(text[start:end])
            start = at - _AROUND
        start = start if end >= 0 else max(0, at - _AROUND)
        end, places = at + len(gold) + _AROUND, places + 1
        at = text.find(anchor, at + 1)
    if end >= 0:
        yield _tokens(text[start : None if at >= 0 else end])


#: Characters around a place that tell whether it is the gold answer; places after which the rest is read as a whole.
_AROUND, _MOST_PLACES = 80, 50


@functools.lru_cache(maxsize=4096)
def _anchor(gold: str) -> str:
    """The longest part of a gold answer that a text with it must have as it is; "" where there is none."""
    runs, end = [""], False
    for token in gold_tokens(gold):
        if token.kind == "character" and token.glued and end:
            runs[-1] += token.text
        elif token.kind in ("character", "kana", "word") and token.text not in ARTICLES:
            runs.append(token.text)
        end = token.kind == "character"
    return max(runs, key=len)


def _tokens(spelled: str) -> list[Token]:
    found, end = [], -1
    for match in _TOKEN.finditer(spelled):
        kind, written = match.lastgroup or "", match[0]
        if kind == "number":
            written = written.replace(",", "") if _GROUPED_DIGITS.fullmatch(written) else written
            written = f"0{written}" if written[0] == "." else written
        found.append(Token(_SIGNS.get(written, written), kind, match.start() == end))
        end = match.end()
    return _without_hyphens(found)


def _one_spelling(text: str) -> str:
    text = plain(text)
    if "\\" in text or "$" in text:
        text = _DOLLARS.sub(lambda math: next(filter(None, math.groups())), text)
    text = unstyled(text)
    if "\\" in text:
        text = _FRACTION.sub(r"\1/\2", text)
        text = _COMMAND.sub(lambda command: _LATEX.get(command[1], command[1] + " "), text)
    if "_" in text:
        text = _SUBSCRIPT.sub(lambda subscript: subscript[1] or subscript[2], text)
    text = _PRODUCT.sub("*", _PERCENT.sub("%", text))
    folded = unpointed(text.replace("İ", "i")).casefold()
    return unicodedata.normalize("NFC", folded)


def _without_hyphens(found: list[Token]) -> list[Token]:
    """Without the dashes that join or separate words ("well-known", "Covid-19", "Paris - the city")."""
    kept = []
    for i, token in enumerate(found):
        if token.text in ("-", "--") and i and i + 1 < len(found):
            before, after = found[i - 1], found[i + 1]
            joins = _is_long(before) and (token.glued or not after.glued)
            if joins or (_is_long(after) and before.kind in ("word", "number") and token.glued and after.glued):
                continue
        kept.append(token)
    return kept


def _is_long(token: Token) -> bool:
    """A word that is no variable of a formula."""
    return token.kind in ("kana", "character") or (token.kind == "word" and len(token.text) > 1)


@functools.lru_cache(maxsize=4096)
def gold_tokens(gold: str) -> tuple[Token, ...]:
    """`tokens` of a gold answer, kept since each is needed for many completions."""
    return tuple(tokens(gold))
