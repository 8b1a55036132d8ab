"""The desk's tasks: what is drawn, what is held out, and grading."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from sdft_cli import plugins
from sdft_cli.desk import handbook, messages, orders
from sdft_cli.types import Example, PrepareOptions

TASKS = ["desk-triage", "desk-orders", "desk-handbook"]


def make(name: str, **options: int) -> dict[str, list[Example]]:
    return plugins.TASKS.get(name).prepare([], PrepareOptions(**options)).splits


def asked(rows: list[Example]) -> list[str]:
    return [row.prompt[-1]["content"] for row in rows]


@pytest.mark.parametrize("name", TASKS)
def test_no_prompt_occurs_twice_and_all_are_short(name: str) -> None:
    splits = make(name)
    questions = [question for split in splits if split != "corpus" for question in asked(splits[split])]
    assert len(questions) == len(set(questions))
    assert max(map(len, questions)) < 300  # far fewer than 150 tokens in any tokenizer of English
    assert len(splits["test"]) == (32 if name == "desk-handbook" else 96)


@pytest.mark.parametrize("name", TASKS)
def test_rows_depend_on_the_seed_alone(name: str) -> None:
    assert make(name) == make(name)
    assert asked(make(name)["train"]) != asked(make(name, seed=1)["train"])


@pytest.mark.parametrize("name", TASKS)
def test_demonstrations_are_right_and_those_of_other_rows_wrong(name: str) -> None:
    task, rows = plugins.TASKS.get(name), make(name)["test"]
    for row, other in zip(rows, [*rows[1:], rows[0]], strict=True):
        assert task.grade(str(row.demonstration), row).value == 1.0
        assert task.grade("I am sorry, I cannot help with that.", row).value == 0.0
        assert task.grade("", row).value == 0.0
        if other.answer != row.answer:
            assert task.grade(str(other.demonstration), row).value == 0.0


def test_test_messages_are_in_wordings_that_training_does_not_have() -> None:
    for team in messages.TEAMS:
        assert len(team.wordings) == 6 and len(team.held_out) == 2 and not {*team.wordings} & {*team.held_out}
    # What stands between the slots tells the wordings apart.
    held_out = [w.split("{")[0] for team in messages.TEAMS for w in team.held_out if not w.startswith("{")]
    training = " ".join(asked(make("desk-triage")["train"])).lower()
    assert held_out and not [start for start in held_out if len(start) > 12 and start.lower() in training]


def test_teams_are_balanced_and_never_named_in_a_message() -> None:
    splits = make("desk-triage")
    for rows in splits.values():
        counts = Counter(row.answer for row in rows)
        assert set(counts) == {team.name for team in messages.TEAMS} and len(set(counts.values())) == 1
        assert not [row.id for row in rows for team in messages.TEAMS if team.name in asked([row])[0].lower()]


def test_a_label_among_others_is_wrong() -> None:
    row = make("desk-triage")["test"][0]
    others = [team.name for team in messages.TEAMS if team.name != row.answer]
    grade = plugins.TASKS.get("desk-triage").grade
    assert grade(f"The {row.answer.upper()} team!", row).value == 1.0
    assert grade(f"{row.answer} or {others[0]}", row).value == 0.0


def test_an_order_says_everything_that_its_line_of_json_holds() -> None:
    for split, rows in make("desk-orders").items():
        for row in rows:
            message = asked([row])[0]
            assert json.loads(str(row.demonstration)) == row.answer
            count = row.answer["quantity"]
            words = (str(count), orders._COUNTS[count - 1])
            assert any(f" {word} " in f" {message} " for word in words), (split, message)
            assert all(row.answer[key] in message for key in ("customer", "city", "item", "day"))


@pytest.mark.parametrize(
    "change", [{"quantity": "2"}, {"quantity": 3}, {"day": "Mon"}, {"note": "x"}, {"city": None}, {"quantity": True}]
)
def test_one_wrong_field_makes_an_order_wrong(change: dict[str, object]) -> None:
    row = Example("x", [], answer={"customer": "A", "city": "B", "item": "rug", "quantity": 2, "day": "Monday"})
    grade = plugins.TASKS.get("desk-orders").grade
    right = grade(f"Here it is:\n```json\n{json.dumps(row.answer, indent=2)}\n```", row)
    wrong = grade(json.dumps({**row.answer, **change}), row)
    assert right.value == 1.0 and wrong.value == 0.0
    assert next(iter(change)) in wrong.why


def test_every_fact_is_asked_about_in_training_and_in_tests() -> None:
    splits = make("desk-handbook")
    facts = [fact for page in handbook.pages(random.Random("desk-handbook")) for fact in page.facts]
    assert len(facts) == 8
    trained = Counter(row.answer for row in splits["train"])
    assert all(trained[fact.answer] >= 2 for fact in facts)
    assert Counter(row.answer for row in splits["test"]) == {fact.answer: 4 for fact in facts}
    pages = " ".join(row.text or "" for row in splits["corpus"]).lower()
    assert all(fact.answer.lower() in pages and fact.subject in pages for fact in facts)
    for row in (row for split in ("train", "test", "ood") for row in splits[split]):
        assert row.context and row.answer.lower() in row.context.lower()
        assert row.answer.lower() not in asked([row])[0].lower()


def test_the_handbook_is_the_same_for_every_seed() -> None:
    assert make("desk-handbook")["corpus"] == make("desk-handbook", seed=3)["corpus"]
    assert make("desk-handbook")["test"] == make("desk-handbook", seed=3)["test"]
