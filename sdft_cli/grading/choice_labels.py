"""Labels of options: how they are found in a text, and which ones a gold answer names.

A label is a letter (A, or any script's), a number or a Roman numeral, whichever the gold answer has. Small and capital
letters are equal, and so are letters that look alike in the Latin, Cyrillic and Greek scripts.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

import regex

from sdft_cli.grading.choice_words import (
    AND,
    BECAUSE,
    BUT,
    CHOOSE,
    CLOSE,
    CORRECTION,
    FILLERS,
    IS_RIGHT,
    NOT,
    NOUN,
    OPEN,
    OR,
    WHOLE,
)
from sdft_cli.grading.plain_text import plain, unstyled

Labels = frozenset[str]
#: Letters of other scripts that look like Latin ones, under which a model may write the same option.
_LOOK_ALIKES = str.maketrans(
    "АВСЕНІКМОРТХаверсохіΑΒΕΗΙΚΜΝΟΡΤΧ", "ABCEHIKMOPTXabepcoxiABEHIKMNOPTX".replace("abepcoxi", "abepcoxi")
)
_ROMAN = regex.compile(r"(?:VI{1,3}|I{2,3}|IV|IX|VI|XI{0,3})")


class Alphabet:
    """How a label of one kind is found: ``latin``, ``digit``, ``roman``, or another script's letters."""

    def __init__(self, kind: str):
        letter = {
            "latin": r"[A-Za-zА-Яа-яІіΑ-Ωα-ω]",
            "digit": r"\d{1,2}",
            "roman": r"(?:[ivx]{1,5}|[IVX]{1,5})",
        }.get(kind, rf"(?:\p{{{kind}}}\p{{M}}*)")
        script = r"\p{Latin}\p{Cyrillic}\p{Greek}" if kind in ("latin", "roman", "digit") else rf"\p{{{kind}}}"
        before = rf"(?<![{script}\p{{M}}\p{{N}}_^\\°])(?<![\p{{N}}\p{{L}}][.\-'])"
        after = rf"(?![{script}\p{{M}}\p{{N}}_^])(?![-.'+#°*][{script}\p{{N}}+#])(?![+#])"
        if kind == "latin":
            after = after.replace("'", "") + r"(?!'(?![dt][ıiuü]r)\p{Latin})"  # Turkish: "cevap B'dir"
        self.kind, self.label = kind, rf"{before}(?P<label>{letter}){after}"
        item = rf"{OPEN}{before}({letter}){after}{CLOSE}"
        or_ = rf"\(?(?:{OR}){WHOLE}(?:\s+(?:maybe|perhaps|possibly|else|even))?"
        joint = rf"\s*(?:(?P<or>{or_})|(?P<and>(?:{AND}){WHOLE})|(?P<comma>[,،、;]))\s*"
        joint += rf"(?:(?P<or2>{OR})\s+|(?:{AND})\s+)?(?:{NOUN}\s*)?"
        compile_ = functools.partial(regex.compile, flags=regex.IGNORECASE)
        self.item, self.joint = regex.compile(item), compile_(joint)
        self.denial = compile_(rf"{NOT}\s*(?:(?:the|option|choice|{NOUN})\s+)*{OPEN}{before}{letter}{after}{CLOSE}")
        self.contrast = compile_(BUT)
        self.anywhere = regex.compile(self.label)
        self.correction = compile_(CORRECTION)
        self.strong = compile_(rf"(?:{NOUN}\s*{OPEN}|[(\[【「]\s*|[:：]\s*|=\s*){self.label}")
        self.right = compile_(rf"{self.label}[)\]}}」】.:\"'*]*{IS_RIGHT}(?!\s+(?:not|to)\b)")
        self.chosen = compile_(rf"(?:(?<!\p{{Latin}})|(?<=[^\x00-\x7f])){CHOOSE}[ ]*(?:{FILLERS})?{OPEN}$")
        self._single = re.compile(_SINGLE[kind]) if kind in _SINGLE else self.anywhere
        self.alone = regex.compile(rf"\W{{0,40}}{item}\W*+")
        self.first = regex.compile(
            rf"[\s*_\"'`$]{{0,40}}{item}(?=[ \t]{{0,9}}(?:[.:,;)\]\n*、(]|-(?:\s|$)|=)|\s*$"
            rf"|\s+(?:{BECAUSE}|[iI] (?:think|guess|believe|would say)|obviously|of course)\b)"
        )
        self.line = regex.compile(rf"[\s*_\"'`#>-]*{item}(?:[.:]|(?<=[)\]]))")

    def labels(self, text: str, begin: int = 0) -> Iterator[regex.Match[str]]:
        """All labels in ``text`` from ``begin`` on."""
        for single in self._single.finditer(text, begin):
            if label := self.anywhere.match(text, single.start()):
                yield label


