"""Tasks of open answers made of the micro world's rows, and a judge on loopback whose verdicts depend on the answer."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from support.fault_server import Body, FaultServer, content, response_of
from typer.testing import CliRunner

from sdft_cli.cli.app import app

#: Rows of a task by split.
ROWS = {"train": 8, "validation": 3, "test": 5}


def sdft(*words: str, code: int = 0) -> str:
    """What `sdft` prints with these words; stdout alone with ``--json``."""
    done = CliRunner().invoke(app, list(words))
    if done.exception and not isinstance(done.exception, SystemExit):
        if not hasattr(done.exception, "code"):
            raise done.exception
        assert done.exception.code == code, done.exception
        return f"{done.output}error: {done.exception}\nhint: {done.exception.hint}"
    assert done.exit_code == code, done.output
    return done.stdout if "--json" in words else done.output


def prepare(micro_data: Path, folder: Path, names: Sequence[str] = ("one", "two"), columns: str = "") -> Path:
    """Prepared tasks called ``names``, in ``folder``; their answers are scored by a judge alone unless ``columns`` (the
    text of a columns file) says otherwise."""
    (folder / "columns.toml").write_text(columns or 'grader = "judge"\nmax_new_tokens = 4\n')
    for name, task in zip(names, ("micro-science", "micro-medical"), strict=False):
        words = ["prepare", "--data", str(folder / "data"), "--columns", f"{name}={folder / 'columns.toml'}"]
        for split, count in ROWS.items():
            rows = [json.loads(line) for line in (micro_data / task / f"{split}.jsonl").read_text().splitlines()]
            texts = [{"question": r["prompt"][-1]["content"], "answer": r["demonstration"]} for r in rows[:count]]
            file = folder / f"{name}-{split}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in texts))
            words += ["--source", f"{name}.{split}={file}"]
        sdft(*words)
    return folder / "data"


def verdict(body: Body) -> str:
    """CORRECT for about half of all responses."""
    return "CORRECT" if hashlib.sha256(response_of(body).encode()).digest()[0] % 2 else "INCORRECT"


def is_trial(body: Body) -> bool:
    """Whether this is the trivial question with which a judge is tried out."""
    return "What is two plus two?" in content(body)


def judging(server: FaultServer, model: str = "grader") -> list[str]:
    """The flags that name the judge on loopback."""
    return ["--judge", model, "--judge-base-url", server.url, "--judge-key-env", "NO_SUCH_KEY"]


def asked(server: FaultServer) -> Counter[str]:
    """How often each question was asked, trials left out."""
    return Counter(content(body) for body in server.requests if not is_trial(body))


def matrix(run: Path) -> dict[str, object]:
    """Everything that a run's evaluations hold, but for the time that they took."""
    found: dict[str, object] = {}
    for file in sorted((run / "evals").rglob("*.json*")):
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.suffix == ".jsonl" else None
        content = lines if lines is not None else json.loads(file.read_text())
        if isinstance(content, dict):
            content.pop("seconds", None)
        found[str(file.relative_to(run))] = content
    return found


def rows(run: Path, kind: str) -> list[dict]:
    """The rows of one kind in a run's metrics."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in lines if row["kind"] == kind]
