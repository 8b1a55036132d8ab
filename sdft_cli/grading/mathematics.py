"""The rule ``math``: the final answer is mathematically equal to the gold one, by math-verify and sympy.

Answers that are equal as numbers (`grading.numbers`) or as texts are right without them. All else is compared in a
process of its own, as both libraries may hang: such a row is unscored.
"""

from __future__ import annotations

import functools
import importlib.util
import re

from sdft_cli.errors import UsageError
from sdft_cli.grading.exactness import same, shown
from sdft_cli.grading.final_answer import Statement, statements
from sdft_cli.grading.grader import Grader
from sdft_cli.grading.numbers import is_number, number
from sdft_cli.grading.plain_text import plain, unstyled
from sdft_cli.sandbox.workers import Worker
from sdft_cli.types import Score

HINT = "pip install 'sdft-cli[math]'"
#: Seconds of processor time for one comparison, and of real time on a machine that is busy.
SECONDS, PATIENCE = 5.0, 60.0
#: Longer expressions are not compared: no gold answer is so long, and parsing takes more than linear time.
LONGEST = 2000
_LIBRARIES = ("math_verify", "latex2sympy2_extended", "antlr4")
_worker = Worker("mathematics.py", HINT)
_BECAUSE = re.compile(
    r"\s(?:because|since|as|where|for which|so that|which|weil|porque|car)\s|;\s|\.\s+(?=[A-Z])|[。\n]"
)
_MATH = re.compile(r"\$\$?[^$]+\$\$?|\\\(.+?\\\)|\\\[.+?\\\]", re.DOTALL)
_LAST_WORDS = re.compile(r"[\s.。,;:]+$")
_IS = re.compile(r"^.*(?:\b(?:is|are|equals?|gives|get|be)\b|(?<=[^\W\d]):)\s*", re.DOTALL)
_SOLUTION = re.compile(r"^\s*[a-zA-Z](?:_\w)?\s*(?:=|\\in)\s*")


def ready() -> None:
    """Raise `UsageError` unless math-verify is installed."""
    if missing := [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]:
        raise UsageError(f"grader 'math' needs math-verify, and {missing[0]} is not installed", HINT)


def mathematics(completion: str, gold: str) -> Score:
    stated = statements(completion)[0]
    wanted = statements(gold)[0]
    if not wanted.text.strip():
        return Score(None, None, "unscored: the row has no gold answer")
    given = unstyled(stated.text)
    if same(_bare(stated.text)) == same(_bare(wanted.text)):
        return Score(1.0, shown(stated.text), "right")
    if _is_word(wanted.text):
        return Score(0.0, shown(stated.text), f"answered {shown(stated.text)[:80]!r}, expected {gold.strip()!r}")
    if is_number(_bare(wanted.text)) and (score := number(completion, gold)).value == 1.0:
        return score
    if not given.strip():
        return Score(0.0, None, f"no answer found; expected {gold.strip()!r}")
    return _compared(tuple(_candidates(stated)), tuple(_candidates(wanted)))


@functools.lru_cache(maxsize=4096)
def _compared(given: tuple[str, ...], wanted: tuple[str, ...]) -> Score:
    if max(map(len, (*given, *wanted))) > LONGEST:
        return Score(None, None, f"unscored: an expression of more than {LONGEST} characters is not compared")
    verdict = _worker.ask({"gold": wanted, "given": given, "seconds": SECONDS}, PATIENCE)
    if verdict is None:
        return Score(None, None, f"unscored: comparing took more than {SECONDS:g} s")
    if "unscored" in verdict:
        return Score(None, None, f"unscored: {verdict['unscored']}")
    read = verdict["read"]
    return Score(
        float(verdict["right"]),
        read,
        "right" if verdict["right"] else f"answered {read or given[0][:80]}, expected {wanted[0]}",
    )


def _candidates(statement: Statement) -> list[str]:
    """How a statement's expression may be set for math-verify, the likeliest first."""
    text = plain(statement.text).strip()
    if statement.kind == "whole":
        text = next((line for line in reversed(text.split("\n")) if line.strip()), "")
    if statement.kind in ("whole", "clause", "label", "weak") and (math := _MATH.findall(text)):
        return [math[-1] if statement.kind == "whole" else math[0], text]
    if statement.kind == "whole" and (said := _IS.sub("", text)) != text and said.strip():
        return [f"${_bare(said)}$", f"${_bare(text)}$"]
    return [f"${_bare(_BECAUSE.split(text, maxsplit=1)[0])}$", text]


def _bare(text: str) -> str:
    """An expression without the marks of mathematics around it and the full stop after it."""
    text = _LAST_WORDS.sub("", plain(text).strip())
    while text[:1] == "$" and text[-1:] == "$" and len(text) > 1:
        text = text[1:-1]
    if (text.startswith("\\(") and text.endswith("\\)")) or (text.startswith("\\[") and text.endswith("\\]")):
        text = text[2:-2]
    return text.replace("\\$", "").strip()


def _is_word(text: str) -> bool:
    """Whether a gold answer is a word, which would be read as a product of its letters."""
    return re.fullmatch(r"[^\W\d_]{3,}(?:[ -][^\W\d_]+)*", unstyled(_bare(text)).strip()) is not None


_LATEX = re.compile(r"\\[a-zA-Z]+|[a-zA-Z0-9)}]\s*\^\s*[{\w]")
_FORMULA = re.compile(r"[\s\w.,+\-*/^=()\[\]{}|<>!%°\\$&;:∪∩∞π√≤≥±]*")


def is_mathematics(gold: str) -> bool:
    """Whether a gold answer is an expression that the rule can compare here: LaTeX, a power, a number."""
    text = plain(gold).strip()
    if (
        len(text) > 200
        or not _FORMULA.fullmatch(text)
        or any(importlib.util.find_spec(name) is None for name in _LIBRARIES)
    ):
        return False
    words = re.findall(r"(?<!\\)\b[a-zA-Z]{3,}", re.sub(r"\\(?:text|mathrm|begin|end)\s*\{[^{}]*\}", "", text))
    return not words and (_LATEX.search(text) is not None or is_number(text))


MATH = Grader(
    "math",
    "the final answer equals the gold one mathematically: expressions, fractions, sets, intervals, matrices, with LaTeX"
    " or without",
    "numbers that agree in six decimals are equal; a pair and an open interval are both written (1, 2), and are equal;"
    " what math-verify cannot read in the completion is wrong, and what takes it more than 5 s is unscored",
    mathematics,
    suits=is_mathematics,
    ready=ready,
)
