"""``metrics.jsonl``: what training logs, one row per line, in the order in which it happened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdft_cli.runs.files import write_whole
from sdft_cli.runs.records import EvalRow, MetricsRow, StageId, StepRow


@dataclass(frozen=True)
class MetricsLog:
    """The log of one run; the file comes with the first row."""

    path: Path

    def append(self, row: MetricsRow) -> None:
        with self.path.open("a", encoding="utf-8") as f:
            f.write(json.dumps(row) + "\n")

    def rewind(self, stage: StageId, step: int) -> None:
        """Drop the rows after ``step`` of ``stage``, which a resumed run writes again, and lines cut off by a kill."""
        kept = []
        for line in self._lines():
            try:
                row: MetricsRow = json.loads(line)
            except json.JSONDecodeError:
                continue
            if (row["stage"], row["step"]) <= (stage.number, step):
                kept.append(line)
        if self.path.is_file():
            write_whole(self.path, "".join(line + "\n" for line in kept))

    def steps(self, stage: StageId | None = None, after: int = -1) -> list[StepRow]:
        """The step rows of the run, or those of ``stage`` after its step ``after``."""
        rows = [row for row in self._rows() if row["kind"] == "step"]
        return rows if stage is None else [r for r in rows if r["stage"] == stage.number and r["step"] > after]

    def evals(self, stage: StageId | None = None) -> list[EvalRow]:
        """The rows of mid-training evaluations of the run, or of ``stage``."""
        rows = [row for row in self._rows() if row["kind"] == "eval"]
        return rows if stage is None else [row for row in rows if row["stage"] == stage.number]

    def _rows(self) -> Iterator[MetricsRow]:
        for line in self._lines():
            row: MetricsRow = json.loads(line)
            yield row

    def _lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
