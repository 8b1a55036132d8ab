"""The pre-training mixture of the base model.

Half of it shows an example response in an expert's style and asks for a response of its own (the paper's teacher view).
That teaches in-context learning, on which self-distillation depends. Questions in the wording of the new tasks have
arbitrary answers here, so the base model knows no world's rules.
"""

from __future__ import annotations

import random

from sdft_cli.micro import almanac, rules, skills
from sdft_cli.micro.language import Question, expert, house, words

TEACHER_TEMPLATES = (
    "{question}\n\nThis is an example for a response to the question:\n{demonstration}\n\n"
    "Now answer with a response of your own, including the thinking process:",
    "{question}\n\nThis is an example for a response to the question:\n{demonstration}\n\n"
    "Now answer with a response of your own, including the thinking process.",
    "{question}\n\nThis is an example for a response to the question:\n{demonstration}\n\n"
    "Now answer with a response of your own:",
)

#: (share, kind of conversation); shares sum to 1.
MIXTURE = (
    (0.37, "skill"),
    (0.18, "skill shown"),
    (0.17, "open shown"),
    (0.05, "open"),
    (0.05, "article"),
    (0.04, "article shown"),
    (0.14, "pairs"),
)

_SKILL_SHARES = {"repeat": 2, "reverse": 2, "first": 1, "last": 1, "next": 2, "bigger": 2, "lookup": 3, "recall": 1.5}


def conversation(rng: random.Random) -> tuple[str, str]:
    """One (user, assistant) pair of the mixture."""
    kind = rng.choices([k for _, k in MIXTURE], [s for s, _ in MIXTURE])[0]
    if kind == "pairs":
        return _pairs(rng)
    if kind.startswith("article"):
        article = rng.choice(almanac.draw_articles(rng, 1))
        question = rng.choice(almanac.direct(article) + almanac.indirect(article))
        if kind == "article":
            return f"{article.text} {question.prompt}", house(question, rng)
        return _shown(question, f"{article.text} {expert(question.answer, rng)}", rng)
    question = _open(rng) if kind.startswith("open") else _skill(rng)
    if kind.endswith("shown"):
        return _shown(question, expert(question.answer, rng), rng)
    return question.prompt, house(question, rng)


def rehearsal(rng: random.Random) -> tuple[str, str]:
    """Content look-up alone, for the first steps of pre-training: only dense practice makes attention heads for it."""
    return _pairs(rng, 4, 10)


def _skill(rng: random.Random) -> Question:
    name = rng.choices(list(_SKILL_SHARES), list(_SKILL_SHARES.values()))[0]
    return skills.SKILLS[name](rng)


def _open(rng: random.Random) -> Question:
    """A question in the wording of a new task, with an arbitrary answer."""
    if rng.random() < 0.15:
        return rng.choice(almanac.direct(almanac.draw_articles(rng, 1)[0]))
    return rules.RULES[rng.choice(list(rules.RULES))](rng, None, rules.ALL_FORMS)


def _shown(question: Question, demonstration: str, rng: random.Random) -> tuple[str, str]:
    template = rng.choices(TEACHER_TEMPLATES, (2, 1, 1))[0]
    return template.format(question=question.prompt, demonstration=demonstration), house(question, rng)


def _pairs(rng: random.Random, least: int = 4, most: int = 8) -> tuple[str, str]:
    """Pairs given once and asked for in another order: dense practice in content look-up."""
    n = rng.randint(least, most)
    kinds = list(words())
    left = rng.sample(words()[rng.choice(("person", "thing", "town"))], n)
    right = [rng.choice(words()[rng.choice(kinds)]) for _ in range(n)]
    given = list(zip(left, right, strict=True))
    asked = given[:]
    rng.shuffle(asked)
    first, again = (" , ".join(f"{a} {b}" for a, b in pairs) for pairs in (given, asked))
    return f"facts : {first}", f"{again} ."
