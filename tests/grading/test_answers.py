"""The text rules on tables of answers: ``answers/<grader>.jsonl`` has a gold answer, a completion and the right value a
line, argued by what a careful reader would say. ``null`` is unscored."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from sdft_cli.grading.named_rules import GRADERS, grader

TABLES = Path(__file__).with_name("answers")
SHARED = Path(__file__).parents[3] / "shared" / "data" / "graders" / "cases.jsonl"


def cases(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def faults(rows: list[dict], name: str) -> list[str]:
    """What a rule gets wrong, with its reason."""
    scored = [(row, grader(name)(row["completion"], row["gold"])) for row in rows]
    assert all(score.why for _, score in scored)
    return [
        f"gold {row['gold']!r}, completion {row['completion']!r}: {score.value} instead of {row['value']}, {score.why}"
        for row, score in scored
        if score.value != row["value"]
    ]


@pytest.mark.parametrize("table", sorted(TABLES.glob("*.jsonl")), ids=lambda table: table.stem)
def test_a_rule_on_its_table(table: Path) -> None:
    if table.stem == "math":
        pytest.importorskip("math_verify")
    rows = cases(table)
    assert {row["value"] for row in rows} >= {0, 1, None}, "a table needs right, wrong and unscored cases"
    assert faults(rows, table.stem) == []


def test_the_rules_on_the_cases_that_users_reported() -> None:
    if not SHARED.is_file():
        pytest.skip("../shared/data is absent")
    rows = cases(SHARED)
    assert len(rows) == 85
    assert [fault for row in rows for fault in faults([row], row["grader"])] == []


@pytest.mark.parametrize("table", ["choice", "number", "exact", "contains", "label", "yes-no"])
def test_a_gold_answer_is_right_by_itself_and_as_a_marked_answer(table: str) -> None:
    """Whatever a rule scores at all, it must score as right when the gold answer itself is given."""
    golds = {row["gold"] for row in cases(TABLES / f"{table}.jsonl") if row["value"] == 1}
    grade = grader(table)
    marked = {gold: f"<think>Let me see.</think>\nAnswer: {gold}" for gold in golds if "\n" not in gold}
    assert [gold for gold in golds if grade(gold, gold).value != 1] == []
    assert [gold for gold, text in marked.items() if grade(text, gold).value != 1] == []


def test_a_gold_answer_is_found_in_a_long_text_as_in_a_short_one() -> None:
    """Only the places around a possible occurrence are taken apart in a long text."""
    around, found = "Zqx vrm. " * 40, []
    for row in cases(TABLES / "contains.jsonl"):
        alone = len(row["gold"].strip('"')) < 2 or row["gold"].lower() in ("it", "the", "no", "yes", "true", "false")
        if row["value"] is None or alone or any(mark in row["completion"] for mark in ("<", "Question", "- 5")):
            continue  # these are compared with the final answer, end with it, or mean something else after a word
        text = f"{row['completion']}\n{around}" if "THINK" in row["completion"] else f"{around}\n{row['completion']}"
        found += faults([{**row, "completion": f"{text}\n{around}"}], "contains")
    assert [fault for fault in found if "analysis" not in fault and "think" not in fault] == []


ADVERSE = [
    *("answer is " * 10_000, "(" * 100_000, "<answer>" * 12_000, "\\boxed{" * 14_000, "A or " * 20_000, "*" * 100_000),
    *("`" * 100_000, "**a " * 25_000, "[[" * 50_000, "{" * 100_000, "1," * 50_000, "1 " * 50_000, "\\text{" * 16_000),
    *("#### a\n" * 14_000, "Question: 1\n" * 9_000, "the answer to " * 7_000, "答" * 100_000, "正解は" * 30_000),
    *(" " * 100_000, "\n" * 100_000, "<think>" * 14_000, "1" * 100_000, "1/" * 50_000, "$" * 100_000, "= 1 " * 25_000),
    *(
        "not " * 25_000,
        "I choose " * 11_000,
        "option A " * 11_000,
        "_a" * 50_000,
        "A, " * 33_000,
        "<reasoning>" * 9_000,
    ),
    *(
        "10^" * 33_000,
        "B is " * 20_000,
        '"answer": "' + "a\\" * 50_000,
        "ответ " * 16_000,
        "उत्तर " * 16_000,
        "no " * 33_000,
    ),
]


@pytest.mark.parametrize("name", ["choice", "number", "exact", "contains", "label", "yes-no"])
def test_no_long_text_takes_long(name: str) -> None:
    """What grows with the square of a text's length takes many seconds on these."""
    grade, gold = grader(name), {"number": "72", "choice": "B", "yes-no": "no"}.get(name, "Paris x")
    grade("x", gold)
    slow = []
    for text in ADVERSE:
        began = time.process_time()
        grade(text[:20_000], gold)
        if (seconds := time.process_time() - began) > 1.5:
            slow.append((text[:20], round(seconds, 1)))
    assert slow == []


def test_every_grader_describes_itself() -> None:
    assert all(name == g.name and g.summary and g.flaws for name, g in GRADERS.items())
