"""The engine ``vllm-server`` with a server that behaves like vLLM's (`vllm_like_server`), or wrongly; the weight check
itself; errors where something is missing. With the real vLLM: test_vllm.py, test_vllm_server.py."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.vllm_like_server import VllmLike

from sdft_cli.config.recipe import EngineSettings, Lora, Runtime, Sampler, build
from sdft_cli.engines import _weight_check
from sdft_cli.engines._vllm import Generated, complaint
from sdft_cli.engines._weight_check import WeightCheck, trainer_logprobs
from sdft_cli.engines.transformers import TransformersEngine
from sdft_cli.engines.vllm import ColocatedEngine
from sdft_cli.engines.vllm_server import ServerEngine
from sdft_cli.errors import SdftError, UsageError
from sdft_cli.models import pretrained
from sdft_cli.models.engine import row_seed
from sdft_cli.models.policy import Policy
from sdft_cli.training import recipe_checks


@pytest.fixture
def policy(tiny_model: Path) -> Policy:
    return pretrained.load(str(tiny_model), Runtime())


@pytest.fixture
def prompts(policy: Policy) -> list[list[int]]:
    texts = ["repeat these words : vibro nidu", "which number comes after five ?"]
    return [policy.chat.prompt_ids([{"role": "user", "content": text}]) for text in texts]


@pytest.fixture
def server(tiny_model: Path) -> Iterator[VllmLike]:
    with VllmLike(tiny_model) as running:
        yield running


def step(policy: Policy, size: float) -> None:
    """A step like an optimizer's: every trainable weight moves by ``size``."""
    with torch.no_grad():
        for param in policy.model.parameters():
            if param.requires_grad:
                param.add_(torch.randn_like(param).sign(), alpha=size)


# --- a right server ---------------------------------------------------------------------------------------------------


def test_it_samples_what_the_trainer_would(policy: Policy, prompts: list[list[int]], server: VllmLike) -> None:
    engine = ServerEngine(policy, EngineSettings(base_url=server.url))
    for _ in range(2):
        ours = engine.sample(prompts, Sampler(), 12, 0, greedy=True)
        want = TransformersEngine(policy).sample(prompts, Sampler(), 12, 0, greedy=True)
        assert [(r.prompt_ids, r.ids, r.finish) for r in ours] == [(r.prompt_ids, r.ids, r.finish) for r in want]
        assert [r.index for r in ours] == [0, 1] and {r.version for r in ours} == {engine.version}
        for mine, other in zip(ours, want, strict=True):
            assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        step(policy, 1e-2)
        engine.sync()
    engine.close()


def test_requests_name_every_parameter_and_rows_have_their_own_seeds(
    policy: Policy, prompts: list[list[int]], server: VllmLike
) -> None:
    engine = ServerEngine(policy, EngineSettings(base_url=server.url + "/v1/"))
    first = engine.sample([prompts[0]] * 8, Sampler(temperature=1.5, top_k=7, top_p=0.9), 5, seed=3)
    assert first == engine.sample([prompts[0]] * 8, Sampler(temperature=1.5, top_k=7, top_p=0.9), 5, seed=3)
    assert len({tuple(r.ids) for r in first}) > 1
    body = next(b for b in server.asked("/v1/completions") if b.get("top_k") == 7)
    sent = {k: body[k] for k in ("temperature", "top_p", "max_tokens", "repetition_penalty", "min_p", "n")}
    assert sent == {
        "temperature": 1.5,
        "top_p": 0.9,
        "max_tokens": 5,
        "repetition_penalty": 1.0,
        "min_p": 0.0,
        "n": 1,
    }
    assert body["stop_token_ids"] == policy.stop_ids and body["return_token_ids"]
    engine.close()


