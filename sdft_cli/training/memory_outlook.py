"""A model as a run trains it, by its shapes alone, on the devices that are there or on others that are named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from sdft_cli.config.recipe import EngineSettings, Recipe
from sdft_cli.models import pretrained
from sdft_cli.models.protocols import CausalLM
from sdft_cli.training import available_memory, memory_model
from sdft_cli.training.cost_estimates import load_of
from sdft_cli.training.memory_model import Dims, Load, Prediction
from sdft_cli.training.memory_shards import Counts, counts_of


class Hardware(NamedTuple):
    """``gpus`` devices, with ``memory`` bytes each; None: what this machine has."""

    gpus: int = 1
    memory: int | None = None


#: One device of this machine.
THIS_MACHINE = Hardware()


class Lengths(NamedTuple):
    """Prompt tokens of rows, (student's, teacher's or 0), and the most new tokens after each."""

    prompts: Sequence[tuple[int, int]]
    new_tokens: int


class Model(NamedTuple):
    """A model's shapes, and where it will be. ``memory``: bytes of each device, where these are not this machine's."""

    sizes: Dims
    counts: Counts
    width: int
    device: torch.device
    recomputes: bool
    memory: int | None = None

    @classmethod
    def of(cls, recipe: Recipe, location: str, hardware: Hardware = THIS_MACHINE) -> Model:
        """The model at ``location`` as ``recipe`` trains it, made without its weights."""
        core, adapted = pretrained.shapes(location, recipe.lora)
        return cls.made(recipe, core, adapted or core, hardware)

    @classmethod
    def made(cls, recipe: Recipe, core: CausalLM, trained: CausalLM, hardware: Hardware) -> Model:
        """Of ``core`` on the meta device; ``trained`` is the same with an adapter, where there is one."""
        device, width = _placed(recipe, hardware)
        counts = counts_of(trained, hardware.gpus, recipe.lora.bits)
        recomputes = bool(getattr(core, "supports_gradient_checkpointing", False))
        return cls(memory_model.dims(core.config), counts, width, device, recomputes, hardware.memory)

    @property
    def ranks(self) -> int:
        return self.counts.shards.ranks if self.counts.shards else 1

    def free(self, engine: EngineSettings) -> int | None:
        """Bytes that there are for each rank beside its ``engine``; None where that cannot be found out."""
        free = available_memory.free_bytes(self.device) if self.memory is None else self.memory
        if free is None:
            return None
        return free - self._taken_by(engine) if self.device.type == "cuda" else free // self.ranks

    def _taken_by(self, engine: EngineSettings) -> int:
        """Bytes that an engine keeps while the model trains."""
        if engine.name != "vllm" or engine.sleep:
            return 0
        total = torch.cuda.mem_get_info(self.device)[1] if self.memory is None else self.memory
        return int(engine.memory_share * total)

    def step(self, recipe: Recipe, lengths: Lengths) -> tuple[Prediction, Load, Recipe]:
        """The largest step of ``recipe``, with its load and the recipe of its phase."""
        steps = []
        for phase in recipe.phases():
            load = load_of(phase, *lengths, self.ranks)
            step = memory_model.predict(phase, self.sizes, self.counts, self.width, load, self.device.type)
            steps.append((step, load, phase))
        return max(steps, key=lambda each: each[0].need)


def _placed(recipe: Recipe, hardware: Hardware) -> tuple[torch.device, int]:
    """The device, and the bytes of a weight. Of devices that are named by their memory, this machine need have none."""
    if hardware.memory is None:
        device, dtype = pretrained.placement(recipe.runtime)
        return device, dtype.itemsize
    return torch.device("cuda"), 4 if recipe.runtime.dtype == "float32" else 2
