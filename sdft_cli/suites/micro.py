"""The base skills of the micro world: the prior suite of the embedded model.

Eight parts of up to sixty fixed questions, the same for every run, seed and world, so any two scores are over the same
items. Graded by content like the micro tasks: an answer in an expert's style is as good as one in the house style.
"""

from __future__ import annotations

import random

from sdft_cli.grading import task_rules
from sdft_cli.micro.language import Question, extract
from sdft_cli.micro.skills import SKILLS
from sdft_cli.types import Example, Message, Score, Suite

PER_SKILL, N_GENERAL = 60, 480


def parts() -> dict[str, list[Example]]:
    return {skill: _part(skill) for skill in SKILLS}


def grade(completion: str, example: Example) -> Score:
    return task_rules.exact(extract(task_rules.strip_thinking(completion)), example.answer)


def _part(skill: str) -> list[Example]:
    """Distinct prompts only: a skill with fewer than sixty (there are forty-nine numbers to count on from) gets as many
    as it has, so that no item counts twice."""
    rng = random.Random(f"micro-suite/{skill}")
    questions: dict[str, Question] = {}
    for _ in range(50 * PER_SKILL):
        question = SKILLS[skill](rng)
        questions.setdefault(question.prompt, question)
        if len(questions) == PER_SKILL:
            break
    rows = []
    for i, question in enumerate(questions.values()):
        prompt: list[Message] = [{"role": "user", "content": question.prompt}]
        rows.append(Example(f"micro-{skill}-{i}", prompt, answer=question.answer, meta={"skill": skill}))
    return rows


def general() -> list[Example]:
    """Prompts on the base skills, without answers, none of them among the suite's items."""
    taken = {e.prompt[0]["content"] for examples in parts().values() for e in examples}
    rng = random.Random("micro-suite/general")
    texts: dict[str, None] = {}
    while len(texts) < N_GENERAL:
        question = SKILLS[rng.choice(list(SKILLS))](rng)
        if question.prompt not in taken:
            texts.setdefault(question.prompt)
    return [Example(f"micro-general-{i}", [{"role": "user", "content": text}]) for i, text in enumerate(texts)]


SUITE = Suite(
    name="micro",
    summary="the eight base skills of the micro world, up to sixty fixed questions each",
    parts=parts,
    grade=grade,
    max_new_tokens=32,
    general=general,
)
