"""RLSD (arXiv 2604.03128): GRPO decides the direction, a teacher that knows the answer how much each token counts.

A_t = A * sg( (1 - s) + s * clip(exp(sign(A) D_t), 1 - 0.2, 1 + 0.2) ),   D_t = log p_T(y_t) - log p_S(y_t)

in place of A in GRPO's loss; s falls from 0.5 to 0 over 50 steps, after which it is GRPO. The teacher is the student of
the last 20th step and sees the final answer alone.
"""

from sdft_cli.config.recipe import Clip, Method, Objective, Reward, Sampler, Teacher, Views

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
        factors=("group_advantage", "evidence_ratio"),
        evidence_clip=0.2,
        evidence_share=0.5,
        evidence_steps=50,
        clip=Clip(),
        reduction="token_mean",
    ),
    train={"lr": 1e-6, "batch": 64, "epochs": 1},
)
