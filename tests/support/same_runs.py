"""Two runs that ought to be the same: what they logged, the weights of their stages, and their matrices."""

from __future__ import annotations

import json
from itertools import zip_longest
from pathlib import Path
from typing import Any

#: What a clock says.
TIMINGS = ("seconds", "rollout_seconds", "tokens_per_second")


def weights(run: Path, number: int, task: str) -> dict[str, Any]:
    """The final weights of a stage."""
    from safetensors.torch import load_file

    from sdft_cli.runs.folder import Run
    from sdft_cli.runs.records import StageId

    final = Run.open(run).checkpoints.of(StageId(number, task)).finished()
    assert final is not None, f"{run}: stage {number} is not finished"
    (file,) = final.model.glob("*.safetensors")
    return load_file(file)


def rows(run: Path) -> list[dict[str, Any]]:
    """What was logged, without what a clock says."""
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in logged]


def assert_same(mine: Path, theirs: Path, tasks: tuple[str, ...], story: object = "") -> None:
    """The runs are equal to the bit. ``story`` is told where they are not."""
    from sdft_cli.runs import results

    for one, other in zip_longest(rows(mine), rows(theirs)):
        assert one == other, str(story)
    for number, task in enumerate(tasks, 1):
        ours, others = (weights(run, number, task) for run in (mine, theirs))
        assert set(ours) == set(others) and all(ours[n].equal(others[n]) for n in others), f"{story}\n{task}"
    assert results.load_run(mine).matrix == results.load_run(theirs).matrix, str(story)
