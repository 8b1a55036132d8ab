"""pass@k: the chance that at least one of k completions of a question is right, estimated from n >= k of them. Pure.

The unbiased estimator of Chen et al. 2021 (arXiv 2107.03374), 1 - C(n - c, k) / C(n, k), is written as a product whose
factors all lie between 0 and 1, because the binomials themselves overflow. 1 - (1 - c/n)^k would be biased.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sdft_cli.stats import bootstrap
from sdft_cli.stats.intervals import Interval

#: The largest k on offer: beyond it, luck in a few questions decides the estimate.
MOST = 128


def pass_at(k: int, n: int, correct: int) -> float:
    """pass@k of one question with ``correct`` of ``n`` completions right; `ValueError` unless 1 <= k <= n."""
    if not (1 <= k <= n and 0 <= correct <= n):
        raise ValueError(f"pass@{k} cannot be estimated from {correct} of {n}")
    if n - correct < k:
        return 1.0  # any k of them include a right one
    return 1.0 - math.prod(1.0 - k / i for i in range(n - correct + 1, n + 1))


def mean_pass_at(k: int, counts: Sequence[tuple[int, int]]) -> tuple[float, Interval] | None:
    """The mean over questions, each (n, correct), and its 95 % interval; None where no question has k completions.

    Questions with fewer than k scored completions are left out. The interval resamples questions, and is never narrower
    than the rule of three (3 / questions) allows.
    """
    values = [pass_at(k, n, correct) for n, correct in counts if n >= k]
    if not values:
        return None
    mean, draws = bootstrap.ratio(values, [1.0] * len(values))
    ends = bootstrap.interval(draws, mean, least=3 / len(values), lowest=0.0)
    return (mean, ends) if ends else None
