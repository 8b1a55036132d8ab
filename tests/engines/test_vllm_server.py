"""A real vLLM server on loopback (CPU build): what it samples, that it has the trainer's weights, that stale ones show.

`make test-vllm` runs these; in another environment $VLLM_PYTHON names the Python that has vLLM.
"""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.real_server import serving
from support.vllm_runs import agree, prompts_for, recipe, run, step, tied_model

from sdft_cli.config.recipe import EngineSettings, Lora, Runtime, Sampler
from sdft_cli.engines.transformers import truncate
from sdft_cli.engines.vllm_server import ServerEngine
from sdft_cli.errors import SdftError, UsageError
from sdft_cli.models import pretrained
from sdft_cli.models.policy import Policy

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None and "VLLM_PYTHON" not in os.environ,
        reason="vLLM is not installed: make test-vllm",
    ),
]
PROCESSED = ("--logprobs-mode", "processed_logprobs", "--no-enable-chunked-prefill")


@pytest.fixture(scope="module")
def url(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for the module, as every engine brings its own weights."""
    with serving("vllm", tiny_model, tmp_path_factory.mktemp("server") / "log", *PROCESSED) as address:
        yield address


@pytest.fixture
def policy(tiny_model: Path) -> Policy:
    return pretrained.load(str(tiny_model), Runtime())


@pytest.fixture
def engine(policy: Policy, url: str) -> Iterator[ServerEngine]:
    made = ServerEngine(policy, EngineSettings(name="vllm-server", base_url=url))
    yield made
    made.close()


def test_greedy_equals_the_trainers_at_every_version(policy: Policy, engine: ServerEngine) -> None:
    agree(engine, policy)
    for _ in range(3):
        step(policy, 3e-3)
        engine.sync()
        assert engine.facts["sync_gap"] < 1e-3
        agree(engine, policy)


def test_samples_follow_the_truncated_distribution(policy: Policy, engine: ServerEngine) -> None:
    sampler, prompt = Sampler(temperature=1.3, top_k=40, top_p=0.9), prompts_for(policy)[0]
    rollouts = engine.sample([prompt] * 600, sampler, 1, seed=1)
    first = torch.tensor([r.ids[0] for r in rollouts])
    with torch.no_grad():
        logits_V = policy.model(torch.tensor([prompt])).logits[0, -1].float()
    logprob_V = torch.log_softmax(truncate(logits_V[None] / 1.3, 40, 0.9), -1)[0]
    torch.testing.assert_close(torch.tensor([r.logprobs[0] for r in rollouts]), logprob_V[first], atol=1e-3, rtol=0)
    top = logprob_V.topk(3).indices
    p, share = logprob_V.exp()[top], torch.bincount(first, minlength=len(logprob_V))[top] / len(first)
    assert ((share - p).abs() < 4.5 * (p * (1 - p) / len(first)).sqrt()).all()


def test_every_step_of_a_run_samples_from_its_own_weights(
    tiny_model: Path, micro_data: Path, tmp_path: Path, url: str
) -> None:
    settings = {"name": "vllm-server", "base_url": url, "weights_folder": str(tmp_path)}
    rows = run(recipe(tiny_model, micro_data, settings), tmp_path / "run").metrics.read().steps
    assert len(rows) == 6
    assert all(row["sync_gap"] < 1e-3 and row["logprob_gap"] < 1e-3 for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_skipped_update_is_detected_at_the_next_step(policy: Policy, engine: ServerEngine) -> None:
    for size in (1e-6, 1e-5):
        step(policy, size)
        engine.sync()
    engine._push = lambda: None  # type: ignore[method-assign]
    step(policy, 1e-6)
    with pytest.raises(SdftError, match="does not hold version 3 of the weights"):
        engine.sync()


def test_a_new_engine_brings_its_weights(tiny_model: Path, url: str) -> None:
    """As in a resumed run or the next stage, whatever the server held before."""
    for size in (1e-2, 2e-2):
        policy = pretrained.load(str(tiny_model), Runtime())
        step(policy, size)
        engine = ServerEngine(policy, EngineSettings(base_url=url))
        agree(engine, policy)
        engine.close()


def test_a_server_without_processed_logprobs_is_refused(policy: Policy, tiny_model: Path, tmp_path: Path) -> None:
    with (
        serving("vllm", tiny_model, tmp_path / "log") as address,
        pytest.raises(UsageError, match="from before temperature") as caught,
    ):
        ServerEngine(policy, EngineSettings(base_url=address))
    assert "--logprobs-mode processed_logprobs" in caught.value.hint


def test_tied_embeddings_are_refused_where_the_server_cannot_update_them(tmp_path: Path) -> None:
    """vLLM's CPU build keeps an old output head there, which cannot be renewed from outside."""
    model = tied_model(tmp_path / "tied")
    policy = pretrained.load(str(model), Runtime())
    with serving("vllm", model, tmp_path / "log", *PROCESSED) as address:
        engine = ServerEngine(policy, EngineSettings(base_url=address))
        step(policy, 1e-3)
        with pytest.raises(SdftError, match="does not hold version 1") as caught:
            engine.sync()
        engine.close()
    assert "tied embeddings: use --engine vllm" in caught.value.hint


def test_adapters_travel_as_adapters(tiny_model: Path, micro_data: Path, tmp_path: Path) -> None:
    options = (*PROCESSED, "--enable-lora", "--max-lora-rank", "8")
    with serving("vllm", tiny_model, tmp_path / "log", *options) as address:
        policy = pretrained.load(str(tiny_model), Runtime(), Lora(rank=4))
        engine = ServerEngine(policy, EngineSettings(base_url=address))
        for _ in range(3):
            step(policy, 2e-2)
            engine.sync()
            agree(engine, policy)
        engine.close()
        settings = {"name": "vllm-server", "base_url": address}
        finished = run(recipe(tiny_model, micro_data, settings, lora={"rank": 4}), tmp_path / "run")
    assert [row["sync_gap"] < 1e-3 for row in finished.metrics.read().steps] == [True] * 6
