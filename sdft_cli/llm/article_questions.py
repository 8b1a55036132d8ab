"""Questions and answers from articles: what to ask a teacher until there are enough, and the rows that come of it.

Direct questions go to train, validation and test (75 / 5 / 20 of each article's, drawn by seed), indirect ones, a
tenth as many, to ``ood``. The paper does not say how it divides its questions; a held-out part is the stricter choice,
for a question of the test split was never trained on, though its article was.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sdft_cli.data.dataset import FILTERED
from sdft_cli.data.near_duplicates import near_duplicates
from sdft_cli.grading.task_rules import strip_thinking
from sdft_cli.llm import question_prompts
from sdft_cli.llm.types import LENGTH, REFUSED, Outcome, Pursuit, Request, TeacherOptions
from sdft_cli.types import Dropped, Example, Prepared

#: A hundred questions with answers of a few sentences.
MAX_TOKENS = 8192
TEST_SHARE, VALIDATION_SHARE = 0.20, 0.05
#: Indirect questions for each direct one.
INDIRECT_SHARE = 0.1
#: After so many replies in a row without a new question the article is done.
BARREN = 2
REPEATED, SURPLUS, NOT_ANSWERED = "repeats another question", "more than were asked for", "refused by the endpoint"


class Questions:
    """The articles of a corpus, each asked about twice: directly and indirectly."""

    def __init__(self, prepared: Prepared, options: TeacherOptions, seed: int):
        self.prepared, self.options, self.seed = prepared, options, seed
        self.articles = prepared.splits["corpus"]
        self.max_tokens = options.max_tokens or MAX_TOKENS
        self.pursuits = [
            questions_about(article, options, self.max_tokens, indirect)
            for indirect in (False, True)
            for article in self.articles
        ]

    @property
    def requests(self) -> tuple[int, int]:
        return 1, self.options.samples

    def done(self, outcomes: Sequence[Outcome]) -> Prepared:
        """The questions by split beside the corpus; those that repeat a question about another article are left out."""
        rows = [row for outcome in outcomes for row in outcome.examples]
        again = near_duplicates([row.prompt[0]["content"] for row in rows])
        dropped = [Dropped(rows[later].id, f"{FILTERED}{REPEATED}", f"near {rows[first].id}") for first, later in again]
        out = {row.where for row in dropped}
        kept = [[row for row in outcome.examples if row.id not in out] for outcome in outcomes]
        direct, indirect = kept[: len(self.articles)], kept[len(self.articles) :]
        parts = [_divided(rows, self.seed) for rows in direct]
        splits = {split: [row for part in parts for row in part[split]] for split in ("train", "validation", "test")}
        splits |= {"ood": [row for rows in indirect for row in rows], "corpus": self.articles}
        return replace(self.prepared, splits=splits, dropped=[*self.prepared.dropped, *dropped], drawn=True)

    def counts(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """For the manifest: how many questions were asked for and written, and for how many articles too few were."""
        written = [len(outcome.examples) for outcome in outcomes]
        direct, indirect = written[: len(self.articles)], written[len(self.articles) :]
        return {
            "articles": len(self.articles),
            "questions_asked_for": self.options.questions,
            "questions": sum(direct),
            "indirect_questions": sum(indirect),
            "articles_short_of_questions": sum(n < self.options.questions for n in direct),
        }


def questions_about(article: Example, options: TeacherOptions, max_tokens: int, indirect: bool = False) -> Pursuit:
    """Ask about one article (a row of ``corpus``) until there are enough questions, in at most ``samples`` requests.

    Every further request names the questions that there are, so that they are not written again.
    """
    wanted = max(1, round(options.questions * INDIRECT_SHARE)) if indirect else options.questions
    outcome, found, barren = Outcome(), list[tuple[str, str]](), 0
    for call in range(options.samples):
        if len(found) >= wanted or barren >= BARREN:
            break
        known = [question for question, _ in found]
        text = article.text or ""
        messages = question_prompts.ask(_title(article), text, wanted - len(found), known, indirect)
        replies = yield Request(messages, options.temperature, max_tokens, options.send, (call,))
        outcome.count(replies)
        if replies[0].finish == REFUSED:
            outcome.rejected[NOT_ANSWERED] += 1
            break
        pairs = question_prompts.parse(strip_thinking(replies[0].text), whole=replies[0].finish != LENGTH)
        fresh = _fresh(found, pairs.found)
        kept = fresh[: wanted - len(found)]
        outcome.rejected += pairs.unread
        outcome.rejected += Counter({REPEATED: len(pairs.found) - len(fresh), SURPLUS: len(fresh) - len(kept)})
        barren = 0 if kept else barren + 1
        found += kept
    outcome.examples = [_row(article, i, pair, indirect) for i, pair in enumerate(found)]
    return outcome


def _divided(rows: Sequence[Example], seed: int) -> dict[str, list[Example]]:
    """One article's rows: its share for test and validation (one each, if there are three), by a hash of the question,
    so that a question more moves few others."""
    order = sorted(rows, key=lambda row: hashlib.sha256(f"{seed}/{row.prompt[0]['content']}".encode()).digest())
    least = 1 if len(rows) >= 3 else 0
    tests, checks = (max(least, round(share * len(rows))) for share in (TEST_SHARE, VALIDATION_SHARE))
    test, validation = ({row.id for row in part} for part in (order[:tests], order[tests : tests + checks]))
    return {
        "train": [row for row in rows if row.id not in test | validation],
        "validation": [row for row in rows if row.id in validation],
        "test": [row for row in rows if row.id in test],
    }


def _fresh(known: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of the new pairs whose question repeats, exactly or nearly, none of the known ones and none before it."""
    again = {later for _, later in near_duplicates([question for question, _ in (*known, *new)])}
    return [pair for i, pair in enumerate(new, start=len(known)) if i not in again]


def _row(article: Example, number: int, pair: tuple[str, str], indirect: bool) -> Example:
    question, answer = pair
    return Example(
        f"{article.id}-{'indirect' if indirect else 'question'}-{number}",
        [{"role": "user", "content": question}],
        answer,
        context=article.text,
        answer=answer,
        meta={"article": article.id, "title": _title(article)},
    )


def _title(article: Example) -> str:
    return str(article.meta.get("title") or article.id)
