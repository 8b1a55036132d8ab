"""Out of memory on purpose, for `smoke_checks`: what is computed after it is what is computed without it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from sides import make_trainer
from torch import Tensor
from turns import Turn
from workload import TASK, Case, build, write_data

CASE = Case("memory", hidden=256, inner=1024, layers=4, heads=8, kv=2, vocab=4096, batch=32, new=48, prompt=100,
            demonstration=20)  # fmt: skip
SMALL = CASE._replace(hidden=64, inner=128, layers=2, heads=4, batch=8, new=16, prompt=30, demonstration=10)


def memory_checks(device: str, place: Path) -> Iterator[tuple[str, float, float]]:
    """Training, sampling and scoring, each failing once; on a GPU also with too little memory in truth."""
    case = (CASE if device.startswith("cuda") else SMALL)._replace(device=device)
    build(case._replace(device="cpu"), place / case.name)
    write_data(place / "data")
    assert (place / "data" / TASK).is_dir()
    trainer = make_trainer(Turn(None), case, place / case.name, place / "data", "sdft")
    rows = trainer.batch(0).rows
    tokens = trainer.learner.budget.tokens
    loss, grads = _gradients(trainer, rows)
    for name, call in (("first pass", 0), ("student's second half", 3)):
        trainer.learner.budget.tokens = tokens if call == 0 else max(1, sum(row.length for row in rows) // 2)
        before = trainer.learner.budget.tokens
        with _failing(trainer.policy, "hidden_states", call):
            again, found = _gradients(trainer, rows)
        halved = trainer.learner.budget.tokens < before and bool(trainer.learner.budget.changes())
        yield f"no memory in training ({name}): the budget stays", float(not halved), 0
        yield f"no memory in training ({name}): loss", abs(again - loss) / abs(loss), 1e-4
        yield f"no memory in training ({name}): gradients", float((found - grads).norm() / grads.norm()), 1e-4
    yield from _sampling(trainer.engine, rows)
    yield from _scoring(trainer.policy, rows)
    if device.startswith("cuda"):
        trainer.learner.budget.tokens = tokens
        yield from _in_truth(trainer, rows, loss, grads)


def _gradients(trainer: Any, rows: list[Any]) -> tuple[float, Tensor]:
    """The loss and the gradient of a step, end to end, in fp64 on the CPU; no gradient is left."""
    loss = trainer.gradients(rows, 0).loss
    flat = torch.cat([p.grad.cpu().double().flatten() for p in trainer.learner.optimizer.params.values()])
    trainer.learner.optimizer.discard()
    return loss, flat


@contextlib.contextmanager
def _failing(owner: Any, name: str, at: int) -> Iterator[None]:
    """Within it call number ``at`` of ``owner``'s method runs out of memory, once."""
    method, calls = getattr(owner, name), 0

    def once(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at + 1:
            raise torch.OutOfMemoryError("out of memory on purpose")
        return method(*args, **kwargs)

    setattr(owner, name, once)
    try:
        yield
    finally:
        delattr(owner, name)
    assert calls > at, f"{name} was called {calls} times"


def _sampling(engine: Any, rows: list[Any]) -> Iterator[tuple[str, float, float]]:
    from sdft_cli.config.recipe import Sampler

    prompts = [row.student_prompt for row in rows]
    whole = engine.sample(prompts, Sampler(), 12, seed=1, greedy=True)
    with _failing(engine, "_decode", 0):
        halves = engine.sample(prompts, Sampler(), 12, seed=1, greedy=True)
    other = sum(a.ids != b.ids for a, b in zip(whole, halves, strict=True)) / len(rows)
    yield "no memory in sampling: rows at a time stay", float(engine.facts.get("max_batch") != len(rows) // 2), 0
    yield "no memory in sampling: share of other greedy completions", other, 0.1


def _scoring(policy: Any, rows: list[Any]) -> Iterator[tuple[str, float, float]]:
    from sdft_cli.evaluation.validation_loss import Texts, measure

    texts = Texts("validation", "demonstrations", rows, 0)
    whole = measure(policy, texts, 1 << 14)
    with _failing(policy, "hidden_states", 0):
        halves = measure(policy, texts, 1 << 14)
    assert whole is not None and halves is not None
    yield "no memory in scoring: validation loss", abs(halves["value"] - whole["value"]) / whole["value"], 1e-4


def _in_truth(trainer: Any, rows: list[Any], loss: float, grads: Tensor) -> Iterator[tuple[str, float, float]]:
    """With a limit on this process's memory that lies between what is held and what the step needs."""
    trainer.policy.release_memory()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    _gradients(trainer, rows)
    peak = torch.cuda.max_memory_allocated()
    trainer.policy.release_memory()
    reserved = torch.cuda.memory_reserved()
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    before = trainer.learner.budget.tokens
    try:
        torch.cuda.set_per_process_memory_fraction((reserved + 0.6 * (peak - held)) / total)
        again, found = _gradients(trainer, rows)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    changes = trainer.learner.budget.changes()
    print(f"step needs {(peak - held) / 2**20:.0f} MiB beside {held / 2**20:.0f}: {changes}", flush=True)
    yield "no memory in truth: the budget stays", float(trainer.learner.budget.tokens >= before), 0
    yield "no memory in truth: loss", abs(again - loss) / abs(loss), 1e-4
    yield "no memory in truth: gradients", float((found - grads).norm() / grads.norm()), 1e-4
