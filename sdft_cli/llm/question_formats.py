"""The forms in which models write questions and answers: marked lines, numbered lists, tables, JSON.

A form is read whole or not at all. Within a reply only the marks that it uses count: where questions and answers are
marked in full ("Answer:"), a line "A: …" is part of the text around it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from sdft_cli.types import Json

Kind = Literal["q", "a"]
_QUESTIONS = ("question", "frage", "pregunta", "pergunta", "domanda", "vraag", "вопрос", "问题", "問題", "質問")
_ANSWERS = ("answer", "antwort", "respuesta", "resposta", "risposta", "antwoord", "réponse", "ответ", "答案", "回答")
_SHORT = {"q": "q", "问": "q", "問": "q", "a": "a", "答": "a"}
_KINDS: dict[str, str] = {**dict.fromkeys(_QUESTIONS, "q"), **dict.fromkeys(_ANSWERS, "a"), **_SHORT}
#: The word may follow a number or a heading's marks, and be followed by a number: "3. **Question 3:** …", "### Q:",
#: "Q1. …".
_MARK = re.compile(
    rf"[\W\d_]*?(?<![^\W\d_])(?P<word>{'|'.join(sorted(_KINDS, key=len, reverse=True))})(?![^\W\d_])[\s#*_]*"
    r"(?:\d*[\s*_.)]*(?:[:：](?P<rest>.*)|$)|\d+\s*[*_]*(?:[.)]|\s[-–—])[*_]*\s+(?P<numbered>.*))",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\s*(?:#+\s*)?[*_]*\(?\d+[.):][*_]*\s+(?P<rest>\S.*)")
#: A question with its answer on one line.
_INLINE = re.compile(rf"\s[*_]*(?:{'|'.join(_ANSWERS)})[*_\s]*[:：]", re.IGNORECASE)
#: What is said to whoever asked, and is part of no question or answer.
_REMARK = re.compile(
    r"\s*[*_(]*(?:i hope (?:this|these|they|that|it|you)|hope (?:this|these|that)|let me know|feel free|good luck"
    r"|please (?:let|note|feel|do)\b|(?:here|below) (?:are|is)\b|(?:these|those|the|all)(?: \w+){0,3} questions\b"
    r"|note[:*]|(?:sure|certainly|of course|bye|done|thanks|thank you)\b\W*(?:$|[!,.])|would you like"
    r"|is there anything|if you (?:need|want|would|have any|'d)|that'?s (?:all|it)\b|end of\b|total\W)",
    re.IGNORECASE,
)
_RULE = re.compile(r"\s*(?:[-*_=]\s*){3,}$|\s*```\w*\s*$")
_HEADING = re.compile(r"\s*#")
_QUESTION_KEYS, _ANSWER_KEYS = ("question", "q", "query", "prompt", *_QUESTIONS), ("answer", "a", "response", *_ANSWERS)
_LIKE_JSON = re.compile(rf"[\"'](?:{'|'.join(_QUESTION_KEYS)})s?[\"']\s*:|\[\s*\[\s*\"", re.IGNORECASE)
_JSON_START = re.compile(r"[{\[]")


class Block(NamedTuple):
    """A question or an answer, on one line."""

    kind: Kind
    text: str


class Blocks(NamedTuple):
    """The blocks of a reply in their order, and how many lines are outside of them."""

    blocks: list[Block]
    outside: int


# --- JSON -------------------------------------------------------------------------------------------------------------


def json_blocks(text: str) -> list[Block] | None:
    """The questions and answers in a reply of JSON, in whatever object or list they are; None if it is no such reply.

    What is complete is read of a reply that is cut off.
    """
    if not _LIKE_JSON.search(text):
        return None
    pairs = [pair for value in _json_values(text) for pair in _pairs_in(value)]
    if not pairs:
        return None
    return [block for question, answer in pairs for block in (Block("q", question), Block("a", answer))]


def _json_values(text: str) -> Iterator[Json]:
    """Every object or list of JSON in a text, outermost first; of a broken one, what is whole in it."""
    decoder, at = json.JSONDecoder(strict=False), 0
    while (found := _JSON_START.search(text, at)) is not None:
        try:
            value, at = decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            at = found.start() + 1
        else:
            yield value


def _pairs_in(value: Json) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        if len(value) == 2 and all(isinstance(each, str) for each in value) and value[0].strip().endswith(("?", "？")):
            yield _one_line(value[0]), _one_line(value[1])
            return
        for each in value:
            yield from _pairs_in(each)
    elif isinstance(value, dict):
        lower = {str(key).strip().lower(): each for key, each in value.items()}
        question, answer = (
            next((lower[k] for k in keys if k in lower), None) for keys in (_QUESTION_KEYS, _ANSWER_KEYS)
        )
        if isinstance(question, str):
            yield _one_line(question), _one_line(_as_text(answer))
        else:
            for each in value.values():
                yield from _pairs_in(each)


def _as_text(value: Json) -> str:
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(each, (str, int, float)) for each in value):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# --- tables -----------------------------------------------------------------------------------------------------------


def table_blocks(text: str) -> list[Block] | None:
    """The questions and answers in a Markdown table; None if there is none with such columns."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines() if "|" in line]
    for at, header in enumerate(rows):
        kinds = [_KINDS.get(cell.strip("*_ ").lower().removesuffix("s")) for cell in header]
        if "q" in kinds and "a" in kinds:
            question, answer = kinds.index("q"), kinds.index("a")
            body = [r for r in rows[at + 1 :] if len(r) == len(header) and not set("".join(r)) <= set("-: ")]
            pairs = [(row[question], row[answer]) for row in body]
            return [b for q, a in pairs for b in (Block("q", _one_line(q)), Block("a", _one_line(a)))]
    return None


