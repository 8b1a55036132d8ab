"""Preflight: everything that can be wrong with a run's rows and can be known before a model loads.

Reads the datasets and the tokenizer, checks fields and lengths under both views, and plans the stages. Names and
combinations are checked first (`recipe_checks`), rows in `row_checks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sdft_cli import plugins
from sdft_cli.config.recipe import METHODS, Method, Recipe
from sdft_cli.data import dataset
from sdft_cli.data.completion_limits import tokens_of
from sdft_cli.data.gold_checks import check_gold
from sdft_cli.errors import UsageError
from sdft_cli.grading import named_rules
from sdft_cli.models.chat import Chat
from sdft_cli.training import score_checks
from sdft_cli.training.batches import Batches
from sdft_cli.training.recipe_checks import check_recipe
from sdft_cli.training.row_checks import asked_tokens, hint_for, refuse, screen, usable, wanted_tokens
from sdft_cli.training.stage_limits import StageLimits
from sdft_cli.training.warm_up import check_warm_up
from sdft_cli.types import Battery, Dropped, Example, Suite, Task


@dataclass
class StagePlan:
    """One task as it will be trained, with one `Batches` per phase.

    ``lengths`` are the prompt tokens of the first phase's rows, (student's, teacher's or 0); ``too_long`` those of the
    rows that were dropped for their length. ``tests`` holds the held-out rows by split: ``test``, perhaps ``ood``.
    ``notes`` are what a user should know before the first step. ``unscored`` says why the validation rows cannot be
    scored (empty: they can).
    """

    task: Task
    train: list[Example]
    validation: list[Example]
    tests: dict[str, list[Example]]
    max_new_tokens: int
    lengths: list[tuple[int, int]] = field(default_factory=list)
    too_long: list[tuple[int, int]] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    phases: list[Batches] = field(default_factory=list)
    unscored: str = ""

    @property
    def steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)


def plan(recipe: Recipe, chat: Chat, stages: Sequence[Recipe] = ()) -> list[StagePlan]:
    """One plan per task, under ``recipe`` or the recipes of ``stages`` where they have their own; raises on the first
    bad row unless ``train.on_bad_row`` is ``drop``."""
    check_recipe(recipe)
    own = zip(recipe.tasks, stages or [recipe] * len(recipe.tasks), strict=True)
    plans = [_plan(of_stage, METHODS.get(of_stage.method), i, name, chat) for i, (name, of_stage) in enumerate(own, 1)]
    plans[0].notes += chat.notes
    suite = plugins.SUITES.get(recipe.suite) if recipe.suite else None
    if isinstance(suite, Suite):
        items = [example for part in suite.parts().values() for example in part]
        plans[0].notes += usable(suite, items, recipe, chat, f"suite {suite.name}")[2]
        score_checks.check_suite(suite, items, recipe)
    return plans


def _plan(recipe: Recipe, method: Method, number: int, name: str, chat: Chat) -> StagePlan:
    """The plan of stage ``number`` (from 1)."""
    task: Task = plugins.task(name, recipe.data)
    folder = Path(recipe.data) / name
    first, *rest = recipe.phases()
    limits = StageLimits(task, folder, recipe, chat)
    stage = _read(limits.scored, folder, recipe, chat)
    if first.sampler.source == "corpus":
        stage.max_new_tokens = _block(first, task, chat, stage.notes)
        stage.train = _packed(folder, chat, stage.max_new_tokens, recipe.train.on_bad_row)
    else:
        _screen_first(stage, limits.sampled(first), first, method, chat, f"{folder}/train.jsonl")
    if not stage.train:
        raise UsageError(f"{folder}/train.jsonl: no row is left to train on", _reasons(stage.dropped))
    stage.phases = [Batches(chat, first, task, stage.train, (number,), stage.max_new_tokens)]
    for phase in rest:
        general = recipe.second_phase is not None and recipe.second_phase.prompts == "general"
        sampled = limits.without_demonstrations if general else limits.sampled(phase)
        examples, new_tokens = _screen_second(stage, sampled, phase, chat, _general(recipe) if general else stage.train)
        stage.phases.append(Batches(chat, phase, task, examples, (number, "then"), new_tokens))
    stage.notes += limits.notes(stage.phases)
    second = recipe.second_phase
    for at, batches in enumerate(stage.phases):
        score_checks.check_reward(task, batches.recipe, batches.examples)
        inherited = at > 0 and second is not None and second.train.warmup_steps is None
        stage.notes += check_warm_up(batches.recipe, batches.steps, name, inherited)
    return stage


def _read(task: Task, folder: Path, recipe: Recipe, chat: Chat) -> StagePlan:
    """The stage's rows; of the held-out ones, those that a model can be scored on."""
    named_rules.check_ready(task.grader)
    how = recipe.train.on_bad_row
    stage = StagePlan(task, [], [], {}, tokens_of(task))
    if recipe.sampler.source == "corpus" and dataset.is_raw_text(folder):
        stage.tests = {"test": []}
        stage.notes.append(f"{task.name} is raw text: there are no questions that it could be scored on")
        return stage
    stage.train, stage.dropped = dataset.read_split(folder, "train", how)
    for split in ("validation", *dataset.held_out_splits(folder)):
        rows, bad = dataset.read_split(folder, split, how)
        rows, unusable, notes = usable(task, rows, recipe, chat, f"{folder}/{split}.jsonl")
        stage.dropped += [*bad, *(Dropped(f"{split}.jsonl: {d.where}", d.reason, d.detail) for d in unusable)]
        stage.notes += [*notes, *check_gold(task, rows, f"{folder}/{split}.jsonl")]
        if split == "validation":
            stage.validation = rows
        else:
            stage.tests[split] = rows
    stage.unscored, notes = score_checks.outlook(task, stage.validation, stage.tests, recipe, chat)
    stage.notes += notes
    return stage


