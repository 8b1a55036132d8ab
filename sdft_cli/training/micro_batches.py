"""Micro-batches that fit into memory: their size is predicted and, where the prediction errs, reduced by trial.

Where not even the longest row fits, activations are recomputed (gradient checkpointing). The size of a micro-batch
changes neither loss nor gradient except for rounding, so a step that ran out of memory is simply repeated with half as
many tokens; on several ranks, which would have to do so together, the run ends instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict, TypeVar

import torch

from sdft_cli.config.recipe import Recipe
from sdft_cli.distributed.team import team
from sdft_cli.errors import SdftError
from sdft_cli.models.batching import Row, group_rows
from sdft_cli.models.policy import Policy
from sdft_cli.models.protocols import CausalLM
from sdft_cli.training import memory_model
from sdft_cli.training.available_memory import free_bytes
from sdft_cli.training.memory_model import Load
from sdft_cli.training.memory_shards import counts_of

T = TypeVar("T")


class DoesNotFit(SdftError):
    """Not even one row fits."""


class BudgetFacts(TypedDict, total=False):
    """What a step row reports of a changed budget: the reason, and the budget in tokens."""

    memory: str
    micro_batch_tokens: int


class MicroBatchBudget:
    """The ``tokens`` of a phase's micro-batches, which only ever shrink, and whether it recomputes activations.

    ``moments`` gives the bytes that the optimizer holds already, as it does in a resumed run. ``core`` is what passes
    go through, where it is not the policy's model.
    """

    def __init__(
        self,
        policy: Policy,
        recipe: Recipe,
        moments: Callable[[], int] = lambda: 0,
        core: CausalLM | None = None,
    ):
        self.core = core
        self.policy, self.recipe, self.moments = policy, recipe, moments
        self.auto, self.tokens = recipe.train.micro_batch_tokens == "auto", recipe.train.micro_batch_budget
        self.counts = counts_of(policy.model, team().size, recipe.lora.bits)
        self.room: float | None = None  # bytes that were free before the first step
        self.notes: list[str] = []
        supported = getattr(policy.core, "supports_gradient_checkpointing", False)
        self.may_recompute = recipe.train.gradient_checkpointing == "auto" and bool(supported)
        self._recompute(recipe.train.gradient_checkpointing == "on")

    def run(self, rows: Sequence[Row], work: Callable[[int], T], discard: Callable[[], None]) -> T:
        """The result of ``work(tokens)`` on ``rows``; while it runs out of memory, repeat it with a smaller budget.

        ``discard`` removes what an attempt left behind. Raises `DoesNotFit` where no budget is small enough.
        """
        self._foresee(rows)
        while True:
            try:
                return work(self.tokens)
            except torch.OutOfMemoryError as error:
                reason = str(error).splitlines()[0]
                if team().size > 1:  # the other ranks are in the middle of their passes, and cannot repeat them
                    raise DoesNotFit(
                        f"rank {team().rank} ran out of memory: {reason}",
                        f"set train.micro_batch_tokens below {self.tokens}, or train.gradient_checkpointing=on",
                    ) from error
            # outside the handler, whose traceback keeps the tensors of the failed pass alive
            discard()
            self.policy.model.eval()
            self.policy.release_memory()
            self._shrink(rows, reason)

    def changes(self) -> BudgetFacts:
        """What has changed since the last call, for the step's row; empty if nothing has."""
        notes, self.notes = self.notes, []
        return {"memory": "; ".join(notes), "micro_batch_tokens": self.tokens} if notes else {}

    def needs(self, rows: Sequence[Row]) -> int:
        """Bytes that steps on ``rows`` need beyond what is held before the first one: the optimizer's moments,
        gradients, and the predicted passes with a margin."""
        packed, groups = self.policy.layout.packed, group_rows(rows, self.tokens, self.policy.layout)
        if not groups:
            return 0
        largest = max(groups, key=lambda group: _student_tokens(group, packed))
        positions = sum(sum(map(bool, row.weights)) for row in largest)
        length = max(row.length for row in largest)
        tokens = _student_tokens(largest, packed)
        scored = sum(sum(map(bool, row.weights)) for row in rows)
        load = Load(tokens, positions, length, len(groups) > 1, 0, self.recomputes, len(largest), scored)
        sizes, width = memory_model.dims(self.policy.core.config), self.policy.dtype.itemsize
        step = memory_model.predict(self.recipe, sizes, self.counts, width, load, self.policy.device.type)
        return step.training_need - step.lasting.before_first_step

    # ---------------------------------------------------------------------------------------------------------

    def _foresee(self, rows: Sequence[Row]) -> None:
        """Shrink until the prediction fits into what was free before the first step."""
        if self.room is None:
            free = free_bytes(self.policy.device)
            room = float("inf") if free is None else float(free + self.moments())
            self.room = min(team().gather([room], team().size))  # ranks pass equally many micro-batches
        while self.needs(rows) > self.room:
            smaller = self._smaller(rows)
            if self.auto and smaller:
                self._take(smaller, "predicted not to fit otherwise")
            elif self.may_recompute and not self.recomputes and not smaller:
                self._recompute(True, "predicted not to fit otherwise")
            else:
                return  # the user chose the budget, or nothing is left to shrink: it may fit all the same

    def _shrink(self, rows: Sequence[Row], reason: str) -> None:
        if smaller := self._smaller(rows):
            self._take(smaller, reason)
        elif self.may_recompute and not self.recomputes:
            self._recompute(True, reason)
        else:
            longest = max((row.length for row in rows), default=0)
            raise DoesNotFit(
                f"a row of {longest} tokens does not fit into the memory of {self.policy.device}: {reason}",
                "set lora.rank, train.optimizer=adamw8bit, train.master=stochastic or teacher.storage=half; or lower"
                " sampler.max_new_tokens, train.max_prompt_tokens or engine.max_batch",
            )

    def _smaller(self, rows: Sequence[Row]) -> int | None:
        """Half the tokens of the largest group of several rows; None where every row is a group of its own."""
        groups = [g for g in group_rows(rows, self.tokens, self.policy.layout) if len(g) > 1]
        return max(1, max(_tokens(g, self.policy.layout.packed) for g in groups) // 2) if groups else None

    def _take(self, tokens: int, reason: str) -> None:
        self.tokens = tokens
        self.notes.append(f"micro-batches of at most {tokens} tokens: {reason}")

    def _recompute(self, on: bool, reason: str = "") -> None:
        self.policy.gradient_checkpointing(on, self.core)
        self.recomputes = on
        if reason:
            if self.auto:
                self.tokens = self.recipe.train.micro_batch_budget  # more rows may fit again
            self.notes.append(f"gradient checkpointing is on: {reason}")


def _tokens(group: Sequence[Row], packed: bool) -> int:
    lengths = [row.length for row in group]
    return sum(lengths) if packed else len(lengths) * max(lengths)


def _student_tokens(group: Sequence[Row], packed: bool) -> int:
    """Tokens of the pass whose activations are kept: the teacher's are not."""
    lengths = [len(row.student_prompt) + len(row.completion) for row in group]
    return sum(lengths) if packed else len(lengths) * max(lengths)
