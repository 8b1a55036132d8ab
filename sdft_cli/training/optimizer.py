"""AdamW for weights of any precision, in 32 bits or with its state in 8, and the learning-rate schedule.

A bf16 weight near 1 moves in steps of 0.8 %, so an update of 1e-5 is rounded away. There are two remedies
(``train.master``): with ``fp32`` the optimizer moves fp32 masters, of which the model's weights are rounded copies (4
more bytes per parameter); with ``stochastic`` there is no second copy, and an update is computed in fp32 and rounded
into the weight up or down at random, which is right on average (`stochastic_rounding`). The draws depend on the step's
seed alone.

Adam's moments are fp32 with both: a second moment in bf16 with beta2 = 0.999 would never change. ``adamw8bit`` stores
them in one byte each, in blocks with a scale of their own (arXiv 2110.02861, by bitsandbytes).
Bytes per bf16 parameter, including gradient and weight: 16 with masters, 12 stochastic, 10 and 6 with 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, Protocol, TypedDict

import torch
from torch import Tensor, nn

from sdft_cli.config.recipe import Train
from sdft_cli.distributed.shards import Shards, norm_of_all
from sdft_cli.errors import UsageError
from sdft_cli.training.stochastic_rounding import Draws, round_to_bf16
from sdft_cli.training.warm_up import warm_up_steps

#: Numbers of a parameter that are updated at once where they are copied to fp32; it bounds the size of the copies.
PIECE = 1 << 24
#: From so many trained parameters on, AdamW's kernel is the fused one on a CPU as well. It takes a fifth of the time,
#: but rounds differently: all published results of the micro world are those of the other one.
FUSED_FROM = 1 << 24


class Moved(Protocol):
    """Called for every piece that has moved, with the parameter's name, the piece's place in the flat tensor, its
    values before and after, and random draws of the callee's own."""

    def __call__(self, name: str, at: slice, before: Tensor, after: Tensor, draws: Draws) -> None: ...


class _Piece(NamedTuple):
    """A slice of the flat parameter ``name``, moved by its own optimizer through ``proxy``, an fp32 stand-in.

    It is the part ``within`` of piece ``number``, of ``size`` elements, of the whole model's parameters.
    """

    name: str
    at: slice
    proxy: nn.Parameter
    adam: torch.optim.Optimizer
    number: int = 0
    size: int = 0
    within: slice = slice(None)

    def draws(self, seed: int) -> Draws:
        """Random numbers of this piece's own, by the step's seed."""
        return Draws(seed + 2 * self.number, self.size, self.within)


class AdamSettings(TypedDict, total=False):
    """Keywords of AdamW."""

    betas: tuple[float, float]
    weight_decay: float
    fused: bool


class AdamState(TypedDict):
    """The state of one of torch's optimizers."""

    state: dict[int, dict[str, Tensor]]
    param_groups: list[dict[str, object]]


class OptimizerState(TypedDict):
    """A `MasterAdamW`'s part of a checkpoint: one state per optimizer, the parameters' names, and the fp32 masters."""

    adam: list[AdamState]
    names: list[str]
    masters: dict[str, Tensor]


class Moments(TypedDict):
    """Adam's state of one parameter: its moments, flat or in its shape, and how many steps they have seen."""

    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: float


