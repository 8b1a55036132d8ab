"""A model that is loaded when something has to be measured, and not before."""

from __future__ import annotations

from functools import cached_property

import sdft_cli
from sdft_cli.config.model_locations import locate
from sdft_cli.config.recipe import Recipe
from sdft_cli.distributed.team import team
from sdft_cli.errors import UsageError
from sdft_cli.evaluation.cache import Identity
from sdft_cli.models import digests, pretrained
from sdft_cli.models.chat import Chat
from sdft_cli.models.engine import Engine
from sdft_cli.models.split_engine import made_together
from sdft_cli.runs.records import UnitSettings


class LoadedModel:
    """The model at ``location`` (None: its weights have been deleted), called ``name``, sampled as ``recipe`` says.

    Raises `UsageError` only when something is requested that is not available.
    """

    def __init__(self, location: str | None, name: str, recipe: Recipe):
        self.location, self.name, self.recipe = location, name, recipe

    @cached_property
    def place(self) -> str:
        """The folder or hub id of the weights."""
        if self.location is None:
            raise UsageError(
                f"{self.name}: the model of its last stage has been deleted, and not all of this was measured before",
                "ask only for what the run holds, or train it again",
            )
        return locate(self.location)

    @cached_property
    def chat(self) -> Chat:
        """The tokenizer with its template: enough to know the settings under which something would be measured."""
        return pretrained.load_chat(self.place).switched(self.recipe.views.student_thinking)

    @cached_property
    def engine(self) -> Engine:
        bits = self.recipe.lora.measured_bits
        policy = team().make(pretrained.load, self.place, self.recipe.runtime, bits=bits)
        return made_together(policy, self.recipe.engine)

    @cached_property
    def weights(self) -> str | None:
        """Identifies the weights: a digest of the files, or a hub id with its commit; None where neither is known."""
        if digest := digests.of_weights(self.place):
            return digest
        version = pretrained.version_of(self.place)
        return f"{self.place}@{version}" if version else None

    def identity(self, settings: dict[str, UnitSettings], grader: str) -> Identity:
        """Everything that decides the numbers of units with these ``settings``, graded by what has this digest."""
        device, dtype = pretrained.placement(self.recipe.runtime)
        quantized = ["4 bits"] if self.recipe.lora.measured_bits == 4 else []
        return {
            "weights": self.weights,
            "settings": settings,
            "grader": grader,
            "engine": [self.recipe.engine.name, device.type, str(dtype), *quantized],
            "sdft": sdft_cli.__version__,
        }
