"""The steps of one phase of a stage: train, log, evaluate, look at the guards, save."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from signal import Signals
from typing import NoReturn

from sdft_cli.config.recipe import Train
from sdft_cli.errors import SdftError
from sdft_cli.runs.records import EvalRow, GuardFacts, Position
from sdft_cli.runs.signals import Held, Stopped
from sdft_cli.training.checkpoint_schedule import Checkpointer
from sdft_cli.training.guards import Guards, NonFinite
from sdft_cli.training.log import TrainingLog
from sdft_cli.training.trainer import PhaseTrainer


class Schedule:
    """When a stage of ``steps`` steps is evaluated and saved."""

    def __init__(self, train: Train, steps: int):
        self.evals, self.saves, self.steps = train.eval_every, train.checkpoint_every, steps

    def evaluates(self, step: int) -> bool:
        """After every ``eval_every`` steps, and at the end of a stage that is evaluated at all."""
        return bool(self.evals) and (step == self.steps or step % self.evals == 0)

    def saves_state(self, step: int) -> bool:
        return bool(self.saves) and step % self.saves == 0

    def pauses(self, step: int) -> bool:
        """Whether an evaluation uses the engine, or the state is saved, between this step and the next."""
        return self.saves_state(step) or (bool(self.evals) and step % self.evals == 0)


class PhaseLoop:
    """The loop of one phase, which begins after step ``begin`` of the stage. ``evaluate`` runs and logs a mid-training
    evaluation. A ``stop`` that is asked for is heeded once the step is done; evaluations are cut short by it."""

    def __init__(
        self,
        trainer: PhaseTrainer,
        guards: Guards,
        checkpointer: Checkpointer,
        log: TrainingLog,
        schedule: Schedule,
        begin: int,
        evaluate: Callable[[Position], EvalRow],
        stop: Held,
    ):
        self.trainer, self.guards, self.checkpointer, self.log = trainer, guards, checkpointer, log
        self.schedule, self.begin, self.evaluate, self.stop = schedule, begin, evaluate, stop

    def run(self, at: Position) -> Position:
        """From ``at`` to the end of the phase, or to where the prior suite is lost; returns where that is.

        Raises `SdftError` where a guard stops the run, and `Stopped` where a signal does; the state is then saved.
        """
        self._catch_up(at)
        while at.step < self.begin + self.trainer.steps and not self.checkpointer.lost():
            self._heed_stop(at)
            at = at._replace(step=at.step + 1)
            self._step(at)
            if at.step < self.schedule.steps and not self.checkpointer.lost():
                self._save(at.step)
        self._heed_stop(at)
        return at

    def _catch_up(self, at: Position) -> None:
        """The evaluation of the step that the run is resumed after, if a stop cut it short."""
        if at.step and self.schedule.evaluates(at.step) and not self.checkpointer.evaluated(at.step):
            before = at.step == self.begin and at.phase > 0  # that step was the last of the phase before
            self._evaluate(at._replace(phase=at.phase - before))
            if at.step < self.schedule.steps and not self.checkpointer.lost():
                self._save(at.step)

    def _step(self, at: Position) -> None:
        try:
            facts = self.trainer.step(at.step - self.begin - 1)
        except NonFinite as error:
            self._heed(self.guards.look(error.facts), at, trained=at.step - 1)
            raise
        self.log.step(at, facts)
        if self.schedule.evaluates(at.step):
            self._evaluate(at)
        self._heed(self.guards.look(facts), at, trained=at.step)

    def _evaluate(self, at: Position) -> None:
        """Evaluate, unless a stop is asked for: then it is left to the resumed run."""
        try:
            with self.stop.exposing():
                row = self.evaluate(at)
                self.checkpointer.see(row)
                self.guards.evaluated(row["scores"].get(at.stage.task))
        except KeyboardInterrupt:
            if self.stop.number is None:
                raise

    def _heed_stop(self, at: Position) -> None:
        if self.stop.number is not None:
            save_stopped(at, self.stop, self.checkpointer, self.trainer.save)

    def _save(self, step: int) -> None:
        due = self.schedule.saves_state(step) and self.trainer.may_save(step - self.begin)
        self.checkpointer.keep(step, self.trainer.save, self.trainer.save_model, due)

    def _heed(self, findings: list[GuardFacts], at: Position, trained: int) -> None:
        """Log the findings of a step. On a stop, save the state after the ``trained`` steps and raise `SdftError`."""
        stop = next((finding for finding in findings if finding["level"] == "stop"), None)
        saved = self.checkpointer.keep_stopped(trained, self.trainer.save) if stop else None
        for finding in findings:
            self.log.guard(at, finding)
        if stop and saved:
            checkpoint, before = saved
            where = f"stage {at.stage.number} ({at.stage.task}) at step {at.step}"
            back = f" (or from {before.folder.name}, once you have removed {checkpoint.folder.name})" if before else ""
            raise SdftError(
                f"{stop['guard']} stopped {where}: {stop['text']}; state saved in {checkpoint.folder}",
                f"{stop['hint']}; --resume goes on from there{back}, with other settings by --set",
            )


def save_stopped(at: Position, stop: Held, checkpointer: Checkpointer, whole: Callable[[Path, Path], None]) -> NoReturn:
    """Save the state after the step ``at``, where a signal stops the run, and raise `Stopped`."""
    if at.step == 0 or stop.number is None:
        raise KeyboardInterrupt  # nothing is trained yet
    checkpoint, _ = checkpointer.keep_stopped(at.step, whole)
    where = f"stage {at.stage.number} ({at.stage.task}), step {at.step}"
    name = Signals(stop.number).name
    raise Stopped(stop.number, f"stopped by {name} at {where}: state saved in {checkpoint.folder}")
