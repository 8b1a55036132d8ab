"""Runs that learn nothing, or train another model than they sample: real ones, stopped or warned about by name."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.trainers import make, stage
from torch.nn import functional

from sdft_cli.commands.train import train
from sdft_cli.config.recipe import METHODS, build
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.engines.transformers import TransformersEngine
from sdft_cli.errors import SdftError
from sdft_cli.training import silence
from sdft_cli.training.display import TrainingDisplay
from sdft_cli.training.guards import Guards
from sdft_cli.types import Rollout, Score

QUICK = ["batch=4", "warmup_steps=0", "threads=1", "eval_every=0", "checkpoint_every=0", "max_steps=20"]
QUICK += ["sampler.max_new_tokens=12", "evaluation.limit=1", "evaluation.max_new_tokens=1", "schedule=constant"]


def findings(
    model: Path, data: Path, out: Path, *sets: str, method: str = "sdft"
) -> tuple[list[Any], SdftError | None]:
    """(step, guard, level, text, hint) of a run's findings, and the error that ended it."""
    flags = {"method": method, "model": str(model), "tasks": ["micro-tooluse"], "data": str(data), "suite": None}
    error = None
    try:
        train(assemble(None, flags, [*QUICK, *sets]), out, TrainingDisplay(quiet=True))
    except SdftError as stopped:
        error = stopped
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [
        tuple(r[k] for k in ("step", "guard", "level", "text", "hint")) for r in rows if r["kind"] == "guard"
    ], error


