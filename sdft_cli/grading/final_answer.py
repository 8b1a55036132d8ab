"""The final answer that a completion marks as such, and every weaker statement of one.

Marks, from the strongest: ``<answer>…</answer>``; ``\\boxed{…}``; ``{"answer": …}``; ``#### …``; "Answer: …", "the
answer is …", "… is the answer" in many languages (`grading.answer_markers`). Of several of one strength, the last
counts. What a model writes after a further turn has begun ("Question: …") is not read.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from sdft_cli.grading import answer_markers
from sdft_cli.grading.plain_text import plain
from sdft_cli.grading.thinking import strip_reasoning
from sdft_cli.types import Json


class Statement(NamedTuple):
    """An answer as it stands in a completion, and how it is marked: ``tag``, ``box``, ``json``, ``hash``, ``label``
    ("Answer: x"), ``clause`` ("the answer is x"), ``before`` ("x is the answer"), ``weak`` or ``whole`` (unmarked)."""

    text: str
    kind: str

    @property
    def marked(self) -> bool:
        return self.kind != "whole"


_TAG = re.compile(
    r"<(?P<name>answer|final_answer|final-answer|finalanswer|final|ans|choice|label|result)>"
    r"(?P<text>.*?)(?:</(?P=name)>|(?=<(?P=name)>)|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_BRACKETED = re.compile(r"\[ANSWER\](.*?)(?:\[/ANSWER\]|\Z)|\[\[[ ]*([^\[\],\n]{1,60}?)[ ]*\]\]", re.DOTALL)
_BOX = re.compile(r"\\(?:f?boxed|fbox)\s*(?P<brace>\{)?")
_JSON_ANSWER = re.compile(
    r"""["'](?:(?:final|correct|predicted)?[ _]?answer|ans)["']\s*:\s*"""
    r"""("(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+'|[^\s,{}\[\]]+|\[[^\[\]{}]*\])""",
    re.IGNORECASE,
)
_HASH = re.compile(r"^[ \t]*####[ \t]*(?P<text>\S[^\n]*)", re.MULTILINE)
_HEADING = re.compile(r"(?:[^\W\d_]{2,}\b[^\n]*|\d+[.)][ \t].*)")
#: A model without a stop goes on with a question of its own, or with another turn of the chat.
_TURN = re.compile(
    r"^[ \t]*(?:#+[ \t]*|\*\*)?(?:Question|Problem|Human|User|Instruction|Exercise|Input|Q|Frage|Pregunta"
    r"|Вопрос|问题|题目|問題)"
    r"[ \t]*\d*(?:\*\*)?[ \t]*[:：]",
    re.MULTILINE,
)
_END_TOKEN = re.compile(
    r"<\|(?:im_end|im_start|endoftext|eot_id|eom_id|end|user|assistant|end_of_text|return)\|>|</s>|<eos>"
    r"|<end_of_turn>|\[INST\]"
)
_CLEAR = re.compile(
    r"(?:(?:clear(?:ly)?|obvious(?:ly)?|simpl[ey]|as follows|the following|this|below|therefore|thus|here"
    r"|then|now|definitely"
    r"|easy|given below|hence)[ ,]*){1,3}(?::|-(?=\s))\s*",
    re.IGNORECASE,
)
#: What follows "the answer is" without being an answer.
_NO_ANSWER = re.compile(
    r"(?:based on|consistent|the most\b|correct\b|right\b|wrong|incorrect|clear\b|obvious|as follows"
    r"|below|found|obtained"
    r"|derived|supported|given\b|in the\b|that\b|unclear|unknown|not\b|provided|determined|explained|also\b|as simple"
    r"|straightforward|(?:in)?complete|easy|true that)",
    re.IGNORECASE,
)
_SO = re.compile(
    r"(?:(?:so|thus|therefore|hence|and|but|then|ok(?:ay)?|well|i (?:think|believe|guess)(?: that)?)\b[ ,:]*)+", re.I
)
_MARKS = ("**", "__", "*", "`", '"', "'", "_", "$")
_WORDS_OF_AN_ANSWER = 5


