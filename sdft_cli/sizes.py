"""What a run will take, counted before any weights load: bytes in memory and on disk, percentiles of lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdft_cli import models
from sdft_cli.recipe import Recipe, Runtime

GIB = 1 << 30


def percentiles(values: Sequence[int]) -> dict[str, int]:
    """Median, 95th percentile and maximum by rank; empty for no values."""
    if not values:
        return {}
    ordered = sorted(values)
    at = {"p50": 0.5, "p95": 0.95, "max": 1.0}
    return {k: ordered[min(len(ordered) - 1, int(q * len(ordered)))] for k, q in at.items()}


def footprint(recipe: Recipe, location: str, stages: int) -> dict[str, Any]:
    """Bytes of weights, optimizer and teacher in memory, and of what the run leaves on disk; activations excluded."""
    total = _parameters(location)
    wide = _width(recipe.runtime)
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


def memory_text(facts: dict[str, Any]) -> str:
    """What `footprint` says of memory, for people."""
    full = facts["disk_bytes"] is not None
    of = "weights, gradients, optimizer, teacher" if full else "weights, adapters left out"
    return f"memory: about {facts['memory_bytes'] / GIB:.2f} GiB ({of}) plus activations"


def _width(runtime: Runtime) -> int:
    """Bytes of one weight: ``auto`` is bf16 on a GPU and fp32 elsewhere."""
    import torch

    gpu = runtime.device.startswith("cuda") or (runtime.device == "auto" and torch.cuda.is_available())
    return {"float32": 4, "bfloat16": 2}.get(runtime.dtype, 2 if gpu else 4)


def _parameters(location: str) -> int:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(models.load_config(location))
    return sum(p.numel() for p in model.parameters())
