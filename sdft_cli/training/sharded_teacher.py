"""The teacher of a model in shards: parts of its weights on every rank, lent to the student's twin for its passes.

There is no second model. An average is kept in fp32, or as its offset from the student (`compressed_ema`); a teacher
that stands still in the model's own precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from sdft_cli.config.recipe import Teacher as TeacherSettings
from sdft_cli.distributed.shards import Shards
from sdft_cli.losses.fused import Head
from sdft_cli.models.batching import Inputs
from sdft_cli.models.policy import Policy
from sdft_cli.models.protocols import CausalLM
from sdft_cli.training.compressed_ema import CompressedEma
from sdft_cli.training.optimizer import Moved
from sdft_cli.training.teacher import TeacherModel, TeacherState, Weights, is_compressed


class ShardedTeacher(TeacherModel):
    """Weights that are lent to the student's twin; as they stand, the student's own (a = 1, k = 1)."""

    def __init__(self, policy: Policy, settings: TeacherSettings, shards: Shards):
        super().__init__(policy, settings)
        self.shards = shards
        self._kept: Head | None = None  # gathered whole, until the weights move
        output = policy.core.get_output_embeddings()
        self.head_names = {
            name
            for name, param in policy.core.named_parameters()
            if param is output.weight or param is getattr(output, "bias", None)
        }

    def weights(self) -> dict[str, Tensor]:
        """This rank's parts of the weights, where they are not the student's."""
        return {}

    @torch.no_grad()
    def hidden_states(self, inputs: Inputs) -> Tensor:
        with self.shards.lent(self.weights()):
            return self.shards.inside(lambda: self.policy.hidden_states(inputs, cast(CausalLM, self.shards.core)))

    @torch.no_grad()
    def head(self) -> Head:
        if self._kept is None:
            with self.shards.lent({n: part for n, part in self.weights().items() if n in self.head_names}):
                full = {name: self.shards.gathered(name) for name in sorted(self.head_names)}
            weight = next(tensor for tensor in full.values() if tensor.dim() == 2)
            bias = next((tensor for tensor in full.values() if tensor.dim() == 1), None)
            self._kept = self.policy.head()._replace(weight=weight, bias=bias)
        return self._kept

    def update(self, step: int, student: Weights) -> None:
        self._kept = None

    def close(self) -> None:
        self._kept = None


class ShardedAverage(ShardedTeacher):
    """An average, a copy that is renewed, or one that stands still."""

    def __init__(self, policy: Policy, settings: TeacherSettings, shards: Shards):
        super().__init__(policy, settings, shards)
        moves = settings.update_rate not in (0, 1)
        self.average = {name: (part.float() if moves else part).detach().clone() for name, part in shards.local.items()}

    def weights(self) -> dict[str, Tensor]:
        return self.average

    def start(self, weights: Weights) -> None:
        """Stand at ``weights``, whole tensors by name."""
        for name, part in self.average.items():
            part.copy_(self.shards.part_of(name, weights[name]).to(part.device))
        self._kept = None

    @torch.no_grad()
    def update(self, step: int, student: Weights) -> None:
        rate = self.settings.update_rate
        if rate == 0 or step % self.settings.update_every:
            return
        self._kept = None
        for name, part in self.average.items():
            theta = student[name].view(part.shape)
            part.copy_(theta) if rate == 1 else part.lerp_(theta.to(part.dtype), rate)

    def state_dict(self) -> TeacherState:
        return {"average": self.average}

    @torch.no_grad()
    def load_state_dict(self, state: TeacherState) -> None:
        for name, part in self.average.items():
            part.copy_(state["average"][name].view(part.shape))
        self._kept = None

    def close(self) -> None:
        super().close()
        self.average = {}


class ShardedOffset(ShardedTeacher):
    """An average as its offset from the student."""

    def __init__(self, policy: Policy, settings: TeacherSettings, shards: Shards, exact: dict[str, Tensor]):
        super().__init__(policy, settings, shards)
        self.ema = CompressedEma(shards.core, exact, settings.update_rate)

    def weights(self) -> dict[str, Tensor]:
        return {name: self.ema.weights[name].float() + offset for name, offset in self.ema.offset.items()}

    def start(self, weights: Weights) -> None:
        """Stand at ``weights``, whole tensors by name."""
        self.ema.start({name: self.shards.part_of(name, weights[name]) for name in self.ema.offset})
        self._kept = None

    def watcher(self, step: int) -> Moved | None:
        self._kept = None
        return self.ema.follower(step % self.settings.update_every == 0)

    def state_dict(self) -> TeacherState:
        return {"offset": self.ema.offset}

    @torch.no_grad()
    def load_state_dict(self, state: TeacherState) -> None:
        for name, offset in self.ema.offset.items():
            offset.copy_(state["offset"][name].view(offset.shape))
        self._kept = None

    def close(self) -> None:
        super().close()
        self.ema.offset.clear()


def make_sharded(
    policy: Policy,
    settings: TeacherSettings,
    origin: Callable[[], Weights] | None,
    exact: dict[str, Tensor],
    shards: Shards,
) -> TeacherModel:
    """As `teacher.make_teacher`."""
    if settings.update_rate == 1 and settings.update_every == 1:
        return ShardedTeacher(policy, settings, shards)
    teacher: ShardedAverage | ShardedOffset
    if is_compressed(settings, policy.lora):
        teacher = ShardedOffset(policy, settings, shards, exact)
    else:
        teacher = ShardedAverage(policy, settings, shards)
    if settings.start != "student" and origin is not None:
        teacher.start(origin())
    return teacher
