"""Stochastic rounding to bf16: up or down with probabilities that make the rounded value right on average.

The neighbours of a bf16 number near 1 are 0.4 to 0.8 % away. Under rounding to nearest, what moves in smaller steps
never moves; rounded up with probability (x - low) / (high - low), the mean is x.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: fp32 has 16 more bits of mantissa than bf16.
BITS = 16


class Draws(NamedTuple):
    """The random numbers of the part ``at`` of ``size`` elements, which a seed names: so a rank that has only that part
    draws for it what a process that has all of them would."""

    seed: int
    size: int
    at: slice

    def bits(self, device: torch.device) -> Tensor:
        """Uniform draws from [0, 2^16) as int32, one for each element of the part."""
        generator = torch.Generator(device).manual_seed(self.seed)
        drawn = torch.empty(self.size, dtype=torch.int32, device=device).random_(0, 1 << BITS, generator=generator)
        return drawn[self.at]


def round_to_bf16(wide: Tensor, draw: Tensor) -> Tensor:
    """fp32 ``wide`` as bf16, rounded by ``draw``, uniform int32 numbers of [0, 2^16) in its shape; infinities and NaN
    stay.

    Read as an integer, an fp32 number's magnitude keeps its order, so adding a uniform draw from [0, 2^16) and dropping
    the lowest 16 bits rounds away from zero with a probability of those bits / 2^16.
    """
    bits = wide.view(torch.int32)
    rounded = (draw + bits).bitwise_and_(-(1 << BITS)).view(torch.float32)
    return torch.where(wide.isfinite(), rounded, wide).to(torch.bfloat16)
