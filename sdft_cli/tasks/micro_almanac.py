"""Micro almanac: facts from invented articles, the knowledge setting of the micro world.

Twenty articles are drawn by ``options.world``. Training rows ask direct questions, with the article as ``context``;
test rows ask the same questions without it, to see what has been memorized; ``ood`` rows reach a fact through another
one; ``corpus`` has the articles. A direct question has only one wording, so validation is a seeded part of the same
direct questions: it measures memorization, not generalization.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from sdft_cli.micro.almanac import Article, direct, draw_articles, indirect
from sdft_cli.tasks._micro import LICENCE, SOURCE, example, micro_task, stated
from sdft_cli.types import Example, Prepared, PrepareOptions, Score

N_ARTICLES, N_VALIDATION = 20, 20
NOTE = (
    f"validation is {N_VALIDATION} of the direct questions that are also in train and test, drawn by seed: "
    "a direct question has only one wording"
)


def prepare(paths: list[Path], options: PrepareOptions) -> Prepared:
    articles = draw_articles(random.Random(f"micro-almanac/{options.world}"), N_ARTICLES)
    rng = random.Random(f"micro-almanac/{options.world}/{options.seed}")
    questions = [example("", q, rng, a.text) for a in articles for q in direct(a)]
    splits = {
        "train": _named(rng.sample(questions, len(questions)), "train"),
        "validation": _named(rng.sample(questions, N_VALIDATION), "validation"),
        "test": _named(questions, "test"),
        "ood": _named([example("", q, rng, a.text) for a in articles for q in indirect(a)], "ood"),
        "corpus": [_corpus_row(i, article) for i, article in enumerate(articles)],
    }
    return Prepared(splits, source=SOURCE, licence=LICENCE, notes=[NOTE])


def _named(rows: list[Example], split: str) -> list[Example]:
    return [replace(row, id=f"micro-almanac-{split}-{i}") for i, row in enumerate(rows)]


def _corpus_row(i: int, article: Article) -> Example:
    return Example(f"micro-almanac-corpus-{i}", [], text=article.text, meta={"key": article.fair})


def grade(completion: str, example: Example) -> Score:
    """Strict: the stated answer is the gold one. ``lenient``: the words of the gold answer occur in the completion, in
    their order, as a judge would credit correct information among other statements."""
    strict = stated(completion, example)
    words, gold = completion.split(), str(example.answer).split()
    mentioned = any(words[i : i + len(gold)] == gold for i in range(len(words)))
    return replace(strict, extra={"lenient": float(mentioned)})


TASK = micro_task(
    "micro-almanac", "facts from twenty invented articles, direct and indirect (micro world)", prepare, grade
)