def test_a_requests_seed_is_that_of_its_row(policy: Policy, prompts: list[list[int]], server: VllmLike) -> None:
    engine, sampler, many = ServerEngine(policy, EngineSettings(base_url=server.url)), Sampler(top_k=7), prompts * 3
    whole = engine.sample(many, sampler, 4, seed=3)
    parts = [engine.sample([many[i] for i in rows], sampler, 4, seed=3, rows=rows) for rows in ([5, 0, 2], [1, 3, 4])]
    drawn = dict(zip([5, 0, 2, 1, 3, 4], [r.ids for part in parts for r in part], strict=True))
    assert [drawn[i] for i in range(6)] == [r.ids for r in whole] and whole[0].ids != whole[2].ids
    seeds = [body["seed"] for body in server.asked("/v1/completions") if body.get("top_k") == 7]
    assert sorted(seeds) == sorted(2 * [row_seed(3, row) for row in range(6)])
    engine.close()


def test_weights_travel_through_a_folder_that_is_then_deleted(policy: Policy, server: VllmLike, tmp_path: Path) -> None:
    engine = ServerEngine(policy, EngineSettings(base_url=server.url, weights_folder=str(tmp_path)))
    step(policy, 1e-3)
    engine.sync()
    folders = [body["kwargs"]["weights_path"] for body in server.asked("/collective_rpc")]
    assert [Path(f).name for f in folders] == ["1", "2"] and all(Path(f).is_relative_to(tmp_path) for f in folders)
    assert not any(Path(f).exists() for f in folders)
    engine.close()
    engine.close()
    assert not list(tmp_path.iterdir())


def test_an_adapter_travels_as_an_adapter(
    tiny_model: Path, prompts: list[list[int]], server: VllmLike, tmp_path: Path
) -> None:
    policy = pretrained.load(str(tiny_model), Runtime(), Lora(rank=4))
    engine = ServerEngine(policy, EngineSettings(base_url=server.url, weights_folder=str(tmp_path)))
    for _ in range(2):
        step(policy, 3e-2)
        engine.sync()
        ours = engine.sample(prompts, Sampler(), 8, 0, greedy=True)
        want = TransformersEngine(policy).sample(prompts, Sampler(), 8, 0, greedy=True)
        assert [r.ids for r in ours] == [r.ids for r in want]
    assert len(server.loaded) == 2 and not server.asked("/collective_rpc")  # the base and one adapter
    engine.close()
    assert len(server.loaded) == 1


def test_a_completion_ends_with_the_window(policy: Policy, prompts: list[list[int]], server: VllmLike) -> None:
    engine = ServerEngine(policy, EngineSettings(base_url=server.url))
    room = 64 - len(prompts[0])
    [rollout] = engine.sample(prompts[:1], Sampler(), 1000, 0, greedy=True)
    assert len(rollout.ids) == room if rollout.finish == "length" else len(rollout.ids) <= room
    with pytest.raises(SdftError, match="leaves no room in the engine's window of 64"):
        engine.sample([list(range(64))], Sampler(), 1, 0)
    assert engine.sample([], Sampler(), 5, 0) == []
    engine.close()


# --- a wrong server ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("no-token_ids", "no token ids or no log-probs"),
        ("no-logprobs", "no token ids or no log-probs"),
        ("no-prompt_logprobs", "no log-probs of the prompt"),
        ("short", "log-probs for"),
        ("two", "returned no completion"),
        ("busy", "did not reset its prefix cache"),
        ("500", "500 out of memory"),
    ],
)
def test_a_wrong_answer_is_an_error(
    policy: Policy, prompts: list[list[int]], server: VllmLike, fault: str, says: str
) -> None:
    engine = ServerEngine(policy, EngineSettings(base_url=server.url))
    server.fault = fault
    with pytest.raises(SdftError, match=says):
        engine.sample(prompts, Sampler(), 12, 0)
    engine.close()


