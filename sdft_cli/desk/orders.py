"""Orders by message, and the one line of JSON that the desk writes of each.

The line's keys and their order are the desk's own. Wordings for training and for tests differ.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from sdft_cli.desk.messages import WORDS

_NAMES = ("Anna Berg", "Ben Okoro", "Clara Moss", "David Lind", "Ella Frost", "Farid Nasser", "Grace Hill",
          "Hana Sato", "Ivan Petrov", "Julia Costa", "Karl Weiss", "Lucy Grant", "Marta Nowak", "Nils Dahl",
          "Olga Ruiz")  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
_COUNTS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
WORDINGS = (
    "Please send {count} {things} to {name} in {city} by {day}.",
    "{name} from {city} would like {count} {things}. They are needed on {day}.",
    "I want to order {count} {things} for {day}. Ship them to {name}, {city}.",
    "Can you deliver {count} {things} to {city} on {day}? The name is {name}.",
    "For {name}: {count} {things}, to {city}, before {day}.",
    "We need {count} {things} in {city} by {day}, please. {name}",
)
HELD_OUT = (
    "By {day}, {name} has to have {count} {things} in {city}.",
    "My name is {name} and I live in {city}. On {day} I need {count} {things}.",
)


@dataclass(frozen=True)
class Order:
    item: str
    count: int
    name: str
    city: str
    day: str

    @property
    def line(self) -> str:
        """The order as the desk writes it."""
        return json.dumps(
            {"customer": self.name, "city": self.city, "item": self.item, "quantity": self.count, "day": self.day},
            ensure_ascii=False,
        )


def draw(rng: random.Random) -> Order:
    return Order(
        rng.choice(WORDS["thing"]), rng.randint(1, 12), rng.choice(_NAMES), rng.choice(WORDS["city"]), rng.choice(_DAYS)
    )


def write(order: Order, rng: random.Random, held_out: bool) -> str:
    """The order as a customer writes it."""
    count = rng.choice((str(order.count), _COUNTS[order.count - 1]))
    things = order.item if order.count == 1 else f"{order.item}s"
    wording = rng.choice(HELD_OUT if held_out else WORDINGS)
    return wording.format(count=count, things=things, name=order.name, city=order.city, day=order.day)
