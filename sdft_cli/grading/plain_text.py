"""Text in one spelling: what differs only in how it is encoded, typed or set becomes equal, and nothing else does.

NFKC alone would turn x² into x2 and 1½ into 11/2; here powers keep their mark and fractions their distance. Signs,
operators and combining marks are kept.
"""

from __future__ import annotations

import re
import unicodedata

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
_POWER = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_VULGAR_FRACTION = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
_NATIVE_DIGIT = re.compile(r"(?![0-9])\d")
#: Invisible: soft hyphen, zero-width space, joiners beside letters, marks of writing direction.
_INVISIBLE = re.compile(
    "[\u00ad\u200b\u200c\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]|(?<=\\w)\u200d|\u200d(?=\\w)"
)
_SPELLINGS = str.maketrans(
    {
        **dict.fromkeys("−‒–—―‐‑﹣", "-"),
        **dict.fromkeys("‘’‚ʼ´′", "'"),
        **dict.fromkeys("“”„‟«»", '"'),
        **dict.fromkeys("⁄∕", "/"),
        "٫": ".",
        "٬": ",",
        "〜": "~",
        "∗": "*",
        "∶": ":",
    }
)
#: Points of Hebrew and Arabic vowels, which writers may leave out, and Arabic's stroke that lengthens a word.
_OPTIONAL_POINTS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u0652\u0670]")
_BOLD = re.compile(r"(?<![A-Za-z0-9*])\*\*(?=[^\s*])([^*\n]++)(?<=\S)\*\*")
_EMPHASIS = re.compile(r"(?<![A-Za-z0-9*])\*(?=[^\s*])([^*\n]++)(?<=\S)\*(?![A-Za-z0-9*])")
_UNDERSCORES = re.compile(r"(?<!\w)(__?)(?=[^\s_])([^_\n]++)(?<=\S)\1(?!\w)")
_CODE = re.compile(r"(?<!`)(`++)([^`\n]++)\1(?!`)")
_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n?", re.MULTILINE)
#: LaTeX commands that change how their argument looks, not what it means.
_STYLE = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|sc|normal)?|math(?:rm|bf|it|sf|tt|bb|cal|frak|normal)|operatorname\*?|mbox|hbox|fbox"
    r"|emph|underline|boldsymbol|bm|ensuremath|pmb)\s*\{([^{}]*)\}"
)
_HTML = re.compile(
    r"</?(?:(?-i:[biup])|em|strong|br|span|div|code|mark|big|small|h[1-6])(?:\s[^<>\n]{0,80})?/?>", re.IGNORECASE
)


def plain(text: str) -> str:
    """``text`` with one spelling for what Unicode has several of: widths, digits, spaces, dashes, quotes, powers."""
    if text.isascii():
        return text
    text = _POWER.sub(lambda power: "^" + "".join(_SUPERSCRIPTS[sign] for sign in power[0]), text)
    text = unicodedata.normalize("NFKC", _VULGAR_FRACTION.sub(" ", text).replace("№", "No. ")).translate(_SPELLINGS)
    return _NATIVE_DIGIT.sub(_ascii_digit, _INVISIBLE.sub("", text))


def _ascii_digit(character: re.Match[str]) -> str:
    digit = unicodedata.decimal(character[0], None)
    return character[0] if digit is None else str(digit)


def unpointed(text: str) -> str:
    """``text`` without the vowel points of Hebrew and Arabic."""
    return _OPTIONAL_POINTS.sub("", text)


def unstyled(text: str) -> str:
    """``text`` without Markdown's emphasis and code marks, and without HTML's and LaTeX's commands for style."""
    if "*" in text:
        text = _EMPHASIS.sub(r"\1", _BOLD.sub(r"\1", text))
    if "_" in text:
        text = _UNDERSCORES.sub(r"\2", text)
    if "`" in text:
        text = _CODE.sub(r"\2", _FENCE.sub("", text))
    if "\\" in text:
        for _ in range(4):  # nested commands, innermost first
            text = _STYLE.sub(r"\1", text)
    return _HTML.sub("", text) if "<" in text else text
