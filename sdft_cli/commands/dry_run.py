"""`train --dry-run`: what would happen, without weights: views as the model would see them, steps, lengths, sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sdft_cli import console
from sdft_cli.config.locations import locate
from sdft_cli.config.recipe import Recipe
from sdft_cli.models import pretrained, views
from sdft_cli.models.chat import Chat
from sdft_cli.training.estimates import GIB, Footprint, footprint, load_of, memory_text, percentiles
from sdft_cli.training.preflight import StagePlan, check_recipe, complaints, context_window, most, plan


@dataclass(frozen=True)
class DryRun:
    """``facts`` for machines, ``text`` for people."""

    facts: dict[str, Any]
    text: str


def dry_run(recipe: Recipe) -> DryRun:
    """Check everything that can be checked before a model loads, and describe the run."""
    check_recipe(recipe)
    location = locate(recipe.model)
    chat = pretrained.load_chat(location)
    plans = plan(recipe, chat, context_window(location))
    for line in complaints(plans):
        console.err.print(line, highlight=False, markup=False, soft_wrap=True)
    sizes = footprint(recipe, location, len(plans), load_of(recipe, *most(plans)))
    stages = [_stage(recipe, p) for p in plans]
    facts = {"method": recipe.method, "model": recipe.model, "stages": stages, **sizes}
    return DryRun(facts, "\n".join([*_views(recipe, chat, plans[0]), "", *_summary(facts, sizes)]))


def _stage(recipe: Recipe, p: StagePlan) -> dict[str, Any]:
    splits = {"train": p.train, "validation": p.validation, **p.tests}
    return {
        "task": p.task.name,
        "rows": {split: len(rows) for split, rows in splits.items()},
        "dropped": len(p.dropped),
        "steps": p.steps,
        "steps_an_epoch": -(-len(p.train) * recipe.sampler.n // recipe.train.batch),
        "max_new_tokens": p.max_new_tokens,
        "student_prompt_tokens": percentiles([s for s, _ in p.lengths]),
        "teacher_prompt_tokens": percentiles([t for _, t in p.lengths if t]),
    }


def _views(recipe: Recipe, chat: Chat, first: StagePlan) -> list[str]:
    """The first training row as student and teacher will see it."""
    example = first.train[0]
    lines = [f"first row of {first.task.name} ({example.id})"]
    for who, name in (("student", recipe.views.student), ("teacher", recipe.views.teacher)):
        if name in views.VIEWS and (messages := views.VIEWS[name](example)):
            lines += [f"--- {who} sees ({name}):", chat.render(messages)]
    if recipe.sampler.source == "dataset":
        lines += ["--- and is trained on:", chat.decode(chat.completion(example)[0])]
    return lines


def _summary(facts: dict[str, Any], sizes: Footprint) -> list[str]:
    lines = [f"method {facts['method']}, model {facts['model']}, {facts['parameters'] / 1e6:.1f} M parameters"]
    for i, s in enumerate(facts["stages"], 1):
        rows = ", ".join(f"{n} {k}" for k, n in s["rows"].items())
        lines.append(f"stage {i} {s['task']}: {s['steps']} steps ({s['steps_an_epoch']} an epoch); rows: {rows}")
        for who in ("student", "teacher"):
            if p := s[f"{who}_prompt_tokens"]:
                lines.append(f"    {who}'s prompt: median {p['p50']}, 95 % {p['p95']}, longest {p['max']} tokens")
        lines.append(f"    up to {s['max_new_tokens']} new tokens; {s['dropped']} rows dropped")
    return [*lines, memory_text(sizes), f"disk: about {facts['disk_bytes'] / GIB:.2f} GiB at most"]
