"""The rule ``label``: the completion answers with one class out of a few, such as an intent, a sentiment or a topic.

Classes are often parts of each other (card_lost, card_lost_or_stolen), so a class must be all of what is answered: of
the final answer, of a line, of what is emphasized or quoted, or of what a sentence says after "is". Small and capital
letters are equal, and so are spaces, hyphens and underscores between words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sdft_cli.grading.exactness import shown, stated_forms
from sdft_cli.grading.final_answer import statements
from sdft_cli.grading.grader import Grader
from sdft_cli.grading.options import option_mentioned, options_of
from sdft_cli.grading.plain_text import plain, unstyled
from sdft_cli.types import Example, Score

#: Class names have few words.
_MOST_WORDS = 6
_MARKED = re.compile(
    r"\*\*([^*\n]+)\*\*|`([^`\n]+)`|\"([^\"\n]+)\"|“([^”\n]+)”|「([^」\n]+)」|(?<!\w)'([^'\n]+)'(?!\w)"
)
_BESIDES = re.compile(
    r"\s*(?:,\s(?=(?:because|since|as|given|the|it|this|he|she|they|with|which|not|due|but|based|weil|da|porque|car)\b)"
    r"|[;(\n]|:\s|\s-+\s|\.\s|。|\s(?:because|since|as|due to|with)\b)"
)
_SAYS = re.compile(
    r"\b(?:is|are|as|be|was|expresses|expressing|shows|conveys|falls under|belongs to|indicates|ist|est"
    r"|es|è|é)\s+(?:an?\s|the\s|clearly\s|likely\s|to\s)*|[:=]\s*|是|为|は",
    re.IGNORECASE,
)
_NOUN = re.compile(
    r"^(?:(?:clearly|definitely|probably|most likely|likely|mostly) )+|^(?:the )?(?:class|label|category"
    r"|intent|sentiment|topic|type)[ :]+|[ ](?:class|label|category|intent|sentiment|topic)$"
)


def label(completion: str, gold: str) -> Score:
    *marked, whole = statements(completion)
    if not (expected := _name(gold)):
        return Score(None, None, "unscored: the row has no gold answer in words")
    strong = [statement for statement in marked if statement.kind in ("tag", "box", "json", "hash", "label", "clause")]
    readings = strong[:1] or marked[:1]
    forms = (
        {form for statement in readings for form in stated_forms(statement)} if readings else set(_of_text(whole.text))
    )
    names = {_name(part) for form in forms for part in (form, _BESIDES.split(form, maxsplit=1)[0])}
    if expected in names or (not strong and expected == _name(whole.text)):
        return Score(1.0, gold.strip(), "right")
    written = shown((readings[0] if readings else whole).text)
    return Score(0.0, written, f"answered {written[:80]!r}, expected {gold.strip()!r}")


def _name(text: str) -> str:
    """A class by its name, in one spelling."""
    words = re.sub(r"[\s_-]+", " ", unstyled(plain(text)).replace("\\_", "_").casefold()).strip(" .\"'`*#:!$()[]{}。")
    return _NOUN.sub("", words).strip()


def _of_text(text: str) -> Iterator[str]:
    """What an unmarked text may answer with."""
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return
    yield from (text, lines[0], lines[-1])
    marked = {next(filter(None, spans)) for spans in _MARKED.findall(text)}
    if len(marked) == 1:
        yield from marked
    for line in {lines[0], lines[-1]}:
        if says := list(_SAYS.finditer(line)):
            yield line[says[-1].end() :]
            yield line[says[0].end() :]


def is_label(gold: str) -> bool:
    """Whether a gold answer may be a class: a few words on one line, without the marks of a sentence."""
    text = gold.strip()
    return (
        0 < len(text.split()) <= _MOST_WORDS
        and len(text) <= 60
        and not re.search(r"[\n.!?。！？]\s|[.!?。！？]$|[{}]", text)
    )


def label_of_row(completion: str, row: Example, folder: Path | None = None) -> Score:
    """The rule for a row that may tell all classes: the only one that a sentence mentions is its answer."""
    score = LABEL(completion, row.answer)
    if score.value != 0.0 or not (classes := options_of(row)):
        return score
    said = option_mentioned(completion, classes)
    return score if said is None else LABEL(classes[said], row.answer)


LABEL = Grader(
    "label",
    "the completion answers with the gold class and no other: card_lost is not card_lost_or_stolen",
    'in a sentence, a class counts only after a word like "is", in quotes or emphasized, unless the row tells all'
    " classes; another word for it is wrong",
    label,
    suits=is_label,
    recurring=True,
    score_row=label_of_row,
)
