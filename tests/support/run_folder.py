"""Make a small run folder like the ones `sdft train` writes, from given success rates; for tests only.

Every number in it follows from item values that are drawn here, so a test can compute what it expects.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdft_cli.runs.format_version import write_format
from sdft_cli.stats.intervals import stratified, wilson

TASKS = ("micro-tooluse", "micro-science", "micro-medical")
PARTS = ("repeat", "reverse", "recall")
#: The settings of every evaluation in it.
SETTINGS = {"view": "prompt", "template": "0" * 16, "shots": 0, "decoding": "greedy", "limit": None}
#: Success rates [stage][task] and, for the prior suite, [stage]: a method that keeps skills, and one that forgets.
KEEPS = ([[0.1, 0.3, 0.05], [0.95, 0.3, 0.05], [0.9, 0.93, 0.1], [0.88, 0.9, 0.97]], [0.97, 0.96, 0.95, 0.94])
FORGETS = ([[0.1, 0.3, 0.05], [0.96, 0.25, 0.0], [0.3, 0.95, 0.05], [0.1, 0.2, 0.98]], [0.97, 0.7, 0.4, 0.2])


def make_run(
    folder: Path,
    method: str = "sdft",
    rates: tuple[Sequence[Sequence[float]], Sequence[float]] = KEEPS,
    stages: Sequence[str] = TASKS,
    evaluated: int | None = None,
    items: int = 40,
    seed: int = 0,
    steps: int = 100,
    suite: bool = True,
) -> Path:
    """Write a run of ``stages`` with ``evaluated`` of them done; ``rates`` are those of the tasks and of the suite."""
    rng = random.Random(f"{method} {seed}")
    tasks = list(dict.fromkeys(stages))
    recipe = {
        "method": method,
        "tasks": list(stages),
        "model": "micro",
        "seed": seed,
        "world": 0,
        "suite": "micro" if suite else None,
    }
    write_format(folder)
    write_json(folder / "recipe.json", recipe)
    write_json(folder / "environment.json", {"python": "3.11", "torch": "2.11", "device": "cpu"})
    last = len(stages) if evaluated is None else evaluated
    for stage in range(last + 1):
        name = stages[stage - 1] if stage else "base"
        where = folder / "evals" / f"{stage:02d}-{name}"
        scores: dict[str, Any] = {"stage": stage, "task": name, "seconds": 2.0}
        scores["settings"] = {unit: {**SETTINGS} for unit in [*tasks, *(["suite-micro"] if suite else [])]}
        scores["tasks"] = {
            task: write_items(where / f"{task}.jsonl", draw(rng, task, items, rates[0][stage][j]))
            for j, task in enumerate(tasks)
        }
        scores["suite"] = _suite(where, rng, items, rates[1][stage]) if suite else None
        write_json(where / "scores.json", scores)
    _curves(folder / "metrics.jsonl", rng, stages, min(last + 1, len(stages)), rates, steps, method, suite)
    return folder


def draw(rng: random.Random, task: str, n: int, rate: float, part: str | None = None) -> list[dict[str, Any]]:
    """Items of ``task`` of which about ``rate`` are right; hard items stay hard, so stages correlate."""
    rows = []
    for i in range(n):
        hardness = (i + 0.5) / n
        right = 0.7 * hardness + 0.3 * rng.random() < 0.15 + 0.7 * rate if 0 < rate < 1 else bool(rate)
        text = f"let me see . so the answer is : y{i} ." if right else f"no idea about {i} ."
        row = {"id": f"{part or task}-{i:03d}", "value": float(right), "extracted": f"y{i}" if right else None}
        row |= {"why": "equal" if right else "no answer found", "completion": text, "answer": f"y{i}", "tokens": 9}
        rows.append(row | {"prompt": f"question {i} about {task} ?"} | ({"part": part} if part else {}))
    return rows


def write_items(path: Path, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write item lines and return their summary for scores.json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return summary(rows)


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    scored = [row["value"] for row in rows if row["value"] is not None]
    correct, n = sum(scored), len(scored)
    entry = {"accuracy": correct / n if n else None, "correct": correct, "n": n, "unscored": len(rows) - n}
    return entry | {"interval": wilson(correct, n), "mean_tokens": 9.0, "note": ""}


def _suite(where: Path, rng: random.Random, items: int, rate: float) -> dict[str, Any]:
    rows = {part: draw(rng, part, items // 2, rate, part) for part in PARTS}
    write_items(where / "suite-micro.jsonl", [row for of_part in rows.values() for row in of_part])
    parts = {part: summary(items) for part, items in rows.items()}
    mean = sum(p["accuracy"] for p in parts.values()) / len(parts)
    ends = stratified([(p["correct"], p["n"]) for p in parts.values()])
    return {
        "name": "micro",
        "accuracy": mean,
        "n": sum(p["n"] for p in parts.values()),
        "interval": ends,
        "mean_tokens": 9.0,
        "note": "",
        "parts": parts,
    }


def _curves(
    path: Path,
    rng: random.Random,
    stages: Sequence[str],
    begun: int,
    rates: tuple[Sequence[Sequence[float]], Sequence[float]],
    steps: int,
    method: str,
    suite: bool,
) -> None:
    tasks, n, rows = list(dict.fromkeys(stages)), 60, []
    first = {"stage": 1, "task": stages[0], "step": 0, "phase": 0, "global_step": 0}
    before = {t: {"accuracy": round(p * n) / n, "n": n} for t, p in zip(tasks, rates[0][0], strict=True)}
    rows.append({"kind": "eval", **first, "scores": before, "suite": _few(rates[1][0]) if suite else None})
    for stage in range(1, begun + 1):
        reached = min(stage, len(rates[0]) - 1)
        for step in range(10, steps + 1, 10):
            at: dict[str, Any] = {"stage": stage, "task": stages[stage - 1], "step": step, "phase": 0}
            at["global_step"] = (stage - 1) * steps + step
            left = math.exp(-5 * step / steps)
            row = {
                "loss": 2 * left + 0.1 * rng.random(),
                "kl": None if method == "sft" else left,
                "entropy": 0.5 + left,
            }
            row |= {"completion_tokens": 12 + rng.random(), "tokens_per_second": 3000.0, "lr": 1e-4}
            rows.append({"kind": "step", **at, **row, "grad_norm": 0.5, "seconds": 0.4})
            if step % 20 == 0:
                now = [a * left + b * (1 - left) for a, b in zip(rates[0][reached - 1], rates[0][reached], strict=True)]
                prior = rates[1][reached - 1] * left + rates[1][reached] * (1 - left)
                scores = {t: {"accuracy": round(p * n) / n, "n": n} for t, p in zip(tasks, now, strict=True)}
                rows.append({"kind": "eval", **at, "scores": scores, "suite": _few(prior) if suite else None})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _few(rate: float) -> dict[str, Any]:
    """The suite's score on the few items of an evaluation during training."""
    return {"accuracy": round(rate * 80) / 80, "n": 80}


