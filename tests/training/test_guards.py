"""Guards on made-up rows (what each stops and what it lets pass), and real collapses that stop `train`."""

import json
import math
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sdft_cli import plugins
from sdft_cli.cli import app
from sdft_cli.commands.train import train
from sdft_cli.config import overrides
from sdft_cli.config.recipe import METHODS, Recipe, build, paths
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.errors import SdftError
from sdft_cli.models import pretrained
from sdft_cli.models.policy import Policy
from sdft_cli.runs.folder import Run
from sdft_cli.runs.records import StageId
from sdft_cli.training.display import TrainingDisplay
from sdft_cli.training.guards import RULES, Guards, NonFinite
from sdft_cli.training.optimizer import MasterAdamW
from sdft_cli.types import Score, Task

# --- made-up rows ---------------------------------------------------------------------------------------------------

Row = dict[str, Any]
#: The embedded model under SDFT, about its first step.
SOUND: Row = {"loss": 0.2, "kl": 0.2, "entropy": 0.25, "grad_norm": 0.3, "signal": 1.0}
SOUND |= {"completion_tokens": 18.0, "truncated": 0.0, "repeated": 0.02, "distinct": 1.0}
SOUND |= {"empty": 0.0, "logprob_gap": 1e-5, "skipped_kl": 0.1, "skipped_share": 0.1}
VOCABULARY = 1024
STAGE = StageId(1, "micro-tooluse")
DEMOS = {"completion_tokens": 15.0, "repeated": 0.0, "distinct": 1.0}
#: What each guard is for, as a change of `SOUND`.
COLLAPSED: dict[str, Row] = {
    "repetition": {"repeated": 0.95},
    "truncation": {"truncated": 1.0},
    "length-runaway": {"completion_tokens": 75.0},
    "length-collapse": {"completion_tokens": 1.5},
    "entropy-collapse": {"entropy": 0.001, "distinct": 0.05},
    "divergence-spike": {"loss": 5.0, "kl": 5.0},
    "uniform": {"entropy": 6.92},
    "sampler-gap": {"logprob_gap": 1.0},
    "no-signal": {"signal": 0.0, "empty": 1.0},
    "no-gradient": {"grad_norm": 0.0},
    "masked-start": {"skipped_kl": 2.0, "skipped_share": 0.8, "kl": 0.01},
}
WARNINGS_ONLY = {"no-gradient", "masked-start"}
#: What is judged by a whole run, and not by a change: `test_guards_of_learning.py`.
OF_LEARNING = {"no-difference", "noisy-samples", "running-on", "leaked-wording", "no-progress"}
OF_CHANGE = [name for name in RULES if name not in OF_LEARNING]
STOPS = [name for name in OF_CHANGE if name not in WARNINGS_ONLY]


def guards(method: str = "sdft", demonstrations: Row = DEMOS, **limits: Any) -> Guards:
    skip = {"objective": {"skip_first": 3}} if method == "sdft" else {}
    recipe = build([METHODS.get(method).defaults(), skip, {"guards": limits}])
    return Guards(recipe, demonstrations, vocabulary=VOCABULARY)


def play(watch: Guards, rows: list[Row]) -> list[tuple[int, str, str]]:
    """(step, guard, level) of every finding; a stop does not end it."""
    return [(step, f["guard"], f["level"]) for step, row in enumerate(rows, 1) for f in watch.look(row)]


def test_every_guard_has_a_limit_and_a_collapse() -> None:
    assert set(COLLAPSED) == set(OF_CHANGE)
    limits = set(Recipe().guards.model_dump()) - {"enabled", "window", "patience"}
    assert limits == {name.replace("-", "_") for name in RULES}


@pytest.mark.parametrize("name", STOPS)
def test_a_collapse_is_warned_about_and_then_stopped(name: str) -> None:
    """The median of five is past a limit with the third bad step, and ten steps later the patience is at its end."""
    bad = {**SOUND, **COLLAPSED[name]}
    assert play(guards(), [SOUND] * 20 + [bad] * 15) == [(23, name, "warn"), (32, name, "stop")]
    off = guards(**{name.replace("-", "_"): None})
    assert play(off, [SOUND] * 20 + [bad] * 15) == []