class MasterAdamW:
    """AdamW over the trainable parameters of ``model``, by name; ``watched`` if `step` will be given ``moved``.

    With ``shards``, the model's sharded twin, over this rank's parts of them.

    fp32 parameters that are not watched are moved by a single optimizer, all others piece by piece, so that there is
    never an fp32 copy of all gradients.
    """

    def __init__(self, model: nn.Module, settings: Train, watched: bool = False, shards: Shards | None = None):
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.params = shards.local if shards else trained
        self.settings, self.shards, self.sizes = settings, shards, {n: p.numel() for n, p in trained.items()}
        unmastered = {n for n, p in self.params.items() if settings.master == "stochastic" or p.dtype == torch.float32}
        self.masters = {n: p if n in unmastered else p.detach().float() for n, p in self.params.items()}
        self.device = next(iter(trained.values())).device
        self.fused = self.device.type == "cuda" or sum(p.numel() for p in trained.values()) >= FUSED_FROM
        self._share: Tensor | float = 1.0
        narrow = any(p.dtype != torch.float32 for p in self.params.values())
        self.pieces = self._cut() if narrow or watched else []
        self.adams = [p.adam for p in self.pieces] or [self._adam(list(self.params.values()))]
        whole = [_Piece(name, slice(None), param, self.adams[0]) for name, param in self.params.items()]
        self.moved = self.pieces or whole  # what Adam moves

    def _cut(self) -> list[_Piece]:
        """Cut at the same places of the whole parameters, however many ranks have parts of them."""
        pieces, before = [], 0
        for name, numel in self.sizes.items():
            if (param := self.params.get(name)) is not None:
                param.data = param.data.contiguous()  # pieces are views
                start = self.shards.start(name) if self.shards else 0
                for k in range(start // PIECE, -(-(start + param.numel()) // PIECE)):
                    first, end = k * PIECE, min((k + 1) * PIECE, numel)
                    low, high = max(first, start), min(end, start + param.numel())
                    proxy = nn.Parameter(torch.empty(0, device=param.device))
                    place = before + k, end - first, slice(low - first, high - first)
                    pieces.append(_Piece(name, slice(low - start, high - start), proxy, self._adam([proxy]), *place))
            before += -(-numel // PIECE)
        return pieces

    def _adam(self, params: list[nn.Parameter]) -> torch.optim.Optimizer:
        if self.settings.optimizer == "adamw8bit":
            return adamw_8bit()(params, lr=self.settings.lr, **self._settings())
        return torch.optim.AdamW(params, lr=self.settings.lr, **self._settings())

    def _settings(self) -> AdamSettings:
        """On a GPU the fused kernel, too: torch's default there makes copies as large as all parameters."""
        settings: AdamSettings = {
            "betas": (self.settings.beta1, self.settings.beta2),
            "weight_decay": self.settings.weight_decay,
        }
        if self.settings.optimizer != "adamw8bit" and self.fused:
            settings["fused"] = True
        return settings

    @torch.no_grad()
    def clip(self) -> float:
        """The norm of the model's gradients, which `step` will clip."""
        norms = [
            torch.linalg.vector_norm(p.grad, dtype=torch.float32) for p in self.params.values() if p.grad is not None
        ]
        norm = torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros((), device=self.device)
        if self.shards:
            norm = norm_of_all(norm)
        self._share = (self.settings.grad_norm / (norm + 1e-6)).clamp(max=1.0)
        return float(norm)

    @torch.no_grad()
    def step(self, lr: float, seed: int = 0, moved: Moved | None = None) -> None:
        """Update the weights with the clipped gradients, and clear these. ``seed`` is that of stochastic rounding."""
        for adam in self.adams:
            for group in adam.param_groups:
                group["lr"] = lr
        if self.pieces:
            for piece in self.pieces:
                self._move(piece, piece.draws(seed), moved and partial(moved, draws=piece.draws(seed + 1)))
        else:
            for param in self.params.values():
                if param.grad is not None:
                    param.grad.mul_(self._share)
            self.adams[0].step()
        self.discard()

    def _move(self, piece: _Piece, draws: Draws, moved: Callable[..., None] | None) -> None:
        param, master = self.params[piece.name], self.masters[piece.name]
        if param.grad is None:
            return
        exact = master.detach().view(-1)[piece.at]
        before = exact.clone() if moved else None
        wide = exact.float()  # itself, where it is fp32
        piece.proxy.data, piece.proxy.grad = wide, param.grad.reshape(-1)[piece.at].float().mul_(self._share)
        piece.adam.step()
        if wide is not exact:
            exact.copy_(round_to_bf16(wide, draws.bits(self.device)))
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
        """Bytes of Adam's moments; 0 until the first step is made or a checkpoint is loaded."""
        states = [value for adam in self.adams for state in adam.state.values() for value in state.values()]
        return sum(value.nbytes for value in states if isinstance(value, Tensor))

    def exact(self) -> dict[str, Tensor]:
        """The most precise weights there are, by name, for a teacher to follow; bf16 under stochastic rounding."""
        return {n: m.detach() for n, m in self.masters.items()}

    def state_dict(self) -> OptimizerState:
        states: list[AdamState] = [
            {"state": saved["state"], "param_groups": saved["param_groups"]}
            for saved in (adam.state_dict() for adam in self.adams)
        ]
        return {"adam": states, "names": list(self.masters), "masters": self.own_masters()}

    def own_masters(self) -> dict[str, Tensor]:
        """The fp32 masters of narrower parameters, by name."""
        return {n: m.detach() for n, m in self.masters.items() if m is not self.params[n]}

    def moments(self) -> dict[str, Moments]:
        """Adam's state by parameter; nothing for those that have not been moved yet."""
        found: dict[str, list[dict[str, Tensor]]] = {}
        for name, _, param, adam, *_ in self.moved:
            if state := adam.state.get(param):
                found.setdefault(name, []).append(state)
        return {
            name: {
                "exp_avg": torch.cat([each["exp_avg"].reshape(-1) for each in states]),
                "exp_avg_sq": torch.cat([each["exp_avg_sq"].reshape(-1) for each in states]),
                "step": float(states[0]["step"]),
            }
            for name, states in found.items()
        }

    @torch.no_grad()
    def load_moments(self, moments: Mapping[str, Moments], masters: Mapping[str, Tensor]) -> None:
        """Restore `moments` and masters."""
        states: dict[int, dict[int, dict[str, Tensor]]] = {}
        for i, (name, at, param, adam, *_) in enumerate(self.moved):
            if (each := moments.get(name)) is not None:
                shape = (-1,) if self.pieces else param.shape
                state = {kind: each[kind].reshape(-1)[at].reshape(shape).clone() for kind in ("exp_avg", "exp_avg_sq")}
                number = self.adams.index(adam)
                states.setdefault(number, {})[0 if self.pieces else i] = {"step": torch.tensor(each["step"]), **state}
        for number, state_of in states.items():
            adam = self.adams[number]
            adam.load_state_dict({"state": state_of, "param_groups": adam.state_dict()["param_groups"]})
        for name, master in masters.items():
            self.masters[name].copy_(master.reshape(self.masters[name].shape))
            self.params[name].copy_(self.masters[name])

    def load_state_dict(self, state: OptimizerState) -> None:
        """Restore what `state_dict` gave; `ValueError` where it belongs to other parameters."""
        if state["names"] != list(self.masters) or len(state["adam"]) != len(self.adams):
            raise ValueError("the optimizer state belongs to other parameters")
        for adam, saved in zip(self.adams, state["adam"], strict=True):
            groups = [group | self._settings() for group in saved["param_groups"]]  # which may have changed since
            adam.load_state_dict({"state": saved["state"], "param_groups": groups})
        with torch.no_grad():
            for name, master in state["masters"].items():
                self.masters[name].copy_(master)
                self.params[name].copy_(self.masters[name])


def adamw_8bit() -> Callable[..., torch.optim.Optimizer]:
    """AdamW with 8-bit state, by bitsandbytes; `UsageError` where that is not installed."""
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise UsageError("train.optimizer=adamw8bit needs bitsandbytes", "pip install 'sdft-cli[memory]'") from error
    adamw: Callable[..., torch.optim.Optimizer] = AdamW8bit
    return adamw


def learning_rate(settings: Train, step: int, steps: int) -> float:
    """The rate of optimizer step ``step`` (from 0) of ``steps``: a linear warm-up, then the schedule."""
    warm_up = warm_up_steps(settings, steps)
    if step < warm_up:
        return settings.lr * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, steps - warm_up)
    shape = {"constant": 1.0, "linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}
    return settings.lr * shape[settings.schedule]
