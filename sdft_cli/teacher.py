"""The teacher: where it starts, how it follows the student, how it is stored and restored.

    phi <- phi + a (theta - phi)   every k optimizer steps (``update_rate`` a, ``update_every`` k)

The average is kept in fp32 whatever the model's precision: in bf16 an average with a = 0.01 stands still.
Storage is chosen here: the student itself (live), a second copy (full fine-tuning), or a second adapter on the
shared base (LoRA). An average of adapters A and B is not the average of BA; started as a copy it tracks it closely.
Parameters are matched by name, never by position.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sdft_cli import models
from sdft_cli.batching import Inputs
from sdft_cli.fused import Head
from sdft_cli.models import STUDENT, TEACHER, Policy
from sdft_cli.recipe import Teacher as Settings


class Teacher:
    """``origin`` loads the weights of ``settings.start`` by name; it is not called where that is the student."""

    def __init__(self, policy: Policy, settings: Settings, origin: Callable[[], dict[str, Tensor]]):
        self.policy, self.settings = policy, settings
        self.live = settings.update_rate == 1 and settings.update_every == 1
        self.copy: nn.Module | None = None
        self.average: dict[str, Tensor] = {}
        if self.live:
            return
        if policy.lora:
            self._add_adapter()
        else:
            self.copy = copy.deepcopy(policy.model).requires_grad_(False)
        # an fp32 parameter is its own average, and a frozen one needs none
        own, moves = self._own(), settings.update_rate > 0
        self.average = {n: p.detach().float() if moves else p.detach() for n, p in own.items()}
        if settings.start != "student":
            weights = origin()
            self._set({n: weights[_in(STUDENT, n)] for n in own})

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
        own = self._own()
        if missing := set(self.average) - set(weights):
            raise ValueError(f"teacher weights lack {sorted(missing)[0]}")
        for name, value in self.average.items():
            value.copy_(weights[name])
            own[name].copy_(value)

    @torch.no_grad()
    def update(self, step: int, student: dict[str, Tensor]) -> None:
        """After optimizer step ``step`` (from 1), follow ``student`` (name -> fp32 weights)."""
        rate = self.settings.update_rate
        if self.live or rate == 0 or step % self.settings.update_every:
            return
        own = self._own()
        for name, value in self.average.items():
            if (theta := student.get(_in(STUDENT, name))) is None:
                continue  # a frozen parameter of the student: nothing to follow
            value.lerp_(theta, rate)
            own[name].copy_(value)

    @torch.no_grad()
    def hidden_states(self, inputs: Inputs) -> Tensor:
        """The teacher's final hidden states at the loss positions, [N, H], without gradient."""
        if self.live or self.copy is not None:
            return models.hidden_states(self.policy, inputs, self.copy)
        self.policy.model.set_adapter(TEACHER)  # type: ignore[operator]
        try:
            return models.hidden_states(self.policy, inputs)
        finally:
            self.policy.model.set_adapter(STUDENT)  # type: ignore[operator]

    def head(self) -> Head:
        """The teacher's output head, detached."""
        return models.head(self.policy, self.copy).detach()

    def close(self) -> None:
        """Free the copy or take the teacher's adapter off the model."""
        self.copy, self.average = None, {}
        if self.policy.lora and TEACHER in self.policy.model.peft_config:  # type: ignore[operator]
            self.policy.model.delete_adapter(TEACHER)  # type: ignore[operator]

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if set(state["average"]) != set(self.average):
            raise ValueError("the teacher's state belongs to other parameters")
        self._set(state["average"])


def _in(adapter: str, name: str) -> str:
    return name.replace(".{}.", f".{adapter}.")
