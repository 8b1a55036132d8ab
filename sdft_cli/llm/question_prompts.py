"""Questions about an article: what a teacher is told to write, and how its lines are read. Pure.

After the SDFT paper, appendix B.3: an exam, one article, a hundred questions that need several facts each, no repeats,
as ``Question:`` and ``Answer:`` lines. The wording is ours. Indirect questions use the article's facts without naming
what it is about; they are for the out-of-distribution split.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from sdft_cli.types import Message

SYSTEM = """\
You help to write the questions of an exam. You are given one article, and you write questions about what it says.

Every question
- needs several pieces of information from the article to be answered in full;
- has one right answer, which the article states;
- makes sense to somebody who does not have the article before them: it names who, what, where and when it is about, \
and never speaks of "the article" or "the text";
- is unlike all other questions.

Write two lines for each and nothing else:
Question: the question
Answer: the full answer, in one or a few sentences"""
INDIRECT = """
The questions must be indirect: each depends on what the article reports without naming the event or the thing that \
the article is about, so that only somebody who knows the facts can tell that they are asked for."""
ARTICLE = "Title: {title}\n\n{text}\n\nWrite {count} {kind}questions about this article."
AGAIN = (
    "\n\nThese have been asked already; write {count} others, about other facts or other combinations of them:\n{known}"
)

# A number or a heading's marks may stand before the word, a number after it: "3. **Question 3:** …", "### Q:".
_MARK = re.compile(
    r"[\W\d_]*(?P<word>question|answer|q|a)(?![^\W\d_])[\s#*_]*\d*[\s*_.)]*(?:[:：](?P<rest>.*)|$)", re.IGNORECASE
)
_SPEAKS_OF_IT = re.compile(r"\b(?:the|this|that)\s+(?:given\s+|above\s+)?(?:article|passage|text)\b", re.IGNORECASE)
NO_ANSWER, NO_QUESTION, OUTSIDE = "question without an answer", "answer without a question", "line outside of both"
CUT_OFF, SPEAKS_OF_IT = "cut off at max_tokens", "speaks of the article"


@dataclass
class Pairs:
    """What could be read: (question, answer) pairs in their order, and what could not, counted by reason."""

    found: list[tuple[str, str]] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)


def ask(title: str, text: str, count: int, known: Sequence[str] = (), indirect: bool = False) -> list[Message]:
    """The messages that ask for ``count`` questions about an article, other than the ``known`` ones."""
    kind = "indirect " if indirect else ""
    # str.replace and not str.format: articles hold braces of their own
    said = ARTICLE.replace("{count}", str(count)).replace("{kind}", kind).replace("{title}", title)
    said = said.replace("{text}", text)
    if known:
        said += AGAIN.replace("{count}", str(count)).replace("{known}", "\n".join(f"- {q}" for q in known))
    system = SYSTEM + INDIRECT if indirect else SYSTEM
    return [{"role": "system", "content": system}, {"role": "user", "content": said}]


def parse(text: str, whole: bool = True) -> Pairs:
    """The pairs in a reply. Numbers, bullets, bold marks, headings and texts of several lines are read.

    Left out, and counted: what has no other half, lines after a blank one that are neither, questions that speak of
    the article, and the last pair of a reply that was cut off (``whole=False``): nobody knows how it would go on.
    """
    pairs, question = Pairs(), ""
    blocks, outside = _blocks(text)
    if not whole and blocks:
        blocks.pop()
        pairs.unread[CUT_OFF] += 1
    for word, said in blocks:
        if word == "q":
            pairs.unread[NO_ANSWER] += bool(question)
            question = said
        elif not question or not said:
            pairs.unread[NO_QUESTION if said else NO_ANSWER] += 1
            question = ""
        else:
            _add(pairs, question, said)
            question = ""
    pairs.unread[NO_ANSWER] += bool(question and whole)
    pairs.unread[OUTSIDE] += outside
    pairs.unread = +pairs.unread
    return pairs


def _add(pairs: Pairs, question: str, answer: str) -> None:
    if _SPEAKS_OF_IT.search(question):
        pairs.unread[SPEAKS_OF_IT] += 1
    else:
        pairs.found.append((question, answer))


def _blocks(text: str) -> tuple[list[tuple[str, str]], int]:
    """("q" or "a", its text on one line) in their order, and how many lines stand outside of them."""
    blocks: list[tuple[str, list[str]]] = []
    outside, broken = 0, True
    for line in text.splitlines():
        if mark := _MARK.match(line):
            blocks.append((mark["word"][0].lower(), [mark["rest"] or ""]))
            broken = False
        elif not line.strip():
            broken = not blocks or bool("".join(blocks[-1][1]).strip())  # after a bare heading the text may come later
        elif broken:
            outside += 1
        else:
            blocks[-1][1].append(line)
    return [(word, " ".join(" ".join(lines).split()).strip("*_ ")) for word, lines in blocks], outside
