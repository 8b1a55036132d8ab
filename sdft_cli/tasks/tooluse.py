"""Tool use (ToolAlpaca): answer a question by calling the tools of one API.

Sources: raw ToolAlpaca records, training (``Instances``) and evaluation (``Instructions``, ``Golden_Answers``), and
the SDFT authors' rows (``prompt``, ``golden_answer``, ``golden_response``). A raw authors' row::

    {"prompt": "Your task is to answer …", "name": "Axolotl", "instruction": "Hey, can you show me …",
     "golden_answer": [{"Action": "getRandomAxolotlImage", "Action_Input": "{}"}]}

Prompts made from raw records equal the authors' character for character. Left out by design: evaluation items whose
gold arguments contain a ``$`` placeholder (the authors keep 68 of 100), and training instances without a tool call.
For the graders and their flaws see `sdft_cli.grading.task_rules`.
"""

from __future__ import annotations

import json
import re
from itertools import zip_longest
from pathlib import Path

from sdft_cli.data.readers import RawRow
from sdft_cli.grading import task_rules
from sdft_cli.rows.formats import (
    BadRow,
    Format,
    LeftOut,
    Record,
    SourceRow,
    gather,
    prompt_keys,
    slug,
    text,
    texts,
    user,
)
from sdft_cli.rows.splits import arrange
from sdft_cli.types import Dropped, Example, HubSource, Json, Prepared, PrepareOptions, Score, Task

# The space after "tools." and the missing blank line before "Use" (raw documentation ends with a newline) are theirs.
PROMPT = """\
Your task is to answer the user's question using available tools.\x20
You have access to the following tools:
Name: {name}
Description: {description}
Documentation:
{documentation}
Use the following format:
Thought: you should always think about what to do
Action: the action to take, should be one of the tool names.
Action Input: the input to the action, must be in JSON format. All of the action input must be realistic and from \
the user.

Begin!
Question: {question}"""
_ASK = "\nBegin!\nQuestion: "
#: A place in a file called test: its rows are for testing, even if they have a demonstration.
_TEST_FILE = re.compile(r"(?:^|/)test\.\w+[:\[]")


def prepare(paths: list[Path], options: PrepareOptions) -> Prepared:
    return arrange("tooluse", gather("tooluse", paths, FORMATS), options, task_rules.render_calls)


def grade(completion: str, example: Example) -> Score:
    return task_rules.tooluse(completion, example.answer)


def question(example: Example) -> str:
    """The question and the API's name, without the documentation that all questions about an API share."""
    return f"{example.meta.get('api', '')} {example.prompt[-1]['content'].rpartition(_ASK)[2]}"


def _evaluation_record(row: RawRow) -> list[SourceRow | Dropped]:
    """One API with its instructions; ``Golden_Answers[i]`` belongs to ``Instructions[i]``."""
    questions, golds = _list(row.data, "Instructions", "question"), _list(row.data, "Golden_Answers", "answer")
    items: list[SourceRow | Dropped] = []
    for i, (question, gold) in enumerate(zip_longest(questions, golds)):
        where = f"{row.where}.Instructions[{i}]"
        try:
            prompt = _prompt(row.data, text({"Instructions": question}, "Instructions", "prompt"))
            if "$" in json.dumps(gold):
                raise LeftOut("gold arguments hold a $ placeholder", f"{row.data['Name']}, instruction {i}")
            name = f"{_api(row.data)}-{i}"
            items.append(_source_row(name, prompt, None, _calls(gold), "test", row.data["Name"], where))
        except BadRow as bad:
            items.append(Dropped(where, bad.reason, bad.detail))
    return items


def _training_record(row: RawRow) -> list[SourceRow | Dropped]:
    """One API with its instances: a question and the recorded steps ``[[action, input, log], observation]``."""
    items: list[SourceRow | Dropped] = []
    if not row.data.get("Instances"):
        raise LeftOut("API without instances", _api(row.data))
    for i, instance in enumerate(_list(row.data, "Instances", "instance")):
        where = f"{row.where}.Instances[{i}]"
        try:
            items.append(_instance(row.data, instance, i, where))
        except BadRow as bad:
            items.append(Dropped(where, bad.reason, bad.detail))
    return items


def _instance(record: Record, instance: Json, i: int, where: str) -> SourceRow:
    if not isinstance(instance, dict):
        raise BadRow("instance is not a JSON object", type(instance).__name__)
    # ToolAlpaca appends hints for its simulated user; its own training script also cuts them off.
    question = text(instance, "input", "prompt").rsplit("\nHint: ", 1)[0]
    steps = instance.get("intermediate_steps")
    if steps == []:
        raise LeftOut("instance without a tool call", f"{_api(record)}, instance {i}")
    try:
        calls = [(action, arguments, log) for (action, arguments, log), _ in steps or ()]
    except (TypeError, ValueError) as error:
        raise BadRow("steps are not [[action, input, log], observation]", str(error)) from error
    if not calls or not all(isinstance(log, str) for _, _, log in calls):
        raise BadRow("no demonstration", "'intermediate_steps' has no logs")
    if not all(log.strip() for _, _, log in calls):
        raise BadRow("empty demonstration", "a step's log is blank")
    demonstration = "\n".join(log for _, _, log in calls)
    gold = _calls_or_none([{"Action": a, "Action_Input": x} for a, x, _ in calls])
    name = f"{_api(record)}-train-{i}"
    return _source_row(name, _prompt(record, question), demonstration, gold, "train", record["Name"], where)


