"""`train.fit`: what is conceded, in which order, what is only warned about, and what is refused."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdft_cli.config.recipe import EngineSettings, Lora, Phase, Recipe, Teacher, Train
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.errors import UsageError
from sdft_cli.runs.folder import Run
from sdft_cli.training import available_memory, memory_model
from sdft_cli.training import fit as fitting
from sdft_cli.training.cost_estimates import load_of
from sdft_cli.training.fit import check_memory, fit, fitted
from sdft_cli.training.memory_model import Dims
from sdft_cli.training.memory_outlook import Lengths, Model
from sdft_cli.training.memory_shards import Counts, Shards
from sdft_cli.training.run_plan import plan_run

#: A 7B model in bf16 on a GPU of which it takes much: weights 15.2, masters 30.4, moments 60.8, gradients 15.2 GB.
SEVEN = Model(
    Dims(28, 3584, 18944, 3584, 512, 28, 152_064),
    Counts(7_600_000_000, 7_600_000_000, 545_000_000),
    2,
    torch.device("cuda"),
    recomputes=True,
)
LENGTHS = Lengths([(300, 500), (200, 900)], 512)
GB = 10**9
#: From the cheapest on.
LADDER = {
    "train.gradient_checkpointing": "on",
    "teacher.storage": "half",
    "train.optimizer": "adamw8bit",
    "train.master": "stochastic",
}


@pytest.fixture(autouse=True)
def bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "find_spec", lambda name: name)


def free(monkeypatch: pytest.MonkeyPatch, gigabytes: float | None, swap: float = 0.0, host: float = 0.0) -> None:
    """So much is free on a GPU, and in the host's memory."""

    def left(device: torch.device) -> int | None:
        room = gigabytes if device.type == "cuda" else host
        return None if room is None else int(room * GB)

    monkeypatch.setattr(available_memory, "free_bytes", left)
    monkeypatch.setattr(available_memory, "free_swap", lambda: int(swap * GB))


def recipe(**train: object) -> Recipe:
    return Recipe(train=Train(**train), teacher=Teacher())


def with_settings(settings: dict[str, str], rows: int) -> Recipe:
    """A recipe with ``settings``, and as many tokens as ``rows`` of the longest."""
    train = {k.partition(".")[2]: v for k, v in settings.items() if k.startswith("train.")}
    tokens = rows * (900 + 512)
    teacher = Teacher(storage=settings.get("teacher.storage", "device"))
    return Recipe(train=Train(micro_batch_tokens=tokens, **train), teacher=teacher)


def need(settings: dict[str, str], rows: int) -> int:
    chosen = with_settings(settings, rows)
    load = load_of(chosen, *LENGTHS)
    assert load.in_pass == rows
    return memory_model.predict(chosen, SEVEN.sizes, SEVEN.counts, 2, load, "cuda").need


@pytest.mark.parametrize("gigabytes", [400, 250, 215, 180, 165, 150, 130, 110, 90, 80, 75, 68, 62])
def test_the_least_costly_set_is_chosen(monkeypatch: pytest.MonkeyPatch, gigabytes: float) -> None:
    """All sets are tried here, from the least costly on: it is as costly as its costliest member, then as the next."""
    free(monkeypatch, gigabytes)
    sets = [
        dict(itertools.compress(LADDER.items(), bits[::-1])) for bits in itertools.product([0, 1], repeat=len(LADDER))
    ]
    fitting_rows = (
        (settings, rows) for settings in sets for rows in (11, 5, 2, 1) if need(settings, rows) <= gigabytes * GB
    )
    best = next(fitting_rows, None)
    found = fit(recipe(), SEVEN, LENGTHS)
    if best is None:
        assert not found.fits and LADDER.items() <= found.chosen.items()
        return
    settings, rows = best
    expected = settings if rows == 11 else {**settings, "train.micro_batch_tokens": rows * (900 + 512)}
    assert found.fits and found.chosen == expected
    assert found.step.need == need(settings, rows) and found.load.in_pass == rows


def test_a_named_amount_that_is_unknown_concedes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, None)
    found = fit(recipe(), SEVEN, LENGTHS)
    assert found.fits and not found.chosen and not found.text


def test_what_is_saved_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 68)
    found = fit(recipe(), SEVEN, LENGTHS)
    saved = {each.key: each.saves / GB for each in found.concessions}
    weights = 7.6
    assert saved["teacher.storage"] == pytest.approx(4 * weights - 2 * 0.545)
    assert saved["train.optimizer"] == pytest.approx((6 - 1 / 32) * weights)
    assert saved["train.master"] == pytest.approx(4 * weights)
    assert sum(saved.values()) * GB == pytest.approx(
        sum(found.plain.parts.values()) - sum(found.step.parts.values()), rel=1e-9
    )
    assert all(f"{key}={value}" in found.text for key, value in found.chosen.items())
    assert f"{found.free / (1 << 30):.2f} GiB of memory are free on cuda" in found.text
    assert "may not fit" not in found.text


