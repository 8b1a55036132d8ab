"""What a stage of a run starts from: the weights to train, and those that its teacher starts from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from sdft_cli.config.model_locations import locate
from sdft_cli.config.recipe import Recipe
from sdft_cli.distributed.team import team
from sdft_cli.errors import UsageError
from sdft_cli.models import pretrained, quantization
from sdft_cli.models.engine import Engine
from sdft_cli.models.policy import Policy
from sdft_cli.models.split_engine import made_together
from sdft_cli.runs.checkpoints import Checkpoint
from sdft_cli.runs.folder import Run
from sdft_cli.runs.records import StageId
from sdft_cli.training.batches import seed_of
from sdft_cli.training.learner import Origin
from sdft_cli.training.teacher import Weights


def load_policy(recipe: Recipe, model: str) -> Policy:
    """The model named ``model``, to be trained (and given an adapter) as ``recipe`` says."""
    torch.manual_seed(seed_of(recipe.seed, "adapter"))  # the weights of a new adapter are drawn when it is created
    policy = pretrained.load(locate(model), recipe.runtime, recipe.lora)
    if getattr(policy.core, "is_quantized", False) and not (policy.lora and quantization.is_four_bit(policy.core)):
        raise UsageError(f"{model} is quantised: its weights cannot be trained", "name the model that it was made from")
    return policy


def load_engine(recipe: Recipe, model: str) -> Engine:
    """The recipe's engine, sampling from `load_policy`'s policy, which it holds."""
    return made_together(team().make(load_policy, recipe, model), recipe.engine)


def weights_of(recipe: Recipe, model: str) -> Weights:
    """The weights of the model named ``model``, by name."""
    return {name: parameter.detach() for name, parameter in load_policy(recipe, model).model.named_parameters()}


def load_measured(recipe: Recipe, model: str) -> Engine:
    """As `load_engine`, the model held in the bits in which a run's models are measured."""
    lora = recipe.lora.model_copy(update={"bits": recipe.lora.measured_bits})
    return load_engine(recipe.model_copy(update={"lora": lora}), model)


@dataclass(frozen=True)
class StageStart:
    """Where ``stage`` of ``run`` starts: from the stage before it, or the run's first model."""

    run: Run
    stage: StageId

    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint inside the stage that it is resumed from; None where the stage has none."""
        latest = self.run.checkpoints.latest()
        return latest if latest and latest.stage.number == self.stage.number else None

    def model(self) -> str:
        """The name or folder of the model that the stage begins with."""
        if self.stage.number == 1:
            return self.run.recipe.model
        if before := self._stage_before():
            return str(before.model)
        missing = f"stage {self.stage.number - 1} has no final checkpoint"
        raise UsageError(f"{self.run.folder}: {missing}", "start a new run")

    def teacher_origin(self, start: str) -> Origin:
        """Loads the weights that a teacher starts from, by name: those of the run's first model (``base``), or those
        that the stage begins with."""
        before = None if start == "base" else self._stage_before()
        return partial(weights_of, self.run.recipe, str(before.model) if before else self.run.recipe.model)

    def _stage_before(self) -> Checkpoint | None:
        """The final checkpoint of the stage before; None for the first stage, or where it is missing."""
        before = self.run.stages()[: self.stage.number - 1]
        return self.run.checkpoints.of(before[-1]).finished() if before else None
