"""How a completion becomes a `Score`: one pure function for each rule, each with the flaws it is known to have.

``value`` is 1.0 or 0.0, or None where nothing can be said (the row's gold answer is missing or malformed):
unscored is not wrong. ``extracted`` is what the rule read out of the completion, ``why`` one line for a person.
Thinking (``<think>…</think>``) is taken off before any rule looks. Judges are not here: they need a model.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from typing import Any

from sdft_cli.types import Score

Arguments = dict[str, Any]
Call = tuple[str, Arguments]


def strip_thinking(text: str) -> str:
    """``text`` after its last ``</think>``; a ``<think>`` that never closes takes the rest with it.

    An opening tag may be missing (many chat templates put it into the prompt). A completion that was cut off
    while thinking has no answer, so nothing of it is graded.
    """
    return text.rsplit("</think>", 1)[-1].split("<think>", 1)[0]


def exact(extracted: str | None, gold: Any) -> Score:
    """The extracted answer equals the gold one, whitespace apart."""
    if not isinstance(gold, str) or not gold.strip():
        return Score(None, extracted, "unscored: the row has no gold answer")
    if extracted is None:
        return Score(0.0, None, f"no answer found; wanted {gold!r}")
    right = extracted.split() == gold.split()
    return Score(float(right), extracted, "right" if right else f"said {extracted!r}, wanted {gold!r}")


# --- tool use ---------------------------------------------------------------------------------------------------------

_OFFICIAL_NAME = re.compile(r"Action:\s*(\w+)")
_OFFICIAL_INPUT = re.compile(r"Action Input:\s*({.*?})", re.DOTALL)
_ANY_CALL = re.compile(r"^[ \t]*Action(?: Input)?:", re.MULTILINE)
_CALL = re.compile(r"[ \t]*Action:[ \t]*(?P<name>[^\n]+?)\s+Action Input:\s*")
_OPTIONAL = "[Optional]"  # ToolAlpaca marks some gold calls so; it is no part of a tool's name
_UNSCORED_CALLS = "unscored: the gold answer is not a list of {Action, Action_Input}"


def tooluse(completion: str, gold: Any) -> Score:
    """The official rule as ``value``, the strict one beside it as ``extra["strict"]``."""
    official, strict = tooluse_official(completion, gold), tooluse_strict(completion, gold)
    if official.value is None or strict.value is None:
        return official
    why = official.why if official.value == strict.value else f"official: {official.why}; strict: {strict.why}"
    return Score(official.value, official.extracted, why, {"strict": strict.value})


def tooluse_official(completion: str, gold: Any) -> Score:
    """The SDFT authors' rule, bit for bit.

    Only what follows the last ``</think>`` counts. Names: every ``Action:\\s*(\\w+)``, compared as a multiset.
    Arguments: every ``Action Input:\\s*({.*?})`` that parses as JSON, merged into one dict, equal to the merged
    gold arguments (Python's ``==``, so ``1 == 1.0 == true``).

    Known flaws: nested JSON is cut at the first ``}`` and then ignored, so some rows cannot be won even by the
    gold text; merging hides which call had which argument and lets a later call overwrite an earlier one;
    arguments that do not parse count as none, so a broken call wins where the gold has no arguments; a gold
    name with other than word characters (``[Optional]x``) can never be matched; text that merely mentions
    ``Action: x`` counts as a call; thinking that never closes is graded.
    """
    calls = parse_gold(gold)
    if calls is None:
        return Score(None, None, _UNSCORED_CALLS)
    tail = completion.split("</think>")[-1]
    names = _OFFICIAL_NAME.findall(tail)
    arguments: Arguments = {}
    for block in _OFFICIAL_INPUT.findall(tail[: tail.rfind("}") + 1]):  # the cut keeps the search linear
        try:
            arguments.update(json.loads(block))
        except (ValueError, RecursionError):
            continue
    wanted: Arguments = {}
    for _, gold_arguments in calls:
        wanted.update(gold_arguments)
    extracted = f"{', '.join(names) or 'no call'} {_show(arguments)}"
    if Counter(names) != Counter(name for name, _ in calls):
        return Score(0.0, extracted, f"tools differ: wanted {', '.join(name for name, _ in calls)}")
    if arguments != wanted:
        return Score(0.0, extracted, f"arguments differ: wanted {_show(wanted)}")
    return Score(1.0, extracted, "right")


def tooluse_strict(completion: str, gold: Any) -> Score:
    """Every call parsed whole: the multiset of (name, arguments) equals the gold one.

    A call is a line that starts with ``Action: name`` followed by ``Action Input:`` and one JSON object, nesting
    and all, with no key twice. One malformed call spoils the completion. Arguments are compared as JSON values (3
    equals 3.0, but true is not 1). ToolAlpaca's mark ``[Optional]`` is taken off names on both sides; the call stays
    required.

    Known flaws: the order of calls is ignored even where one needs another's result; an equivalent value in
    another spelling, or an extra harmless argument, is wrong.
    """
    calls = parse_gold(gold)
    if calls is None:
        return Score(None, None, _UNSCORED_CALLS)
    said, broken = parse_calls(strip_thinking(completion))
    extracted = "; ".join(f"{name} {_show(arguments)}" for name, arguments in said) or "no call"
    if broken:
        return Score(0.0, extracted, broken)
    right = _multiset(said) == _multiset(calls)
    wanted = "; ".join(f"{name} {_show(arguments)}" for name, arguments in calls)
    return Score(float(right), extracted, "right" if right else f"calls differ: wanted {wanted}")


def parse_calls(text: str) -> tuple[list[Call], str]:
    """All calls written in ``text``, and what is wrong with the first malformed one ("" if none is)."""
    calls: list[Call] = []
    position = 0
    while found := _ANY_CALL.search(text, position):
        line = text.count("\n", 0, found.start()) + 1
        call = _CALL.match(text, found.start())
        if not call:
            return calls, f"line {line}: no Action followed by its Action Input"
        try:
            arguments, position = _ONCE.raw_decode(text, call.end())
        except (ValueError, RecursionError) as error:
            why = str(error) if isinstance(error, _Twice) else "is not JSON"
            return calls, f"line {line}: the Action Input {why}"
        if not isinstance(arguments, dict):
            return calls, f"line {line}: the Action Input is not a JSON object"
        calls.append((call["name"].strip(), arguments))
    return calls, ""


class _Twice(ValueError):
    """A JSON object names a key twice: which value a tool would get is anybody's guess."""


