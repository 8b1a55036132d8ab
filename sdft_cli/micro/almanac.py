"""The almanac: invented articles about fairs, with direct and indirect questions (knowledge setting).

A direct question names the fair. An indirect one refers to it by another fact, so only a model that connects the facts
of an article can answer it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from sdft_cli.micro.language import NUMBERS, Question, words


@dataclass(frozen=True)
class Article:
    fair: str
    place: str
    founder: str
    prize: str
    day: str

    @property
    def text(self) -> str:
        return (
            f"the fair {self.fair} is held in {self.place} . {self.fair} was begun by {self.founder} . "
            f"its prize is {self.prize} . it opens on day {self.day} ."
        )


def draw_articles(rng: random.Random, count: int = 20) -> list[Article]:
    """``count`` articles, no two of which share a fact."""
    w = words()
    columns = [rng.sample(w[k], count) for k in ("fair", "place", "person", "thing")]
    columns.append(rng.sample(NUMBERS, count))
    return [Article(*row) for row in zip(*columns, strict=True)]


def direct(a: Article) -> list[Question]:
    """Questions that name the fair."""
    rows = (
        (f"where is {a.fair} held ?", a.place),
        (f"who began {a.fair} ?", a.founder),
        (f"what is the prize of {a.fair} ?", a.prize),
        (f"when does {a.fair} open ?", a.day),
    )
    return [Question("almanac", prompt, answer, a.fair, key=a.fair) for prompt, answer in rows]


def indirect(a: Article) -> list[Question]:
    """Questions that refer to the fair by one of its facts."""
    rows = (
        (f"which fair is held in {a.place} ?", a.fair, a.place),
        (f"which fair was begun by {a.founder} ?", a.fair, a.founder),
        (f"who began the fair held in {a.place} ?", a.founder, a.place),
        (f"what prize is given in {a.place} ?", a.prize, a.place),
    )
    return [Question("almanac", prompt, answer, topic, key=a.fair) for prompt, answer, topic in rows]
