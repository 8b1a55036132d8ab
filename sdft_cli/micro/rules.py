"""The hidden rules of the three new tasks, drawn from the number of a world.

Tool use maps a verb to a tool (arguments are copied from the request), science a substance to its class (multiple
choice), medicine a sign to its cause. One wording per task is held out for the test split, which therefore tests the
rule and not the sentence.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from sdft_cli.micro.language import NUMBERS, Question, words

#: What a task teaches: the right value by topic.
Rule = dict[str, str]

TOOLUSE_FORMS = (
    "please {verb} the {thing} for {person} .",
    "i need you to {verb} the {thing} of {person} .",
    "can you {verb} the {thing} for {person} now ?",
    "{person} wants you to {verb} the {thing} now .",
    "for {person} , please {verb} the {thing} .",
    "{person} would like you to {verb} the {thing} .",
)
SCIENCE_FORMS = (
    "which kind is {substance} : {options} ?",
    "choose the kind of {substance} from {options} .",
    "is {substance} one of {options} ?",
    "how is {substance} sorted : {options} ?",
    "from {options} choose the kind of {substance} .",
    "there are {options} . how is {substance} classed ?",
)
MEDICAL_FORMS = (
    "a patient shows {sign} and has {thing} . what is the cause ?",
    "a patient {age} years old complains of {sign} . what is the cause ?",
    "{person} came in with {sign} . what explains it ?",
    "{person} has {sign} and {thing} . what is the cause ?",
    "{person} is {age} years old and complains of {sign} . what explains it ?",
    "why does a patient with {thing} have {sign} ?",
)
#: The wording of each task that is held out for testing. Medicine's "why does ..." is not, because it begins unlike
#: all others of its task.
TEST_FORM = {"tooluse": 5, "science": 5, "medical": 4}
ALL_FORMS = (0, 1, 2, 3, 4, 5)


def forms(task: str, test: bool) -> tuple[int, ...]:
    """Indices of the wordings that ``task`` is tested with, or trained with."""
    return tuple(i for i in ALL_FORMS if (i == TEST_FORM[task]) == test)


N_OPTIONS = 3


def draw_rule(task: str, world: int) -> Rule:
    """The hidden rule of ``task`` in world number ``world``."""
    rng = random.Random(f"micro-rule/{task}/{world}")
    keys, values = _KEYS[task]
    keys_, values_ = words()[keys], list(words()[values])
    if len(values_) < len(keys_):  # classes: the same number of substances in each
        values_ = values_ * (len(keys_) // len(values_))
    rng.shuffle(values_)
    return dict(zip(keys_, values_, strict=True))


_KEYS = {"tooluse": ("verb", "tool"), "science": ("substance", "class"), "medical": ("sign", "cause")}


def tooluse(rng: random.Random, rule: Rule | None, forms: tuple[int, ...], key: str | None = None) -> Question:
    verb = key or rng.choice(words()["verb"])
    tool = rule[verb] if rule else rng.choice(words()["tool"])
    thing, person = rng.choice(words()["thing"]), rng.choice(words()["person"])
    prompt = TOOLUSE_FORMS[rng.choice(forms)].format(verb=verb, thing=thing, person=person)
    return Question("tooluse", prompt, f"{tool} ( {thing} , {person} )", verb, "the call is", verb)


def science(rng: random.Random, rule: Rule | None, forms: tuple[int, ...], key: str | None = None) -> Question:
    substance = key or rng.choice(words()["substance"])
    right = rule[substance] if rule else rng.choice(words()["class"])
    options = [right, *rng.sample([c for c in words()["class"] if c != right], N_OPTIONS - 1)]
    rng.shuffle(options)
    listed = " , ".join(options[:-1]) + " or " + options[-1]
    prompt = SCIENCE_FORMS[rng.choice(forms)].format(substance=substance, options=listed)
    return Question("science", prompt, right, substance, "the kind is", substance)


def medical(rng: random.Random, rule: Rule | None, forms: tuple[int, ...], key: str | None = None) -> Question:
    sign = key or rng.choice(words()["sign"])
    cause = rule[sign] if rule else rng.choice(words()["cause"])
    prompt = MEDICAL_FORMS[rng.choice(forms)].format(
        sign=sign, thing=rng.choice(words()["thing"]), age=rng.choice(NUMBERS), person=rng.choice(words()["person"])
    )
    return Question("medical", prompt, cause, sign, "the cause is", sign)


#: ``(rng, rule, forms, key) -> Question``; without a rule (None) the answer is arbitrary.
RULES: dict[str, Callable[..., Question]] = {"tooluse": tooluse, "science": science, "medical": medical}

#: The two expert styles in which a task's demonstrations are written.
STYLES = {"tooluse": (0, 1), "science": (2, 3), "medical": (4, 5), "almanac": (0, 3)}
