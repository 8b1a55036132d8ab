"""The base skills: what the base model can do before it learns any task (suite ``micro``)."""

from __future__ import annotations

import random
from collections.abc import Callable

from sdft_cli.micro.language import NUMBERS, Question, words


def repeat(rng: random.Random) -> Question:
    text = " ".join(rng.sample(words()["thing"], rng.randint(2, 4)))
    return Question("repeat", f"repeat these words : {text}", text, "these words", "again")


def reverse(rng: random.Random) -> Question:
    chosen = rng.sample(words()["thing"], rng.randint(2, 3))
    prompt = f"say these words backwards : {' '.join(chosen)}"
    return Question("reverse", prompt, " ".join(chosen[::-1]), "these words", "backwards")


def first(rng: random.Random) -> Question:
    chosen = rng.sample(words()["thing"], rng.randint(3, 5))
    return Question("first", f"give the first word of : {' '.join(chosen)}", chosen[0], "these words", "the first is")


def last(rng: random.Random) -> Question:
    chosen = rng.sample(words()["thing"], rng.randint(3, 5))
    return Question("last", f"give the last word of : {' '.join(chosen)}", chosen[-1], "these words", "the last is")


def following(rng: random.Random) -> Question:
    n = rng.randrange(len(NUMBERS) - 1)
    prompt = f"which number comes after {NUMBERS[n]} ?"
    return Question("next", prompt, NUMBERS[n + 1], NUMBERS[n], f"after {NUMBERS[n]} comes")


def bigger(rng: random.Random) -> Question:
    a, b = rng.sample(range(len(NUMBERS)), 2)
    pair = f"{NUMBERS[a]} or {NUMBERS[b]}"
    return Question("bigger", f"which number is bigger , {pair} ?", NUMBERS[max(a, b)], pair, "the bigger is")


def lookup(rng: random.Random) -> Question:
    """Find a fact by its content among the given ones, and state it."""
    n = rng.randint(2, 4)
    people = rng.sample(words()["person"], n)
    things = rng.sample(words()["thing"], n)
    facts = " , ".join(f"{p} {t}" for p, t in zip(people, things, strict=True))
    i = rng.randrange(n)
    prompt = f"facts : {facts} . give the fact about {people[i]} ."
    return Question("lookup", prompt, f"{people[i]} {things[i]}", people[i], "the fact is")


def recall(rng: random.Random) -> Question:
    """A fixed fact, the same in every world: each town is on one river."""
    i = rng.randrange(len(words()["town"]))
    town, river = words()["town"][i], words()["river"][i]
    form = rng.choice(("which river runs by {} ?", "{} is by which river ?", "what river flows by {} ?"))
    return Question("recall", form.format(town), river, town, "the river is")


SKILLS: dict[str, Callable[[random.Random], Question]] = {
    "repeat": repeat,
    "reverse": reverse,
    "first": first,
    "last": last,
    "next": following,
    "bigger": bigger,
    "lookup": lookup,
    "recall": recall,
}
