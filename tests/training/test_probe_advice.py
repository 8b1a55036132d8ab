"""The rules of a probe, by tables of made-up figures."""

import pytest
from support.probe_figures import gain, task, view, written

from sdft_cli.training.probe_advice import advise, best_view, contenders, verdict


def at(*clean: float) -> dict:
    """The teacher, right on all rows greedily, sampled at temperature 1 and at lower ones."""
    points = [
        {"temperature": t, "accuracy": share, "interval": None, "n": 16, "ended": 1.0, "clean": share}
        for t, share in zip((1.0, 0.7, 0.5), clean, strict=False)
    ]
    return {"view": "", "keys": KEYS, "greedy": 1.0, "points": points}


def kinds(of: dict) -> set[str]:
    return {warning["what"] for warning in advise(of)}


# --- the view --------------------------------------------------------------------------------------------------------

KEYS = ["sampler.temperature", "objective.logits_temperature"]
PAPER, PLAIN, ANSWER, TURN = "demonstration", "demonstration-plain", "answer", "demonstration-turn"
#: No better than a student at 0.
USELESS = {"right": 0.05, "gain": gain(0.05, -0.1, 0.2)}


@pytest.mark.parametrize(
    ("views", "want"),
    [
        ([view(PAPER)], PAPER),
        # clean beyond noise: SmolLM2 under the paper's view runs on half of the time, under the plain one never
        ([view(PAPER, 0.94, clean=0.5), view(PLAIN, 1.0, clean_gain=gain(0.5, 0.29, 0.71))], PLAIN),
        # within noise the recipe's own view stays
        ([view(PAPER, 0.9), view(PLAIN, 1.0, clean_gain=gain(0.1, -0.02, 0.22))], PAPER),
        # an own view that does not help gives way, noise or not
        ([view(PAPER, **USELESS), view(PLAIN, 0.5, clean_gain=gain(0.45, -0.1, 0.7))], PLAIN),
        # the gold answer alone does not show what an answer should look like: only where no demonstration helps
        ([view(PAPER, **USELESS), view(PLAIN, 0.6), view(ANSWER, 1.0, demonstrates=False)], PLAIN),
        ([view(PAPER, **USELESS), view(ANSWER, 1.0, demonstrates=False)], ANSWER),
        # about equal greedily: the one whose teacher has more clean completions when sampled, which is what is learned
        ([view(PAPER, **USELESS), view(PLAIN, 1.0, sampled=at(0.4)), view(TURN, 0.9, sampled=at(0.7))], TURN),
        ([view(PLAIN, 1.0, sampled=at(0.4)), view(TURN, 0.9, sampled=at(0.7))], TURN),
        # the recipe's own keeps its place where it is nearly as good, or nothing is known of it
        ([view(PLAIN, 0.9, sampled=at(0.5)), view(TURN, 1.0, sampled=at(0.7))], PLAIN),
        ([view(PLAIN, 0.9), view(TURN, 1.0, sampled=at(0.7))], PLAIN),
        # compared at the lowest temperature at which both were sampled; the chosen one is tried at lower ones still
        ([view(PLAIN, 1.0, sampled=at(0.4, 0.4)), view(TURN, 1.0, sampled=at(0.0, 0.7))], TURN),
        ([view(PLAIN, 1.0, sampled=at(0.4, 0.4, 0.9)), view(TURN, 1.0, sampled=at(0.0, 0.7))], TURN),
        # cleaner beyond noise greedily goes before
        ([view(PLAIN, 0.8, sampled=at(0.7)), view(TURN, 1.0, sampled=at(0.5), clean_gain=gain(0.2, 0.05, 0.4))], TURN),
        # what is much less clean greedily is not looked at
        ([view(PLAIN, 1.0, sampled=at(0.4)), view(TURN, 0.5, sampled=at(0.5))], PLAIN),
        # where nothing helps, or nothing is scored, there is nothing to choose
        ([view(PAPER, **USELESS), view(PLAIN, **USELESS)], PAPER),
        ([view(PAPER, None), view(PLAIN, None)], PAPER),
    ],
)
def test_the_view_with_the_most_clean_completions_beyond_noise(views: list, want: str) -> None:
    assert best_view(views)["view"] == want


# --- the verdict -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figures", "want"),
    [
        (task(view(right=0.9)), "sdft"),
        (task(view(PAPER, 0.9, clean=0.3), view(PLAIN, 0.9, clean_gain=gain(0.6, 0.4, 0.8))), "sdft_with_another_view"),
        (task(view(right=0.4, gain=gain(0.4, 0.2, 0.6))), "teacher_limits"),
        # 0.05 of 24 rows is below a half beyond doubt: more rows would not help
        (task(view(**USELESS)), "teacher_no_better"),
        # a student at 0.5 and a teacher at 0.6 may be anything on 24 rows, but not on all rows that there are
        (task(view(right=0.6, gain=gain(0.1, -0.2, 0.4)), student=0.5), "undecided"),
        (task(view(right=0.6, gain=gain(0.1, -0.2, 0.4)), student=0.5, rows_there=24), "teacher_no_better"),
        # a gain that small is not worth more rows
        (task(view(right=0.6, gain=gain(0.0, -0.05, 0.05)), student=0.6), "teacher_no_better"),
        (task(view(right=1.0, gain=gain(0.0, -0.1, 0.1)), student=1.0), "student_solves"),
        (task(view(right=1.0, gain=gain(0.0, -0.6, 0.6)), rows=5, student=1.0), "undecided"),
        (task(view(right=None)), "unscored"),
    ],
)
def test_the_verdict(figures: dict, want: str) -> None:
    found = verdict(figures)
    assert found["kind"] == want and found["sentence"] and found["todo"]
    assert (found["view"] is not None) == (want in ("sdft", "sdft_with_another_view", "teacher_limits"))


