"""The shipped tasks' grading rules: one pure function each, from a completion to a `Score`, with its known flaws.

``value`` is 1.0 or 0.0, or None where the row cannot be scored (its gold answer is missing or malformed): unscored is
not wrong. ``extracted`` is what the rule read out of the completion, ``why`` one line for a person. Thinking
(`grading.thinking`) is removed before any rule is applied. Judges are not here: they need a model.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter

from sdft_cli.grading.thinking import strip_thinking
from sdft_cli.types import Json, Score

Arguments = dict[str, Json]
Call = tuple[str, Arguments]


def exact(extracted: str | None, gold: Json) -> Score:
    """The extracted answer equals the gold one, whitespace apart."""
    if not isinstance(gold, str) or not gold.strip():
        return Score(None, extracted, "unscored: the row has no gold answer")
    if extracted is None:
        return Score(0.0, None, f"no answer found; expected {gold!r}")
    right = extracted.split() == gold.split()
    return Score(float(right), extracted, "right" if right else f"answered {extracted!r}, expected {gold!r}")


# --- tool use ---------------------------------------------------------------------------------------------------------

_OFFICIAL_NAME = re.compile(r"Action:\s*(\w+)")
_OFFICIAL_INPUT = re.compile(r"Action Input:\s*({.*?})", re.DOTALL)
_ANY_CALL = re.compile(r"^[ \t]*Action(?: Input)?:", re.MULTILINE)
_CALL = re.compile(r"[ \t]*Action:[ \t]*(?P<name>[^\n]+?)\s+Action Input:\s*")
_OPTIONAL = "[Optional]"  # how ToolAlpaca marks some gold calls; not part of a tool's name
_UNSCORED_CALLS = "unscored: the gold answer is not a list of {Action, Action_Input}"


def tooluse(completion: str, gold: Json) -> Score:
    """The official rule as ``value``, the strict one beside it as ``extra["strict"]``."""
    official, strict = tooluse_official(completion, gold), tooluse_strict(completion, gold)
    if official.value is None or strict.value is None:
        return official
    why = official.why if official.value == strict.value else f"official: {official.why}; strict: {strict.why}"
    return Score(official.value, official.extracted, why, {"strict": strict.value})


def tooluse_official(completion: str, gold: Json) -> Score:
    """The SDFT authors' rule, bit for bit.

    Only what follows the last ``</think>`` counts. Names: every ``Action:\\s*(\\w+)``, compared as a multiset.
    Arguments: every ``Action Input:\\s*({.*?})`` that parses as JSON, merged into one dict, equal to the merged
    gold arguments (Python's ``==``, so ``1 == 1.0 == true``).

    Known flaws: nested JSON is cut at the first ``}`` and then ignored, so even the gold text is wrong for some rows;
    merging hides which call had which argument and lets a later call overwrite an earlier one; arguments that do not
    parse count as none, so a broken call is right where the gold one has no arguments; a gold name with characters
    other than word characters (``[Optional]x``) never matches; text that merely mentions ``Action: x`` counts as a
    call; thinking that never closes is graded.
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
    expected: Arguments = {}
    for _, gold_arguments in calls:
        expected.update(gold_arguments)
    extracted = f"{', '.join(names) or 'no call'} {_show(arguments)}"
    if Counter(names) != Counter(name for name, _ in calls):
        return Score(0.0, extracted, f"tools differ: expected {', '.join(name for name, _ in calls)}")
    if arguments != expected:
        return Score(0.0, extracted, f"arguments differ: expected {_show(expected)}")
    return Score(1.0, extracted, "right")


def tooluse_strict(completion: str, gold: Json) -> Score:
    """Every call is parsed completely: the multiset of (name, arguments) equals the gold one.

    A call is a line that starts with ``Action: name`` followed by ``Action Input:`` and one JSON object, nested values
    included, with no key twice. One malformed call makes the completion wrong. Arguments are compared as JSON values (3
    equals 3.0, but true is not 1). ToolAlpaca's mark ``[Optional]`` is removed from names on both sides; the call
    remains required.

    Known flaws: the order of calls is ignored even where one needs another's result; an equivalent value in another
    spelling, or an extra harmless argument, is wrong.
    """
    calls = parse_gold(gold)
    if calls is None:
        return Score(None, None, _UNSCORED_CALLS)
    answered, broken = parse_calls(strip_thinking(completion))
    extracted = "; ".join(f"{name} {_show(arguments)}" for name, arguments in answered) or "no call"
    if broken:
        return Score(0.0, extracted, broken)
    right = _multiset(answered) == _multiset(calls)
    expected = "; ".join(f"{name} {_show(arguments)}" for name, arguments in calls)
    return Score(float(right), extracted, "right" if right else f"calls differ: expected {expected}")


