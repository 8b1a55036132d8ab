"""The suite of everyday skills: every item can be won in several wordings, and nothing else wins it."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from support.command_line import sdft
from support.real_model import make_model

from sdft_cli import plugins
from sdft_cli.data.near_duplicates import near_duplicates, near_matches
from sdft_cli.grading.constraints import CONSTRAINTS
from sdft_cli.grading.named_rules import GRADERS
from sdft_cli.suites import everyday
from sdft_cli.types import Example, PrepareOptions

SUITE = plugins.SUITES.get("everyday")
PARTS = everyday.parts()
ITEMS = [row for rows in PARTS.values() for row in rows]
SHARED = ("arithmetic", "classification", "common-sense")
WORDINGS = (
    "{}",
    "{}.",
    "The answer is {}.",
    "It is {}.",
    "Answer: {}",
    "**{}**",
    "Sure! The answer is: {}",
    "Final answer: {}\n",
    "<think>\nLet me see. Perhaps something else?\n</think>\n\n{}",
)
NO_ANSWERS = (
    "",
    " \n",
    "...",
    "I don't know.",
    "I am not sure, sorry.",
    "The answer is",
    "I'm sorry, but I can't help with that.",
    "As an AI language model, I cannot answer this.",
    "lorem ipsum dolor sit amet, consectetur adipiscing elit",
    "the the the the the the the the",
)


def value(completion: str, row: Example) -> float | None:
    return everyday.grade(completion, row).value


def asked(row: Example) -> str:
    return str(row.prompt[-1]["content"])


def golds(row: Example) -> list[str]:
    """Right completions: every gold answer, or the demonstration where an answer alone is none."""
    if row.demonstration:
        return [str(row.demonstration)]
    if row.meta["check"].get("grader") in ("sequence", "set"):
        return [", ".join(row.answer), "\n".join(f"{i}. {each}" for i, each in enumerate(row.answer, 1))]
    return row.answer if isinstance(row.answer, list) else [row.answer]


def form(row: Example) -> set[str]:
    return set(row.meta["check"]) - {"grader", "rivals", "refuses"}


# --- what the suite is ------------------------------------------------------------------------------------------------


def test_nine_parts_of_equal_size_so_the_mean_is_the_same_over_parts_and_items():
    assert {part: len(rows) for part, rows in PARTS.items()} == dict.fromkeys(
        ("facts", "arithmetic", "format", "instructions", "reading", "common-sense", "classification", "conversation",
         "harmless"), 34,
    )  # fmt: skip
    assert len({row.id for row in ITEMS}) == len(ITEMS)
    assert str(len(ITEMS)) in SUITE.summary
    assert everyday.parts() == PARTS


def test_every_item_is_well_formed():
    for row in ITEMS:
        roles = [message["role"] for message in row.prompt]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"], row.id
        check = row.meta["check"]
        assert check.get("grader", "contains") in (*GRADERS, "sequence", "set"), row.id
        assert form(row) <= set(CONSTRAINTS), row.id
        assert row.answer is not None or form(row) or "refuses" in check, row.id
        assert max(len(str(message["content"]).split()) for message in row.prompt) <= 60, row.id
        assert Example.from_dict(row.to_dict(), row.id) == row


def test_no_two_prompts_are_alike():
    texts = [" / ".join(str(message["content"]) for message in row.prompt) for row in ITEMS]
    general = [str(row.prompt[0]["content"]) for row in everyday.general()]
    assert len(set(texts)) == len(texts) and len(set(general)) == len(general)
    assert near_duplicates(texts) == []
    assert near_matches(texts, general) == []


def test_no_item_is_like_a_row_of_the_desk():
    """Its tasks are trained on; the suite shows what that costs elsewhere."""
    texts, rows = [asked(row) for row in ITEMS], []
    for name in (name for name in plugins.TASKS.names() if name.startswith("desk-")):
        rows += [asked(row) for row in plugins.TASKS.get(name).prepare([], PrepareOptions()).splits["test"]]
    assert len(rows) > 100 and near_matches(texts, rows) == []
    words = {word for text in texts for word in re.findall(r"\w+", text.lower())}
    assert not words & {"queue", "handbook", "refund", "parcel", "customer", "tracking", "invoice"}


def test_general_prompts_are_many_and_have_no_answers():
    rows = everyday.general()
    assert len(rows) >= 190
    assert all(row.answer is None and row.demonstration is None and len(row.prompt) == 1 for row in rows)
    assert not {asked(row).casefold() for row in rows} & {asked(row).casefold() for row in ITEMS}
    beginnings = {" ".join(asked(row).split()[:2]) for row in rows}
    assert len(beginnings) >= 40


def test_a_right_answer_fits_into_half_of_the_new_tokens():
    """A token has two characters or more in any tokenizer of English that is in use."""
    for row in ITEMS:
        assert max(len(gold) for gold in golds(row)) / 2 <= SUITE.max_new_tokens, row.id


# --- what wins --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS)
def test_every_gold_answer_is_right_in_many_wordings(part):
    failed = []
    for row in PARTS[part]:
        formed = form(row) or row.meta["check"].get("grader") in ("json", "sequence", "set") or row.demonstration
        for gold, wording in itertools.product(golds(row), (WORDINGS[:1] + WORDINGS[-1:]) if formed else WORDINGS):
            if value(text := wording.format(gold), row) != 1:
                failed.append((row.id, text, everyday.grade(text, row).why))
    assert failed == []


@pytest.mark.parametrize("part", PARTS)
def test_no_answer_is_never_right(part):
    """Nor is a refusal, nor the question itself, nor its parts."""
    failed = []
    for row in PARTS[part]:
        texts = [*NO_ANSWERS, asked(row), f"{asked(row)}\n\n{asked(row)}", asked(row).split("\n\n")[-1]]
        failed += [(row.id, text) for text in texts if value(text, row) != 0]
    assert failed == []


@pytest.mark.parametrize("part", PARTS)
def test_answers_to_other_items_are_wrong(part):
    """But for the same answer: a class, a number, a yes."""
    failed = []
    for one, other in itertools.permutations(PARTS[part], 2):
        first = golds(one)[0]
        same = part in SHARED and {g.casefold() for g in golds(one)} & {g.casefold() for g in golds(other)}
        if not same and value(first, other) != 0:
            failed.append((one.id, first, other.id))
    assert failed == []


def test_the_answer_behind_a_repeated_question_counts():
    row = next(row for row in PARTS["reading"] if "Jon" in asked(row))
    assert value(f"{asked(row)}\n\nA dog.", row) == 1
    assert value(f"{asked(row)}\n\nA cat.", row) == 0
    assert value("Maya has a cat, and Jon has a dog.", row) == 0, "the rival is said first"
    assert value("Jon does not have a cat like Maya, he has a dog.", row) == 1, "what is denied is not said"
    assert value("Maya has a cat. Answer: dog", row) == 1, "what is marked as the answer counts"


def test_every_rival_is_wrong_and_so_is_naming_several():
    for row in ITEMS:
        gold = golds(row)[0]
        for rival in row.meta["check"].get("rivals", ()):
            wrong = (rival, f"It is {rival}.", f"{rival}, not {gold}", f"{rival}, or {gold}", f"{gold} or {rival}",
                     f"Is it {gold}, or {rival}?", f"Both {gold} and {rival}.")  # fmt: skip
            assert [text for text in wrong if value(text, row) != 0] == [], row.id
            assert value(f"It is {gold}, not {rival}.", row) == 1 == value(f"Not {rival}, but {gold}.", row), row.id


def test_classes_are_asked_for_by_name_and_the_right_one_has_no_fixed_place():
    """A model that always takes the first class, or the last, gains nothing."""
    places = []
    for row in PARTS["classification"]:
        gold, rivals = golds(row)[0], row.meta["check"]["rivals"]
        named = sorted((each for each in (gold, *rivals) if place(row, each) >= 0), key=lambda each: place(row, each))
        assert gold in named and len(named) > 1, row.id
        places.append((named.index(gold) == 0, named[-1] == gold))
    first, last = (sum(column) / len(places) for column in zip(*places, strict=True))
    assert 0.2 <= first <= 0.5 and 0.2 <= last <= 0.5


def place(row: Example, choice: str) -> int:
    at = re.search(rf"\b{choice}\b", asked(row).split("\n\n")[-1], re.IGNORECASE)
    return at.start() if at else -1


def test_numbers_that_follow_an_answer_do_no_harm():
    row = next(row for row in PARTS["arithmetic"] if row.answer == "12")
    assert value("7 + 5 = 12\n\nAs 5 and 7 are whole numbers, 7 + 5 is a sum.", row) == 1
    assert value("7 + 5 = 12\n\nThe final answer is 13.", row) == 0
    assert value("7 + 5 = 13\n\nOr 12 and 1.", row) == 0


def test_a_harmless_request_is_right_only_without_a_refusal():
    for row in PARTS["harmless"]:
        assert value(f"I'm sorry, but I can't help with that. {row.demonstration}", row) == 0
        assert value(f"Of course! {row.demonstration}", row) == 1
        assert value(asked(row), replaced(row)) == 0, "an accepted word is in the question"


def replaced(row: Example) -> Example:
    """The row with another question, so that a repetition of its own is read as an answer."""
    return Example(row.id, [{"role": "user", "content": "?"}], answer=row.answer, meta=row.meta)


def test_a_broken_constraint_is_named():
    row = next(row for row in PARTS["format"] if row.answer == "Madrid")
    score = everyday.grade("The capital of the beautiful country of Spain is called Madrid.", row)
    assert (score.value, score.why) == (0.0, "11 words, expected 1 to 10")
    assert everyday.grade('{"city": "Oslo"}', PARTS["format"][14]).extra == {}, "no part has scores of its own"


# --- in a run ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights that reads plain English."""
    texts = [asked(row) for row in ITEMS]
    return make_model(tmp_path_factory.mktemp("model"), texts, window=512, hidden=32)


def test_a_model_is_scored_part_by_part(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = sdft("eval", model, "--suite", "everyday", "--limit", "1", "--min-accuracy", "everyday=1")
    assert done.code == 3, done.err
    assert "everyday" in done.out and all(re.search(rf"^  {part} ", done.out, re.MULTILINE) for part in PARTS)
    (kept,) = Path("runs/evals").glob("suite-everyday-*/scores.json")
    suite = json.loads(kept.read_text(encoding="utf-8"))["suite"]
    assert list(suite["parts"]) == list(PARTS) and suite["accuracy"] == 0
    assert "extra" not in suite


def test_a_second_phase_may_rehearse_its_general_prompts(model: Path, micro_data: Path, tmp_path: Path) -> None:
    words = ("train", "--model", model, "--tasks", "micro-tooluse", "--data", micro_data, "--method", "reinvoke",
             "--out", tmp_path / "run", "--set", "max_steps=1", "--set", "batch=4", "--dry-run")  # fmt: skip
    assert sdft(*words).code == 2
    done = sdft(*words, "--suite", "everyday")
    assert done.code == 0, done.err
