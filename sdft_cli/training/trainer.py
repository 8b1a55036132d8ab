"""Train one phase of a stage: the one loop that every method shares. A method chooses the parts, never their order.

batch (`batches`: prompts, completions, views, weights) -> score (teacher without gradient, student with) ->
loss (`objective`), backward -> optimizer -> teacher update -> engine sync
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sdft_cli.config.recipe import Recipe
from sdft_cli.errors import SdftError, UsageError
from sdft_cli.losses.fused import Scored
from sdft_cli.models.batching import Inputs, Row, collate, group_rows, targets
from sdft_cli.models.engine import Engine, Reporting
from sdft_cli.models.policy import Policy
from sdft_cli.runs.records import StepFacts
from sdft_cli.runs.token_records import SkipFirstFacts
from sdft_cli.training import completions, first_tokens, in_flight
from sdft_cli.training.batches import Batch, Batches
from sdft_cli.training.guards import NonFinite
from sdft_cli.training.micro_batches import MicroBatchBudget
from sdft_cli.training.objective import GroupLoss, StepObjective, needs_of
from sdft_cli.training.optimizer import MasterAdamW, learning_rate
from sdft_cli.training.prefetch import Prefetcher
from sdft_cli.training.teacher import Weights, is_compressed, make_teacher
from sdft_cli.training.teacher_storage import choose_storage
from sdft_cli.types import Rollout


class Gradients(NamedTuple):
    """What a batch's passes leave besides the gradients: the loss, and means over its loss positions."""

    loss: float
    means: StepFacts


