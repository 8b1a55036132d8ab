"""What learns in a phase: the passes of a step, the optimizer and the teacher. Under several ranks, each has its own.

A step's rows are all known to every rank; each passes its share of them, and sums are taken over the ranks before
anything is decided by them. So ranks decide alike, and how many there are changes nothing but rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from sdft_cli.config.recipe import Recipe
from sdft_cli.distributed.shards import Shards
from sdft_cli.distributed.team import team
from sdft_cli.errors import SdftError
from sdft_cli.losses.fused import Scored
from sdft_cli.models.batching import Inputs, Layout, Row, collate, group_rows, targets
from sdft_cli.models.policy import Policy, is_layer
from sdft_cli.models.protocols import CausalLM
from sdft_cli.runs.records import StepFacts
from sdft_cli.training import first_tokens, sharded_state
from sdft_cli.training.guards import NonFinite
from sdft_cli.training.micro_batches import MicroBatchBudget
from sdft_cli.training.objective import GroupLoss, StepObjective, needs_of
from sdft_cli.training.optimizer import MasterAdamW, learning_rate
from sdft_cli.training.sharded_teacher import make_sharded
from sdft_cli.training.teacher import TeacherModel, Weights, is_compressed, make_teacher
from sdft_cli.training.teacher_storage import choose_storage

Origin = Callable[[], Weights]


class Gradients(NamedTuple):
    """What a batch's passes leave besides the gradients: the loss, and means over its loss positions."""

    loss: float
    means: StepFacts


