"""What a run will take, counted before any weights load: bytes in memory and on disk, percentiles of lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdft_cli.config.recipe import Recipe, Runtime
from sdft_cli.models import pretrained
from sdft_cli.training.memory_model import STAYING, Counts, Load, dims, predict
from sdft_cli.training.micro_batches import counts_of

GIB = 1 << 30


def percentiles(values: Sequence[int]) -> dict[str, int]:
    """Median, 95th percentile and maximum by rank; empty for no values."""
    if not values:
        return {}
    ordered = sorted(values)
    at = {"p50": 0.5, "p95": 0.95, "max": 1.0}
    return {k: ordered[min(len(ordered) - 1, int(q * len(ordered)))] for k, q in at.items()}


def footprint(recipe: Recipe, location: str, stages: int, load: Load) -> dict[str, Any]:
    """Bytes in memory: what a step leaves behind and its gradients (``memory_bytes``), by what holds them (``parts``),
    and the predicted ``peak`` of the passes of ``load``; and bytes of what the run leaves on disk."""
    counts, width, device = _counts(recipe, location), _width(recipe.runtime), device_of(recipe.runtime)
    phases = [
        predict(phase, dims(pretrained.load_config(location)), counts, width, load, device) for phase in recipe.phases()
    ]
    found = max(phases, key=lambda parts: parts["peak"])
    held = sum(found[k] for k in (*STAYING, "optimizer", "gradients"))
    wide = 4 if counts.lora else width
    saved = counts.trained * wide
    average = counts.trained * (2 if recipe.teacher and recipe.teacher.storage == "half" else 4)
    state = found["masters"] + found["optimizer"] + (average if recipe.teacher else 0)
    return {
        "parameters": counts.total,
        "trained": counts.trained,
        "memory_bytes": held,
        "predicted_peak_bytes": found.pop("peak"),
        "parts": found,
        "load": load._asdict(),
        "disk_bytes": saved * stages + state + saved,
    }


def load_of(recipe: Recipe, longest: Sequence[tuple[int, int]], new_tokens: int) -> Load:
    """What a step computes at most: from the (student's, teacher's) prompt lengths ``longest``, each followed by
    ``new_tokens``."""
    prompt = max((max(pair) for pair in longest), default=0)
    length, batch, budget = prompt + new_tokens, recipe.train.batch, recipe.train.micro_batch_budget
    rows = max(1, min(batch, budget // max(1, length)))
    sampled = min(batch, recipe.engine.max_batch) if recipe.sampler.source == "student" else 0
    remade = recipe.train.gradient_checkpointing == "on"
    return Load(rows * length, rows * new_tokens, length, rows < batch, sampled, remade)


def memory_text(facts: dict[str, Any]) -> str:
    """What `footprint` says of memory, for people."""
    load, trained = facts["load"], facts["trained"]
    kept = "weights, gradients, optimizer, teacher" + ("" if trained == facts["parameters"] else "; adapter trained")
    return (
        f"memory: about {facts['predicted_peak_bytes'] / GIB:.2f} GiB predicted at most; of it "
        f"{facts['memory_bytes'] / GIB:.2f} GiB {kept}; micro-batches of up to {load['tokens']} tokens"
    )


def device_of(runtime: Runtime) -> str:
    """``cuda`` or ``cpu``, as the runtime will choose."""
    import torch

    gpu = runtime.device.startswith("cuda") or (runtime.device == "auto" and torch.cuda.is_available())
    return "cuda" if gpu else "cpu"


def _width(runtime: Runtime) -> int:
    """Bytes of one weight: ``auto`` is bf16 on a GPU and fp32 elsewhere."""
    return {"float32": 4, "bfloat16": 2}.get(runtime.dtype, 2 if device_of(runtime) == "cuda" else 4)


def _counts(recipe: Recipe, location: str) -> Counts:
    """Of the model as it will be trained, made without its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(pretrained.load_config(location))
        adapted = pretrained.adapt_empty(model, location, recipe.lora)
    return counts_of(adapted)
