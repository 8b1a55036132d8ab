"""AdamW for weights of any precision, in 32 bits or with its state in 8, and the learning-rate schedule.

A bf16 weight near 1 moves in steps of 0.8 %: an update of 1e-5 is rounded away. Two ways to learn all the same
(``train.master``): ``fp32`` masters are what the optimizer moves, and the model's own weight is their rounded copy
(4 more bytes a parameter); ``stochastic`` has no second copy, the update is made in fp32 and rounded into the weight
by chance, which is right on average (`rounding`). Its draws are a function of the step's seed.

Adam's moments stay in fp32 under both: a second moment in bf16 with beta2 = 0.999 would itself stand still.
``adamw8bit`` stores them in a byte each, in blocks with a scale of their own (arXiv 2110.02861, by bitsandbytes).
Bytes a bf16 parameter, gradient and weight included: 16 with masters, 12 stochastic, 10 and 6 with 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from sdft_cli.config.recipe import Train
from sdft_cli.errors import UsageError
from sdft_cli.training.stochastic_rounding import round_to_bf16

#: Numbers of a parameter that are updated at once where fp32 copies of them are made: bounds what these take.
PIECE = 1 << 24


class Moved(Protocol):
    """Told of a piece that has moved: the parameter's name, where in the flat tensor, what it was and is, and a
    generator of the step for draws of one's own."""

    def __call__(self, name: str, at: slice, before: Tensor, after: Tensor, generator: torch.Generator) -> None: ...


class _Piece(NamedTuple):
    """A part of the flat parameter ``name``, moved by an optimizer of its own through ``proxy``, an fp32 stand-in."""

    name: str
    at: slice
    proxy: nn.Parameter
    adam: torch.optim.Optimizer


class MasterAdamW:
    """AdamW over the trainable parameters of ``model``, by name; ``watched`` where `step` is given a ``moved``.

    fp32 parameters that nobody watches are moved by one optimizer; others piece by piece, so that no fp32 copy of all
    gradients exists.
    """

    def __init__(self, model: nn.Module, settings: Train, watched: bool = False):
        self.params = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.settings = settings
        own = settings.master == "stochastic"
        self.masters = {n: p if own or p.dtype == torch.float32 else p.detach().float() for n, p in self.params.items()}
        self.device = next(iter(self.params.values())).device
        self._share: Tensor | float = 1.0
        narrow = any(p.dtype != torch.float32 for p in self.params.values())
        self.pieces = self._cut() if narrow or watched else []
        self.adams = [p.adam for p in self.pieces] or [self._adam(list(self.params.values()))]

    def _cut(self) -> list[_Piece]:
        pieces = []
        for name, param in self.params.items():
            param.data = param.data.contiguous()  # pieces are views
            for at in range(0, param.numel(), PIECE):
                proxy = nn.Parameter(torch.empty(0, device=param.device))
                pieces.append(_Piece(name, slice(at, at + PIECE), proxy, self._adam([proxy])))
        return pieces

    def _adam(self, params: list[nn.Parameter]) -> torch.optim.Optimizer:
        if self.settings.optimizer == "adamw8bit":
            return bitsandbytes().AdamW8bit(params, lr=self.settings.lr, **self._settings())
        return torch.optim.AdamW(params, lr=self.settings.lr, **self._settings())

    def _settings(self) -> dict[str, Any]:
        """On a GPU the fused kernel: torch's default there makes copies as large as all parameters. On a CPU it is
        faster too (2 M parameters: 1.8 ms, not 5.2), but rounds differently from all figures taken so far."""
        found = {"betas": (self.settings.beta1, self.settings.beta2), "weight_decay": self.settings.weight_decay}
        kernel = self.settings.optimizer == "adamw" and self.device.type == "cuda"
        return found | ({"fused": True} if kernel else {})

    @torch.no_grad()
    def clip(self) -> float:
        """The norm of the model's gradients; `step` will use them clipped."""
        norms = [
            torch.linalg.vector_norm(p.grad, dtype=torch.float32) for p in self.params.values() if p.grad is not None
        ]
        norm = torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())
        self._share = (self.settings.grad_norm / (norm + 1e-6)).clamp(max=1.0)
        return float(norm)

    @torch.no_grad()
    def step(self, lr: float, seed: int = 0, moved: Moved | None = None) -> None:
        """Update with the clipped gradients and clear them. ``seed`` decides how weights are rounded."""
        for adam in self.adams:
            for group in adam.param_groups:
                group["lr"] = lr
        if self.pieces:
            own, other = (torch.Generator(self.device).manual_seed(seed + i) for i in (0, 1))
            for piece in self.pieces:
                self._move(piece, own, moved and partial(moved, generator=other))
        else:
            for param in self.params.values():
                if param.grad is not None:
                    param.grad.mul_(self._share)
            self.adams[0].step()
        self.discard()

    def _move(self, piece: _Piece, generator: torch.Generator, moved: Callable[..., None] | None) -> None:
        param, master = self.params[piece.name], self.masters[piece.name]
        if param.grad is None:
            return
        exact = master.detach().view(-1)[piece.at]
        before = exact.clone() if moved else None
        wide = exact.float()  # itself, where it is fp32
        piece.proxy.data, piece.proxy.grad = wide, param.grad.reshape(-1)[piece.at].float().mul_(self._share)
        piece.adam.step()
        if wide is not exact:
            exact.copy_(round_to_bf16(wide, generator))
        elif master is not param:
            param.detach().view(-1)[piece.at].copy_(exact)
        if moved and before is not None:
            moved(piece.name, piece.at, before, exact)
        piece.proxy.data, piece.proxy.grad = wide.new_empty(0), None

    def discard(self) -> None:
        """Clear the gradients without using them."""
        for param in self.params.values():
            param.grad = None

    def held(self) -> int:
        """Bytes of Adam's moments: none before the first step, or before those of a checkpoint are loaded."""
        states = [value for adam in self.adams for state in adam.state.values() for value in state.values()]
        return sum(value.nbytes for value in states if isinstance(value, Tensor))

    def exact(self) -> dict[str, Tensor]:
        """name -> the weight as precise as there is one: what a teacher follows. Rounded stochastically, it is bf16."""
        return {n: m.detach() for n, m in self.masters.items()}

    def state_dict(self) -> dict[str, Any]:
        own = {n: m.detach() for n, m in self.masters.items() if m is not self.params[n]}
        return {"adam": [a.state_dict() for a in self.adams], "names": list(self.masters), "masters": own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["names"] != list(self.masters) or len(state["adam"]) != len(self.adams):
            raise ValueError("the optimizer state belongs to other parameters")
        for adam, saved in zip(self.adams, state["adam"], strict=True):
            groups = [g | self._settings() for g in saved["param_groups"]]  # they may have changed since
            adam.load_state_dict(saved | {"param_groups": groups})
        with torch.no_grad():
            for name, master in state["masters"].items():
                self.masters[name].copy_(master)
                self.params[name].copy_(self.masters[name])


def bitsandbytes() -> Any:
    """The optimizers of bitsandbytes; `UsageError` where it is not installed."""
    try:
        from bitsandbytes import optim
    except ImportError as error:
        raise UsageError("train.optimizer=adamw8bit needs bitsandbytes", "pip install 'sdft-cli[memory]'") from error
    return optim


def learning_rate(settings: Train, step: int, steps: int) -> float:
    """The rate of optimizer step ``step`` (from 0) of ``steps``: linear warm-up, then the schedule to zero."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    shape = {"constant": 1.0, "linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}
    return settings.lr * shape[settings.schedule]
