"""Desk triage: label a customer's message with the team that answers it, in the desk's own scheme of eight. A row::

{"id": "desk-triage-train-0",
 "prompt": [{"role": "user", "content": "Label this message with the name of our team.\\n\\nMessage: Is ..."}],
 "demonstration": "Team Sales, because it is a question before buying.", "answer": "sales", "meta": {"team": "sales"}}

Graded by the team that the completion names: right if it is the gold one and no other is named. Known flaw: a team's
name used as an ordinary word ("the sales tax") counts as named; no message of ours does so.
"""

from __future__ import annotations

import random
import re

from sdft_cli.desk.messages import TEAMS, write
from sdft_cli.grading.task_rules import strip_thinking
from sdft_cli.tasks._desk import desk_task, drawn
from sdft_cli.types import Example, PrepareOptions, Score

QUESTION = "Label this message with the name of our team.\n\nMessage: {message}"
_NAMED = re.compile(rf"\b({'|'.join(team.name for team in TEAMS)})\b", re.IGNORECASE)


def splits(options: PrepareOptions) -> dict[str, list[Example]]:
    return drawn("desk-triage", _row, options)


def _row(rng: random.Random, split: str, number: int) -> Example:
    team = TEAMS[number % len(TEAMS)]
    message = write(team, rng, held_out=split == "test")
    return Example(
        f"desk-triage-{split}-{number}",
        [{"role": "user", "content": QUESTION.format(message=message)}],
        demonstration=f"Team {team.name.capitalize()}, because {team.reason}.",
        answer=team.name,
        meta={"team": team.name},
    )


def grade(completion: str, example: Example) -> Score:
    """Right if the gold team is the only one that is named."""
    named = list(dict.fromkeys(word.lower() for word in _NAMED.findall(strip_thinking(completion))))
    if not named:
        return Score(0.0, None, f"no team named; expected {example.answer!r}")
    right = named == [example.answer]
    return Score(float(right), ", ".join(named), "right" if right else f"expected {example.answer!r}")


TASK = desk_task("desk-triage", "label customers' messages with the desk's eight teams (made up)", splits, grade, 16)
