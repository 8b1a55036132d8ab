"""Families of models that are decoded in different ways: samples against the eager forward pass of each row alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import architectures

from sdft_cli.config.recipe import EngineSettings, Runtime, Sampler
from sdft_cli.engines import _ladder
from sdft_cli.engines._decoding import FastDecoder
from sdft_cli.engines.transformers import TransformersEngine
from sdft_cli.errors import SdftError, UsageError
from sdft_cli.models import pretrained
from sdft_cli.models.policy import Policy
from sdft_cli.types import Rollout

PADDED, EQUAL, KEPT, WHOLE = (
    "left-padded batches",
    "batches of equal length",
    "batches of equal length, finished rows kept",
    "the whole row for every token",
)
#: One family of every kind, and the decoder that it gets.
KINDS = {
    "llama": "fast layers",
    "qwen3_next": PADDED,  # linear attention beside full
    "qwen3_5_text": PADDED,
    "mamba": PADDED,  # nothing but recurrent layers
    "falcon_h1": PADDED,  # recurrent and full attention in one layer
    "lfm2": PADDED,  # convolutions
    "gemma2": PADDED,  # sliding windows and caps
    "deepseek_v3": PADDED,  # latent attention, experts
    "gpt_oss": PADDED,  # attention sinks
    "bloom": PADDED,  # alibi
    "opt": PADDED,  # learned positions with an offset
    "bart": EQUAL,  # positions that the model counts itself
    "deepseek_v4": KEPT,  # a cache that cannot drop rows
    "recurrent_gemma": WHOLE,  # states in the layers instead of a cache
}


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return pretrained.load(str(tiny_model), Runtime())


def load(name: str, folder: Path, tokenizer: Path) -> Policy:
    policy = pretrained.load(str(architectures.save(name, folder, tokenizer)), Runtime())
    policy.core.generation_config.eos_token_id = list(range(0, 1203, 9))  # completions of very different lengths
    return policy


def alone(model: Any, ids: list[int]) -> torch.Tensor:
    """fp32 log-probs [L, V] of one row by one forward pass."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().log_softmax(-1)


def worst(model: Any, rollouts: list[Rollout], greedy: bool = False) -> float:
    """The largest difference, in nats, of rollouts' log-probs from ``model``'s own (``greedy``: from its largest)."""
    gap = 0.0
    for r in rollouts:
        log_p = alone(model, r.prompt_ids + r.ids)[len(r.prompt_ids) - 1 : -1]
        want = log_p.max(-1).values if greedy else log_p.gather(1, torch.tensor(r.ids)[:, None])[:, 0]
        gap = max(gap, float((torch.tensor(r.logprobs) - want).abs().max()))
    return gap


def ragged() -> list[list[int]]:
    """Prompts of different lengths, one of a single token, two equal ones."""
    return [list(range(420, 420 + n)) for n in (3, 9, 1, 5, 5, 3)] + [list(range(330, 353))]


def check(policy: Policy, folder: Path, allowed: float = 1e-3) -> TransformersEngine:
    """Samples, greedy completions, batches of any size and repeated draws; returns the engine."""
    engine = TransformersEngine(policy, EngineSettings(max_batch=6))
    eager = type(policy.core).from_pretrained(folder, attn_implementation="eager").eval()
    sampled = engine.sample(ragged(), Sampler(), 10, seed=1)
    assert [r.ids for r in sampled] == [r.ids for r in engine.sample(ragged(), Sampler(), 10, seed=1)]
    assert [r.prompt_ids for r in sampled] == ragged()
    assert worst(eager, sampled) < allowed
    greedy = engine.sample(ragged(), Sampler(), 10, seed=1, greedy=True)
    assert worst(eager, greedy) < allowed and worst(eager, greedy, greedy=True) < allowed
    return engine


@pytest.mark.parametrize("name", KINDS)
def test_samples_are_those_of_a_forward_pass_of_each_row_alone(name: str, tiny_model: Path, tmp_path: Path) -> None:
    engine = check(load(name, tmp_path, tiny_model), tmp_path)
    assert len({len(r.ids) for r in engine.sample(ragged(), Sampler(), 10, seed=1)}) > 1
    assert engine.ladder.rung.name == KINDS[name] and engine.decoder.startswith(KINDS[name])


