"""Whether a run fits into memory, before its weights are loaded, and what training will do to make it fit.

Weights, gradients, moments and the teacher are counted exactly: where these alone are more than is free, the run is
refused. What a step needs besides is predicted (`memory_model`), too much rather than too little, so a step that is
predicted not to fit is only warned about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from sdft_cli.config.recipe import Recipe
from sdft_cli.errors import UsageError
from sdft_cli.models import pretrained
from sdft_cli.training import available_memory, memory_model
from sdft_cli.training.cost_estimates import GIB, counts_of_model, load_of
from sdft_cli.training.memory_model import MARGIN, Counts, Dims, Lasting, Prediction


class Outlook(NamedTuple):
    """``changes`` are the settings that training will choose for itself, by their keys, and ``peak`` the predicted
    bytes with them; ``free`` bytes are there (None: unknown)."""

    free: int | None
    peak: int
    fits: bool
    changes: dict[str, int | str]

    @property
    def text(self) -> str:
        """What to say of it; empty where there is nothing to say."""
        if self.free is None or (self.fits and not self.changes):
            return ""
        chosen = ", ".join(f"{key}={value}" for key, value in self.changes.items())
        room = f"{self.free / GIB:.2f} GiB of memory are free"
        if self.fits:
            return f"{room}, so training will choose {chosen}: predicted peak {self.peak / GIB:.2f} GiB"
        even = f" even with {chosen}, which training would choose" if chosen else ""
        return f"{room}, and a step is predicted to need {self.peak / GIB:.2f} GiB{even}: it may not fit"


class Model(NamedTuple):
    """A model's shapes, and where it will be."""

    sizes: Dims
    counts: Counts
    width: int
    device: torch.device
    recomputes: bool

    @classmethod
    def of(cls, recipe: Recipe, location: str) -> Model:
        """The model at ``location`` as ``recipe`` trains it, made without its weights."""
        core, counts = counts_of_model(recipe, location)
        device, dtype = pretrained.placement(recipe.runtime)
        recomputes = bool(getattr(core, "supports_gradient_checkpointing", False))
        return cls(memory_model.dims(pretrained.load_config(location)), counts, dtype.itemsize, device, recomputes)


def outlook(recipe: Recipe, model: Model, longest: Sequence[tuple[int, int]], new_tokens: int) -> Outlook:
    """What training does with the memory that is free, for prompt lengths as in `load_of`."""
    free, changes = available_memory.free_bytes(model.device), dict[str, int | str]()
    while True:
        chosen = _with(recipe, changes)
        step = _largest(chosen, model, longest, new_tokens)
        fits = free is None or sum(step.lasting) + step.temporary / MARGIN <= free
        more = None if fits else next(_remedies(recipe, chosen, model, longest, new_tokens), None)
        if more is None:
            return Outlook(free, step.peak, fits, changes)
        if more[0] == "train.gradient_checkpointing":
            changes.pop("train.micro_batch_tokens", None)  # more rows may fit again
        changes[more[0]] = more[1]


def _remedies(
    recipe: Recipe, chosen: Recipe, model: Model, longest: Sequence[tuple[int, int]], new_tokens: int
) -> Iterator[tuple[str, int | str]]:
    """What training turns to next, in its order (`teacher_storage`, `micro_batches`)."""
    if chosen.teacher and chosen.teacher.storage == "auto" and model.device.type == "cuda":
        yield "teacher.storage", "cpu"
    load = load_of(chosen, longest, new_tokens)
    if recipe.train.micro_batch_tokens == "auto" and load.in_pass > 1:
        yield "train.micro_batch_tokens", max(load.length, load.length * load.in_pass // 2)
    if chosen.train.gradient_checkpointing == "auto" and model.recomputes:
        yield "train.gradient_checkpointing", "on"


def _with(recipe: Recipe, changes: dict[str, int | str]) -> Recipe:
    """``recipe`` with some of its settings changed, by their keys."""
    for key, value in changes.items():
        section, _, name = key.partition(".")
        part = getattr(recipe, section).model_copy(update={name: value})
        recipe = recipe.model_copy(update={section: part})
    return recipe


def _largest(recipe: Recipe, model: Model, longest: Sequence[tuple[int, int]], new_tokens: int) -> Prediction:
    """The step of the phase that needs the most."""
    load = load_of(recipe, longest, new_tokens)
    sizes, counts, width, device = model.sizes, model.counts, model.width, model.device.type
    steps = (memory_model.predict(phase, sizes, counts, width, load, device) for phase in recipe.phases())
    return max(steps, key=lambda step: step.peak)


def check_memory(recipe: Recipe, model: Model) -> None:
    """Raise `UsageError` where not even what outlasts a step fits, with the teacher where it takes the least room that
    ``recipe`` allows."""
    free = available_memory.free_bytes(model.device)
    if free is not None and model.device.type == "cpu":
        free += available_memory.free_swap()
    held = max((_least(phase, model) for phase in recipe.phases()), key=sum)
    if free is None or sum(held) <= free:
        return
    parts = ", ".join(f"{name.replace('_', ' ')} {size / GIB:.2f}" for name, size in held._asdict().items() if size)
    where = "in memory" if model.device.type == "cpu" else f"on {model.device}"
    raise UsageError(
        f"training needs at least {sum(held) / GIB:.2f} GiB {where} ({parts}), and {free / GIB:.2f} GiB are free",
        f"{_smaller(recipe, model)} or free memory",
    )


def _least(phase: Recipe, model: Model) -> Lasting:
    if model.device.type == "cuda" and phase.teacher and phase.teacher.storage == "auto":
        phase = _with(phase, {"teacher.storage": "cpu"})
    return memory_model.lasting(phase, model.counts, model.width)


def _smaller(recipe: Recipe, model: Model) -> str:
    """What would make it smaller, as a list to go on with "or"."""
    changes = [] if model.counts.lora else ["set lora.rank=16 (only an adapter is trained)"]
    if recipe.train.optimizer == "adamw" and not model.counts.lora:
        changes.append("train.optimizer=adamw8bit")
    if model.width == 2 and recipe.train.master == "fp32" and not model.counts.lora:
        changes.append("train.master=stochastic")
    if recipe.teacher and recipe.teacher.storage in ("auto", "device") and not model.counts.lora:
        changes.append("teacher.storage=half")
    return ", ".join([*changes, "use a smaller model"])
