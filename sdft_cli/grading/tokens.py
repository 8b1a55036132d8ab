"""Text as tokens, for rules that count how many of them two texts share.

A token is a run of letters, digits and combining marks; in scripts that put no spaces between words each character
(with its marks) is one. Case and Unicode's presentation forms (full-width letters, ligatures) are ignored.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regex import Pattern

#: Scripts that put no spaces between words.
_UNSPACED = "".join(
    rf"\p{{Script={name}}}" for name in ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan")
)
_MARKS = r"[\p{M}\u200D\uFE0F]*"


@cache
def _token() -> Pattern[str]:
    import regex

    one = rf"[[{_UNSPACED}]&&[\p{{L}}\p{{N}}]\u30FC]{_MARKS}"
    return regex.compile(rf"(?V1){one}|(?:[[\p{{L}}\p{{N}}]--[{_UNSPACED}]]{_MARKS})+")


def tokens(text: str) -> list[str]:
    """The tokens of ``text``; in ASCII they are those of rouge-score without stemming."""
    return list(_token().findall(plain(text)))


def plain(text: str) -> str:
    """``text`` without case and presentation forms."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