@pytest.mark.parametrize("name", sorted(WARNINGS_ONLY))
def test_some_guards_warn_and_never_stop(name: str) -> None:
    bad = {**SOUND, **COLLAPSED[name]}
    assert play(guards(), [SOUND] * 20 + [bad] * 40) == [(23, name, "warn")]
    assert play(guards(**{name.replace("-", "_"): None}), [SOUND] * 20 + [bad] * 40) == []


@pytest.mark.parametrize("name", STOPS)
def test_a_collapse_that_passes_is_not_stopped(name: str) -> None:
    bad = {**SOUND, **COLLAPSED[name]}
    assert play(guards(), [SOUND] * 20 + [bad] * 9 + [SOUND] * 20) == [(23, name, "warn")]
    assert play(guards(patience=4), [SOUND] * 20 + [bad] * 4 + [SOUND] * 20)[-1] == (26, name, "stop")


@pytest.mark.parametrize("name", OF_CHANGE)
def test_a_guard_warns_again_only_after_it_has_recovered(name: str) -> None:
    bad = {**SOUND, **COLLAPSED[name]}
    flicker = [SOUND] * 20 + ([bad] * 5 + [SOUND] * 7) * 4  # past the limit for five steps, within it for seven
    assert play(guards(), flicker) == [(23, name, "warn")]
    apart = [SOUND] * 20 + ([bad] * 5 + [SOUND] * 17) * 2
    assert play(guards(), apart) == [(23, name, "warn"), (45, name, "warn")]


@pytest.mark.parametrize("name", ["repetition", "truncation", "length-collapse", "divergence-spike"])
def test_a_run_that_breaks_in_its_first_step_has_one_sound_row(name: str) -> None:
    assert (name, "stop") in [f[1:] for f in play(guards(), [SOUND] + [{**SOUND, **COLLAPSED[name]}] * 14)]


def test_after_a_stop_every_guard_has_its_patience_again() -> None:
    bad = {**SOUND, **COLLAPSED["repetition"]}
    worse = {**bad, **COLLAPSED["truncation"]}
    stops = [f for f in play(guards(), [SOUND] * 20 + [bad] * 4 + [worse] * 18) if f[2] == "stop"]
    assert stops == [(32, "repetition", "stop"), (42, "repetition", "stop"), (42, "truncation", "stop")]


