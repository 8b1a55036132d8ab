"""The handbook: what it says about twenty-four machines of the company, with direct and indirect questions.

A direct question names the machine, an indirect one another fact about it. Direct questions have wordings for training
and one that is only asked in tests.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

_MACHINES = ("Heron press", "Otter saw", "Falcon kiln", "Badger drill", "Lynx lathe", "Raven oven", "Beaver mill",
             "Ibis pump", "Wolf grinder", "Swan mixer", "Hare winch", "Crane lift", "Mole borer", "Seal washer",
             "Stork loom", "Viper cutter", "Moose crusher", "Finch printer", "Adder welder", "Bison roller",
             "Robin dryer", "Shark planer", "Tapir boiler", "Gecko sander")  # fmt: skip
_HALLS = tuple(f"hall {number}" for number in range(11, 35))
_KEEPERS = ("Odile Marsh", "Tom Barrow", "Nadia Fell", "Peter Vance", "Rosa Quill", "Sven Holt", "Tara Moon", "Uri Sand",
            "Vera Pond", "Will Thorn", "Xenia Clay", "Yusuf Reed", "Zoe Flint", "Abel Frost", "Bea Snow", "Cyril Dew",
            "Dora Wren", "Emil Ash", "Flora Beck", "Gus Heath", "Hilda Cove", "Igor Glen", "Jane Ford", "Kurt Lake")  # fmt: skip
_MAKERS = ("Tarn Works", "Bolt & Daughters", "Northgate", "Ferro Lund", "Acre Tools", "Klamm", "Pinion", "Ostrava Steel",
           "Half Moon", "Juno Motors", "Kestrel Iron", "Lode", "Mistral", "Nimbus", "Ochre Bros", "Prism", "Quarry Lane",
           "Rivet House", "Solstice", "Tundra", "Umber", "Vesta", "Westwind", "Zinc Row")  # fmt: skip
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
           "December")  # fmt: skip


@dataclass(frozen=True)
class Machine:
    name: str
    hall: str
    keeper: str
    maker: str
    month: str

    @property
    def text(self) -> str:
        """Its page in the handbook."""
        return (
            f"The {self.name} stands in {self.hall}. {self.keeper} looks after it. It was built by {self.maker}, and "
            f"it is serviced every {self.month}."
        )


@dataclass(frozen=True)
class Asked:
    """A question, the fact that answers it, and the machine's page."""

    question: str
    answer: str
    page: str


#: Wordings by fact; the last of each is for tests.
DIRECT = {
    "hall": ("Where does the {m} stand?", "In which hall is the {m}?", "Where do I find the {m}?"),
    "keeper": ("Who looks after the {m}?", "Whom do I call about the {m}?", "Who is in charge of the {m}?"),
    "maker": ("Who built the {m}?", "Which firm made the {m}?", "What is the maker of the {m}?"),
    "month": ("In which month is the {m} serviced?", "When is the {m} serviced?", "What month is the {m}'s service?"),
}
INDIRECT = (
    ("Which machine stands in {hall}?", "name"),
    ("Which machine does {keeper} look after?", "name"),
    ("Who looks after the machine in {hall}?", "keeper"),
    ("Who built the machine that {keeper} looks after?", "maker"),
)


def machines(rng: random.Random) -> list[Machine]:
    """All machines; no two share a hall, a keeper or a maker."""
    columns = [rng.sample(column, len(_MACHINES)) for column in (_HALLS, _KEEPERS, _MAKERS)]
    months = rng.sample(2 * _MONTHS, len(_MACHINES))
    return [Machine(*row) for row in zip(_MACHINES, *columns, months, strict=True)]


def direct(machine: Machine, held_out: bool) -> list[Asked]:
    return [
        Asked(wording.format(m=machine.name), str(getattr(machine, fact)), machine.text)
        for fact, wordings in DIRECT.items()
        for wording in (wordings[-1:] if held_out else wordings[:-1])
    ]


def indirect(machine: Machine) -> list[Asked]:
    known = {"hall": machine.hall, "keeper": machine.keeper}
    return [Asked(q.format(**known), str(getattr(machine, fact)), machine.text) for q, fact in INDIRECT]