def test_a_verdict_says_its_numbers() -> None:
    sentence = verdict(task(view(PAPER, 0.9, clean=0.3), student=0.1))["sentence"]
    assert "right on 0.90 [" in sentence and "the student on 0.10 [" in sentence
    assert "only 0.30 are right, end by themselves" in sentence
    other = verdict(task(view(PAPER, 0.9, clean=0.3), view(PLAIN, 0.9, clean_gain=gain(0.6, 0.4, 0.8))))
    assert other["view"] == PLAIN and f"0.30 with {PAPER}" in other["sentence"] and PLAIN in other["todo"]


def test_where_no_view_helps_the_best_of_them_is_quoted() -> None:
    low, mid = view(PAPER, None), view(PLAIN, 0.6, gain=gain(0.1, -0.2, 0.4))
    found = verdict(task(low, mid, student=0.5))
    assert found["kind"] == "undecided" and "right on 0.60" in found["sentence"]
    assert found["sentence"].endswith("anything in [-0.200, +0.400]") and found["todo"] == "raise --limit"
    found = verdict(task(low, mid, student=0.5, rows_there=24))
    assert found["sentence"].startswith("the teacher is no better than the student, with any view: ")


# --- warnings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "student", "teacher", "want"),
    [
        ((0.1, 0.5), 0.4, 0.7, set()),
        ((0.0, 0.5), 0.4, 0.7, {"teacher_not_better"}),
        ((-0.3, 0.1), 0.4, 0.3, {"teacher_not_better", "teacher_weak"}),
        ((-0.5, -0.1), 0.9, 0.6, {"teacher_worse"}),
        ((-0.5, 0.0), 0.9, 0.6, {"teacher_not_better"}),
        ((-0.1, 0.1), 0.96, 0.96, {"teacher_not_better", "student_solves"}),
    ],
)
def test_warnings_depend_on_the_accuracies(interval: tuple, student: float, teacher: float, want: set[str]) -> None:
    own = view(right=teacher, gain=gain(teacher - student, *interval))
    figures = task(own, student=student)
    figures["prompts"] |= {"too_long": 5, "rows": 100}  # 5 % are not many
    assert kinds(figures) == want
    assert all(w["message"] and w["hint"] and w["task"] == "t" for w in advise(figures))


def test_a_teacher_that_runs_on_or_repeats_its_prompt_is_warned_about() -> None:
    phrases = ["classic example of", "an example of"]
    leaked = {"share": 0.5, "completions": 24, "phrases": phrases}
    found = advise(task(view(lengths=written(ended=0.5), leakage=leaked)))
    assert {warning["what"] for warning in found} == {"teacher_cut", "leakage"}
    assert "50% of the teacher's completions are cut at 48 tokens" in found[0]["message"]
    assert "'classic example of', 'an example of'" in found[1]["message"]
    better = view(PLAIN, 0.9, clean_gain=gain(0.6, 0.4, 0.8))
    found = advise(task(view(lengths=written(ended=0.5), leakage=leaked, clean=0.3), better))
    assert [warning["hint"] for warning in found] == [f"set views.teacher={PLAIN}"] * 2
    assert not kinds(task(view(lengths=written(ended=0.9), leakage={**leaked, "share": 0.1})))


def test_a_teacher_that_is_right_greedily_alone_is_warned_about() -> None:
    def found(*rates: tuple[float, float], keys: list[str] = KEYS) -> list[dict]:
        points = [
            {"temperature": heat, "accuracy": right, "interval": None, "n": 16, "ended": 1.0} for heat, right in rates
        ]
        return advise(task(temperatures={"view": PAPER, "keys": keys, "greedy": 0.8, "points": points}))

    (warning,) = found((1.0, 0.12), (0.5, 0.7))
    assert warning["what"] == "teacher_flat"
    assert warning["hint"] == "set sampler.temperature=0.5 objective.logits_temperature=0.5"
    assert "right on 0.12 of 16 rows sampled at temperature 1, on 0.70 at 0.5; greedily on 0.80" in warning["message"]
    assert not found((1.0, 0.7))  # it keeps enough
    assert not found((1.0, 0.1), (0.5, 0.7), keys=[])  # nothing is learned from it, as in SFT
    (warning,) = found((1.0, 0.1))  # --quick
    assert warning["hint"] == "lower sampler.temperature and objective.logits_temperature"
    (warning,) = found((1.0, 0.1), (0.5, 0.1), (0.3, 0.0))
    assert warning["hint"] == "improve the demonstrations, or use a larger model"


def test_few_views_are_sampled_and_the_recipes_own_among_them() -> None:
    """Each costs completions: those that are about as clean as the best."""
    others = [view(f"v{k}", right) for k, right in enumerate((1.0, 0.95, 0.9, 0.5))]
    assert [v["view"] for v in contenders([view(PAPER, 0.85), *others])] == [PAPER, "v0", "v1"]
    assert [v["view"] for v in contenders([view(PAPER, 0.5), *others])] == ["v0", "v1", "v2"]
    assert [v["view"] for v in contenders([view(PAPER, **USELESS), view(ANSWER, 0.9, demonstrates=False)])] == [ANSWER]
    assert contenders([view(PAPER, **USELESS)]) == []


def test_the_verdict_says_how_often_sampled_completions_are_clean() -> None:
    found = verdict(task(view(PLAIN, 1.0, sampled=at(0.4)), view(TURN, 1.0, sampled=at(0.7))))
    assert found["view"] == TURN
    assert found["sentence"].endswith("when they are sampled, on 0.70, 0.40 with demonstration-plain")
