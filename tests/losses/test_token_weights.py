"""Weights of single tokens: advantages, factors, the trust region, importance, and sums over later tokens."""

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdft_cli.errors import UsageError
from sdft_cli.losses.factors import FACTORS, ActiveFactor, active
from sdft_cli.losses.fused import Chunk
from sdft_cli.losses.token_weights import (
    ClipBounds,
    FactorMeans,
    Signals,
    clipped_surrogate,
    group_advantages,
    importance_weights,
    later_sums,
    make_coefficient,
    sequence_importance,
)
from sdft_cli.methods.rlsd import FACTOR

ALL = slice(None)


def named(*names: str) -> list[ActiveFactor]:
    return active([FACTORS[name] for name in names], {}, step=0)


def chunk(logprob: torch.Tensor, teacher: torch.Tensor | None = None, part: slice = ALL) -> Chunk:
    return Chunk(logprob, teacher, torch.zeros_like(logprob), part)


def test_group_advantages_are_standard_scores_within_the_group() -> None:
    rewards = [1.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.0]
    got = group_advantages(rewards, 4, epsilon=0.0)
    mean, std = statistics.mean(rewards[:4]), statistics.stdev(rewards[:4])
    assert got[:4] == pytest.approx([(r - mean) / std for r in rewards[:4]])
    assert got[4:] == [0.0] * 4  # equal rewards say nothing
    assert group_advantages([1.0, None, 0.0, None], 4)[1] == 0.0
    assert group_advantages([1.0, None, 0.0, 0.0], 4)[0] == pytest.approx(group_advantages([1.0, 0.0, 0.0], 3)[0])


def test_the_clipped_surrogate_is_ppos_with_autograds_gradient() -> None:
    ratio = torch.tensor([0.5, 0.79, 0.9, 1.0, 1.2, 1.3, 2.9, 3.5], dtype=torch.float64)
    for sign in (1.0, -1.0):
        for clip in (ClipBounds(), ClipBounds(0.2, 0.2, None)):
            advantage = torch.full_like(ratio, sign * 0.7)
            log_p = ratio.log().requires_grad_()  # old policy at log-prob 0
            r = log_p.exp()
            one = (r if clip.dual is None else r.clamp(max=clip.dual)) * advantage
            want = -torch.minimum(one, r.clamp(1 - clip.low, 1 + clip.high) * advantage)
            (grad,) = torch.autograd.grad(want.sum(), log_p)
            value, coefficient = clipped_surrogate(ratio, advantage, clip)
            torch.testing.assert_close(value, want.detach())
            torch.testing.assert_close(-coefficient, grad)  # the coefficient multiplies the gradient of -log p


def test_in_the_first_update_the_surrogate_is_the_plain_policy_gradient() -> None:
    signals = Signals(advantage_N=torch.tensor([1.5, -0.5]))
    coefficient = make_coefficient(named("group_advantage"), signals, clip=ClipBounds())
    assert coefficient is not None
    weights, value = coefficient(chunk(torch.tensor([-1.0, -2.0])))
    assert weights.tolist() == [1.5, -0.5] and value is not None and value.tolist() == [-1.5, 0.5]


ADVANTAGES = st.one_of(st.just(0.0), st.floats(0.01, 3), st.floats(-3, -0.01))


@settings(max_examples=50, deadline=None)
@given(ADVANTAGES, st.floats(-8, 0), st.floats(-8, 0), st.floats(0.01, 1), st.floats(0.01, 0.9))
def test_reward_credit_keeps_the_sign_and_its_bounds(
    a: float, own: float, teacher: float, share: float, clip: float
) -> None:
    settings = {"reward_credit": {"share": share, "clip": clip, "steps": 0}}
    factors = active([FACTORS["group_advantage"], FACTOR], settings, step=9)
    means = FactorMeans()
    coefficient = make_coefficient(factors, Signals(advantage_N=torch.tensor([a])), means=means)
    assert coefficient is not None
    found = float(coefficient(chunk(torch.tensor([own]), torch.tensor([teacher])))[0])
    assert means.read(1)["group_advantage"] == pytest.approx(a)
    if a == 0:
        assert found == 0
        return
    w = float(torch.tensor(teacher - own).mul(1 if a > 0 else -1).exp())
    want = a * ((1 - share) + share * min(max(w, 1 - clip), 1 + clip))
    assert found == pytest.approx(want, rel=1e-4, abs=1e-6)
    assert found * a > 0
    assert 1 - share * clip - 1e-4 <= found / a <= 1 + share * clip + 1e-4


def test_importance_is_cut_token_by_token_or_sequence_by_sequence() -> None:
    trainer, sampler = torch.tensor([-1.0, -2.0, -0.5, -1.0]), torch.tensor([-1.5, -1.0, -0.4, -3.0])
    rows = torch.tensor([0, 0, 2, 2])
    assert importance_weights(trainer, sampler, 2.0).tolist() == pytest.approx(
        [min(2.0, float(torch.tensor(x).exp())) for x in (0.5, -1.0, -0.1, 2.0)]
    )
    whole = sequence_importance(trainer, sampler, rows, 2.0)
    assert whole.tolist() == pytest.approx([float(torch.tensor(-0.5).exp())] * 2 + [2.0, 2.0])
    coefficient = make_coefficient([], Signals(sampled_N=sampler, sequence_ratio_N=whole), importance_cap=2.0)
    assert coefficient is not None
    assert coefficient(chunk(trainer[2:], part=slice(2, 4)))[0].tolist() == pytest.approx([2.0, 2.0])


def test_no_factors_make_no_coefficient() -> None:
    assert make_coefficient([], Signals()) is None
    assert make_coefficient([], Signals(), importance_cap=2.0) is None  # nothing was sampled


def test_a_factors_share_falls_and_then_it_is_not_computed() -> None:
    values = {"reward_credit": {"share": 0.5, "steps": 4}}
    shares = [[a.settings.share for a in active([FACTOR], values, step)] for step in range(6)]
    assert shares == [[0.5], [0.375], [0.25], [0.125], [], []]


def test_settings_of_a_factor_are_checked() -> None:
    with pytest.raises(UsageError, match="'shares'") as error:
        active([FACTOR], {"reward_credit": {"shares": 0.5}}, 0)
    assert "share" in error.value.hint
    with pytest.raises(UsageError, match=r"objective\.factor_settings\.reward_credit\.share: .* \(got 2\)"):
        active([FACTOR], {"reward_credit": {"share": 2}}, 0)
    with pytest.raises(UsageError, match="this factor has no settings"):
        active([FACTORS["student_prob"]], {"student_prob": {"power": 2}}, 0)


def test_only_an_advantage_of_zero_is_silent() -> None:
    assert FACTORS["group_advantage"].silences(0.0) and not FACTORS["group_advantage"].silences(-0.1)
    assert not FACTOR.silences(0.0) and not FACTORS["student_prob"].silences(0.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=5), min_size=1, max_size=5))
def test_later_sums_stay_within_their_sequence(sequences: list[list[float]]) -> None:
    values = torch.tensor([v for s in sequences for v in s], dtype=torch.float64)
    rows = torch.tensor([i for i, s in enumerate(sequences) for _ in s])
    want = [sum(s[t + 1 :]) for s in sequences for t in range(len(s))]
    assert later_sums(values, rows).tolist() == pytest.approx(want, abs=1e-9)
