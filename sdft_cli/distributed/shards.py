"""A model whose weights lie in shards, one on each rank: FSDP2, for training passes alone.

The model that is sampled and looked at is whole on every rank, except during passes. Gradients are computed with its
sharded twin: each layer's weights are gathered when it is passed, and given back after it. They are summed over the
ranks, not averaged: the loss is weighted by the whole batch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

T = TypeVar("T")


class Shards:
    """The sharded twin of ``whole``, a model that every rank has in full, with equal weights.

    ``local`` are this rank's parts of the trainable parameters, by name, of those that it has a part of. Their storage
    is that of the shards: what moves them moves the model.
    """

    def __init__(self, whole: nn.Module, layers: Callable[[nn.Module], bool]):
        from torch.distributed import get_world_size
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import (
            FSDPModule,
            MixedPrecisionPolicy,
            fully_shard,
            register_fsdp_forward_method,
        )

        self.whole, self.device = whole, next(whole.parameters()).device
        self.mesh = init_device_mesh(self.device.type, (get_world_size(),))
        self.core = _without_weights(whole)
        precision = MixedPrecisionPolicy(reduce_dtype=torch.float32)  # the sum over ranks is not rounded to bf16
        for module in [m for m in self.core.modules() if layers(m)]:
            fully_shard(module, mesh=self.mesh, mp_policy=precision)
        fully_shard(self.core, mesh=self.mesh, mp_policy=precision)
        self.parts = [m for m in self.core.modules() if isinstance(m, FSDPModule)]
        for part in self.parts:
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)
        cast(Any, self.core).within = _call
        register_fsdp_forward_method(self.core, "within")
        self.core.to_empty(device=self.device)
        self.scatter()
        mine = {n: nn.Parameter(p.to_local()) for n, p in self._sharded() if p.requires_grad}
        self.local = {name: part for name, part in mine.items() if part.numel()}

    def _sharded(self) -> Iterator[tuple[str, DTensor]]:
        return cast("Iterator[tuple[str, DTensor]]", self.core.named_parameters())

    def inside(self, function: Callable[[], T]) -> T:
        """``function``, which passes the decoder and reads the head, as the forward pass of the whole model: with a
        loss's backward pass, the only way in which all weights are where they are needed."""
        result: T = cast(Any, self.core).within(function)
        return result

    def reshard(self) -> None:
        """Give back what is gathered: whoever writes to shards must be read in the next pass."""
        for part in self.parts:
            part.reshard()

    # weights ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def scatter(self) -> None:
        """Take over the weights and buffers of the whole model."""
        from torch.distributed.tensor import distribute_tensor

        self.reshard()
        wholes = dict(self.whole.named_parameters())
        for name, param in self._sharded():
            # every rank has the whole tensor: cutting it takes no communication
            part = distribute_tensor(wholes[name].detach(), self.mesh, param.placements, src_data_rank=None)
            param.to_local().copy_(part.to_local())
        buffers = dict(self.whole.named_buffers())
        for name, buffer in self.core.named_buffers():
            buffer.copy_(buffers[name])

    @torch.no_grad()
    def gather(self) -> None:
        """Write the shards into the whole model, on every rank."""
        self.reshard()
        wholes = dict(self.whole.named_parameters())
        for name, param in self._sharded():
            if param.requires_grad:
                full = param.full_tensor()
                if wholes[name].numel() == full.numel():
                    wholes[name].copy_(full)
                else:  # it had been released
                    wholes[name].data = full

    def release(self) -> None:
        """Free the whole model's trainable weights until `gather`."""
        for param in self.whole.parameters():
            if param.requires_grad:
                param.data = param.data.new_empty(0)

    def take_gradients(self) -> None:
        """Hand the gradients of the shards to `local`."""
        for name, param in self._sharded():
            if name in self.local and param.grad is not None:
                self.local[name].grad = cast("DTensor", param.grad).to_local()
                param.grad = None

    def discard(self) -> None:
        """Clear the gradients of the shards."""
        for _, param in self._sharded():
            param.grad = None

    def gathered(self, name: str) -> Tensor:
        """The parameter ``name`` as a whole, on every rank; a new tensor."""
        return dict(self._sharded())[name].full_tensor().detach()

    @property
    def trained(self) -> dict[str, DTensor]:
        """The trainable parameters, by name; their shape is that of the whole."""
        return {name: param for name, param in self._sharded() if param.requires_grad}

    def as_sharded(self, name: str, part: Tensor | None, dtype: torch.dtype) -> DTensor:
        """``part`` as this rank's of a tensor that is cut as the parameter ``name`` is; None where it has none."""
        from torch.distributed.tensor import DTensor

        param = self.trained[name]
        shape = param.to_local().shape
        local = torch.empty(shape, dtype=dtype, device=self.device) if part is None else part.view(shape)
        return DTensor.from_local(
            local, self.mesh, param.placements, run_check=False, shape=param.shape, stride=param.stride()
        )

    def start(self, name: str) -> int:
        """Where this rank's part begins in the flat parameter ``name``: rows are cut as `torch.chunk` does."""
        shape = self.trained[name].shape
        rows = -(-shape[0] // self.mesh.size())
        return min(self.mesh.get_local_rank() * rows, shape[0]) * math.prod(shape[1:])

    def part_of(self, name: str, whole: Tensor) -> Tensor:
        """This rank's part of ``whole``, cut as the parameter ``name`` is."""
        from torch.distributed.tensor import distribute_tensor

        param = dict(self._sharded())[name]
        return distribute_tensor(whole, self.mesh, param.placements, src_data_rank=None).to_local()

    @contextmanager
    def lent(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Within it, passes compute with ``weights``, this rank's parts by name, in place of the model's own."""
        self.reshard()
        held = {name: self.local[name].detach().clone() for name in weights}
        try:
            _put(self.local, weights)
            yield
        finally:
            self.reshard()
            _put(self.local, held)


@torch.no_grad()
def _put(local: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    for name, part in weights.items():
        local[name].copy_(part.view(local[name].shape))


def norm_of_all(mine: Tensor) -> Tensor:
    """The norm of what all ranks have, of which this rank's part has the norm ``mine``."""
    squared = mine.detach().square()
    torch.distributed.all_reduce(squared)
    return squared.sqrt()


def _call(function: Callable[[], T]) -> T:
    return function()


def _without_weights(whole: nn.Module) -> nn.Module:
    """A copy with buffers, but parameters that have no storage; tied ones stay tied."""
    memo: dict[int, Any] = {}
    for param in whole.parameters():
        memo[id(param)] = nn.Parameter(torch.empty_like(param, device="meta"), param.requires_grad)
    return copy.deepcopy(whole, memo)
