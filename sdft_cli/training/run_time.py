"""How long a run will take, estimated before it starts: tokens are counted, and two things are timed with the model.

Those are reading (a token of a forward pass) and writing (a token of a completion, in a batch). A step's backward pass
costs two forward passes more. Completions are taken to be halfway between the demonstrations' length (0 without any)
and the limit. On a CPU it is processor time that counts, so a busy machine hardly disturbs the estimate. Left out:
loading, checkpoints, a judge's verdicts and suites that another library measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

import torch

from sdft_cli import plugins
from sdft_cli.config.recipe import Sampler
from sdft_cli.evaluation.conditions import Conditions
from sdft_cli.models.engine import Engine
from sdft_cli.training.batches import Batches
from sdft_cli.training.preflight import StagePlan
from sdft_cli.training.run_plan import RunPlan
from sdft_cli.training.stage_start import load_engine
from sdft_cli.training.stopwatch import Stopwatch
from sdft_cli.types import Example, Suite, Task

#: Prompts and new tokens of the trial.
PROMPTS, TOKENS = 8, 8
#: Rows whose lengths stand for those of all.
_FEW = 32


class Speed(NamedTuple):
    """Seconds per token: ``read`` by a forward pass, ``write`` by sampling. Both grow with a batch much less than its
    rows do, so they hold for batches of about `PROMPTS`, and are upper bounds for larger ones."""

    read: float
    write: float


def speed(plan: RunPlan, threads: int) -> Speed:
    """Measured on the first prompts of the first task, with ``threads`` CPU threads; loads the model and lets it go."""
    before = torch.get_num_threads()
    engine = load_engine(plan.recipe, plan.location)
    torch.set_num_threads(threads)
    try:
        return _timed(engine, _prompts(plan))
    finally:
        engine.close()
        torch.set_num_threads(before)


def _prompts(plan: RunPlan) -> list[list[int]]:
    """A few of the first task's prompts; raw text has none, and any will do."""
    rows = [e for split in (plan.stages[0].train, *plan.stages[0].tests.values()) for e in split if e.prompt]
    return [plan.chat.prompt_ids(e.prompt) for e in rows[:PROMPTS]] or [plan.chat.text_ids("Once upon a time")]


def _timed(engine: Engine, prompts: list[list[int]]) -> Speed:
    engine.sample(prompts[:1], Sampler(), 2, 0)  # the first call chooses how to decode
    first, _ = _seconds(engine, prompts, 1)
    whole, written = _seconds(engine, prompts, 1 + TOKENS)
    read = first / sum(map(len, prompts))
    return Speed(read, max(0.0, whole - first) / written if written else read)


def _seconds(engine: Engine, prompts: list[list[int]], limit: int) -> tuple[float, int]:
    """How long sampling takes, and how many tokens it writes after the first of each completion."""
    with Stopwatch(engine) as watch:
        rollouts = engine.sample(prompts, Sampler(), limit, 0)
    return watch.elapsed.alone, sum(len(rollout.ids) - 1 for rollout in rollouts)


def seconds(plan: RunPlan, pace: Speed) -> float:
    """The time of what is left of a run: training its stages, and measuring every task and the suite after each, and
    before the first."""
    times = len(plan.todo) + (1 in plan.todo)
    training = sum(_training(plan, plan.stages[number - 1], pace) for number in plan.todo)
    return training + times * (sum(_testing(plan, stage, pace) for stage in plan.stages) + _suite(plan, pace))


def _training(plan: RunPlan, stage: StagePlan, pace: Speed) -> float:
    return sum(_phase(plan, stage, phase, pace) for phase in stage.phases) + _quick(plan, stage, pace)


def _phase(plan: RunPlan, stage: StagePlan, phase: Batches, pace: Speed) -> float:
    recipe = phase.recipe
    rows = phase.steps * recipe.train.batch
    if recipe.sampler.source == "corpus":
        return rows * phase.max_new_tokens * 3 * pace.read
    student = fmean(length for length, _ in stage.lengths)
    teacher = fmean(length for _, length in stage.lengths)
    if recipe.sampler.source == "dataset":
        return rows * (student + _demonstrated(plan, phase.examples)) * 3 * pace.read
    written = _written(plan, phase.examples, phase.max_new_tokens)
    prompt, count = (student, rows) if recipe.sampler.source == "student" else (teacher, len(phase.examples))
    sampling = count * (prompt * pace.read + written * pace.write)
    scoring = (teacher + written if recipe.teacher else 0) + 3 * (student + written)
    return sampling + rows * scoring * pace.read


def _quick(plan: RunPlan, stage: StagePlan, pace: Speed) -> float:
    """Measuring on validation rows in mid-stage, without the suite."""
    train = stage.phases[0].recipe.train
    times = stage.steps // train.eval_every if train.eval_every else 0
    each = replace(_conditions(plan), limit=train.eval_limit)
    return times * sum(_items(plan, s.task, s.validation, each, pace, s.train) for s in plan.stages) if times else 0.0


def _testing(plan: RunPlan, stage: StagePlan, pace: Speed) -> float:
    conditions = _conditions(plan)
    return sum(_items(plan, stage.task, rows, conditions, pace, stage.train) for rows in stage.tests.values())


def _suite(plan: RunPlan, pace: Speed) -> float:
    suite = plugins.SUITES.get(plan.recipe.suite) if plan.recipe.suite else None
    if not isinstance(suite, Suite):
        return 0.0
    return sum(_items(plan, suite, part, _conditions(plan), pace, part) for part in suite.parts().values())


def _conditions(plan: RunPlan) -> Conditions:
    return Conditions.of(plan.recipe.views.student, plan.recipe.evaluation)


def _items(
    plan: RunPlan,
    graded: Task | Suite,
    examples: Sequence[Example],
    conditions: Conditions,
    pace: Speed,
    alike: Sequence[Example],
) -> float:
    """Scoring ``examples``; ``alike`` may have demonstrations where these have none."""
    rows = conditions.rows(graded, examples)
    if not rows:
        return 0.0
    prompt = fmean(len(plan.chat.view_ids(e, conditions.messages(e))) for e in rows[:_FEW])
    written = _written(plan, alike, conditions.tokens(graded))
    return len(rows) * (prompt * pace.read + written * pace.write)


def _demonstrated(plan: RunPlan, examples: Sequence[Example]) -> float:
    """Mean tokens of the demonstrations that are text; 0 without any."""
    texts = [e.demonstration for e in examples[:_FEW] if isinstance(e.demonstration, str)]
    return fmean(len(plan.chat.text_ids(text)) for text in texts) if texts else 0.0


def _written(plan: RunPlan, examples: Sequence[Example], most: int) -> float:
    return (min(most, _demonstrated(plan, examples)) + most) / 2
