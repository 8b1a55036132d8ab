"""What is wrong with a run's model, or worth saying of it, before its weights are loaded: its adapter, whether it can
be saved, and in which precision."""

from __future__ import annotations

import torch

from sdft_cli.config.model_locations import is_adapter, locate
from sdft_cli.config.recipe import Recipe
from sdft_cli.errors import UsageError
from sdft_cli.models import adapters, pretrained, quantization, saving


def check_merging(recipe: Recipe) -> None:
    """Refuse ``lora.merge=stage`` where there is nothing to merge, or something needs what merging takes away."""
    if recipe.lora.merge == "never":
        return
    location = locate(recipe.model)
    if is_adapter(location):
        adapters.check_mergeable(location)
    elif not recipe.lora.rank:
        raise UsageError("lora.merge=stage merges an adapter, and lora.rank=0 trains all weights", "set lora.rank")
    if recipe.engine.name == "vllm-server":
        raise UsageError(
            "lora.merge=stage: a vLLM server keeps the base that it was started with",
            "set lora.merge=never, or --engine vllm or transformers",
        )
    starts = [phase.teacher.start for phase in recipe.phases() if phase.teacher]
    if "base" in starts and len(recipe.tasks) > 1:
        raise UsageError(
            "teacher.start=base: once an adapter is merged, a teacher cannot be an adapter on the run's first model",
            "set teacher.start=student, or lora.merge=never",
        )


def check_bits(recipe: Recipe) -> None:
    """Refuse ``lora.bits=4`` where no adapter is trained, what it needs is missing, or the engine has a base of 16."""
    if recipe.lora.bits == 16:
        return
    if not recipe.lora.rank:
        raise UsageError("lora.bits=4: weights of 4 bits cannot be trained, only an adapter on them", "set lora.rank")
    quantization.check_installed()
    if recipe.engine.name in ("vllm", "vllm-server"):
        raise UsageError(*quantization.SERVED_WHOLE)


def check_model(recipe: Recipe) -> list[str]:
    """Lines to show before training; raises `UsageError` for a model that cannot be trained or saved as asked."""
    location = locate(recipe.model)
    _check_quantised(recipe, location)
    core, adapted = pretrained.shapes(location, recipe.lora)
    whole = adapted is None or recipe.lora.merge == "stage"
    notes = _precision(recipe, getattr(core.config, "dtype", None)) if whole else []
    if adapted is not None and whole:
        adapters.check_embeddings(core)
    pretrained.set_generation_config(core, location)
    return notes + saving.check(core, pretrained.load_chat(location), adapted, recipe.model, whole)


def _check_quantised(recipe: Recipe, location: str) -> None:
    """Refuse a base that is quantised on disk, where that cannot be trained, or not be merged with."""
    config = pretrained.load_config(location)
    quantization.check_trained(recipe.model, config, recipe.lora.bits)
    if recipe.lora.merge == "stage" and quantization.method_of(config):
        raise UsageError(
            f"lora.merge=stage: an adapter is merged into whole weights, and those of {recipe.model} are quantised",
            "set lora.merge=never, or name the model that it was made from",
        )


def _precision(recipe: Recipe, stored: torch.dtype | str | None) -> list[str]:
    """A line where whole models are saved in another precision than they come in."""
    _, trained = pretrained.placement(recipe.runtime)
    stored = getattr(torch, stored, None) if isinstance(stored, str) else stored
    if not isinstance(stored, torch.dtype) or stored == trained:
        return []
    names = [str(dtype).removeprefix("torch.") for dtype in (stored, trained)]
    size = {2.0: "twice the size", 0.5: "half the size"}.get(trained.itemsize / stored.itemsize, "the same size")
    keeps = f"; runtime.dtype={names[0]} keeps them" if names[0] in ("bfloat16", "float32") else ""
    return [f"the model's weights are {names[0]} on disk, and are trained and saved in {names[1]}: {size}{keeps}"]
