"""Records of what is measured in nats per token: losses of given texts, and divergences between two models."""

from __future__ import annotations

from typing import Literal, NotRequired

from sdft_cli.config.json_files import Amount, Count, Ends, Record, Share


class TokenLoss(Record):
    """Mean negative log-likelihood in nats per token of what rows should be answered with, after the student's prompt.

    ``of`` tells what that is: the rows' demonstrations, or their gold answers where no row has a demonstration.
    ``tokens`` and ``rows`` count what the mean is over, ``left_out`` the rows without either, or too long for the
    model's window; ``interval`` is a 95 % interval over rows.
    """

    value: Amount
    tokens: Count
    rows: Count
    left_out: Count
    split: Literal["validation", "test"]
    of: Literal["demonstrations", "answers"]
    interval: NotRequired[Ends | None]


class MeanValue(Record):
    """A mean with its 95 % interval; None where one cannot be given."""

    value: float
    interval: tuple[float, float] | None


class Divergences(Record):
    """Mean divergences in nats per token. ``forward`` is KL(teacher || student), ``reverse`` KL(student || teacher);
    ``forward_after_skip`` leaves out the first ``skip_first`` tokens of each completion (None: nothing would be left,
    or nothing is skipped)."""

    forward: MeanValue
    reverse: MeanValue
    forward_after_skip: MeanValue | None
    skip_first: Count
    completions: Count
    tokens: Count


class BaseDivergence(Record):
    """``to_base`` is KL(model || base), ``from_base`` KL(base || model), in nats per token of the completions."""

    to_base: MeanValue
    from_base: MeanValue
    completions: Count
    tokens: Count


class SkipFirstFacts(Record):
    """What ``objective.skip_first=auto`` came to before a phase's first step (`training.first_tokens`): ``share`` of
    the KL that lies at the first tokens, and ``kl`` there, of ``rows`` completions, of which ``answer_tokens`` counted
    on average (none of these where no completion could be measured); the mean length of demonstrations, if any."""

    skip_first: Count
    rows: Count
    share: NotRequired[Share]
    kl: NotRequired[Amount]
    answer_tokens: NotRequired[Amount]
    demonstration_tokens: Amount | None
    why: str
