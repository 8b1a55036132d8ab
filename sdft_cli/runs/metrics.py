"""``metrics.jsonl``: what training logs, one row per line, in the order in which it happened.

A run appends rows while it trains, so a reader must expect a last line that was cut off, and repeated steps where it
was resumed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sdft_cli.config import json_files
from sdft_cli.errors import UsageError
from sdft_cli.runs.files import naming, write_whole
from sdft_cli.runs.records import (
    At,
    EndingRow,
    EvalRow,
    GuardRow,
    MetricsRow,
    ModelFacts,
    SettingsRow,
    ShortScore,
    SkipFirstRow,
    StageId,
    StepRow,
)
from sdft_cli.types import Json


class LaterRow(At):
    """A row of a kind that only a later version knows."""

    kind: str


class Logged(NamedTuple):
    """Rows by kind, each list in the order of stages and steps; every row has its ``global_step``."""

    steps: list[StepRow]
    evals: list[EvalRow]
    endings: list[EndingRow]
    guards: list[GuardRow]
    settings: list[SettingsRow]
    skips: list[SkipFirstRow]


@dataclass(frozen=True)
class MetricsLog:
    """The log of one run; the file is created with the first row."""

    path: Path

    def append(self, row: MetricsRow) -> None:
        with naming(self.path), self.path.open("a", encoding="utf-8") as f:
            f.write(json.dumps(row) + "\n")

    def rewind(self, stage: StageId, step: int) -> None:
        """Drop the rows after ``step`` of ``stage``, which a resumed run writes again, and a last line that a kill cut
        off."""
        kept = [text for text, row in self._rows() if (row["stage"], row["step"]) <= (stage.number, step)]
        if self.path.is_file():
            write_whole(self.path, "".join(text.decode() + "\n" for text in kept))

    def read(self) -> Logged:
        """All rows; none where nothing was logged yet.

        A last line that a kill cut off is left out; `UsageError` names any other broken one. If two rows report on the
        same step (a run that was resumed before it), the last one counts.
        """
        kinds = ("step", "eval", "ending", "guard", "skip_first")
        rows: dict[str, dict[tuple[int, int, str], Json]] = {kind: {} for kind in kinds}
        settings: list[SettingsRow] = []
        for _, row in self._rows():
            if row["kind"] == "settings":
                settings.append(row)
            elif row["kind"] in rows:
                key = row["stage"], row["step"], row["guard"] if row["kind"] == "guard" else ""
                rows[row["kind"]][key] = {"global_step": row["step"], **row}
        steps, evals, endings, guards, skips = ([rows[kind][key] for key in sorted(rows[kind])] for kind in kinds)
        return Logged(steps, evals, endings, guards, settings, skips)

    def steps(self, stage: StageId, after: int = 0) -> list[StepRow]:
        """The step rows of ``stage`` after its step ``after``."""
        return [row for row in self.read().steps if row["stage"] == stage.number and row["step"] > after]

    def skip_first(self, stage: StageId, phase: int) -> int | None:
        """What ``objective.skip_first=auto`` came to in a ``phase`` of ``stage``; None where it has not begun."""
        chosen = [row for row in self.read().skips if (row["stage"], row.get("phase", 0)) == (stage.number, phase)]
        return chosen[-1]["skip_first"] if chosen else None

    def evals(self, stage: StageId) -> list[EvalRow]:
        """The mid-training evaluations of ``stage``."""
        return [row for row in self.read().evals if row["stage"] == stage.number]

    def _rows(self) -> Iterator[tuple[bytes, MetricsRow]]:
        """Every row, with its line."""
        if not json_files.exists(self.path):
            return
        hint = "restore it, or delete that line: only what reports show of that step is lost with it"
        torn = not json_files.content(self.path, hint).endswith(b"\n")
        lines = list(json_files.lines(self.path, hint))
        for number, text in lines:
            try:
                row: MetricsRow = json_files.parse(text, MetricsRow, f"{self.path}:{number}", hint, LaterRow)
            except UsageError:
                if torn and number == lines[-1].number:
                    return
                raise
            yield text, row

    def model(self) -> ModelFacts | None:
        """What was logged last about how the model is sampled and scored."""
        facts = None
        for _, row in self._rows():
            if row["kind"] == "model":
                facts = ModelFacts(sampling=row["sampling"], scoring=row["scoring"])
        return facts

    def notes(self) -> list[str]:
        """The texts of the notes that were recorded before the first step."""
        return [row["text"] for _, row in self._rows() if row["kind"] == "note"]


def validation(evals: Iterable[EvalRow], stages: int, endings: Iterable[EndingRow] = ()) -> tuple[float, int] | None:
    """Mean validation accuracy over ``stages`` stages, each on its own task at its end, and the items behind it.

    A stage's end is its last row of ``evals`` in the order logged or, where ``endings`` has it end with an earlier
    step's model, the row of that step. None where a stage has no such row, or none of its items could be scored.
    """
    scores = _at_ends(evals, stages, endings)
    accuracies = [score["accuracy"] for score in scores if score["accuracy"] is not None]
    if not accuracies or len(accuracies) < stages:
        return None
    return sum(accuracies) / stages, sum(score["n"] for score in scores)


def validation_loss(evals: Iterable[EvalRow], stages: int, endings: Iterable[EndingRow] = ()) -> float | None:
    """Mean validation loss over ``stages`` stages, in nats per token, each on its own task at its end; None where a
    stage has none."""
    losses = [score["loss"]["value"] for score in _at_ends(evals, stages, endings) if "loss" in score]
    return sum(losses) / stages if losses and len(losses) == stages else None


def _at_ends(evals: Iterable[EvalRow], stages: int, endings: Iterable[EndingRow]) -> list[ShortScore]:
    """The score of each stage on its own task at its end, of the stages that have one."""
    chosen = {row["stage"]: row["model_of"] for row in endings}
    counted = [row for row in evals if row["step"] == chosen.get(row["stage"], row["step"])]
    last = {row["stage"]: row["scores"].get(row["task"]) for row in counted}
    return [score for stage in range(1, stages + 1) if (score := last.get(stage))]
