"""Micro-batches that fit into memory, found by prediction and, where that errs, by trial; and when to remake
activations (gradient checkpointing) so that even the longest row fits.

The size of a micro-batch changes neither loss nor gradient but for rounding, so a step that ran out of memory is
simply made again with half as many tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from sdft_cli.config.recipe import Recipe
from sdft_cli.config.recipe import Teacher as TeacherSettings
from sdft_cli.errors import SdftError
from sdft_cli.models.batching import Row, group_rows
from sdft_cli.models.pretrained import Policy, checkpoint, release
from sdft_cli.runs.records import StepFacts
from sdft_cli.training import memory_model
from sdft_cli.training.memory_model import Counts, Load

#: The share of the memory left to a step's passes that their prediction may fill: it errs by up to a quarter, mostly
#: upwards. What stays after a step is known exactly.
MARGIN = 0.85
T = TypeVar("T")


class DoesNotFit(SdftError):
    """Not even one row fits."""


class Fitting:
    """The micro-batch budget of one phase, in tokens; it only ever shrinks. ``moments``: bytes that the optimizer holds
    already, as in a resumed run."""

    def __init__(self, policy: Policy, recipe: Recipe, moments: Callable[[], int] = lambda: 0):
        self.policy, self.recipe, self.moments = policy, recipe, moments
        self.auto, self.budget = recipe.train.micro_batch_tokens == "auto", recipe.train.micro_batch_budget
        self.counts = counts_of(policy.model)
        self.room: float | None = None
        self.notes: list[str] = []
        self.may_remake = recipe.train.gradient_checkpointing == "auto" and _supports(policy)
        self._remake(recipe.train.gradient_checkpointing == "on")

    def run(self, rows: Sequence[Row], work: Callable[[int], T], discard: Callable[[], None]) -> T:
        """``work`` (a token budget -> result) on ``rows``; where it runs out of memory, what it left is discarded and
        it is asked again with a smaller budget. `DoesNotFit` where there is none."""
        self._foresee(rows)
        while True:
            try:
                return work(self.budget)
            except torch.OutOfMemoryError as error:
                reason = str(error).splitlines()[0]
            # outside of the handler, whose traceback keeps the tensors of the pass that failed
            discard()
            self.policy.model.eval()
            release(self.policy.device)
            self._shrink(rows, reason)

    def told(self) -> StepFacts:
        """What has changed since this was last asked, for the step's row; empty if nothing has."""
        notes, self.notes = self.notes, []
        return {"memory": "; ".join(notes), "micro_batch_tokens": self.budget} if notes else {}

    # ---------------------------------------------------------------------------------------------------------

    def _foresee(self, rows: Sequence[Row]) -> None:
        """Shrink until the prediction fits into what was free before the first step."""
        if self.room is None:
            free = free_bytes(self.policy.device)
            self.room = float("inf") if free is None else free + self.moments()
        while self.needs(rows) > self.room:
            smaller = self._smaller(rows)
            if self.auto and smaller:
                self._take(smaller, "predicted not to fit otherwise")
            elif self.may_remake and not self.remade and not smaller:
                self._remake(True, "predicted not to fit otherwise")
            else:
                return  # a budget that a person chose, or nothing left to shrink: it may fit all the same

    def _shrink(self, rows: Sequence[Row], reason: str) -> None:
        if smaller := self._smaller(rows):
            self._take(smaller, reason)
        elif self.may_remake and not self.remade:
            self._remake(True, reason)
        else:
            longest = max((row.length for row in rows), default=0)
            raise DoesNotFit(
                f"a row of {longest} tokens does not fit into the memory of {self.policy.device}: {reason}",
                "set lora.rank, train.optimizer=adamw8bit, train.master=stochastic or teacher.storage=half; or lower"
                " sampler.max_new_tokens, train.max_prompt_tokens or engine.max_batch",
            )

    def _smaller(self, rows: Sequence[Row]) -> int | None:
        """Half of what the largest group of several rows has; None where every row stands alone."""
        groups = [g for g in group_rows(rows, self.budget, self.policy.packed) if len(g) > 1]
        return max(1, max(_tokens(g, self.policy.packed) for g in groups) // 2) if groups else None

    def _take(self, budget: int, reason: str) -> None:
        self.budget = budget
        self.notes.append(f"micro-batches of at most {budget} tokens: {reason}")

    def _remake(self, on: bool, reason: str = "") -> None:
        checkpoint(self.policy, on)
        self.remade = on
        if reason:
            if self.auto:
                self.budget = self.recipe.train.micro_batch_budget  # more rows may fit again
            self.notes.append(f"gradient checkpointing is on: {reason}")

    def needs(self, rows: Sequence[Row]) -> int:
        """Bytes to keep free for steps on ``rows``, beyond what is held before the first one: the optimizer's moments,
        gradients, and what is predicted for the passes with a margin."""
        packed, groups = self.policy.packed, group_rows(rows, self.budget, self.policy.packed)
        if not groups:
            return 0
        most = max(groups, key=lambda g: _tokens(g, packed))
        positions = sum(sum(map(bool, row.weights)) for row in most)
        length = max(row.length for row in most)
        load = Load(_tokens(most, packed), positions, length, len(groups) > 1, remade=self.remade)
        config, width = self.policy.core.config, next(self.policy.core.parameters()).element_size()
        found = memory_model.predict(
            self.recipe, memory_model.dims(config), self.counts, width, load, self.policy.device.type
        )
        own = found["optimizer"] + found["gradients"]
        passing = found["peak"] - own - sum(found[k] for k in memory_model.STAYING)
        return own + int(passing / MARGIN)


def stored(policy: Policy, recipe: Recipe) -> TeacherSettings | None:
    """The teacher's settings with its storage chosen: ``cpu`` where the average does not fit beside the rest.

    Both compute the same numbers, so what is free may decide.
    """
    settings = recipe.teacher
    if settings is None or settings.storage != "auto":
        return settings
    held = counts_of(policy.model)
    width = next(policy.core.parameters()).element_size()
    free, device = free_bytes(policy.device), policy.device.type
    there = settings.model_copy(update={"storage": "device"})
    recipe = recipe.model_copy(update={"teacher": there})
    least = memory_model.predict(
        recipe, memory_model.dims(policy.core.config), held, width, Load(1, 1, 1, remade=True), device
    )
    needed = least["peak"] - least["weights"]
    tight = device == "cuda" and free is not None and needed > free * MARGIN
    return settings.model_copy(update={"storage": "cpu"}) if tight else there


def counts_of(model: nn.Module) -> Counts:
    """Parameters of a model, whether it is loaded or only a shape; a teacher's adapter is none of them."""
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    total = sum(p.numel() for n, p in model.named_parameters() if ".lora_" not in n)
    return Counts(total, sum(trained), max(trained, default=0))


def _supports(policy: Policy) -> bool:
    return bool(getattr(policy.core, "supports_gradient_checkpointing", False))


def _tokens(group: Sequence[Row], packed: bool) -> int:
    lengths = [row.length for row in group]
    return sum(lengths) if packed else len(lengths) * max(lengths)


# --- what is free ----------------------------------------------------------------------------------------------


def free_bytes(device: torch.device) -> int | None:
    """Bytes that this process could still take on ``device``; None where that cannot be told."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return min((found for found in (_available(), _cgroup()) if found is not None), default=None)


def resident(what: str = "VmRSS") -> int:
    """Bytes of this process in memory, now (VmRSS) or at most so far (VmHWM), of Linux's /proc; 0 elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{what}:")), 0)


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _cgroup(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """What the tightest memory limit above this process leaves (cgroup v2, then v1); file cache can be given up."""
    try:
        entries = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return None
    found = []
    for _, kinds, path in entries:
        if kinds not in ("", "memory"):
            continue
        base = root / kinds if kinds else root
        names = ("memory.max", "memory.current", "inactive_file") if not kinds else _V1
        here = base / path.strip("/")
        found += [left for folder in (here, *here.parents) if (left := _left(folder, *names)) is not None]
    return min(found, default=None)


_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _left(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    try:
        most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if most == "max" else max(0, int(most) - used + int(stat.get(cache, 0)))
