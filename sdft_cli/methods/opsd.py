"""On-Policy Self-Distillation (arXiv 2601.18734): the initial policy, shown the solution, corrects the student.

L = E_{y ~ p_S(.|x)} mean over all tokens of sum_v min( p_T(v) log(p_T(v) / p_S(v)), tau ),   logits / 1.1

The clip is on every vocabulary entry, before the sum, so the loss can be negative. In stage k of a sequence the teacher
is the policy at the start of that stage.
"""

from sdft_cli.config.recipe import Method, Objective, Sampler, Teacher, Views

METHOD = Method(
    name="opsd",
    summary="on-policy distillation from the initial policy, shown the reference solution; entries clipped",
    paper="arXiv 2601.18734",
    formula="E_{y~p_S} mean_t sum_v min(p_T log(p_T/p_S), 0.05); teacher = policy at the stage's start",
    needs=("prompt", "demonstration"),
    sampler=Sampler(source="student", temperature=1.1, top_p=0.95, top_k=20),
    views=Views(student="prompt", teacher="reference"),
    teacher=Teacher(start="student", update_rate=0.0),
    objective=Objective(
        target="teacher", divergence="forward_kl", logits_temperature=1.1, entry_clip=0.05, reduction="token_mean"
    ),
    train={"lr": 5e-6, "batch": 32, "max_steps": 100, "grad_norm": 0.1},
    lora={"rank": 64, "alpha": 128},
)
