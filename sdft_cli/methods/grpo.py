"""Group Relative Policy Optimization (arXiv 2402.03300, with DAPO's bounds and reduction, arXiv 2503.14476).

L = mean over all tokens of -min( min(r, 3) A, clip(r, 0.8, 1.28) A ),   A = (R - mean R) / (std R + eps) in the group

R is the task's own grade; r the ratio of new to old policy, 1 in the first update of a batch. No KL term.
"""

from sdft_cli.config.recipe import Clip, Method, Objective, Reward, Sampler, Views

METHOD = Method(
    name="grpo",
    summary="policy gradient with advantages relative to the prompt's other completions",
    paper="arXiv 2402.03300",
    formula="mean_t -min(min(r,3) A, clip(r,0.8,1.28) A), A = (R - mean)/(std + eps) in the group",
    needs=("prompt", "answer"),
    sampler=Sampler(source="student", n=8, temperature=1.0),
    views=Views(student="prompt"),
    reward=Reward(),
    objective=Objective(target="token", factors=("group_advantage",), clip=Clip(), reduction="token_mean"),
    train={"lr": 1e-6, "batch": 64, "epochs": 1},
)
