"""Repeats among training rows are left out, overlaps with test rows are refused, test rows are kept."""

from __future__ import annotations

import time

import pytest

from sdft_cli.data.deduplicate import deduplicate
from sdft_cli.errors import UsageError
from sdft_cli.types import Example, Prepared, PrepareOptions

BASE = "how do I cancel the order that I placed yesterday evening with the wrong address on it and get my money back"
OTHER = "which of the museums in this town is open on a rainy Monday morning and lets children in without paying"


def row(
    name: str, prompt: str, demonstration: str | None = "write to them", answer: object = None, system: str = ""
) -> Example:
    head = [{"role": "system", "content": system}] if system else []
    messages = [*head, {"role": "user", "content": prompt}]
    return Example(name, messages, demonstration, answer=answer, meta={"row": f"f:{name}"})


def deduplicated(train: list[Example], test: list[Example] = (), drawn: bool = False, **more) -> tuple[list[str], list]:
    splits = {"train": train, "test": list(test), "validation": [row("v", "something else")]}
    prepared = Prepared(splits, drawn=drawn)
    result = deduplicate("toy", prepared, PrepareOptions(**more))
    assert result.splits["test"] == list(test)
    return [e.id for e in result.splits["train"]], [(d.where, d.reason) for d in result.dropped]


def test_exact_and_near_repeats_are_left_out_by_name():
    rows = [row("a", BASE), row("b", OTHER), row("c", BASE), row("d", BASE + " soon")]
    assert deduplicated(rows) == (
        ["a", "b"],
        [("f:c", "filtered: repeats another row"), ("f:d", "filtered: nearly repeats another row")],
    )


def test_another_response_or_answer_is_another_row():
    assert deduplicated([row("a", BASE), row("b", BASE, "call the shop and ask")])[0] == ["a", "b"]
    assert deduplicated([row("a", BASE, None, "A"), row("b", BASE, None, "B")])[0] == ["a", "b"]
    assert deduplicated([row("a", BASE, None, "A"), row("b", BASE, None, "A")])[0] == ["a"]
    assert deduplicated([row("a", BASE, system="be brief"), row("b", BASE, system="answer in French")])[0] == ["a"]


def test_one_prompt_with_thousands_of_responses_takes_seconds():
    rows = [row(str(i), BASE, f"response {i} of its own kind") for i in range(3000)]
    start = time.process_time()
    assert len(deduplicated([*rows, row("again", BASE, "response 7 of its own kind")])[0]) == 3000
    assert time.process_time() - start < 10


def test_questions_behind_one_preamble_are_different_rows():
    preamble = " ".join(f"tool{i} takes one argument and returns a list" for i in range(300))
    rows = [row(str(i), f"{preamble}\nQuestion: {what}", None, "x") for i, what in enumerate(("who", "why", "when"))]
    assert len(deduplicated(rows)[0]) == 3


@pytest.mark.parametrize("test_prompt", [BASE, BASE.title(), BASE + " soon", BASE.replace(" ", "\n")])
def test_a_training_row_that_asks_a_test_question_is_refused(test_prompt):
    with pytest.raises(UsageError, match="1 of 2 training rows asks what a test row asks") as error:
        deduplicated([row("a", OTHER), row("b", BASE)], [row("t", test_prompt, None, "x")])
    assert "'b' (f:b), which asks what 't' (f:t) asks" in error.value.message
    assert "--on-overlap drop" in error.value.hint


def test_an_overlap_can_be_dropped_and_is_dropped_if_we_drew_the_split():
    for more in ({"on_overlap": "drop"}, {"drawn": True}):
        kept, dropped = deduplicated([row("a", OTHER), row("b", BASE)], [row("t", BASE)], **more)
        assert (kept, dropped) == (["a"], [("f:b", "filtered: asks what a test row asks")])


def test_training_rows_that_ask_what_a_validation_row_asks_are_left_out():
    kept, dropped = deduplicated([row("a", OTHER), row("b", "something else")])
    assert (kept, dropped) == (["a"], [("f:b", "filtered: asks what a validation row asks")])


def test_a_corpus_alone_has_nothing_to_compare():
    prepared = Prepared({"corpus": [Example("c", [], text=BASE)]})
    assert deduplicate("toy", prepared, PrepareOptions()).splits == prepared.splits