def test_what_the_user_chose_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 60)
    mine = recipe(micro_batch_tokens=8192, gradient_checkpointing="off", optimizer="adamw", master="fp32")
    mine = mine.model_copy(update={"teacher": Teacher(storage="device")})
    found = fit(mine, SEVEN, LENGTHS)
    assert not found.fits and found.chosen.keys() <= {"engine.max_batch"} and found.recipe == mine
    assert "may not fit" in found.text
    off = fit(recipe(fit="off"), SEVEN, LENGTHS)
    assert off.chosen.keys() <= {"train.micro_batch_tokens", "train.gradient_checkpointing", "teacher.storage"} | {
        "engine.max_batch"
    }
    assert off.chosen["teacher.storage"] == "cpu"  # the same numbers


def test_an_average_goes_to_the_host_where_that_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 145, host=40)
    found = fit(recipe(), SEVEN, LENGTHS)
    assert found.chosen["teacher.storage"] == "cpu" and found.recipe.teacher.storage == "auto"
    free(monkeypatch, 145, host=30)
    found = fit(recipe(), SEVEN, LENGTHS)
    assert found.chosen["teacher.storage"] == "half" and found.recipe.teacher.storage == "half"
    several = SEVEN._replace(counts=SEVEN.counts._replace(shards=Shards(2, 2, 1, 1)))
    free(monkeypatch, 140, host=400)
    assert fit(recipe(), several, LENGTHS).chosen.get("teacher.storage") in (None, "half")


def test_what_is_left_open_is_decided_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """In both phases, and no more once a stage is under way."""
    both = recipe().model_copy(update={"second_phase": Phase(teacher=Teacher())})
    free(monkeypatch, 400)
    plain = fit(both, SEVEN, LENGTHS).recipe
    assert (plain.train.optimizer, plain.train.master, plain.teacher.storage) == ("adamw", "fp32", "auto")
    free(monkeypatch, 68)
    lean = fit(both, SEVEN, LENGTHS).recipe
    assert (lean.train.optimizer, lean.train.master) == ("adamw8bit", "stochastic")
    assert (lean.teacher.storage, lean.second_phase.teacher.storage) == ("half", "half")
    begun = fit(both, SEVEN, LENGTHS, begun=True)
    assert not begun.fits and begun.recipe == plain


def test_an_adapter_and_eight_bits_only_where_they_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 68)
    monkeypatch.setattr(fitting, "find_spec", lambda _: None)
    found = fit(recipe(), SEVEN, LENGTHS)
    assert not found.fits and found.recipe.train.optimizer == "adamw" and found.recipe.lora == Lora()
    named = fit(recipe(), SEVEN._replace(memory=68 * GB), LENGTHS)
    assert named.fits and named.recipe.train.optimizer == "adamw8bit"  # it can be installed there
    wide = fit(recipe(), SEVEN._replace(width=4), LENGTHS)
    assert wide.recipe.train.master == "fp32"


def test_a_cpu_concedes_no_numbers_unless_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    host = SEVEN._replace(device=torch.device("cpu"))
    free(monkeypatch, None, host=90)
    assert "train.master" not in fit(recipe(), host, LENGTHS).chosen
    told = fit(recipe(fit="on"), host, LENGTHS).chosen
    assert told["train.master"] == "stochastic" and "train.optimizer" not in told  # bitsandbytes needs a GPU


def test_an_engine_in_the_same_memory_takes_its_share() -> None:
    def room(**engine: object) -> int | None:
        return SEVEN._replace(memory=80 * GB).free(EngineSettings(**engine))

    assert room() == room(name="vllm", sleep=True) == room(name="vllm-server") == 80 * GB
    assert room(name="vllm", memory_share=0.25) == 60 * GB


# --- refused ----------------------------------------------------------------------------------------------------------


