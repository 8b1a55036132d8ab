"""The training log: every row goes to ``metrics.jsonl`` and to the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from sdft_cli.runs.metrics import MetricsLog
from sdft_cli.runs.records import (
    BASE,
    EndingFacts,
    EndingRow,
    EvalFacts,
    EvalRow,
    GuardFacts,
    GuardRow,
    ModelFacts,
    ModelRow,
    Position,
    SkipFirstRow,
    StageId,
    StepFacts,
    StepRow,
    TrainingAt,
)
from sdft_cli.runs.token_records import SkipFirstFacts
from sdft_cli.training import first_tokens
from sdft_cli.training.display import TrainingDisplay
from sdft_cli.training.preflight import StagePlan


class TrainingLog:
    """``plans`` are those of all stages of the run: global steps count on from stage to stage."""

    def __init__(self, metrics: MetricsLog, plans: Sequence[StagePlan], display: TrainingDisplay):
        self.metrics, self.plans, self.display = metrics, plans, display
        self.begins = self._begins()
        self.said: ModelFacts | None = None

    def _begins(self) -> list[int]:
        """The global steps before each stage: as logged, where a stage has begun. The rows of a finished stage may have
        changed since, and its plan with them."""
        begins, begin, logged = [], 0, self.metrics.read().steps
        for number, plan in enumerate(self.plans, 1):
            rows = [row for row in logged if row["stage"] == number]
            begin = rows[0]["global_step"] - rows[0]["step"] if rows else begin
            begins.append(begin)
            begin += max([plan.steps, *(row["step"] for row in rows)])
        return begins

    def notes(self, texts: Sequence[str]) -> None:
        """What to know of the run before its first step: shown once in every process, recorded once."""
        recorded = set(self.metrics.notes())
        for text in texts:
            self.display.note(f"note: {text}")
            if text not in recorded:
                self.metrics.append({"kind": "note", "stage": BASE.number, "task": BASE.task, "step": 0, "text": text})

    def start_stage(self, stage: StageId) -> None:
        self.display.start_stage(stage, len(self.plans), self.plans[stage.number - 1].steps)

    def model(self, at: Position, facts: ModelFacts) -> None:
        """How the model is sampled and scored from here on: logged where it differs from what was logged last (a
        resumed run may have another machine), on the terminal once besides."""
        if facts != self.metrics.model():
            row: ModelRow = {"kind": "model", **self._at(at), **facts}
            self.metrics.append(row)
        if facts != self.said:
            self.display.note(f"sampling: {facts['sampling']}")
            self.display.note(f"scoring: {facts['scoring']}")
        self.said = facts

    def skip_first(self, at: Position, facts: SkipFirstFacts) -> None:
        row: SkipFirstRow = {"kind": "skip_first", **self._at(at), **facts}
        self.metrics.append(row)
        self.display.note(first_tokens.in_words(facts, "second_phase." if at.phase else ""))

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
        return {
            "stage": at.stage.number,
            "task": at.stage.task,
            "step": at.step,
            "phase": at.phase,
            "global_step": self.begins[at.stage.number - 1] + at.step,
        }
