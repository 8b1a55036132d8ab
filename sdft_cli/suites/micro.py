"""The base skills of the micro world: the prior suite of the embedded model.

Eight parts of sixty fixed questions, the same for every run, seed and world, so that two scores are always about
the same items. Graded by content like the micro tasks: an answer in an expert's style is as good as one in the
house style.
"""

from __future__ import annotations

import random

from sdft_cli import grading
from sdft_cli.micro.language import extract
from sdft_cli.micro.skills import SKILLS
from sdft_cli.types import Example, Score, Suite

PER_SKILL = 60


def parts() -> dict[str, list[Example]]:
    return {skill: _part(skill) for skill in SKILLS}


def grade(completion: str, example: Example) -> Score:
    return grading.exact(extract(grading.strip_thinking(completion)), example.answer)


def _part(skill: str) -> list[Example]:
    """Distinct prompts as long as the skill has them (there are fewer than sixty numbers to count on from)."""
    rng = random.Random(f"micro-suite/{skill}")
    rows: list[Example] = []
    seen: set[str] = set()
    for i in range(PER_SKILL):
        question = SKILLS[skill](rng)
        for _ in range(1000):
            if question.prompt not in seen:
                break
            question = SKILLS[skill](rng)
        seen.add(question.prompt)
        prompt = [{"role": "user", "content": question.prompt}]
        rows.append(Example(f"micro-{skill}-{i}", prompt, answer=question.answer, meta={"skill": skill}))
    return rows


SUITE = Suite(
    name="micro",
    summary="the eight base skills of the micro world, sixty fixed questions each",
    parts=parts,
    grade=grade,
    max_new_tokens=32,
)
