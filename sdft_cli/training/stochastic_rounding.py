"""Stochastic rounding to bf16: up or down with probabilities that make the rounded value right on average.

The neighbours of a bf16 number near 1 are 0.4 to 0.8 % away. Under rounding to nearest, what moves in smaller steps
never moves; rounded up with probability (x - low) / (high - low), the mean is x.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: fp32 has 16 more bits of mantissa than bf16.
BITS = 16


def round_to_bf16(wide: Tensor, generator: torch.Generator) -> Tensor:
    """fp32 ``wide`` as bf16, rounded by draws of ``generator`` (on the same device); infinities and NaN stay.

    Read as an integer, an fp32 number's magnitude keeps its order, so adding a uniform draw from [0, 2^16) and dropping
    the lowest 16 bits rounds away from zero with a probability of those bits / 2^16.
    """
    bits = wide.view(torch.int32)
    draw = torch.empty_like(bits).random_(0, 1 << BITS, generator=generator)
    rounded = draw.add_(bits).bitwise_and_(-(1 << BITS)).view(torch.float32)
    return torch.where(wide.isfinite(), rounded, wide).to(torch.bfloat16)
