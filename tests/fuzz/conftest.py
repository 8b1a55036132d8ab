"""What is mutated: a tiny model, a data folder of few rows, a finished run and one that was killed in its second stage.

``FUZZ_SEED=7 pytest tests/fuzz`` draws other mutations.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import mutations

from sdft_cli.training.trainer import PhaseTrainer

SEED = os.environ.get("FUZZ_SEED", "0")
TASKS = "micro-tooluse,micro-science"
FEW = {"train": 6, "validation": 3, "test": 4}
TINY = (
    *("train.max_steps=2", "train.batch=2", "train.eval_every=1", "train.eval_limit=2", "train.checkpoint_every=1"),
    *("evaluation.limit=3", "evaluation.max_new_tokens=3", "sampler.max_new_tokens=3", "train.warmup_steps=0"),
)
#: Measures the model itself.
MEASURE = ("eval", "model", "--tasks", "micro-tooluse", "--limit", "2", "--max-new-tokens", "2")


class World:
    """A folder to work in, and fresh copies of what is mutated there."""

    def __init__(self, origin: Path, folder: Path):
        self.origin, self.folder = origin, folder

    def fresh(self, name: str) -> Path:
        """``name`` as it was at first. Files of models are links, which no command writes through."""
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.origin / name, target, copy_function=_link_or_copy)
        return target


def _link_or_copy(source: str, target: str) -> None:
    if "/model" in source and "runs" not in source.rpartition("/model")[2]:
        os.link(source, target)
    else:
        shutil.copy2(source, target)


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, micro_data: Path) -> Path:
    """The folder with ``model`` and its kept scores (``runs``), ``data``, and the runs ``done``, ``other`` (another
    seed) and ``killed``."""
    folder = tmp_path_factory.mktemp("origin")
    shutil.copytree(tiny_model, folder / "model")
    shutil.copytree(micro_data, folder / "data")
    for file in folder.glob("data/*/*.jsonl"):
        rows = file.read_text().splitlines(keepends=True)
        file.write_text("".join(rows[: FEW.get(file.stem, 3)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        rows = [{"prompt": f"what is {i} times {i} ?", "completion": str(i * i)} for i in range(30)]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        sound("prepare", "--source", "mine=rows.jsonl")
        sound(*MEASURE)  # its scores are kept below runs/evals
        train("done", "sdft")
        shutil.copytree("done", "other")
        recipe = json.loads(Path("other/recipe.json").read_text())
        Path("other/recipe.json").write_text(json.dumps(recipe | {"seed": 1}))
        _kill_at_step(patch, 3)
        train("killed", "sft-from-teacher")
    return folder


def train(name: str, method: str) -> None:
    words = ["--out", name, "--model", "model", "--tasks", TASKS, "--suite", "micro", "--method", method]
    sound("train", *words, *(word for key in TINY for word in ("--set", key)))


def sound(*words: str) -> None:
    outcome = mutations.run(*words, codes=(0, 130))
    assert not outcome.problem, outcome.problem


def _kill_at_step(patch: pytest.MonkeyPatch, last: int) -> None:
    """Training stops dead in the step after the ``last`` one."""
    steps, step = iter(range(last + 1)), PhaseTrainer.step

    def one(*arguments: Any, **named: Any) -> Any:
        if next(steps) == last:
            raise SystemExit(130)
        return step(*arguments, **named)

    patch.setattr(PhaseTrainer, "step", one)


@pytest.fixture
def world(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """An empty working folder with the model and the data."""
    monkeypatch.chdir(tmp_path)
    world = World(origin, tmp_path)
    for name in ("model", "data"):
        world.fresh(name)
    yield world


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> mutations.Rng:
    return mutations.Rng(f"{SEED} {request.node.name}")
