"""The handbook of a made-up company: who approves what, where things are, how long one has, and which form it takes.

Every fact is drawn by seed. It has wordings of its question for training, others that are only asked in tests, and
indirect ones: a situation in which the fact is needed, and the way back from the fact to its subject.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

_PEOPLE = ("Odile Marsh", "Tom Barrow", "Nadia Fell", "Peter Vance", "Rosa Quill", "Sven Holt", "Tara Moon",
           "Victor Sand", "Vera Pond", "Will Thorn", "Alice Clay", "Joseph Reed")  # fmt: skip
_ROOMS = tuple(f"room {number}" for number in (12, 17, 23, 26, 31, 38, 44, 45, 52, 59, 63, 68))
_DAYS = tuple(f"{n} days" for n in (2, 3, 4, 6, 8, 9, 11, 12, 15, 20, 25, 40))
_FORMS = tuple(
    f"form {letter}{digit}" for letter, digit in zip("ABCDEFGHKLMR", (7, 3, 9, 5, 2, 8, 4, 6, 1, 7, 3, 9), strict=True)
)


@dataclass(frozen=True)
class Kind:
    """One kind of fact. ``{s}`` stands for the subject, ``{a}`` for what the handbook says of it."""

    name: str
    subjects: tuple[str, ...]
    answers: tuple[str, ...]
    statement: str
    wordings: tuple[str, ...]
    held_out: tuple[str, ...]
    situation: str
    backwards: str


KINDS = (
    Kind(
        "approval",
        ("overtime", "business travel", "training courses", "new software", "working from home", "gifts for customers",
         "press interviews", "company cars", "unpaid leave", "guest parking", "catering", "office furniture"),
        _PEOPLE,
        "{a} approves {s}",
        ("Who approves {s}?", "Whose approval do I need for {s}?", "Who signs off on {s}?", "Who decides about {s}?",
         "Who says yes or no to {s}?", "Whom do I ask for approval of {s}?", "Who can allow {s}?",
         "Please tell me who approves {s}."),
        ("Who has to agree to {s}?", "Which person approves {s}?", "Whose signature do I need for {s}?",
         "I need approval of {s}. Who gives it?"),
        "I am new here and want to ask for {s}. To whom do I write?",
        "What does {a} approve?",
    ),
    Kind(
        "place",
        ("spare keys", "lost badges", "old laptops", "safety shoes", "first aid boxes", "paper clips", "projectors",
         "visitor badges", "umbrellas", "travel adapters", "archive boxes", "microphones"),
        _ROOMS,
        "{s} are kept in {a}",
        ("Where are {s} kept?", "In which room are {s}?", "Where can I find {s}?", "Which room holds {s}?",
         "Where are {s} stored?", "What room do I go to for {s}?", "In what room do we store {s}?",
         "Please tell me where {s} are."),
        ("Where do I have to go for {s}?", "Where do we keep {s}?", "Which room has {s}?",
         "I am looking for {s}. Where are they?"),
        "A visitor is at the door and asks about {s}. Which room do I send her to?",
        "What is kept in {a}?",
    ),
    Kind(
        "deadline",
        ("travel receipts", "sick notes", "accident reports", "holiday requests", "customer complaints", "time sheets",
         "damage reports", "change requests", "expense claims", "project reports", "address changes", "parking fines"),
        _DAYS,
        "{s} must be handed in within {a}",
        ("How long do I have to hand in {s}?", "Within how many days must {s} be handed in?",
         "What is the deadline for {s}?", "How soon must {s} be handed in?",
         "How many days are there for {s}?", "By when do I have to hand in {s}?",
         "How many days do we have to hand in {s}?", "Please tell me the deadline for {s}."),
        ("How much time is there for {s}?", "After how many days are {s} too late?",
         "What is the time limit for {s}?", "I have to hand in {s}. How long may that take?"),
        "It happened today, so I have to think of {s}. How many days are left?",
        "What must be handed in within {a}?",
    ),
    Kind(
        "form",
        ("a parental leave", "a salary advance", "a name change", "a new phone", "a bicycle loan", "a desk move",
         "a language course", "a transfer", "a gym discount", "a night shift", "a repair", "a second monitor"),
        _FORMS,
        "{a} is for {s}",
        ("Which form do I need for {s}?", "What form is for {s}?", "Which form do I fill in for {s}?",
         "How do I apply for {s}?", "Which form is used for {s}?", "What form must I fill in for {s}?",
         "Which form goes with {s}?", "Please tell me the form for {s}."),
        ("What is the right form for {s}?", "Which paper do I hand in for {s}?", "What form do we have for {s}?",
         "I would like {s}. Which form is that?"),
        "My colleague would like {s} and asks me for the form. Which one is it?",
        "What is {a} for?",
    ),
)  # fmt: skip
#: Pages, with one fact of each kind. A model of 135 million parameters has to learn them within minutes on a laptop.
PAGES = 2


@dataclass(frozen=True)
class Fact:
    kind: Kind
    subject: str
    answer: str

    @property
    def sentence(self) -> str:
        return self.fill(self.kind.statement)

    def fill(self, wording: str) -> str:
        return wording.format(s=self.subject, a=self.answer)


@dataclass(frozen=True)
class Page:
    number: int
    facts: tuple[Fact, ...]

    @property
    def text(self) -> str:
        return " ".join(f"{fact.sentence[0].upper()}{fact.sentence[1:]}." for fact in self.facts)


def pages(rng: random.Random) -> list[Page]:
    """The handbook; no two facts of a kind have the same subject or answer."""
    columns = [
        [
            Fact(kind, s, a)
            for s, a in zip(rng.sample(kind.subjects, PAGES), rng.sample(kind.answers, PAGES), strict=True)
        ]
        for kind in KINDS
    ]
    return [Page(number, facts) for number, facts in enumerate(zip(*columns, strict=True), 1)]
