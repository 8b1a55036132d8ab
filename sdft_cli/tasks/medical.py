"""Medical (HuatuoGPT-o1): open questions with a short verifiable answer.

Sources: training rows (``Question``, ``Response``; the ``Complex_CoT`` is not used), evaluation rows
(``Open-ended Verifiable Question``, ``Ground-True Answer``), and records with both. A raw record::

    {"Question": "A 45-year-old man …?", "Complex_CoT": "Alright, …", "Response": "The condition is …",
     "Open-ended Verifiable Question": "A 45-year-old man …?", "Ground-True Answer": "Parvovirus B19 infection"}

A record with both becomes either a training row or an evaluation row, drawn by seed, so that no question is on both
sides. Without a judge (``--judge``), answers are scored by whole-word containment
(`sdft_cli.grading.task_rules.containment`), which is blind to negation and paraphrase.
"""

from __future__ import annotations

from pathlib import Path

from sdft_cli.data.readers import RawRow
from sdft_cli.grading import task_rules
from sdft_cli.grading.rubrics import MEDICAL
from sdft_cli.rows.formats import BadRow, Format, Record, SourceRow, gather, prompt_keys, text, user
from sdft_cli.rows.splits import arrange
from sdft_cli.types import Dropped, Example, HubSource, Prepared, PrepareOptions, Score, Task

TRAIN_QUESTION, DEMONSTRATION = "Question", "Response"
TEST_QUESTION, ANSWER = "Open-ended Verifiable Question", "Ground-True Answer"


def prepare(paths: list[Path], options: PrepareOptions) -> Prepared:
    return arrange("medical", gather("medical", paths, FORMATS), options, str)


def grade(completion: str, example: Example) -> Score:
    return task_rules.containment(completion, example.answer)


def _both(row: RawRow) -> list[SourceRow | Dropped]:
    """The training row keeps the gold answer and the evaluation row the demonstration, so that nothing is lost."""
    question, verifiable = text(row.data, TRAIN_QUESTION, "prompt"), text(row.data, TEST_QUESTION, "prompt")
    demonstration, answer = text(row.data, DEMONSTRATION, "demonstration"), _answer(row)
    name = f"medical-{row.number}"
    train = Example(name, user(question), demonstration, answer=answer)
    held_out = Example(name, user(verifiable), demonstration, answer=answer)
    return [SourceRow(train, "pool", prompt_keys(verifiable, question), row.where, held_out)]


def _training(row: RawRow) -> list[SourceRow | Dropped]:
    question = text(row.data, TRAIN_QUESTION, "prompt")
    answer = _answer(row) if row.data.get(ANSWER) is not None else None
    demonstration = text(row.data, DEMONSTRATION, "demonstration")
    example = Example(f"medical-train-{row.number}", user(question), demonstration, answer=answer)
    return [SourceRow(example, "train", prompt_keys(question), row.where)]


def _evaluation(row: RawRow) -> list[SourceRow | Dropped]:
    question = text(row.data, TEST_QUESTION, "prompt")
    example = Example(f"medical-test-{row.number}", user(question), answer=_answer(row))
    return [SourceRow(example, "test", prompt_keys(question), row.where)]


def _answer(row: RawRow) -> str:
    answer = text(row.data, ANSWER, "answer")
    if task_rules.containment("", answer).value is None:
        raise BadRow("answer has no words", f"{answer[:40]!r}")
    return answer


def _joined(rows: list[Record]) -> tuple[list[Record], list[str]]:
    """The training rows of one dataset, each with the gold answer that the other has for its question.

    Problems without a response are left out: a test row would otherwise ask what a training row asks, and there would
    be more test rows than training rows.
    """
    answers = {_spaced(row[TEST_QUESTION]): row[ANSWER] for row in rows if row.get(TEST_QUESTION) and row.get(ANSWER)}
    joined = []
    for row in rows:
        if (question := row.get(TRAIN_QUESTION)) and row.get(DEMONSTRATION):
            answer = answers.pop(_spaced(question), None)
            gold = {TEST_QUESTION: question, ANSWER: answer} if answer else {}
            joined.append({TRAIN_QUESTION: question, DEMONSTRATION: row[DEMONSTRATION], **gold})
    graded = sum(ANSWER in row for row in joined)
    return joined, [
        f"{graded} of {len(joined)} questions with a response have a gold answer among the verifiable problems; "
        f"{len(answers)} problems without a response were left out"
    ]


def _spaced(question: object) -> str:
    return " ".join(str(question).split())


FORMATS = (
    Format(
        "HuatuoGPT-o1 records with both (Question, Response, Open-ended Verifiable Question, Ground-True Answer)",
        "not stated by the source",
        lambda data: {TRAIN_QUESTION, DEMONSTRATION} & set(data) != set() and TEST_QUESTION in data,
        _both,
    ),
    Format(
        "HuatuoGPT-o1 training rows (Question, Response)",
        "not stated by the source",
        lambda data: DEMONSTRATION in data or TRAIN_QUESTION in data,
        _training,
    ),
    Format(
        "HuatuoGPT-o1 evaluation rows (Open-ended Verifiable Question, Ground-True Answer)",
        "not stated by the source",
        lambda data: TEST_QUESTION in data or ANSWER in data,
        _evaluation,
    ),
)

TASK = Task(
    name="medical",
    summary="open medical questions with a short answer (HuatuoGPT-o1)",
    prepare=prepare,
    grade=grade,
    max_new_tokens=1024,
    source_hint="files or folders of " + "; ".join(f.name for f in FORMATS),
    note="scored by whole-word containment of the gold answer, unless a judge is named",
    rubric=MEDICAL,
    hub=HubSource(
        ("hf:FreedomIntelligence/medical-o1-reasoning-SFT:en", "hf:FreedomIntelligence/medical-o1-verifiable-problem"),
        "HuatuoGPT-o1's data: 19,704 English questions with responses, and about 40,600 problems with gold answers, "
        "joined by question",
        "Apache-2.0",
        _joined,
    ),
)