#: Finds what may be a label much faster than the whole rule.
_SINGLE = {
    "latin": r"(?<![A-Za-z0-9_])[A-Za-zА-Яа-яІіΑ-Ωα-ω](?![A-Za-z0-9_])",
    "digit": r"(?<![A-Za-z0-9_])\d{1,2}(?![A-Za-z0-9_])",
    "roman": r"(?<![A-Za-z0-9_])[IVXivx]{1,5}(?![A-Za-z0-9_])",
}


@functools.cache
def alphabet_of(kind: str) -> Alphabet:
    return Alphabet(kind)


# --- the gold answer --------------------------------------------------------------------------------------------------

_GOLD_ONE = regex.compile(
    rf"\W*(?:{NOUN}\s*)?\W*(?P<label>\p{{L}}\p{{M}}*|\d{{1,2}}|[IVX]{{1,5}}|[ivx]{{2,5}})\W*", regex.IGNORECASE
)
_GOLD_LIST = regex.compile(
    rf"\W*(?P<label>\p{{L}}|\d{{1,2}})\W*(?:(?:[,;、،/&+\s]|\b(?:{AND})\b)+\W*(?P<label>\p{{L}}|\d{{1,2}})\W*)+"
)
_GOLD_RUN = regex.compile(r"\W*([A-H]{2,8})\W*")
_GOLD_TEXT = regex.compile(
    r"\W{0,3}(?P<label>[A-Za-z]|\d{1,2}|\p{Lo})(?:[)\]}][.:]?|[.:、](?!\d))\s*(?P<text>\S.*)", regex.DOTALL
)
_KINDS = (
    "Cyrillic",
    "Greek",
    "Arabic",
    "Hebrew",
    "Devanagari",
    "Bengali",
    "Hangul",
    "Katakana",
    "Hiragana",
    "Han",
    "Thai",
    "Tamil",
    "Telugu",
)


class Gold(NamedTuple):
    """The labels that are right, the alphabet that they are of, and the option's own text ("" if it is not given)."""

    labels: Labels
    kind: str
    text: str = ""


def named(gold: str) -> Gold | None:
    """What a gold answer that is a label, a list of them, or a label before its option's text names; None for any
    other."""
    text = unstyled(plain(gold)).strip()
    if one := _GOLD_ONE.fullmatch(text):
        return _gold([one["label"]])
    if several := _GOLD_LIST.fullmatch(text):
        return _gold(several.captures("label"))
    if (run := _GOLD_RUN.fullmatch(text)) and list(run[1]) == sorted(set(run[1])):
        return _gold(list(run[1]))
    if with_text := _GOLD_TEXT.fullmatch(text):
        return _gold([with_text["label"]], with_text["text"])
    return None


def _gold(labels: list[str], text: str = "") -> Gold | None:
    kinds = {_kind(label) for label in labels}
    kind = kinds.pop() if len(kinds) == 1 else ""
    return Gold(frozenset(map(canonical, labels)), kind, text) if kind else None


def _kind(label: str) -> str:
    if label.isdigit():
        return "digit"
    if len(label) > 1 and label.isascii():
        return "roman" if _ROMAN.fullmatch(label.upper()) else ""
    if label.isascii() or canonical(label).isascii():
        return "latin"
    return next((kind for kind in _KINDS if regex.match(rf"\p{{{kind}}}", label)), "")


def canonical(label: str) -> str:
    return label.translate(_LOOK_ALIKES).upper()


def is_choice(gold: str) -> bool:
    """Whether a gold answer names options from A to J: a letter, alone or before the option's text, or several."""
    options = named(gold)
    return options is not None and options.kind == "latin" and all("A" <= label <= "J" for label in options.labels)
