"""Checks that must pass on a device before its speed means anything: loss, packing and sampled log-probs are right."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sides import make_trainer
from turns import Turn
from workload import Case, config, loaded, tokenizer

if TYPE_CHECKING:
    from sdft_cli.models.batching import Row
    from sdft_cli.models.policy import Policy

N = 256  # loss positions in the check of the fused loss


def checks(case: Case, folder: Path, data: Path) -> dict[str, Any]:
    """Every check as {what, value, limit, ok}, and the fastest bf16 product in FLOP/s."""
    results = [fused(case, torch.float32, 1e-4), fused(case, torch.bfloat16, 2e-2)]
    for dtype, packed, sampled in (("float32", 1e-3, 1e-3), ("bfloat16", 0.1, 0.1)):
        results += model_checks(case._replace(dtype=dtype), folder / dtype, data, packed, sampled)
    return {"checks": results, "matmul_flops": matmul(case.device, 8192 if case.device == "cuda" else 256)}


def row(what: str, value: float, limit: float) -> dict[str, Any]:
    """The result of a check; NaN fails."""
    return {"what": what, "value": value, "limit": limit, "ok": value <= limit}


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The greatest difference as a share of the greatest entry."""
    return float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())


def fused(case: Case, dtype: torch.dtype, limit: float) -> dict[str, Any]:
    """The fused forward KL and its gradients, against full fp32 logits of the same numbers and autograd."""
    from sdft_cli.losses.divergence import Divergence, divergence
    from sdft_cli.losses.fused import Head, Labels, Scored, fused_loss

    torch.manual_seed(0)
    goal, weights_N = Divergence("forward_kl"), torch.full((N,), 1 / N, device=case.device)
    tensors = [torch.randn(N, case.hidden), torch.randn(N, case.hidden)]
    tensors += [torch.randn(case.vocab, case.hidden) / case.hidden**0.5 for _ in range(2)]
    student, teacher, trained, fixed = (x.to(case.device, dtype) for x in tensors)
    tokens_N = torch.randint(0, case.vocab, (N,), device=case.device)
    student.requires_grad_()
    trained.requires_grad_()
    loss, _ = fused_loss(
        Scored(student, Head(trained)), Labels(tokens_N, weights_N), Scored(teacher, Head(fixed)), goal
    )
    loss.backward()
    exact = [x.detach().float().requires_grad_() for x in (student, trained)]
    plain = (weights_N * divergence(exact[0] @ exact[1].T, teacher.float() @ fixed.float().T, goal)).sum()
    plain.backward()
    errors = [error(loss.detach(), plain.detach())]
    errors += [error(x.grad, y.grad) for x, y in zip((student, trained), exact, strict=True)]
    return row(f"fused loss and gradients, {str(dtype).split('.')[-1]}", max(errors), limit)


def model_checks(case: Case, folder: Path, data: Path, packed: float, sampled: float) -> list[dict[str, Any]]:
    """Packed scoring against padded, and the sampler's log-probs against the trainer's, with a limit for each."""
    import transformers

    config(case, tokenizer()).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    from_pretrained = transformers.AutoModelForCausalLM.from_pretrained
    transformers.AutoModelForCausalLM.from_pretrained = lambda *_, **settings: loaded(case, settings)
    try:
        trainer = make_trainer(Turn(None), case, folder, data, "sdft")
    finally:
        transformers.AutoModelForCausalLM.from_pretrained = from_pretrained
    rows, _ = trainer.batch(0)
    results = [packing(trainer.policy, rows, packed)] if trainer.policy.layout.packed else []
    facts = trainer.step(0)
    return [*results, row(f"log-probs at sampling and in training, {case.dtype}", facts["logprob_gap"], sampled)]


def packing(policy: Policy, rows: list[Row], limit: float) -> dict[str, Any]:
    """Hidden states of packed sequences against padded ones."""
    from sdft_cli.models.batching import collate

    prompts = [r.student_prompt for r in rows]
    with torch.no_grad():
        padded, packed = (
            policy.hidden_states(collate(prompts, rows, policy.chat.pad_id, policy.device, packed=packed))
            for packed in (False, True)
        )
    return row(f"packed and padded hidden states, {str(packed.dtype).split('.')[-1]}", error(packed, padded), limit)


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
