"""The micro tasks and suite: sizes, balance, disjoint prompts, determinism, and grading by content."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest

from sdft_cli import plugins
from sdft_cli.commands.prepare import prepare
from sdft_cli.micro import language, rules, skills
from sdft_cli.types import Example, PrepareOptions

RULE_TASKS = ["tooluse", "science", "medical"]
SIZES = {"train": 480, "validation": 120, "test": 240}


def make(name: str, **options) -> dict[str, list[Example]]:
    return plugins.TASKS.get(name).prepare([], PrepareOptions(**options)).splits


def prompts(rows: list[Example]) -> set[str]:
    return {row.prompt[-1]["content"] for row in rows}


@pytest.mark.parametrize("skill", RULE_TASKS)
def test_splits_of_a_rule_task(skill):
    splits = make(f"micro-{skill}")
    rule = rules.draw_rule(skill, 0)
    assert {split: len(rows) for split, rows in splits.items()} == SIZES
    for rows in splits.values():
        counts = Counter(row.meta["key"] for row in rows)
        assert set(counts) == set(rule)
        assert len(set(counts.values())) == 1
        assert len(prompts(rows)) == len(rows)
        assert len({row.id for row in rows}) == len(rows)
        for row in rows:
            assert language.extract(str(row.demonstration)) == row.answer
            assert row.answer.startswith(rule[row.meta["key"]])
    assert not prompts(splits["train"]) & prompts(splits["validation"])
    assert not prompts(splits["train"]) & prompts(splits["test"])


@pytest.mark.parametrize("skill", RULE_TASKS)
def test_test_split_uses_the_held_out_word_order(skill):
    splits, wordings = make(f"micro-{skill}"), getattr(rules, f"{skill.upper()}_FORMS")

    def form_of(question: str) -> list[int]:
        patterns = [re.sub(r"\\{options\\}", "(.+)", re.escape(form)) for form in wordings]
        patterns = [re.sub(r"\\{\w+\\}", r"(\\w+)", pattern) for pattern in patterns]
        return [i for i, pattern in enumerate(patterns) if re.fullmatch(pattern, question)]

    assert {i for q in prompts(splits["test"]) for i in form_of(q)} == {rules.TEST_FORM[skill]}
    for split in ("train", "validation"):
        assert {i for q in prompts(splits[split]) for i in form_of(q)} == set(rules.forms(skill, test=False))


@pytest.mark.parametrize("name", [*(f"micro-{skill}" for skill in RULE_TASKS), "micro-almanac"])
def test_rows_depend_on_world_and_seed_only(name):
    first = make(name, world=1, seed=2)
    assert first == make(name, world=1, seed=2)
    assert first["train"] != make(name, world=1, seed=3)["train"]
    assert first["train"] != make(name, world=2, seed=2)["train"]


@pytest.mark.parametrize("skill", RULE_TASKS)
def test_the_rule_depends_only_on_the_world(skill):
    def rule(**options) -> dict[str, str]:
        return {row.meta["key"]: str(row.answer).split()[0] for row in make(f"micro-{skill}", **options)["train"]}

    assert rule(world=1, seed=0) == rule(world=1, seed=5)
    assert rule(world=1) != rule(world=2)


def test_splits_of_the_almanac():
    splits = make("micro-almanac")
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": 80, "validation": 20, "test": 80, "ood": 80, "corpus": 20,
    }  # fmt: skip
    assert prompts(splits["train"]) == prompts(splits["test"])
    assert not prompts(splits["train"]) & prompts(splits["ood"])
    texts = {row.text for row in splits["corpus"]}
    assert all(row.context in texts and row.answer in row.context for row in splits["train"])
    assert all(row.prompt == [] for row in splits["corpus"])
    assert len({key for row in splits["ood"] if (key := row.meta["key"])}) == 20


@pytest.mark.parametrize("name", ["micro-tooluse", "micro-almanac"])
def test_only_content_is_graded(name):
    task = plugins.TASKS.get(name)
    row, other = task.prepare([], PrepareOptions()).splits["test"][:2]
    question = language.Question("x", row.prompt[-1]["content"], str(row.answer), "it")
    for i in range(len(language.EXPERT_STYLES)):
        assert task.grade(language.expert(str(row.answer), random.Random(0), (i,)), row).value == 1
    assert task.grade(language.house(question, random.Random(0)), row).value == 1
    assert task.grade(str(other.demonstration), row).value == 0
    silent = task.grade("let me see", row)
    assert (silent.value, silent.extracted) == (0, None)
    assert task.grade("anything", Example("x", [])).value is None


def test_every_answer_fits_within_max_new_tokens():
    for name in [*(f"micro-{skill}" for skill in RULE_TASKS), "micro-almanac"]:
        task = plugins.TASKS.get(name)
        longest = max(
            len(text.split())
            for row in task.prepare([], PrepareOptions()).splits["train"]
            for text in (str(row.demonstration), f"let me see about {row.meta['key']} . so the x is : {row.answer} .")
        )
        assert longest < task.max_new_tokens


def test_the_suite():
    suite = plugins.SUITES.get("micro")
    parts = suite.parts()
    assert list(parts) == list(skills.SKILLS)
    assert parts == suite.parts()
    for rows in parts.values():
        rng = random.Random(0)
        there_are = len({skills.SKILLS[rows[0].meta["skill"]](rng).prompt for _ in range(3000)})
        assert len(prompts(rows)) == min(60, there_are)
        for row in rows:
            assert suite.grade(f"so the answer is : {row.answer} .", row).value == 1
            assert suite.grade("so the answer is : nothing .", row).value == 0
    assert len({row.id for rows in parts.values() for row in rows}) == sum(map(len, parts.values()))


def test_prepare_writes_a_micro_task(tmp_path: Path):
    (summary,) = prepare(["micro-science"], {}, tmp_path, PrepareOptions(world=3))
    assert summary["rows"] == SIZES
    assert summary["with_demonstration"] == 480
    assert summary["dropped"] == []