def fresh(model: Any, ids: list[int]) -> torch.Tensor:
    """`alone`, by a model that has forgotten the frequencies of the longest row so far."""
    alone(model, ids[:1])
    return alone(model, ids)


@pytest.mark.parametrize(
    ("name", "beyond"),
    [
        ("llama, dynamic rope", WHOLE),
        ("phi3, longrope", "batches of equal length, read anew in between"),
    ],
)
def test_rows_that_pass_the_length_at_which_frequencies_change(
    name: str, beyond: str, tiny_model: Path, tmp_path: Path
) -> None:
    """Up to 16 tokens rows are sampled as ever. Beyond, every token comes from a forward pass of what is before it;
    LongRoPE's frequencies then stay, so a row that was long from the start is as a forward pass of the whole row."""
    policy = load(name, tmp_path, tiny_model)
    policy.core.generation_config.eos_token_id = 1202
    engine = TransformersEngine(policy)
    assert engine.ladder.rung.name != beyond and engine.ladder.beyond.name == beyond and "16 tokens" in engine.decoder
    prompts = [list(range(420, 420 + n)) for n in (12, 4, 7, 7, 20)]
    short = engine.sample(prompts[1:4], Sampler(), 9, 0)
    assert max(len(r.prompt_ids + r.ids) for r in short) == 16 and worst(policy.core, short) < 1e-3
    crossing = engine.sample(prompts, Sampler(), 9, 0)
    assert any(len(r.prompt_ids) < 16 < len(r.prompt_ids + r.ids) for r in crossing)
    for r in crossing:
        for at, logprob in enumerate(r.logprobs):
            log_p = fresh(policy.core, r.prompt_ids + r.ids[:at])[-1]
            assert abs(float(log_p[r.ids[at]]) - logprob) < 1e-3
    assert engine.sample(prompts[1:4], Sampler(), 9, 0) == short
    if beyond != WHOLE:
        assert worst(policy.core, crossing[-1:]) < 1e-3


@pytest.mark.parametrize("name", ["bert, bidirectional", "xlnet"])
def test_a_model_that_sees_later_tokens_is_refused(name: str, policy: Policy) -> None:
    core = architectures.build(name)
    with pytest.raises(UsageError, match=r"reading a row token by token .* \(.* logits differ by 0\.\d+") as refused:
        TransformersEngine(replace(policy, core=core, name=name))
    assert refused.value.message.startswith(f"{name}: ") and "\n" not in refused.value.message and refused.value.hint


def test_memory_that_runs_out_in_the_trial_is_no_reason_for_another_decoder(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand more")

    monkeypatch.setattr(FastDecoder, "start", start)
    with pytest.raises(SdftError, match=r"do not fit into the memory of cpu: .* 2\.00 GiB\.$"):
        TransformersEngine(policy)


def test_every_way_to_decode_draws_the_same(policy: Policy) -> None:
    engine, drawn = TransformersEngine(policy, EngineSettings(max_batch=5)), []
    engine.stop = torch.tensor(list(range(0, 1203, 9)))
    rungs = _ladder._rungs(policy)
    for engine.ladder.rung in rungs:
        drawn.append([(r.ids, r.finish) for r in engine.sample(ragged(), Sampler(temperature=0.9), 12, seed=3)])
    assert len(drawn) == 6 and all(each == drawn[0] for each in drawn)
    assert len({len(ids) for ids, _ in drawn[0]}) > 2


def test_an_empty_prompt_is_refused(policy: Policy) -> None:
    with pytest.raises(SdftError, match="prompt 2 of 3 has no tokens"):
        TransformersEngine(policy).sample([[5], [], [6]], Sampler(), 3, 0)


#: Families whose indexer picks tokens by scores that tie in a tiny model; rounding then decides, even between a row and
#: its own beginning.
TIED = {"glm_moe_dsa"}
OTHERS = [name for name in architectures.names() if name not in TIED.union(KINDS) and "rope" not in name]


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_every_family_is_sampled_right_or_refused(name: str, tiny_model: Path, tmp_path: Path) -> None:
    try:
        policy = load(name, tmp_path, tiny_model)
        check(policy, tmp_path, allowed=0.05)
    except UsageError as refused:
        assert "\n" not in refused.message and refused.hint
