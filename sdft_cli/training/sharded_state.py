"""The state of a learner whose model lies in shards: written by all ranks at once, read by as many as there are then.

Everything is kept by the parameter's name and as a whole (`torch.distributed.checkpoint`), so what N ranks have written
any other number can read, and so can one process; and several ranks read what one process has written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from sdft_cli.distributed.shards import Shards
from sdft_cli.distributed.team import team
from sdft_cli.training.optimizer import PIECE, MasterAdamW, Moments, OptimizerState
from sdft_cli.training.teacher import TeacherModel

#: The folder beside ``state.pt``.
FOLDER = "shards"
MOMENTS = ("exp_avg", "exp_avg_sq")

#: Tensors by kind and parameter.
Tensors = dict[str, dict[str, Tensor]]


class Kept(Protocol):
    """What has state: a `Learner`."""

    optimizer: MasterAdamW
    teacher: TeacherModel | None
    shards: Shards | None


def write(learner: Kept, state: Path) -> dict[str, float]:
    """Write this rank's part into ``state``, as all ranks do; returns Adam's step counts by parameter."""
    from torch.distributed import checkpoint

    moments = learner.optimizer.moments()
    parts: Tensors = {
        "exp_avg": {name: each["exp_avg"] for name, each in moments.items()},
        "exp_avg_sq": {name: each["exp_avg_sq"] for name, each in moments.items()},
    }
    parts |= {"master": learner.optimizer.own_masters()} | dict(learner.teacher.state_dict() if learner.teacher else {})
    with _plainly():
        checkpoint.save(_named(learner, parts), checkpoint_id=state / FOLDER)
    ranks = team()
    counts = ranks.gather([{name: each["step"] for name, each in moments.items()}], ranks.size)
    return {name: step for each in counts for name, step in each.items()}


@contextmanager
def _plainly() -> Iterator[None]:
    """What failed on a rank, in place of torch's error, which is no `Exception` and hides it."""
    from torch.distributed.checkpoint import CheckpointException

    try:
        yield
    except CheckpointException as error:
        failure = next(iter(error.failures.values()))[0]
        raise failure from error


def _named(learner: Kept, parts: Tensors) -> dict[str, Any]:
    """``parts`` by one name each, as tensors that know how they are cut; a kind that no rank has is left out."""
    assert learner.shards is not None
    kinds = {kind: next(iter(by_name.values())).dtype for kind, by_name in parts.items() if by_name}
    return {
        f"{kind}.{name}": learner.shards.as_sharded(name, parts[kind].get(name), dtype)
        for kind, dtype in kinds.items()
        for name in learner.shards.trained
    }


def read(learner: Kept, state: Path, steps: Mapping[str, float]) -> None:
    """Restore what any number of ranks has written; `ValueError` where it belongs to other parameters."""
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    reader = checkpoint.FileSystemReader(state / FOLDER)
    found = reader.read_metadata().state_dict_metadata
    there = {key: list(each.size) for key, each in found.items() if isinstance(each, TensorStorageMetadata)}
    wanted = _wanted(learner)
    if {key: list(each.shape) for key, each in wanted.items()} != there:
        raise ValueError("the sharded state belongs to other parameters or settings")
    with _plainly():
        checkpoint.load(wanted, storage_reader=reader, no_dist=learner.shards is None)
    local = {key: _local(each) for key, each in wanted.items()}
    kinds: Tensors = {}
    for key, each in local.items():
        kind, _, name = key.partition(".")
        if name in learner.optimizer.params:
            kinds.setdefault(kind, {})[name] = each
    restore(learner, kinds, steps)


def _wanted(learner: Kept) -> dict[str, Any]:
    """Empty tensors for everything that ``learner`` has to restore."""
    params = learner.optimizer.params
    zeros = {name: torch.zeros_like(param, dtype=torch.float32) for name, param in params.items()}
    parts: Tensors = dict.fromkeys(MOMENTS, zeros) | {"master": learner.optimizer.own_masters()}
    parts |= dict(learner.teacher.state_dict() if learner.teacher else {})
    if learner.shards is not None:
        return {key: torch.clone(each) for key, each in _named(learner, parts).items()}
    return {
        f"{kind}.{name}": torch.empty_like(each) for kind, by_name in parts.items() for name, each in by_name.items()
    }


def _local(each: Any) -> Tensor:
    tensor: Tensor = each.to_local() if hasattr(each, "to_local") else each
    return tensor


def restore(learner: Kept, kinds: Tensors, steps: Mapping[str, float]) -> None:
    """Take over this rank's parts of everything."""
    names = kinds["exp_avg"]
    moments: dict[str, Moments] = {
        name: {"exp_avg": kinds["exp_avg"][name], "exp_avg_sq": kinds["exp_avg_sq"][name], "step": steps[name]}
        for name in names
        if name in steps
    }
    learner.optimizer.load_moments(moments, kinds.get("master", {}))
    if learner.teacher:
        learner.teacher.load_state_dict({kind: kinds[kind] for kind in learner.teacher.state_dict()})


def take(learner: Kept, optimizer: OptimizerState, teacher: Tensors | None) -> None:
    """Restore, on several ranks, what one process has written."""
    assert learner.shards is not None
    whole, steps = _by_name(optimizer, {name: param.numel() for name, param in learner.shards.trained.items()})
    whole |= {"master": optimizer["masters"]} | (teacher or {})
    kinds: Tensors = {}
    for kind, by_name in whole.items():
        for name in learner.shards.local:
            if name in by_name:
                shape = learner.shards.trained[name].shape
                kinds.setdefault(kind, {})[name] = learner.shards.part_of(name, by_name[name].view(shape))
    restore(learner, kinds, steps)


def _by_name(saved: OptimizerState, sizes: Mapping[str, int]) -> tuple[Tensors, dict[str, float]]:
    """Adam's moments as whole flat tensors, and its step counts, by parameter."""
    if set(saved["names"]) != set(sizes):
        raise ValueError("the optimizer state belongs to other parameters")
    states = [each for adam in saved["adam"] for _, each in sorted(adam["state"].items())]
    single = len(saved["adam"]) == 1
    counts = {name: 1 if single else -(-sizes[name] // PIECE) for name in saved["names"]}
    moments: Tensors = {kind: {} for kind in MOMENTS}
    steps: dict[str, float] = {}
    if len(states) != sum(counts.values()):
        raise ValueError("the optimizer state is that of another optimizer, or of no step")
    for name, count in counts.items():
        mine, states = states[:count], states[count:]
        steps[name] = float(mine[0]["step"])
        for kind in MOMENTS:
            moments[kind][name] = torch.cat([each[kind].reshape(-1) for each in mine])
    return moments, steps
