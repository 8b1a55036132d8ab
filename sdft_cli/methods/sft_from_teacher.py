"""SFT on what the model itself writes when it is shown the demonstration, once, before the stage.

L = mean_t -log p_S(y_t | x, y_<t),   y ~ p_T(.|x, demonstration)
"""

from sdft_cli.config.recipe import Method, Objective, Sampler, Teacher, Views

METHOD = Method(
    name="sft-from-teacher",
    summary="SFT on the demonstration-shown model's own completions",
    paper="arXiv 2601.19897, Fig. 6",
    formula="mean_t -log p_S(y_t|x,y<t), y ~ p_T(.|x,demo) once",
    needs=("prompt", "demonstration"),
    sampler=Sampler(source="teacher", temperature=1.0),
    views=Views(student="prompt", teacher="demonstration"),
    teacher=Teacher(start="student", update_rate=0.0),
    objective=Objective(target="token", reduction="token_mean"),
    train={"lr": 1e-5, "batch": 32, "epochs": 2},
)
