"""Science (SciKnowEval, Chemistry L-3): multiple choice with reasoning, answered in ``<answer>`` tags.

Sources: SciKnowEval JSONL (files or the folder of a level) and the SDFT authors' rows (``prompt`` or ``messages``
with ``answer``; training rows have ``output_text``). A raw SciKnowEval row::

    {"question": "How many atoms are there in …?", "choices": {"text": ["63", "18", "58", "80"],
     "label": ["A", "B", "C", "D"]}, "answerKey": "B", "type": "mcq-4-choices", "domain": "Chemistry",
     "details": {"level": "L3", "task": "molecule_structure_prediction", …}}

Left out by design: questions that are not multiple choice or do not have four options, for which the authors' system
prompt is not meant. Raw rows are split 75 / 5 / 20; the same question with its options in another order counts as the
same question.
"""

from __future__ import annotations

import re
from collections import Counter
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
    messages,
    prompt_keys,
    slug,
    text,
    texts,
)
from sdft_cli.rows.splits import arrange
from sdft_cli.types import Dropped, Example, HubSource, Message, Prepared, PrepareOptions, Score, Task

SYSTEM = """
Given a question and four options, please select the right answer. Respond in the following format:
<reasoning>
...
</reasoning>
<answer>
...
</answer>

For the answer, only output the letter corresponding to the correct option (A, B, C, or D), and nothing else. \
Do not restate the answer text. For example, if the answer is "A", just output:
<answer>
A
</answer>
"""
LABELS = ["A", "B", "C", "D"]
_OPTIONS = re.compile(r"\n\s*A:.*", re.DOTALL)


def prepare(paths: list[Path], options: PrepareOptions) -> Prepared:
    prepared = arrange("science", gather("science", paths, FORMATS), options, render_answer)
    kinds = Counter(e.meta["level"] for rows in prepared.splits.values() for e in rows if "level" in e.meta)
    if kinds:
        prepared.notes.append("rows by level: " + ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items())))
    return prepared


def grade(completion: str, example: Example) -> Score:
    return task_rules.science(completion, example.answer)


def render_answer(answer: str) -> str:
    """A gold letter in the answer format that the system prompt asks for."""
    return f"<answer>\n{answer}\n</answer>"


def _sciknoweval_row(row: RawRow) -> list[SourceRow | Dropped]:
    data = row.data
    kind, choices = data.get("type"), data.get("choices")
    if not isinstance(kind, str) or not isinstance(choices, dict):
        raise BadRow("wrong field", "'type' must be text and 'choices' an object")
    if not kind.startswith("mcq"):
        raise LeftOut("not multiple choice", f"type {kind!r}")
    question, letter = text(data, "question", "prompt"), text(data, "answerKey", "answer").strip()
    listed = _listed(choices)
    if letter not in LABELS:
        raise BadRow("answer is not among the options", f"answerKey {letter!r}")
    raw = data.get("details")
    details: Record = raw if isinstance(raw, dict) else {}
    prompt: list[Message] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"{question}\n\n{listed}"},
    ]
    topic = str(details.get("task") or "row")
    meta = {"level": f"{data.get('domain', '')} {details.get('level', '')}".strip() or "unknown", "topic": topic}
    example = Example(f"science-{slug(topic)}-{row.number}", prompt, answer=letter, meta=meta)
    return [SourceRow(example, "pool", _question_keys(prompt[-1]["content"]), row.where)]


def _listed(choices: Record) -> str:
    """``A: …`` to ``D: …``, one per line."""
    options, labels = choices.get("text"), choices.get("label")
    if not isinstance(options, list) or not isinstance(labels, list) or len(options) != len(labels):
        raise BadRow("malformed options", "'choices' needs as many texts as labels")
    if labels != LABELS:
        raise LeftOut("not four options A to D", f"labels {', '.join(map(str, labels)) or 'none'}")
    if not all(isinstance(option, str) and option.strip() for option in options):
        raise BadRow("empty option", "every option must be text")
    return "\n".join(f"{label}: {option}" for label, option in zip(labels, options, strict=True))


def _authors_row(row: RawRow) -> list[SourceRow | Dropped]:
    prompt = messages(row.data, "prompt" if "prompt" in row.data else "messages")
    column = next((c for c in ("demonstration", "output_text") if c in row.data), None)
    demonstration = texts(row.data, column, "demonstration") if column else None
    if "answer" in row.data or demonstration is None:
        answer: str | None = text(row.data, "answer", "answer").strip()
    else:  # a training row may have the letter only in its demonstration
        answer = task_rules.science(demonstration, None).extracted
    if answer is not None and answer not in LABELS:
        raise BadRow("answer is not a letter", f"{answer[:40]!r}")
    example = Example(f"science-{row.number}", prompt, demonstration, answer=answer)
    role = "train" if demonstration else "test"
    return [SourceRow(example, role, _question_keys(prompt[-1]["content"]), row.where)]


def _question_keys(content: str) -> tuple[bytes, ...]:
    return prompt_keys(_OPTIONS.sub("", content).strip() or content)


def _chemistry_l3(rows: list[Record]) -> tuple[list[Record], list[str]]:
    """Of the rows of all of SciKnowEval, those that the task is named after."""
    chosen = [
        row for row in rows if (row.get("domain"), (row.get("details") or {}).get("level")) == ("Chemistry", "L3")
    ]
    return chosen, [f"of {len(rows)} rows of SciKnowEval, the {len(chosen)} on Chemistry, level L3, were taken"]


FORMATS = (
    Format(
        "SciKnowEval rows (question, choices, answerKey)",
        "none stated by the source",
        lambda data: "choices" in data or "answerKey" in data,
        _sciknoweval_row,
    ),
    Format(
        "the SDFT authors' rows (prompt or messages, answer, output_text)",
        "not stated by the source",
        lambda data: (
            isinstance(data.get("prompt", data.get("messages")), list)
            or ("answer" in data and bool({"prompt", "messages"} & set(data)))
        ),
        _authors_row,
    ),
)

TASK = Task(
    name="science",
    summary="chemistry questions with four options (SciKnowEval, Chemistry L-3)",
    prepare=prepare,
    grade=grade,
    max_new_tokens=2048,
    source_hint="files or folders of " + "; ".join(f.name for f in FORMATS),
    render=render_answer,
    options=len(LABELS),
    hub=HubSource(
        ("hf:hicai-zju/SciKnowEval",),
        "SciKnowEval, 28,392 questions in its version 2 (the one the hub serves), of which Chemistry L3 is used; "
        "also github.com/HICAI-ZJU/SciKnowEval",
        "MIT",
        _chemistry_l3,
    ),
)
