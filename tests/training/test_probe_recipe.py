"""The recommended recipe: its settings by made-up figures, and that its file is read as what it says."""

from pathlib import Path

import pytest
from support.probe_figures import gain, task, view, written

from sdft_cli.config.recipe import Recipe
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.training import probe_settings
from sdft_cli.training.probe_advice import verdict
from sdft_cli.training.probe_recipe import recommend
from sdft_cli.training.recipe_checks import check_recipe

PAPER, PLAIN = "demonstration", "demonstration-plain"


def recipe(*sets: str, **flags: object) -> Recipe:
    return assemble(None, {"tasks": ["t"], "model": "org/model", **flags}, list(sets))


def recommended(*tasks: dict, parameters: float = 135e6, base: Recipe | None = None):
    base = base or recipe()
    measured = {"tasks": list(tasks), "limit": 24, "seed": 0, "memory": {"parameters": parameters}}
    return recommend(base, measured, [verdict(each) for each in tasks])


def values(found) -> dict[str, object]:
    return {setting["key"]: setting["value"] for setting in found["settings"]}


# --- one task --------------------------------------------------------------------------------------------------------


def test_a_task_that_sdft_suits() -> None:
    found = recommended(task())
    want = {"tasks": ["t"], "method": "sdft", "views.teacher": PAPER, "objective.skip_first": 3, "train.lr": 5e-5}
    assert values(found).items() >= want.items() and not found["notes"]
    assert found["grid"] == {"train.lr": [2e-5, 5e-5, 1e-4]}
    assert all(s["reason"] for s in found["settings"] if s["key"].startswith(("views", "objective", "train")))


def test_another_view_for_one_that_rambles() -> None:
    better = view(PLAIN, 0.9, clean_gain=gain(0.6, 0.4, 0.8))
    found = recommended(task(view(PAPER, 0.9, clean=0.3), better))
    assert values(found)["views.teacher"] == PLAIN


def test_where_no_teacher_helps_sft_is_left() -> None:
    found = recommended(task(view(right=0.05, gain=gain(0.05, -0.1, 0.2))))
    assert values(found)["method"] == "sft" and "views.teacher" not in values(found)
    assert 'method = "sft"' in found["toml"]


def test_nothing_to_train() -> None:
    assert recommended(task(view(right=1.0, gain=gain(0.0, -0.1, 0.1)), student=1.0)) is None


def test_methods_that_learn_from_demonstrations_stay_and_others_become_sdft() -> None:
    for method, want in (("opsd", "opsd"), ("offline-distill", "offline-distill"), ("sft", "sdft"), ("grpo", "sdft")):
        found = recommended(task(), base=recipe(method=method))
        assert values(found)["method"] == want


# --- several tasks ---------------------------------------------------------------------------------------------------


def test_one_recipe_for_several_tasks_says_whose_compromise_it_is() -> None:
    short = {**view()["skip_first"], "skip_first": 0, "why": "80 % lie there"}
    better = {"clean_gain": gain(0.6, 0.4, 0.8)}
    one = task(view(PAPER, 0.9, clean=0.2), view(PLAIN, 0.9, **better, skip_first=short), name="one")
    two = task(view(PAPER, 0.8), view(PLAIN, 0.8, clean_gain=gain(0.0, -0.1, 0.1)), name="two")
    solved = task(view(right=1.0, gain=gain(0.0, -0.1, 0.1)), student=1.0, name="solved")
    useless = task(view(right=0.05, gain=gain(0.05, -0.1, 0.2)), name="useless")
    found = recommended(one, two, solved, useless)
    assert values(found)["tasks"] == ["one", "two"]
    assert values(found)["views.teacher"] == PLAIN  # for both together it has more clean completions
    assert values(found)["objective.skip_first"] == 0
    said = "\n".join(found["notes"])
    for note in (
        "objective.skip_first=0 serves all tasks; two alone would take 3",
        f"two alone would be better served by views.teacher={PAPER}",
        "solved is left out",
        "--continue RUN --tasks useless --method sft",
    ):
        assert note in said
    assert "note: solved is left out" in found["toml"]


