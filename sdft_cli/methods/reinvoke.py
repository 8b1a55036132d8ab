"""SFT, then re-invocation: what SFT overwrote is distilled back from the model before it, on prompts of no task.

1.  L = mean_t -log p_S(y_t | x, y_<t),   y = the demonstration
2.  L = E_{y ~ p_S(.|g)} mean_t KL( p_S(.|g, y_<t) || p_B(.|g, y_<t) ),   g = a general prompt, B = the student before 1

The second phase is on-policy distillation with reverse KL, sampled token by token; teacher frozen, same prompt for both
(thinkingmachines.ai/blog/on-policy-distillation: LoRA r128, lr 1e-4, 4 samples of 64 prompts, about 100 steps).
"""

from sdft_cli.config.recipe import Method, Objective, Phase, PhaseTrain, Sampler, Teacher, Views

METHOD = Method(
    name="reinvoke",
    summary="SFT, then on-policy distillation from the model before it, on general prompts",
    paper="blog: On-Policy Distillation",
    formula="SFT; then E_{y~p_S(.|g)} mean_t KL(p_S(.|g,y<t) || p_before(.|g,y<t)), g = general prompts",
    needs=("prompt", "demonstration"),
    sampler=Sampler(source="dataset"),
    views=Views(student="prompt"),
    objective=Objective(target="token", reduction="token_mean"),
    train={"lr": 1e-5, "batch": 32, "epochs": 2},
    second_phase=Phase(
        prompts="general",
        sampler=Sampler(source="student", n=4, temperature=1.0),
        views=Views(student="prompt", teacher="prompt"),
        teacher=Teacher(start="before", update_rate=0.0),
        objective=Objective(
            target="teacher", divergence="reverse_kl", estimator="sampled", importance_cap=2.0, reduction="token_mean"
        ),
        train=PhaseTrain(max_steps=100),
    ),
)