@pytest.mark.parametrize("key", ["loss", "grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_stops_at_once_and_always(key: str, value: float) -> None:
    for watch in (guards(), guards(enabled=False)):
        (finding,) = watch.look({**SOUND, key: value})
        assert (finding["guard"], finding["level"]) == ("non-finite", "stop") and str(value) in finding["text"]


def noisy(row: Row, random_: random.Random) -> Row:
    return {k: v * random_.uniform(0.8, 1.2) if k != "truncated" else v for k, v in row.items()}


def path(steps: int, **ends: tuple[float, float]) -> list[Row]:
    """Rows whose figures go from one end to the other by equal factors, with 20 % of noise."""
    rows, random_ = [], random.Random(0)
    for step in range(steps):
        at = step / (steps - 1)
        rows.append(noisy({**SOUND, **{k: a * (b / a) ** at for k, (a, b) in ends.items()}}, random_))
    return rows


SPIKE = {**SOUND, "kl": 1000.0, "completion_tokens": 900.0, "repeated": 1.0}
FINE: dict[str, tuple[str, Row, list[Row]]] = {
    # the embedded model's own figures: KL and entropy at a hundredth of their start, and every answer right
    "a task is learned": ("sdft", DEMOS, path(200, loss=(0.2, 3e-4), kl=(0.2, 3e-4), entropy=(0.25, 3e-3))),
    "sure from the start": (
        "sdft",
        DEMOS,
        path(100, loss=(0.01, 1e-5), kl=(0.01, 1e-5), entropy=(0.05, 1e-4)),
    ),
    "reasoning is learned": (
        "sdft",
        {**DEMOS, "completion_tokens": 300},
        path(100, completion_tokens=(5, 320)),
    ),
    "short answers are learned": (
        "sdft",
        {**DEMOS, "completion_tokens": 4},
        path(100, completion_tokens=(120, 4)),
    ),
    "longer answers earn more": ("grpo", {}, path(100, completion_tokens=(300, 4000), reward=(0.1, 0.8))),
    "a few tokens": ("sdft", {}, [{**SOUND, "completion_tokens": n} for n in (3, 5, 2, 9, 4, 20, 30, 30, 2, 1) * 5]),
    "four answers to choose from": (
        "sdft",
        {**DEMOS, "distinct": 4 / 64},
        [{**row, "distinct": 4 / 32} for row in path(100, entropy=(0.5, 1e-3), completion_tokens=(2, 2))],
    ),
    "tables": (
        "sdft",
        {**DEMOS, "repeated": 0.8},
        [{**r, "repeated": 0.8} for r in path(99, entropy=(0.3, 0.001))],
    ),
    "one strange batch in ten": ("sdft", DEMOS, ([SOUND] * 9 + [SPIKE]) * 20),
    "no row carries signal": ("grpo", {}, [SOUND] * 5 + [{**SOUND, "signal": 0.0, "kl": 0.0, "entropy": 0.0}] * 30),
    "re-invocation starts far off": ("sdft", {}, path(100, kl=(1.3, 0.05), loss=(1.3, 0.05))),
    "demonstrations are learned by heart": (
        "sft",
        DEMOS,
        [{**r, "kl": None} for r in path(200, loss=(3, 1e-4), entropy=(2, 1e-4))],
    ),
    # figures of given texts, which no training can change
    "given texts": ("cpt", {}, [{**SOUND, "kl": None, "repeated": 1.0, "truncated": 1.0, "distinct": 0.1}] * 40),
}


@pytest.mark.parametrize("case", FINE)
def test_sound_runs_are_left_alone(case: str) -> None:
    method, demonstrations, rows = FINE[case]
    assert play(guards(method, demonstrations), rows) == []


def test_a_limit_that_was_too_small_from_the_start_is_worth_one_warning() -> None:
    assert play(guards(), [{**SOUND, "truncated": 1.0}] * 60) == [(10, "truncation", "warn")]


def test_a_divergence_spike_names_what_has_risen() -> None:
    """KL where the teacher's distribution was scored, its sampled reverse where only tokens were, else the loss."""
    names = {"kl": "KL(teacher‖student) is 9.00", "reverse_kl": "the sampled KL(student‖teacher) is 9.00"}
    for key, text in names.items():
        sound = {**SOUND, "kl": None, "reverse_kl": None, "loss": 0.5, key: 1.0}
        watch = guards("grpo", {})
        findings = [f for row in [sound] * 20 + [{**sound, key: 9.0}] * 3 for f in watch.look(row)]
        assert [(f["guard"], f["level"]) for f in findings] == [("divergence-spike", "warn")]
        assert findings[0]["text"] == f"{text} nats per token, 1.00 at the start"
    both = {**SOUND, "kl": 1.0, "reverse_kl": 1.0}
    assert play(guards(), [both] * 20 + [{**both, "reverse_kl": 50.0, "loss": 50.0}] * 20) == []


def test_the_loss_counts_where_a_given_text_is_the_target_and_not_for_a_policy_gradient() -> None:
    rows = [{**SOUND, "kl": None, "loss": loss} for loss in [1.5] * 10 + [9.0] * 15]
    assert ("divergence-spike", "stop") in [f[1:] for f in play(guards("sft"), rows)]
    assert play(guards("grpo", {}), rows) == []


@pytest.mark.parametrize(
    "symptom", [{"repeated": 0.5}, {"truncated": 0.5}, {"completion_tokens": 5.0}, {"reward": 0.1}]
)
def test_what_tells_a_collapse_of_entropy_from_success(symptom: Row) -> None:
    learned = {**SOUND, "entropy": 0.001, "kl": 0.0, "loss": 0.0, "reward": 0.5}
    assert play(guards(), [{**SOUND, "reward": 0.5}] * 10 + [learned] * 20) == []
    rows = [{**SOUND, "reward": 0.5}] * 10 + [{**learned, **symptom}] * 20
    assert (22, "entropy-collapse", "stop") in play(guards(), rows)


@pytest.mark.parametrize("teacher", ["live", "ema", "periodic", "frozen"])
def test_hints_name_keys_that_exist(teacher: str) -> None:
    recipe = build([METHODS.get("sdft").defaults(), {"teacher": teacher}])
    for table in ("", "second_phase."):
        watch = Guards(recipe, DEMOS, table)
        for name in [*RULES, "non-finite"]:
            keys = re.findall(r"[a-z_]+(?:\.[a-z_]+)+", watch._hint(name))
            assert keys and set(keys) <= set(paths()), name
            assert all(key.startswith((table, "guards.", "runtime.", "engine.", "lora.")) for key in keys)


# --- real collapses ---------------------------------------------------------------------------------------------------

QUICK = ["batch=4", "warmup_steps=0", "threads=1", "eval_every=0", "lora.rank=0", "sampler.max_new_tokens=12"]
QUICK += ["evaluation.limit=1", "evaluation.max_new_tokens=1", "max_steps=40", "schedule=constant"]


def recipe_for(model: Path, data: Path, *sets: str, method: str = "sdft", task: str = "micro-tooluse") -> Recipe:
    flags = {"method": method, "model": str(model), "tasks": [task], "data": str(data), "suite": None}
    return assemble(None, flags, [*QUICK, *sets])


def go(recipe: Recipe, out: Path, resume: bool = False) -> Run:
    return train(recipe, out, TrainingDisplay(quiet=True), resume)


def stopped(recipe: Recipe, out: Path, resume: bool = False) -> SdftError:
    with pytest.raises(SdftError) as caught:
        go(recipe, out, resume)
    return caught.value


def logged(out: Path, kind: str) -> list[Row]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def stop_row(out: Path) -> tuple[str, int]:
    """Name and step of the last stop; the checkpoint that goes with it is whole, in force and finite."""
    row = [r for r in logged(out, "guard") if r["level"] == "stop"][-1]
    saved = Run(out).checkpoints.latest()
    assert saved is not None and not saved.stage_done and (saved.state / "state.pt").is_file()
    assert all(torch.isfinite(w).all() for w in weights(saved.model).values())
    return row["guard"], row["step"]


def weights(model: Path) -> dict[str, torch.Tensor]:
    (file,) = model.glob("*.safetensors")
    return load_file(file)


@pytest.fixture(scope="module")
def one_token(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, made to write one token for ever: all tokens look alike to it, and its head points one way."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("one-token") / "model"
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight[:1].expand(len(model.lm_head.weight), -1))
        hidden = model.model(torch.tensor([[1, 2, 3]])).last_hidden_state[0, -1]
        model.lm_head.weight[300] = 40 * hidden / hidden.square().sum()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def stops_early(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with every sixth token an end of text: its completions have a few tokens."""
    from transformers import AutoTokenizer, GenerationConfig

    folder = tmp_path_factory.mktemp("stops-early") / "model"
    shutil.copytree(tiny_model, folder)
    config = GenerationConfig.from_pretrained(folder)
    config.eos_token_id = [config.eos_token_id, *range(10, len(AutoTokenizer.from_pretrained(folder)), 6)]
    config.save_pretrained(folder)
    return folder


def only(*names: str) -> list[str]:
    """Settings that switch off all guards but these. A model that breaks passes several limits within a few steps, and
    which of them first is decided by rounding."""
    return [f"guards.{name.replace('-', '_')}=none" for name in RULES if name not in names]


def test_a_learning_rate_far_too_high(tiny_model: Path, micro_data: Path, tmp_path: Path) -> None:
    # KL starts at 4.9 nats and is at 15 to 80 once the weights are broken, depending on the processor
    recipe = recipe_for(tiny_model, micro_data, "lr=1", *only("divergence-spike"), "guards.divergence_spike=1.5")
    error = stopped(recipe, tmp_path / "run")
    name, step = stop_row(tmp_path / "run")
    assert name == "divergence-spike" and step < 20 and error.code == 1
    assert error.message.startswith("divergence-spike stopped stage 1 (micro-tooluse) at step") and "\n" not in (
        error.message + error.hint
    )
    assert f"step-{step:06d}" in error.message and "train.lr" in error.hint
    again = overrides.change(recipe, ["lr=1e-4"])
    broken = stopped(again, tmp_path / "run", resume=True).message  # for the weights still are
    assert broken.startswith("divergence-spike stopped")
    assert stop_row(tmp_path / "run")[1] == step + recipe.guards.patience
    assert [r["lr"] for r in logged(tmp_path / "run", "step")][step - 1 : step + 1] == [1, 1e-4]
    (row,) = logged(tmp_path / "run", "settings")
    assert (row["step"], row["changed"]) == (step, {"train.lr": [1, 1e-4]})
    assert not overrides.unlike(Run(tmp_path / "run").recipe, again)


@pytest.fixture(scope="module")
def collapsed(
    tiny_model: Path, micro_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, Path, SdftError]:
    """A run with a live teacher, uninterrupted until a guard stops it."""
    # at a third of this rate some processors' runs do not collapse within 40 steps, at three times it KL may stay large
    recipe = recipe_for(tiny_model, micro_data, "teacher=live", "lr=0.3", "checkpoint_every=3")
    out = tmp_path_factory.mktemp("live") / "whole"
    return recipe, out, stopped(recipe, out)


def test_a_live_teacher(collapsed: tuple[Recipe, Path, SdftError]) -> None:
    """Student and teacher drift off together: KL goes to 0, as in success, and all completions to one."""
    _, out, error = collapsed
    both = {"repetition", "entropy-collapse"}  # a few steps apart; which comes first is decided by rounding
    assert stop_row(out)[0] in both and error.message.split()[0] in both and "teacher=ema" in error.hint
    assert both <= {r["guard"] for r in logged(out, "guard")}
    last = {key: median(row[key] for row in logged(out, "step")[-5:]) for key in ("kl", "entropy", "repeated")}
    assert last["kl"] < 1e-3 and last["entropy"] < 1e-2 and last["repeated"] > 0.8


def test_the_same_run_with_an_averaged_teacher_is_left_alone(
    tiny_model: Path, micro_data: Path, tmp_path: Path
) -> None:
    run = go(recipe_for(tiny_model, micro_data, "lr=0.1", "max_steps=30"), tmp_path / "run")
    assert run.checkpoints.of(STAGE).finished() is not None
    # an untrained model writes noise until it is cut
    told = {(r["guard"], r["level"]) for r in logged(run.folder, "guard")}
    assert told == {("truncation", "warn"), ("noisy-samples", "warn")}


def test_a_student_that_repeats_one_token(one_token: Path, micro_data: Path, tmp_path: Path) -> None:
    recipe = recipe_for(one_token, micro_data, "lr=1e-5", "max_steps=10")
    error = stopped(recipe, tmp_path / "run")
    assert stop_row(tmp_path / "run") == ("repetition", 10) and "repeats" in error.message
    steps = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    run = go(recipe, tmp_path / "run", resume=True)  # that was its last step: what is left is to close the stage
    assert run.checkpoints.of(STAGE).finished() is not None and (run.folder / "done.json").is_file()
    assert (run.folder / "metrics.jsonl").read_bytes() == steps


def test_completions_that_grow_to_the_limit(
    stops_early: Path, micro_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reward for length: it rises, so growth alone is no alarm, but cut completions are."""
    real: Task = plugins.TASKS.get("micro-tooluse")
    wordy = Task("wordy", "-", real.prepare, lambda text, _: Score(min(1.0, len(text) / 150)), max_new_tokens=24)
    monkeypatch.setitem(plugins.TASKS.own, "wordy", wordy)
    shutil.copytree(micro_data / "micro-tooluse", tmp_path / "data" / "wordy")
    sets = ("batch=16", "n=4", "lr=0.03", "sampler.max_new_tokens=24", *only("truncation", "length-runaway"))
    recipe = recipe_for(stops_early, tmp_path / "data", *sets, method="grpo", task="wordy")
    stopped(recipe, tmp_path / "run")
    assert stop_row(tmp_path / "run")[0] == "truncation"
    lengths = [r["completion_tokens"] for r in logged(tmp_path / "run", "step")]
    assert lengths[0] < 6 and median(lengths[-5:]) > 20  # of 24: a few may end earlier to the last


def test_a_step_that_is_not_finite_leaves_the_weights_before_it(
    tiny_model: Path, micro_data: Path, tmp_path: Path
) -> None:
    # Products of weights of 1e12 overflow fp32. Demonstrations, because what such a model samples is not worth a loss.
    recipe = recipe_for(tiny_model, micro_data, "lr=1e12", "sampler.source=dataset", "guards.enabled=false")
    error = stopped(recipe, tmp_path / "run")
    assert isinstance(error.__context__, NonFinite) and error.message.startswith("non-finite stopped")
    assert stop_row(tmp_path / "run") == ("non-finite", 2)
    saved = Run(tmp_path / "run").checkpoints.latest()
    assert saved is not None and saved.step == 1 and len(logged(tmp_path / "run", "step")) == 1
    one = go(recipe.model_copy(update={"train": recipe.train.model_copy(update={"max_steps": 1})}), tmp_path / "one")
    done = one.checkpoints.of(STAGE).finished()
    assert done is not None
    mine, theirs = weights(saved.model), weights(done.model)
    assert all(torch.equal(mine[n], theirs[n]) for n in theirs)


def test_a_resumed_run_that_is_not_finite_again_keeps_its_checkpoint(
    tiny_model: Path, micro_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sound weights, and a backward pass that overflows in every step but the first."""

    def clip(optimizer: MasterAdamW, real: Callable[[MasterAdamW], float] = MasterAdamW.clip) -> float:
        if optimizer.held():  # it has made a step, in this process or before
            next(p.grad for p in optimizer.params.values() if p.grad is not None).view(-1)[0] = math.inf
        return real(optimizer)

    monkeypatch.setattr(MasterAdamW, "clip", clip)
    recipe = recipe_for(tiny_model, micro_data, "guards.enabled=false")
    for resume in (False, True):
        assert "non-finite" in stopped(recipe, tmp_path / "run", resume=resume).message
        assert stop_row(tmp_path / "run") == ("non-finite", 2)
        saved = Run(tmp_path / "run").checkpoints.latest()
        assert saved is not None and [p.name for p in saved.folder.parent.iterdir()] == ["step-000001"]


def test_a_model_whose_outputs_are_nan(
    tiny_model: Path, micro_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It samples noise, so that it comes to the guard rather than to an error of the sampler."""

    def broken(location: str, *settings: Any, real: Callable[..., Policy] = pretrained.load) -> Policy:
        policy = real(location, *settings)
        with torch.no_grad():
            start = policy.chat.tokenizer.get_vocab()["<|im_start|>"]
            policy.core.get_input_embeddings().weight[start] = math.nan
        return policy

    monkeypatch.setattr(pretrained, "load", broken)
    assert "non-finite stopped" in stopped(recipe_for(tiny_model, micro_data), tmp_path / "run").message
    latest = Run(tmp_path / "run").checkpoints.latest()
    assert latest is not None and latest.step == 0


class Interrupted(TrainingDisplay):
    """A run that dies without warning once it has shown step ``at``."""

    def __init__(self, at: int):
        super().__init__(quiet=True)
        self.at = at

    def step(self, row: Row) -> None:
        if row["step"] == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("moment", ["before the first warning", "between it and the stop"])
def test_a_resumed_run_is_stopped_where_the_uninterrupted_one_is(
    collapsed: tuple[Recipe, Path, SdftError], tmp_path: Path, moment: str
) -> None:
    recipe, whole, error = collapsed
    warned, stop = logged(whole, "guard")[0]["step"], stop_row(whole)[1]  # rounding decides when
    at = warned - 1 if moment == "before the first warning" else (warned + stop) // 2
    assert recipe.train.checkpoint_every < at < stop  # there is a checkpoint to go on from
    cut = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        train(recipe, cut, Interrupted(at))
    assert stopped(recipe, cut, resume=True).message == error.message.replace(str(whole), str(cut))
    assert logged(cut, "guard") == logged(whole, "guard")
    mine, theirs = (Run(out).checkpoints.latest() for out in (cut, whole))
    assert mine is not None and theirs is not None
    for name, weight in weights(theirs.model).items():
        assert torch.equal(weight, weights(mine.model)[name])
    # the checkpoint before the stop is kept: it may be from before the collapse
    (kept,) = (p for p in mine.folder.parent.iterdir() if p != mine.folder)
    assert f"or from {kept.name}, once you have removed {mine.folder.name}" in error.hint
    shutil.rmtree(mine.folder)
    back = Run(cut).checkpoints.latest()
    assert back is not None and back.folder == kept and back.step < stop


def test_a_second_phase_has_its_own_guards(one_token: Path, micro_data: Path, tmp_path: Path) -> None:
    sets = [
        "max_steps=3",
        "second_phase.train.max_steps=9",
        "second_phase.sampler.n=1",
        "second_phase.sampler.max_new_tokens=12",
    ]
    flags = {"method": "reinvoke", "model": str(one_token), "tasks": ["micro-tooluse"], "data": str(micro_data)}
    recipe = assemble(None, {**flags, "suite": "micro"}, [*QUICK, "lr=1e-7", "guards.patience=4", *sets])
    error = stopped(recipe, tmp_path / "run")
    assert stop_row(tmp_path / "run") == ("repetition", 3 + 4) and "lower second_phase.train.lr" in error.hint
    stopped(recipe, tmp_path / "run", resume=True)
    assert stop_row(tmp_path / "run") == ("repetition", 3 + 8)
    run = go(overrides.change(recipe, ["guards.repetition=none"]), tmp_path / "run", resume=True)
    assert run.checkpoints.of(STAGE).finished() is not None
    assert [r["step"] for r in logged(tmp_path / "run", "step")] == list(range(1, 13))


def test_the_command_reports_the_stop_and_resumes_with_another_setting(
    one_token: Path, micro_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def command(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["sdft", "train", "--out", str(tmp_path / "run"), *words])
        with pytest.raises(SystemExit) as caught:
            app.main()
        return int(caught.value.code or 0), capsys.readouterr().err

    first = ["--tasks", "micro-tooluse", "--model", str(one_token), "--data", str(micro_data)]
    for text in [*QUICK, "lr=1e-5", "max_steps=7", "guards.patience=5"]:
        first += ["--set", text]
    code, err = command(*first)
    assert code == 1 and "\nerror: repetition stopped stage 1" in err and "\nhint: lower train.lr" in err
    assert sum("warning: repetition at step 1:" in line for line in err.splitlines()) == 1
    code, err = command("--resume", "--set", "train.batch=8")
    assert code == 2 and "train.batch" in err and "another value" in err
    code, err = command("--resume", "--set", "guards.enabled=false")
    assert code == 0 and "resumed at stage 1, step 5" in err and (tmp_path / "run" / "done.json").is_file()