def final_answer(completion: str) -> tuple[str, bool]:
    """The final answer, and whether the completion marks it as such."""
    first = statements(completion)[0]
    return (trimmed(first.text) if first.marked else first.text), first.marked


def trimmed(text: str) -> str:
    """``text`` without the emphasis and full stop around it; what has a meaning of its own (5*, C#) is kept."""
    text = text.strip()
    if text[-1:] in "。।" or (text.endswith(".") and not text.endswith("..")):
        text = text[:-1].rstrip()
    for mark in _MARKS[:4]:
        if text.startswith(mark) and text.endswith(mark) and len(text) > 2 * len(mark):
            text = text[len(mark) : -len(mark)].strip()
    return text[:-1] if text.endswith(".") and not text.endswith("..") and text.count(".") == 1 else text


def statements(completion: str) -> list[Statement]:
    """All statements of an answer in a completion, the one that counts first; the last is the whole text, unmarked.

    The text is in the spelling of `plain_text.plain`, without thinking.
    """
    text = spoken(completion)
    return [*_marked(text), Statement(text.strip(), "whole")]


def spoken(completion: str) -> str:
    """A completion without its thinking and without further turns, in the spelling of `plain_text.plain`."""
    return _first_turn(plain(strip_reasoning(completion)))


def _first_turn(text: str) -> str:
    end = next((token.start() for token in _END_TOKEN.finditer(text) if text[: token.start()].strip()), None)
    text = text[:end]
    for turn in _TURN.finditer(text):
        before = text[: turn.start()]
        if before.strip() and (len(before.split()) <= _WORDS_OF_AN_ANSWER or _marked(before)):
            return before
    return text


def _marked(text: str) -> list[Statement]:
    strong = [*_tags(text), *_boxes(text), *_json(text), *_hashes(text)]
    said = sorted(_said(text), key=lambda marker: -marker.answer)[:_MOST]
    stated = [(marker.kind, _answer_of(text, marker)) for marker in said]
    clear = [
        Statement(answer, kind) for kind, answer in stated if answer and not _NO_ANSWER.match(answer) and kind != "weak"
    ]
    vague = [
        Statement(answer, kind) for kind, answer in stated if answer and _NO_ANSWER.match(answer) and kind != "weak"
    ]
    weak = [Statement(answer, kind) for kind, answer in stated if answer and kind == "weak"]
    return [*strong, *clear, *vague, *weak]