class Learner:
    """Student, optimizer and teacher of one phase of ``steps`` steps; ``origin`` loads the weights that the teacher
    starts from where it does not start from the student."""

    def __init__(self, policy: Policy, recipe: Recipe, steps: int, origin: Origin | None = None):
        self.policy, self.recipe, self.steps = policy, recipe, steps
        settings = choose_storage(policy, recipe) if "teacher" in needs_of(recipe.objective) else None
        self._found = 0.0
        self.shards = Shards(policy.core, is_layer) if team().size > 1 and not policy.lora else None
        self.core: Any = self.shards.core if self.shards else policy.core  # what training passes go through
        self.model: Any = self.shards.core if self.shards else policy.model  # with the adapters that it has
        watched = is_compressed(settings, policy.lora)
        self.optimizer = MasterAdamW(policy.model, recipe.train, watched, self.shards)
        self.budget = MicroBatchBudget(policy, recipe, self.optimizer.held, cast(CausalLM, self.core))
        exact = self.optimizer.exact()
        self.teacher: TeacherModel | None = None
        if settings and self.shards:
            self.teacher = make_sharded(policy, settings, origin, exact, self.shards)
        elif settings:
            self.teacher = make_teacher(policy, settings, origin, exact)

    # one step -----------------------------------------------------------------------------------------------

    def gradients(self, rows: list[Row], step: int, dropout: int) -> Gradients:
        """Leave the gradients of the whole batch, by micro-batches that fit."""
        found = self.budget.run(rows, lambda budget: self.passes(rows, step, budget, dropout), self.discard)
        self._found = found.loss  # by this rank
        return found

    def update(self, loss: float, step: int, rounding: int) -> StepFacts:
        """Optimizer step ``step`` (from 0) by the gradients that there are; then the teacher follows.

        Raises `NonFinite` where loss or gradient is not finite; weights, optimizer and teacher are then as before.
        """
        lr = learning_rate(self.recipe.train, step, self.steps)
        norm = self.optimizer.clip()
        _agree(step, self._found, norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.discard()
            self.make_whole()
            raise NonFinite(loss, norm)
        self.optimizer.step(lr, rounding, self.teacher.watcher(step + 1) if self.teacher else None)
        if self.teacher:
            self.teacher.update(step + 1, self.optimizer.exact())
        self.make_whole()
        return {"loss": loss, "lr": lr, "grad_norm": norm}

    def passes(self, rows: list[Row], step: int, budget: int, dropout: int) -> Gradients:
        """All passes of a step, by micro-batches of at most ``budget`` tokens.

        The teacher sees the whole batch first: its hidden states are kept (its logits never), so that its weights are
        needed once a step. Sums stay on the device until the end.
        """
        torch.manual_seed(dropout)
        groups, objective = _groups(rows, budget, self.policy.layout), StepObjective(self.recipe, step)
        if self.shards:
            self.shards.release()
        teachers = [self.teacher_score(group) if objective.asks_teacher else None for group in groups]
        sums = _Sums(self.policy.device)
        for group, teacher in zip(groups, teachers, strict=True):
            group_loss = self.loss(group, teacher, objective)
            group_loss.loss.backward()
            self.model.eval()
            sums.add(group_loss)
        self._collect()
        return sums.means(objective, on_policy=self.recipe.sampler.source == "student")

    def loss(self, group: list[Row], teacher: Scored | None, objective: StepObjective) -> GroupLoss:
        """The student's pass over one micro-batch, and its part of the loss."""
        inputs = _inputs(self.policy, [r.student_prompt for r in group], group)
        self.policy.train_mode(self.recipe.lora.dropout > 0, self.model)  # until the backward has remade its layers

        def forward() -> GroupLoss:
            student = Scored(self.policy.hidden_states(inputs, self.core), self.policy.head(self.core))
            return objective.loss(targets(group, self.policy.device), student, teacher)

        return self.shards.inside(forward) if self.shards else forward()

    def teacher_score(self, group: list[Row]) -> Scored | None:
        """The teacher's hidden states and head for one micro-batch; None without a teacher."""
        if self.teacher is None:
            return None
        return self.teacher.score(_inputs(self.policy, [r.teacher_prompt or [] for r in group], group))

    # looking ------------------------------------------------------------------------------------------------

    def kl_by_row(self, rows: list[Row], step: int, tokens: int) -> list[Tensor]:
        """`first_tokens.kl_by_row` of teacher and student as they are; every rank passes all rows."""
        if self.shards:
            self.shards.gather()
        objective = StepObjective(self.recipe, step)
        return first_tokens.kl_by_row(rows, self._sides, objective, tokens, self.policy.layout)

    def _sides(self, group: list[Row]) -> tuple[Scored, Scored]:
        teacher = self.teacher_score(group)
        assert teacher is not None, "whoever asks has a teacher"
        inputs = _inputs(self.policy, [r.student_prompt for r in group], group)
        return Scored(self.policy.hidden_states(inputs), self.policy.head()), teacher

    # several ranks ------------------------------------------------------------------------------------------

    def settle(self, recipe: Recipe) -> None:
        """From now on train by ``recipe``, of which no more than what it measured for itself has changed."""
        self.recipe = recipe

    def make_whole(self) -> None:
        """Give the model that is sampled and saved the weights that the shards have; passes free it."""
        if self.shards:
            self.shards.gather()

    def discard(self) -> None:
        """Clear all gradients."""
        self.optimizer.discard()
        if self.shards:
            self.shards.discard()

    def save(self, state: Path) -> dict[str, Any]:
        """Optimizer and teacher, to be written by the caller; where they lie in shards, all ranks write them into the
        folder ``state``."""
        if self.shards:
            return {"steps": sharded_state.write(self, state)}
        teacher = self.teacher.state_dict() if self.teacher else None
        return {"optimizer": self.optimizer.state_dict(), "teacher": teacher}

    def restore(self, state: Path) -> None:
        """What `save` left, with as many ranks or others; `ValueError` where it is of another model or optimizer."""
        saved = torch.load(state / "state.pt", map_location="cpu", weights_only=True)
        if "steps" in saved:
            sharded_state.read(self, state, saved["steps"])
        elif self.shards:
            sharded_state.take(self, saved["optimizer"], saved["teacher"])
        else:
            self.optimizer.load_state_dict(saved["optimizer"])
            if self.teacher:
                self.teacher.load_state_dict(saved["teacher"])
        self.make_whole()  # the optimizer's weights are the exact ones

    def _collect(self) -> None:
        """The gradients of all ranks, where the optimizer looks for them."""
        if self.shards:
            self.shards.take_gradients()
        elif team().size > 1:
            _sum_gradients(list(self.optimizer.params.values()))

    def close(self) -> None:
        """Free the teacher."""
        if self.teacher:
            self.teacher.close()


def _groups(rows: list[Row], budget: int, layout: Layout) -> list[list[Row]]:
    """This rank's micro-batches: as many on every rank, as each pass is one of all. Where a rank has fewer, it
    passes a row without a loss position."""
    ranks = team()
    shares = [group_rows(rows[rank :: ranks.size], budget, layout) for rank in range(ranks.size)]
    mine, most = shares[ranks.rank], max(map(len, shares))
    if ranks.size > 1 and len(mine) < most:
        spare = min((row for share in shares for group in share for row in group), key=lambda row: row.length)
        silent = Row(spare.student_prompt, spare.completion, [0.0] * len(spare.weights), spare.teacher_prompt)
        mine = mine + [[silent]] * (most - len(mine))
    return mine


def _inputs(policy: Policy, prompts: list[list[int]], group: list[Row]) -> Inputs:
    return collate(prompts, group, policy.chat.pad_id, policy.device, policy.layout.packed)


def _total(value: Tensor) -> Tensor:
    """The sum of ``value`` over the ranks, in place."""
    if team().size > 1:
        torch.distributed.all_reduce(value)
    return value


def _agree(*numbers: float) -> None:
    """`SdftError` unless all ranks have the same ``numbers``: had one left out a collective, the others would have
    paired with its next one, and gone on with wrong sums."""
    if team().size == 1:
        return
    mine = torch.tensor([-1e300 if math.isnan(number) else number for number in numbers], dtype=torch.float64)
    low_high = torch.stack((mine, -mine))
    torch.distributed.all_reduce(low_high, torch.distributed.ReduceOp.MIN)
    if not bool((low_high[0] == -low_high[1]).all()):
        raise SdftError(
            f"the ranks have come to different steps, losses or norms ({', '.join(map(str, numbers))} on rank"
            f" {team().rank})",
            "go on from the last checkpoint; if it happens again, please report it",
        )


def _sum_gradients(params: list[torch.nn.Parameter]) -> None:
    """Adapters are small: one sum of all of them."""
    for param in params:  # one rank's rows may have passed an expert that another's have not
        param.grad = torch.zeros_like(param) if param.grad is None else param.grad
    gradients = [param.grad for param in params if param.grad is not None]
    flat = _total(torch.cat([grad.reshape(-1).float() for grad in gradients]))
    for grad, part in zip(gradients, flat.split([grad.numel() for grad in gradients]), strict=True):
        grad.copy_(part.view_as(grad))


def _sum_by_name(sums: dict[str, Tensor]) -> dict[str, Tensor]:
    """Over the ranks, of which one that had no row has no names."""
    ranks = team()
    total: dict[str, float] = {}
    for part in ranks.gather([{name: float(value) for name, value in sums.items()}], ranks.size):
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in total.items()}


