"""Self-Distillation Policy Optimization (arXiv 2601.20802): the teacher is shown what went right or wrong.

L = E_{y ~ p_S(.|x)} mean over all tokens of JSD_0.5( p_T(.|x, sibling or feedback, y_<t), p_S(.|x, y_<t) )

over the student's top 100 tokens and one entry for the rest. The teacher sees a successful completion of the same
prompt (never the row's own), or what the grader said of a failed one; a row with neither carries no signal.
"""

from sdft_cli.config.recipe import Method, Objective, Reward, Sampler, Teacher, Views

METHOD = Method(
    name="sdpo",
    summary="on-policy distillation from the model shown a successful sibling completion or feedback",
    paper="arXiv 2601.20802",
    formula="E_{y~p_S} mean_t JSD_0.5(p_T(.|x,sibling,y<t), p_S(.|x,y<t)) on top-100 + tail; teacher = EMA 0.05",
    needs=("prompt", "answer"),
    sampler=Sampler(source="student", n=8, temperature=1.0),
    views=Views(student="prompt", teacher="attempts"),
    teacher=Teacher(start="student", update_rate=0.05),
    reward=Reward(),
    objective=Objective(
        target="teacher",
        divergence="jsd",
        beta=0.5,
        divergence_top_k=100,
        support="student",
        tail="bucket",
        importance_cap=2.0,
        reduction="token_mean",
    ),
    train={"lr": 1e-5, "batch": 64, "epochs": 1},
)
