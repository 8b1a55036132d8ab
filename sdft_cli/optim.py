"""AdamW with fp32 master weights, and the learning-rate schedule.

A bf16 weight near 1 moves in steps of 0.8 %: an update of 1e-5 is rounded away. So every parameter that is not
fp32 gets an fp32 master which is what the optimizer moves; the model's own weight is its rounded copy.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sdft_cli.recipe import Train


class MasterAdamW:
    """AdamW over the trainable parameters of ``model``, by name."""

    def __init__(self, model: nn.Module, settings: Train):
        self.params = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.masters = {n: p if p.dtype == torch.float32 else p.detach().float() for n, p in self.params.items()}
        self.settings = settings
        self.adam = torch.optim.AdamW(
            list(self.masters.values()),
            lr=settings.lr,
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
        )

    def clip(self) -> float:
        """Take the model's gradients and clip them; returns their norm before that."""
        for name, master in self.masters.items():
            param = self.params[name]
            if master is not param and param.grad is not None:
                master.grad = param.grad.float()
                param.grad = None
        return float(torch.nn.utils.clip_grad_norm_(list(self.masters.values()), self.settings.grad_norm))

    def step(self, lr: float) -> None:
        """Update with the clipped gradients, round into the model, clear the gradients."""
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        self.discard()
        self._round()

    def discard(self) -> None:
        """Clear the gradients without using them."""
        self.adam.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _round(self) -> None:
        for name, master in self.masters.items():
            if master is not self.params[name]:
                self.params[name].copy_(master)

    def exact(self) -> dict[str, Tensor]:
        """name -> the weight in full precision: what a teacher follows."""
        return {n: m.detach() for n, m in self.masters.items()}

    def state_dict(self) -> dict[str, Any]:
        own = {n: m.detach() for n, m in self.masters.items() if m is not self.params[n]}
        return {"adam": self.adam.state_dict(), "names": list(self.masters), "masters": own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["names"] != list(self.masters):
            raise ValueError("the optimizer state belongs to other parameters")
        self.adam.load_state_dict(state["adam"])
        for group in self.adam.param_groups:  # the settings may have changed since
            group |= {"betas": (self.settings.beta1, self.settings.beta2), "weight_decay": self.settings.weight_decay}
        with torch.no_grad():
            for name, saved in state["masters"].items():
                self.masters[name].copy_(saved)
        self._round()


def learning_rate(settings: Train, step: int, steps: int) -> float:
    """The rate of optimizer step ``step`` (from 0) of ``steps``: linear warm-up, then the schedule to zero."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    shape = {"constant": 1.0, "linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}
    return settings.lr * shape[settings.schedule]
