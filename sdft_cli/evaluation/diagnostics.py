"""Diagnostics beside an accuracy: the same test rows with help in view, and the distance from the base model.

* ``oracle``: with the row's article in view, as if a search had found it (the retrieval row of the SDFT paper's table);
* ``ceiling``: with the row's demonstration in view, as a teacher sees it: what self-distillation learns from;
* ``kl``: the mean KL divergence between model and base over the tokens of the model's own completions, sampled at
  temperature 1 (the paper's Figure 2). Both directions, over the full vocabulary, in nats per token.

Rows that lack the article or the demonstration are left out. Retrieval itself is not simulated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from sdft_cli.config.recipe import Evaluation, Recipe, Sampler
from sdft_cli.errors import UsageError
from sdft_cli.evaluation import scoring, summaries
from sdft_cli.evaluation.conditions import Conditions
from sdft_cli.models.views import VIEWS
from sdft_cli.runs.records import FurtherScores, ItemRecord, Summary
from sdft_cli.runs.token_records import BaseDivergence
from sdft_cli.types import Example, Task

if TYPE_CHECKING:
    from sdft_cli.evaluation.loaded_model import LoadedModel


class Diagnostic(Protocol):
    """A measurement beyond accuracy, on a task's test rows."""

    @property
    def needs_base(self) -> bool:
        """Whether it compares with the base model, which then is part of the settings."""
        ...

    def conditions(self, recipe: Recipe, settings: Evaluation) -> Conditions:
        """Under which the rows are answered."""
        ...

    def measure(
        self, model: LoadedModel, base: LoadedModel, task: Task, rows: Sequence[Example], conditions: Conditions
    ) -> tuple[FurtherScores, list[ItemRecord]]:
        """The scores, under the diagnostic's name, and records where completions were graded."""
        ...


# --- help in view ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WithHelp:
    """Accuracy of the same model on the rows that have help to show."""

    name: Literal["oracle", "ceiling"]
    needs_base: bool = False

    def conditions(self, recipe: Recipe, settings: Evaluation) -> Conditions:
        teacher = recipe.views.teacher
        demonstration = teacher if teacher and not VIEWS[teacher].needs_attempts else "demonstration"
        return Conditions.of("context" if self.name == "oracle" else demonstration, settings)

    def measure(
        self, model: LoadedModel, base: LoadedModel, task: Task, rows: Sequence[Example], conditions: Conditions
    ) -> tuple[FurtherScores, list[ItemRecord]]:
        conditions = conditions.for_rows(model.chat, task, rows)
        summary, records = helped(model, task, conditions.rows(task, rows), conditions)
        scores: FurtherScores = {"oracle": summary} if self.name == "oracle" else {"ceiling": summary}
        return scores, records


def helped(
    model: LoadedModel, task: Task, rows: Sequence[Example], conditions: Conditions
) -> tuple[Summary, list[ItemRecord]]:
    """Summary and records of the ``rows`` that have the view; accuracy None where none has."""
    having = [row for row in rows if VIEWS[conditions.view](row) is not None]
    if not having:
        return summaries.summarize([], f"no test row has what the view {conditions.view!r} shows"), []
    return scoring.score_task(model.engine, model.chat, task, having, conditions)


# --- distance from the base ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DistanceFromBase:
    """How far training has moved the model."""

    needs_base: bool = True

    def conditions(self, recipe: Recipe, settings: Evaluation) -> Conditions:
        return Conditions.of(recipe.views.student, settings, Sampler())

    def measure(
        self, model: LoadedModel, base: LoadedModel, task: Task, rows: Sequence[Example], conditions: Conditions
    ) -> tuple[FurtherScores, list[ItemRecord]]:
        return {"kl": divergence(model, base, task, rows, conditions)}, []


def divergence(
    model: LoadedModel, base: LoadedModel, task: Task, rows: Sequence[Example], conditions: Conditions
) -> BaseDivergence:
    """Both KL divergences between ``model`` and ``base`` on the model's own completions.

    Raises `UsageError` for a base with another vocabulary.
    """
    from sdft_cli.evaluation import divergences
    from sdft_cli.models import batching

    policy, other = model.engine.policy, base.engine.policy
    if policy.head().weight.shape[0] != other.head().weight.shape[0]:
        raise UsageError(
            f"{base.name} and {model.name} have different vocabularies",
            "name with --base the model that this one was trained from",
        )
    conditions = conditions.for_rows(model.chat, task, rows)
    prompts = [model.chat.view_ids(row, conditions.messages(row)) for row in conditions.rows(task, rows)]
    rollouts = model.engine.sample(prompts, conditions.sampler or Sampler(), conditions.tokens(task), 0)
    pairs = [
        batching.Row(prompt, rollout.ids, [1.0] * len(rollout.ids), prompt)
        for prompt, rollout in zip(prompts, rollouts, strict=True)
    ]
    budget = model.recipe.train.micro_batch_budget
    kl = divergences.summarize(divergences.per_token(policy, pairs, budget, other.core), skip=0)
    return {
        "to_base": kl["reverse"],
        "from_base": kl["forward"],
        "completions": kl["completions"],
        "tokens": kl["tokens"],
    }


#: By name, as ``--also`` takes them.
DIAGNOSTICS: dict[str, Diagnostic] = {
    "kl": DistanceFromBase(),
    "oracle": WithHelp("oracle"),
    "ceiling": WithHelp("ceiling"),
}
