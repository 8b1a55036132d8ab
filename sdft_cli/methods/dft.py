"""Dynamic Fine-Tuning (arXiv 2508.05629): SFT whose tokens weigh as much as the student believes in them.

L = mean_t sg(p_S(y_t)) * -log p_S(y_t | x, y_<t),   y = the demonstration; its gradient is that of -p_S(y_t)
"""

from sdft_cli.config.recipe import Method, Objective, Sampler, Views

METHOD = Method(
    name="dft",
    summary="SFT with every token weighted by the student's own probability of it",
    paper="arXiv 2508.05629",
    formula="mean_t sg(p_S(y_t)) * -log p_S(y_t|x,y<t), y = demonstration",
    needs=("prompt", "demonstration"),
    sampler=Sampler(source="dataset"),
    views=Views(student="prompt"),
    objective=Objective(target="token", factors=("student_prob",), reduction="token_mean"),
    train={"lr": 1e-5, "batch": 32, "epochs": 2},
)
