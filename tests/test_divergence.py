"""The fused losses against two independent paths: autograd on the plain formula in fp64, and torch's own KL."""

import pytest
import torch
from torch.nn import functional

from sdft_cli.divergence import DIVERGENCES, Head, divergence, fused_loss

N, V, H = 11, 23, 7


def make(bias: bool, dtype: torch.dtype = torch.float64, seed: int = 0):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    student = (draw(N, H).requires_grad_(), draw(V, H).requires_grad_(), draw(V).requires_grad_() if bias else None)
    teacher = (draw(N, H + 2), Head(draw(V, H + 2), draw(V) if bias else None))
    tokens = torch.randint(0, V, (N,), generator=g)
    weights = draw(N)  # signed: reward methods need it
    return student, teacher, tokens, weights


@pytest.mark.parametrize("kind", [*DIVERGENCES, "nll"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_fused_equals_autograd_on_the_plain_formula(kind: str, bias: bool, chunk: int) -> None:
    (h, w, b), teacher, tokens, weights = make(bias)
    inputs = [x for x in (h, w, b) if x is not None]
    logits = functional.linear(h, w, b)
    if kind == "nll":
        plain = functional.cross_entropy(logits, tokens, reduction="none")
    else:
        plain = divergence(logits, teacher[1].logits(teacher[0]), kind, beta=0.3)
    want = torch.autograd.grad((weights * plain).sum(), inputs)
    loss, stats = fused_loss(
        h, Head(w, b), tokens, weights, None if kind == "nll" else teacher, kind, beta=0.3, chunk=chunk
    )
    got = torch.autograd.grad(loss, inputs)
    torch.testing.assert_close(loss, (weights * plain).sum())
    torch.testing.assert_close(stats.loss_N, plain.detach())
    for a, e in zip(got, want, strict=True):
        torch.testing.assert_close(a, e)
    log_p = functional.log_softmax(logits, -1)
    torch.testing.assert_close(stats.logprob_N, log_p[torch.arange(N), tokens].detach())
    torch.testing.assert_close(stats.entropy_N, torch.distributions.Categorical(logits=logits).entropy().detach())


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl"])
def test_plain_formula_is_torchs_kl(kind: str) -> None:
    (h, w, _), teacher, _, _ = make(False)
    s, t = functional.linear(h, w), teacher[1].logits(teacher[0])
    p, q = torch.distributions.Categorical(logits=s), torch.distributions.Categorical(logits=t)
    want = torch.distributions.kl_divergence(q, p) if kind == "forward_kl" else torch.distributions.kl_divergence(p, q)
    torch.testing.assert_close(divergence(s, t, kind), want)


def test_jsd_follows_its_definition_and_meets_both_ends() -> None:
    g = torch.Generator().manual_seed(1)
    s, t = torch.randn(2, N, V, generator=g, dtype=torch.float64)
    p, q, beta = s.softmax(-1), t.softmax(-1), 0.3
    m = beta * q + (1 - beta) * p
    want = beta * (q * (q / m).log()).sum(-1) + (1 - beta) * (p * (p / m).log()).sum(-1)
    torch.testing.assert_close(divergence(s, t, "jsd", beta), want)
    assert divergence(s, t, "jsd", 1e-9).max() < 1e-6  # why the ends are kinds of their own


def test_equal_views_give_zero_loss_and_zero_gradient() -> None:
    (h, w, _), _, tokens, weights = make(False)
    for kind in DIVERGENCES:
        loss, _ = fused_loss(h, Head(w), tokens, weights, (h.detach(), Head(w.detach())), kind)
        grads = torch.autograd.grad(loss, [h, w])
        assert abs(loss.item()) < 1e-12
        assert all(g.abs().max() < 1e-12 for g in grads)


def test_factor_weighs_inside_the_pass() -> None:
    """p_S(y) * NLL with a detached weight has the gradient of -p_S(y) (Dynamic Fine-Tuning)."""
    (h, w, _), _, tokens, _ = make(False)
    ones = torch.ones(N, dtype=torch.float64)
    loss, _ = fused_loss(h, Head(w), tokens, ones, factor=lambda logprob, part: logprob.exp(), chunk=4)
    got = torch.autograd.grad(loss, [h, w])
    p = functional.linear(h, w).softmax(-1)[torch.arange(N), tokens]
    for a, e in zip(got, torch.autograd.grad(-p.sum(), [h, w]), strict=True):
        torch.testing.assert_close(a, e)


def test_a_frozen_head_gets_no_gradient_and_bf16_stays_finite() -> None:
    (h, w, _), teacher, tokens, weights = make(False, torch.bfloat16)
    loss, stats = fused_loss(h, Head(w.detach()), tokens, weights.float(), teacher, "reverse_kl", chunk=3)
    loss.backward()
    assert h.grad is not None and h.grad.dtype == torch.bfloat16 and torch.isfinite(h.grad).all()
    assert w.grad is None and stats.loss_N.dtype == torch.float32


def test_unknown_divergence_is_named() -> None:
    (h, w, _), teacher, tokens, weights = make(False)
    with pytest.raises(ValueError, match="forward_kl"):
        fused_loss(h, Head(w), tokens, weights, teacher, "hellinger")