@pytest.mark.parametrize(
    ("fault", "says", "hint"),
    [
        ("no-dev", "does not allow weight updates", "VLLM_SERVER_DEV_MODE=1 vllm serve"),
        ("raw", "from before temperature", "--logprobs-mode processed_logprobs"),
        ("other", "is not vLLM's", "vllm serve"),
    ],
)
def test_a_server_that_was_started_otherwise_is_refused(
    policy: Policy, server: VllmLike, fault: str, says: str, hint: str
) -> None:
    server.fault = fault
    with pytest.raises(UsageError, match=says) as caught:
        ServerEngine(policy, EngineSettings(base_url=server.url))
    assert hint in caught.value.hint


def test_a_server_that_keeps_old_weights_is_detected_at_the_next_step(policy: Policy, server: VllmLike) -> None:
    engine = ServerEngine(policy, EngineSettings(base_url=server.url))
    for _ in range(3):
        step(policy, 1e-6)
        engine.sync()
    server.fault = "stale"
    step(policy, 1e-6)
    with pytest.raises(SdftError, match="does not hold version 4 of the weights") as caught:
        engine.sync()
    assert "--engine transformers" in caught.value.hint
    engine.close()


def test_a_second_run_on_the_same_server_is_detected(
    tiny_model: Path, policy: Policy, prompts: list[list[int]], server: VllmLike
) -> None:
    engine = ServerEngine(policy, EngineSettings(base_url=server.url))
    engine.sample(prompts, Sampler(), 4, 0)
    other = pretrained.load(str(tiny_model), Runtime())
    step(other, 1e-2)
    ServerEngine(other, EngineSettings(base_url=server.url)).close()
    with pytest.raises(SdftError, match="changed while it sampled"):
        engine.sample(prompts, Sampler(), 4, 0)
    engine.close()


def test_what_is_missing_is_reported_before_a_model_is_loaded(sdft, tmp_path: Path) -> None:
    for words, says, hint in (
        (("--engine", "vllm-server"), "needs an address", "engine.base_url=http://localhost:8000"),
        (("--engine", "vlm"), "unknown engine 'vlm'", "did you mean 'vllm'"),
        (("--engine", "vllm-server", "--set", "engine.base_url=ftp://x"), "is not an address", "http://HOST:PORT"),
    ):
        code, _, err = sdft("train", "--tasks", "micro-science", *words)
        assert code == 2 and says in err and hint in err
    code, _, err = sdft("eval", "micro", "--engine", "vlm")
    assert code == 2 and "choices: scripted, transformers, vllm, vllm-server" in err
    address = {"name": "vllm-server", "base_url": "http://127.0.0.1:9", "weights_folder": str(tmp_path / "none")}
    with pytest.raises(UsageError, match="is not a writable folder"):
        recipe_checks.check_recipe(build([{"tasks": ["micro-science"], "engine": address}]))


def test_without_vllm_the_hint_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="vLLM is not installed") as caught:
        ColocatedEngine.check(EngineSettings())
    assert "pip install 'sdft-cli[vllm]'" in caught.value.hint


def test_sleep_and_prefetch_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    ColocatedEngine.check(EngineSettings(sleep=True))
    with pytest.raises(UsageError, match="exclude each other"):
        ColocatedEngine.check(EngineSettings(sleep=True, prefetch=1))


def test_no_server_at_the_address(policy: Policy) -> None:
    with pytest.raises(SdftError, match=r"no answer from the server at http://127\.0\.0\.1:9/v1/models"):
        ServerEngine(policy, EngineSettings(base_url="http://127.0.0.1:9"))


# --- sleep, which needs a GPU: here, the order of calls ---------------------------------------------------------------


