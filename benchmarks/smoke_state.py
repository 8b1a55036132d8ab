"""What moves weights, for `smoke_checks`: optimizer steps and teachers' averages against their closed forms in fp64."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from workload import MICRO

STEPS, LR, DECAY, RATE = 5, 1e-3, 0.1, 0.1


def _flat(weights: dict[str, Tensor]) -> Tensor:
    """All of them end to end, in fp64 on the CPU."""
    return torch.cat([w.detach().double().cpu().flatten() for w in weights.values()])


def _load(device: str, dtype: str, rank: int = 0) -> Any:
    from sdft_cli.config.recipe import Lora, Runtime
    from sdft_cli.models import pretrained

    torch.manual_seed(0)
    return pretrained.load(str(MICRO), Runtime(device=device, dtype=dtype), Lora(rank=rank))


def _give_gradients(params: dict[str, torch.nn.Parameter], step: int) -> None:
    draw = torch.Generator().manual_seed(step)
    for param in params.values():
        param.grad = (torch.randn(param.shape, generator=draw) * 0.01).to(param.device, param.dtype)


# optimizer ---------------------------------------------------------------------------------------------------


def optimizer_checks(device: str, _: Path) -> Iterator[tuple[str, float, float]]:
    """A few steps of AdamW with clipping and decay, against torch's in fp64 on the CPU, as a share of the movement."""
    yield "optimizer fp32", _moved_otherwise(device, "float32", "fp32", 0), 1e-3
    yield "optimizer fp32, piece by piece", _moved_otherwise(device, "float32", "fp32", 0, watched=True), 1e-3
    yield "optimizer bf16 with fp32 masters", _moved_otherwise(device, "bfloat16", "fp32", 0), 1e-3
    yield "optimizer bf16 with fp32 masters, reloaded", _moved_otherwise(device, "bfloat16", "fp32", 0, True, 3), 1e-3
    yield (
        "optimizer bf16, stochastic, movement in the mean",
        _moved_otherwise(device, "bfloat16", "stochastic", 1),
        5e-2,
    )


def _moved_otherwise(
    device: str, dtype: str, master: str, mean: int, watched: bool = False, reload_at: int = -1
) -> float:
    """The error of the movement; with ``mean`` that of its projection on the right one alone, as single weights are
    rounded at random. ``reload_at``: a step before which the optimizer is saved and loaded."""
    from sdft_cli.config.recipe import Train
    from sdft_cli.training.optimizer import MasterAdamW

    settings = Train(lr=LR, weight_decay=DECAY, grad_norm=1.0, master=master)
    policy = _load(device, dtype)
    ours = MasterAdamW(policy.model, settings, watched=watched)
    exact = {n: p.detach().double().cpu().clone().requires_grad_() for n, p in ours.params.items()}
    theirs = torch.optim.AdamW(exact.values(), lr=LR, weight_decay=DECAY, betas=(0.9, 0.999))
    start = _flat(exact)
    for step in range(STEPS):
        if step == reload_at:
            saved = copy.deepcopy(ours.state_dict())
            ours = MasterAdamW(policy.model, settings, watched=watched)
            ours.load_state_dict(saved)
        _give_gradients(ours.params, step)
        for name, param in ours.params.items():
            exact[name].grad = param.grad.double().cpu()
        norm = torch.nn.utils.clip_grad_norm_(list(exact.values()), 1.0)
        found = ours.clip()
        if abs(found - float(norm)) > 1e-2 * float(norm):
            raise AssertionError(f"gradient norm {found}, exact {float(norm)}")
        ours.step(LR, seed=step, moved=_ignore if watched else None)
        theirs.step()
    wanted, moved = _flat(exact) - start, _flat(ours.exact()) - start
    if dtype == "bfloat16" and master == "fp32":
        for name, param in ours.params.items():
            if not torch.equal(param.detach(), ours.masters[name].detach().to(param.dtype)):
                raise AssertionError(f"{name} is not its master, rounded")
    if mean:
        return abs(float(moved @ wanted / (wanted @ wanted)) - 1)
    return float((moved - wanted).norm() / wanted.norm())


