"""Ledger: the requests and the money of several processes, counted in one file, so that a limit holds for all of them.

Every line is a JSON object that adds to the sums: a request with its worst case when it is sent, the difference when
its response has come. So a request that a kill cut off stays counted at its worst. Lines are appended whole; several
processes may write at once. A last line that a power cut has torn is left out.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from sdft_cli.runs.files import naming


class Spent(NamedTuple):
    """Requests that were sent, and what they have cost at most, in the currency of the prices."""

    requests: int = 0
    cost: float = 0.0


class Ledger:
    """The sums in the file at ``path``, which need not exist; `OSError` names it if it cannot be written."""

    def __init__(self, path: Path):
        self.path, self.read_to, self.sums = path, 0, Spent()
        self.begun = False

    def spent(self) -> Spent:
        """The sums by now; lines are read once."""
        if not self.path.is_file():
            return self.sums
        with self.path.open("rb") as file:
            file.seek(self.read_to)
            whole = file.read().rpartition(b"\n")[0]
        for line in whole.splitlines():
            self.sums = _added(self.sums, line)
        self.read_to += len(whole) + 1 if whole else 0
        return self.sums

    def add(self, requests: int, cost: float) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"requests": requests, "cost": cost}) + "\n"
        if not self.begun and self.path.is_file() and not self.path.read_bytes().endswith(b"\n"):
            line = "\n" + line  # the one before is torn
        self.begun = True
        with naming(self.path):
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(file, line.encode())
            finally:
                os.close(file)


def _added(sums: Spent, line: bytes) -> Spent:
    """The sums with one line; a torn one, which another was then appended to, adds nothing."""
    try:
        row = json.loads(line)
        return Spent(sums.requests + int(row["requests"]), sums.cost + float(row["cost"]))
    except (ValueError, KeyError, TypeError):
        return sums
