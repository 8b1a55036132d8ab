"""The estimate of a run's time: tokens counted here row by row, with made-up seconds a token."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from sdft_cli.config.recipe_layers import assemble
from sdft_cli.training import run_time
from sdft_cli.training.run_plan import plan_run
from sdft_cli.training.run_time import Speed

TASKS = ("micro-tooluse", "micro-science")
STEPS, BATCH, LIMIT = 3, 4, 5


def planned(data: Path, method: str, *sets: str):
    flags = {"method": method, "model": "micro", "tasks": list(TASKS), "data": str(data)}
    counts = [f"max_steps={STEPS}", f"batch={BATCH}", f"evaluation.limit={LIMIT}", "eval_every=0"]
    return plan_run(assemble(None, flags, [*counts, *sets]))


def tokens(plan, rows, name: str) -> float:
    texts = [row.prompt if name == "prompt" else row.demonstration for row in rows]
    ids = [plan.chat.prompt_ids(text) if name == "prompt" else plan.chat.text_ids(text) for text in texts]
    return fmean(map(len, ids))


@pytest.mark.parametrize("pace", [Speed(1.0, 0.0), Speed(0.0, 1.0), Speed(0.25, 2.0)])
def test_sft_reads_each_row_three_times_and_writes_in_evaluations_alone(micro_data: Path, pace: Speed) -> None:
    plan, expected = planned(micro_data, "sft"), 0.0
    for stage in plan.stages:
        shown = tokens(plan, stage.train[:32], "demonstration")
        expected += 3 * STEPS * BATCH * (tokens(plan, stage.train, "prompt") + shown) * pace.read
        written = (shown + 32) / 2  # between the demonstrations and the task's own limit
        read = tokens(plan, stage.tests["test"][:LIMIT], "prompt")
        expected += 3 * LIMIT * (read * pace.read + written * pace.write)  # before the first stage and after each
    assert run_time.seconds(plan, pace) == pytest.approx(expected)


def test_sdft_also_samples_and_lets_the_teacher_read(micro_data: Path) -> None:
    sft, sdft = planned(micro_data, "sft"), planned(micro_data, "sdft")
    written = sum(STEPS * BATCH * (tokens(sdft, s.train[:32], "demonstration") + 32) / 2 for s in sdft.stages)
    extra = run_time.seconds(sdft, Speed(0.0, 1.0)) - run_time.seconds(sft, Speed(0.0, 1.0))
    assert extra == pytest.approx(written)
    # A prompt and completion are read by the student (forward and backward, three in all), the teacher's view and
    # completion once, and the prompt once more for sampling.
    read = 0.0
    for stage in sdft.stages:
        student, teacher = (fmean(pair[side] for pair in stage.lengths) for side in (0, 1))
        completion = (tokens(sdft, stage.train[:32], "demonstration") + 32) / 2
        read += STEPS * BATCH * (4 * student + teacher + 4 * completion)
    evaluated = run_time.seconds(sft, Speed(1.0, 0.0)) - sum(
        3 * STEPS * BATCH * (tokens(sft, s.train, "prompt") + tokens(sft, s.train[:32], "demonstration"))
        for s in sft.stages
    )
    assert run_time.seconds(sdft, Speed(1.0, 0.0)) - evaluated == pytest.approx(read)


def test_evaluations_in_mid_stage_count(micro_data: Path) -> None:
    without, often = planned(micro_data, "sft"), planned(micro_data, "sft", "eval_every=1", f"eval_limit={LIMIT}")
    rows = [stage.validation[:LIMIT] for stage in often.stages]
    once = sum(LIMIT * tokens(often, few, "prompt") for few in rows)
    more = run_time.seconds(often, Speed(1.0, 0.0)) - run_time.seconds(without, Speed(1.0, 0.0))
    assert more == pytest.approx(len(TASKS) * STEPS * once)
