"""Completions that a teacher writes once, before a phase: ``rollouts/NN-<task>-<phase>.jsonl``, one per line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NotRequired

from sdft_cli.config import json_files
from sdft_cli.errors import UsageError
from sdft_cli.runs.files import write_whole
from sdft_cli.types import Rollout

_FIELDS = tuple(field.name for field in fields(Rollout))


class _Row(json_files.Record):
    """A `Rollout` as it is written."""

    prompt_ids: list[json_files.Count]
    ids: list[json_files.Count]
    logprobs: list[json_files.Unbounded]
    finish: str
    index: NotRequired[json_files.Count]
    view: NotRequired[str]
    version: NotRequired[json_files.Count]


@dataclass(frozen=True)
class StoredRollouts:
    """The teacher's completions of one phase, in the order in which they were sampled."""

    path: Path

    def read(self, expected: int) -> list[Rollout] | None:
        """None where there are none yet; `UsageError` for a broken file, or one of not as many as ``expected``."""
        if not json_files.exists(self.path):
            return None
        hint = f"restore it, or delete {self.path}: the teacher then writes its completions again"
        rollouts = []
        for number, text in json_files.lines(self.path, hint):
            row: _Row = json_files.parse(text, _Row, f"{self.path}:{number}", hint)
            if len(row["ids"]) != len(row["logprobs"]):
                raise UsageError(f"{self.path}:{number}: logprobs: not as many as ids", hint)
            rollouts.append(Rollout(**{name: row[name] for name in _FIELDS if name in row}))  # type: ignore[literal-required]
        if len(rollouts) != expected:
            raise UsageError(f"{self.path}: {len(rollouts)} completions, and the phase needs {expected}", hint)
        return rollouts

    def write(self, rollouts: list[Rollout]) -> None:
        write_whole(self.path, "".join(json.dumps(asdict(r)) + "\n" for r in rollouts))
