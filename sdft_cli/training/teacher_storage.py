"""Where a teacher's average is stored: on the device, or in the host's memory where it does not fit beside the rest."""

from __future__ import annotations

from sdft_cli.config.recipe import Recipe, Teacher
from sdft_cli.models.policy import Policy
from sdft_cli.training import memory_model
from sdft_cli.training.available_memory import free_bytes
from sdft_cli.training.memory_model import Load
from sdft_cli.training.memory_shards import counts_of


def choose_storage(policy: Policy, recipe: Recipe) -> Teacher | None:
    """The recipe's teacher with a ``storage`` of ``auto`` decided; None without a teacher.

    Both choices compute the same numbers, so the decision may depend on what is free.
    """
    settings = recipe.teacher
    if settings is None or settings.storage != "auto":
        return settings
    on_device = settings.model_copy(update={"storage": "device"})
    recipe = recipe.model_copy(update={"teacher": on_device})
    sizes, counts = memory_model.dims(policy.core.config), counts_of(policy.model, bits=recipe.lora.bits)
    smallest, width, device = Load(1, 1, 1, recompute=True), policy.dtype.itemsize, policy.device.type
    step = memory_model.predict(recipe, sizes, counts, width, smallest, device)
    free = free_bytes(policy.device)
    tight = device == "cuda" and free is not None and step.need - step.lasting.weights > free
    return settings.model_copy(update={"storage": "cpu"}) if tight else on_device
