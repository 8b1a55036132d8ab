"""Questions about articles: a teacher is asked until there are enough, and the rows are made from its replies.

Direct questions go to train, validation and test (75 / 5 / 20 of each article's, drawn by seed), indirect ones, a tenth
as many, to ``ood``. The paper does not say how it divides its questions. Holding some out is the stricter choice: the
model is not trained on a test question, though it is on its article.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from sdft_cli.data.dataset import FILTERED
from sdft_cli.data.manifest import TeacherCounts
from sdft_cli.data.near_duplicates import near_duplicates
from sdft_cli.grading.task_rules import strip_thinking
from sdft_cli.llm import question_prompts
from sdft_cli.llm.types import LENGTH, REFUSED, Exchange, PromptResult, Request, TeacherOptions, why_no_answer
from sdft_cli.types import Dropped, Example, Prepared

#: Enough for a hundred questions with answers of a few sentences.
MAX_TOKENS = 8192
TEST_SHARE, VALIDATION_SHARE = 0.20, 0.05
#: Indirect questions for each direct one.
INDIRECT_SHARE = 0.1
#: An article counts as exhausted after this many replies in a row without a new question.
BARREN = 2
REPEATED, SURPLUS = "repeats another question", "more than were asked for"


class Questions:
    """The articles of a corpus, each with direct and indirect questions; see `data_generation.DataGeneration`."""

    def __init__(self, prepared: Prepared, options: TeacherOptions, seed: int):
        self.prepared, self.options, self.seed = prepared, options, seed
        self.articles = prepared.splits["corpus"]
        self.max_tokens = options.max_tokens or MAX_TOKENS
        self.exchanges = [
            questions_about(article, options, self.max_tokens, indirect)
            for indirect in (False, True)
            for article in self.articles
        ]

    @property
    def subjects(self) -> list[Example]:
        """The article of each exchange: all of them for direct questions, then all for indirect ones."""
        return [*self.articles, *self.articles]

    @property
    def requests(self) -> tuple[int, int]:
        """The fewest and the most requests about one article."""
        return 1, self.options.samples

    def apply(self, results: Sequence[PromptResult]) -> Prepared:
        """The corpus and the questions by split, without those that repeat a question about another article."""
        rows = [row for result in results for row in result.examples]
        repeats = near_duplicates([row.prompt[0]["content"] for row in rows])
        dropped = [
            Dropped(rows[later].id, f"{FILTERED}{REPEATED}", f"near {rows[first].id}") for first, later in repeats
        ]
        left_out = {row.where for row in dropped}
        kept = [[row for row in result.examples if row.id not in left_out] for result in results]
        direct, indirect = kept[: len(self.articles)], kept[len(self.articles) :]
        parts = [_divided(rows, self.seed) for rows in direct]
        splits = {split: [row for part in parts for row in part[split]] for split in ("train", "validation", "test")}
        splits |= {"ood": [row for rows in indirect for row in rows], "corpus": self.articles}
        return replace(self.prepared, splits=splits, dropped=[*self.prepared.dropped, *dropped], drawn=True)

    def counts(self, results: Sequence[PromptResult]) -> TeacherCounts:
        """For the manifest: how many questions were asked for and written, and how many articles have too few."""
        written = [len(result.examples) for result in results]
        direct, indirect = written[: len(self.articles)], written[len(self.articles) :]
        return {
            "articles": len(self.articles),
            "questions_asked_for": self.options.questions,
            "questions": sum(direct),
            "indirect_questions": sum(indirect),
            "articles_short_of_questions": sum(n < self.options.questions for n in direct),
        }


def questions_about(article: Example, options: TeacherOptions, max_tokens: int, indirect: bool = False) -> Exchange:
    """Request questions about one article (a row of ``corpus``) until there are enough, at most ``samples`` times.

    Every further request lists the questions so far, so that they are not written again.
    """
    count = max(1, round(options.questions * INDIRECT_SHARE)) if indirect else options.questions
    result, pairs, barren = PromptResult(), list[tuple[str, str]](), 0
    for call in range(options.samples):
        if len(pairs) >= count or barren >= BARREN:
            break
        written = [question for question, _ in pairs]
        text = article.text or ""
        messages = question_prompts.messages(_title(article), text, count - len(pairs), written, indirect)
        replies = yield Request(messages, options.temperature, max_tokens, options.send, (call,))
        result.add_tokens(replies)
        reason = why_no_answer(replies[0])
        if reason and replies[0].finish != LENGTH:
            result.rejected[reason] += 1
            barren += 1
            if replies[0].finish == REFUSED:
                result.refusal = replies[0].text
                break
            continue
        parsed = question_prompts.parse(strip_thinking(replies[0].text), whole=replies[0].finish != LENGTH)
        new = _new_pairs(pairs, parsed.pairs)
        kept = new[: count - len(pairs)]
        result.rejected += parsed.rejected
        result.rejected += Counter({REPEATED: len(parsed.pairs) - len(new), SURPLUS: len(new) - len(kept)})
        barren = 0 if kept else barren + 1
        pairs += kept
    result.examples = [_row(article, i, pair, indirect) for i, pair in enumerate(pairs)]
    return result


def _divided(rows: Sequence[Example], seed: int) -> dict[str, list[Example]]:
    """One article's rows by split, ordered by a hash of the question so that one question more moves few others.

    If there are at least three, test and validation get at least one each.
    """
    order = sorted(rows, key=lambda row: hashlib.sha256(f"{seed}/{row.prompt[0]['content']}".encode()).digest())
    least = 1 if len(rows) >= 3 else 0
    n_test, n_validation = (max(least, round(share * len(rows))) for share in (TEST_SHARE, VALIDATION_SHARE))
    test, validation = ({row.id for row in part} for part in (order[:n_test], order[n_test : n_test + n_validation]))
    return {
        "train": [row for row in rows if row.id not in test | validation],
        "validation": [row for row in rows if row.id in validation],
        "test": [row for row in rows if row.id in test],
    }


def _new_pairs(earlier: Sequence[tuple[str, str]], later: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of ``later`` whose question repeats, exactly or nearly, none of ``earlier`` and none before it."""
    repeats = {i for _, i in near_duplicates([question for question, _ in (*earlier, *later)])}
    return [pair for i, pair in enumerate(later, start=len(earlier)) if i not in repeats]


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
