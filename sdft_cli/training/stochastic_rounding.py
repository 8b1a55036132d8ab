"""Stochastic rounding to bf16: up or down with chances that make the rounded value right on average.

A bf16 number near 1 has neighbours 0.4 to 0.8 % away. Rounded to the nearest one, what moves in smaller steps stands
still; rounded up with the chance (x - low) / (high - low), its mean is x.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: fp32 has 16 bits of mantissa more than bf16.
BITS = 16


def round_to_bf16(wide: Tensor, generator: torch.Generator) -> Tensor:
    """fp32 ``wide`` in bf16, rounded by ``generator``'s draws (on the same device); infinities stay, NaN stays NaN.

    The bits of an fp32 number's magnitude are ordered like the number, so adding a uniform draw from [0, 2^16) and
    cutting the lowest 16 bits off rounds away from zero with the chance that the cut part is of 2^16.
    """
    bits = wide.view(torch.int32)
    draw = torch.empty_like(bits).random_(0, 1 << BITS, generator=generator)
    rounded = draw.add_(bits).bitwise_and_(-(1 << BITS)).view(torch.float32)
    return torch.where(wide.isfinite(), rounded, wide).to(torch.bfloat16)
