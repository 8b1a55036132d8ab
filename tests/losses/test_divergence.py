"""The fused losses against two independent paths: autograd on the plain formula in fp64, and torch's own KL."""

import itertools

import pytest
import torch
from torch.nn import functional

from sdft_cli.losses.divergence import KINDS, Divergence, divergence
from sdft_cli.losses.factors import FACTORS, active
from sdft_cli.losses.fused import Chunk, Coefficient, Head, Labels, Scored, fused_loss
from sdft_cli.losses.token_weights import Signals, make_coefficient

N, V, H = 11, 23, 7


def make(bias: bool, dtype: torch.dtype = torch.float64, seed: int = 0):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    student = (draw(N, H).requires_grad_(), draw(V, H).requires_grad_(), draw(V).requires_grad_() if bias else None)
    teacher = Scored(draw(N, H + 2), Head(draw(V, H + 2), draw(V) if bias else None))
    tokens = torch.randint(0, V, (N,), generator=g)
    weights = draw(N)  # signed: reward methods need it
    return student, teacher, tokens, weights


def weighed_by(name: str) -> Coefficient:
    """The coefficient of one factor alone."""
    coefficient = make_coefficient(active([FACTORS[name]], {}, step=0), Signals())
    assert coefficient is not None
    return coefficient


def naive(student: torch.Tensor, teacher: torch.Tensor, d: Divergence) -> torch.Tensor:
    """The definition, position by position, from probabilities; shares no line with the package."""
    found = []
    for s, t in zip(student / d.temperature, teacher / d.temperature, strict=True):
        p, q = s.exp() / s.exp().sum(), t.exp() / t.exp().sum()
        if d.top_k is not None:
            kept = (p if d.support == "student" else q).detach().sort(descending=True).indices[: d.top_k]
            p, q = p[kept], q[kept]
            if d.tail == "bucket":
                p, q = torch.cat((p, 1 - p.sum(0, keepdim=True))), torch.cat((q, 1 - q.sum(0, keepdim=True)))
            else:
                p, q = p / p.sum(), q / q.sum()
        m = d.beta * q + (1 - d.beta) * p
        parts = {
            "forward_kl": q * torch.log(q / p),
            "reverse_kl": p * torch.log(p / q),
            "jsd": d.beta * q * torch.log(q / m) + (1 - d.beta) * p * torch.log(p / m),
        }[d.kind]
        if d.entry_clip is not None:
            parts = torch.minimum(parts, torch.tensor(d.entry_clip, dtype=parts.dtype))
        total = parts.sum()
        found.append(total if d.token_clip is None else torch.minimum(total, total.new_tensor(d.token_clip)))
    return torch.stack(found)


SUPPORTS = [
    {},
    *({"top_k": 5, "support": s, "tail": t} for s in ("student", "teacher") for t in ("bucket", "renormalise")),
]
CLIPS = [{}, {"entry_clip": 0.05}, {"token_clip": 0.3}, {"entry_clip": 0.1, "token_clip": 0.2}]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("support", "clip"), list(itertools.product(SUPPORTS, CLIPS)))
@pytest.mark.parametrize("temperature", [1.0, 1.1])
def test_every_divergence_equals_its_definition_with_gradients(kind, support, clip, temperature) -> None:
    (h, w, _), teacher, tokens, weights = make(False)
    settings = Divergence(kind, 0.3, temperature, **support, **clip)
    plain = naive(functional.linear(h, w), teacher.head.logits(teacher.hidden_NH), settings)
    want = torch.autograd.grad((weights * plain).sum(), [h, w])
    loss, stats = fused_loss(Scored(h, Head(w)), Labels(tokens, weights), teacher, settings, chunk=4)
    torch.testing.assert_close(stats.loss_N, plain.detach())
    torch.testing.assert_close(loss, (weights * plain).sum())
    for a, e in zip(torch.autograd.grad(loss, [h, w]), want, strict=True):
        torch.testing.assert_close(a, e)