class _Sums:
    """Sums over the loss positions of a step; they stay on the device until they are read."""

    def __init__(self, device: torch.device):
        self.sums_7 = torch.zeros(7, dtype=torch.float64, device=device)

    def add(self, group: GroupLoss) -> None:
        stats = group.stats
        reverse_N = stats.logprob_N - stats.teacher_logprob_N
        parts = (stats.loss_N.sum(), stats.kl_N.sum(), reverse_N.sum(), stats.entropy_N.sum(), group.logprob_gap)
        self.sums_7 += torch.stack((group.loss.detach(), *parts, group.loss.new_tensor(len(stats.loss_N))))

    def means(self, objective: StepObjective, on_policy: bool) -> Gradients:
        """The loss and the means by name. Sampled tokens estimate KL(student || teacher) only where the student wrote
        them."""
        loss, *sums, count = _total(self.sums_7).tolist()
        tokens = round(count)
        divergence, kl, reverse_kl, entropy, gap = (x / max(1, tokens) for x in sums)
        means: StepFacts = {
            "divergence": divergence if objective.divergence else None,
            "kl": _known(kl),
            "reverse_kl": _known(reverse_kl) if on_policy else None,
            "entropy": entropy,
            "logprob_gap": gap if objective.samples_as_scored and tokens else None,
        }
        if objective.factors and tokens:
            objective.means.sums = _sum_by_name(objective.means.sums)
            means["factors"] = objective.means.read(tokens)
        return Gradients(loss, means)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
