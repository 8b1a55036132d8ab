"""`train --dry-run`: what a run would do, without loading weights: the views as the model would see them, steps, prompt
lengths, memory and disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TypedDict

from sdft_cli import console
from sdft_cli.config.model_locations import locate
from sdft_cli.config.recipe import Recipe
from sdft_cli.models import pretrained, views
from sdft_cli.models.chat import Chat
from sdft_cli.runs.folder import RUNS
from sdft_cli.training.cost_estimates import GIB, Percentiles, footprint, load_of, memory_text, percentiles
from sdft_cli.training.disk_space import check_disk, free_bytes
from sdft_cli.training.preflight import StagePlan, complaints, most, notes_of, plan
from sdft_cli.training.recipe_checks import check_recipe
from sdft_cli.training.rendered_views import Prompts


class StageOutlook(TypedDict):
    """One stage; ``rows`` by split, prompt lengths as percentiles (``p50``, ``p95``, ``max``) in tokens."""

    task: str
    rows: dict[str, int]
    dropped: int
    steps: int
    steps_per_epoch: int
    max_new_tokens: int
    student_prompt_tokens: Percentiles
    teacher_prompt_tokens: Percentiles


@dataclass(frozen=True)
class DryRun:
    """``facts`` for programs, ``text`` for people."""

    facts: Mapping[str, object]
    text: str


def dry_run(recipe: Recipe, out: Path | None = None) -> DryRun:
    """Check everything that can be checked before a model loads, and describe the run, which would be in ``out``."""
    check_recipe(recipe)
    location = locate(recipe.model)
    chat = pretrained.load_chat(location)
    plans = plan(recipe, chat)
    for line in complaints(plans):
        console.err.print(line, highlight=False, markup=False, soft_wrap=True)
    sizes = footprint(recipe, location, len(plans), load_of(recipe, *most(plans)))
    stages = [_outlook(recipe, p) for p in plans]
    model = f"method {recipe.method}, model {recipe.model}, {sizes['parameters'] / 1e6:.1f} M parameters"
    folder, notes = out or RUNS, notes_of(plans)
    check_disk(recipe, location, folder)
    free = free_bytes(folder)
    disk = f"disk: about {sizes['disk_bytes'] / GIB:.2f} GiB at most; {free / GIB:.2f} GiB are free"
    lines = [*_views(recipe, chat, plans[0]), "", model, *_lines(stages), memory_text(sizes), disk]
    facts = {"method": recipe.method, "model": recipe.model, "stages": stages, **sizes}
    facts |= {"disk_free_bytes": free, "notes": notes}
    return DryRun(facts, "\n".join([*lines, *(f"note: {note}" for note in notes)]))


def _outlook(recipe: Recipe, p: StagePlan) -> StageOutlook:
    splits = {"train": p.train, "validation": p.validation, **p.tests}
    return {
        "task": p.task.name,
        "rows": {split: len(rows) for split, rows in splits.items()},
        "dropped": len(p.dropped),
        "steps": p.steps,
        "steps_per_epoch": -(-len(p.train) * recipe.sampler.n // recipe.train.batch),
        "max_new_tokens": p.max_new_tokens,
        "student_prompt_tokens": percentiles([s for s, _ in p.lengths]),
        "teacher_prompt_tokens": percentiles([t for _, t in p.lengths if t]),
    }


def _views(recipe: Recipe, chat: Chat, first: StagePlan) -> list[str]:
    """The first training row as student and teacher will see it."""
    example = first.train[0]
    lines = [f"first row of {first.task.name} ({example.id})"]
    shown = recipe.views
    for who, name, thinking in (
        ("student", shown.student, shown.student_thinking),
        ("teacher", shown.teacher, shown.teacher_thinking),
    ):
        if name in views.VIEWS and (messages := views.VIEWS[name](example)):
            lines += [f"--- {who} sees ({name}):", chat.view_text(example, messages, thinking)]
    if recipe.sampler.source == "dataset":
        lines += ["--- and is trained on:", trained_text(chat, *Prompts(chat, shown).demonstrated(example))]
    return lines


def trained_text(chat: Chat, ids: list[int], mask: list[bool]) -> str:
    """The tokens in the loss, special ones included; what stands between an assistant's turns is marked as left out."""
    runs = [(trained, [i for i, _ in run]) for trained, run in groupby(zip(ids, mask, strict=True), itemgetter(1))]
    decode = chat.tokenizer.decode
    return " […] ".join(decode(run, skip_special_tokens=False) for trained, run in runs if trained)


def _lines(stages: Sequence[StageOutlook]) -> list[str]:
    lines = []
    for number, s in enumerate(stages, 1):
        rows = ", ".join(f"{n} {split}" for split, n in s["rows"].items())
        lines.append(f"stage {number} {s['task']}: {s['steps']} steps ({s['steps_per_epoch']} per epoch); rows: {rows}")
        for who, p in (("student", s["student_prompt_tokens"]), ("teacher", s["teacher_prompt_tokens"])):
            if p:
                lengths = f"median {p['p50']}, 95th percentile {p['p95']}, longest {p['max']} tokens"
                lines.append(f"    {who}'s prompt: {lengths}")
        lines.append(f"    up to {s['max_new_tokens']} new tokens; {s['dropped']} rows dropped")
    return lines