def test_more_than_there_is_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is what outlasts a step with all that may be conceded."""
    lean = Recipe(train=Train(optimizer="adamw8bit", master="stochastic"), teacher=Teacher(storage="half"))
    least = sum(memory_model.lasting(lean, SEVEN.counts, 2)) / GB
    free(monkeypatch, least + 0.001)
    check_memory(recipe(), SEVEN)
    free(monkeypatch, least - 0.001)
    with pytest.raises(UsageError, match=r"at least 57.86 GiB on cuda \(weights 14\.16, .* are free") as refused:
        check_memory(recipe(), SEVEN)
    assert "lora.rank=16" in refused.value.hint and "adamw8bit" not in refused.value.hint
    with pytest.raises(UsageError, match=r"at least 155.72 GiB") as refused:
        check_memory(recipe(fit="off", optimizer="adamw", master="fp32").model_copy(update=device()), SEVEN)
    for setting in ("train.optimizer=adamw8bit", "train.master=stochastic", "teacher.storage=half"):
        assert setting in refused.value.hint
    check_memory(recipe(), SEVEN._replace(counts=Counts(7_600_000_000, 40_000_000, 600_000, lora=True)))


def device() -> dict[str, Teacher]:
    return {"teacher": Teacher(storage="device")}


def test_swap_is_room_too_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    host = SEVEN._replace(device=torch.device("cpu"))
    free(monkeypatch, None, swap=100, host=100)
    check_memory(recipe(), host)
    free(monkeypatch, None, swap=1, host=100)
    with pytest.raises(UsageError, match="in memory"):
        check_memory(recipe(), host)


# --- in a run ---------------------------------------------------------------------------------------------------------


def test_dry_run_and_train_agree(
    sdft, micro_data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--tasks", "micro-tooluse", "--model", str(tiny_model), "--data", str(micro_data)]
    free(monkeypatch, 1e-6, host=1e-6)
    for command in (["train", "--dry-run"], ["train", "--out", str(tmp_path / "run")]):
        code, _, err = sdft(*command, *words)
        assert code == 2 and err.count("error:") == 1 and "training needs at least" in err and "hint: " in err
    assert not (tmp_path / "run").exists()
    model = Model.of(Recipe(model=str(tiny_model)), str(tiny_model))  # room for what lasts, and for hardly any step
    held = sum(memory_model.lasting(Recipe(teacher=Teacher()), model.counts, model.width))
    monkeypatch.setattr(available_memory, "free_bytes", lambda _: held + 1)
    code, out, err = sdft("train", "--dry-run", *words, "--json")
    facts = json.loads(out)
    assert code == 0 and not facts["fits"] and facts["memory_free_bytes"] == held + 1
    assert any("may not fit" in note for note in facts["notes"])


def test_a_run_has_what_was_decided_in_its_recipe(
    sdft, micro_data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written before the model is loaded, which this command may not do."""
    words = ["--tasks", "micro-tooluse", "--model", str(tiny_model), "--data", str(micro_data)]
    model = Model.of(Recipe(model=str(tiny_model)), str(tiny_model))
    bf16 = ["--set", "dtype=bfloat16", "--set", "train.fit=on"]
    held = sum(memory_model.lasting(Recipe(teacher=Teacher()), model.counts, 2))
    monkeypatch.setattr(available_memory, "free_bytes", lambda _: held + 1)
    with pytest.raises(AssertionError, match="a model was loaded"):
        sdft("train", *words, *bf16, "--out", str(tmp_path / "run"))
    run = Run.open(tmp_path / "run")
    assert (run.recipe.train.optimizer, run.recipe.train.master) == ("adamw", "stochastic")
    assert any("train.master=stochastic" in note for note in run.metrics.notes())
    monkeypatch.setattr(available_memory, "free_bytes", lambda _: None)
    with pytest.raises(AssertionError, match="a model was loaded"):
        sdft("train", *words, "--out", str(tmp_path / "plain"))
    plain = Run.open(tmp_path / "plain")
    assert (plain.recipe.train.optimizer, plain.recipe.train.master) == ("adamw", "fp32")


def test_what_was_decided_is_what_is_trained(
    micro_data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every phase's own recipe has it; and that a run which starts has it is no change of settings."""
    free(monkeypatch, 62)
    where = {"model": str(tiny_model), "data": str(micro_data), "tasks": ["micro-tooluse", "micro-science"]}
    plan = plan_run(assemble(None, where, ["teacher.storage=auto"]))
    done = plan.stages[0].phases[0].recipe
    begun = fitted(replace(plan, todo=[2]), fit(plan.recipe, SEVEN, LENGTHS))
    trained = begun.stages[1].phases[0].recipe
    assert begun.stages[0].phases[0].recipe is done
    for recipe in (trained, begun.recipe):
        assert (recipe.train.optimizer, recipe.train.master) == ("adamw8bit", "stochastic")
        assert recipe.teacher.storage == "half" and recipe.train.micro_batch_tokens == "auto"
    assert any("train.optimizer=adamw8bit (saves" in note for note in begun.notes)
    run = Run.create(tmp_path / "run", plan.recipe)
    assert run.change_recipe(begun.recipe) == {} and Run.open(run.folder).recipe == begun.recipe
