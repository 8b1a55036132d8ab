"""Everyday skills of an instruct model, in plain English: nine parts of 34 items each, checked by rules.

The items are in ``everyday.jsonl``, one a line: ``id`` (its part and a number), ``prompt`` (the user's text, or the
turns of a chat, user first), ``answer`` (the gold answer; a list holds several, any of which is right), ``check``
and ``demonstration`` (a right completion, where the gold answer alone is none). They were written for this suite; none
is taken from a benchmark. No item has a system message, which some chat templates refuse.

``check`` says how an item is graded, as data. ``grader`` is the rule for the answer: one of `grading.named_rules`
(``contains`` unless stated), ``sequence`` (a list in this order) or ``set`` (in any order). ``rivals`` are wrong
answers: none may be said before the right one, or in one breath with it. ``refuses: false``: a refusal is wrong.
Everything else is a constraint on the form (`grading.constraints`). An item is right, 1, if all of it holds, and else
wrong, 0. Where a completion repeats the question before it answers, the repetition is not read as an answer.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources

from sdft_cli.grading.constraints import broken, lists, same_entry
from sdft_cli.grading.exactness import same
from sdft_cli.grading.final_answer import spoken, statements
from sdft_cli.grading.named_rules import GRADERS
from sdft_cli.grading.refusals import refusal
from sdft_cli.grading.thinking import strip_thinking
from sdft_cli.types import Example, Json, Message, Score, Suite

#: Keys of ``check`` that are no constraints on the form.
_CONTENT = ("grader", "rivals", "refuses")
#: Before a word: it is not what the completion answers.
_DENIED = re.compile(r"\b(?:not|never|cannot|no longer|rather than|instead of|\w+n't)\s+(?:[a-z]+\s+){0,3}[\"']?$")
#: Between two words of a list.
_JOINT = re.compile(r"[\s\"']*(?:[,/&]|\b(?:or|and)\b)[\s\"',/]*(?:\b(?:or|and)\b)?\s*(?:an?\s|the\s)?[\"']?")


def parts() -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = {}
    for example in _items():
        found.setdefault(example.meta["part"], []).append(example)
    return found


@cache
def _items() -> list[Example]:
    return [_example(json.loads(line)) for line in _lines("everyday.jsonl")]


def _lines(file: str) -> list[str]:
    text = resources.files("sdft_cli.suites").joinpath(file).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip()]


def _example(row: dict[str, Json]) -> Example:
    turns = [row["prompt"]] if isinstance(row["prompt"], str) else row["prompt"]
    prompt: list[Message] = [
        {"role": "assistant" if place % 2 else "user", "content": text} for place, text in enumerate(turns)
    ]
    meta = {"part": row["id"].rsplit("-", 1)[0], "check": row.get("check", {})}
    return Example(f"everyday-{row['id']}", prompt, row.get("demonstration"), answer=row.get("answer"), meta=meta)


# --- grading ----------------------------------------------------------------------------------------------------------


def grade(completion: str, example: Example) -> Score:
    check = example.meta["check"]
    score = _content(_without_question(completion, example), example, check)
    if score.value != 1.0:
        return score
    if check.get("refuses") is False and (phrase := refusal(strip_thinking(completion))):
        return Score(0.0, phrase, f"refuses: {phrase!r}")
    form = {name: value for name, value in check.items() if name not in _CONTENT}
    problem = broken(strip_thinking(completion), form)
    return Score(0.0, score.extracted, problem) if problem else score


def _without_question(completion: str, example: Example) -> str:
    """The completion without the paragraphs and questions of the prompt that it repeats word for word."""
    for asked in _asked(str(example.prompt[-1]["content"])):
        completion = completion.replace(asked, "\n")
    return completion


def _asked(prompt: str) -> list[str]:
    paragraphs = [part for part in prompt.split("\n\n") if len(part.split()) > 3]
    questions = [match[0].strip() for match in re.finditer(r"[^.?!:\n]+\?", prompt) if len(match[0].split()) > 3]
    return [*paragraphs, *questions]


def _content(completion: str, example: Example, check: dict[str, Json]) -> Score:
    rule = check.get("grader", "contains")
    if example.answer is None:
        return Score(float(bool(strip_thinking(completion).strip())))
    if rule in ("sequence", "set"):
        return _list(completion, example.answer, ordered=rule == "sequence")
    if "rivals" in check:
        return _first(completion, _golds(example), check["rivals"])
    score = GRADERS[rule].score(completion, example)
    if rule == "number" and score.value == 0.0 and not statements(completion)[0].marked:
        beginning = GRADERS[rule].score(spoken(completion).strip().split("\n\n")[0], example)
        score = beginning if beginning.value else score  # what follows the answer may have numbers of its own
    return Score(score.value, score.extracted, score.why)


def _golds(example: Example) -> list[str]:
    return example.answer if isinstance(example.answer, list) else [example.answer]


def _list(completion: str, wanted: list[str], ordered: bool) -> Score:
    """Any part of the completion is a list of exactly these entries."""
    for found in lists(spoken(completion)):
        places = [next((i for i, gold in enumerate(wanted) if same_entry(entry, gold)), -1) for entry in found]
        if (places if ordered else sorted(places)) == list(range(len(wanted))):
            return Score(1.0, ", ".join(found), "right")
    return Score(0.0, None, f"no list of {', '.join(wanted)}{' in this order' if ordered else ''}")


def _first(completion: str, golds: list[str], rivals: list[str]) -> Score:
    """A gold answer is said before any of its rivals, and not in one breath with them ("positive or negative"): in the
    final answer, if that says either. What is denied ("not a cat") is not said."""
    for statement in statements(completion):
        text = same(statement.text)
        said = [each for each in _mentions(golds + rivals).finditer(text) if not _DENIED.search(text[: each.start()])]
        if not said:
            continue
        right = [each[0] in set(map(same, golds)) for each in said]
        if not right[0]:
            return Score(0.0, said[0][0], f"says {said[0][0]!r} first, expected {golds[0]!r}")
        rival = right.index(False) if False in right else 0
        if rival and _JOINT.fullmatch(text[said[rival - 1].end() : said[rival].start()]):
            return Score(0.0, said[0][0], f"names several, expected {golds[0]!r}")
        return Score(1.0, said[0][0], "right")
    return Score(0.0, None, f"does not contain {golds[0]!r}")


def _mentions(texts: list[str]) -> re.Pattern[str]:
    longest_first = sorted(map(same, texts), key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b")


# --- prompts that are no items ----------------------------------------------------------------------------------------


def general() -> list[Example]:
    """Prompts of the same kinds without answers, none of them an item."""
    return [
        Example(f"everyday-general-{place}", [{"role": "user", "content": text}])
        for place, text in enumerate(_lines("everyday_general.txt"))
    ]


SUITE = Suite(
    name="everyday",
    summary="everyday skills of an instruct model in plain English, 306 items in nine parts",
    parts=parts,
    grade=grade,
    max_new_tokens=64,
    general=general,
)
