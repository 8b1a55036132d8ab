"""What a run cannot score, found before its first step: said, and refused where a setting would decide by the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sdft_cli.config.recipe import Recipe
from sdft_cli.errors import UsageError
from sdft_cli.evaluation.conditions import Conditions
from sdft_cli.evaluation.scorable import HINT, is_judged, lack_of_scores
from sdft_cli.evaluation.validation_loss import Texts, texts_of
from sdft_cli.models.chat import Chat
from sdft_cli.types import Example, Suite, Task


class Outlook(NamedTuple):
    """Why mid-training evaluations of a task will have no accuracy (empty: they will have one), and what to say of the
    scores that a run will lack."""

    unscored: str
    notes: list[str]


def outlook(
    task: Task, validation: Sequence[Example], tests: Mapping[str, Sequence[Example]], recipe: Recipe, chat: Chat
) -> Outlook:
    """The outlook of a stage on ``task``. Raises `UsageError` where ``train.best=use`` could not be decided."""
    judged = is_judged(recipe)
    unscored = lack_of_scores(task, _looked_at(recipe).rows(task, validation), judged)
    untested = lack_of_scores(task, tests["test"], judged)
    if not (unscored or untested):
        return Outlook("", [])
    texts = loss_texts(task, validation, recipe, chat)
    measured = f"the validation loss of its {_named(texts.of)} is measured" if texts else "it has no validation loss"
    without = "its accuracy stays empty" if untested else "it has no validation accuracy"
    notes = [f"{task.name} cannot be scored: {unscored or untested}. So {without}; {measured}"]
    if recipe.train.best == "use" and recipe.train.eval_every and unscored:
        if texts is None:
            lack = "its validation rows have neither demonstrations nor gold answers"
            problem = f"train.best=use: {task.name} cannot be scored ({unscored}), and {lack}"
            raise UsageError(problem, f"{HINT}; or set train.best=keep")
        notes.append(f"{task.name}: the best step is the one with the lowest validation loss (train.best=use)")
    return Outlook(unscored, notes)


def loss_texts(task: Task, validation: Sequence[Example], recipe: Recipe, chat: Chat) -> Texts | None:
    """What mid-training evaluations measure the task's loss on; None where there is nothing."""
    conditions = _looked_at(recipe)
    chat = chat.switched(recipe.views.student_thinking)
    return texts_of(task, {"validation": validation}, chat, conditions)


def _looked_at(recipe: Recipe) -> Conditions:
    """The conditions of mid-training evaluations, as far as they choose rows."""
    return Conditions(recipe.views.student, recipe.train.eval_limit)


def _named(of: str) -> str:
    return "gold answers" if of == "answers" else of


def check_reward(task: Task, phase: Recipe, rows: Sequence[Example]) -> None:
    """Raise `UsageError` for a phase that learns from grades on training ``rows`` that have none. A judge does not
    grade them."""
    if phase.reward and (reason := lack_of_scores(task, rows)):
        raise UsageError(
            f"method {phase.method} learns from grades, and none of {task.name}'s training rows has one: {reason}",
            "name a grader of its answers when you prepare it (data/README.md), or use a method without rewards",
        )


def check_suite(suite: Suite, items: Sequence[Example], recipe: Recipe) -> None:
    """Raise `UsageError` where ``train.stop_if_prior_drops`` watches a suite of which nothing can be scored."""
    if recipe.train.stop_if_prior_drops is not None and (reason := lack_of_scores(suite, items)):
        raise UsageError(
            f"train.stop_if_prior_drops watches the suite {suite.name}, which cannot be scored: {reason}",
            "leave it out, or name another suite",
        )