def _ignore(name: str, at: slice, before: Tensor, after: Tensor, generator: torch.Generator) -> None:
    assert before.shape == after.shape


# teacher -----------------------------------------------------------------------------------------------------


def teacher_checks(device: str, _: Path) -> Iterator[tuple[str, float, float]]:
    """Averages after a few updates, as a share of their distance from the student, and what the teacher computes."""
    for dtype in ("float32", "bfloat16"):
        for storage in ("device", "cpu", "half"):
            limits = (3e-2, 1e-3) if storage == "half" else (1e-3, 1e-4)
            limits = (limits[0], 3e-2 if dtype == "bfloat16" else limits[1])
            apart, computed = _teacher(device, dtype, storage)
            yield f"teacher {dtype}, storage {storage}: the average", apart, limits[0]
            yield f"teacher {dtype}, storage {storage}: its hidden states", computed, limits[1]
    yield "teacher bfloat16, half, stochastic: the average", _teacher(device, "bfloat16", "half", "stochastic")[0], 3e-2
    yield "teacher bfloat16, adapters: the average", _teacher(device, "bfloat16", "device", rank=8)[0], 1e-3


def _teacher(device: str, dtype: str, storage: str, master: str = "fp32", rank: int = 0) -> tuple[float, float]:
    from sdft_cli.config.recipe import Teacher, Train
    from sdft_cli.training.optimizer import MasterAdamW
    from sdft_cli.training.teacher import is_compressed, make_teacher

    policy, settings = _load(device, dtype, rank), Teacher(update_rate=RATE, storage=storage)
    optimizer = MasterAdamW(policy.model, Train(lr=LR, master=master), watched=is_compressed(settings, policy.lora))
    teacher = make_teacher(policy, settings, None, optimizer.exact())
    exact = _flat(optimizer.exact())
    for step in range(1, STEPS + 1):
        _give_gradients(optimizer.params, step)
        optimizer.clip()
        optimizer.step(LR, seed=step, moved=teacher.watcher(step))
        teacher.update(step, optimizer.exact())
        exact += RATE * (_flat(optimizer.exact()) - exact)
    found = _flat(_average(teacher, list(optimizer.exact())))
    apart = float((found - exact).norm() / (exact - _flat(optimizer.exact())).norm())
    return apart, 0.0 if rank else _computed(policy, teacher, exact)


def _average(teacher: Any, names: list[str]) -> dict[str, Tensor]:
    from sdft_cli.models.adapters import STUDENT
    from sdft_cli.training.teacher import CompressedTeacher

    if isinstance(teacher, CompressedTeacher):
        return {n: teacher.ema.weights[n].float() + teacher.ema.offset[n].float() for n in names}
    return {name: teacher.average[name.replace(f".{STUDENT}.", ".{}.")] for name in names}


def _computed(policy: Any, teacher: Any, exact: Tensor) -> float:
    """The error of the teacher's hidden states, against the model with the exact average, in fp64 on the CPU; and the
    student must be as before."""
    from sdft_cli.models.batching import Row, collate

    row = Row([5, 6, 7, 8], list(range(10, 30)), [1.0] * 20)
    before = _flat(dict(policy.model.named_parameters()))
    ours_NH = teacher.hidden_states(collate([row.student_prompt], [row], 0, policy.device, policy.layout.packed))
    if not torch.equal(before, _flat(dict(policy.model.named_parameters()))):
        raise AssertionError("the teacher's pass has changed the student")
    model, at = copy.deepcopy(policy.core).to("cpu", torch.float64), 0
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(exact[at : at + param.numel()].view(param.shape))
            at += param.numel()
        ids_1L = torch.tensor([row.student_prompt + row.completion])
        hidden_LH = model.get_decoder()(input_ids=ids_1L, use_cache=False).last_hidden_state[0]
    wanted_NH = hidden_LH[len(row.student_prompt) - 1 : -1]
    return float((ours_NH.double().cpu() - wanted_NH).norm() / wanted_NH.norm())
