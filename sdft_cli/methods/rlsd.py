"""RLSD (arXiv 2604.03128): GRPO decides the direction, a teacher that knows the answer how much each token counts.

A_t = A * sg( (1 - s) + s * clip(exp(sign(A) D_t), 1 - 0.2, 1 + 0.2) ),   D_t = log p_T(y_t) - log p_S(y_t)

in place of A in GRPO's loss; s falls from 0.5 to 0 over 50 steps, after which it is GRPO. The teacher is the student of
the last 20th step and sees the final answer alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sdft_cli.config.recipe import Clip, Method, Objective, Reward, Sampler, Teacher, Views
from sdft_cli.config.sections import Section
from sdft_cli.losses.factors import Factor, Tokens

if TYPE_CHECKING:
    from torch import Tensor


class CreditSettings(Section):
    """``share`` s of the advantage is spread by the teacher's ratio, which is cut at 1 - ``clip`` and 1 + ``clip``;
    it falls linearly to 0 over ``steps`` optimizer steps (0: it stays)."""

    share: float = Field(0.5, ge=0, le=1)
    clip: float = Field(0.2, ge=0, lt=1)
    steps: int = Field(50, ge=0)


def weigh(tokens: Tokens, settings: CreditSettings) -> Tensor:
    """(1 - s) + s * clip(exp(sign(A) D), 1 - e, 1 + e), [C]."""
    log_ratio_C = tokens.teacher_logprob_C - tokens.logprob_C
    ratio_C = (tokens.advantage_C.sign() * log_ratio_C).exp()
    clipped_C = ratio_C.clamp(1 - settings.clip, 1 + settings.clip)
    return (1 - settings.share) + settings.share * clipped_C


def falling(settings: CreditSettings, step: int) -> CreditSettings | None:
    """The share at a step; without one the factor is 1, and the teacher need not be asked."""
    left = max(0.0, 1 - step / settings.steps) if settings.steps else 1.0
    share = settings.share * left
    return settings.model_copy(update={"share": share}) if share else None


FACTOR = Factor(
    name="reward_credit",
    summary="the advantage spread over a completion's tokens by a teacher that knows the answer",
    weigh=weigh,
    settings=CreditSettings,
    needs=("reward", "teacher"),
    schedule=falling,
)

METHOD = Method(
    name="rlsd",
    summary="GRPO whose credit is spread over a completion's tokens by a teacher that knows the answer",
    paper="arXiv 2604.03128",
    formula="GRPO with A_t = A ((1-s) + s clip(exp(sign(A) D_t), 0.8, 1.2)), s: 0.5 -> 0 over 50 steps",
    needs=("prompt", "answer"),
    sampler=Sampler(source="student", n=8, temperature=1.0),
    views=Views(student="prompt", teacher="answer"),
    teacher=Teacher(start="student", update_rate=1.0, update_every=20),
    reward=Reward(),
    objective=Objective(
        target="token",
        factors=("group_advantage", FACTOR.name),
        factor_settings={FACTOR.name: {"share": 0.5, "clip": 0.2, "steps": 50}},
        clip=Clip(),
        reduction="token_mean",
    ),
    train={"lr": 1e-6, "batch": 64, "epochs": 1},
)
