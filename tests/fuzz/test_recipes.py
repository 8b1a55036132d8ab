"""Mutated recipes through every command that takes one: in order, or one error with a hint; never a traceback."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support import mutations

from sdft_cli.config.recipe import paths

RECIPE = """\
tasks = ["micro-tooluse", "micro-science"]
method = "sdft"
model = "model"
data = "data"
suite = "micro"
seed = 1

[train]
lr = 1e-4
batch = 4
max_steps = 2
warmup_steps = 1

[sampler]
max_new_tokens = 8

[objective]
skip_first = 1

[evaluation]
limit = 4

[methods.sft.train]
lr = 2e-5
"""
GRID = RECIPE + '\n[grid]\n"train.lr" = [1e-5, 1e-4]\n\n[methods.sft.grid]\nbatch = [2, 4]\n'
#: Neither a sweep nor a probe has a dry run: a folder that is not empty stops the one, a task that is not there the
#: other, once the recipe is read.
COMMANDS = (
    (("train", "r.toml", "--dry-run"), 50),
    (("train", "r.toml", "--dry-run", "--json", "--method", "sft"), 15),
    (("sweep", "r.toml", "--out", "model"), 15),
    (("probe", "r.toml", "--tasks", "nowhere"), 5),
)
#: Values of ``--set`` that are no TOML, or more than a value.
SET_VALUES = ("x", "", "[", "a=b", "none", "\\u0000", "'", "ä", "1_0", "1e-4 # x", "1\nlr = 2")


def one(world, rng: random.Random) -> str:
    """Call a command on a mutated recipe, or on a sound one with a mutated ``--set``; what went wrong."""
    words = rng.choices([words for words, _ in COMMANDS], [often for _, often in COMMANDS])[0]
    text, keys = GRID if words[0] == "sweep" else RECIPE, paths()
    if words[0] == "sweep" and rng.random() < 0.3:
        words = (*words, "--grid", f"{rng.choice((*keys, 'method', 'lr'))}={rng.choice(mutations.TOML_VALUES)},2,sft")
    elif rng.random() < 0.25:
        value = rng.choice(
            (*mutations.TOML_VALUES, "x", "", "[", "a=b", "none", "\\u0000", "'", "ä", "1_0", "1e-4 # x")
        )
        words = (*words, "--set", f"{rng.choice((*keys, *(key.rpartition('.')[2] for key in keys)))}={value}")
    else:
        text = mutations.toml(text, rng, keys)
    Path("r.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    before = mutations.snapshot(world.folder)
    outcome = mutations.run(*words)
    problem = outcome.problem
    if not problem and mutations.snapshot(world.folder) != before:
        problem = "something was written"
    return f"{' '.join(words)[:400]}: {problem}\n{text[-900:]}" if problem else ""


def check(world, rng: random.Random, count: int) -> None:
    problems = [problem for _ in range(count) if (problem := one(world, rng))]
    assert not problems, "\n\n".join([f"{len(problems)} of {count}", *problems])


def test_a_hundred_mutated_recipes(world, rng) -> None:
    check(world, rng, 100)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_two_thousand_mutated_recipes(part: int, world, rng) -> None:
    check(world, rng, 200)