@pytest.mark.parametrize("kind", [*KINDS, "nll"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("scale", "cap"), [(1.0, None), (0.3, None), (1.0, 2.0), (0.3, 2.0)])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_fused_equals_autograd_for_every_head(
    kind: str, bias: bool, scale: float, cap: float | None, chunk: int
) -> None:
    (h, w, b), teacher, tokens, weights = make(bias)
    inputs = [x for x in (h, w, b) if x is not None]
    teacher = teacher._replace(head=teacher.head._replace(scale=scale, cap=cap))

    def logits(x, weight, bias_) -> torch.Tensor:
        z = functional.linear(x, weight, bias_) * scale
        return z if cap is None else cap * torch.tanh(z / cap)

    student = logits(h, w, b)
    if kind == "nll":
        plain = functional.cross_entropy(student, tokens, reduction="none")
    else:
        plain = naive(student, logits(teacher.hidden_NH, teacher.head.weight, teacher.head.bias), Divergence(kind, 0.3))
    want = torch.autograd.grad((weights * plain).sum(), inputs)
    settings = None if kind == "nll" else Divergence(kind, 0.3)
    head = Head(w, b, scale, cap)
    loss, stats = fused_loss(
        Scored(h, head), Labels(tokens, weights), None if kind == "nll" else teacher, settings, chunk=chunk
    )
    torch.testing.assert_close(stats.loss_N, plain.detach())
    for a, e in zip(torch.autograd.grad(loss, inputs), want, strict=True):
        torch.testing.assert_close(a, e)
    log_p = functional.log_softmax(student, -1)
    torch.testing.assert_close(stats.logprob_N, log_p[torch.arange(N), tokens].detach())
    torch.testing.assert_close(stats.entropy_N, torch.distributions.Categorical(logits=student).entropy().detach())
    assert stats.teacher_logprob_N.isnan().all() == (kind == "nll")


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl"])
def test_plain_formula_is_torchs_kl(kind: str) -> None:
    (h, w, _), teacher, _, _ = make(False)
    s, t = functional.linear(h, w), teacher.head.logits(teacher.hidden_NH)
    p, q = torch.distributions.Categorical(logits=s), torch.distributions.Categorical(logits=t)
    want = torch.distributions.kl_divergence(q, p) if kind == "forward_kl" else torch.distributions.kl_divergence(p, q)
    torch.testing.assert_close(divergence(s, t, Divergence(kind)), want)


def test_jsd_tends_to_zero_at_both_ends() -> None:
    (h, w, _), teacher, _, _ = make(False)
    s, t = functional.linear(h, w), teacher.head.logits(teacher.hidden_NH)
    for beta in (1e-9, 1 - 1e-9):  # why the ends are kinds of their own
        assert divergence(s, t, Divergence("jsd", beta)).max() < 1e-6


def test_top_k_of_the_whole_vocabulary_is_the_full_divergence() -> None:
    (h, w, _), teacher, _, _ = make(False)
    s, t = functional.linear(h, w), teacher.head.logits(teacher.hidden_NH)
    for kind, tail in itertools.product(KINDS, ("bucket", "renormalise")):
        full, all_kept = divergence(s, t, Divergence(kind)), divergence(s, t, Divergence(kind, top_k=V, tail=tail))
        torch.testing.assert_close(all_kept, full, atol=1e-5, rtol=0)


def test_an_entry_clip_can_make_the_value_negative() -> None:
    """OPSD's clip (arXiv 2601.18734) is on every entry before the sum: capped gains no longer pay for the losses."""
    s, t = torch.tensor([[0.0, 0.0]], dtype=torch.float64), torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    q = torch.softmax(t[0], -1)
    parts = [float(q[v] * (q[v] / 0.5).log()) for v in (0, 1)]
    got = float(divergence(s, t, Divergence("forward_kl", entry_clip=0.05)))
    assert got == pytest.approx(sum(min(part, 0.05) for part in parts)) and got < 0


def test_equal_views_give_zero_loss_and_zero_gradient() -> None:
    (h, w, _), _, tokens, weights = make(False)
    for kind in KINDS:
        student = Scored(h, Head(w))
        loss, stats = fused_loss(student, Labels(tokens, weights), student.detach(), Divergence(kind))
        assert stats.kl_N.abs().max() < 1e-12
        grads = torch.autograd.grad(loss, [h, w])
        assert abs(loss.item()) < 1e-12
        assert all(g.abs().max() < 1e-12 for g in grads)


def test_student_prob_gives_the_gradient_of_minus_p() -> None:
    """sg(p) * -log p has the gradient of -p (Dynamic Fine-Tuning)."""
    (h, w, _), _, tokens, _ = make(False)
    ones = torch.ones(N, dtype=torch.float64)
    loss, _ = fused_loss(Scored(h, Head(w)), Labels(tokens, ones), coefficient=weighed_by("student_prob"), chunk=4)
    got = torch.autograd.grad(loss, [h, w])
    p = functional.linear(h, w).softmax(-1)[torch.arange(N), tokens]
    for a, e in zip(got, torch.autograd.grad(-p.sum(), [h, w]), strict=True):
        torch.testing.assert_close(a, e)


def test_the_sampled_estimators_mean_gradient_is_the_analytic_one() -> None:
    """sum_y p(y) [-D(y) grad log p(y)], D = log q - log p, summed over every y, equals grad KL(p || q)."""
    (h, w, _), teacher, _, _ = make(False)
    one, head = h[:1].detach().requires_grad_(), Scored(teacher.hidden_NH[:1], teacher.head)
    weight = torch.ones(1, dtype=torch.float64)
    exact, _ = fused_loss(Scored(one, Head(w)), Labels(torch.tensor([0]), weight), head, Divergence("reverse_kl"))
    (want,) = torch.autograd.grad(exact, one)
    p = functional.linear(one, w).softmax(-1)[0].detach()
    got = torch.zeros_like(want)
    for y in range(V):
        labels = Labels(torch.tensor([y]), weight)
        loss, _ = fused_loss(Scored(one, Head(w)), labels, head, coefficient=weighed_by("log_ratio"))
        got += p[y] * torch.autograd.grad(loss, one)[0]
    torch.testing.assert_close(got, want)


def test_coefficients_are_asked_for_chunk_by_chunk() -> None:
    (h, w, _), teacher, tokens, weights = make(False)
    seen: list[Chunk] = []

    def coefficient(chunk: Chunk):
        seen.append(chunk)
        return torch.full_like(chunk.logprob_C, 2.0), torch.full_like(chunk.logprob_C, 3.0)

    loss, stats = fused_loss(Scored(h, Head(w)), Labels(tokens, weights), teacher, coefficient=coefficient, chunk=4)
    assert loss.item() == pytest.approx(3 * weights.sum().item())  # the reported value, not coefficient * NLL
    assert [(c.part.start, len(c.logprob_C)) for c in seen] == [(0, 4), (4, 4), (8, 3)]
    torch.testing.assert_close(torch.cat([c.logprob_C for c in seen]), stats.logprob_N)
    torch.testing.assert_close(torch.cat([c.teacher_logprob_C for c in seen]), stats.teacher_logprob_N)
    nll = functional.cross_entropy(functional.linear(h, w), tokens, reduction="none")
    want = torch.autograd.grad((2 * weights * nll).sum(), h)
    torch.testing.assert_close(torch.autograd.grad(loss, h), want)


def test_a_second_sum_over_the_tokens_themselves() -> None:
    (h, w, _), teacher, tokens, weights = make(False)
    extra = torch.linspace(-1, 1, N, dtype=torch.float64)
    logits = functional.linear(h, w)
    nll = functional.cross_entropy(logits, tokens, reduction="none")
    kl = naive(logits, teacher.head.logits(teacher.hidden_NH), Divergence("reverse_kl"))
    want = torch.autograd.grad((weights * kl + extra * nll).sum(), [h, w])
    loss, _ = fused_loss(Scored(h, Head(w)), Labels(tokens, weights, extra), teacher, Divergence("reverse_kl"), chunk=3)
    torch.testing.assert_close(loss, (weights * kl + extra * nll).sum())
    for a, e in zip(torch.autograd.grad(loss, [h, w]), want, strict=True):
        torch.testing.assert_close(a, e)


def test_a_frozen_head_gets_no_gradient_and_bf16_stays_finite() -> None:
    (h, w, _), teacher, tokens, weights = make(False, torch.bfloat16)
    loss, stats = fused_loss(
        Scored(h, Head(w.detach())), Labels(tokens, weights.float()), teacher, Divergence("reverse_kl"), chunk=3
    )
    loss.backward()
    assert h.grad is not None and h.grad.dtype == torch.bfloat16 and torch.isfinite(h.grad).all()
    assert w.grad is None and stats.loss_N.dtype == torch.float32


LOSSES = [
    *(Divergence("forward_kl", temperature=1.1), Divergence("reverse_kl"), Divergence("jsd", 0.3)),
    *(Divergence(top_k=3), Divergence(entry_clip=0.05), Divergence(token_clip=0.1), None),
]


@pytest.mark.parametrize("settings", LOSSES)
def test_kl_is_that_of_teacher_and_student_whatever_the_loss(settings: Divergence | None) -> None:
    (h, w, _), teacher, tokens, weights = make(False)
    _, stats = fused_loss(Scored(h, Head(w)), Labels(tokens, weights), teacher, settings, chunk=4)
    other, temperature = teacher.head.logits(teacher.hidden_NH), settings.temperature if settings else 1.0
    want = naive(functional.linear(h, w).detach(), other, Divergence("forward_kl", temperature=temperature))
    torch.testing.assert_close(stats.kl_N, want)
    _, alone = fused_loss(Scored(h, Head(w)), Labels(tokens, weights), chunk=4)
    assert alone.kl_N.isnan().all() and alone.teacher_logprob_N.isnan().all()


def test_mistakes_are_named() -> None:
    (h, w, _), _, tokens, weights = make(False)
    with pytest.raises(ValueError, match="forward_kl"):
        Divergence("hellinger")
    with pytest.raises(ValueError, match="bucket"):
        Divergence(tail="cut")
    with pytest.raises(ValueError, match="teacher"):
        fused_loss(Scored(h, Head(w)), Labels(tokens, weights), None, Divergence())
    with pytest.raises(ValueError, match="reward"):
        weighed_by("group_advantage")(Chunk(torch.zeros(1), None, torch.zeros(1), slice(0, 1)))