# --- rates, steps, tokens --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "sets", "want"),
    [
        (2e6, [], (5e-5, 1e-4, 2e-4)),
        (135e6, [], (2e-5, 5e-5, 1e-4)),
        (1.5e9, [], (1e-5, 2e-5, 5e-5)),
        (7e9, [], (5e-6, 1e-5, 5e-5)),
        (7e9, ["rank=16"], (5e-5, 1e-4, 5e-4)),
        (7e9, ["lr=3e-5"], (1.5e-5, 3e-5, 6e-5)),
    ],
)
def test_rates_fall_with_size_and_adapters_take_ten_times_as_much(
    parameters: float, sets: list[str], want: tuple
) -> None:
    assert probe_settings.rates(recipe(*sets), int(parameters))[0] == want


@pytest.mark.parametrize(
    ("rows", "sets", "batch", "anew", "again"),
    [
        (5000, [], 32, 2, 2),
        (640, [], (32, 16), 5, 2),
        (600, [], 16, 3, 2),
        (220, [], 8, 4, 3),
        (60, [], 8, 14, 4),
        (20, [], 8, 20, 4),
        (220, ["batch=4"], 4, 2, 2),
    ],
)
def test_a_small_set_of_rows_gets_small_batches_and_more_passes(
    rows: int, sets: list[str], batch: int | tuple[int, int], anew: int, again: int
) -> None:
    """More of them where completions are sampled anew than where the same texts are seen again."""
    sampled, fixed = batch if isinstance(batch, tuple) else (batch, batch)
    found = {s["key"]: s["value"] for s in probe_settings.optimization(recipe(*sets), [rows, 2 * rows])}
    assert found == {"train.batch": sampled, "train.epochs": anew}
    given = {s["key"]: s["value"] for s in probe_settings.optimization(recipe(*sets, method="sft"), [rows])}
    assert given == {"train.batch": fixed, "train.epochs": again}
    steps = probe_settings.optimization(recipe("max_steps=40", *sets), [rows])
    assert [(s["key"], s["value"]) for s in steps] == [("train.max_steps", 40)]


def test_a_lavish_limit_on_new_tokens_is_lowered_to_what_demonstrations_need() -> None:
    assert probe_settings.new_tokens(task(max_new_tokens=40), view()) is None  # demonstrations have up to 14
    limit = probe_settings.new_tokens(task(max_new_tokens=1024), view())
    assert limit is not None and limit[0] == 24
    thinks = view(lengths=written(200, 300))
    limit = probe_settings.new_tokens(task(thinks, max_new_tokens=1024), thinks)
    assert limit is not None and limit[0] == 304  # a teacher that writes more and ends needs the room
    rambles = view(lengths=written(1024, 1024, ended=0.1))
    limit = probe_settings.new_tokens(task(rambles, max_new_tokens=1024), rambles)
    assert limit is not None and limit[0] == 24


def test_tokens_after_which_the_teacher_cannot_recover_are_not_skipped() -> None:
    start = {"tokens": 0, "accuracy": 0.9, "interval": None, "n": 24, "over": 0, "change": None}
    lost = {**start, "tokens": 3, "accuracy": 0.2, "change": gain(-0.7, -0.9, -0.5)}
    noise = {**lost, "change": gain(-0.1, -0.3, 0.1)}
    late = {**lost, "tokens": 8}
    for point, want in ((lost, 0), (noise, 3), (late, 3)):
        takeover = {"view": PAPER, "points": [start, point]}
        assert probe_settings.skip_first(view(), takeover)[0] == want
    short = {**view()["skip_first"], "skip_first": 0, "why": "46 % lie there"}
    early = {"view": PAPER, "points": [start, {**lost, "tokens": 1}, lost]}
    reason = "46 % lie there; the teacher cannot make up for the student's own first token"
    assert probe_settings.skip_first(view(skip_first=short), early) == (0, reason)
    assert probe_settings.skip_first(view(PLAIN), {"view": PAPER, "points": [start, lost]})[0] == 3  # of another view


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_file_is_a_recipe_with_what_was_given_and_what_is_advised(tmp_path: Path) -> None:
    sets = ["rank=8", "threads=2", "guards.repetition=none", "weight_decay=0.01", "evaluation.limit=50"]
    base = recipe(*sets, suite="micro", seed=3, data=str(tmp_path / 'a "quoted" folder'))
    found = recommended(task(dropped={"too long": 2}, max_new_tokens=1024), base=base)
    file = tmp_path / "advised.toml"
    file.write_text(found["toml"], encoding="utf-8")
    read = assemble(file, {}, [])
    assert (
        read.model_dump()
        == base.model_copy(
            update={
                "views": base.views.model_copy(update={"teacher": PAPER}),
                "objective": base.objective.model_copy(update={"skip_first": 3}),
                "sampler": base.sampler.model_copy(update={"max_new_tokens": 24}),
                "train": base.train.model_copy(update={"lr": 5e-4, "batch": 8, "epochs": 3, "on_bad_row": "drop"}),
                "guards": read.guards,
            }
        ).model_dump()
    )
    assert read.guards.repetition is not None  # TOML has no way to say none
    assert "note: add --set guards.repetition=none, which a file cannot say" in found["toml"]
    assert "#   sdft sweep FILE --grid lr=2e-4,5e-4,1e-3" in found["toml"]
    assert max(map(len, (line for line in found["toml"].splitlines() if "data = " not in line))) <= 80


