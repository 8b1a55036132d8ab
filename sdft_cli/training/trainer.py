"""Train one phase of a stage: the one loop that every method shares. A method chooses the parts, never their order.

batch (`batches`: prompts, completions, views, weights) -> score (teacher without gradient, student with) ->
loss (`objective`), backward -> optimizer -> teacher update -> engine sync
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdft_cli.config.recipe import Recipe
from sdft_cli.distributed.team import team
from sdft_cli.errors import SdftError, UsageError
from sdft_cli.models.batching import Row
from sdft_cli.models.engine import Engine, Reporting
from sdft_cli.models.policy import Policy
from sdft_cli.runs.records import StepFacts
from sdft_cli.runs.token_records import SkipFirstFacts
from sdft_cli.training import completions, first_tokens, in_flight
from sdft_cli.training.batches import Batch, Batches
from sdft_cli.training.learner import Gradients, Learner, Origin
from sdft_cli.training.objective import StepObjective
from sdft_cli.training.prefetch import Prefetcher
from sdft_cli.types import Rollout


def build_trainer(
    policy: Policy,
    engine: Engine,
    batches: Batches,
    *,
    stored: list[Rollout] | None = None,
    origin: Origin | None = None,
    quiet: Callable[[int], bool] = lambda steps: False,
    looks: Callable[[int], bool] = lambda step: False,
    skip_first: int | None = None,
) -> PhaseTrainer:
    """The trainer of a phase, ready for its first step: what `train`, `probe`, tests and benchmarks use.

    A teacher that writes once has written ``stored``, or writes now. ``origin`` loads the weights that the teacher
    starts from where it does not start from the student. ``quiet(steps)`` says whether the caller will sample with the
    engine, or save, after ``steps`` steps; ``looks(step)`` whether a step also measures what is not measured at every
    one.
    ``skip_first`` is what ``objective.skip_first=auto`` has come to before; None: it is measured now.
    """
    if batches.recipe.sampler.source == "teacher" and stored is None:
        stored = batches.write_once(engine)
    batches.start(engine, stored or ())
    trainer = PhaseTrainer(policy, engine, batches, origin, quiet, looks)
    if batches.recipe.objective.skip_first == "auto":
        if skip_first is None:
            trainer.chosen = _measured(trainer)
            skip_first = trainer.chosen["skip_first"]
        batches.settle(skip_first)
        team().run(Learner.settle, trainer.learner, batches.recipe)
    return trainer


def _measured(trainer: PhaseTrainer) -> SkipFirstFacts:
    """What ``objective.skip_first=auto`` comes to with the weights that the phase begins with."""
    batches, chat = trainer.batches, trainer.policy.chat
    demonstration = batches.demonstrations().get("completion_tokens")
    thinks = chat.template.think_tags is not None
    tokens = first_tokens.longest(batches.max_new_tokens, demonstration, thinks)
    rows = first_tokens.answers(batches.trial(first_tokens.ROWS, tokens).rows, chat.thinking_length)
    try:
        kl_rows = trainer.kl_by_row(rows, 0, trainer.learner.budget.tokens)
    except torch.OutOfMemoryError:
        kl_rows = trainer.kl_by_row(rows, 0, 1)  # each row alone
    return first_tokens.choose(kl_rows, demonstration)


class PhaseTrainer:
    """One phase of one task's training; `build_trainer` makes it."""

    def __init__(
        self,
        policy: Policy,
        engine: Engine,
        batches: Batches,
        origin: Origin | None,
        quiet: Callable[[int], bool],
        looks: Callable[[int], bool] = lambda step: False,
    ):
        self.looks = looks
        self.policy, self.engine, self.batches = policy, engine, batches
        self.chosen: SkipFirstFacts | None = None  # what objective.skip_first=auto was measured to come to
        self.steps, self.prefetcher = batches.steps, Prefetcher(batches, engine, quiet)
        self.learner = team().make(Learner, policy, self.recipe, self.steps, origin)
        self._in_use: tuple[int, Batch] | None = None
        self._trained = 0  # steps of this phase, in this process

    @property
    def recipe(self) -> Recipe:
        """The phase's recipe."""
        return self.batches.recipe

    # one step -----------------------------------------------------------------------------------------------

    def step(self, step: int) -> StepFacts:
        """Optimizer step ``step`` (from 0) of this phase; returns what there is to log.

        Raises `NonFinite` where loss or gradient is not finite; weights, optimizer and teacher are then as before.
        """
        began = time.perf_counter()
        batch = self.batch(step)
        sampled_at = time.perf_counter()
        means = self.gradients(batch.rows, step)
        looked = _look(self, batch.rows, step, means.means) if self.looks(step) else StepFacts()
        moved = team().run(Learner.update, self.learner, means.loss, step, self.batches.seed("rounding", step))
        self.prefetcher.moved()
        self._trained = step + 1
        seconds = time.perf_counter() - began
        facts: StepFacts = {
            **means.means,
            **looked,
            **batch.facts,
            **_age(batch, step % self.recipe.train.updates, self.recipe.train.updates),
            "tokens_per_second": sum(len(r.completion) for r in batch.rows) / seconds,
            **moved,
            "seconds": seconds,
            "rollout_seconds": sampled_at - began,
            **self.learner.budget.changes(),
            **(self.engine.facts if isinstance(self.engine, Reporting) else {}),
        }
        return facts

    def batch(self, step: int) -> Batch:
        """The batch of ``step``; each is used for ``train.updates`` steps in a row."""
        number = step // self.recipe.train.updates
        if self._in_use is None or self._in_use[0] != number:
            self._in_use = (number, self.prefetcher.take(number))
        return self._in_use[1]

    def may_save(self, step: int) -> bool:
        """Whether nothing but weights is in flight after ``step`` steps: a batch in use could not be drawn again."""
        return step % self.recipe.train.updates == 0

    def gradients(self, rows: list[Row], step: int) -> Gradients:
        """Leave the gradients of the whole batch, by micro-batches that fit."""
        return team().run(Learner.gradients, self.learner, rows, step, self.batches.seed("dropout", step))

    def kl_by_row(self, rows: list[Row], step: int, tokens: int) -> list[Tensor]:
        """`Learner.kl_by_row`."""
        return team().run(Learner.kl_by_row, self.learner, rows, step, tokens)

    # state --------------------------------------------------------------------------------------------------

    def save(self, model: Path, state: Path) -> None:
        """Everything that a resumed phase needs."""
        self.save_model(model)
        saved = {**team().run(Learner.save, self.learner, state), "in_flight": self._in_flight()}
        with (state / "state.pt").open("wb") as file:  # given a path, torch would not say why it cannot write
            torch.save(saved, file)

    def _in_flight(self) -> dict[str, Any]:
        """The batch in use and those sampled ahead; regular checkpoints come at steps without any."""
        ahead = self.prefetcher.state_dict()
        if self._in_use and not self.may_save(self._trained):
            number, batch = self._in_use
            ahead["in_use"] = (number, in_flight.stored([batch]))
        return {"settings": in_flight.settings(self.recipe), **ahead} if ahead else {}

    def save_model(self, folder: Path) -> None:
        """The student alone."""
        team().run(Learner.make_whole, self.learner)  # a step that failed may have left it without
        self.policy.save(folder)

    def restore(self, state: Path) -> None:
        """Optimizer and teacher as `save` left them; the weights were loaded with the model. `UsageError` for a file
        that is broken, or of another model or optimizer."""
        with _explaining(state):
            team().run(Learner.restore, self.learner, state)
            saved = torch.load(state / "state.pt", map_location="cpu", weights_only=True)
            batches = saved.get("in_flight", {})  # state saved by older versions has none
            if batches.get("settings") != in_flight.settings(self.recipe):
                return
            self.prefetcher.load_state_dict(batches)
            if "in_use" in batches:
                number, (batch,) = batches["in_use"]
                self._in_use = number, in_flight.loaded([batch])[0]

    def close(self) -> None:
        """Stop what is being prefetched, and free the teacher."""
        self.prefetcher.close()
        team().run(Learner.close, self.learner)
        team().forget(self.learner)


