"""The sampling loop against transformers' `generate` and against the model's own log-probs."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from support.architectures import ARCHITECTURES, build, random_model

from sdft_cli.config.recipe import EngineSettings, Lora, Runtime, Sampler
from sdft_cli.engines import _fast_layers, _ladder, transformers
from sdft_cli.engines._decoding import BatchDecoder, FastDecoder, ForwardDecoder
from sdft_cli.engines._numbers import uniform_numbers
from sdft_cli.engines._unpadded import UnpaddedDecoder
from sdft_cli.engines.transformers import TransformersEngine, _draw, truncate
from sdft_cli.errors import SdftError
from sdft_cli.models import pretrained
from sdft_cli.models.policy import Policy
from sdft_cli.types import Rollout

PROMPTS = ["repeat these words : vibro nidu", "which number comes after five ?", "give the last word of : saso mado"]


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return pretrained.load(str(tiny_model), Runtime())


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
    rollouts = TransformersEngine(policy, EngineSettings(max_batch=2)).sample(prompts, Sampler(), 7, seed=3)
    check_logprobs(policy, rollouts)


def test_finished_rows_are_dropped_and_change_nothing(policy: Policy, prompts: list[list[int]]) -> None:
    """Make the likeliest first token of one row a stop token: the other rows continue as if alone."""
    engine = TransformersEngine(policy)
    alone = [engine.sample([p], Sampler(), 10, 0, greedy=True)[0] for p in prompts]
    engine.stop = torch.tensor([alone[0].ids[0], policy.chat.eos_id])
    together = engine.sample(prompts, Sampler(), 10, 0, greedy=True)
    assert together[0].ids == alone[0].ids[:1] and together[0].finish == "stop"
    for mine, other in zip(together[1:], alone[1:], strict=True):
        cut = next((i + 1 for i, t in enumerate(other.ids) if t in engine.stop.tolist()), len(other.ids))
        assert mine.ids == other.ids[:cut]


def take(engine: TransformersEngine, name: str) -> None:
    """Let ``engine`` decode in the way of that name."""
    engine.ladder.rung = next(rung for rung in _ladder._rungs(engine.policy) if rung.name == name)


def test_samples_follow_the_distribution_and_repeat_with_the_seed(policy: Policy, prompts: list[list[int]]) -> None:
    engine = TransformersEngine(policy, EngineSettings(max_batch=4096))
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


@pytest.fixture
def ending(policy: Policy) -> Iterator[Policy]:
    """The model with every sixth token a stop token, so that completions differ widely in length."""
    config = policy.core.generation_config
    before, config.eos_token_id = config.eos_token_id, [policy.chat.eos_id, *range(10, 1203, 6)]
    yield policy
    config.eos_token_id = before


def generated(policy: Policy, prompts: list[list[int]], limit: int, **how: Any) -> list[list[int]]:
    """Completions by transformers' `generate`, cut after the first stop token."""
    width = max(map(len, prompts))
    ids = torch.tensor([[policy.chat.pad_id] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    how |= {"max_new_tokens": limit, "pad_token_id": policy.chat.pad_id}
    out = policy.model.generate(ids, attention_mask=mask, **how)[:, width:].tolist()
    stops = set(policy.stop_ids)
    ends = [next((i + 1 for i, t in enumerate(row) if t in stops), len(row)) for row in out]
    return [row[:end] for row, end in zip(out, ends, strict=True)]


@pytest.mark.parametrize("kind", ["fast layers", "left-padded batches"])
def test_greedy_equals_generate_on_mixed_lengths(ending: Policy, prompts: list[list[int]], kind: str) -> None:
    draw = random.Random(0)
    many = [[*draw.choice(prompts), *draw.choices(range(1200), k=draw.randrange(12))] for _ in range(40)]
    engine = TransformersEngine(ending, EngineSettings(max_batch=16))
    take(engine, kind)
    ours = engine.sample(many, Sampler(), 11, 0, greedy=True)
    assert [r.ids for r in ours] == generated(ending, many, 11, do_sample=False)
    assert len({len(r.ids) for r in ours}) > 5 and {r.finish for r in ours} == {"stop", "length"}


@pytest.mark.parametrize("kind", ["fast layers", "left-padded batches"])
def test_samples_follow_generates_distribution(ending: Policy, prompts: list[list[int]], kind: str) -> None:
    """First tokens and lengths: two samples of one distribution (chi-squared over cells)."""
    many, sampler = [prompts[i % 2] for i in range(3000)], Sampler(temperature=0.8, top_k=40, top_p=0.9)
    engine = TransformersEngine(ending, EngineSettings(max_batch=1000))
    take(engine, kind)
    ours = [r.ids for r in engine.sample(many, sampler, 6, seed=5)]
    torch.manual_seed(1)
    theirs = generated(ending, many, 6, do_sample=True, temperature=0.8, top_k=40, top_p=0.9)
    views: list[Callable[[list[int]], Any]] = [
        len,
        *(lambda ids, i=i: ids[i] if i < len(ids) else -1 for i in range(3)),
    ]
    for view in views:
        for prompt in (0, 1):
            assert p_value(*(Counter(map(view, side[prompt::2])) for side in (ours, theirs))) > 1e-4
    assert len(set(map(len, ours))) == 6


def p_value(one: Counter[Any], two: Counter[Any]) -> float:
    """The p-value of two counts being of one distribution; cells with fewer than ten are put together."""
    common = [key for key in one | two if one[key] + two[key] >= 10]
    table = [[*(c[key] for key in common), c.total() - sum(c[key] for key in common)] for c in (one, two)]
    cells = [pair for pair in zip(*table, strict=True) if sum(pair)]
    return float(stats.chi2_contingency(list(zip(*cells, strict=True))).pvalue) if len(cells) > 1 else 1.0


def test_a_rare_token_has_its_share() -> None:
    """Probabilities of 1e-3 beside one of nearly 1, and zeros that are never drawn."""
    p = torch.tensor([0.0, 0.996, 0.0, 1e-3, 2e-3, 1e-3, 0.0]).expand(200_000, -1)
    numbers_B = torch.from_numpy(uniform_numbers(0, [0], range(200_000))[0])
    drawn = torch.bincount(_draw(p, numbers_B), minlength=7) / 200_000
    assert drawn[[0, 2, 6]].tolist() == [0, 0, 0]
    assert ((drawn - p[0]).abs() <= 5 * (p[0] * (1 - p[0]) / 200_000).sqrt()).all()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_samples_what_it_computes(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """Sampled log-probs equal those of one forward pass; the fast decoder is used exactly where it is right."""
    policy = pretrained.load(str(random_model(name, tmp_path, tiny_model)), Runtime())
    engine = TransformersEngine(policy)
    engine.stop = torch.tensor(list(range(0, 1203, 9)))
    prompts = [list(range(20, 20 + n)) for n in (3, 9, 5, 5)] + [[20, 21, 22]] * 3
    rollouts = engine.sample(prompts, Sampler(), 160 if name == "llama" else 12, seed=1)
    check_logprobs(policy, rollouts)
    assert (engine.ladder.rung.name == "fast layers") == (name in FAST)
    assert len({tuple(r.ids) for r in rollouts[-3:]}) > 1  # equal prompts are read once and sampled apart


FAST = {
    "llama",
    "gemma, norms of 1 + weight",
    "qwen2, one head a key",
    "qwen3, norms on queries and keys",
    "mistral, full attention",
}


@pytest.mark.parametrize(("name", "what"), [("ministral3", "get_llama_4_attn_scale"), ("olmo", "clip_qkv")])
def test_fast_layers_leave_what_few_tokens_do_not_show_to_the_model(name: str, what: str) -> None:
    """Ministral scales the queries of positions past the first 16384, OLMo may clip large values: a short trial has
    neither, and would find the usual attention right."""
    core = build(name)
    with pytest.raises(AttributeError, match=f"an attention with .*{what}"):
        _fast_layers.FastLayers(core)


@pytest.mark.parametrize("most", [0, 1 << 30], ids=["in place", "prepacked"])
def test_samples_come_from_the_weights_of_this_step(
    tiny_model: Path, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Prepacked weights are copied anew for every sampling: an earlier copy would be stale. Some have a bias."""
    monkeypatch.setattr(_fast_layers, "COPIED_PARAMETERS", most)
    policy = pretrained.load(str(tiny_model), Runtime())
    head = policy.core.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.randn(head.weight.shape[0]))
    engine = TransformersEngine(policy)
    layers = _fast_layers.FastLayers(policy.core)
    assert engine.decoder == "fast layers" and (layers.prepacked() is layers) == (most == 0)
    for name in ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"):
        params = [param for key, param in policy.model.named_parameters() if f"{name}." in key]
        with torch.no_grad():
            for param in params:
                param.mul_(torch.rand_like(param) + 0.7)
        assert params
        check_logprobs(policy, engine.sample(prompts, Sampler(), 6, 0))


@pytest.mark.parametrize("decoder", [FastDecoder, ForwardDecoder, UnpaddedDecoder])
def test_a_batch_that_does_not_fit_is_sampled_in_halves(
    policy: Policy, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch, decoder: type[BatchDecoder]
) -> None:
    calm = TransformersEngine(policy).sample(prompts * 3, Sampler(), 6, 0, greedy=True)
    engine, most, real = TransformersEngine(policy), 2, decoder.step
    take(engine, NAMES[decoder])

    def step(self: BatchDecoder, next_B: torch.Tensor) -> torch.Tensor:
        if len(next_B) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand more")
        return real(self, next_B)

    monkeypatch.setattr(decoder, "step", step)
    halved = engine.sample(prompts * 3, Sampler(), 6, 0, greedy=True)
    assert [(r.ids, r.index, r.prompt_ids) for r in halved] == [(r.ids, r.index, r.prompt_ids) for r in calm]
    assert 1 <= engine.max_batch <= 2 and engine.facts == {"max_batch": engine.max_batch}
    check_logprobs(policy, engine.sample(prompts * 3, Sampler(), 6, 0))
    most = 0
    with pytest.raises(SdftError, match=r"a prompt of \d+ tokens and its completion do not fit into the memory of cpu"):
        engine.sample(prompts, Sampler(), 6, 0)


NAMES = {
    FastDecoder: "fast layers",
    ForwardDecoder: "left-padded batches",
    UnpaddedDecoder: "batches of equal length",
}


# --- a row's completion is its own ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exact(tiny_model: Path) -> Policy:
    """In fp64, so that it is not rounding that decides a token, and with every sixth token a stop token."""
    policy = pretrained.load(str(tiny_model), Runtime())
    policy.core.double()
    policy.core.generation_config.eos_token_id = [policy.chat.eos_id, *range(10, 1203, 6)]
    return policy


@pytest.fixture(scope="module")
def many(prompts: list[list[int]]) -> list[list[int]]:
    """16 prompts of mixed lengths, some of them equal."""
    draw = random.Random(0)
    return [[*draw.choice(prompts), *draw.choices(range(1200), k=draw.choice((0, 0, 3, 7)))] for _ in range(16)]


def kept(rollouts: list[Rollout]) -> list[tuple[list[int], list[int], str]]:
    return [(r.prompt_ids, r.ids, r.finish) for r in rollouts]


@pytest.mark.parametrize("decoder", [FastDecoder, ForwardDecoder, UnpaddedDecoder])
def test_how_rows_are_grouped_changes_nothing(
    exact: Policy, many: list[list[int]], monkeypatch: pytest.MonkeyPatch, decoder: type[BatchDecoder]
) -> None:
    """Cut into calls, into batches, or into halves where memory runs out; whether finished rows are dropped or not."""
    sampler, engine = Sampler(temperature=0.9), TransformersEngine(exact)
    take(engine, NAMES[decoder])
    whole = engine.sample(many, sampler, 7, seed=5)
    assert len({len(r.ids) for r in whole}) > 4 and {r.finish for r in whole} == {"stop", "length"}
    for calls in (2, 4, 8):
        parts = [range(first, len(many), calls) for first in range(calls)]
        drawn = {i: r for part in parts for i, r in zip(part, sampled(engine, many, sampler, part), strict=True)}
        assert kept([drawn[i] for i in range(len(many))]) == kept(whole)
    for engine.max_batch in (1, 3, 64):
        assert kept(engine.sample(many, sampler, 7, seed=5)) == kept(whole)
    with monkeypatch.context() as patch:
        for share, every in ((0.0, 1), (0.5, 3), (2.0, 1)):  # dropped at once, later, and never
            patch.setattr(transformers, "FINISHED", share)
            patch.setattr(transformers, "CHECK_EVERY", {"cpu": every})
            assert kept(engine.sample(many, sampler, 7, seed=5)) == kept(whole)
    real = decoder.step

    def step(self: BatchDecoder, next_B: torch.Tensor) -> torch.Tensor:
        if len(next_B) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, next_B)

    monkeypatch.setattr(decoder, "step", step)
    assert kept(engine.sample(many, sampler, 7, seed=5)) == kept(whole) and engine.facts["max_batch"] <= 6


def sampled(engine: TransformersEngine, prompts: list[list[int]], sampler: Sampler, rows: range) -> list[Rollout]:
    """Some rows of the draw of seed 5."""
    return engine.sample([prompts[i] for i in rows], sampler, 7, seed=5, rows=rows)


def test_equal_prompts_differ_and_every_way_to_decode_draws_the_same(exact: Policy, many: list[list[int]]) -> None:
    drawn, engine = [], TransformersEngine(exact)
    for name in NAMES.values():
        take(engine, name)
        drawn.append(kept(engine.sample([*many, *[many[0]] * 20], Sampler(), 7, seed=2)))
    assert drawn[0] == drawn[1] == drawn[2]
    same = [tuple(ids) for _, ids, _ in drawn[0][16:]]
    assert len(set(same)) > 15  # of 20; a few end with their first token
    assert drawn[0] != kept(engine.sample([*many, *[many[0]] * 20], Sampler(), 7, seed=3))


def test_an_adapter_is_sampled_with(tiny_model: Path, prompts: list[list[int]]) -> None:
    policy = pretrained.load(str(tiny_model), Runtime(), Lora(rank=4))
    engine = TransformersEngine(policy)
    before = engine.sample(prompts, Sampler(), 8, 0, greedy=True)
    with torch.no_grad():
        for name, param in policy.model.named_parameters():
            if "lora_B" in name:
                param.normal_(0, 0.5)
    after = engine.sample(prompts, Sampler(), 8, 0)
    assert engine.decoder == "fast layers" and [r.ids for r in before] != [r.ids for r in after]
    check_logprobs(policy, after)


def check_logprobs(policy: Policy, rollouts: list[Rollout]) -> None:
    for r in rollouts:
        with torch.no_grad():
            logits = policy.model(torch.tensor([r.prompt_ids + r.ids])).logits[0].float()
        log_p = torch.log_softmax(logits[len(r.prompt_ids) - 1 : -1], -1)
        want = log_p[torch.arange(len(r.ids)), torch.tensor(r.ids)]
        torch.testing.assert_close(torch.tensor(r.logprobs), want, atol=1e-4, rtol=1e-4)


def test_truncation_keeps_what_it_says() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    assert truncate(logits, 2, 1.0).isfinite().tolist() == [[True, True, False, False]]
    assert truncate(logits, 0, 0.7).isfinite().tolist() == [[True, True, False, False]]
    assert truncate(logits, 0, 0.81).isfinite().tolist() == [[True, True, True, False]]
    assert truncate(logits, 0, 1.0).isfinite().all()


def test_a_completion_at_the_limit_ends_with_length(policy: Policy, prompts: list[list[int]]) -> None:
    rollout = TransformersEngine(policy).sample(prompts[:1], Sampler(), 2, 0, greedy=True)[0]
    assert rollout.finish == ("stop" if policy.chat.eos_id in rollout.ids else "length") and len(rollout.ids) <= 2