def unscore(folder: Path, task: str, stages: Sequence[int] | None = None, why: str = "no judge was asked") -> None:
    """Take away the scores of ``task`` after ``stages`` (all of them when None), as if nothing could score it."""
    for path in sorted(folder.glob(f"evals/*/{task}.jsonl")):
        if stages is None or int(path.parent.name[:2]) in stages:
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            entry = write_items(path, [row | {"value": None, "why": f"unscored: {why}"} for row in rows])
            scores = json.loads((path.parent / "scores.json").read_text())
            scores["tasks"][task] |= entry | {"interval": None}
            write_json(path.parent / "scores.json", scores)
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in log:
        if row["kind"] == "eval" and (stages is None or row["stage"] in stages):
            row["scores"][task] |= {"accuracy": None, "n": 0}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))


def add_losses(folder: Path, task: str, values: Sequence[float]) -> None:
    """Give ``task`` these losses after every stage, and at every evaluation during it."""
    facts = {"tokens": 400, "rows": 20, "left_out": 0, "of": "demonstrations"}
    for path in folder.glob("evals/*/scores.json"):
        scores, value = json.loads(path.read_text()), values[int(path.parent.name[:2])]
        ends = [value - 0.1, value + 0.1]
        scores["tasks"][task]["loss"] = {"value": value, **facts, "split": "test", "interval": ends}
        write_json(path, scores)
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in log:
        if row["kind"] == "eval":
            row["scores"][task]["loss"] = {"value": values[row["stage"]], **facts, "split": "validation"}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1))
