"""Messages of customers, and the team of the desk that each belongs to.

Which teams there are, only demonstrations tell: no message names one. Each has wordings for training and others that
occur in tests alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Team:
    """``reason`` is how the desk's experts put what the message is about; wordings have slots for `WORDS`."""

    name: str
    reason: str
    wordings: tuple[str, ...]
    held_out: tuple[str, ...]


TEAMS = (
    Team(
        "shipping",
        "the parcel is late",
        (
            "My {thing} should have been here on {day}, and nothing has come.",
            "I am still waiting for the {thing} I ordered. Where is it?",
            "The tracking page has not changed since {day}. When will my {thing} arrive?",
            "You promised the {thing} for {day}. It is not here.",
            "How long does it take to send a {thing} to {city}? It has been two weeks.",
            "The courier never came to {city} with my {thing}.",
        ),
        (
            "It is a week past {day} and there is no sign of the {thing}.",
            "Has the {thing} been sent to {city} at all? I have waited long enough.",
        ),
    ),
    Team(
        "damage",
        "the item is broken",
        (
            "The {thing} came out of the box in two pieces.",
            "There is a crack right through my new {thing}.",
            "I opened the parcel on {day} and the {thing} was smashed.",
            "One leg of the {thing} is bent, it cannot be used.",
            "The glass of the {thing} is shattered. I am very sad about it.",
            "My {thing} arrived in {city} with a big hole in it.",
        ),
        (
            "When I unpacked the {thing}, bits of it fell on the floor.",
            "The {thing} is dented and torn on one side.",
        ),
    ),
    Team(
        "exchange",
        "another item was sent",
        (
            "I ordered a {thing} and got a {other} instead.",
            "There is a {other} in the box, but I bought a {thing}.",
            "Why did you send me a {other}? I wanted a {thing}.",
            "The parcel from {day} holds a {other}. My order says {thing}.",
            "This is a {other}, not the {thing} I paid for.",
            "You mixed something up: a {other} came to {city}, not a {thing}.",
        ),
        (
            "Somebody else must have my {thing}, because I have their {other}.",
            "The label says {thing}, yet inside I found a {other}.",
        ),
    ),
    Team(
        "refunds",
        "the customer wants the money back",
        (
            "I sent the {thing} back on {day}. When do I get my money?",
            "Please refund the {thing}, I do not want it any more.",
            "My bank shows no refund for the {thing} yet.",
            "I would like my money back for the {thing}.",
            "You owe me the price of the {thing} I returned from {city}.",
            "How do I get a refund for a {thing}?",
        ),
        (
            "The returned {thing} reached you on {day}, but I have not been repaid.",
            "Kindly pay back what I spent on the {thing}.",
        ),
    ),
    Team(
        "accounts",
        "the customer cannot log in",
        (
            "I forgot my password and cannot see my order of the {thing}.",
            "The website says my account is locked since {day}.",
            "The code to sign in never reaches my phone in {city}.",
            "I cannot log in to buy a {thing}.",
            "My login stopped working on {day}.",
            "Please reset my password, I want to order a {thing}.",
        ),
        (
            "Signing in fails every time I try to look at my {thing}.",
            "I am shut out of my account and need a new password by {day}.",
        ),
    ),
    Team(
        "billing",
        "an invoice is needed",
        (
            "Please send me the invoice for the {thing}.",
            "My office in {city} needs a bill with tax number for the {thing}.",
            "The invoice for the {thing} has the wrong address on it.",
            "I need a receipt for the {thing} by {day}.",
            "Where can I download the invoice of my {thing}?",
            "Our accountant asks for the bill of {day}.",
        ),
        (
            "For my taxes I have to show a bill for the {thing}.",
            "The company name is missing on the receipt for the {thing}.",
        ),
    ),
    Team(
        "repairs",
        "it is a repair under guarantee",
        (
            "After a year the {thing} has stopped working. Is it still under guarantee?",
            "The {thing} was fine until {day}, now it will not start. Can you repair it?",
            "Does the guarantee cover a {thing} that makes strange noises?",
            "Can I bring my {thing} to your workshop in {city} for repair?",
            "My {thing} from last year needs a new part. Can you repair it?",
            "The motor of the {thing} died after ten months. What does the guarantee say?",
        ),
        (
            "Last year's {thing} has worn out already. Will your workshop mend it for free?",
            "How do I claim the guarantee on a {thing} that gave up on {day}?",
        ),
    ),
    Team(
        "sales",
        "it is a question before buying",
        (
            "Is the {thing} also sold in green?",
            "How heavy is the {thing}?",
            "Do you have a {thing} that is larger than a {other}?",
            "Before I buy the {thing}: can it stand outside in winter?",
            "Will there be more of the {thing} in the shop in {city} by {day}?",
            "What is the difference between the {thing} and the {other}?",
        ),
        (
            "I am thinking of buying a {thing}. Of what is it made?",
            "Which sizes of the {thing} can one choose from?",
        ),
    ),
)
WORDS = {
    "thing": ("kettle", "lamp", "garden chair", "tent", "toaster", "bookcase", "clock", "blender", "rug", "heater",
              "mirror", "bicycle bell", "water filter", "desk fan", "coffee mill"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "the 3rd", "the 12th", "the 20th"),
    "city": ("Leeds", "Cork", "Turin", "Graz", "Porto", "Ghent", "Lund", "Basel", "Nantes", "Gdansk"),
}  # fmt: skip
_OPENINGS = ("", "", "Hello, ", "Hi, ", "Dear team, ", "Good morning. ")
_ENDINGS = ("", "", " Thanks.", " Please help.", " Kind regards, {name}", " Best, {name}")
_NAMES = ("Ana", "Bill", "Carla", "Dev", "Elsa", "Femi", "Greta", "Hugo", "Ines", "Jonas", "Kim", "Lena")


def write(team: Team, rng: random.Random, held_out: bool) -> str:
    """A message for ``team``, in a wording for training or a held-out one."""
    thing, other = rng.sample(WORDS["thing"], 2)
    slots = {"thing": thing, "other": other, "day": rng.choice(WORDS["day"]), "city": rng.choice(WORDS["city"])}
    text = rng.choice(team.held_out if held_out else team.wordings).format(**slots)
    opening, ending = rng.choice(_OPENINGS), rng.choice(_ENDINGS).format(name=rng.choice(_NAMES))
    if opening.endswith(", ") and not text.startswith("I "):
        text = text[0].lower() + text[1:]
    return f"{opening}{text}{ending}"