def _said(text: str) -> list[answer_markers.Found]:
    """The markers at the end of a long text, where an answer is expected; all of them where there is none."""
    if len(text) > _LONG:
        begin = text.rfind("\n", 0, len(text) - _LONG // 2) + 1 or len(text) - _LONG // 2
        late = [found for found in answer_markers.found(text[begin:]) if found.kind != "weak"]
        if late:
            return [
                found._replace(start=found.start + begin, answer=found.answer + begin, end=found.end + begin)
                for found in late
            ]
    return list(answer_markers.found(text))


_LONG = 4000


def _last(matches: Iterator[re.Match[str]]) -> Iterator[re.Match[str]]:
    """The last few matches, from the end: the last mark counts, and the others only where it says nothing."""
    return reversed(deque(matches, maxlen=_MOST))


#: Marks of a kind that are read, and characters of an answer that are.
_MOST, _LONGEST = 20, 2000


def tagged(text: str) -> Iterator[str]:
    """What stands in the tags of a final answer, the last one first."""
    if "<" in text:
        yield from (tag["text"] for tag in _last(_TAG.finditer(text)))
    if "[" in text:
        yield from (each[2] if each[1] is None else each[1] for each in _last(_BRACKETED.finditer(text)))


def _tags(text: str) -> Iterator[Statement]:
    for inside in tagged(text):
        yield from _within(inside, "tag")


def _within(text: str, kind: str) -> Iterator[Statement]:
    """What is marked within a mark, such as a box within a tag, and then all of it."""
    if text.strip():
        yield from (inner for inner in _marked(text) if inner.kind in ("box", "json", "hash", "label", "clause"))
        yield Statement(text.strip(), kind)


def _boxes(text: str) -> Iterator[Statement]:
    if "\\" not in text:
        return
    for box in _last(_BOX.finditer(text)):
        inner = _braced(text, box.end()) if box["brace"] else text[box.end() :].split(maxsplit=1)[:1]
        content = inner if isinstance(inner, str) else "".join(inner or [])
        if content.strip():
            yield Statement(content.strip(), "box")


def _braced(text: str, start: int) -> str | None:
    """``text`` from ``start`` to the brace that closes the one before it; None where nothing closes it."""
    depth = 1
    for brace in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[start : brace.start()]
    return None


_BRACE = re.compile(r"\\[{}]|[{}]")


def _json(text: str) -> Iterator[Statement]:
    if ":" not in text or not ("{" in text or '"' in text):
        return
    for answer in _last(_JSON_ANSWER.finditer(text)):
        yield Statement(_json_text(answer[1]), "json")
    if (value := _only_value(text)) is not None:
        yield Statement(_written(value), "json")


def _json_text(written: str) -> str:
    if written.startswith("'"):
        return written[1:-1]
    try:
        return _written(json.loads(written))
    except (ValueError, RecursionError):
        return written


def _written(value: Json) -> str:
    if isinstance(value, list):
        return ", ".join(map(_written, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _only_value(text: str) -> Json:
    """The value of a completion that is nothing but a JSON object with one key whose value is no object."""
    bare = re.sub(r"^\s*```\w*|```\s*$", "", text).strip()
    if not (bare.startswith("{") and bare.endswith("}")) or len(bare) > 1000:
        return None
    try:
        value = json.loads(bare)
    except (ValueError, RecursionError):
        return None
    only = next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else None
    return only if isinstance(only, str | int | float) and only != "" else None


def _hashes(text: str) -> Iterator[Statement]:
    """``#### 72``; but Markdown's headings of the fourth level begin with a word and are followed by text."""
    if "####" not in text:
        return
    for mark in _last(_HASH.finditer(text)):
        if not _HEADING.fullmatch(mark["text"].strip(" *#:")) or not text[mark.end() :].strip():
            yield Statement(mark["text"].strip(), "hash")


# --- what a marker announces ------------------------------------------------------------------------------------------


def _answer_of(text: str, marker: answer_markers.Found) -> str:
    """The rest of the marker's line, or the next line that says anything."""
    if marker.kind == "before":
        return _SO.sub("", text[marker.answer : marker.end].strip(), count=1).strip()[-_LONGEST:]
    answer = _CLEAR.sub("", text[marker.answer : min(marker.end, marker.answer + _LONGEST)].strip(), count=1)
    if not any(map(str.isalnum, answer)):
        following = (
            line.strip()
            for line in text[marker.end : marker.end + _LONGEST].split("\n", 6)[:6]
            if any(map(str.isalnum, line))
        )
        answer = answer.strip(" *_:") or next(following, answer)
    return ("not " if marker.denied else "") + _closed(
        answer, text[max(marker.start, marker.answer - _LONGEST) : marker.answer]
    )


def _closed(answer: str, before: str) -> str:
    """``answer`` without marks that were opened ``before`` its marker: "**Answer: 5**" is 5."""
    for mark in _MARKS:
        if before.count(mark) % 2 and answer.count(mark) % 2:
            answer = answer.removesuffix(mark) if answer.endswith(mark) else answer.removeprefix(mark)
            answer = answer.removesuffix(mark + ".") if answer.endswith(mark + ".") else answer
    return answer.strip()
