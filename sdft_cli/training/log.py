"""The training log: every row goes to ``metrics.jsonl`` and to the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from sdft_cli.runs.metrics import MetricsLog
from sdft_cli.runs.records import (
    EndingFacts,
    EndingRow,
    EvalFacts,
    EvalRow,
    GuardFacts,
    GuardRow,
    Position,
    StageId,
    StepFacts,
    StepRow,
    TrainingAt,
)
from sdft_cli.training.display import TrainingDisplay
from sdft_cli.training.preflight import StagePlan


class TrainingLog:
    """``plans`` are those of all stages of the run: global steps count on from stage to stage."""

    def __init__(self, metrics: MetricsLog, plans: Sequence[StagePlan], display: TrainingDisplay):
        self.metrics, self.plans, self.display = metrics, plans, display

    def start_stage(self, stage: StageId) -> None:
        self.display.start_stage(stage, len(self.plans), self.plans[stage.number - 1].steps)

    def step(self, at: Position, facts: StepFacts) -> None:
        row: StepRow = {"kind": "step", **self._at(at), **facts}
        self.metrics.append(row)
        self.display.step(row)
        if "memory" in facts:
            self.display.note(facts["memory"])

    def eval(self, at: Position, facts: EvalFacts) -> EvalRow:
        row: EvalRow = {"kind": "eval", **self._at(at), **facts}
        self.metrics.append(row)
        self.display.eval(row)
        return row

    def guard(self, at: Position, facts: GuardFacts) -> None:
        row: GuardRow = {"kind": "guard", **self._at(at), **facts}
        self.metrics.append(row)
        self.display.guard(row)

    def ending(self, at: Position, facts: EndingFacts) -> None:
        row: EndingRow = {"kind": "ending", **self._at(at), **facts}
        self.metrics.append(row)
        self.display.ending(row)

    def _at(self, at: Position) -> TrainingAt:
        before = sum(plan.steps for plan in self.plans[: at.stage.number - 1])
        return {
            "stage": at.stage.number,
            "task": at.stage.task,
            "step": at.step,
            "phase": at.phase,
            "global_step": before + at.step,
        }
