"""What stands beside an accuracy: the same test rows with help in view, and how far the model has moved from its base.

* ``oracle``: with the row's article in view, as if a search had found it (the retrieval row of the SDFT paper's table);
* ``ceiling``: with the row's demonstration in view, as a teacher sees it: what self-distillation learns from;
* ``kl``: the mean KL divergence between model and base over the tokens of the model's own completions, sampled at
  temperature 1 (the paper's Figure 2). Both directions, over the full vocabulary, in nats per token.

Rows that lack the article or the demonstration are left out. Left out: retrieval itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdft_cli.config.recipe import Recipe, Sampler
from sdft_cli.errors import UsageError
from sdft_cli.evaluation import scoring
from sdft_cli.models.views import VIEWS
from sdft_cli.types import Example, Task

if TYPE_CHECKING:
    from sdft_cli.evaluation.loaded_model import LoadedModel

KINDS = ("kl", "oracle", "ceiling")
Row = dict[str, Any]


def view_of(kind: str, recipe: Recipe) -> str:
    """The name of the view under which the rows are asked."""
    teacher = recipe.views.teacher
    help_ = {
        "oracle": "context",
        "ceiling": teacher if teacher and not VIEWS[teacher].needs_attempts else "demonstration",
    }
    return help_.get(kind) or recipe.views.student


def conditioned(
    loaded: LoadedModel, task: Task, rows: Sequence[Example], longest: int, view: str
) -> tuple[Row, list[Row]]:
    """Summary and records of the rows that have ``view``; accuracy None where none has."""
    shown = [row for row in rows if VIEWS[view](row) is not None]
    if not shown:
        return scoring.summarize([], f"no test row has what the view {view!r} shows"), []
    return scoring.score_task(loaded.engine, loaded.chat, task, shown, longest, VIEWS[view])


def drift(loaded: LoadedModel, base: LoadedModel, rows: Sequence[Example], longest: int, view: str) -> Row:
    """KL(model ‖ base) as ``to_base`` and KL(base ‖ model) as ``from_base``, each a value with its interval.

    Raises `UsageError` for a base with another vocabulary.
    """
    from sdft_cli.evaluation import teacher_gap
    from sdft_cli.models import batching, pretrained

    policy, other = loaded.engine.policy, base.engine.policy
    if pretrained.head(policy).weight.shape[0] != pretrained.head(other).weight.shape[0]:
        raise UsageError(f"{base.name} and {loaded.name} have different vocabularies", "--base is the model's own base")
    prompts = [loaded.chat.prompt_ids(VIEWS[view](row) or row.prompt) for row in rows]
    rollouts = loaded.engine.sample(prompts, Sampler(), longest, 0)
    pairs = [
        batching.Row(prompt, rollout.ids, [1.0] * len(rollout.ids), prompt)
        for prompt, rollout in zip(prompts, rollouts, strict=True)
    ]
    budget = loaded.recipe.train.micro_batch_budget
    found = teacher_gap.summarize(teacher_gap.divergences(policy, pairs, budget, other.core), skip=0)
    return {
        "to_base": found["reverse"],
        "from_base": found["forward"],
        "completions": found["completions"],
        "tokens": found["tokens"],
    }