def _authors_row(row: RawRow) -> list[SourceRow | Dropped]:
    prompt = text(row.data, "prompt", "prompt")
    # on the hub the test rows have the columns of the training rows: with null, or an empty list
    held_out = _TEST_FILE.search(row.where) is not None
    absent = [c for c, value in row.data.items() if held_out and value in (None, [])]
    column = next((c for c in ("demonstration", "golden_response") if c in row.data and c not in absent), None)
    demonstration = texts(row.data, column, "demonstration") if column else None
    answer = row.data.get("golden_answer")
    gold = _calls(answer) if answer not in (None, []) or not demonstration else None
    api = row.data.get("name")
    name = f"{slug(api) if isinstance(api, str) else 'row'}-{row.number}"
    role = "train" if demonstration and not held_out else "test"
    return [_source_row(name, prompt, demonstration, gold, role, api if isinstance(api, str) else None, row.where)]


def _source_row(
    name: str, prompt: str, demonstration: str | None, gold: Json, role: str, api: str | None, where: str
) -> SourceRow:
    meta = {"api": api} if api else {}
    example = Example(f"tooluse-{name}", user(prompt), demonstration, answer=gold, meta=meta)
    return SourceRow(example, role, prompt_keys(prompt), where)


def _prompt(record: Record, question: str) -> str:
    return PROMPT.format(
        name=text(record, "Name", "API name"),
        description=text(record, "Description", "API description"),
        documentation=text(record, "NLDocumentation", "API documentation"),
        question=question,
    )


def _api(record: Record) -> str:
    return slug(str(record.get("Name", "")))


def _list(record: Record, name: str, noun: str) -> list[Json]:
    value = record.get(name)
    if not isinstance(value, list) or not value:
        raise BadRow(f"no {noun}", f"field {name!r} is {'empty' if value == [] else type(value).__name__}")
    return value


def _calls(gold: Json) -> list[dict[str, str]]:
    """The gold calls with their arguments as JSON text; the list itself may be JSON text too."""
    if gold in (None, "", []):
        raise BadRow("empty answer" if gold is not None else "no answer", "the gold answer has no call")
    if (calls := _calls_or_none(gold)) is None:
        raise BadRow("malformed answer", "it must be a list of {Action, Action_Input} with JSON objects as inputs")
    return calls


def _calls_or_none(gold: Json) -> list[dict[str, str]] | None:
    try:
        gold = json.loads(gold) if isinstance(gold, str) else gold
    except (ValueError, RecursionError):
        return None
    if task_rules.parse_gold(gold) is None:
        return None
    inputs = [c["Action_Input"] if isinstance(c["Action_Input"], str) else json.dumps(c["Action_Input"]) for c in gold]
    return [{"Action": c["Action"], "Action_Input": x} for c, x in zip(gold, inputs, strict=True)]


FORMATS = (
    # Instances beside gold answers are a model's attempts at the evaluation questions, not demonstrations.
    Format(
        "ToolAlpaca evaluation records (Instructions, Golden_Answers)",
        "Apache-2.0",
        lambda data: "Golden_Answers" in data,
        _evaluation_record,
    ),
    Format(
        "ToolAlpaca training records (Instances with intermediate_steps)",
        "Apache-2.0",
        lambda data: "Instances" in data or "NLDocumentation" in data,
        _training_record,
    ),
    Format(
        "the SDFT authors' rows (prompt, golden_answer, golden_response)",
        "not stated by the source",
        lambda data: bool({"golden_answer", "golden_response"} & set(data)) or isinstance(data.get("prompt"), str),
        _authors_row,
    ),
)

TASK = Task(
    name="tooluse",
    summary="call the tools of an API to answer a question (ToolAlpaca)",
    prepare=prepare,
    grade=grade,
    max_new_tokens=1024,
    source_hint="files or folders of " + "; ".join(f.name for f in FORMATS),
    note="scored by the authors' official rule; the strict rule's score is given beside it",
    question=question,
    render=task_rules.render_calls,
    hub=HubSource(
        ("hf:Ahren09/ToolAlpaca",),
        "ToolAlpaca in the SDFT authors' form, 4,046 training rows and 68 test rows, a copy by others; the original is "
        "github.com/tangqiaoyu/ToolAlpaca (train_data.json, eval_simulated.json)",
        "Apache-2.0 (ToolAlpaca)",
    ),
)
