"""What must hold on a device before its speed means anything: losses, packing and sampled log-probs agree."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from sides import make_stage
from turns import Turn
from workload import Case, config, make, tokenizer

N = 256  # loss positions of the loss's check


def checks(case: Case, folder: Path, data: Path) -> dict[str, Any]:
    """Every check as {what, value, limit, ok}, and the fastest bf16 product in FLOP/s."""
    found = [fused(case, torch.float32, 1e-4), fused(case, torch.bfloat16, 2e-2)]
    for dtype, near, sampled in (("float32", 1e-3, 1e-3), ("bfloat16", 0.1, 0.1)):
        found += model_checks(case._replace(dtype=dtype), folder / dtype, data, near, sampled)
    return {"checks": found, "matmul_flops": matmul(case.device, 8192 if case.device == "cuda" else 256)}


def row(what: str, value: float, limit: float) -> dict[str, Any]:
    """A check's result; NaN fails."""
    return {"what": what, "value": value, "limit": limit, "ok": value <= limit}


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference as a share of the largest entry."""
    return float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())


def fused(case: Case, dtype: torch.dtype, limit: float) -> dict[str, Any]:
    """The fused forward KL and its gradients against full fp32 logits of the same numbers and autograd."""
    from sdft_cli.losses.divergence import Divergence, divergence
    from sdft_cli.losses.fused import Head, Labels, Scored, fused_loss

    torch.manual_seed(0)
    goal, weights_N = Divergence("forward_kl"), torch.full((N,), 1 / N, device=case.device)
    made = [torch.randn(N, case.hidden), torch.randn(N, case.hidden)]
    made += [torch.randn(case.vocab, case.hidden) / case.hidden**0.5 for _ in range(2)]
    student, teacher, own, fixed = (x.to(case.device, dtype) for x in made)
    tokens_N = torch.randint(0, case.vocab, (N,), device=case.device)
    student.requires_grad_()
    own.requires_grad_()
    loss, _ = fused_loss(Scored(student, Head(own)), Labels(tokens_N, weights_N), Scored(teacher, Head(fixed)), goal)
    loss.backward()
    exact = [x.detach().float().requires_grad_() for x in (student, own)]
    plain = (weights_N * divergence(exact[0] @ exact[1].T, teacher.float() @ fixed.float().T, goal)).sum()
    plain.backward()
    errors = [apart(loss.detach(), plain.detach())]
    errors += [apart(x.grad, y.grad) for x, y in zip((student, own), exact, strict=True)]
    return row(f"fused loss and gradients, {str(dtype).split('.')[-1]}", max(errors), limit)


def model_checks(case: Case, folder: Path, data: Path, near: float, sampled: float) -> list[dict[str, Any]]:
    """Packed scoring against padded; the sampler's log-probs against the trainer's."""
    import transformers

    config(case, tokenizer()).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    known = transformers.AutoModelForCausalLM.from_pretrained
    transformers.AutoModelForCausalLM.from_pretrained = lambda *_, **__: make(case)[0]
    try:
        stage = make_stage(Turn(None), case, folder, data, "sdft")
    finally:
        transformers.AutoModelForCausalLM.from_pretrained = known
    rows, _ = stage.batch(0)
    found = [packing(stage, rows, near)] if getattr(stage.policy, "packed", False) else []
    facts = stage.step(0)
    return [*found, row(f"log-probs at sampling and in training, {case.dtype}", facts["logprob_gap"], sampled)]


def packing(stage: Any, rows: list[Any], limit: float) -> dict[str, Any]:
    """Hidden states of sequences laid end to end against padded ones."""
    from sdft_cli.models import pretrained
    from sdft_cli.models.batching import collate

    prompts = [r.student_prompt for r in rows]
    policy = stage.policy
    with torch.no_grad():
        padded, packed = (
            pretrained.hidden_states(policy, collate(prompts, rows, policy.chat.pad_id, policy.device, packed=how))
            for how in (False, True)
        )
    return row(f"packed and padded hidden states, {str(packed.dtype).split('.')[-1]}", apart(packed, padded), limit)


def matmul(device: str, size: int) -> float:
    """FLOP/s of the fastest of ten square bf16 products."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        start = _now(device)
        for _ in range(5):
            a @ b
        best = min(best, (_now(device) - start) / 5)
    return 2 * size**3 / best


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()
