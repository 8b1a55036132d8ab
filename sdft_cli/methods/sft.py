"""Supervised fine-tuning: the baseline that overwrites.

L = mean over the response's tokens of -log p_S(y_t | x, y_<t),   y = the demonstration
"""

from sdft_cli.config.recipe import Method, Objective, Sampler, Views

METHOD = Method(
    name="sft",
    summary="token-mean negative log-likelihood of the demonstration",
    paper="-",
    formula="mean_t -log p_S(y_t|x,y<t), y = demonstration",
    needs=("prompt", "demonstration"),
    sampler=Sampler(source="dataset"),
    views=Views(student="prompt"),
    objective=Objective(target="token", reduction="token_mean"),
    train={"lr": 1e-5, "batch": 32, "epochs": 2},
)
