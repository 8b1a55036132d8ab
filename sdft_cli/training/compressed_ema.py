"""An exponential moving average of weights in two bytes a parameter: its offset from the weights, kept in bf16.

    d = phi - theta;   theta moves by s:  d <- (1 - a) (d - s)   at an update, d - s between two

Kept in bf16 the average itself would stand still: a step of it is far below the spacing of numbers of a weight's size.
The offset is small, and so is the spacing of bf16 numbers of its size: 0.4 to 0.8 % of it. A step changes it by about a
share a = 1 %. Rounded to nearest, an offset would stop up to 40 % short of where it should end; so it is rounded
stochastically (`stochastic_rounding`), which is right on average and off by about 2 % of the offset in a
single weight at a = 0.01.

theta is the optimizer's exact weight, so phi = theta + d has its precision. The weights to compute with are made when
a layer is passed and given back after it: the student's own are never written to, and come back as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sdft_cli.training.optimizer import PIECE, Moved
from sdft_cli.training.stochastic_rounding import Draws, round_to_bf16


class CompressedEma:
    """``weights`` (name -> tensor) are what is followed; their storage must stay theirs. Starts as their equal."""

    def __init__(self, model: nn.Module, weights: dict[str, Tensor], rate: float):
        self.model, self.weights, self.rate = model, weights, rate
        self.offset = {n: torch.zeros_like(w, dtype=torch.bfloat16) for n, w in weights.items()}
        self._names = {id(p): n for n, p in model.named_parameters()}
        self._head: tuple[str, Tensor] | None = None  # the output head, asked for once a micro-batch
        self._read_by_others: list[nn.Parameter] = []

    @torch.no_grad()
    def start(self, average: dict[str, Tensor]) -> None:
        """Stand at ``average``, to bf16 precision of its distance."""
        for name, offset in self.offset.items():
            offset.copy_(average[name].to(offset.device).float() - self.weights[name])
        self._head = None

    def follower(self, due: bool) -> Moved:
        """To be called by the optimizer with every move; ``due``: the average takes its own step with this one."""
        kept = 1 - self.rate if due else 1.0
        self._head = None

        def follow(name: str, at: slice, before: Tensor, after: Tensor, draws: Draws) -> None:
            offset = self.offset[name].view(-1)[at]
            offset.copy_(round_to_bf16((offset + (before.float() - after)).mul_(kept), draws.bits(offset.device)))

        return follow

    @torch.no_grad()
    def average(self, param: Tensor) -> Tensor:
        """The average of ``param`` in its precision, as a new tensor; the parameter itself where it has none."""
        name = self._names[id(param)]
        if name not in self.offset:
            return param.detach()
        if self._head and self._head[0] == name:
            return self._head[1]
        made = torch.empty_like(param, memory_format=torch.contiguous_format)
        flat, theta, offset = made.view(-1), self.weights[name].view(-1), self.offset[name].view(-1)
        for i in range(0, flat.numel(), PIECE):
            at = slice(i, i + PIECE)
            flat[at] = theta[at] + offset[at]
        return made

    def head(self, param: Tensor) -> Tensor:
        """As `average`, and kept until the next step: losses read the output head chunk by chunk."""
        if self._head is None:
            self._head = (self._names[id(param)], self.average(param))
        return self._head[1]

    def look_for_readers(self, forward: Callable[[], object], head: Tensor) -> None:
        """Find, by a ``forward`` pass, the weights of modules that are not passed themselves, such as convolutions of
        recurrent layers, whose weights the mixer reads. ``head``, which losses ask for, is left out."""
        passed: set[nn.Module] = set()
        handles = [m.register_forward_pre_hook(lambda module, _: passed.add(module)) for m in self.model.modules()]
        try:
            forward()
        finally:
            for handle in handles:
                handle.remove()
        unpassed = [p for m in self.model.modules() if m not in passed for p in m.parameters(recurse=False)]
        self._read_by_others = [p for p in unpassed if p is not head and self._names[id(p)] in self.offset]

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Within it a forward pass of the model computes with the average, one module's weights at a time; those that
        other modules read are there from its beginning to its end."""
        held: dict[int, tuple[nn.Parameter, Tensor]] = {}

        others = {id(param) for param in self._read_by_others}

        def own(module: nn.Module) -> list[nn.Parameter]:
            return [p for p in module.parameters(recurse=False) if id(p) not in others]

        def put(module: nn.Module, _: object) -> None:
            for param in own(module):
                held[id(param)] = (param, param.data)
                param.data = self.average(param)

        def take(module: nn.Module, *_: object) -> None:
            for param in own(module):
                param.data = held.pop(id(param))[1]

        for param in self._read_by_others:
            held[id(param)] = (param, param.data)
            param.data = self.average(param)
        owners = [m for m in self.model.modules() if next(m.parameters(recurse=False), None) is not None]
        handles = [m.register_forward_pre_hook(put) for m in owners]
        handles += [m.register_forward_hook(take) for m in owners]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for param, data in held.values():  # what others read, and what a pass that failed half-way has left
                param.data = data
