"""`train --dry-run`: what would happen, without weights: views as the model would see them, steps, lengths, sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sdft_cli import console, models, templates
from sdft_cli.chat import Chat
from sdft_cli.locations import locate
from sdft_cli.preflight import StagePlan, check_recipe, complaints, context_window, plan
from sdft_cli.recipe import Recipe

GIB = 1 << 30


@dataclass(frozen=True)
class DryRun:
    """``facts`` for machines, ``text`` for people."""

    facts: dict[str, Any]
    text: str


def dry_run(recipe: Recipe) -> DryRun:
    """Check everything that can be checked before a model loads, and describe the run."""
    check_recipe(recipe)
    location = locate(recipe.model)
    chat = models.load_chat(location)
    plans = plan(recipe, chat, context_window(location))
    for line in complaints(plans):
        console.err.print(line, highlight=False, markup=False, soft_wrap=True)
    sizes = _sizes(recipe, location, len(plans))
    stages = [_stage(recipe, p) for p in plans]
    facts = {"method": recipe.method, "model": recipe.model, "stages": stages, **sizes}
    return DryRun(facts, "\n".join([*_views(recipe, chat, plans[0]), "", *_summary(facts)]))


def _stage(recipe: Recipe, p: StagePlan) -> dict[str, Any]:
    return {
        "task": p.task.name,
        "rows": {"train": len(p.train), "validation": len(p.validation), "test": len(p.test)},
        "dropped": len(p.dropped),
        "steps": p.steps,
        "steps_an_epoch": -(-len(p.train) * recipe.sampler.n // recipe.train.batch),
        "max_new_tokens": p.max_new_tokens,
        "student_prompt_tokens": _percentiles([s for s, _ in p.lengths]),
        "teacher_prompt_tokens": _percentiles([t for _, t in p.lengths if t]),
    }


def _percentiles(values: list[int]) -> dict[str, int]:
    """Median, 95th percentile and maximum by rank."""
    if not values:
        return {}
    ordered = sorted(values)
    at = {"p50": 0.5, "p95": 0.95, "max": 1.0}
    return {k: ordered[min(len(ordered) - 1, int(q * len(ordered)))] for k, q in at.items()}


def _sizes(recipe: Recipe, location: str, stages: int) -> dict[str, Any]:
    """Bytes of weights, optimizer and teacher in memory, and of what the run leaves on disk; activations excluded."""
    total = _parameters(location)
    wide = 4 if recipe.runtime.dtype == "float32" or not _gpu() else 2
    trained = total if not recipe.lora.rank else None
    if trained is None:
        return {"parameters": total, "memory_bytes": total * wide, "disk_bytes": None}
    live = recipe.teacher is None or (recipe.teacher.update_rate == 1 and recipe.teacher.update_every == 1)
    masters = 0 if wide == 4 else total * 4
    moves = recipe.teacher is not None and recipe.teacher.update_rate > 0
    average = total * 4 if moves and not live else 0  # fp32, and the very copy where weights are fp32
    teacher = 0 if live else (total * wide + average if wide == 2 else total * wide)
    state = masters + total * 8 + (0 if live else average or total * wide)
    memory = total * (2 * wide + 8) + masters + teacher
    return {"parameters": total, "memory_bytes": memory, "disk_bytes": total * wide * stages + state + total * wide}


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _parameters(location: str) -> int:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(models.load_config(location))
    return sum(p.numel() for p in model.parameters())


def _views(recipe: Recipe, chat: Chat, first: StagePlan) -> list[str]:
    """The first training row as student and teacher will see it."""
    example = first.train[0]
    lines = [f"first row of {first.task.name} ({example.id})"]
    for who, name in (("student", recipe.views.student), ("teacher", recipe.views.teacher)):
        if name in templates.VIEWS and (messages := templates.VIEWS[name](example)):
            lines += [f"--- {who} sees ({name}):", chat.render(messages)]
    if recipe.sampler.source == "dataset":
        lines += ["--- and is trained on:", chat.decode(chat.completion(example)[0])]
    return lines


def _summary(facts: dict[str, Any]) -> list[str]:
    lines = [f"method {facts['method']}, model {facts['model']}, {facts['parameters'] / 1e6:.1f} M parameters"]
    for i, s in enumerate(facts["stages"], 1):
        rows = ", ".join(f"{n} {k}" for k, n in s["rows"].items())
        lines.append(f"stage {i} {s['task']}: {s['steps']} steps ({s['steps_an_epoch']} an epoch); rows: {rows}")
        for who in ("student", "teacher"):
            if p := s[f"{who}_prompt_tokens"]:
                lines.append(f"    {who}'s prompt: median {p['p50']}, 95 % {p['p95']}, longest {p['max']} tokens")
        lines.append(f"    up to {s['max_new_tokens']} new tokens; {s['dropped']} rows dropped")
    memory, disk = facts["memory_bytes"] / GIB, facts["disk_bytes"]
    lines.append(f"memory: about {memory:.2f} GiB for weights, gradients, optimizer and teacher, plus activations")
    if disk is not None:
        lines.append(f"disk: about {disk / GIB:.2f} GiB at most")
    return lines