def _screen_first(stage: StagePlan, sampled: Task, phase: Recipe, method: Method, chat: Chat, where: str) -> None:
    """Drop rows that lack a field, cannot be rendered or are too long from ``stage.train``, or refuse them.

    ``sampled`` is the task with the phase's limit of new tokens."""
    lacking = {d.where: d for d in dataset.check_demonstrations(stage.train, method.needs)}
    found = screen([e for e in stage.train if e.id not in lacking], phase, sampled, chat)
    bad = lacking | found.bad
    if bad and phase.train.on_bad_row == "error":
        listed = list(bad.values())
        raise refuse(where, listed, hint_for(listed, found, phase, chat))
    stage.train = [e for e in stage.train if e.id not in bad]
    stage.lengths = [found.lengths[e.id] for e in stage.train]
    stage.too_long = [pair for name, pair in found.lengths.items() if name in bad]
    stage.dropped += bad.values()
    stage.max_new_tokens = found.new_tokens
    stage.notes += found.notes


def _screen_second(
    stage: StagePlan, sampled: Task, phase: Recipe, chat: Chat, examples: Sequence[Example]
) -> tuple[Sequence[Example], int]:
    """The examples of a second phase that can be rendered and fit, and the most new tokens after them."""
    found = screen(examples, phase, sampled, chat)
    if not found.bad:
        stage.notes += found.notes
        return examples, found.new_tokens
    listed = [Dropped(f"second phase: {d.where}", d.reason, d.detail) for d in found.bad.values()]
    kept = [e for e in examples if e.id not in found.bad]
    if phase.train.on_bad_row == "error" or not kept:
        hint = hint_for(listed, found, phase, chat).replace("sampler.", "second_phase.sampler.")
        raise refuse(stage.task.name, listed, hint)
    stage.dropped += listed
    return kept, found.new_tokens


def _general(recipe: Recipe) -> Sequence[Example]:
    """Prompts that belong to no task: the recipe's file, or the suite's own, which are not among its test items."""
    if recipe.general:
        path = Path(recipe.general)
        return dataset.read_examples(path, recipe.train.on_bad_row)[0]
    suite: Suite | Battery = plugins.SUITES.get(str(recipe.suite))
    assert suite.general is not None  # checked with the recipe
    return suite.general()


def _block(phase: Recipe, task: Task, chat: Chat, notes: list[str]) -> int:
    """Tokens of a block of a corpus; a block is conditioned on one token before it."""
    size, most = wanted_tokens(phase, task), chat.window - 1
    if size <= most:
        return size
    if asked_tokens(phase):
        raise UsageError(
            f"blocks of {size} tokens do not fit the model's window of {chat.window}",
            f"lower sampler.max_new_tokens to {most} or less",
        )
    notes.append(f"{task.name}: blocks of {most} tokens, not {size}, fit the model's window of {chat.window}")
    return most


def _packed(folder: Path, chat: Chat, size: int, how: str) -> list[Example]:
    """Raw texts end to end, each closed by the end-of-sequence token, in blocks of ``size`` tokens.

    Every token is a target exactly once: each block is conditioned on the last token of the block before it.
    """
    if "corpus" not in dataset.available_splits(folder):
        raise UsageError(
            f"{folder} has no corpus.jsonl", "continual pre-training needs raw text: name a task that has a corpus"
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


def notes_of(plans: list[StagePlan]) -> list[str]:
    """What a user should know before the first step, once each: limits that were lowered, rows that were dropped or
    cannot be won."""
    notes = [note for p in plans for note in p.notes]
    for p in plans:
        if p.dropped:
            notes.append(f"{p.task.name}: {len(p.dropped)} bad rows dropped: {_reasons(p.dropped)}")
    return list(dict.fromkeys(notes))


def complaints(plans: list[StagePlan]) -> list[str]:
    """One line per row that was dropped."""
    return [f"dropped {p.task.name} {dataset.describe(row)}" for p in plans for row in p.dropped]


def _reasons(dropped: list[Dropped]) -> str:
    counts: dict[str, int] = {}
    for row in dropped:
        counts[row.reason] = counts.get(row.reason, 0) + 1
    return "; ".join(f"{n} x {reason}" for reason, n in counts.items()) or "the split is empty"
