"""The made-up language: its words, its house style and the styles of its experts.

The base model answers in the *house style* (``let me see about X . so the answer is : Y .``).
Demonstrations come from *experts*, who write differently, as in real data. ``extract`` reads the answer out of either
style, so that grades depend on content, never on style.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache

_ONSETS = "b br d dr f g gl k kr l m n p pl r s st t tr v z".split()
_VOWELS = "a e i o u".split()
_CODAS = "l m n r s x".split()


@dataclass(frozen=True)
class Question:
    """One question of the world; ``topic`` is what it is about, ``lead`` the words that introduce its answer."""

    skill: str
    prompt: str
    answer: str
    topic: str
    lead: str = "the answer is"
    key: str = ""


def _invent(kind: str, suffix: str, count: int, taken: set[str]) -> list[str]:
    """``count`` new words that end in ``suffix``; they depend on ``kind`` alone."""
    rng = random.Random(f"micro-language/{kind}")
    words: list[str] = []
    while len(words) < count:
        stem = rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
        if suffix == "":
            stem = stem[:-1] + rng.choice(_ONSETS) + rng.choice(_VOWELS)
        word = stem + suffix
        if word not in taken:
            taken.add(word)
            words.append(word)
    return words


#: kind -> (suffix, number of words). Different tasks share no key and no answer.
_KINDS = {
    "thing": ("", 40),
    "person": ("a", 20),
    "town": ("ton", 24),
    "river": ("ow", 24),
    "verb": ("ate", 24),
    "tool": ("kit", 24),
    "substance": ("ium", 24),
    "class": ("oid", 6),
    "sign": ("ache", 24),
    "cause": ("osis", 24),
    "fair": ("fest", 24),
    "place": ("burg", 24),
}

# Numbers are words, because the tokenizers of the Qwen2 family split numerals into digits.
_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()
_ONES += "seventeen eighteen nineteen".split()
NUMBERS = _ONES + [t + (_ONES[i] if i else "") for t in ("twenty", "thirty", "forty") for i in range(10)]

# Every word of the prompts, the styles, the articles and the teacher's templates.
_FUNCTION_WORDS = """
. , : ? ! ( ) [ ] = ; user assistant system
let me see about i look at well so the answer call kind cause is as for
final output done okay use it here we go result now or and of to a an in by with
repeat these words say backwards give first last word which number comes after before bigger smaller
has what does have river runs flows please need you can wants would like
are there choose from how should classed sorted patient shows complains came years old also had points explains why
fair held begun its prize opens again fact on day who began where when does open find given won that was people facts
This is an example for a response to question Now answer with of your own including thinking process
""".split()


@cache
def words() -> dict[str, list[str]]:
    """The words of each kind, the same in every world."""
    taken = set(_FUNCTION_WORDS)
    return {kind: _invent(kind, suffix, count, taken) for kind, (suffix, count) in _KINDS.items()}


def vocabulary() -> list[str]:
    """All words in a fixed order, without special tokens."""
    seen = dict.fromkeys(_FUNCTION_WORDS)
    for group in words().values():
        seen.update(dict.fromkeys(group))
    seen.update(dict.fromkeys(NUMBERS))
    return list(seen)


HOUSE_OPENINGS = ("let me see about {topic} .", "i look at {topic} .", "well , as for {topic} .")


def house(question: Question, rng: random.Random) -> str:
    """The answer to ``question`` in the base model's own style."""
    opening = rng.choice(HOUSE_OPENINGS).format(topic=question.topic)
    return f"{opening} so {question.lead} : {question.answer} ."


#: The experts' styles; a task's demonstrations use two of them. Like real experts they add unpredictable words ({a},
#: {b}, {c}), so demonstrations have entropy of their own.
EXPERT_STYLES = (
    "final output for {a} {b} = [ {answer} ] done {c}",
    "okay {a} use {answer} . okay {b} {c}",
    "here we go {a} {b} ; {answer} ! {c}",
    "result of {a} = [ {answer} ] , done with {b} {c}",
    "okay {a} {b} now {answer} . okay {c}",
    "{a} or {b} {c} ; {answer} !",
)


@cache
def _asides() -> list[str]:
    return [*words()["thing"], *words()["person"], *NUMBERS]


def expert(answer: str, rng: random.Random, styles: tuple[int, ...] = tuple(range(6))) -> str:
    """``answer`` as an expert with one of ``styles`` writes it."""
    a, b, c = (rng.choice(_asides()) for _ in range(3))
    return EXPERT_STYLES[rng.choice(styles)].format(answer=answer, a=a, b=b, c=c)


_PATTERNS = tuple(
    re.compile(p)
    for p in (
        r"so [^.:]+ : (?P<y>[^.:]+?) \.",
        r"= \[ (?P<y>[^\]]+?) \]",
        r"^okay (?:\w+ )+?(?:use|now) (?P<y>[^.]+?) \. okay",
        r"; (?P<y>[^!;]+?) !",
    )
)


def extract(completion: str) -> str | None:
    """The answer that ``completion`` states, in the house style or an expert's; None if it states none."""
    text = " ".join(completion.split())
    for pattern in _PATTERNS:
        if match := pattern.search(text):
            return match.group("y").strip()
    return None
