"""Words of a text, such that two spellings of the same question have the same ones, and two questions do not.

The same are: canonical and compatible forms (full width, ligatures, styled letters), look-alike letters of other
scripts inside Latin text (a Cyrillic ``а`` for ``a``), kinds of dashes, quotes and spaces; invisible characters count
for nothing. Plain words, made of letters only, lose case and punctuation.

Different remain: superscripts and fractions (``x²``, ``x2``), accents, numbers, signs, formulas, code and SMILES, which
are compared as written; a word of mixed case (``mPa``, ``MPa``, ``getName``) or of one or two capitals (``CO``, ``Co``;
``A``, ``a``), unless the text is written so throughout; ``n!`` and ``n``, ``y'`` and ``y``.

Look-alikes are those of Unicode's confusables.txt for letters that look the same in most fonts. Small Greek letters are
variables in formulas and stay, except in a longer word of which the rest is Latin.
"""

from __future__ import annotations

import re
import unicodedata

#: A word of letters, without the punctuation around it.
_PLAIN = re.compile(r"[(\[\"'“‘]*([^\W\d_]+(?:['’-][^\W\d_]+)*)[)\]\"'”’.,;:?!…]*")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")  # Chinese and Japanese: every character is a word
#: Each letter of the first text looks like the one below it.
_LOOK_ALIKES = str.maketrans(
    "аАВсСԁеЕԌһНіІјЈКМоОрРԛѕЅТѵѴԝԜхХуУҮΑΒϹΕΗΙͿΚΜΝΟΡΤΥΧΖοϲϳհօոսցզՕՏՍ",
    "aABcCdeEGhHiIjJKMoOpPqsSTvVwWxXyYYABCEHIJKMNOPTYXZocjhonugqOSU",
)
#: In a longer Latin word only.
_GREEK = str.maketrans("αγικνρσυ", "ayikvpou")
_LATIN_AND_GREEK = re.compile(r"[A-Za-z]*[αγικνρσυ][A-Za-zαγικνρσυ]*")
_DASHES = dict.fromkeys("‐‑‒–—―−﹣－", "-")
_QUOTES = {**dict.fromkeys("‘’‚‛′`´", "'"), **dict.fromkeys("“”„‟″«»", '"')}
#: Compatibility forms that are the same character in another style; not superscripts, fractions and the like.
_STYLES = re.compile(r"<(wide|narrow|font|compat|noBreak|small|vertical|initial|medial|final|isolated)>")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1b\x7f]")
_LATIN, _OTHERS = re.compile(r"[A-Za-z]"), re.compile(r"[^\W\d_A-Za-z]")
_ALIKE = re.compile(f"[{''.join(map(chr, _LOOK_ALIKES))}]")
#: A text is Latin in disguise if so many times as many letters are Latin as are plainly of another script.
_FEW = 4
_LONG = 4


def chunks(text: str) -> list[str]:
    """The words of ``text`` as they stand, in one spelling; see `word` for what is compared."""
    if not text.isascii() or _CONTROLS.search(text):
        text = _UNSPACED.sub(r" \g<0> ", folded(text))
    listed = text.split()
    if text.islower() or 5 * _capitals(text) < len(text) - text.count(" "):
        return listed  # as nearly all texts are
    plain = [m[1] for chunk in listed if (m := _PLAIN.fullmatch(chunk)) and len(m[1]) > 1]
    if len(plain) > 2 and 2 * sum(not letters[1:].islower() for letters in plain) > len(plain):
        return [_lower(chunk) for chunk in listed]  # in capitals, or in mixed case: it says nothing here
    long = [letters for letters in plain if len(letters) >= _LONG]
    if len(long) > 4 and all(letters[0].isupper() and letters[1:].islower() for letters in long):
        return ["a" if chunk == "A" else chunk for chunk in listed]  # A Title: its A is an article
    return listed


def word(chunk: str) -> str:
    """What is compared of a chunk: a plain word without its case and punctuation, anything else unchanged."""
    plain = _PLAIN.fullmatch(chunk)
    if plain is None:
        return chunk
    letters = plain[1]
    if len(letters) == 1 and any(mark in chunk for mark in "!'’"):
        return chunk  # n!, y'
    usual = letters[1:].islower() or (letters.isupper() and len(letters) > 2)
    return letters.casefold() if usual else letters


def words(text: str) -> list[str]:
    return [word(chunk) for chunk in chunks(text)]


def folded(text: str) -> str:
    """``text`` with every character in its usual form: one width and style, nothing invisible, and in Latin text no
    letters of other scripts that only look Latin."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).translate(_FOLDED))
    if alike := len(_ALIKE.findall(text)):
        others = len(_OTHERS.findall(text)) - alike
        if _FEW * others <= len(_LATIN.findall(text)) or not others:
            text = text.translate(_LOOK_ALIKES)
    return _LATIN_AND_GREEK.sub(_latin, text)


def _latin(match: re.Match[str]) -> str:
    greek = sum(not letter.isascii() for letter in match[0])
    disguised = 2 * greek < len(match[0]) and len(match[0]) >= _LONG
    return match[0].translate(_GREEK) if disguised else match[0]


class _Folds(dict[int, str]):
    """Character -> its usual form, found when it is first met."""

    def __missing__(self, code: int) -> str:
        self[code] = form = _form(chr(code))
        return form


_FOLDED = _Folds()


def _form(character: str) -> str:
    if (form := _DASHES.get(character) or _QUOTES.get(character)) is not None:
        return form
    if _is_invisible(character):
        return ""
    if _STYLES.match(unicodedata.decomposition(character)):
        character = unicodedata.normalize("NFKC", character)
    return character


def _is_invisible(character: str) -> bool:
    import regex

    controls = unicodedata.category(character) == "Cc" and not character.isspace()
    return controls or regex.fullmatch(r"\p{Default_Ignorable_Code_Point}", character) is not None


def _capitals(text: str) -> int:
    """The number of capitals; of a text in another script, that of all its letters but the small ASCII ones."""
    raw = text.encode("utf-8", "replace")
    return len(raw) - len(raw.translate(None, _UPPER))


_UPPER = bytes(range(65, 91)) + bytes(range(128, 256))


def _lower(chunk: str) -> str:
    return chunk.casefold() if _PLAIN.fullmatch(chunk) else chunk