def _look(trainer: PhaseTrainer, rows: list[Row], step: int, means: StepFacts) -> StepFacts:
    """What is measured at a few steps only; ``means`` are those of the trained tokens. Nothing without a teacher."""
    objective = StepObjective(trainer.recipe, step)
    if not objective.asks_teacher:
        return {}
    kl_of = partial(trainer.kl_by_row, step=step, tokens=trainer.learner.budget.tokens)
    repeated = completions.wording(rows, trainer.batches.examples, trainer.recipe, trainer.policy.chat)
    return {**first_tokens.skipped(rows, means.get("kl"), kl_of), **repeated}


def _age(batch: Batch, reused: int, updates: int) -> StepFacts:
    """How many steps older than the weights a batch's samples are, which has been ``reused`` so often of ``updates``
    times; nothing where they are always of the weights."""
    if "staleness" not in batch.facts and updates == 1:
        return {}
    return {"staleness": batch.facts.get("staleness", 0) + reused}


@contextmanager
def _explaining(state: Path) -> Iterator[None]:
    """`UsageError` for a ``state`` that is broken, or of another model or optimizer."""
    try:
        yield
    except (SdftError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # torch and pickle raise errors of any kind for bytes that they cannot read
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        hint = f"restore it, or delete {state.parent} to go on from what was saved before it"
        raise UsageError(f"cannot restore {state / 'state.pt'}: {reason}", hint) from error