def build_trainer(
    policy: Policy,
    engine: Engine,
    batches: Batches,
    *,
    stored: list[Rollout] | None = None,
    origin: Callable[[], Weights] | None = None,
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
    return trainer


def _measured(trainer: PhaseTrainer) -> SkipFirstFacts:
    """What ``objective.skip_first=auto`` comes to with the weights that the phase begins with."""
    batches, chat, layout = trainer.batches, trainer.policy.chat, trainer.policy.layout
    demonstration = batches.demonstrations().get("completion_tokens")
    thinks = chat.template.think_tags is not None
    tokens = first_tokens.longest(batches.max_new_tokens, demonstration, thinks)
    rows = first_tokens.answers(batches.trial(first_tokens.ROWS, tokens).rows, chat.thinking_length)
    objective = StepObjective(batches.recipe, 0)
    try:
        kl_rows = first_tokens.kl_by_row(rows, trainer.sides, objective, trainer.budget.tokens, layout)
    except torch.OutOfMemoryError:
        kl_rows = first_tokens.kl_by_row(rows, trainer.sides, objective, 1, layout)  # each row alone
    return first_tokens.choose(kl_rows, demonstration)


class PhaseTrainer:
    """One phase of one task's training; `build_trainer` makes it."""

    def __init__(
        self,
        policy: Policy,
        engine: Engine,
        batches: Batches,
        origin: Callable[[], Weights] | None,
        quiet: Callable[[int], bool],
        looks: Callable[[int], bool] = lambda step: False,
    ):
        self.looks = looks
        self.policy, self.engine, self.batches = policy, engine, batches
        self.chosen: SkipFirstFacts | None = None  # what objective.skip_first=auto was measured to come to
        self.steps, self.prefetcher = batches.steps, Prefetcher(batches, engine, quiet)
        asks = "teacher" in needs_of(self.recipe.objective)
        settings = choose_storage(policy, self.recipe) if asks else None
        self.optimizer = MasterAdamW(policy.model, self.recipe.train, watched=is_compressed(settings, policy.lora))
        self.budget = MicroBatchBudget(policy, self.recipe, self.optimizer.held)
        self.teacher = make_teacher(policy, settings, origin, self.optimizer.exact()) if settings else None
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
        loss, means = self.gradients(batch.rows, step)
        looked = _look(self, batch.rows, step, means) if self.looks(step) else StepFacts()
        lr = learning_rate(self.recipe.train, step, self.steps)
        norm = self.optimizer.clip()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.optimizer.discard()
            raise NonFinite(loss, norm)
        rounding = self.batches.seed("rounding", step)
        self.optimizer.step(lr, rounding, self.teacher.watcher(step + 1) if self.teacher else None)
        if self.teacher:
            self.teacher.update(step + 1, self.optimizer.exact())
        self.prefetcher.moved()
        self._trained = step + 1
        seconds = time.perf_counter() - began
        facts: StepFacts = {
            "loss": loss,
            **means,
            **looked,
            **batch.facts,
            **_age(batch, step % self.recipe.train.updates, self.recipe.train.updates),
            "tokens_per_second": sum(len(r.completion) for r in batch.rows) / seconds,
            "lr": lr,
            "grad_norm": norm,
            "seconds": seconds,
            "rollout_seconds": sampled_at - began,
            **self.budget.changes(),
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
        return self.budget.run(rows, lambda budget: self.passes(rows, step, budget), self.optimizer.discard)

    def passes(self, rows: list[Row], step: int, budget: int) -> Gradients:
        """All passes of a step, by micro-batches of at most ``budget`` tokens.

        The teacher sees the whole batch first: its hidden states are kept (its logits never), so that its weights are
        needed once a step. Sums stay on the device until the end.
        """
        torch.manual_seed(self.batches.seed("dropout", step))
        groups, objective = group_rows(rows, budget, self.policy.layout), StepObjective(self.recipe, step)
        teachers = [self.teacher_score(group) if objective.asks_teacher else None for group in groups]
        sums = _Sums(self.policy.device)
        for group, teacher in zip(groups, teachers, strict=True):
            group_loss = self.loss(group, teacher, objective)
            group_loss.loss.backward()
            self.policy.model.eval()
            sums.add(group_loss)
        return sums.means(objective, on_policy=self.recipe.sampler.source == "student")

    def loss(self, group: list[Row], teacher: Scored | None, objective: StepObjective) -> GroupLoss:
        """The student's pass over one micro-batch, and its part of the loss."""
        inputs = _inputs(self.policy, [r.student_prompt for r in group], group)
        self.policy.train_mode(self.recipe.lora.dropout > 0)  # until the backward pass has remade its layers
        student = Scored(self.policy.hidden_states(inputs), self.policy.head())
        return objective.loss(targets(group, self.policy.device), student, teacher)

    def teacher_score(self, group: list[Row]) -> Scored | None:
        """The teacher's hidden states and head for one micro-batch; None without a teacher."""
        if self.teacher is None:
            return None
        return self.teacher.score(_inputs(self.policy, [r.teacher_prompt or [] for r in group], group))

    def sides(self, group: list[Row]) -> tuple[Scored, Scored]:
        """Student and teacher on one micro-batch, to look at and not to train on."""
        hidden_NH = self.policy.hidden_states(_inputs(self.policy, [r.student_prompt for r in group], group))
        teacher = self.teacher_score(group)
        assert teacher is not None, "whoever asks has a teacher"
        return Scored(hidden_NH, self.policy.head()), teacher

    # state --------------------------------------------------------------------------------------------------

    def save(self, model: Path, state: Path) -> None:
        """Everything that a resumed phase needs."""
        self.save_model(model)
        teacher = self.teacher.state_dict() if self.teacher else None
        saved = {"optimizer": self.optimizer.state_dict(), "teacher": teacher, "in_flight": self._in_flight()}
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
        self.policy.save(folder)

    def restore(self, state: Path) -> None:
        """Optimizer and teacher as `save` left them; the weights were loaded with the model. `UsageError` for a file
        that is broken, or of another model or optimizer."""
        with _explaining(state):
            saved = torch.load(state / "state.pt", map_location="cpu", weights_only=True)
            self.optimizer.load_state_dict(saved["optimizer"])
            if self.teacher:
                self.teacher.load_state_dict(saved["teacher"])
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
        if self.teacher:
            self.teacher.close()


def _look(trainer: PhaseTrainer, rows: list[Row], step: int, means: StepFacts) -> StepFacts:
    """What is measured at a few steps only; ``means`` are those of the trained tokens. Nothing without a teacher."""
    objective = StepObjective(trainer.recipe, step)
    if not objective.asks_teacher:
        return {}
    tokens, layout = trainer.budget.tokens, trainer.policy.layout
    kl_of = partial(first_tokens.kl_by_row, sides=trainer.sides, objective=objective, tokens=tokens, layout=layout)
    repeated = completions.wording(rows, trainer.batches.examples, trainer.recipe, trainer.policy.chat)
    return {**first_tokens.skipped(rows, means.get("kl"), kl_of), **repeated}


def _inputs(policy: Policy, prompts: list[list[int]], group: list[Row]) -> Inputs:
    return collate(prompts, group, policy.chat.pad_id, policy.device, policy.layout.packed)


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


class _Sums:
    """Sums over the loss positions of a step; they stay on the device until they are read."""

    def __init__(self, device: torch.device):
        self.sums_6, self.tokens = torch.zeros(6, dtype=torch.float64, device=device), 0

    def add(self, group: GroupLoss) -> None:
        stats = group.stats
        reverse_N = stats.logprob_N - stats.teacher_logprob_N
        parts = (stats.loss_N.sum(), stats.kl_N.sum(), reverse_N.sum(), stats.entropy_N.sum(), group.logprob_gap)
        self.sums_6 += torch.stack((group.loss.detach(), *parts))
        self.tokens += len(stats.loss_N)

    def means(self, objective: StepObjective, on_policy: bool) -> Gradients:
        """The loss and the means by name. Sampled tokens estimate KL(student || teacher) only where the student wrote
        them."""
        loss, *sums = self.sums_6.tolist()
        divergence, kl, reverse_kl, entropy, gap = (x / max(1, self.tokens) for x in sums)
        means: StepFacts = {
            "divergence": divergence if objective.divergence else None,
            "kl": _known(kl),
            "reverse_kl": _known(reverse_kl) if on_policy else None,
            "entropy": entropy,
            "logprob_gap": gap if objective.samples_as_scored and self.tokens else None,
        }
        if objective.factors and self.tokens:
            means["factors"] = objective.means.read(self.tokens)
        return Gradients(loss, means)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
