"""Self-Distillation Fine-Tuning (arXiv 2601.19897): the model, shown a demonstration, is its own teacher.

The student, not shown it, writes a completion y; the teacher's token distributions on y are distilled back:

    L = E_{y ~ p_S(.|x)} mean_t KL( p_T(.|x, demonstration, y_<t) || p_S(.|x, y_<t) )

The teacher starts as the student of this stage and follows it as an exponential moving average. Forward KL,
because the paper's results use it (its Eq. 1 says reverse; the authors corrected this in public).
"""

from sdft_cli.config.recipe import Method, Objective, Sampler, Teacher, Views

METHOD = Method(
    name="sdft",
    summary="on-policy distillation from the model itself, shown a demonstration",
    paper="arXiv 2601.19897",
    formula="E_{y~p_S} mean_t KL(p_T(.|x,demo,y<t) || p_S(.|x,y<t)); teacher = EMA of the student",
    needs=("prompt", "demonstration"),
    sampler=Sampler(source="student", temperature=1.0),
    views=Views(student="prompt", teacher="demonstration"),
    teacher=Teacher(start="student", update_rate=0.01),
    objective=Objective(
        target="teacher", divergence="forward_kl", skip_first="auto", importance_cap=2.0, reduction="sequence_mean"
    ),
    train={"lr": 1e-5, "batch": 32, "epochs": 2},
)
