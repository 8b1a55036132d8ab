"""Completions that a teacher writes once, before a phase: ``rollouts/NN-<task>-<phase>.jsonl``, one per line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from sdft_cli.runs.files import write_whole
from sdft_cli.types import Rollout


@dataclass(frozen=True)
class StoredRollouts:
    """The teacher's completions of one phase, in the order in which they were sampled."""

    path: Path

    def read(self) -> list[Rollout] | None:
        """None where there are none yet."""
        if not self.path.is_file():
            return None
        return [Rollout(**json.loads(line)) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def write(self, rollouts: list[Rollout]) -> None:
        write_whole(self.path, "".join(json.dumps(asdict(r)) + "\n" for r in rollouts))
