"""The checkpointer of one stage's checkpoints: writes those that are due or worth it, prunes the rest, picks the last.

What is worth keeping is `retention`'s business. Marks are read from the probe rows in the run's metrics, so a resumed
stage knows them; those of a stage's earlier phases do not count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdft_cli.config.recipe import Train
from sdft_cli.runs.folder import Checkpoint, Run
from sdft_cli.training.retention import Mark, Rule, best


class Checkpointer:
    """``begin`` is the step at which the stage's last phase begins; probes up to it leave no mark."""

    def __init__(self, run: Run, settings: Train, stage: int, task: str, begin: int):
        self.run, self.settings, self.stage, self.task, self.begin = run, settings, stage, task, begin
        self.marks: list[Mark] = []
        for row in run.rows("eval", stage):
            self.see(row)
        self.rule = Rule(settings.keep_checkpoints, settings.best != "off", self._floor())

    def _floor(self) -> float | None:
        """The least that the prior suite may be at; the run's first probe is that of the base."""
        drop = self.settings.stop_if_prior_drops
        if drop is None:
            return None
        first = next(row["suite"]["accuracy"] for row in self.run.rows("eval"))
        return float(first) - drop - 1e-9  # a drop of just so much is none

    def see(self, row: dict[str, Any]) -> None:
        """Take notice of a probe's row."""
        if row["step"] > self.begin:
            own, suite = row["scores"][row["task"]], row["suite"]
            self.marks.append(Mark(row["step"], own["accuracy"], suite["accuracy"] if suite else None))

    def lost(self) -> bool:
        """Whether the newest probe found the prior suite below the floor."""
        return bool(self.marks) and not self.rule.holds(self.marks[-1])

    def keep(self, at: int, whole: Callable[[Path, Path], None], model: Callable[[Path], None], due: bool) -> None:
        """After step ``at``: a whole checkpoint if one is ``due``, else the model alone if its mark is worth it."""
        marks = self.marks
        mark = marks[-1] if marks and marks[-1].step == at else None
        if due:
            self.run.write_checkpoint(self.stage, self.task, at, whole)
        elif mark and self.rule.worth(mark, marks[:-1]):
            self.run.write_model(self.stage, self.task, at, model)
        else:
            return
        steps = [c.step for c in self.run.checkpoints(self.stage, self.task) if c.resumable and c.step <= at]
        self.run.prune(self.stage, self.task, self.rule.kept(marks), self.rule.resumable(steps))

    def ending(self, at: int) -> Mark | None:
        """The mark whose model the stage ends with after step ``at``; None: the model that it began with."""
        return self.rule.ending(self.marks, self.settings.best == "use") if self.marks else Mark(at)

    def model_at(self, mark: Mark) -> Path:
        """Where the model of an earlier mark lies."""
        (found,) = [c for c in self.run.checkpoints(self.stage, self.task) if c.step == mark.step]
        return found.model

    def close(self, at: int, model: Callable[[Path], None]) -> Checkpoint:
        """The stage's final checkpoint; of the others only one stays that did better on validation."""
        final = self.run.write_checkpoint(self.stage, self.task, at, lambda folder, _: model(folder), stage_done=True)
        self.tidy(final)
        return final

    def tidy(self, final: Checkpoint) -> None:
        """Leave what is to stay of a stage that is done; a second time changes nothing."""
        self.run.settle(final)
        self.run.prune(self.stage, self.task, {final.step, *(mark.step for mark in self._better())}, set())

    def _better(self) -> list[Mark]:
        """The best mark, if it is to be kept and better than the last."""
        top = best(self.marks) if self.rule.best else None
        last = self.marks[-1].validation if self.marks else None
        return [top] if top and top.validation is not None and last is not None and top.validation > last else []

    def story(self, at: int) -> dict[str, Any]:
        """What is reported of the stage's end: whose model it is (step 0: the one it began with), why, and the best."""
        chosen, top = self.ending(at), best(self.marks)
        step = chosen.step if chosen else 0
        why = "last step" if step == at else "prior dropped" if self.lost() else "best validation"
        last = asdict(self.marks[-1]) if self.marks else None
        return {"model_of": step, "why": why, "best": asdict(top) if top else None, "last": last}