class _Recorder:
    """Accepts every call; ``calls`` has their names with the arguments that matter."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str):
        def call(*given: object, **named: object) -> bool:
            self.calls.append(
                " ".join([name, *map(str, given), *(f"{k}={v}" for k, v in named.items() if k == "level")])
            )
            return True

        return call


class _Recorded(ColocatedEngine):
    """The trainer plays vLLM, and answers only while it is awake."""

    check = staticmethod(lambda settings: None)

    def _open(self) -> None:
        self.llm, self.window, self.pushed = _Recorder(), 64, 0

    def _push_adapter(self) -> None:
        self.llm.add_lora()

    def _generate(self, prompts, parameters):
        assert not self.asleep
        rollouts = TransformersEngine(self.policy).sample(prompts, Sampler(), parameters[0]["max_tokens"], 0)
        return [Generated(r.ids, r.logprobs, r.finish) for r in rollouts]

    def _read(self, sequences):
        assert not self.asleep
        return logprobs_by(self.policy, self.weight_check)

    def close(self) -> None:
        """There is nothing to free."""


@pytest.mark.parametrize(("rank", "level"), [(0, 2), (4, 1)])
def test_an_engine_that_slept_gets_its_weights_before_any_request(
    tiny_model: Path, prompts: list[list[int]], rank: int, level: int
) -> None:
    engine = _Recorded(pretrained.load(str(tiny_model), Runtime(), Lora(rank=rank)))
    engine.sleeps = True
    push = ["add_lora"] if rank else ["collective_rpc reload_weights", "apply_model"]
    waking = ["wake_up None"] if rank else ["wake_up ['weights']"]
    full = [*waking, *push, *([] if rank else ["wake_up ['kv_cache']"]), "reset_prefix_cache"]
    calls = []
    for action in (lambda: engine.sample(prompts, Sampler(), 3, 0), engine.sync) * 2:
        engine.llm.calls.clear()
        action()
        calls.append([c if "apply_model" not in c else "apply_model" for c in engine.llm.calls])
    sampled = ["reset_prefix_cache", f"sleep level={level}"]
    assert calls == [sampled, full, sampled, full]
    engine.sample(prompts, Sampler(), 3, 0)
    engine.llm.calls.clear()
    engine.sample(prompts, Sampler(), 3, 0)  # as evaluations do: again, without a step between
    assert [c if "apply_model" not in c else "apply_model" for c in engine.llm.calls] == [*full, *sampled]


# --- the checks themselves --------------------------------------------------------------------------------------------


def test_complaints() -> None:
    good = Generated([5, 9], [-0.1, -0.2], "stop")
    assert complaint(good, 4, [9]) == ""
    assert complaint(Generated([5, 6], [-0.1, -0.2], "length"), 2, [9]) == ""
    for answer, limit, says in (
        (Generated([], [], "stop"), 4, "0 tokens"),
        (good, 1, "2 tokens instead of at most 1"),
        (Generated([5, 9], [-0.1], "stop"), 4, "1 log-probs for 2 tokens"),
        (Generated([5, 9], [-0.1, math.nan], "stop"), 4, "a log-prob of nan"),
        (Generated([5, 9], [-0.1, 0.5], "stop"), 4, "a log-prob of 0.5"),
        (Generated([9, 9], [-0.1, -0.1], "stop"), 4, "continues after a stop token"),
        (Generated([5, 6], [-0.1, -0.1], "length"), 4, "ended with 'length' after 2 of 4"),
        (Generated([5, 9], [-0.1, -0.1], "length"), 4, "ended with 'length'"),
        (Generated([5, 6], [-0.1, -0.1], "abort"), 2, "ended with 'abort'"),
    ):
        assert says in complaint(answer, limit, [9])


def logprobs_by(policy: Policy, check: WeightCheck, noise: float = 0.0, seed: int = 0) -> list[list[float]]:
    """Log-probs by an engine with the policy's weights and its own rounding."""
    flat_N = trainer_logprobs(policy, check.sequences)
    flat_N = flat_N + noise * torch.randn(len(flat_N), generator=torch.Generator().manual_seed(seed))
    return [row.tolist() for row in flat_N.split([len(ids) - 1 for ids in check.sequences])]


