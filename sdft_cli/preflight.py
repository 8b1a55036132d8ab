"""Everything that can be wrong with a training run and can be known before a model loads.

Reads the datasets and the tokenizer, checks fields and lengths under both views, and says what would happen.
A prompt over the limit is refused or dropped with its reason; it is never cut, because cutting drops the question.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sdft_cli import dataset, models, plugins, templates
from sdft_cli.chat import Chat
from sdft_cli.errors import UsageError, choose
from sdft_cli.recipe import Method, Recipe
from sdft_cli.types import Dropped, Example, Task


@dataclass
class StagePlan:
    """One task as it will be trained. Lengths are tokens: (student's prompt, teacher's prompt or 0) a row."""

    task: Task
    train: list[Example]
    validation: list[Example]
    test: list[Example]
    max_new_tokens: int
    lengths: list[tuple[int, int]] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)


def check_recipe(recipe: Recipe) -> Method:
    """Names and combinations, without reading any data; raises `UsageError`."""
    method: Method = plugins.get("method", recipe.method)
    if not recipe.tasks:
        raise UsageError("no task named", f"add --tasks; tasks: {', '.join(plugins.names('task'))}")
    for task in recipe.tasks:
        plugins.get("task", task)
    if recipe.suite:
        plugins.get("suite", recipe.suite)
    plugins.get("engine", recipe.engine.name)
    for view in filter(None, (recipe.views.student, recipe.views.teacher)):
        if view not in templates.VIEWS:
            raise choose("view", view, list(templates.VIEWS))
    _check_combination(recipe)
    return method


def _check_combination(recipe: Recipe) -> None:
    sampler, goal = recipe.sampler, recipe.objective
    if goal.target == "teacher" and (recipe.teacher is None or recipe.views.teacher is None):
        raise UsageError("objective.target = 'teacher' needs a teacher", "set teacher = 'ema' and views.teacher")
    tempered = sampler.temperature != 1 or sampler.top_p < 1 or sampler.top_k
    if goal.importance_cap and sampler.source == "student" and tempered:
        hint = "set objective.importance_cap=none, or sampler.temperature=1 top_p=1 top_k=0"
        raise UsageError("importance ratios compare equal distributions: they need untempered sampling", hint)
    if recipe.train.batch < sampler.n:
        raise UsageError(f"train.batch={recipe.train.batch} is below sampler.n={sampler.n}", "raise the batch")


def plan(recipe: Recipe, chat: Chat, context_window: int) -> list[StagePlan]:
    """One plan a task; raises on the first bad row unless ``train.on_bad_row`` is ``drop``."""
    method = check_recipe(recipe)
    return [_plan(recipe, method, name, chat, context_window) for name in recipe.tasks]


def _plan(recipe: Recipe, method: Method, name: str, chat: Chat, window: int) -> StagePlan:
    task: Task = plugins.get("task", name)
    folder = Path(recipe.data) / name
    how = recipe.train.on_bad_row
    splits, dropped = {}, []
    for split in ("train", "validation", "test"):
        splits[split], bad = dataset.read_split(folder, split, how)
        dropped += bad
    new_tokens = recipe.sampler.max_new_tokens or task.max_new_tokens
    stage = StagePlan(task, splits["train"], splits["validation"], splits["test"], new_tokens, dropped=dropped)
    _screen(stage, recipe, method, chat, window, f"{folder}/train.jsonl")
    if not stage.train:
        raise UsageError(f"{folder}/train.jsonl: no row can be trained on", _reasons(stage.dropped))
    return stage


def complaints(plans: list[StagePlan]) -> list[str]:
    """One line for every row that was left out of training, and their count."""
    lines = [f"dropped {p.task.name} {dataset.describe(row)}" for p in plans for row in p.dropped]
    return [*lines, f"{len(lines)} bad rows dropped"] if lines else []


def _screen(stage: StagePlan, recipe: Recipe, method: Method, chat: Chat, window: int, where: str) -> None:
    """Take rows that lack a field or are too long out of ``stage.train``, or refuse them."""
    bad = {d.where: d for d in dataset.check_demonstrations(stage.train, method.needs)}
    lengths = {}
    for example in stage.train:
        if example.id in bad:
            continue
        lengths[example.id] = lengths_of(example, recipe, chat)
        if reason := _too_long(lengths[example.id], chat, example, recipe, stage.max_new_tokens, window):
            bad[example.id] = Dropped(example.id, "prompt over the limit", reason)
    if bad and recipe.train.on_bad_row == "error":
        first = next(iter(bad.values()))
        raise UsageError(
            f"{where}: row {first.where}: {first.reason} {first.detail}".rstrip() + f" ({len(bad)} bad rows)",
            "mend the rows, or add --on-bad-row drop",
        )
    stage.train = [e for e in stage.train if e.id not in bad]
    stage.lengths = [lengths[e.id] for e in stage.train]
    stage.dropped += bad.values()


def lengths_of(example: Example, recipe: Recipe, chat: Chat) -> tuple[int, int]:
    """Tokens of the student's and the teacher's prompt (0 without a teacher)."""
    views = (recipe.views.student, recipe.views.teacher)
    messages = [templates.VIEWS[v](example) if v else None for v in views]
    student, teacher = (len(chat.prompt_ids(m)) if m else 0 for m in messages)
    return student, teacher


def _too_long(
    lengths: tuple[int, int], chat: Chat, example: Example, recipe: Recipe, new_tokens: int, window: int
) -> str:
    longest = max(lengths)
    if longest > recipe.train.max_prompt_tokens:
        return f"{longest} tokens, train.max_prompt_tokens is {recipe.train.max_prompt_tokens}"
    if recipe.sampler.source == "dataset":
        new_tokens = len(chat.completion(example)[0])
    if longest + new_tokens > window:
        return f"{longest} tokens and {new_tokens} to write, the model's window is {window}"
    return ""


def _reasons(dropped: list[Dropped]) -> str:
    counts: dict[str, int] = {}
    for row in dropped:
        counts[row.reason] = counts.get(row.reason, 0) + 1
    return "; ".join(f"{n} x {reason}" for reason, n in counts.items()) or "the split is empty"


def context_window(location: str) -> int:
    """The most tokens the model takes, from its config alone."""
    config = models.load_config(location)
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 1 << 30)
