"""Records that have to be taken apart before their columns can be read: preference pairs, code, SQL, calls as JSON.

Each reader takes the values of a record by what they are for, and returns them as an ordinary record would have them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from sdft_cli.rows.formats import BadRow, text
from sdft_cli.rows.message_formats import Remarks
from sdft_cli.rows.tool_texts import glaive
from sdft_cli.rows.values import as_text, is_missing, parsed
from sdft_cli.types import Json

#: The values of a record by what they are for.
Values = dict[str, Json]
Names = Mapping[str, str]
_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


def dialogue(value: Json) -> Json:
    """Messages, of text in the form ``\\n\\nHuman: …\\n\\nAssistant: …``; any other value as it is."""
    if not isinstance(value, str) or not (value.lstrip().startswith("Human:") and "\n\nAssistant:" in value):
        return value
    _, *pieces = _TURN.split("\n\n" + value.lstrip())
    turns = zip(pieces[::2], pieces[1::2], strict=True)
    messages = [{"role": "user" if who == "Human" else "assistant", "content": said.strip()} for who, said in turns]
    return messages[:-1] if messages[-1] == {"role": "assistant", "content": ""} else messages


def preference(values: Values, names: Names, remarks: Remarks) -> Values:
    """Of a pair the chosen response is the demonstration. Where it is a whole conversation, as in UltraFeedback or
    HH-RLHF, that says what was asked, too."""
    chosen, prompt = dialogue(parsed(values.get("demonstration"), "[")), dialogue(values.get("prompt"))
    rest = {k: v for k, v in values.items() if k not in ("rejected", "demonstration", "prompt")}
    if is_missing(chosen) or chosen in ([], {}):
        raise BadRow("no chosen response", f"field {names.get('demonstration')!r} is empty")
    if isinstance(values.get("messages"), list):  # what was asked, before one message
        replies = chosen if isinstance(chosen, list) else [chosen]
        said = [{"role": "assistant", "content": each} if isinstance(each, str) else each for each in replies]
        return {**rest, "messages": [*values["messages"], *said]}
    if isinstance(chosen, list) and any(_asks(turn) for turn in chosen):
        return {**rest, "messages": _with_system(prompt, chosen)}
    if is_missing(prompt):
        raise BadRow("no prompt", f"field {names.get('demonstration')!r} is a response without what was asked")
    if isinstance(chosen, str) and isinstance(prompt, str) and chosen.startswith(prompt) and chosen != prompt:
        chosen = chosen[len(prompt) :].strip()
    return {**rest, "prompt": prompt, "demonstration": chosen}


def _asks(turn: Json) -> bool:
    return isinstance(turn, dict) and turn.get("role", turn.get("from")) in ("user", "human")


def _with_system(prompt: Json, chosen: list[Json]) -> list[Json]:
    """The conversation, after the prompt's turns if it does not begin with them."""
    if not isinstance(prompt, list) or chosen[: len(prompt)] == prompt:
        return chosen
    system = [turn for turn in prompt if isinstance(turn, dict) and turn.get("role") == "system"]
    return [*system, *chosen] if not any(turn in chosen for turn in system) else chosen


def calls(values: Values, names: Names, remarks: Remarks) -> Values:
    """A demonstration that is nothing but calls, from the JSON text of their list."""
    column = names.get("demonstration", "")
    listed = parsed(values.get("demonstration"))
    listed = [listed] if isinstance(listed, dict) else listed
    if not isinstance(listed, list) or not listed or not all(isinstance(call, dict) for call in listed):
        raise BadRow("tool calls are not a list", f"field {column!r} is not the JSON text of a list of calls")
    return {**values, "demonstration": [{"role": "assistant", "content": "", "tool_calls": listed}]}


def human_eval(values: Values, names: Names, remarks: Remarks) -> Values:
    """The beginning of a function is to be completed; the demonstration is the whole function."""
    start, body = text(values, "prompt", "prompt"), values.get("demonstration")
    asked = f"Complete this function. Answer with the whole function.\n\n```python\n{start.strip()}\n```"
    whole = None if is_missing(body) else f"```python\n{start.rstrip()}\n{str(body).rstrip()}\n```"
    return {**values, "prompt": asked, "demonstration": whole}


def mbpp(values: Values, names: Names, remarks: Remarks) -> Values:
    """A function is asked for in words; only its tests say what it is called, so the prompt has them too."""
    asked, code = text(values, "prompt", "prompt"), values.get("demonstration")
    listed = parsed(values.get("tests"), "[")
    tests = "\n".join(map(str, listed)) if isinstance(listed, list) else text(values, "tests", "tests")
    prompt = f"{asked.strip()}\n\nYour code should pass these tests:\n\n```python\n{tests}\n```"
    shown = None if is_missing(code) else f"```python\n{str(code).strip()}\n```"
    return {**values, "prompt": prompt, "demonstration": shown, "tests": tests}


def sql(values: Values, names: Names, remarks: Remarks) -> Values:
    """A question about tables needs these: a schema without a passage is the passage, too. WikiSQL's queries are
    objects that also have the query as text."""
    if isinstance(answer := values.get("answer"), dict) and isinstance(answer.get("human_readable"), str):
        values = {**values, "answer": answer["human_readable"]}
    schema = values.get("schema")
    if is_missing(values.get("passage")) and not is_missing(schema):
        return {**values, "passage": schema if isinstance(schema, str) else json.dumps(schema, ensure_ascii=False)}
    return values


def nested_question(values: Values, names: Names, remarks: Remarks) -> Values:
    """A question that is an object with a ``stem`` and ``choices``, as ARC and CommonsenseQA were published."""
    question = parsed(values.get("prompt"), "{")
    if not isinstance(question, dict) or not {"stem", "choices"} <= set(question):
        raise BadRow("no options", f"field {names.get('prompt')!r} has no stem with choices, and no column has options")
    return {**values, "prompt": question["stem"], "choices": question["choices"]}


#: Names of languages in prompts; of another, its code is the name.
LANGUAGES = {
    "ar": "Arabic",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sv": "Swedish",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}


def translation(values: Values, names: Names, remarks: Remarks) -> Values:
    """From the first language of the record to the second."""
    pair = parsed(values.get("translation"), "{")
    said = {code: each for code, each in pair.items() if not is_missing(each)} if isinstance(pair, dict) else {}
    if len(said) != 2:
        raise BadRow(
            "not a text in two languages", f"field {names.get('translation')!r} has {', '.join(said) or 'none'}"
        )
    (source, original), (target, translated) = said.items()
    sides = tuple(LANGUAGES.get(code.lower(), code) for code in (source, target))
    remarks.add(f"prompts ask to translate from {sides[0]} to {sides[1]}; the other way round with --columns")
    asked = f"Translate from {sides[0]} to {sides[1]}.\n\n{as_text(original, 'prompt', source)}"
    return {"prompt": asked, "demonstration": as_text(translated, "demonstration", target)}


Reader = Callable[[Values, Names, Remarks], Values]
READERS: dict[str, Reader] = {
    "preference": preference,
    "glaive": glaive,
    "calls": calls,
    "human_eval": human_eval,
    "mbpp": mbpp,
    "sql": sql,
    "nested_question": nested_question,
    "translation": translation,
}


def said(message: Any) -> str:
    """What a stored message says, as text; "" if it says nothing."""
    content = message.get("content", message.get("value")) if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""
