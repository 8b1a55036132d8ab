"""Preflight: everything that can be wrong with a run's rows and can be known before a model loads.

Reads the datasets and the tokenizer, checks fields and lengths under both views, and plans the stages. Names and
combinations are checked first (`recipe_checks`). A prompt that is
too long is refused, or dropped with its reason; it is never truncated, because that would drop the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sdft_cli import plugins
from sdft_cli.config.recipe import Method, Recipe
from sdft_cli.data import dataset
from sdft_cli.errors import UsageError
from sdft_cli.models import pretrained
from sdft_cli.models.chat import Chat
from sdft_cli.models.views import VIEWS
from sdft_cli.training.batches import Batches
from sdft_cli.training.recipe_checks import check_recipe
from sdft_cli.types import Battery, Dropped, Example, Suite, Task

#: Why a row is left out whose prompt, or prompt and completion, do not fit.
TOO_LONG = "prompt over the limit"


@dataclass
class StagePlan:
    """One task as it will be trained, with one `Batches` per phase.

    ``lengths`` are the prompt tokens of the first phase's rows, (student's, teacher's or 0); ``too_long`` those of the
    rows that were dropped for their length. ``tests`` holds the held-out rows by split: ``test``, perhaps ``ood``.
    """

    task: Task
    train: list[Example]
    validation: list[Example]
    tests: dict[str, list[Example]]
    max_new_tokens: int
    lengths: list[tuple[int, int]] = field(default_factory=list)
    too_long: list[tuple[int, int]] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    phases: list[Batches] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)


def plan(recipe: Recipe, chat: Chat, context_window: int) -> list[StagePlan]:
    """One plan per task; raises on the first bad row unless ``train.on_bad_row`` is ``drop``."""
    method = check_recipe(recipe)
    return [_plan(recipe, method, i, name, chat, context_window) for i, name in enumerate(recipe.tasks, 1)]


def _plan(recipe: Recipe, method: Method, number: int, name: str, chat: Chat, window: int) -> StagePlan:
    """The plan of stage ``number`` (from 1)."""
    task: Task = plugins.task(name, recipe.data)
    folder = Path(recipe.data) / name
    how = recipe.train.on_bad_row
    splits, dropped = {}, []
    held_out = dataset.held_out_splits(folder)
    for split in ("train", "validation", *held_out):
        splits[split], bad = dataset.read_split(folder, split, how)
        dropped += bad
    new_tokens = recipe.sampler.max_new_tokens or task.max_new_tokens
    tests = {split: splits[split] for split in held_out}
    stage = StagePlan(task, splits["train"], splits["validation"], tests, new_tokens, dropped=dropped)
    first, *rest = recipe.phases()
    if first.sampler.source == "corpus":
        stage.train = _packed(folder, chat, new_tokens, window, how)
    else:
        _screen(stage, recipe, method, chat, window, f"{folder}/train.jsonl")
    if not stage.train:
        raise UsageError(f"{folder}/train.jsonl: no row is left to train on", _reasons(stage.dropped))
    stage.phases = [Batches(chat, first, task, stage.train, (number,), new_tokens)]
    for phase in rest:
        general = recipe.second_phase is not None and recipe.second_phase.prompts == "general"
        examples = _general(recipe) if general else stage.train
        new_tokens = phase.sampler.max_new_tokens or task.max_new_tokens
        stage.phases.append(Batches(chat, phase, task, examples, (number, "then"), new_tokens))
    return stage


def _general(recipe: Recipe) -> Sequence[Example]:
    """Prompts that belong to no task: the recipe's file, or the suite's own, which are not among its test items."""
    if recipe.general:
        path = Path(recipe.general)
        return dataset.read_examples(path, recipe.train.on_bad_row)[0]
    suite: Suite | Battery = plugins.SUITES.get(str(recipe.suite))
    assert suite.general is not None  # checked with the recipe
    return suite.general()


def _packed(folder: Path, chat: Chat, size: int, window: int, how: str) -> list[Example]:
    """Raw texts end to end, each closed by the end-of-sequence token, in blocks of ``size`` tokens.

    Every token is a target exactly once: each block is conditioned on the last token of the block before it.
    """
    if "corpus" not in dataset.available_splits(folder):
        raise UsageError(
            f"{folder} has no corpus.jsonl", "continual pre-training needs raw text: name a task that has a corpus"
        )
    if size + 1 > window:
        raise UsageError(
            f"blocks of {size} tokens do not fit the model's window of {window}", "lower sampler.max_new_tokens"
        )
    texts, _ = dataset.read_split(folder, "corpus", how)
    stream = [token for e in texts for token in chat.text_ids(e.text or "")]
    blocks = []
    for i, at in enumerate(range(0, len(stream), size)):
        before = [stream[at - 1] if at else chat.eos_id]
        blocks.append(Example(f"block-{i}", [], meta={"ids": stream[at : at + size], "before": before}))
    return blocks


def most(plans: list[StagePlan]) -> tuple[list[tuple[int, int]], int]:
    """Prompt lengths of every training row, and the largest completion length of any stage."""
    return [pair for p in plans for pair in p.lengths], max(p.max_new_tokens for p in plans)


def complaints(plans: list[StagePlan]) -> list[str]:
    """One line per row that was left out of training, and a line with their count."""
    lines = [f"dropped {p.task.name} {dataset.describe(row)}" for p in plans for row in p.dropped]
    return [*lines, f"{len(lines)} bad rows dropped"] if lines else []


def _screen(stage: StagePlan, recipe: Recipe, method: Method, chat: Chat, window: int, where: str) -> None:
    """Drop rows that lack a field or are too long from ``stage.train``, or refuse them."""
    bad = {d.where: d for d in dataset.check_demonstrations(stage.train, method.needs)}
    lengths = {}
    for example in stage.train:
        if example.id in bad:
            continue
        lengths[example.id] = lengths_of(example, recipe, chat)
        if reason := _too_long(lengths[example.id], chat, example, recipe, stage.max_new_tokens, window):
            bad[example.id] = Dropped(example.id, TOO_LONG, reason)
    if bad and recipe.train.on_bad_row == "error":
        first = next(iter(bad.values()))
        problem = ": ".join(filter(None, (first.reason, first.detail)))
        fix = "shorten the prompts, lower sampler.max_new_tokens" if first.reason == TOO_LONG else "fix the rows"
        raise UsageError(
            f"{where}: row {first.where}: {problem} ({len(bad)} bad rows)", f"{fix}, or add --on-bad-row drop"
        )
    stage.train = [e for e in stage.train if e.id not in bad]
    stage.lengths = [lengths[e.id] for e in stage.train]
    stage.too_long = [pair for name, pair in lengths.items() if name in bad]
    stage.dropped += bad.values()


def lengths_of(example: Example, recipe: Recipe, chat: Chat) -> tuple[int, int]:
    """Tokens of the student's and the teacher's prompt (0 without a teacher)."""
    names = (recipe.views.student, recipe.views.teacher)
    # a view of the batch's own completions has no length before there are any
    messages = [VIEWS[name](example) if name else None for name in names]
    switches = (recipe.views.student_thinking, recipe.views.teacher_thinking)
    student, teacher = (len(chat.prompt_ids(m, t)) if m else 0 for m, t in zip(messages, switches, strict=True))
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
        return f"{longest} tokens and {new_tokens} new ones exceed the model's window of {window}"
    return ""


def _reasons(dropped: list[Dropped]) -> str:
    counts: dict[str, int] = {}
    for row in dropped:
        counts[row.reason] = counts.get(row.reason, 0) + 1
    return "; ".join(f"{n} x {reason}" for reason, n in counts.items()) or "the split is empty"


def context_window(location: str) -> int:
    """The model's context window in tokens, from its config alone."""
    config = pretrained.load_config(location)
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 1 << 30)
