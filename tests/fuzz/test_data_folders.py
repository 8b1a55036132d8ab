"""Mutated datasets through every command that reads one: in order, or one error with a hint; never a traceback."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support import mutations

COMMANDS = (
    (("data", "list"), 5),
    (("data", "stats"), 5),
    (("data", "stats", "micro-tooluse", "--model", "model"), 5),
    (("data", "show", "micro-tooluse", "--split", "train"), 10),
    (("data", "show", "micro-tooluse", "--model", "model", "--method", "sdft", "--json"), 5),
    (("train", "--tasks", "micro-tooluse,micro-science", "--model", "model", "--dry-run"), 30),
    (("train", "--tasks", "micro-tooluse", "--model", "model", "--dry-run", "--on-bad-row", "drop"), 10),
    (("train", "--tasks", "mine", "--model", "model", "--dry-run", "--method", "sft"), 15),
    (("eval", "model", "--tasks", "micro-tooluse", "--limit", "2", "--max-new-tokens", "2"), 10),
)


def one(world, rng: random.Random) -> str:
    """Mutate a file of fresh data and call a command on it; what went wrong."""
    words = rng.choices([words for words, _ in COMMANDS], [often for _, often in COMMANDS])[0]
    data = world.fresh("data")
    task = next((word.split(",")[0] for word in words if word.startswith(("micro", "mine"))), "micro-tooluse")
    done = mutations.mutate(rng.choice([path for path in sorted((data / task).rglob("*")) if path.is_file()]), rng)
    before = mutations.snapshot(data)
    outcome = mutations.run(*words)
    problem = outcome.problem
    if not problem and mutations.snapshot(data) != before:
        problem = "something was written"
    if not problem and outcome.code == 2 and Path("runs").exists():
        problem = "something was written though the input is bad"
    mutations.remove(world.folder / "runs")
    return f"{' '.join(words)} after {done}: {problem}" if problem else ""


def check(world, rng: random.Random, count: int) -> None:
    problems = [problem for _ in range(count) if (problem := one(world, rng))]
    assert not problems, "\n\n".join([f"{len(problems)} of {count}", *problems])


def test_mutated_datasets(world, rng) -> None:
    check(world, rng, 20)


@pytest.mark.slow
def test_two_hundred_mutated_datasets(world, rng) -> None:
    check(world, rng, 200)