# --- lines ------------------------------------------------------------------------------------------------------------


def line_blocks(text: str) -> Blocks:
    """The questions and answers in marked lines or a numbered list.

    A text goes on after a blank line unless it reads like a remark or a heading: an answer is never cut short.
    """
    lines = text.splitlines()
    marks = [_mark(line) for line in lines]
    full = {mark.kind for mark in marks if mark and not mark.short}
    if "q" not in {mark.kind for mark in marks if mark}:
        marks = [mark or _numbered(line) for mark, line in zip(marks, lines, strict=True)]
    parts: list[_Part] = []
    outside, after_blank, open_ = 0, False, False
    for line, mark in zip(lines, marks, strict=True):
        in_answer = open_ and parts[-1].kind == "a"
        if mark and (mark.kind not in full or not mark.short) and not (mark.short and mark.kind == "a" and in_answer):
            if mark.kind == "a" and parts and parts[-1].kind == "a" and not "".join(parts[-1].lines).strip():
                parts.pop()  # a numbered question waits for an answer with or without a mark
            parts += _started(mark)
            after_blank, open_ = False, True
        elif _RULE.match(line) or not line.strip():
            after_blank = True
        elif not open_ or (
            after_blank and "".join(parts[-1].lines).strip() and (_REMARK.match(line) or _HEADING.match(line))
        ):
            outside, open_ = outside + 1, False
        else:
            parts[-1].lines.append(line)
            after_blank = False
    return Blocks([Block(kind, _one_line(" ".join(part))) for kind, part in parts], outside)


class _Part(NamedTuple):
    """A block while its lines are read."""

    kind: Kind
    lines: list[str]


class _Mark(NamedTuple):
    """How a block begins: its kind, whether it is marked by a letter, the rest of the line; ``alone``: it is a numbered
    question, whose answer may have no mark."""

    kind: Kind
    short: bool
    rest: str
    alone: bool = False


def _mark(line: str) -> _Mark | None:
    found = _MARK.match(line)
    if not found:
        return None
    word = found["word"].lower()
    if word in _SHORT and found["numbered"] is not None and not re.search(r"[A-Za-z]\d", found[0]):
        return None  # "A 3. division" is no answer, "A3. …" is one
    kind: Kind = "q" if _KINDS[word] == "q" else "a"
    return _Mark(kind, word in _SHORT, found["rest"] or found["numbered"] or "")


def _numbered(line: str) -> _Mark | None:
    """A numbered line that is a question."""
    found = _NUMBER.match(line)
    if found and found["rest"].rstrip("*_ ").endswith(("?", "？")):
        return _Mark("q", False, found["rest"], alone=True)
    return None


def _started(mark: _Mark) -> list[_Part]:
    """The block, or the two of a question and its answer on one line, that a mark starts."""
    if mark.kind == "q" and (inline := _INLINE.search(mark.rest)):
        return [_Part("q", [mark.rest[: inline.start()]]), _Part("a", [mark.rest[inline.end() :]])]
    return [_Part(mark.kind, [mark.rest]), *([_Part("a", [])] if mark.alone else [])]


def _one_line(text: str) -> str:
    """A text without line breaks, emphasis around it, and a bullet before it."""
    return re.sub(r"^[-•–] ", "", " ".join(text.split()).strip("*_ "))
