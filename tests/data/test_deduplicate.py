"""Repeats among training rows are left out, overlaps with test rows are refused, test rows stay."""

from __future__ import annotations

import time

import pytest

from sdft_cli.data.deduplicate import screen
from sdft_cli.errors import UsageError
from sdft_cli.types import Example, Prepared, PrepareOptions

BASE = "how do I cancel the order that I placed yesterday evening with the wrong address on it and get my money back"
OTHER = "which of the museums in this town is open on a rainy Monday morning and lets children in without paying"


def row(name: str, prompt: str, said: str | None = "write to them", answer: object = None, system: str = "") -> Example:
    head = [{"role": "system", "content": system}] if system else []
    return Example(name, [*head, {"role": "user", "content": prompt}], said, answer=answer, meta={"row": f"f:{name}"})


def screened(train: list[Example], test: list[Example] = (), drawn: bool = False, **more) -> tuple[list[str], list]:
    splits = {"train": train, "test": list(test), "validation": [row("v", "something else")]}
    prepared = Prepared(splits, drawn=drawn)
    found = screen("toy", prepared, PrepareOptions(**more))
    assert found.splits["test"] == list(test)
    return [e.id for e in found.splits["train"]], [(d.where, d.reason) for d in found.dropped]


def test_exact_and_near_repeats_are_left_out_by_name():
    rows = [row("a", BASE), row("b", OTHER), row("c", BASE), row("d", BASE + " soon")]
    assert screened(rows) == (
        ["a", "b"],
        [("f:c", "filtered: repeats another row"), ("f:d", "filtered: nearly repeats another row")],
    )


def test_another_response_or_answer_is_another_row():
    assert screened([row("a", BASE), row("b", BASE, "call the shop and ask")])[0] == ["a", "b"]
    assert screened([row("a", BASE, None, "A"), row("b", BASE, None, "B")])[0] == ["a", "b"]
    assert screened([row("a", BASE, None, "A"), row("b", BASE, None, "A")])[0] == ["a"]
    assert screened([row("a", BASE, system="be brief"), row("b", BASE, system="answer in French")])[0] == ["a"]


def test_one_prompt_with_thousands_of_responses_is_no_trap():
    rows = [row(str(i), BASE, f"response {i} of its own kind") for i in range(3000)]
    start = time.process_time()
    assert len(screened([*rows, row("again", BASE, "response 7 of its own kind")])[0]) == 3000
    assert time.process_time() - start < 10


def test_questions_behind_one_preamble_are_different_rows():
    preamble = " ".join(f"tool{i} takes one argument and returns a list" for i in range(300))
    rows = [row(str(i), f"{preamble}\nQuestion: {what}", None, "x") for i, what in enumerate(("who", "why", "when"))]
    assert len(screened(rows)[0]) == 3


@pytest.mark.parametrize("said", [BASE, BASE.title(), BASE + " soon", BASE.replace(" ", "\n")])
def test_a_training_row_that_asks_a_test_question_is_refused(said):
    with pytest.raises(UsageError, match="1 of 2 training rows asks what a test row asks") as error:
        screened([row("a", OTHER), row("b", BASE)], [row("t", said, None, "x")])
    assert "'b' (f:b), which asks what 't' (f:t) asks" in error.value.message
    assert "--on-overlap drop" in error.value.hint


def test_an_overlap_can_be_dropped_and_one_of_our_own_making_is():
    for more in ({"on_overlap": "drop"}, {"drawn": True}):
        kept, dropped = screened([row("a", OTHER), row("b", BASE)], [row("t", BASE)], **more)
        assert (kept, dropped) == (["a"], [("f:b", "filtered: asks what a test row asks")])


def test_what_validation_asks_is_left_out_of_training():
    kept, dropped = screened([row("a", OTHER), row("b", "something else")])
    assert (kept, dropped) == (["a"], [("f:b", "filtered: asks what a validation row asks")])


def test_a_corpus_alone_has_nothing_to_compare():
    prepared = Prepared({"corpus": [Example("c", [], text=BASE)]})
    assert screen("toy", prepared, PrepareOptions()).splits == prepared.splits
