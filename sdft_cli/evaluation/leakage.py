"""Leaked wording: completions that repeat the instructions around a demonstration instead of answering.

A teacher is shown a view's own words ("This is an example for a response to the question: ..."), and a student that
learns from it may answer with them ("This is a classic example of ..."). Counted by n-grams of words:

* the view's own wording is what it shows of every row alike: single content words, and any three words in a row;
* known wording is whatever stands in a prompt, a demonstration, a context or a gold answer, or in one in ten of some
  completions that were written without the view;
* a completion leaks if it has an n-gram of the view's own wording that is not known.

Words are split at spaces and signs, and the function words that are left out are English. In another language more
words count, so give completions that were written without the view.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TypedDict

from sdft_cli.models.views import View, answer_text, demonstration_text, message_text
from sdft_cli.types import Example, Message

#: Length of the runs that count whatever their words are.
NGRAM = 3
#: What so large a share of the completions without the view has is the model's own way of writing. A word that a single
#: one of them has by chance is not cleared by it.
FAMILIAR = 0.1
#: Phrases that a result shows.
SHOWN = 5
#: Shorter words are no sign of anything.
_SHORTEST = 3
#: Words that any sentence may hold.
_FUNCTION_WORDS = frozenset(
    """
    about above after all also and any are because been before being below between both but can could did does doing
    down during each few for from further had has have having her here hers him his how into its itself just like made
    make many may might more most much must new not now off once one only onto other our out over own per put same she
    should since some such take than that the their them then there these they this those through too under until upon
    use used using very was way were what when where which while who whom whose why will with within without would yes
    yet you your
    """.split()
)

Gram = tuple[str, ...]


class Leakage(TypedDict):
    """``share`` of the ``completions`` that repeat wording of the view, from 0 to 1; None where the view has no wording
    of its own or there is no completion. ``phrases`` are the most frequent repeated ones."""

    share: float | None
    completions: int
    phrases: list[str]


def leakage(completions: Sequence[str], rows: Sequence[Example], view: View, unprompted: Iterable[str] = ()) -> Leakage:
    """How many ``completions`` of ``rows`` repeat wording of ``view``, whoever wrote them: the teacher that was shown
    it, or a student that has learned from that teacher.

    ``unprompted`` are completions of the same kind of rows by a model that has not learned from the view and was not
    shown it, such as the base model's. Without them, words that the model is fond of anyway may count.
    """
    leaked = leaked_phrases(completions, rows, view, unprompted)
    if leaked is None or not leaked:
        return {"share": None, "completions": len(completions), "phrases": []}
    counts = Counter(phrase for phrases in leaked for phrase in dict.fromkeys(phrases))
    share = sum(map(bool, leaked)) / len(leaked)
    return {"share": share, "completions": len(leaked), "phrases": [phrase for phrase, _ in counts.most_common(SHOWN)]}


def leaked_phrases(
    completions: Sequence[str], rows: Sequence[Example], view: View, unprompted: Iterable[str] = ()
) -> list[list[str]] | None:
    """For every completion, what it repeats of the view's wording, in its own words; None where the view has no wording
    of its own. Arguments as for `leakage`."""
    own = own_wording(rows, view)
    if own is None:
        return None
    known = {gram for text in _texts_of(rows) for gram in _grams(_words(text))}
    leaked = own - known - _familiar(unprompted)
    return [list(_phrases(_words(text), leaked)) for text in completions]


def own_wording(rows: Sequence[Example], view: View) -> set[Gram] | None:
    """The n-grams that ``view`` shows of all ``rows`` alike; None where it shows nothing of any."""
    shown = [messages for row in rows if (messages := view(row)) is not None]
    if not shown:
        return None
    return set.intersection(*(set(_grams(_words(_text(messages)))) for messages in shown))


def _familiar(unprompted: Iterable[str]) -> set[Gram]:
    """The n-grams of at least the share `FAMILIAR` of texts."""
    texts = [set(_grams(_words(text))) for text in unprompted]
    counts = Counter(gram for grams in texts for gram in grams)
    return {gram for gram, count in counts.items() if count >= FAMILIAR * len(texts)}


def _texts_of(rows: Sequence[Example]) -> Iterator[str]:
    for row in rows:
        yield from (_text(row.prompt), demonstration_text(row), row.context or "", answer_text(row))


def _text(messages: Sequence[Message]) -> str:
    return "\n".join(map(message_text, messages))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _grams(words: Sequence[str]) -> Iterator[Gram]:
    """The content words, and every run of `NGRAM` words."""
    yield from ((word,) for word in words if _has_content(word))
    yield from (tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1))


def _has_content(word: str) -> bool:
    return len(word) >= _SHORTEST and not word.isdigit() and word not in _FUNCTION_WORDS


def _phrases(words: Sequence[str], leaked: set[Gram]) -> Iterator[str]:
    """The longest stretches of ``words`` that consist of leaked n-grams; a single word comes with its neighbours."""
    hit = [False] * len(words)
    for length in (1, NGRAM):
        for i in range(len(words) - length + 1):
            if tuple(words[i : i + length]) in leaked:
                hit[i : i + length] = [True] * length
    for is_hit, stretch in groupby(range(len(words)), key=hit.__getitem__):
        if is_hit:
            places = list(stretch)
            around = int(len(places) == 1)
            yield " ".join(words[max(0, places[0] - around) : places[-1] + 1 + around])
