"""The rule ``exact``: the final answer is the gold one, letter for letter.

Equal are spellings that differ in white space or in how Unicode writes a character (`grading.plain_text`), an answer
with and without the emphasis, quotes, dollars or code fence around all of it, and with and without a final full stop.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from sdft_cli.grading.final_answer import Statement, statements
from sdft_cli.grading.grader import Grader
from sdft_cli.grading.plain_text import plain, unstyled
from sdft_cli.types import Score

_FENCED = re.compile(r"```[^\n`]*\n(.*?)\n?```", re.DOTALL)
_WRAPPED = re.compile(
    r"\*\*(.+)\*\*|\*([^*]+)\*|`([^`]+)`|\"([^\"]+)\"|'([^']+)'|\$\$?([^$]+?)\$\$?|「([^」]+)」|『([^』]+)』"
    r"|\\\((.+)\\\)|\\\[(.+)\\\]"
    r"|\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}",
    re.DOTALL,
)
#: What a sentence of another language says after the answer.
_ENDING = re.compile(r"(?:です|である|だ|でした|입니다|이다|예요|이에요)$|\s(?:है|हैं|است|dır|dir)$")
_SENTENCE = re.compile(r"(?<=\w\w)\.\s+(?=[^\W\d_a-z])|[。！？]")


def exact(completion: str, gold: str) -> Score:
    expected = _expected(gold)
    if not expected:
        return Score(None, None, "unscored: the row has no gold answer")
    *_, whole = said = statements(completion)
    given = said[0]
    right = not expected.isdisjoint(_forms(whole.text)) or not expected.isdisjoint(stated_forms(given))
    written = shown(given.text)
    return Score(float(right), written, "right" if right else f"answered {written!r}, expected {gold.strip()!r}")


def shown(text: str) -> str:
    """An answer as it is reported: without what surrounds it, and no longer than a line or two."""
    return unwrapped(text.strip())[:200]


@functools.lru_cache(maxsize=4096)
def _expected(gold: str) -> frozenset[str]:
    *marked, whole = statements(gold)
    forms = set(_forms(whole.text))
    if marked and marked[0].kind != "json":
        forms |= stated_forms(marked[0])
    return frozenset(forms)


def stated_forms(statement: Statement) -> set[str]:
    """The forms of a stated answer: all that was stated, or only its first sentence."""
    text, forms = statement.text, set(_forms(statement.text))
    if statement.kind in ("label", "clause", "weak"):
        forms |= set(_forms(_SENTENCE.split(text, maxsplit=1)[0]))
    if statement.kind == "clause" and (bare := _ENDING.sub("", text.rstrip(" .。।"))) != text:
        forms |= set(_forms(bare))
    return forms


def _forms(text: str) -> Iterable[str]:
    """``text`` with one space between words, and without what surrounds it or ends it; nothing for an empty one."""
    forms, text = [], text.strip()
    for _ in range(4):
        forms += [" ".join(text.split()), " ".join(without_stop(text).split())]
        if (inner := unwrapped(without_stop(text))) == text or (inner := inner.strip()) == text:
            break
        text = inner
    return [form for form in forms if form]


def without_stop(text: str) -> str:
    """``text`` without the full stop at its end, in any script."""
    return (
        text[:-1].rstrip() if text[-1:] in ("。", "।", "۔", ".") and not text.endswith("..") and len(text) > 1 else text
    )


def unwrapped(text: str) -> str:
    """``text`` without the marks around all of it: emphasis, quotes, dollars, a code fence, LaTeX's for style."""
    if fenced := _FENCED.fullmatch(text):
        return fenced[1]
    wrapped = _WRAPPED.fullmatch(text)
    return next(group for group in wrapped.groups() if group is not None) if wrapped else text


def same(text: str) -> str:
    """``text`` in one spelling, without style, in small letters, with one space between words."""
    return " ".join(unstyled(plain(text)).casefold().split())


def same_forms(one: str, other: str) -> bool:
    """Whether two texts are equal but for white space and the spelling of characters."""
    return plain(one).split() == plain(other).split()


EXACT = Grader(
    "exact",
    "the final answer is the gold one, letter for letter; white space, a full stop and emphasis around it apart",
    "a right answer inside a sentence is wrong, and so is another capital letter",
    exact,
)
