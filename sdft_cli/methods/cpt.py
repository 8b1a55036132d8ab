"""Continual pre-training: the articles themselves as raw text, every token a target.

L = mean over tokens of -log p_S(x_t | x_<t),   texts packed end to end in blocks
"""

from sdft_cli.config.recipe import Method, Objective, Sampler

METHOD = Method(
    name="cpt",
    summary="negative log-likelihood of raw text, packed, every token a target",
    paper="-",
    formula="mean_t -log p_S(x_t|x<t), x = corpus",
    needs=("text",),
    sampler=Sampler(source="corpus", max_new_tokens=1024),
    objective=Objective(target="token", reduction="token_mean"),
    train={"lr": 5e-6, "batch": 32, "epochs": 4},
)