def with_ends(model: Path, folder: Path, every: int) -> Path:
    """A copy of ``model`` in ``folder`` for which one token in ``every`` is an end of text."""
    from transformers import AutoTokenizer, GenerationConfig

    shutil.copytree(model, folder)
    config = GenerationConfig.from_pretrained(folder)
    config.eos_token_id = list(range(0, len(AutoTokenizer.from_pretrained(folder)), every))
    config.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ends_at_once(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_ends(tiny_model, tmp_path_factory.mktemp("ends-at-once") / "model", 1)


@pytest.fixture(scope="module")
def ends_early(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_ends(tiny_model, tmp_path_factory.mktemp("ends-early") / "model", 4)


@pytest.mark.parametrize("method", ["sdft", "grpo"])
def test_a_run_without_any_signal_is_stopped(ends_at_once: Path, micro_data: Path, tmp_path: Path, method: str) -> None:
    """Completions of one token: SDFT is told to skip three, and GRPO finds all of them equally wrong."""
    sets = ["n=4"] if method == "grpo" else ["skip_first=3"]
    found, error = findings(ends_at_once, micro_data, tmp_path / "run", *sets, "max_steps=60", method=method)
    by_guard = [f for f in found if f[1] == "no-signal"]
    assert [f[2] for f in by_guard] == ["warn", "stop"] and error is not None and "no-signal stopped" in error.message
    text, hint = by_guard[0][3:]
    if method == "sdft":
        assert by_guard[0][0] == 5 and "no more tokens than objective.skip_first" in text and "skip_first=0" in hint
    else:
        assert by_guard[0][0] == 40 and "the same reward (0.00 on average)" in text and "sampler.n" in hint


def test_completions_of_one_token_are_trained_on_unless_the_recipe_says_otherwise(
    ends_at_once: Path, micro_data: Path, tmp_path: Path
) -> None:
    found, error = findings(ends_at_once, micro_data, tmp_path / "run", "max_steps=6", "lr=1e-4")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (chosen,) = (row for row in rows if row["kind"] == "skip_first")
    assert chosen["skip_first"] == 0 and chosen["why"] == "100 % of completions have no token after the first 3"
    assert error is None and "no-signal" not in [f[1] for f in found]
    assert all(row["signal"] == 1 and row["loss"] > 0 for row in rows if row["kind"] == "step")


def test_empty_completions_are_called_empty(
    tiny_model: Path, micro_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(tiny_model, micro_data, "grpo")
    eos = trainer.policy.chat.eos_id

    def nothing(engine: TransformersEngine, prompts: list[list[int]], *_: object, **__: object) -> list[Rollout]:
        return [Rollout(p, [eos], [-0.1], "stop", i) for i, p in enumerate(prompts)]

    monkeypatch.setattr(TransformersEngine, "sample", nothing)
    watch = Guards(trainer.recipe, {})
    found = [f for number in range(20) for f in watch.look(trainer.batch(number).facts)]
    assert [(f["guard"], f["level"]) for f in found if f["guard"] == "no-signal"] == [
        ("no-signal", "warn"),
        ("no-signal", "stop"),
    ]
    assert "100 % of completions are empty" in found[0]["text"]


def test_every_cause_of_silence_is_told_apart(
    tiny_model: Path, micro_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(trainer: Any) -> dict[str, float]:
        return trainer.batch(0).facts.get("silent", {})

    assert of(stage(tiny_model, micro_data, "sdft", "skip_first=8")) == {silence.SKIPPED: 1.0}
    assert of(stage(tiny_model, micro_data, "sdft", "skip_first=0")) == {}
    cut = stage(tiny_model, micro_data, "sdft", "skip_first=0", "mask_truncated=true").batch(0).facts
    assert cut["silent"] == {silence.CUT: cut["truncated"]}
    blind = stage(tiny_model, micro_data, "sdft")
    monkeypatch.setattr(
        blind.batches.source, "examples", [replace(e, demonstration=None) for e in blind.batches.examples]
    )
    assert of(blind) == {silence.NO_TEACHER: 1.0}
    graded = make(tiny_model, micro_data, "grpo")
    graded.batches.task = replace(graded.batches.task, grade=lambda *_: Score(1.0))
    assert of(graded) == {silence.EQUAL_REWARDS: 1.0}
    crowded = make(tiny_model, micro_data, "sdpo")
    crowded.batches.chat.window = 30
    assert silence.NO_ROOM in of(crowded)


def test_equal_rewards_are_given_time_and_never_stop_what_was_learned() -> None:
    recipe = build([METHODS.get("grpo").defaults()])
    silent = {"signal": 0.0, "empty": 0.0, "reward": 0.0, "silent": {silence.EQUAL_REWARDS: 1.0}}

    def levels(rows: list[dict[str, Any]]) -> list[tuple[int, str]]:
        watch = Guards(recipe, {})
        return [
            (n, f["level"]) for n, row in enumerate(rows, 1) for f in watch.look({"loss": 0.0, "grad_norm": 0.0, **row})
        ]

    assert levels([silent] * 39) == [] and levels([silent] * 50) == [(40, "warn"), (49, "stop")]
    assert levels([{**silent, "reward": 1.0}] * 100) == [(40, "warn")]  # solved
    assert levels([{**silent, "signal": 0.5}] * 5 + [silent] * 100) == [(45, "warn")]


def test_a_rate_that_makes_the_model_uniform_is_stopped(tiny_model: Path, micro_data: Path, tmp_path: Path) -> None:
    found, error = findings(tiny_model, micro_data, tmp_path / "run", "lr=1e5")
    assert error is not None and error.message.startswith("uniform stopped") and "lower train.lr" in error.hint
    assert ("uniform", "warn") in [f[1:3] for f in found]


def test_a_model_whose_sampler_is_another_is_stopped(
    tiny_model: Path, micro_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = TransformersEngine.sample

    def shifted(engine: TransformersEngine, *words: Any, **more: Any) -> list[Rollout]:
        rollouts = real(engine, *words, **more)
        return [replace(r, logprobs=[value - 1.0 for value in r.logprobs]) for r in rollouts]

    monkeypatch.setattr(TransformersEngine, "sample", shifted)
    found, error = findings(tiny_model, micro_data, tmp_path / "run", "lr=1e-6")
    assert error is not None and error.message.startswith("sampler-gap stopped")
    assert "differ by 1.00 nats per token" in found[0][3] and "runtime.dtype" in found[0][4]
    by_design = ("lr=1e-6", "top_p=0.9", "importance_cap=none")
    found, error = findings(tiny_model, micro_data, tmp_path / "top-p", *by_design)
    assert error is None and "sampler-gap" not in [f[1] for f in found]


@pytest.mark.parametrize(("setting", "staleness"), [("train.updates=2", None), ("engine.prefetch=2", 1)])
def test_a_gap_counts_only_where_sampler_and_trainer_have_the_same_weights(setting: str, staleness: int | None) -> None:
    recipe = assemble(None, {"method": "sdft", "tasks": ["micro-tooluse"]}, [setting, "importance_cap=2"])
    watch = Guards(recipe, {})
    for step in range(1, 40):
        stale = step % 2 == 0
        row = {"loss": 0.1, "grad_norm": 0.1, "logprob_gap": 3.0 if stale else 1e-3}
        if staleness is not None:
            row["staleness"] = staleness if stale else 0
        assert watch.look(row) == []


def test_truncation_from_the_start_is_not_blamed_on_the_rate(
    tiny_model: Path, micro_data: Path, tmp_path: Path
) -> None:
    found, _ = findings(tiny_model, micro_data, tmp_path / "run", "lr=1e-6", "max_steps=10")
    ((step, _, level, text, hint),) = [f for f in found if f[1] == "truncation"]
    assert (step, level) == (10, "warn") and "train.lr" not in hint and "stop id" in text
    assert "sampler.max_new_tokens" in hint or "eos_token_id" in hint


def test_the_token_that_does_not_stop_a_model_is_named(
    tiny_model: Path, micro_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = stage(tiny_model, micro_data, "sdft")
    opener = trainer.policy.chat.tokenizer.convert_tokens_to_ids("<|im_start|>")

    def goes_on(engine: TransformersEngine, prompts: list[list[int]], *_: object, **__: object) -> list[Rollout]:
        return [Rollout(p, [40, opener, 41, 42, 43], [-1.0] * 5, "length", i) for i, p in enumerate(prompts)]

    monkeypatch.setattr(TransformersEngine, "sample", goes_on)
    assert trainer.batch(0).facts["runs_past"] == "<|im_start|>"
    watch = Guards(trainer.recipe, {})
    found = [f for number in range(12) for f in watch.look(trainer.batch(number).facts) if f["guard"] == "truncation"]
    assert "most contain <|im_start|>, which is no stop id" in found[0]["text"]
    assert "eos_token_id" in found[0]["hint"] and "train.lr" not in found[0]["hint"]


# --- the first tokens -------------------------------------------------------------------------------------------------


def test_the_kl_at_skipped_tokens_is_that_of_a_plain_forward_pass(tiny_model: Path, micro_data: Path) -> None:
    trainer = stage(tiny_model, micro_data, "sdft", "skip_first=2")
    rows, model = trainer.batch(0).rows, trainer.policy.model
    skipped, counted = [], []
    for row in rows:
        with torch.no_grad():
            logprobs = []
            for prompt in (row.teacher_prompt or [], row.student_prompt):
                logits = model(torch.tensor([prompt + row.completion])).logits[0, len(prompt) - 1 : -1]
                logprobs.append(functional.log_softmax(logits, -1))
        kl = (logprobs[0].exp() * (logprobs[0] - logprobs[1])).sum(-1)
        skipped.append(kl[:2]), counted.append(kl[2:])
    trainer.looks = lambda step: step == 0
    facts = trainer.step(0)
    first, others = torch.cat(skipped), torch.cat(counted)
    assert facts["skipped_kl"] == pytest.approx(float(first.mean()), rel=1e-4)
    assert facts["skipped_share"] == pytest.approx(float(first.sum() / (first.sum() + others.sum())), rel=1e-4)


def test_a_look_at_skipped_tokens_changes_nothing(tiny_model: Path, micro_data: Path) -> None:
    plain, looking = (stage(tiny_model, micro_data, "sdft", "skip_first=3") for _ in range(2))
    looking.looks = lambda step: True
    for step in range(3):
        mine, theirs = looking.step(step), plain.step(step)
        assert "skipped_kl" in mine and "skipped_kl" not in theirs
        assert all(mine[key] == theirs[key] for key in ("loss", "kl", "grad_norm", "entropy"))
    for ours, other in zip(looking.policy.model.parameters(), plain.policy.model.parameters(), strict=True):
        assert torch.equal(ours, other)


def test_a_format_that_is_masked_is_worth_a_warning(
    tiny_model: Path, ends_early: Path, micro_data: Path, tmp_path: Path
) -> None:
    sets = ("lr=1e-6", "max_steps=2", "batch=8")
    found, error = findings(ends_early, micro_data, tmp_path / "run", *sets, "skip_first=4")
    ((step, _, level, text, hint),) = [f for f in found if f[1] == "masked-start"]
    assert (step, level, error) == (1, "warn", None)
    assert "lies at the first 4 tokens, which are not trained" in text and "objective.skip_first=0" in hint
    # completions that are cut are not short, and of whole ones one token is no large part
    for name, model, skip in (("cut", tiny_model, 9), ("one", ends_early, 1)):
        found, _ = findings(model, micro_data, tmp_path / name, *sets, f"skip_first={skip}")
        assert "masked-start" not in [f[1] for f in found]


def test_no_gradient_is_warned_about(tiny_model: Path, micro_data: Path, tmp_path: Path) -> None:
    found, error = findings(
        tiny_model, micro_data, tmp_path / "run", "lora.rank=2", "lora.alpha=1e-9", "max_steps=8", "lr=1e-4"
    )
    named = [f for f in found if f[1] == "no-gradient"]
    assert error is None and [f[2] for f in named] == ["warn"] and "lora.alpha" in named[0][4]
