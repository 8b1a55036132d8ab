"""Options of `sdft eval` that have nothing to act on are refused: whoever gives one expects it to change something."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sdft_cli.config.judge_section import NO_RUBRIC
from sdft_cli.config.model_locations import is_adapter
from sdft_cli.errors import UsageError
from sdft_cli.evaluation.plan import EvalPlan
from sdft_cli.evaluation.scorable import HINT, is_judged, lack_of_scores
from sdft_cli.evaluation.units import Unit
from sdft_cli.grading import named_rules
from sdft_cli.types import Battery

#: Diagnostics that are accuracies of their own.
_NEED_SCORES = ("oracle", "ceiling")
#: The flags by the keys of the recipe's ``evaluation.harness`` that they set.
_HARNESS = {"benchmarks": "--benchmarks", "allow_code_execution": "--allow-code-execution", "tasks": "--harness"}


def check_options(plan: EvalPlan) -> None:
    """Raise `UsageError` for the first option that no task or suite of ``plan`` uses, and for a grader that cannot run
    on this machine."""
    for unit in plan.units:
        named_rules.check_ready(unit.task.grader if unit.task else None)
    for flag, about, hint in _unused(plan):
        raise UsageError(f"{flag} {about}", hint)


def _unused(plan: EvalPlan) -> Iterator[tuple[str, str, str]]:
    """(flag, what it is about and why that is not here, what to do)."""
    request = plan.request
    tasks = [unit for unit in plan.units if unit.suite is None]
    batteries = [unit for unit in plan.units if isinstance(unit.suite, Battery)]
    if not tasks:
        of_tasks = {
            "--data": request.data is not None,
            "--max-new-tokens": request.max_new_tokens is not None,
            "--also": bool(request.also),
            "--judge": request.names_judge,
        }
        for flag in (flag for flag, given in of_tasks.items() if given):
            yield flag, "is about a task's questions, but no task is measured here", "add --tasks a,b"
    if reason := tasks and _nothing_scored(plan, tasks):
        for flag in (f"--also {name}" for name in request.also if name in _NEED_SCORES):
            yield flag, f"compares scores, and {reason}", HINT
        if request.draws:
            yield "--pass-at", f"counts right answers, and {reason}", HINT
    if request.names_judge and not any(unit.task is None or unit.task.rubric for unit in tasks):
        names = ", ".join(unit.name for unit in tasks)
        yield "--judge", f"needs a task with a rubric, and {names} has none", NO_RUBRIC
    if not batteries:
        for key in request.settings.get("evaluation", {}).get("harness", {}):
            flag = _HARNESS.get(key, "--harness-args")
            about = "is about benchmarks of the EleutherAI harness, and none is measured here"
            yield flag, about, "add --suite prior, or --harness TASKS"
    adapter = plan.target.location is not None and is_adapter(plan.target.location)  # it may name the adapter's own
    if request.base is not None and "kl" not in request.also and not adapter:
        yield "--base", "is the model that --also kl compares with", "add --also kl"


def _nothing_scored(plan: EvalPlan, tasks: Sequence[Unit]) -> str:
    """Why none of ``tasks`` can be scored; empty where one can."""
    judged = is_judged(plan.recipe)
    reasons = {}
    for unit in tasks:
        if not (unit.task and (reason := lack_of_scores(unit.task, unit.splits["test"], judged))):
            return ""
        reasons[unit.name] = reason
    return "; ".join(f"{name} cannot be scored: {reason}" for name, reason in reasons.items())
