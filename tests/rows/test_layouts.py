"""Layouts of public datasets, one real-looking row each: the prompt, the gold answer, the demonstration, the grader,
and the columns that are named as unused."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.user_rows import read, read_path

from sdft_cli.errors import UsageError
from sdft_cli.grading.named_rules import GRADERS

LABEL, YES_NO = ("label" if "label" in GRADERS else "exact"), ("yes-no" if "yes-no" in GRADERS else "exact")
ASK = "\n\nAnswer with the letter of the right option."
ABCD = "\n\nA. one\nB. two\nC. three\nD. four" + ASK
FOUR = ["one", "two", "three", "four"]


class Made(NamedTuple):
    """What must become of the first row."""

    prompt: str
    answer: Any = None
    demonstration: Any = None
    grader: str | None = None
    unused: tuple[str, ...] = ()


def choices(prompt: str, letter: str, *unused: str) -> Made:
    return Made(prompt + ABCD, letter, grader="choice", unused=unused)


#: name of the dataset -> its row, what becomes of it, and further rows that it takes to tell
MULTIPLE_CHOICE: dict[str, tuple[dict[str, Any], Made, *tuple[dict[str, Any], ...]]] = {
    "MMLU": (
        {"question": "Which?", "subject": "anatomy", "choices": FOUR, "answer": 2},
        choices("Which?", "C", "subject"),
        {"question": "And?", "subject": "anatomy", "choices": FOUR, "answer": 0},
    ),
    "MMLU as CSV": (
        {"question": "Which?", "A": "one", "B": "two", "C": "three", "D": "four", "answer": "D"},
        choices("Which?", "D"),
    ),
    "MMLU-Pro": (
        {"question_id": 70, "question": "Which?", "options": FOUR, "answer": "B", "answer_index": 1, "src": "x"},
        choices("Which?", "B", "answer_index", "question_id", "src"),
    ),
    "ARC": (
        {"id": "M1", "question": "Which?", "choices": {"text": FOUR, "label": ["A", "B", "C", "D"]}, "answerKey": "C"},
        choices("Which?", "C"),
    ),
    "ARC with labels 1 to 4": (
        {"id": "N1", "question": "Which?", "choices": {"text": FOUR, "label": ["1", "2", "3", "4"]}, "answerKey": "2"},
        choices("Which?", "B"),
    ),
    "ARC as published": (
        {
            "id": "M1",
            "question": {
                "stem": "Which?",
                "choices": [{"text": t, "label": x} for t, x in zip(FOUR, "ABCD", strict=True)],
            },
            "answerKey": "D",
        },
        choices("Which?", "D"),
    ),
    "HellaSwag": (
        {
            "ind": 24,
            "activity_label": "Roof",
            "ctx_a": "A man sits.",
            "ctx_b": "he",
            "ctx": "A man sits. he",
            "endings": FOUR,
            "source_id": "a~v",
            "split": "val",
            "split_type": "indomain",
            "label": "3",
        },
        choices("A man sits. he", "D", "activity_label", "ctx_a", "ctx_b", "ind", "source_id", "split_type"),
        {"ctx": "x", "endings": FOUR, "split": "val", "label": "0"},
    ),
    "CommonsenseQA": (
        {"id": "07", "question": "Which?", "question_concept": "x", "choices": {"label": [*"ABCD"], "text": FOUR}}
        | {"answerKey": "A"},
        choices("Which?", "A", "question_concept"),
    ),
    "OpenBookQA": (
        {"id": "7-980", "question_stem": "Which", "choices": {"text": FOUR, "label": [*"ABCD"]}, "answerKey": "D"},
        choices("Which", "D"),
    ),
    "MedMCQA": (
        {"id": "e9", "question": "Which?", "opa": "one", "opb": "two", "opc": "three", "opd": "four", "cop": 0}
        | {"choice_type": "single", "exp": None, "subject_name": "Anatomy", "topic_name": None},
        choices("Which?", "A", "choice_type", "exp", "subject_name", "topic_name"),
    ),
    "MedQA": (
        {"question": "Which?", "answer": "three", "options": dict(zip("ABCD", FOUR, strict=True)), "answer_idx": "C"},
        choices("Which?", "C", "answer_idx"),
    ),
    "AQuA": (
        {"question": "Which?", "options": ["A)one", "B)two", "C)three", "D)four"], "rationale": "r", "correct": "B"},
        choices("Which?", "B", "rationale"),
    ),
    "MathQA": (
        {"Problem": "Which?", "Rationale": "r", "options": "a ) one , b ) two , c ) three , d ) four", "correct": "d"},
        choices("Which?", "D", "Rationale"),
    ),
    "PIQA": (
        {"goal": "Dry it", "sol1": "towel", "sol2": "water", "label": 0},
        Made("Dry it\n\nA. towel\nB. water" + ASK, "A", grader="choice"),
    ),
    "WinoGrande": (
        {"sentence": "Sarah beat Maria so _ won.", "option1": "Sarah", "option2": "Maria", "answer": "2"},
        Made("Sarah beat Maria so _ won.\n\nA. Sarah\nB. Maria" + ASK, "B", grader="choice"),
    ),
    "COPA": (
        {"premise": "A shadow fell.", "choice1": "Sun.", "choice2": "Rain.", "question": "cause", "idx": 0, "label": 0},
        Made("A shadow fell.\n\nWhat was the cause?\n\nA. Sun.\nB. Rain." + ASK, "A", grader="choice", unused=("idx",)),
    ),
    "Social IQa": (
        {
            "context": "Tracy fell.",
            "question": "Then?",
            "answerA": "a1",
            "answerB": "b1",
            "answerC": "c1",
            "label": "3",
        },
        Made("Tracy fell.\n\nThen?\n\nA. a1\nB. b1\nC. c1" + ASK, "C", grader="choice"),
    ),
    "CosmosQA": (
        {"id": "1", "context": "Text.", "question": "Which?"}
        | {f"answer{i}": text for i, text in enumerate(FOUR)}
        | {"label": 0},
        choices("Text.\n\nWhich?", "A"),
    ),
    "RACE": (
        {"example_id": "h1", "article": "Text.", "answer": "D", "question": "Which?", "options": FOUR},
        choices("Text.\n\nWhich?", "D", "example_id"),
    ),
    "LogiQA": (
        {"context": "Text.", "query": "Which?", "options": FOUR, "correct_option": 3},
        choices("Text.\n\nWhich?", "D"),
        {"context": "Text.", "query": "What?", "options": FOUR, "correct_option": 0},
    ),
    "ReClor": (
        {"context": "Text.", "question": "Which?", "answers": FOUR, "label": 0, "id_string": "t1"},
        choices("Text.\n\nWhich?", "A", "id_string"),
    ),
    "options as JSON in a cell": (
        {"question": "Which?", "options": '["one", "two", "three", "four"]', "answer": "two"},
        choices("Which?", "B"),
    ),
    "options as a list that Python printed": (
        {"question": "Which?", "options": "['one', 'two', 'three', 'four']", "answer": "two"},
        choices("Which?", "B"),
    ),
    "options that say which is right": (
        {"question": "Which?", "options": [{"text": t, "is_correct": t == "two"} for t in FOUR], "answer": "two"},
        choices("Which?", "B"),
    ),
}

OTHERS: dict[str, tuple[dict[str, Any], Made, *tuple[dict[str, Any], ...]]] = {
    "BoolQ": (
        {"question": "is it so", "passage": "It is.", "answer": True},
        Made("It is.\n\nis it so\n\nAnswer yes or no.", "yes", grader=YES_NO),
        {"question": "is it not", "passage": "It is.", "answer": False},
    ),
    "SQuAD": (
        {"id": "57", "title": "Paris", "context": "Notre Dame is in Paris.", "question": "Where?"}
        | {"answers": {"text": ["Paris", "in Paris", "Paris"], "answer_start": [18, 15, 18]}},
        Made("Notre Dame is in Paris.\n\nWhere?", ["Paris", "in Paris"], grader="contains", unused=("title",)),
    ),
    "DROP": (
        {"section_id": "s", "query_id": "q", "passage": "They won 3 games.", "question": "How many?"}
        | {"answers_spans": {"spans": ["3"], "types": ["number"]}},
        Made("They won 3 games.\n\nHow many?", "3", grader="number", unused=("query_id", "section_id")),
    ),
    "HotpotQA": (
        {"id": "1", "question": "Which?", "answer": "Delhi", "type": "bridge", "level": "hard"}
        | {"context": {"title": ["T1", "T2"], "sentences": [["One.", " Two."], ["Three."]]}},
        Made("T1\nOne. Two.\n\nT2\nThree.\n\nWhich?", "Delhi", grader="contains", unused=("level", "type")),
    ),
    "PubMedQA": (
        {"pubid": 1, "question": "Do they?", "context": {"contexts": ["c1", "c2"], "labels": ["A", "B"]}}
        | {"long_answer": "They do, as shown.", "final_decision": "yes"},
        Made("c1\n\nc2\n\nDo they?", "yes", grader=YES_NO, unused=("long_answer", "pubid")),
    ),
    "TriviaQA": (
        {"question": "Who?", "question_id": "tc1", "answer": {"value": "Sinclair Lewis", "aliases": ["Lewis"]}},
        Made("Who?", ["Sinclair Lewis", "Lewis"], grader="contains", unused=("question_id",)),
    ),
    "Dolly": (
        {"instruction": "When?", "context": "It began in 2000.", "response": "In 2000", "category": "closed_qa"},
        Made("It began in 2000.\n\nWhen?", None, "In 2000", "contains", ("category",)),
    ),
    "Dolly without a context": (
        {"instruction": "Why?", "context": "", "response": "Because", "category": "open_qa"},
        Made("Why?", None, "Because", "contains", ("category",)),
    ),
    "CNN/DailyMail": (
        {"article": "Long text.", "highlights": "Short.", "id": "f0"},
        Made("Long text.\n\nSummarize the text.", None, "Short.", "contains"),
    ),
    "XSum": (
        {"document": "Long text.", "summary": "Short.", "id": "3"},
        Made("Long text.\n\nSummarize the text.", None, "Short.", "contains"),
    ),
    "SAMSum": (
        {"id": "13", "dialogue": "A: hi", "summary": "A greets."},
        Made("A: hi\n\nSummarize the text.", None, "A greets.", "contains"),
    ),
    "WMT": (
        {"translation": {"de": "Hallo", "en": "Hello"}},
        Made("Translate from German to English.\n\nHallo", None, "Hello", "contains"),
    ),
    "SNLI": (
        {"premise": "A man eats.", "hypothesis": "He is hungry.", "label": "neutral"},
        Made(
            "Premise: A man eats.\nHypothesis: He is hungry.\n\nWhat follows from the premise about the hypothesis?\n\n"
            "Answer with one of: entailment, neutral.",
            "neutral",
            grader=LABEL,
        ),
        {"premise": "A man eats.", "hypothesis": "Someone eats.", "label": "entailment"},
    ),
    "RTE": (
        {"sentence1": "One.", "sentence2": "Two.", "label": "entailment", "idx": 0},
        Made(
            "First text: One.\nSecond text: Two.\n\nHow are the two related?\n\n"
            "Answer with one of: entailment, not_entailment.",
            "entailment",
            grader=LABEL,
            unused=("idx",),
        ),
        {"sentence1": "One.", "sentence2": "Three.", "label": "not_entailment", "idx": 1},
    ),
    "intents": (
        {"text": "wake me at 7", "intent": "alarm"},
        Made("wake me at 7\n\nAnswer with one of: alarm, music.", "alarm", grader=LABEL),
        {"text": "play jazz", "intent": "music"},
    ),
    "labels beside their texts": (
        {"text": "great", "label": 1, "label_text": "positive"},
        Made("great\n\nAnswer with one of: negative, positive.", "positive", grader=LABEL, unused=("label",)),
        {"text": "bad", "label": 0, "label_text": "negative"},
    ),
    "preference pair": (
        {"prompt": "Hi?", "chosen": "Hello", "rejected": "Go away"},
        Made("Hi?", None, "Hello", "contains"),
    ),
    "Orca's pairs": (
        {"system": "Be kind.", "question": "Hi?", "chosen": "Hello", "rejected": "Go away"},
        Made("Be kind.\n---\nHi?", None, "Hello", "contains"),
    ),
    "UltraFeedback": (
        {
            "prompt": "Hi?",
            "prompt_id": "8e",
            "chosen": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello"}],
            "rejected": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Go"}],
            "score_chosen": 8.0,
            "score_rejected": 3.0,
        },
        Made("Hi?", None, "Hello", "contains", ("prompt_id", "score_chosen", "score_rejected")),
    ),
    "HH-RLHF": (
        {
            "chosen": "\n\nHuman: What?\n\nAssistant: This.\n\nHuman: And?\n\nAssistant: That.",
            "rejected": "\n\nHuman: What?\n\nAssistant: This.\n\nHuman: And?\n\nAssistant: No.",
        },
        Made("What?\n---\nThis.\n---\nAnd?", None, "That.", "contains"),
    ),
    "GSM8K": (
        {"question": "How many?", "answer": "She sold 48/2 = <<48/2=24>>24.\n#### 72"},
        Made("How many?", "72", "She sold 48/2 = <<48/2=24>>24.\n#### 72", "number"),
    ),
    "MATH": (
        {"problem": "P", "level": "Level 5", "type": "Algebra", "solution": "So $x=\\boxed{\\frac{1}{2}}$."},
        Made("P", "\\frac{1}{2}", "So $x=\\boxed{\\frac{1}{2}}$.", "math", ("level", "type")),
    ),
    "HumanEval": (
        {"task_id": "HumanEval/0", "prompt": 'def f(x):\n    """Same."""\n', "entry_point": "f"}
        | {"canonical_solution": "    return x\n", "test": "def check(c):\n    assert c(1) == 1\n"},
        Made(
            'Complete this function. Answer with the whole function.\n\n```python\ndef f(x):\n    """Same."""\n```',
            None,
            '```python\ndef f(x):\n    """Same."""\n    return x\n```',
            unused=("task_id",),
        ),
    ),
    "MBPP": (
        {"task_id": 1, "text": "Add two numbers.", "code": "def add(a, b):\n    return a + b"}
        | {"test_list": ["assert add(1, 2) == 3"], "test_setup_code": "", "challenge_test_list": []},
        Made(
            "Add two numbers.\n\nYour code should pass these tests:\n\n```python\nassert add(1, 2) == 3\n```",
            None,
            "```python\ndef add(a, b):\n    return a + b\n```",
            unused=("challenge_test_list", "task_id"),
        ),
    ),
    "Spider": (
        {"db_id": "concert", "query": "SELECT count(*) FROM singer", "question": "How many?", "sql": {"from": []}},
        Made("How many?", "SELECT count(*) FROM singer", None, "sql", ("sql",)),
    ),
    "BIRD": (
        {"question_id": 0, "db_id": "schools", "question": "Highest?", "evidence": "rate = a / b", "SQL": "SELECT 1"},
        Made("rate = a / b\n\nHighest?", "SELECT 1", None, "sql", ("question_id",)),
    ),
    "sql-create-context": (
        {"question": "How many?", "context": "CREATE TABLE head (age INTEGER)", "answer": "SELECT COUNT(*) FROM head"},
        Made("CREATE TABLE head (age INTEGER)\n\nHow many?", "SELECT COUNT(*) FROM head", None, "sql"),
    ),
    "synthetic_text_to_sql": (
        {"id": 1, "domain": "d", "sql_prompt": "How many?", "sql_context": "CREATE TABLE t (a INT);"}
        | {"sql": "SELECT COUNT(*) FROM t;", "sql_explanation": "Counts."},
        Made(
            "CREATE TABLE t (a INT);\n\nHow many?",
            "SELECT COUNT(*) FROM t;",
            None,
            "sql",
            ("domain", "sql_explanation"),
        ),
    ),
    "Alpaca": (
        {"instruction": "Give tips.", "input": "", "output": "Eat.", "text": "Below is an instruction"},
        Made("Give tips.", None, "Eat.", "contains", ("text",)),
    ),
    "Natural Instructions": (
        {"task_name": "t1", "id": "t1-0", "definition": "Say which.", "inputs": "Sun.", "targets": "warm"},
        Made("Say which.\n\nSun.", None, "warm", "contains", ("task_name",)),
    ),
    "an instruction, inputs and targets": (
        {"instruction": "Say which.", "inputs": "Sun.", "targets": "warm"},
        Made("Say which.\n\nSun.", None, "warm", "contains"),
    ),
    "SVAMP": (
        {"ID": "chal-1", "Body": "There are 8 hens.", "Question": "How many legs?", "Answer": 16.0, "Type": "x"},
        Made("There are 8 hens.\n\nHow many legs?", "16", None, "number", ("Type",)),
    ),
    "MuSiQue": (
        {"question": "Who?", "paragraphs": [{"idx": 0, "title": "T", "paragraph_text": "Ann did."}], "answer": "Ann"},
        Made("T\nAnn did.\n\nWho?", "Ann", None, "contains"),
    ),
    "DREAM": (
        {"dialogue": ["W: Hello.", "M: Late!"], "question": "Who is late?", "choice": ["M", "W"], "answer": "M"}
        | {"choices": ["M", "W"], "choice": None},
        Made("W: Hello.\n\nM: Late!\n\nWho is late?\n\nA. M\nB. W" + ASK, "A", None, "choice", ("choice",)),
    ),
    "a title, a description and a label": (
        {"title": "Match", "description": "They won.", "label": "sport"},
        Made("Match\n\nThey won.\n\nAnswer with one of: politics, sport.", "sport", None, LABEL),
        {"title": "Vote", "description": "They lost.", "label": "politics"},
    ),
    "several labels": (
        {"text": "so", "labels": ["joy", "fear"]},
        Made(
            "so\n\nAnswer with all that apply, in alphabetical order, separated by commas: fear, joy, rage.",
            "fear, joy",
            grader=LABEL,
        ),
        {"text": "no", "labels": ["rage"]},
        {"text": "oh", "labels": ["rage"]},
    ),
    "a rendering of the row beside it": (
        {"prompt": "Why is it so?", "completion": "Because", "text": "<user>Why is\n it so?<bot>Because"},
        Made("Why is it so?", None, "Because", "contains", ("text",)),
    ),
    "a code that is no program": (
        {"question": "Why?", "answer": "so", "code": "A17"},
        Made("Why?", "so", None, "contains", ("code",)),
    ),
    "Alpaca with a history": (
        {"instruction": "And then?", "input": "", "output": "Rest.", "history": [["Give tips.", "Eat."]]},
        Made("Give tips.\n---\nEat.\n---\nAnd then?", None, "Rest.", "contains"),
    ),
    "pairs in Alpaca's form": (
        {"instruction": "Sum up.", "input": "Long text.", "chosen": "Short.", "rejected": "No."},
        Made("Sum up.\n\nLong text.", None, "Short.", "contains"),
    ),
    "pairs in ShareGPT's form": (
        {
            "conversations": [{"from": "human", "value": "Hi?"}],
            "chosen": {"from": "gpt", "value": "Hello"},
            "rejected": {"from": "gpt", "value": "Go"},
        },
        Made("Hi?", None, "Hello", "contains"),
    ),
    "MetaMath": (
        {"type": "GSM", "query": "How many?", "original_question": "x", "response": "2 + 3.\nThe answer is: 5"},
        Made("How many?", "5", "2 + 3.\nThe answer is: 5", "number", ("original_question", "type")),
    ),
    "support tickets": (
        {"subject": "Printer", "body": "It is broken.", "answer": "Restart it.", "queue": "IT", "priority": "low"},
        Made("Printer\n\nIt is broken.", None, "Restart it.", "contains", ("priority", "queue")),
    ),
    "support tickets without a subject": (
        {"subject": None, "body": "It is broken.", "answer": "Restart it."},
        Made("It is broken.", None, "Restart it.", "contains"),
    ),
    "WikiSQL": (
        {"question": "Which?", "table": {"header": ["A", "B"], "rows": [["1", "2"]]}}
        | {"sql": {"human_readable": "SELECT A FROM t", "sel": 0}},
        Made("A | B\n1 | 2\n\nWhich?", "SELECT A FROM t", None, "sql"),
    ),
    "claims and their evidence": (
        {"evidence": "It rained.", "claim": "It was wet.", "label": "SUPPORTS"},
        Made(
            "Premise: It rained.\nHypothesis: It was wet.\n\nWhat follows from the premise about the hypothesis?\n\n"
            "Answer with one of: REFUTES, SUPPORTS.",
            "SUPPORTS",
            grader=LABEL,
        ),
        {"evidence": "It rained.", "claim": "It was dry.", "label": "REFUTES"},
    ),
    "FLAN": ({"inputs": "in", "targets": "out"}, Made("in", None, "out", "contains")),
    "input and output": ({"input": "in", "output": "out"}, Made("in", None, "out", "contains")),
    "source and target": ({"source": "in", "target": "out"}, Made("in", None, "out", "contains")),
    "user and assistant": ({"user": "in", "assistant": "out"}, Made("in", None, "out", "contains")),
    "question_text": ({"Question Text": "in", "Answer": "out"}, Made("in", "out", None, "contains")),
    "OpenAI's evals": (
        {"input": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], "ideal": "out"},
        Made("s\n---\nu", "out", None, "contains"),
    ),
    "an instruction and a question": (
        {"instruction": "Answer briefly.", "question": "Why?", "output": "Because"},
        Made("Answer briefly.\n\nWhy?", None, "Because", "contains"),
    ),
}
CASES = {**MULTIPLE_CHOICE, **OTHERS}


@pytest.mark.parametrize("name", CASES)
def test_a_public_layout_is_read(name: str, tmp_path: Path) -> None:
    row, expected, *more = CASES[name]
    made = read(tmp_path, [row, *more])
    assert made.dropped == []
    example = made.rows[0]
    assert made.asked[0] == expected.prompt
    assert (example.answer, example.demonstration) == (expected.answer, expected.demonstration)
    assert made.unused == sorted(expected.unused)
    if expected.grader in GRADERS:
        assert made.rule["name"] == expected.grader


@pytest.mark.parametrize("name", MULTIPLE_CHOICE)
def test_the_options_are_kept_with_the_row(name: str, tmp_path: Path) -> None:
    row, expected, *more = MULTIPLE_CHOICE[name]
    example = read(tmp_path, [row, *more]).rows[0]
    right = example.meta["choices"]["ABCD".index(str(expected.answer))]
    assert f"\n{expected.answer}. {right}" in example.prompt[-1]["content"]


def test_graders_find_what_they_read_in_meta(tmp_path: Path) -> None:
    kept = {name: read(tmp_path, [OTHERS[name][0]]).rows[0].meta for name in ("HumanEval", "MBPP")}
    assert kept["HumanEval"] == {"tests": OTHERS["HumanEval"][0]["test"], "entry_point": "f"}
    assert kept["MBPP"] == {"tests": "assert add(1, 2) == 3"}
    schema = read(tmp_path, [OTHERS["sql-create-context"][0]]).rows[0].meta["schema"]
    assert schema == "CREATE TABLE head (age INTEGER)"
    of_question = {"question": "How many?", "schema": schema, "answer": "SELECT COUNT(*) FROM head"}
    assert read(tmp_path, [of_question]).asked == [f"{schema}\n\nHow many?"]


def test_questions_about_a_database_begin_with_its_tables(tmp_path: Path) -> None:
    place = tmp_path / "database" / "concert" / "concert.sqlite"  # where Spider keeps them
    place.parent.mkdir(parents=True)
    with closing(sqlite3.connect(place)) as database, database:
        database.execute("CREATE TABLE singer (name TEXT)")
    made = read(tmp_path, [OTHERS["Spider"][0], OTHERS["Spider"][0] | {"db_id": "else"}])
    assert made.asked == ["CREATE TABLE singer (name TEXT);\n\nHow many?", "How many?"]
    assert made.rows[0].meta["database"].startswith("databases/concert-")
    assert "prompts begin with the tables of their database (1 rows)" in made.notes


def test_responses_that_are_not_wanted_are_left_out(tmp_path: Path) -> None:
    rows = [{"prompt": f"sky {i}?", "completion": f"blue {i}", "label": i % 2 == 0} for i in range(4)]
    made = read(tmp_path, rows)
    assert [row.demonstration for row in made.rows] == ["blue 0", "blue 2"]
    assert [drop.reason for drop in made.dropped] == ["filtered: its label says that the response is not wanted"] * 2
    stars = read(tmp_path, [{"prompt": "q", "completion": "a", "label": 4}])
    assert len(stars.rows) == 1 and any("neither true nor false" in note for note in stars.notes)


def test_what_was_made_of_which_column_is_a_note(tmp_path: Path) -> None:
    asked = read(tmp_path, [{"question": "q", "context": "c", "answer": "a"}])
    assert asked.asked == ["c\n\nq"] and asked.rows[0].context is None
    assert asked.notes[0] == (
        "read as a question about a passage: prompt=question, passage=context, answer=answer; "
        "prompts begin with 'context', and context=context shows it to the teacher alone"
    )
    told = read(tmp_path, [{"question": "q", "context": "c", "answer": "a"}], context="context")
    assert (told.asked, told.rows[0].context) == (["q"], "c")
    whole = read(tmp_path, [{"prompt": "p", "context": "c", "completion": "a"}])  # a prompt says it is all
    assert (whole.asked, whole.rows[0].context) == (["p"], "c")
    assert "only the teacher sees 'context', and passage=context puts it into the prompt" in whole.notes[0]
    named = read(tmp_path, [{"prompt": "p", "context": "c", "completion": "a"}], passage="context")
    assert (named.asked, named.rows[0].context) == (["c\n\np"], None)


def test_a_prompt_that_has_the_passage_already_gets_it_once(tmp_path: Path) -> None:
    assert read(tmp_path, [{"question": "Text.\n\nWhy?", "passage": "Text.", "answer": "so"}]).asked == [
        "Text.\n\nWhy?"
    ]
    listed = {"question": "Which?\nA) one\nB) two", "options": ["one", "two"], "answer": "B"}
    assert read(tmp_path, [listed]).asked == ["Which?\nA) one\nB) two" + ASK]


def test_questions_without_an_answer_in_their_passage(tmp_path: Path) -> None:
    rows = [
        {
            "context": "Text.",
            "question": f"Why {i}?",
            "answers": {"text": ["so"] * (i % 2), "answer_start": [1] * (i % 2)},
        }
        for i in range(4)
    ]
    made = read(tmp_path, rows)
    assert [row.answer for row in made.rows] == ["unanswerable", "so", "unanswerable", "so"]
    assert all(
        text.endswith('If the passage does not answer the question, answer "unanswerable".') for text in made.asked
    )
    assert any(note.startswith("2 questions have no answer") for note in made.notes)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"message_id": "1", "parent_id": None, "text": "Hi", "role": "prompter"},
            "rows.jsonl: each row is one message of a tree",
        ),
        ({"conversation_id": 1, "role": "user", "content": "Hi"}, "each row is one message"),
        ({"x": 1, "y": 2}, "not a format that task 'mine' reads; its fields are: x, y"),
    ],
)
def test_what_means_nothing_row_by_row_is_refused(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read(tmp_path, [row])


def test_rows_that_show_pictures_are_left_out(tmp_path: Path) -> None:
    rows = [
        {"question": f"q{i}", "choices": FOUR, "answer": i, "image": {"bytes": "x"} if i == 1 else None}
        for i in range(4)
    ]
    made = read(tmp_path, rows)
    assert [row.answer for row in made.rows] == ["A", "C", "D"]
    assert [drop.reason for drop in made.dropped] == ["filtered: it shows what is not text"]


def test_columns_of_the_user_are_never_taken_for_a_particular_layout(tmp_path: Path) -> None:
    row = {"Frage": "Wie viele?", "Zahl": "3", "summary": "x", "code": "y", "label": "z"}
    made = read(tmp_path, [row], prompt="Frage", answer="Zahl")
    assert (made.asked, made.rows[0].answer) == (["Wie viele?"], "3")
    made = read(tmp_path, [row], prompt="Frage", demonstration="Zahl")
    assert (made.asked, made.rows[0].demonstration) == (["Wie viele?"], "3")


def test_a_column_that_a_question_may_need_is_never_left_out_quietly(tmp_path: Path) -> None:
    row = {"utterance": "so?", "label": "a", "document": "Text."}
    with pytest.raises(UsageError) as error:
        read(tmp_path, [row])
    assert "that leaves out column 'document'" in error.value.message
    assert "--columns passage=document" in error.value.hint
    assert read(tmp_path, [row], passage="document").asked == ["Text.\n\nso?"]
    assert read(tmp_path, [row], context="document").rows[0].context == "Text."
    ignored = read(tmp_path, [row], ignore=["document"])
    assert ignored.asked == ["so?"] and ignored.unused == ["document"]
    assert read(tmp_path, [{**row, "document": None}]).asked == ["so?"]
    several = {"question": "q", "evidence": "e", "context": "CREATE TABLE t (a INT)", "sql": "SELECT 1"}
    assert read(tmp_path, [several]).asked == ["CREATE TABLE t (a INT)\n\ne\n\nq"]


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"question": "Who won?", "answer": "Ann", "text": "Ann beat Bob."}, "text"),
        ({"question": "What is printed?", "answer": "3", "code": "print(1 + 2)"}, "code"),
        ({"code": "return x + 1", "input": "1", "output": "2"}, "code"),
        ({"instruction": "Sum it up.", "content": "A long text.", "response": "A text."}, "content"),
        ({"instruction": "Answer as a pirate.", "question": "Where?", "answer": "At sea."}, "question"),
        ({"question": "So?", "instructions": "Answer as a pirate.", "answer": "Aye."}, "instructions"),
        ({"question": "Which?", "choice": ["a", "b"], "answer": "a"}, "choice"),
        ({"word": "bank", "sentence1": "A bank.", "sentence2": "The bank.", "label": "same"}, "word"),
        ({"sentence": "Good food, bad wine.", "aspect": "wine", "label": "bad"}, "aspect"),
        ({"text": "Ann saw her.", "span1_text": "Ann", "span2_text": "her", "label": 0}, "span1_text"),
        ({"text": "Ann is in Rome.", "entities": [{"type": "place", "text": "Rome"}]}, "entities"),
    ],
)
def test_what_a_question_or_label_is_about_is_said_or_asked_for(
    row: dict[str, Any], column: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"that leaves out column '{column}'"):
        read(tmp_path, [row])


@pytest.mark.parametrize("column", ["set", "Subset", "partition", "data_split"])
def test_a_column_that_says_the_split_under_another_name_is_not_left_out(column: str, tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "answer": "a", column: ["train", "Test"][i % 2]} for i in range(4)]
    with pytest.raises(UsageError, match=f"column '{column}' says Test and train, and is not used") as error:
        read(tmp_path, rows)
    assert f"--columns split={column}" in error.value.hint
    assert read(tmp_path, rows, split=column).unused == []
    assert read(tmp_path, rows, ignore=[column]).unused == [column]
    topics = [{**row, column: ["train", "chemistry"][i % 2]} for i, row in enumerate(rows)]
    assert read(tmp_path, topics).unused == [column]


def test_what_is_said_of_a_text_can_be_asked_for(tmp_path: Path) -> None:
    row = {"text": "Ann is in Rome.", "entities": [{"type": "place", "text": "Rome"}]}
    made = read(tmp_path, [row], template="List the entities: {text}", answer="entities")
    assert (made.asked, made.rows[0].answer) == (["List the entities: Ann is in Rome."], row["entities"])
    assert made.rule["name"] == "json"


def test_columns_of_files_that_are_left_out_are_not_called_unused(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"0": "no", "1": "yes"}', encoding="utf-8")
    rows = [{"question": f"q{i}", "answer": "a", "level": 1} for i in range(3)]
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    assert read_path(tmp_path).unused == ["level"]


def test_a_table_that_begins_with_a_title_is_told_of_its_first_row(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("Our questions\nquestion,answer\nWhy?,so\n", encoding="utf-8")
    with pytest.raises(UsageError, match="none of its rows has the columns of the first one") as error:
        read_path(tmp_path / "x.csv")
    assert error.value.hint.endswith("the first row must name the columns")


def test_a_template_makes_the_prompt_and_says_all_of_it(tmp_path: Path) -> None:
    row = {"premise": "A {man} eats.", "hypothesis": "So?", "label": "yes"}
    made = read(tmp_path, [row, {**row, "label": "no"}], template="{premise}\nTrue or not: {hypothesis}")
    assert made.asked == ["A {man} eats.\nTrue or not: So?"] * 2
    mcq = {"q": "Which?", "options": ["one", "two"], "answer": "B"}
    assert read(tmp_path, [mcq], template="{q}\n{options}\nLetter:").asked == ["Which?\nA. one\nB. two\nLetter:"]


def test_fields_within_a_column_can_be_named(tmp_path: Path) -> None:
    row = {"translation": {"de": "Hallo", "en": "Hello"}}
    made = read(tmp_path, [row], prompt="translation.en", demonstration="translation.de")
    assert (made.asked, made.rows[0].demonstration) == (["Hello"], "Hallo")
