"""The real vLLM, in this process (CPU build): what it samples, that it has the trainer's weights, that stale ones show.

`make test-vllm` runs these; elsewhere they are skipped. For a server: test_vllm_server.py."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.vllm_runs import agree, prompts_for, recipe, run, step, tied_model

from sdft_cli.config.recipe import EngineSettings, Lora, Runtime, Sampler
from sdft_cli.engines import vllm as colocated
from sdft_cli.engines._weight_check import TOLERANCE_16
from sdft_cli.engines.transformers import truncate
from sdft_cli.engines.vllm import ColocatedEngine
from sdft_cli.errors import SdftError, UsageError
from sdft_cli.models import pretrained
from sdft_cli.models.policy import Policy
from sdft_cli.runs.folder import Run
from sdft_cli.runs.records import StageId
from sdft_cli.training.trainer import PhaseTrainer

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm"),
]
VLLM = {"name": "vllm"}


@pytest.fixture
def policy(tiny_model: Path) -> Policy:
    return pretrained.load(str(tiny_model), Runtime())


@pytest.fixture
def made(request: pytest.FixtureRequest) -> Callable[..., ColocatedEngine]:
    """Makes engines, and closes them after the test."""

    def make(policy: Policy, **settings: Any) -> ColocatedEngine:
        engine = ColocatedEngine(policy, EngineSettings(name="vllm", **settings))
        request.addfinalizer(engine.close)
        return engine

    return make


def steps(finished: Run) -> list[dict[str, Any]]:
    return finished.metrics.read().steps


# --- sampling --------------------------------------------------------------------------------------------------------


def test_greedy_equals_the_trainers(policy: Policy, made: Callable[..., ColocatedEngine]) -> None:
    agree(made(policy), policy)


def test_samples_follow_the_truncated_distribution_and_repeat_with_the_seed(
    policy: Policy, made: Callable[..., ColocatedEngine]
) -> None:
    engine, sampler = made(policy), Sampler(temperature=1.3, top_k=40, top_p=0.9)
    prompt = prompts_for(policy)[0]
    rollouts = engine.sample([prompt] * 3000, sampler, 1, seed=1)
    first = [r.ids[0] for r in rollouts]
    assert first == [r.ids[0] for r in engine.sample([prompt] * 3000, sampler, 1, seed=1)]
    assert first != [r.ids[0] for r in engine.sample([prompt] * 3000, sampler, 1, seed=2)]
    with torch.no_grad():
        logits_V = policy.model(torch.tensor([prompt])).logits[0, -1].float()
    logprob_V = torch.log_softmax(truncate(logits_V[None] / 1.3, 40, 0.9), -1)[0]
    torch.testing.assert_close(
        torch.tensor([r.logprobs[0] for r in rollouts]), logprob_V[torch.tensor(first)], atol=1e-3, rtol=0
    )
    counts_V = torch.bincount(torch.tensor(first), minlength=len(logprob_V)) / len(first)
    top = logprob_V.topk(5).indices
    p = logprob_V.exp()[top]
    assert ((counts_V[top] - p).abs() < 4.5 * (p * (1 - p) / len(first)).sqrt()).all()


def test_many_prompts_and_long_completions(policy: Policy, made: Callable[..., ColocatedEngine]) -> None:
    """More rows than fit into a batch, up to the end of the window: each completion still belongs to its prompt."""
    engine = made(policy, max_batch=4)
    prompts = [prompts_for(policy)[i % 3][: 8 + i] for i in range(11)]
    rollouts = engine.sample(prompts, Sampler(), 1000, seed=5)
    assert [r.prompt_ids for r in rollouts] == prompts and [r.index for r in rollouts] == list(range(11))
    assert all(len(r.ids) == 512 - len(r.prompt_ids) for r in rollouts if r.finish == "length")
    for r in rollouts:
        with torch.no_grad():
            logprob_LV = torch.log_softmax(policy.model(torch.tensor([r.prompt_ids + r.ids])).logits[0].float(), -1)
        at = torch.arange(len(r.prompt_ids) - 1, len(r.prompt_ids) + len(r.ids) - 1)
        torch.testing.assert_close(torch.tensor(r.logprobs), logprob_LV[at, torch.tensor(r.ids)], atol=1e-3, rtol=0)


def test_more_prompt_tokens_than_vllm_reads_at_once(policy: Policy, made: Callable[..., ColocatedEngine]) -> None:
    """The CPU build crashes on a prompt with a seed that is read in chunks."""
    prompts = [(prompts_for(policy)[i % 3] * 9)[:200] for i in range(200)]
    rollouts = made(policy).sample(prompts, Sampler(), 3, seed=0)
    assert [r.prompt_ids for r in rollouts] == prompts


def test_only_the_policys_own_tokens_end_a_completion(policy: Policy, made: Callable[..., ColocatedEngine]) -> None:
    engine = made(policy)
    first = engine.sample(prompts_for(policy), Sampler(), 5, 0, greedy=True)[0].ids[0]
    engine.stop = [first]
    assert engine.sample(prompts_for(policy)[:1], Sampler(), 5, 0, greedy=True)[0].finish == "stop"
    engine.stop = []
    rollouts = engine.sample(prompts_for(policy) * 20, Sampler(temperature=2.0), 60, 0)
    assert all(r.finish == "length" and len(r.ids) == 60 for r in rollouts)
    assert any(policy.chat.eos_id in r.ids for r in rollouts)


def test_two_engines_in_one_process(policy: Policy, tiny_model: Path, made: Callable[..., ColocatedEngine]) -> None:
    other = pretrained.load(str(tiny_model), Runtime())
    step(other, 1e-2)
    first, second = made(policy), made(other)
    agree(first, policy)
    first.close()
    agree(second, other)
    second.close()
    agree(made(policy), policy)


def test_memory_is_freed(policy: Policy) -> None:
    """Also by engines that come after one that an error left open."""
    left_open = ColocatedEngine(policy, EngineSettings())
    del left_open
    references = []
    for _ in range(2):
        engine = ColocatedEngine(policy, EngineSettings())
        references.append(weakref.ref(engine.llm))
        engine.close()
    assert [reference() for reference in references] == [None, None]


def test_threads_can_still_be_set(policy: Policy, made: Callable[..., ColocatedEngine]) -> None:
    before = torch.set_num_threads
    made(policy)
    assert torch.set_num_threads is before


def test_every_option_is_one_of_vllms(policy: Policy) -> None:
    from vllm.engine.arg_utils import EngineArgs

    options = {field.name for field in dataclasses.fields(EngineArgs)}
    for device in ("cpu", "cuda"):
        engine = ColocatedEngine.__new__(ColocatedEngine)
        engine.policy = dataclasses.replace(policy, device=torch.device(device))
        engine.settings = EngineSettings(sleep=True)
        assert set(engine._options()) <= options
    assert engine._options()["gpu_memory_utilization"] == 0.3 and engine._options()["enable_sleep_mode"]


def test_a_model_that_vllm_cannot_hold(policy: Policy) -> None:
    policy.core.config._name_or_path = "no/such-model"
    with pytest.raises(UsageError, match="vLLM cannot hold"):
        ColocatedEngine(policy, EngineSettings())


# --- weights ---------------------------------------------------------------------------------------------------------


def test_weights_that_differ_from_the_files_are_used_from_the_start(
    policy: Policy, made: Callable[..., ColocatedEngine]
) -> None:
    step(policy, 1e-2)
    agree(made(policy), policy)


def test_batches_are_prefetched(tiny_model: Path, micro_data: Path, tmp_path: Path) -> None:
    """By a second thread, while the trainer moves the weights."""
    settings = {"name": "vllm", "prefetch": 2}
    rows = run(recipe(tiny_model, micro_data, settings), tmp_path / "run").metrics.read().steps
    assert [row["staleness"] for row in rows] == [0, 1, 2, 1, 2, 1]
    assert all(row["sync_gap"] < 1e-3 for row in rows)
    assert rows[0]["logprob_gap"] < 1e-3 and all(row["logprob_gap"] > 0 for row in rows)


def test_every_step_of_a_run_samples_from_its_own_weights(tiny_model: Path, micro_data: Path, tmp_path: Path) -> None:
    rows = steps(run(recipe(tiny_model, micro_data, VLLM), tmp_path / "run"))
    assert len(rows) == 6
    for row in rows:
        assert row["sync_gap"] < 1e-3
        assert row["logprob_gap"] < 1e-3


def test_a_skipped_update_is_detected_at_the_next_step(
    tiny_model: Path, micro_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = ColocatedEngine._push

    def forgetful(engine: ColocatedEngine) -> None:
        if engine.version != 1:  # after the first step of the warm-up, the smallest one
            push(engine)

    monkeypatch.setattr(ColocatedEngine, "_push", forgetful)
    chosen = recipe(tiny_model, micro_data, VLLM, train={"lr": 1e-6})
    with pytest.raises(SdftError, match="does not hold version 1 of the weights"):
        run(chosen, tmp_path / "run")


def test_tied_embeddings_are_updated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[..., ColocatedEngine]
) -> None:
    """vLLM's CPU build keeps an old output head there; the engine renews it, and without that the check fails."""
    policy = pretrained.load(str(tied_model(tmp_path / "tied")), Runtime())
    engine = made(policy)
    for _ in range(3):
        step(policy, 1e-3)
        engine.sync()
        agree(engine, policy)
    monkeypatch.setattr(colocated, "_prepack_head", lambda model: None)
    step(policy, 1e-3)
    with pytest.raises(SdftError, match="does not hold version 4"):
        engine.sync()


