"""Mutated run folders through every command that reads one: in order, or one error with a hint; never a traceback."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support import mutations

#: Of which run, what is called, and how often; a report draws, so it takes a second.
COMMANDS = (
    ("done", ("compare", "done", "other"), 30),
    ("done", ("compare", "done", "other", "--by", "method"), 20),
    ("done", ("report", "done", "--out", "report"), 3),
    ("done", ("eval", "done"), 12),
    ("done", ("eval", "done", "--out", "scores", "--json", "--max-forgetting", "0.9"), 6),
    ("done", ("train", "--resume", "--out", "done"), 12),
    ("killed", ("train", "--resume", "--out", "killed"), 6),
    ("killed", ("report", "killed", "--out", "report"), 1),
    ("runs", ("eval", "model", "--tasks", "micro-tooluse", "--limit", "2", "--max-new-tokens", "2"), 3),
    ("runs", ("compare", "model", "other", "--force"), 4),
)
#: These files are what a run is; those of its models are mutated too, but less often.
WEIGHTS = {".json": 8, ".jsonl": 8, ".pt": 2, ".safetensors": 1, "": 8}


def one(world, rng: random.Random) -> str:
    """Mutate a fresh run and call a command on it; what went wrong."""
    name, words, _ = rng.choices(COMMANDS, [often for *_, often in COMMANDS])[0]
    run = world.fresh(name)
    if "other" in words:
        world.fresh("other")
    done = mutations.mutate(pick(run, rng), rng)
    if rng.random() < 0.15:
        done += " and " + mutations.mutate(pick(run, rng), rng)
    before = mutations.snapshot(run)
    outcome = mutations.run(*words, codes=(0, 2, 3) if "--max-forgetting" in words else (0, 2))
    problem = outcome.problem
    if not problem and words[0] != "train" and mutations.snapshot(run) != before and outcome.code == 2:
        problem = "something was written into the run"
    if not problem and outcome.code == 2 and Path("report").exists():
        problem = "something was written though the input is bad"
    if not problem and Path("scores").exists() and not Path("scores/scores.json").exists():
        problem = "half of an evaluation was written"  # a whole one is, where nothing but a gate cannot be decided
    for folder in ("report", "scores", "runs"):
        mutations.remove(world.folder / folder)
    return f"{' '.join(words)} after {done}: {problem}" if problem else ""


def pick(run: Path, rng: random.Random) -> Path:
    files = [path for path in sorted(run.rglob("*")) if path.is_file()]
    weights = [0.15 if "model" in path.parts[len(run.parts) :] else WEIGHTS.get(path.suffix, 1) for path in files]
    return rng.choices(files, weights)[0]


def check(world, rng: random.Random, count: int) -> None:
    problems = [problem for _ in range(count) if (problem := one(world, rng))]
    assert not problems, "\n\n".join([f"{len(problems)} of {count}", *problems])


def test_a_hundred_mutated_runs(world, rng) -> None:
    check(world, rng, 100)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_a_thousand_mutated_runs(part: int, world, rng) -> None:
    check(world, rng, 100)
