"""The checkpointer of one stage: writes checkpoints that are due or worth keeping, prunes the others, picks the last.

What is worth keeping is decided in `checkpoint_retention`. Marks are read from the eval rows of the run's metrics, so a
resumed stage has them again; those of a stage's earlier phases do not count.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sdft_cli.errors import SdftError
from sdft_cli.runs.checkpoints import Checkpoint
from sdft_cli.runs.folder import Run
from sdft_cli.runs.records import EndingFacts, EvalRow, StageId
from sdft_cli.training.checkpoint_retention import Mark, Rule, best, better


class Checkpointer:
    """``begin`` is the step at which the stage's last phase begins; evaluations up to it leave no mark."""

    def __init__(self, run: Run, stage: StageId, begin: int):
        self.run, self.settings, self.stage, self.begin = run, run.recipe_of(stage).train, stage, begin
        self.checkpoints = run.checkpoints.of(stage)
        self.marks: list[Mark] = []
        self.judged_from = self._judged_from()
        for row in run.metrics.evals(stage):
            self.see(row)
        self.rule = Rule(self.settings.keep_checkpoints, self.settings.best != "off", self._floor())

    def _floor(self) -> float | None:
        """The lowest accuracy that the prior suite may fall to; the run's first evaluation is that of the base."""
        drop = self.settings.stop_if_prior_drops
        if drop is None:
            return None
        base = next(row["suite"]["accuracy"] for row in self.run.metrics.read().evals if row["suite"])
        if base is None:
            raise SdftError("train.stop_if_prior_drops: no item of the prior suite could be scored", "drop the setting")
        return base - drop - 1e-9  # a drop of exactly that much is allowed

    def _judged_from(self) -> int:
        """The step of this stage after which the run has had another judge, or one at all: accuracies by that one
        cannot be compared with those before. -1 where it has kept its judge."""
        changed = [row for row in self.run.metrics.read().settings if "judge.model" in row["changed"]]
        return max((row["step"] for row in changed if row["stage"] == self.stage.number), default=-1)

    def see(self, row: EvalRow) -> None:
        """Take notice of a mid-training evaluation."""
        if row["step"] > self.begin:
            score, suite = row["scores"][row["task"]], row["suite"]
            accuracy = score["accuracy"] if row["step"] > self.judged_from else None
            loss = score["loss"]["value"] if "loss" in score else None
            n = None if accuracy is None else score["n"]
            self.marks.append(Mark(row["step"], accuracy, suite["accuracy"] if suite else None, loss, n))

    def evaluated(self, step: int) -> bool:
        """Whether the evaluation after ``step`` is logged."""
        return any(row["step"] == step for row in self.run.metrics.evals(self.stage))

    def lost(self) -> bool:
        """Whether the newest evaluation found the prior suite below the floor."""
        return bool(self.marks) and not self.rule.holds(self.marks[-1])

    def keep(self, at: int, whole: Callable[[Path, Path], None], model: Callable[[Path], None], due: bool) -> None:
        """After step ``at``: a whole checkpoint if one is ``due``, else the model alone if its mark is worth it."""
        marks, latest = self.marks, self.run.checkpoints.latest()
        mark = marks[-1] if marks and marks[-1].step == at else None
        if latest and (latest.stage, latest.step) == (self.stage, at):
            pass  # the run was stopped after this step, and its state is kept
        elif due:
            self.checkpoints.write(at, whole)
        elif mark and self.rule.worth(mark, marks[:-1]):
            self.checkpoints.write_model(at, model)
        else:
            return
        steps = [c.step for c in self.checkpoints.all() if c.resumable and c.step <= at]
        self.checkpoints.prune(self.rule.kept(marks), self.rule.resumable(steps))

    def keep_stopped(self, at: int, whole: Callable[[Path, Path], None]) -> tuple[Checkpoint, Checkpoint | None]:
        """The state after step ``at``, where a guard or a signal stops the stage, and the checkpoint before it in this
        stage. The one before is not pruned: it may be from before a collapse."""
        before = self.run.checkpoints.latest()
        if before and (before.stage, before.step) == (self.stage, at):
            return before, None
        return self.checkpoints.write(at, whole), before if before and before.stage == self.stage else None

    def ending(self, at: int) -> Mark | None:
        """The mark whose model the stage ends with after step ``at``; None: the model that it began with."""
        return self.rule.ending(self.marks, self.settings.best == "use") if self.marks else Mark(at)

    def close(self, at: int, model: Callable[[Path], None]) -> Checkpoint:
        """The stage's final checkpoint; of the others only one that is better on validation rows is kept."""
        final = self.checkpoints.write(at, lambda folder, _: model(folder), stage_done=True)
        self.tidy(final)
        return final

    def tidy(self, final: Checkpoint) -> None:
        """Delete what a finished stage no longer needs; doing it twice changes nothing."""
        self.checkpoints.settle(final)
        self.checkpoints.prune({final.step, *(mark.step for mark in self._better())}, set())

    def _better(self) -> list[Mark]:
        """The best mark, if it is to be kept and better than the last."""
        top = best(self.marks) if self.rule.best else None
        return [top] if top and better(top, self.marks[-1]) else []

    def report(self, at: int) -> EndingFacts:
        """How the stage ends after step ``at``: with which step's model, why, and which evaluation was the best."""
        chosen, top = self.ending(at), best(self.marks)
        step = chosen.step if chosen else 0
        return {
            "model_of": step,
            "why": "last step" if step == at else "prior dropped" if self.lost() else "best validation",
            "best": top.record() if top else None,
            "last": self.marks[-1].record() if self.marks else None,
        }