def _no_key_twice(pairs: list[tuple[str, Any]]) -> Arguments:
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise _Twice(f"has the key {name!r} twice")
    return dict(pairs)


_ONCE = json.JSONDecoder(object_pairs_hook=_no_key_twice)


def parse_gold(gold: Any) -> list[Call] | None:
    """The calls of a list of ``{Action, Action_Input}`` (inputs as JSON text or objects); None if it is not one."""
    if not isinstance(gold, list) or not gold:
        return None
    calls: list[Call] = []
    for item in gold:
        name, arguments = (item.get("Action"), item.get("Action_Input")) if isinstance(item, dict) else (None, None)
        try:
            arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        except (ValueError, RecursionError):
            return None
        if not isinstance(name, str) or not name.strip() or not isinstance(arguments, dict):
            return None
        calls.append((name, arguments))
    return calls


def render_calls(gold: list[dict[str, str]]) -> str:
    """Gold calls as a completion writes them: ``Action: x`` and ``Action Input: {…}`` lines for each."""
    return "\n".join(f"Action: {call['Action']}\nAction Input: {call['Action_Input']}" for call in gold)


def _multiset(calls: list[Call]) -> Counter[tuple[str, str]]:
    return Counter((name.removeprefix(_OPTIONAL).strip(), _show(_one_number_type(args))) for name, args in calls)


def _one_number_type(value: Any) -> Any:
    """JSON has one kind of number: 3.0 becomes 3, so that both spell alike; truth values stay what they are."""
    if isinstance(value, dict):
        return {k: _one_number_type(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_one_number_type(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _show(arguments: Any) -> str:
    return json.dumps(arguments, sort_keys=True, ensure_ascii=False)


# --- science ----------------------------------------------------------------------------------------------------------


def science(completion: str, gold: Any) -> Score:
    """The text inside the last ``<answer>…</answer>`` is exactly the gold letter, whitespace apart.

    A last tag that never closes is read to the end, as the authors do. Known flaws: "B." or "B: 18" is wrong
    although its meaning is clear, and so is a small letter; a reply that only mentions the format in its last
    ``<answer>`` is read as an answer. One difference from the authors' code, which splits at the tag without
    asking whether it is there: a completion that is nothing but the bare letter is wrong here.
    """
    text = strip_thinking(completion)
    inside = text.rsplit("<answer>", 1)[1].split("</answer>", 1)[0].strip() if "<answer>" in text else None
    if not isinstance(gold, str) or not gold.strip():
        return Score(None, inside, "unscored: the row has no gold letter")
    if inside is None:
        return Score(0.0, None, f"no <answer> in the completion; wanted {gold.strip()}")
    right = inside == gold.strip()
    return Score(float(right), inside[:200], "right" if right else f"said {inside[:80]!r}, wanted {gold.strip()}")


# --- medical ----------------------------------------------------------------------------------------------------------

# A number keeps its inner points and commas, so that gold "5" is not found inside "5.5" or "1,005".
_WORD = re.compile(r"\d+(?:[.,:]\d+)+|[^\W_]+")


def containment(completion: str, gold: Any) -> Score:
    """The gold answer's words occur in the completion, whole, in order and next to each other.

    Case, punctuation and Unicode presentation forms are ignored. A stand-in until a judge grades meaning. Known
    flaws: a negated mention ("not rheumatic fever") and a list that names every possibility count as right;
    a paraphrase, an abbreviation or another inflection counts as wrong; a gold answer that is a whole sentence
    is hardly ever matched.
    """
    wanted = _words(gold) if isinstance(gold, str) else []
    if not wanted:
        return Score(None, None, "unscored: the row has no gold answer in words")
    said = _words(strip_thinking(completion))
    n = len(wanted)
    right = any(said[i : i + n] == wanted for i in range(len(said) - n + 1))
    why = "contains the gold answer" if right else f"does not contain {gold!r}"
    return Score(float(right), " ".join(wanted) if right else None, why)


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