def test_adapters_travel_as_adapters(tiny_model: Path, made: Callable[..., ColocatedEngine]) -> None:
    policy = pretrained.load(str(tiny_model), Runtime(), Lora(rank=4))
    base = [p.clone() for p in policy.core.parameters() if not p.requires_grad]
    engine = made(policy)
    agree(engine, policy)  # the adapter has no effect yet
    for _ in range(4):
        step(policy, 2e-2)
        engine.sync()
        agree(engine, policy)
    assert len(engine.llm.llm_engine.list_loras()) == 1
    after = [p for p in policy.core.parameters() if not p.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(base, after, strict=True))


def test_a_skipped_adapter_is_detected(tiny_model: Path, made: Callable[..., ColocatedEngine]) -> None:
    policy = pretrained.load(str(tiny_model), Runtime(), Lora(rank=4))
    engine = made(policy)
    step(policy, 1e-4)
    engine._push = lambda: None  # type: ignore[method-assign]
    with pytest.raises(SdftError, match="does not hold version 1"):
        engine.sync()


def test_a_run_with_an_adapter(tiny_model: Path, micro_data: Path, tmp_path: Path) -> None:
    finished = run(recipe(tiny_model, micro_data, VLLM, lora={"rank": 4}), tmp_path / "run")
    assert [row["sync_gap"] < 1e-3 for row in steps(finished)] == [True] * 6


