"""What the three tasks of the desk share: splits drawn by seed, without a prompt twice.

Train and validation use the same wordings, test and ood others. The rows depend on the seed alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from sdft_cli.types import Example, Prepared, PrepareOptions, Score, Task

SIZES = {"train": 320, "validation": 64, "test": 96}
SOURCE, LICENCE = "the desk (made up, sdft_cli.desk)", "Apache-2.0"
#: One row of a split (the random numbers, the split, its number); the same prompt may come again.
Draw = Callable[[random.Random, str, int], Example]


def drawn(name: str, draw: Draw, options: PrepareOptions) -> dict[str, list[Example]]:
    """Rows by split, of which no two have the same prompt."""
    taken: set[str] = set()
    splits = {}
    for split, size in SIZES.items():
        rng = random.Random(f"{name}/{split}/{options.seed}")
        rows: list[Example] = []
        while len(rows) < size:
            row = draw(rng, split, len(rows))
            if (prompt := row.prompt[0]["content"]) not in taken:
                taken.add(prompt)
                rows.append(row)
        rng.shuffle(rows)
        splits[split] = rows
    return splits


def desk_task(
    name: str,
    summary: str,
    splits: Callable[[PrepareOptions], dict[str, list[Example]]],
    grade: Callable[[str, Example], Score],
    max_new_tokens: int,
) -> Task:
    """A task that makes its own rows; ``max_new_tokens`` is a little more than the longest demonstration."""

    def prepare(paths: list[Path], options: PrepareOptions) -> Prepared:
        return Prepared(splits(options), source=SOURCE, licence=LICENCE)

    return Task(
        name=name,
        summary=summary,
        prepare=prepare,
        grade=grade,
        max_new_tokens=max_new_tokens,
        needs_source=False,
        note="made-up rows in plain English",
    )
