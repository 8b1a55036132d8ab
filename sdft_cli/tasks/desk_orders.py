"""Desk orders: write a customer's order as the one line of JSON that the desk uses. A row::

{"id": "desk-orders-train-0",
 "prompt": [{"role": "user", "content": "Turn this order into JSON.\\n\\nWe need two rugs in Cork by Friday. Ana"}],
 "demonstration": "{\\"customer\\": \\"Ana\\", \\"city\\": \\"Cork\\", \\"item\\": \\"rug\\", ...}",
 "answer": {"customer": "Ana", "city": "Cork", "item": "rug", "quantity": 2, "day": "Friday"}}

Graded by value, like the grader ``json``: the same keys and values, and no others.
"""

from __future__ import annotations

import json
import random

from sdft_cli.desk.orders import draw, write
from sdft_cli.grading.json_values import json_value
from sdft_cli.tasks._desk import desk_task, drawn
from sdft_cli.types import Example, PrepareOptions

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


TASK = desk_task("desk-orders", "write customers' orders as the desk's line of JSON (made up)", splits, json_value, 48)
