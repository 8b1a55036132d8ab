"""One stage of a run, trained to its end: its phases in order, then the model that it ends with."""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from signal import Signals

from sdft_cli.evaluation.stage_evaluator import StageEvaluator
from sdft_cli.models import saving
from sdft_cli.models.engine import Engine, described
from sdft_cli.models.merging import merge
from sdft_cli.runs import signals
from sdft_cli.runs.checkpoints import Checkpoint
from sdft_cli.runs.folder import Run
from sdft_cli.runs.records import EvalRow, ModelFacts, Position, ShortScore, StageId
from sdft_cli.runs.signals import Held
from sdft_cli.training.batches import Batches
from sdft_cli.training.checkpoint_schedule import Checkpointer
from sdft_cli.training.guards import Guards
from sdft_cli.training.log import TrainingLog
from sdft_cli.training.phase_loop import PhaseLoop, Schedule, save_stopped
from sdft_cli.training.preflight import StagePlan
from sdft_cli.training.stage_start import StageStart, load_engine, load_policy
from sdft_cli.training.trainer import build_trainer
from sdft_cli.types import Rollout


class StageTrainer:
    """Trains ``stage`` of ``run``, from the start or from the checkpoint that the run folder has of it."""

    def __init__(self, run: Run, stage: StageId, plan: StagePlan, log: TrainingLog, evaluator: StageEvaluator):
        self.run, self.recipe, self.stage, self.plan = run, run.recipe_of(stage), stage, plan
        self.log, self.evaluator = log, evaluator
        self.start, self.schedule = StageStart(run, stage), Schedule(self.recipe.train, plan.steps)

    def finished(self) -> Checkpoint | None:
        """The final checkpoint of a stage that is done; deletes what a kill may have left beside it."""
        final = self.run.checkpoints.of(self.stage).finished()
        if final:
            self._checkpointer().tidy(final)
        return final

    def train(self) -> Checkpoint:
        """Train to the end of the stage; returns its final checkpoint. If that has the weights at hand, the stage is
        measured too, which saves loading them again.

        Raises `SdftError` where a guard stops the run, and `Stopped` where a signal does; the state is then saved.
        """
        resumed = self.start.checkpoint()
        engine = load_engine(self.recipe, str(resumed.model) if resumed else self.start.model())
        policy, whole = engine.policy, not engine.policy.lora or self.recipe.lora.merge == "stage"
        saving.check(policy.core, policy.chat, policy.peft, self.recipe.model, whole)
        if resumed:
            self.log.display.note(f"resumed at stage {self.stage.number}, step {resumed.step}")
        self.run.metrics.rewind(self.stage, resumed.step if resumed else -1)
        self.log.start_stage(self.stage)
        facts = ModelFacts(sampling=described(engine), scoring=engine.policy.scoring.text)
        self.log.model(self._position(resumed.step if resumed else 0), facts)
        if self.recipe.train.eval_every and self.stage.number == 1 and resumed is None:
            self._evaluate(engine, Position(self.stage, 0, 0))
        checkpointer = self._checkpointer()  # it reads the evaluations logged so far
        with signals.held(self._announce) as stop:  # until the stage's model is saved
            at = self._phases(engine, resumed, checkpointer, stop)
            final, measurable = self._close(at, engine, checkpointer)
        if measurable:
            self.log.display.scores(self.evaluator.measure(engine, self.stage))
        engine.close()
        return final

    def _announce(self, signal: Signals) -> None:
        again = "press Ctrl-C again" if signal == Signals.SIGINT else "send it again"
        self.log.display.note(f"{signal.name}: finishing this step, then saving; {again} to stop at once")

    def _position(self, step: int) -> Position:
        """Where training goes on after ``step`` steps of the stage."""
        ends = list(accumulate(batches.steps for batches in self.plan.phases))
        return Position(self.stage, sum(end <= step for end in ends[:-1]), step)

    def _checkpointer(self) -> Checkpointer:
        return Checkpointer(self.run, self.stage, self.plan.steps - self.plan.phases[-1].steps)

    def _phases(self, engine: Engine, resumed: Checkpoint | None, checkpointer: Checkpointer, stop: Held) -> Position:
        """Train every phase that is not done; returns where the stage ends."""
        at, end = Position(self.stage, 0, resumed.step if resumed else 0), 0
        for phase, batches in enumerate(self.plan.phases):
            begin, end = end, end + batches.steps
            # a stage that a guard stopped at its very last step still has to be closed
            if at.step < end or end == self.plan.steps:
                at = at._replace(phase=phase)
                try:
                    with stop.exposing():  # its teacher may load, or write, for long
                        loop = self._loop(at, begin, engine, resumed, checkpointer, stop)
                except KeyboardInterrupt:
                    save_stopped(at, stop, checkpointer, lambda model, _: engine.policy.save(model))
                    raise
                at = loop.run(at)
                loop.trainer.close()
        return at

    def _loop(
        self,
        at: Position,
        begin: int,
        engine: Engine,
        resumed: Checkpoint | None,
        checkpointer: Checkpointer,
        stop: Held,
    ) -> PhaseLoop:
        """The loop of a phase that begins at step ``begin`` of the stage, as it stands ``at`` a step of that phase."""
        batches = self.plan.phases[at.phase]
        teacher = batches.recipe.teacher.start if batches.recipe.teacher else "student"
        trainer = build_trainer(
            engine.policy,
            engine,
            batches,
            stored=self._rollouts(at.phase, batches, engine),
            origin=self.start.teacher_origin(teacher),
            quiet=lambda steps: self.schedule.pauses(begin + steps),
            looks=lambda step: step == 0 or self.schedule.evaluates(begin + step + 1),
            skip_first=self.run.metrics.skip_first(self.stage, at.phase),
        )
        if trainer.chosen:
            self.log.skip_first(at, trainer.chosen)
        if resumed and at.step > begin:
            trainer.restore(resumed.state)
        vocabulary = engine.policy.head().weight.shape[0]
        table, start = "second_phase." if at.phase else "", self._score_before(begin)
        guards = Guards(batches.recipe, batches.demonstrations(), table, vocabulary, batches.steps, start)
        scores = {row["step"]: row["scores"].get(self.stage.task) for row in self.run.metrics.evals(self.stage)}
        for row in self.run.metrics.steps(self.stage, after=begin):
            guards.evaluated(scores.get(row["step"]))
            guards.look(row)  # what they had seen at the checkpoint; later rows have been dropped
        evaluate = partial(self._evaluate, engine)
        return PhaseLoop(trainer, guards, checkpointer, self.log, self.schedule, begin, evaluate, stop)

    def _score_before(self, begin: int) -> ShortScore | None:
        """The stage's task as it was last evaluated up to step ``begin`` of the stage, in mid-training or before."""
        evals = self.run.metrics.read().evals
        before = [row for row in evals if (row["stage"], row["step"]) <= (self.stage.number, begin)]
        return before[-1]["scores"].get(self.stage.task) if before else None

    def _rollouts(self, phase: int, batches: Batches, engine: Engine) -> list[Rollout]:
        """The completions of a teacher that writes once, before the phase; stored before they are used."""
        if batches.recipe.sampler.source != "teacher":
            return []
        stored = self.run.rollouts(self.stage, phase)
        rollouts = stored.read(len(batches.examples) * batches.recipe.sampler.n)
        if rollouts is None:
            rollouts = batches.write_once(engine)
            stored.write(rollouts)
        return rollouts

    def _evaluate(self, engine: Engine, at: Position) -> EvalRow:
        return self.log.eval(at, self.evaluator.quick(engine))

    def _close(self, at: Position, engine: Engine, checkpointer: Checkpointer) -> tuple[Checkpoint, bool]:
        """Write the final checkpoint: the weights as they are, an earlier step's, or those the stage began with; with
        ``lora.merge`` a whole model. True: its weights are those that the engine has; those of a merged model have been
        rounded, and are measured as they are on disk."""
        if checkpointer.marks:
            self.log.ending(at, checkpointer.report(at.step))
        chosen = checkpointer.ending(at.step)
        merges = self.recipe.lora.merge == "stage"
        if chosen and chosen.step == at.step:
            return checkpointer.close(at.step, (merge(engine.policy) if merges else engine.policy).save), not merges
        model = str(checkpointer.checkpoints.at(chosen.step).model) if chosen else self.start.model()
        policy = load_policy(self.recipe, model)
        return checkpointer.close(at.step, (merge(policy) if merges else policy).save), False