def test_bf16(tiny_model: Path, made: Callable[..., ColocatedEngine]) -> None:
    policy = pretrained.load(str(tiny_model), Runtime(dtype="bfloat16"))
    engine = made(policy)
    for _ in range(4):
        step(policy, 1e-3)
        engine.sync()
        assert engine.facts["sync_gap"] < TOLERANCE_16
    engine._push = lambda: None  # type: ignore[method-assign]
    step(policy, 1e-3)
    with pytest.raises(SdftError, match="does not hold version 5"):
        engine.sync()


class _Stopped(Exception):
    pass


def test_a_resumed_run_equals_an_uninterrupted_one(
    tiny_model: Path, micro_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe(tiny_model, micro_data, VLLM, train={"checkpoint_every": 2})
    whole = run(chosen, tmp_path / "whole")
    real = PhaseTrainer.step

    def stop(stage: PhaseTrainer, number: int) -> dict[str, Any]:
        if number == 3:
            raise _Stopped
        return real(stage, number)

    monkeypatch.setattr(PhaseTrainer, "step", stop)
    with pytest.raises(_Stopped):
        run(chosen, tmp_path / "halved")
    monkeypatch.setattr(PhaseTrainer, "step", real)
    halved = run(chosen, tmp_path / "halved", resume=True)
    assert len(steps(halved)) == 6
    assert [r["loss"] for r in steps(halved)] == pytest.approx([r["loss"] for r in steps(whole)], rel=1e-4)
    finals = [r.checkpoints.of(StageId(1, "micro-science")).finished() for r in (whole, halved)]
    ends = [pretrained.load(str(final.model), Runtime()) for final in finals if final]
    for a, b in zip(*(e.model.parameters() for e in ends), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_eval_gives_the_scores_of_the_other_engine(micro_data: Path, tmp_path: Path) -> None:
    results = {}
    for engine in ("transformers", "vllm"):
        words = ["eval", "micro", "--suite", "micro", "--limit", "24", "--engine", engine, "--no-cache", "--json"]
        command = [sys.executable, "-m", "sdft_cli", *words, "--set", "runtime.threads=1"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        results[engine] = json.loads(done.stdout)
    assert results["vllm"]["suite"]["accuracy"] == results["transformers"]["suite"]["accuracy"]