def parse_calls(text: str) -> tuple[list[Call], str]:
    """All calls in ``text``, and what is wrong with the first malformed one ("" if none is)."""
    calls: list[Call] = []
    position = 0
    while start := _ANY_CALL.search(text, position):
        line = text.count("\n", 0, start.start()) + 1
        call = _CALL.match(text, start.start())
        if not call:
            return calls, f"line {line}: no Action followed by its Action Input"
        try:
            arguments, position = _DECODER.raw_decode(text, call.end())
        except (ValueError, RecursionError) as error:
            why = str(error) if isinstance(error, _DuplicateKey) else "is not JSON"
            return calls, f"line {line}: the Action Input {why}"
        if not isinstance(arguments, dict):
            return calls, f"line {line}: the Action Input is not a JSON object"
        calls.append((call["name"].strip(), arguments))
    return calls, ""


class _DuplicateKey(ValueError):
    """A JSON object has a key twice: nobody knows which value a tool would get."""


def _unique_keys(pairs: list[tuple[str, Json]]) -> Arguments:
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise _DuplicateKey(f"has the key {name!r} twice")
    return dict(pairs)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys)


def parse_gold(gold: Json) -> list[Call] | None:
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


def _one_number_type(value: Json) -> Json:
    """JSON has one kind of number: 3.0 becomes 3, so that both are written the same way; booleans are kept."""
    if isinstance(value, dict):
        return {k: _one_number_type(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_one_number_type(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _show(arguments: Json) -> str:
    return json.dumps(arguments, sort_keys=True, ensure_ascii=False)


# --- science ----------------------------------------------------------------------------------------------------------


def science(completion: str, gold: Json) -> Score:
    """The text inside the last ``<answer>…</answer>`` is exactly the gold letter, whitespace apart.

    A last tag that never closes is read to the end, as in the authors' code. Known flaws: "B." or "B: 18" is wrong
    although its meaning is clear, and so is a small letter; a reply that only mentions the format in its last
    ``<answer>`` is read as an answer. One difference from the authors' code, which splits at the tag without checking
    that it is there: a completion that is just the bare letter is wrong here.
    """
    text = strip_thinking(completion)
    inside = text.rsplit("<answer>", 1)[1].split("</answer>", 1)[0].strip() if "<answer>" in text else None
    if not isinstance(gold, str) or not gold.strip():
        return Score(None, inside, "unscored: the row has no gold letter")
    if inside is None:
        return Score(0.0, None, f"no <answer> in the completion; expected {gold.strip()}")
    right = inside == gold.strip()
    return Score(float(right), inside[:200], "right" if right else f"answered {inside[:80]!r}, expected {gold.strip()}")


# --- medical ----------------------------------------------------------------------------------------------------------

# A number keeps its inner points and commas, so that gold "5" does not match inside "5.5" or "1,005".
_WORD = re.compile(r"\d+(?:[.,:]\d+)+|[^\W_]+")


def containment(completion: str, gold: Json) -> Score:
    """The completion contains the gold answer's words, whole, in order and next to each other.

    Case, punctuation and Unicode presentation forms are ignored. A substitute for a judge, who grades meaning. Known
    flaws: a negated mention ("not rheumatic fever") and a list of every possibility count as right; a paraphrase, an
    abbreviation or another inflection counts as wrong; a gold answer that is a whole sentence hardly ever matches.
    """
    expected = _words(gold) if isinstance(gold, str) else []
    if not expected:
        return Score(None, None, "unscored: the row has no gold answer in words")
    words = _words(strip_thinking(completion))
    n = len(expected)
    right = any(words[i : i + n] == expected for i in range(len(words) - n + 1))
    why = "contains the gold answer" if right else f"does not contain {gold!r}"
    return Score(float(right), " ".join(expected) if right else None, why)


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