# --- the temperature -------------------------------------------------------------------------------------------------


def sampled(greedy: float, **rates: float) -> dict:
    """The teacher's accuracies by temperature (``t07=0.4`` is 0.4 at 0.7), beside the greedy one."""
    points = [
        {"temperature": int(name[1:]) / 10, "accuracy": rate, "interval": None, "n": 16, "ended": 1.0}
        for name, rate in rates.items()
    ]
    keys = ["sampler.temperature", "objective.logits_temperature"]
    return {"view": PAPER, "keys": keys, "greedy": greedy, "points": points}


@pytest.mark.parametrize(
    ("found", "want"),
    [
        (sampled(0.9, t10=0.5), None),  # more than half of the greedy accuracy is kept: the method's own stays
        (sampled(0.8, t10=0.12, t07=0.38, t05=0.69), 0.5),
        (sampled(1.0, t10=0.0, t07=0.1, t05=0.2, t03=0.4), 0.3),  # none keeps enough: the best of them
        (None, None),
    ],
)
def test_a_teacher_that_is_flat_is_sampled_at_a_lower_temperature(found: dict | None, want: float | None) -> None:
    settings = recommended(task(temperatures=found))
    got = values(settings)
    assert got.get("sampler.temperature") == got.get("objective.logits_temperature") == want
    if want:
        reason = next(s["reason"] for s in settings["settings"] if s["key"] == "sampler.temperature")
        assert reason.startswith("the teacher is right on 0.") and " of 16 rows sampled at temperature 1, on " in reason


def test_a_method_whose_teacher_writes_has_no_divergence_to_temper() -> None:
    found = task(temperatures=sampled(0.8, t10=0.1, t05=0.7))
    got = values(recommended(found, base=recipe(method="sft-from-teacher")))
    assert got["sampler.temperature"] == 0.5 and "objective.logits_temperature" not in got
    got = values(recommended(found, base=recipe(method="sft")))  # it becomes sdft
    assert got["sampler.temperature"] == got["objective.logits_temperature"] == 0.5


def test_several_tasks_take_the_lowest_temperature_that_one_needs() -> None:
    easy, hard = sampled(0.9, t10=0.4, t07=0.8), sampled(0.9, t10=0.1, t07=0.2, t05=0.8)
    found = recommended(task(temperatures=easy, name="easy"), task(temperatures=hard, name="hard"))
    assert values(found)["sampler.temperature"] == 0.5
    assert next(s["reason"] for s in found["settings"] if s["key"] == "sampler.temperature").startswith("hard: ")


def test_the_recipe_with_a_temperature_can_be_trained(tmp_path: Path) -> None:
    """Its importance weights need both temperatures to be equal."""
    found = recommended(task(temperatures=sampled(0.8, t10=0.1, t07=0.1, t05=0.7)))
    (tmp_path / "r.toml").write_text(found["toml"])
    read = assemble(tmp_path / "r.toml", {}, [])
    assert read.sampler.temperature == read.objective.logits_temperature == 0.5
    check_recipe(read.model_copy(update={"tasks": ("tooluse",)}))
