"""The sampling loop against plain `generate` and against the model's own log-probs."""

from pathlib import Path

import pytest
import torch

from sdft_cli import models
from sdft_cli.engines.transformers import TransformersEngine, truncate
from sdft_cli.models import Policy
from sdft_cli.recipe import Engine, Runtime, Sampler

PROMPTS = ["repeat these words : vibro nidu", "which number comes after five ?", "give the last word of : saso mado"]


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return models.load(str(tiny_model), Runtime())


@pytest.fixture(scope="module")
def prompts(policy: Policy) -> list[list[int]]:
    return [policy.chat.prompt_ids([{"role": "user", "content": p}]) for p in PROMPTS]


def test_greedy_equals_generate(policy: Policy, prompts: list[list[int]]) -> None:
    ours = TransformersEngine(policy).sample(prompts, Sampler(), 12, 0, greedy=True)
    for prompt, rollout in zip(prompts, ours, strict=True):
        out = policy.model.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=policy.chat.pad_id
        )
        assert rollout.ids == out[0, len(prompt) :].tolist()
        assert rollout.prompt_ids == prompt


def test_logprobs_are_those_of_a_plain_forward_pass(policy: Policy, prompts: list[list[int]]) -> None:
    rollouts = TransformersEngine(policy, Engine(max_batch=2)).sample(prompts, Sampler(), 9, seed=3)
    for r in rollouts:
        with torch.no_grad():
            logits = policy.model(torch.tensor([r.prompt_ids + r.ids])).logits[0].float()
        log_p = torch.log_softmax(logits[len(r.prompt_ids) - 1 : -1], -1)
        want = log_p[torch.arange(len(r.ids)), torch.tensor(r.ids)]
        torch.testing.assert_close(torch.tensor(r.logprobs), want, atol=2e-5, rtol=1e-4)


def test_rows_that_end_leave_the_batch_and_change_nothing(policy: Policy, prompts: list[list[int]]) -> None:
    """Make the most likely first token of one row a stop token: the other rows go on as if alone."""
    engine = TransformersEngine(policy)
    alone = [engine.sample([p], Sampler(), 10, 0, greedy=True)[0] for p in prompts]
    engine.stop = torch.tensor([alone[0].ids[0], policy.chat.eos_id])
    together = engine.sample(prompts, Sampler(), 10, 0, greedy=True)
    assert together[0].ids == alone[0].ids[:1] and together[0].finish == "stop"
    for mine, other in zip(together[1:], alone[1:], strict=True):
        cut = next((i + 1 for i, t in enumerate(other.ids) if t in engine.stop.tolist()), len(other.ids))
        assert mine.ids == other.ids[:cut]


def test_samples_follow_the_distribution_and_repeat_with_the_seed(policy: Policy, prompts: list[list[int]]) -> None:
    engine = TransformersEngine(policy, Engine(max_batch=4096))
    many = [prompts[0]] * 4000
    first = [r.ids[0] for r in engine.sample(many, Sampler(), 1, seed=1)]
    assert first == [r.ids[0] for r in engine.sample(many, Sampler(), 1, seed=1)]
    assert first != [r.ids[0] for r in engine.sample(many, Sampler(), 1, seed=2)]
    with torch.no_grad():
        p = policy.model(torch.tensor([prompts[0]])).logits[0, -1].float().softmax(-1)
    counts = torch.bincount(torch.tensor(first), minlength=len(p)) / len(first)
    top = p.topk(5).indices
    error = (p[top] * (1 - p[top]) / len(first)).sqrt()
    assert ((counts[top] - p[top]).abs() < 4.5 * error).all()


def test_truncation_keeps_what_it_says() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    assert truncate(logits, 2, 1.0).isfinite().tolist() == [[True, True, False, False]]
    assert truncate(logits, 0, 0.7).isfinite().tolist() == [[True, True, False, False]]
    assert truncate(logits, 0, 0.81).isfinite().tolist() == [[True, True, True, False]]
    assert truncate(logits, 0, 1.0).isfinite().all()


def test_a_length_stop_is_said(policy: Policy, prompts: list[list[int]]) -> None:
    rollout = TransformersEngine(policy).sample(prompts[:1], Sampler(), 2, 0, greedy=True)[0]
    assert rollout.finish == ("stop" if policy.chat.eos_id in rollout.ids else "length") and len(rollout.ids) <= 2
