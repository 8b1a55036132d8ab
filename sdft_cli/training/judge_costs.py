"""What a run will ask its judge, and what that may cost, predicted without sending anything.

Counted are all answers of the evaluations that are left: test rows after every stage, validation rows in mid-training.
Equal answers are asked about once, and a reply that is stored is free, so there may be fewer requests. Prompts are
estimated from bytes; a response may be as long as the task allows, or about as long as the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypedDict

from sdft_cli.config.judge_section import LOCAL
from sdft_cli.config.model_locations import locate
from sdft_cli.config.recipe import Recipe
from sdft_cli.evaluation.conditions import Conditions
from sdft_cli.evaluation.judge import MAX_TOKENS, judgement_of, messages
from sdft_cli.evaluation.run_judging import ledger_of
from sdft_cli.llm.budget import Prices
from sdft_cli.llm.ledger import Ledger, Spent
from sdft_cli.llm.types import estimate_prompt_tokens, estimate_tokens
from sdft_cli.messages import question_text
from sdft_cli.runs.evaluations import StageEvaluation
from sdft_cli.runs.folder import Run
from sdft_cli.runs.records import BASE, StageId
from sdft_cli.training.cost_estimates import GIB
from sdft_cli.training.preflight import StagePlan
from sdft_cli.training.run_plan import RunPlan
from sdft_cli.types import Example

#: Tokens of a reply that is one word and nothing else.
ONE_WORD = 5


class JudgeOutlook(TypedDict):
    """``requests`` at most; tokens and cost as [about, at most]; the cost is None without prices. A local judge costs
    nothing, and has ``local_bytes`` of weights (None for one at an endpoint, or that is not on this machine yet).
    ``spent`` are the requests and the money that the run has spent on its judge already."""

    model: str
    requests: int
    prompt_tokens: list[int]
    completion_tokens: list[int]
    cost: list[float] | None
    local_bytes: int | None
    spent: tuple[int, float]


class _Size(NamedTuple):
    """Answers to judge, and the tokens of their prompts: about, and at most."""

    answers: int = 0
    about: int = 0
    most: int = 0

    def plus(self, other: _Size, times: int = 1) -> _Size:
        return _Size(*(mine + times * theirs for mine, theirs in zip(self, other, strict=True)))


def outlook(plan: RunPlan, run: Run | None = None) -> JudgeOutlook | None:
    """What is left to ask the judge in a new run, or in ``run``; None without a judge."""
    recipe = plan.recipe
    if recipe.judge.model is None:
        return None
    tasks = {stage.task.name: stage for stage in plan.stages if stage.task.rubric}
    tests, validation = _Size(), _Size()
    for stage in tasks.values():
        for rows in stage.tests.values():
            tests = tests.plus(_size(stage, rows, recipe, recipe.evaluation.limit))
        validation = validation.plus(_size(stage, stage.validation, recipe, recipe.train.eval_limit))
    total = _Size().plus(tests, _unmeasured(plan, run)).plus(validation, _quick(plan, run))
    written = [total.answers * ONE_WORD, total.answers * MAX_TOKENS]
    prices = Prices(recipe.judge.price_in, recipe.judge.price_out)
    costs = [prices.cost(read, out) for read, out in zip((total.about, total.most), written, strict=True)]
    return {
        "model": recipe.judge.model,
        "requests": total.answers,
        "prompt_tokens": [total.about, total.most],
        "completion_tokens": written,
        "cost": costs if prices.known else None,
        "local_bytes": _weights(recipe.judge.model),
        "spent": Ledger(ledger_of(run.folder)).spent() if run else Spent(),
    }


def lines(judge: JudgeOutlook, recipe: Recipe) -> list[str]:
    """The same for people, with what the recipe's limits do to it."""
    if not judge["requests"]:
        return [f"judge {judge['model']}: nothing is left to ask"]
    read, written = judge["prompt_tokens"], judge["completion_tokens"]
    told = [
        f"judge {judge['model']}: at most {judge['requests']:,} requests (equal answers are asked about once, stored "
        f"replies are free); about {read[0]:,} tokens in and {written[0]:,} out, at most {read[1]:,} and {written[1]:,}"
    ]
    if judge["cost"]:
        told.append(f"    cost: about {judge['cost'][0]:.2f}, at most {judge['cost'][1]:.2f}")
    if judge["local_bytes"] is not None:
        size = judge["local_bytes"] / GIB
        told.append(
            f"    it is loaded for every evaluation, beside the model that is trained: {size:.2f} GiB of weights"
        )
    most, money, (asked, paid) = recipe.judge.max_requests, recipe.judge.max_cost, judge["spent"]
    if most is not None and most < asked + judge["requests"]:
        used = f", of which {asked:,} are used," if asked else ""
        told.append(f"    judge.max_requests={most}{used} may not be enough: answers beyond it stay unscored")
    if money is not None and judge["cost"] and money < paid + judge["cost"][1]:
        used = f", of which {paid:.2f} is spent," if paid else ""
        told.append(f"    judge.max_cost={money:g}{used} may not be enough: answers beyond it stay unscored")
    return told


def _size(stage: StagePlan, rows: Sequence[Example], recipe: Recipe, limit: int | None) -> _Size:
    """One evaluation of a task on at most ``limit`` of the ``rows``."""
    assert stage.task.rubric is not None
    conditions = replace(Conditions.of(recipe.views.student, recipe.evaluation), limit=limit)
    longest, size = conditions.tokens(stage.task), _Size()
    for row in conditions.rows(stage.task, rows):
        asked = judgement_of(question_text(row.prompt), row.answer, "")
        if asked.reference.strip():
            prompt = estimate_prompt_tokens(messages(stage.task.rubric, asked))
            likely = min(longest, estimate_tokens(asked.reference))
            size = size.plus(_Size(1, prompt + likely, prompt + longest))
    return size


def _unmeasured(plan: RunPlan, run: Run | None) -> int:
    """How many rows of the accuracy matrix are still to be judged."""
    stages = [BASE, *(StageId(number, task) for number, task in enumerate(plan.recipe.tasks, 1))]
    return sum(run is None or _lacks(run.evaluation(stage), plan) for stage in stages)


def _lacks(evaluation: StageEvaluation, plan: RunPlan) -> bool:
    from sdft_cli.evaluation.judged_units import answers_wait

    scores = evaluation.scores()
    return scores is None or not scores["tasks"].keys() >= set(plan.recipe.tasks) or answers_wait(evaluation.folder)


def _quick(plan: RunPlan, run: Run | None) -> int:
    """How many mid-training evaluations are left: every ``eval_every`` steps, at the end of a stage, and before the
    first step."""
    every, latest = plan.recipe.train.eval_every, run.checkpoints.latest() if run else None
    if not every:
        return 0
    count = int(latest is None)
    for number in plan.todo:
        steps = plan.stages[number - 1].steps
        done = latest.step if latest and latest.stage.number == number else 0
        count += steps // every + (steps % every > 0) - done // every
    return count


def _weights(model: str) -> int | None:
    if not model.startswith(LOCAL):
        return None
    folder = Path(locate(model.removeprefix(LOCAL)))
    files = [file for pattern in ("*.safetensors", "*.bin") for file in folder.glob(pattern)] if folder.is_dir() else []
    return sum(file.stat().st_size for file in files) if files else None
