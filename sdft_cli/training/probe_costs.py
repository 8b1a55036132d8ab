"""What training would cost: real steps of a method, timed without moving a weight, and the memory of the probe itself.

Times are those of training steps on a machine that does nothing else (`stopwatch`), also where this one does;
evaluations, checkpoints and loading come on top.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from sdft_cli.config.recipe import METHODS, Recipe
from sdft_cli.data import dataset
from sdft_cli.training import first_tokens
from sdft_cli.training.batches import Batches
from sdft_cli.training.micro_batches import DoesNotFit
from sdft_cli.training.preflight import StagePlan
from sdft_cli.training.probe_record import Pace, TrainingTime
from sdft_cli.training.probe_subject import Subject
from sdft_cli.training.stopwatch import Stopwatch
from sdft_cli.training.trainer import build_trainer
from sdft_cli.types import Example

#: A learning rate too small to move any weight: a timed step does all of its work and changes nothing.
NO_MOVE = 1e-30
#: The methods whose cost is always given.
COMPARED = ("sft", "sdft")


def of_stage(subject: Subject) -> TrainingTime:
    """Steps and time of the stage's own phases."""
    phases = [_pace(subject, phase) for phase in subject.stage.phases]
    seconds = total([phase["seconds"] for phase in phases])
    return {"steps": subject.stage.steps, "seconds": seconds, "phases": phases}


def of_others(subject: Subject) -> dict[str, TrainingTime]:
    """Steps and time of the other methods in `COMPARED`, with the recipe's other settings; those left out whose fields
    no row has."""
    found = {}
    for name in others(subject.recipe):
        recipe = with_method(subject.recipe, name)
        rows = _rows_for(subject.stage, METHODS.get(name).needs)
        if rows:
            stage = subject.stage
            phase = Batches(subject.policy.chat, recipe, stage.task, rows, ("probe",), stage.max_new_tokens)
            pace = _pace(subject, phase)
            found[name] = TrainingTime(steps=phase.steps, seconds=pace["seconds"], phases=[pace])
    return found


def others(recipe: Recipe) -> list[str]:
    """The methods in `COMPARED` that are not the recipe's own."""
    return [name for name in COMPARED if name != recipe.method]


def with_method(recipe: Recipe, name: str) -> Recipe:
    """``recipe`` with the parts of another method; training, adapter and the longest completion stay."""
    method = METHODS.get(name)
    sampler = method.sampler.model_copy(update={"max_new_tokens": recipe.sampler.max_new_tokens})
    parts = {p: getattr(method, p) for p in ("views", "teacher", "reward", "objective", "second_phase")}
    return recipe.model_copy(update={"method": name, "sampler": sampler, **parts})


def _rows_for(stage: StagePlan, needs: tuple[str, ...]) -> list[Example]:
    lacking = {row.where for row in dataset.check_demonstrations(stage.train, needs)}
    return [example for example in stage.train if example.id not in lacking]


def _pace(subject: Subject, phase: Batches) -> Pace:
    try:
        return _timed(subject, phase)
    except (torch.OutOfMemoryError, DoesNotFit):
        subject.policy.model.zero_grad(set_to_none=True)
        return {
            "steps": phase.steps,
            "seconds": None,
            "step_seconds": None,
            "rollout_seconds": None,
            "once_seconds": None,
            "machine_share": None,
            "signal": None,
        }


def _timed(subject: Subject, phase: Batches) -> Pace:
    """Two real steps on rows of their own batches: the first warms up, the second counts."""
    still = phase.recipe.train.model_copy(update={"lr": NO_MOVE, "schedule": "constant", "warmup_steps": 0})
    recipe = phase.recipe.model_copy(update={"train": still})
    count = min(len(phase.examples), 2 * max(1, still.batch // recipe.sampler.n))
    examples = random.Random(subject.seed).sample(list(phase.examples), count)
    batches = Batches(subject.policy.chat, recipe, phase.task, examples, phase.where, phase.max_new_tokens)
    with Stopwatch(subject.engine) as writing:
        written = batches.write_once(subject.engine) if recipe.sampler.source == "teacher" else []
    once = writing.elapsed.alone * len(phase.examples) / count if written else 0.0

    def weights() -> dict[str, Tensor]:
        return {name: param.detach() for name, param in subject.policy.model.named_parameters()}

    # A teacher that starts from the run's or the stage's first weights starts from the student's present ones here.
    # What skip_first=auto comes to is measured once a stage, so it is no part of a step.
    trainer = build_trainer(
        subject.policy, subject.engine, batches, stored=written, origin=weights, skip_first=first_tokens.PAPER
    )
    trainer.step(0)
    second = still.updates  # the first step of the next batch: a batch is used for ``updates`` steps
    with Stopwatch(subject.engine) as sampling:
        trainer.batch(second)
    with Stopwatch(subject.engine) as passes:
        row = trainer.step(second)
    trainer.close()
    rollout = sampling.elapsed.alone / still.updates
    step = passes.elapsed.alone + rollout
    return {
        "steps": phase.steps,
        "seconds": phase.steps * step + once,
        "step_seconds": step,
        "rollout_seconds": rollout,
        "once_seconds": once,
        "machine_share": (sampling.elapsed + passes.elapsed).share,
        "signal": row["signal"],
    }


def total(parts: Sequence[float | None]) -> float | None:
    """The sum; None where a part is unknown."""
    numbers = [part for part in parts if part is not None]
    return sum(numbers) if len(numbers) == len(parts) else None


def peak(device: torch.device) -> tuple[int, Literal["gpu", "process"]]:
    """The most memory that was held at once: of the GPU if there is one, otherwise of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "gpu"
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "process"
