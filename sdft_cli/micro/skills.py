"""The base skills: what the base model can do before any task is taught (suite ``micro``)."""

from __future__ import annotations

import random
from collections.abc import Callable

from sdft_cli.micro.language import NUMBERS, Question, words


def repeat(rng: random.Random) -> Question:
    chosen = rng.sample(words()["thing"], rng.randint(2, 4))
    text = " ".join(chosen)
    return Question("repeat", f"repeat these words : {text}", text, "these words")


def reverse(rng: random.Random) -> Question:
    chosen = rng.sample(words()["thing"], rng.randint(2, 3))
    text = " ".join(chosen)
    return Question("reverse", f"say these words backwards : {text}", " ".join(chosen[::-1]), "words backwards")


def first(rng: random.Random) -> Question:
    chosen = rng.sample(words()["thing"], rng.randint(3, 5))
    return Question("first", f"give the first word of : {' '.join(chosen)}", chosen[0], "the first word")


def last(rng: random.Random) -> Question:
    chosen = rng.sample(words()["thing"], rng.randint(3, 5))
    return Question("last", f"give the last word of : {' '.join(chosen)}", chosen[-1], "the last word")


def following(rng: random.Random) -> Question:
    n = rng.randrange(len(NUMBERS) - 1)
    return Question("next", f"which number comes after {NUMBERS[n]} ?", NUMBERS[n + 1], NUMBERS[n])


def bigger(rng: random.Random) -> Question:
    a, b = rng.sample(range(len(NUMBERS)), 2)
    pair = f"{NUMBERS[a]} or {NUMBERS[b]}"
    return Question("bigger", f"which number is bigger , {pair} ?", NUMBERS[max(a, b)], pair)


def lookup(rng: random.Random) -> Question:
    """Find a fact by its content among those given."""
    n = rng.randint(2, 4)
    people = rng.sample(words()["person"], n)
    things = rng.sample(words()["thing"], n)
    facts = " , ".join(f"{p} has : {t}" for p, t in zip(people, things, strict=True))
    i = rng.randrange(n)
    return Question("lookup", f"{facts} . what does {people[i]} have ?", things[i], people[i], f"{people[i]} has")


def recall(rng: random.Random) -> Question:
    """A fixed fact, the same in every world: each town lies on one river."""
    i = rng.randrange(len(words()["town"]))
    town, river = words()["town"][i], words()["river"][i]
    form = rng.choice(("which river runs by {} ?", "{} is by which river ?", "what river flows by {} ?"))
    return Question("recall", form.format(town), river, town)


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
