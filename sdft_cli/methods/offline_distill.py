"""Offline distillation: SDFT's teacher, but on completions that it wrote once, before the stage.

L = mean_t KL( p_T(.|x, demonstration, y_<t) || p_S(.|x, y_<t) ),   y ~ p_T(.|x, demonstration), teacher frozen
"""

from sdft_cli.config.recipe import Method, Objective, Sampler, Teacher, Views

METHOD = Method(
    name="offline-distill",
    summary="the student fits the demonstration-shown model's distribution on that model's own completions",
    paper="arXiv 2601.19897, Fig. 6",
    formula="mean_t KL(p_T(.|x,demo,y<t) || p_S(.|x,y<t)), y ~ p_T once; teacher frozen",
    needs=("prompt", "demonstration"),
    sampler=Sampler(source="teacher", temperature=1.0),
    views=Views(student="prompt", teacher="demonstration"),
    teacher=Teacher(start="student", update_rate=0.0),
    objective=Objective(target="teacher", divergence="forward_kl", skip_first="auto", reduction="sequence_mean"),
    train={"lr": 1e-5, "batch": 32, "epochs": 2},
)
