"""Weights of single tokens: advantages, the trust region, importance, evidence, and sums over what comes later."""

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdft_cli.losses.fused import Facts
from sdft_cli.losses.token_weights import (
    ClipBounds,
    Signals,
    clipped_surrogate,
    group_advantages,
    importance_weights,
    later_sums,
    make_term,
    sequence_importance,
)

ALL = slice(None)


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
    facts = Facts(torch.tensor([-1.0, -2.0]), None, ALL)
    term = make_term(["group_advantage"], Signals(advantage_N=torch.tensor([1.5, -0.5])), clip=ClipBounds())
    assert term is not None
    coefficient, value = term(facts)
    assert coefficient.tolist() == [1.5, -0.5] and value is not None and value.tolist() == [-1.5, 0.5]


ADVANTAGES = st.one_of(st.just(0.0), st.floats(0.01, 3), st.floats(-3, -0.01))


@settings(max_examples=50, deadline=None)
@given(ADVANTAGES, st.floats(-8, 0), st.floats(-8, 0), st.floats(0.01, 1), st.floats(0.01, 0.9))
def test_evidence_keeps_the_sign_and_its_bounds(
    a: float, own: float, teacher: float, share: float, clip: float
) -> None:
    signals = Signals(advantage_N=torch.tensor([a]), evidence_clip=clip, evidence_share=share)
    term = make_term(["group_advantage", "evidence_ratio"], signals)
    assert term is not None
    found = float(term(Facts(torch.tensor([own]), torch.tensor([teacher]), ALL))[0])
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
    term = make_term([], Signals(sampled_N=sampler, sequence_ratio_N=whole), importance_cap=2.0)
    assert term is not None
    assert term(Facts(trainer[2:], None, slice(2, 4)))[0].tolist() == pytest.approx([2.0, 2.0])


def test_a_term_that_weighs_nothing_is_none() -> None:
    assert make_term([], Signals()) is None
    assert make_term([], Signals(), importance_cap=2.0) is None  # nothing was sampled


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=5), min_size=1, max_size=5))
def test_later_sums_stay_within_their_sequence(sequences: list[list[float]]) -> None:
    values = torch.tensor([v for s in sequences for v in s], dtype=torch.float64)
    rows = torch.tensor([i for i, s in enumerate(sequences) for _ in s])
    want = [sum(s[t + 1 :]) for s in sequences for t in range(len(s))]
    assert later_sums(values, rows).tolist() == pytest.approx(want, abs=1e-9)
