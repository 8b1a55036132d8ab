"""The teacher: where it starts, how it follows the student, how it is stored and restored.

    phi <- phi + a (theta - phi)   every k optimizer steps (``update_rate`` a, ``update_every`` k)

The average is kept in fp32 whatever the model's precision: in bf16 an average with a = 0.01 stands still.
Storage is chosen here: the student itself (live), a second copy (full fine-tuning), a second adapter on the shared base
(LoRA), or the average's offset from the student (``storage`` half, see `compressed_ema`). The fp32 average beside a
bf16 copy may lie in the host's memory (cpu): an update brings one parameter after the other to the device, so the
numbers are the same. An average of adapters A and B is not the average of BA; started as a copy it tracks it closely.
Parameters are matched by name, never by position.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sdft_cli.config.recipe import Teacher as TeacherSettings
from sdft_cli.losses.fused import Head
from sdft_cli.models.adapters import STUDENT, TEACHER
from sdft_cli.models.batching import Inputs
from sdft_cli.models.policy import Policy
from sdft_cli.models.protocols import CausalLM
from sdft_cli.training.compressed_ema import CompressedEma
from sdft_cli.training.optimizer import Moved


def keeps_offset(settings: TeacherSettings | None, lora: bool) -> bool:
    """Whether a teacher with these settings is a `CompressedEma`: asked for, of a whole model, and moving."""
    return settings is not None and settings.storage == "half" and 0 < settings.update_rate < 1 and not lora


class TeacherModel:
    """``origin`` loads the weights of ``settings.start`` by name; it is not called where that is the student.

    ``exact``: the student's weights by name, as the optimizer has them; a `CompressedEma` is taken from them.
    """

    def __init__(
        self,
        policy: Policy,
        settings: TeacherSettings,
        origin: Callable[[], dict[str, Tensor]],
        exact: dict[str, Tensor] | None = None,
    ):
        self.policy, self.settings = policy, settings
        self.live = settings.update_rate == 1 and settings.update_every == 1
        self.copy: CausalLM | None = None
        self.compressed: CompressedEma | None = None
        self.average: dict[str, Tensor] = {}
        if self.live:
            return
        if policy.lora:
            self._add_adapter()
        elif keeps_offset(settings, policy.lora) and exact is not None:
            self.compressed = CompressedEma(policy.model, exact, settings.update_rate)
        else:
            self.copy = copy.deepcopy(policy.model).requires_grad_(False)
        if self.compressed is None:
            self.average = {n: self._averaged(p.detach()) for n, p in self._own().items()}
        if settings.start != "student":
            weights = origin()
            self._set(
                {n: weights[_in(STUDENT, n)] for n in (self.compressed.offset if self.compressed else self.average)}
            )

    def _averaged(self, own: Tensor) -> Tensor:
        """What ``own`` is the rounded copy of: itself where it is fp32, or is never more than the student's copy."""
        if own.dtype == torch.float32 or self.settings.update_rate in (0, 1):
            return own
        if self.settings.storage != "cpu":
            return own.float()
        host = own.to("cpu", torch.float32)
        return host.pin_memory() if own.device.type == "cuda" else host

    def _add_adapter(self) -> None:
        if TEACHER in self.policy.model.peft_config:  # type: ignore[operator]
            self.policy.model.delete_adapter(TEACHER)  # type: ignore[operator]
        self.policy.model.add_adapter(TEACHER, copy.deepcopy(self.policy.model.peft_config[STUDENT]))  # type: ignore
        self.policy.model.set_adapter(STUDENT)  # type: ignore[operator]
        named = dict(self.policy.model.named_parameters())
        with torch.no_grad():
            for name, param in self._own().items():
                param.copy_(named[_in(STUDENT, name)])
        self.policy.model.eval()  # peft's new modules are in training mode: the teacher would drop out at first

    def _own(self) -> dict[str, nn.Parameter]:
        """The teacher's own parameters under the student's names."""
        if self.copy is not None:
            return dict(self.copy.named_parameters())
        named = self.policy.model.named_parameters()
        return {n.replace(f".{TEACHER}.", ".{}."): p for n, p in named if f".{TEACHER}." in n}

    @torch.no_grad()
    def _set(self, weights: dict[str, Tensor]) -> None:
        if self.compressed:
            return self.compressed.start(weights)
        own = self._own()
        if missing := set(self.average) - set(weights):
            raise ValueError(f"teacher weights lack {sorted(missing)[0]}")
        for name, value in self.average.items():
            value.copy_(weights[name])
            own[name].copy_(value)

    @torch.no_grad()
    def update(self, step: int, student: dict[str, Tensor]) -> None:
        """After optimizer step ``step`` (from 1), follow ``student`` (name -> its exact weights)."""
        rate = self.settings.update_rate
        if self.live or self.compressed or rate == 0 or step % self.settings.update_every:
            return
        own = self._own()
        for name, value in self.average.items():
            if (theta := student.get(_in(STUDENT, name))) is None:
                continue  # a frozen parameter of the student: nothing to follow
            here = value.to(own[name].device)
            here.copy_(theta) if rate == 1 else here.lerp_(theta.to(here.dtype), rate)
            value.copy_(here)
            own[name].copy_(here)

    def watcher(self, step: int) -> Moved | None:
        """What optimizer step ``step`` (from 1) has to tell of its moves; None where `update` is enough."""
        return self.compressed.follower(step % self.settings.update_every == 0) if self.compressed else None

    @torch.no_grad()
    def hidden_states(self, inputs: Inputs) -> Tensor:
        """The teacher's final hidden states at the loss positions, [N, H], without gradient."""
        if self.compressed:
            with self.compressed.lent():
                return self.policy.hidden_states(inputs)
        if self.live or self.copy is not None:
            return self.policy.hidden_states(inputs, self.copy)
        self.policy.model.set_adapter(TEACHER)  # type: ignore[operator]
        try:
            return self.policy.hidden_states(inputs)
        finally:
            self.policy.model.set_adapter(STUDENT)  # type: ignore[operator]

    def head(self) -> Head:
        """The teacher's output head, detached."""
        own = self.policy.head(self.copy)
        if self.compressed:
            bias = None if own.bias is None else self.compressed.average(own.bias)  # type: ignore[arg-type]
            own = own._replace(weight=self.compressed.head(own.weight), bias=bias)  # type: ignore[arg-type]
        return own.detach()

    def close(self) -> None:
        """Free the copy or take the teacher's adapter off the model."""
        self.copy, self.compressed, self.average = None, None, {}
        if self.policy.lora and TEACHER in self.policy.model.peft_config:  # type: ignore[operator]
            self.policy.model.delete_adapter(TEACHER)  # type: ignore[operator]

    def state_dict(self) -> dict[str, Any]:
        return {"offset": self.compressed.offset} if self.compressed else {"average": self.average}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        key = "offset" if self.compressed else "average"
        own = self.compressed.offset if self.compressed else self.average
        if set(state.get(key, ())) != set(own):
            raise ValueError("the teacher's state belongs to other parameters")
        if self.compressed is None:
            return self._set(state[key])
        for name, offset in own.items():
            offset.copy_(state[key][name])


def _in(adapter: str, name: str) -> str:
    return name.replace(".{}.", f".{adapter}.")