def test_the_trainers_log_probs_are_those_of_a_plain_forward_pass(policy: Policy) -> None:
    sequences = WeightCheck(policy).sequences
    want = []
    for ids in sequences:
        with torch.no_grad():
            logprob_LV = torch.log_softmax(policy.model(torch.tensor([ids])).logits[0].float(), -1)
        want += [logprob_LV[i, token] for i, token in enumerate(ids[1:])]
    logprob_N = trainer_logprobs(policy, sequences)
    torch.testing.assert_close(logprob_N.float(), torch.stack(want), atol=1e-4, rtol=0)
    assert len(logprob_N) > 50


@pytest.mark.parametrize("noise", [1e-6, 1e-4])
def test_a_missed_step_below_the_tolerance_is_detected(policy: Policy, noise: float) -> None:
    """Even where rounding hides a single step, the steps that an engine missed add up."""
    check = WeightCheck(policy)
    then = logprobs_by(policy, check, noise)
    assert check.compare(0, then) < 1e-3
    for version in range(1, 20):
        step(policy, 1e-6)
        assert check.compare(version, logprobs_by(policy, check, noise, version)) < 1e-3
    stale = logprobs_by(policy, check, noise, 19)
    with pytest.raises(SdftError, match=r"the engine shows -?\d+% of that|more than 0.001"):
        for version in range(20, 60):
            step(policy, 1e-6)
            wobble = [[x + 1e-9 * version for x in row] for row in stale]
            check.compare(version, wobble)


def test_an_engine_that_stands_still_is_detected_at_once_however_coarse(policy: Policy) -> None:
    check = WeightCheck(policy, tolerance=1.0)
    stale = logprobs_by(policy, check, noise=0.05)
    check.compare(0, stale)
    step(policy, 1e-6)
    with pytest.raises(SdftError, match="none of the engine's"):
        check.compare(1, stale)


def test_an_engine_with_only_part_of_an_update_is_detected(policy: Policy) -> None:
    """An output head that was not updated, far below the tolerance."""
    check = WeightCheck(policy)
    head = policy.core.get_output_embeddings().weight
    for version in range(3):
        step(policy, 1e-6)
        check.compare(version, logprobs_by(policy, check, 1e-7, version))
    with torch.no_grad():
        step(policy, 1e-6)
        partial = logprobs_by(policy, check, 1e-7, 3)
        head.add_(torch.randn_like(head).sign(), alpha=1e-5)
    with pytest.raises(SdftError, match=r"the engine shows \d+% of that"):
        check.compare(3, partial)


def test_an_engine_with_other_weights_is_detected(policy: Policy) -> None:
    check = WeightCheck(policy)
    right = logprobs_by(policy, check)
    for wrong in ([[x + 0.01 for x in row] for row in right], [[math.nan] * len(row) for row in right]):
        with pytest.raises(SdftError, match="log-probs differ by up to"):
            check.compare(0, wrong)
    with pytest.raises(SdftError, match="prompt tokens"):
        check.compare(0, [row[1:] for row in right])
    check.compare(0, right)
    check.check_unchanged(right)
    policy.core.config.tie_word_embeddings = True
    with pytest.raises(SdftError) as caught:
        check.compare(1, [[x + 0.01 for x in row] for row in right])
    assert "tied embeddings" in caught.value.hint


def test_bf16_has_its_own_tolerance(tiny_model: Path) -> None:
    coarse = pretrained.load(str(tiny_model), Runtime(dtype="bfloat16"))
    assert WeightCheck(coarse).tolerance == _weight_check.TOLERANCE_16 > 1e-3
    assert WeightCheck(coarse, 0.2).tolerance == 0.2


def test_a_few_log_probs_show_whether_they_are_processed(policy: Policy) -> None:
    prompts = WeightCheck(policy).sequences
    for temperature, want in ((2.0, True), (1.0, False)):
        engine = TransformersEngine(policy)
        rollouts = engine.sample(prompts, Sampler(temperature=temperature), 1, seed=0)
        tokens, logprobs = [r.ids[0] for r in rollouts], [r.logprobs[0] for r in rollouts]
        assert _weight_check.are_processed(policy, prompts, tokens, logprobs, temperature=2.0) is want
