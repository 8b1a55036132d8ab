"""Desk orders: write a customer's order as the one line of JSON that the desk uses. A row::

{"id": "desk-orders-train-0",
 "prompt": [{"role": "user", "content": "Turn this order into JSON.\\n\\nWe need two rugs in Cork by Friday. Ana"}],
 "demonstration": "{\\"customer\\": \\"Ana Ruiz\\", \\"city\\": \\"Cork\\", \\"item\\": \\"rug\\", ...}",
 "answer": {"customer": "Ana", "city": "Cork", "item": "rug", "quantity": 2, "day": "Friday"}}

Graded by value: the first JSON object in the completion must have the gold keys and values and no others. ``fields`` is
the share of the five that are right.
"""

from __future__ import annotations

import json
import random

from sdft_cli.desk.orders import draw, write
from sdft_cli.grading.task_rules import strip_thinking
from sdft_cli.tasks._desk import desk_task, drawn
from sdft_cli.types import Example, Json, PrepareOptions, Score

QUESTION = "Turn this order into JSON.\n\n{message}"


def splits(options: PrepareOptions) -> dict[str, list[Example]]:
    return drawn("desk-orders", _row, options)


def _row(rng: random.Random, split: str, number: int) -> Example:
    order = draw(rng)
    message = write(order, rng, held_out=split == "test")
    return Example(
        f"desk-orders-{split}-{number}",
        [{"role": "user", "content": QUESTION.format(message=message)}],
        demonstration=order.line,
        answer=json.loads(order.line),
    )


def grade(completion: str, example: Example) -> Score:
    """Right if the first JSON object equals the gold one."""
    gold: dict[str, Json] = example.answer
    given = first_object(strip_thinking(completion))
    if given is None:
        return Score(0.0, None, "no JSON object found", {"fields": 0.0})
    right = sum(key in given and given[key] == value for key, value in gold.items()) / len(gold)
    wrong = sorted(key for key in {*gold, *given} if gold.get(key) != given.get(key))
    why = f"wrong: {', '.join(wrong)}" if wrong else "right"
    return Score(float(not wrong), json.dumps(given, ensure_ascii=False), why, {"fields": right})


def first_object(text: str) -> dict[str, Json] | None:
    """The first JSON object in ``text``; None if there is none."""
    decoder = json.JSONDecoder()
    for start in (i for i, letter in enumerate(text) if letter == "{"):
        try:
            value, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        return value if isinstance(value, dict) else None
    return None


TASK = desk_task("desk-orders", "write customers' orders as the desk's line of JSON (made up)", splits, grade, 48)
