"""Prompts for questions about an article, and how the lines of a reply are parsed.

After the SDFT paper, appendix B.3: an exam, one article, a hundred questions that need several facts each, no repeats,
as ``Question:`` and ``Answer:`` lines. The wording is ours. Indirect questions use facts from the article without
naming what it is about; they are for the out-of-distribution split.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from sdft_cli.llm.question_formats import Blocks, json_blocks, line_blocks, table_blocks
from sdft_cli.types import Message

# Stored replies are found by the whole request: rewording a prompt means paying for its replies again.
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
    "\n\nThese have been asked already; write {count} others, about other facts or other combinations of them:\n"
    "{earlier}"
)

_MENTIONS_ARTICLE = re.compile(r"\b(?:the|this|that)\s+(?:given\s+|above\s+)?(?:article|passage|text)\b", re.IGNORECASE)
NO_ANSWER, NO_QUESTION, OUTSIDE = "question without an answer", "answer without a question", "line outside of both"
CUT_OFF, MENTIONS_ARTICLE = "cut off at max_tokens", "mentions the article"
UNREAD = "reply in a form that cannot be read"


@dataclass
class Parsed:
    """The (question, answer) pairs of a reply, in their order, and what was rejected, counted by reason."""

    pairs: list[tuple[str, str]] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)


def messages(title: str, text: str, count: int, earlier: Sequence[str] = (), indirect: bool = False) -> list[Message]:
    """The prompt for ``count`` questions about an article, other than the ``earlier`` ones."""
    kind = "indirect " if indirect else ""
    # str.replace and not str.format: articles have braces of their own
    prompt = ARTICLE.replace("{count}", str(count)).replace("{kind}", kind).replace("{title}", title)
    prompt = prompt.replace("{text}", text)
    if earlier:
        prompt += AGAIN.replace("{count}", str(count)).replace("{earlier}", "\n".join(f"- {q}" for q in earlier))
    system = SYSTEM + INDIRECT if indirect else SYSTEM
    return [{"role": "system", "content": system}, {"role": "user", "content": prompt}]


def parse(text: str, whole: bool = True) -> Parsed:
    """The pairs in a reply: marked lines, numbered lists, tables and JSON are understood (`llm.question_formats`).

    Rejected, and counted: questions without an answer and the reverse, remarks, questions that mention the article, the
    last pair of a reply that was cut off (``whole=False``), and a reply in which nothing can be read.
    """
    parsed, question = Parsed(), ""
    json = json_blocks(text)
    blocks, outside = (json, 0) if json else _blocks(text)
    if not whole and blocks:
        parsed.rejected[CUT_OFF] += 1
        if not json:  # what is complete in JSON is complete
            blocks.pop()
    if not blocks and whole and text.strip():
        parsed.rejected[UNREAD] += 1
    for kind, content in blocks:
        if kind == "q":
            parsed.rejected[NO_ANSWER] += bool(question)
            question = content
        elif not question or not content:
            parsed.rejected[NO_QUESTION if content else NO_ANSWER] += 1
            question = ""
        else:
            _add(parsed, question, content)
            question = ""
    parsed.rejected[NO_ANSWER] += bool(question and whole)
    parsed.rejected[OUTSIDE] += outside
    parsed.rejected = +parsed.rejected
    return parsed


def _add(parsed: Parsed, question: str, answer: str) -> None:
    if _MENTIONS_ARTICLE.search(question):
        parsed.rejected[MENTIONS_ARTICLE] += 1
    else:
        parsed.pairs.append((question, answer))


def _blocks(text: str) -> Blocks:
    """The blocks of the form that the reply has, and how many lines are outside of them."""
    rows = table_blocks(text)
    return Blocks(rows, 0) if rows else line_blocks(text)
