"""The run folder: recipe, environment, metrics, checkpoints, evaluations. Everything is written whole, then named.

    runs/<name>/recipe.json environment.json metrics.jsonl latest done.json
                rollouts/NN-<task>-<phase>.jsonl (what a teacher wrote once)
                stages/NN-<task>/step-000400/{model/, state/, done.json}
                evals/NN-<task>/{scores.json, <task>.jsonl}

``latest`` names the newest whole checkpoint; it is replaced in one step after the checkpoint is complete, so an
interrupted write leaves the previous one in force. Stage 00-base is the untrained model, kept by reference.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from sdft_cli.config import overrides
from sdft_cli.config.recipe import Recipe
from sdft_cli.errors import UsageError
from sdft_cli.types import Rollout

RUNS = Path("runs")
_STEP = re.compile(r"step-(\d+)$")
_UNBORN = {"environment.json", "environment.json.tmp", "recipe.json.tmp"}  # of a run that was killed before it was one


def write_whole(path: Path, text: str) -> None:
    """Write a file so that readers see the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    temporary.replace(path)


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: stage number (from 1), its task, the steps done in it, and whether the stage is done."""

    folder: Path
    stage: int
    task: str
    step: int
    stage_done: bool

    @property
    def resumable(self) -> bool:
        """Whether training can go on from here: the state is there, or none is needed any more."""
        return self.stage_done or self.state.is_dir()

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def state(self) -> Path:
        return self.folder / "state"


class Run:
    """One run folder. Opening reads nothing but the recipe; every write is whole."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    @classmethod
    def create(cls, folder: Path, recipe: Recipe) -> Run:
        """A new run; refuses a folder that already holds something. The recipe comes last: it makes it a run."""
        if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - _UNBORN):
            hint = "add --resume to go on with it, or name another folder with --out"
            raise UsageError(f"{folder} already holds a run or other files", hint)
        folder.mkdir(parents=True, exist_ok=True)
        run = cls(folder)
        write_whole(folder / "environment.json", json.dumps(environment(), indent=2) + "\n")
        run.save_recipe(recipe)
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        if not (folder / "recipe.json").is_file():
            raise UsageError(f"{folder} is not a run: it has no recipe.json", "name a folder that `sdft train` made")
        return cls(folder)

    @property
    def recipe(self) -> Recipe:
        return Recipe.load(self.folder / "recipe.json")

    def save_recipe(self, recipe: Recipe) -> None:
        write_whole(self.folder / "recipe.json", json.dumps(recipe.model_dump(mode="json"), indent=2) + "\n")

    def change_recipe(self, recipe: Recipe) -> None:
        """Go on under ``recipe``; the metrics say from where on, and which keys differ from before."""
        changed = overrides.differences(self.recipe, recipe)
        if not changed:
            return
        at = self.latest()
        where = {"stage": at.stage, "task": at.task, "step": at.step} if at else {"stage": 0, "task": "base", "step": 0}
        self.log({"kind": "settings", **where, "changed": changed})
        self.save_recipe(recipe)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder for training, as one process at a time may; raises `UsageError` while another does.

        The lock is the kernel's and leaves no file: it ends with its process, however that ends.
        """
        held = os.open(self.folder, os.O_RDONLY)
        try:
            self._lock(held)
            yield
        finally:
            os.close(held)

    def _lock(self, held: int) -> None:
        try:
            import fcntl

            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            hint = "wait until it ends or stop it, then --resume; for another run, name another folder with --out"
            raise UsageError(f"{self.folder} is being trained by another process", hint) from error
        except (ImportError, OSError):
            return  # Windows; or a file system without locks, as some over a network are

    def stage_folder(self, stage: int, task: str) -> Path:
        return self.folder / "stages" / f"{stage:02d}-{task}"

    def eval_folder(self, stage: int, task: str) -> Path:
        return self.folder / "evals" / f"{stage:02d}-{task}"

    # metrics ------------------------------------------------------------------------------------------------

    def log(self, row: dict[str, Any]) -> None:
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as f:
            f.write(json.dumps(row) + "\n")

    def rewind_metrics(self, stage: int, step: int) -> None:
        """Forget the rows after (stage, step): a resumed run writes them again. Torn lines go as well."""
        path = self.folder / "metrics.jsonl"
        if not path.is_file():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if (row.get("stage", 0), row.get("step", 0)) <= (stage, step):
                kept.append(line)
        write_whole(path, "".join(line + "\n" for line in kept))

    def rows(self, kind: str, stage: int | None = None, after: int = -1) -> list[dict[str, Any]]:
        """The rows of a kind in order: all of them, or those of ``stage`` that follow step ``after``."""
        path = self.folder / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
        same = [r for r in rows if r["kind"] == kind]
        return same if stage is None else [r for r in same if r["stage"] == stage and r["step"] > after]

    # checkpoints --------------------------------------------------------------------------------------------

    def write_checkpoint(
        self,
        stage: int,
        task: str,
        step: int,
        fill: Callable[[Path, Path], None],
        stage_done: bool = False,
    ) -> Checkpoint:
        """Let ``fill(model folder, state folder)`` write a checkpoint aside, then put it in force."""
        final = self._write(stage, task, step, fill, stage_done)
        if stage_done:
            shutil.rmtree(final / "state", ignore_errors=True)
        return self._enforce(_checkpoint(final))

    def _enforce(self, checkpoint: Checkpoint) -> Checkpoint:
        write_whole(self.folder / "latest", str(checkpoint.folder.relative_to(self.folder)) + "\n")
        return checkpoint

    def write_model(self, stage: int, task: str, step: int, save: Callable[[Path], None]) -> Checkpoint:
        """A checkpoint without state: worth going back to, but not resumed from."""

        def fill(model: Path, state: Path) -> None:
            save(model)
            state.rmdir()  # before the folder gets its name: with a state, even an empty one, it could be resumed from

        return _checkpoint(self._write(stage, task, step, fill, False))

    def _write(
        self,
        stage: int,
        task: str,
        step: int,
        fill: Callable[[Path, Path], None],
        stage_done: bool,
    ) -> Path:
        final = self.stage_folder(stage, task) / f"step-{step:06d}"
        aside = final.with_name(final.name + ".tmp")
        shutil.rmtree(aside, ignore_errors=True)
        (aside / "model").mkdir(parents=True)
        (aside / "state").mkdir()
        fill(aside / "model", aside / "state")
        done = {"stage": stage, "task": task, "step": step, "stage_done": stage_done}
        write_whole(aside / "done.json", json.dumps(done) + "\n")
        if final.exists():  # the stage's last step also had a regular checkpoint
            replaced = final.with_name(final.name + ".old")
            shutil.rmtree(replaced, ignore_errors=True)
            final.rename(replaced)
        aside.rename(final)
        return final

    def settle(self, final: Checkpoint) -> None:
        """Put a stage's final checkpoint in force, should a kill have come between its writing and that."""
        latest = self.latest()
        if latest is None or (latest.stage, latest.step) < (final.stage, final.step):
            self._enforce(final)

    def recover(self) -> None:
        """Undo what a kill between the two renames of a checkpoint left: the replaced one stands again."""
        for replaced in self.folder.glob("stages/*/step-*.old"):
            if not replaced.with_suffix("").exists():
                replaced.rename(replaced.with_suffix(""))

    def checkpoints(self, stage: int, task: str) -> list[Checkpoint]:
        """The whole checkpoints of a stage by number, those without state among them."""
        found = reversed(_newest_first(self.stage_folder(stage, task)))
        return [_checkpoint(folder) for folder in found if (folder / "done.json").is_file()]

    def prune(self, stage: int, task: str, models: Collection[int], states: Collection[int]) -> None:
        """Of a stage's checkpoints leave the ``models`` of these steps, and the whole of those in ``states``."""
        for folder in self.stage_folder(stage, task).iterdir():
            found = _STEP.search(folder.name)
            step = int(found[1]) if found else None  # half-written and replaced ones have no number
            if step not in {*models, *states}:
                (folder / "done.json").unlink(missing_ok=True)  # first: half a checkpoint must not look whole
                shutil.rmtree(folder, ignore_errors=True)
            elif step not in states and (folder / "state").is_dir():
                (folder / "state").rename(folder / "state.old")
                shutil.rmtree(folder / "state.old", ignore_errors=True)

    def latest(self) -> Checkpoint | None:
        """The newest whole checkpoint, or None before the first. Where somebody has removed it to go further back, the
        newest that is left of its stage."""
        pointer = self.folder / "latest"
        if not pointer.is_file():
            return None
        folder = self.folder / pointer.read_text().strip()
        for candidate in (folder, folder.with_name(folder.name + ".old"), *_newest_first(folder.parent)):
            if (candidate / "done.json").is_file() and (found := _checkpoint(candidate)).resumable:
                return found
        raise UsageError(f"{folder}: the checkpoint that `latest` names is missing", "restore it or start a new run")

    def finished(self, stage: int, task: str) -> Checkpoint | None:
        """The final checkpoint of a stage that is done; the highest step, by number."""
        for folder in _newest_first(self.stage_folder(stage, task)):
            if (folder / "done.json").is_file() and (found := _checkpoint(folder)).stage_done:
                return found
        return None

    # what a teacher wrote once ----------------------------------------------------------------------------

    def _rollouts(self, stage: int, task: str, phase: int) -> Path:
        return self.folder / "rollouts" / f"{stage:02d}-{task}-{phase}.jsonl"

    def read_rollouts(self, stage: int, task: str, phase: int) -> list[Rollout] | None:
        """The stored completions in order, or None where there are none yet."""
        path = self._rollouts(stage, task, phase)
        if not path.is_file():
            return None
        return [Rollout(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]

    def write_rollouts(self, stage: int, task: str, phase: int, rollouts: list[Rollout]) -> None:
        lines = "".join(json.dumps(asdict(r)) + "\n" for r in rollouts)
        write_whole(self._rollouts(stage, task, phase), lines)

    # evaluations --------------------------------------------------------------------------------------------

    def read_scores(self, stage: int, task: str) -> dict[str, Any] | None:
        path = self.eval_folder(stage, task) / "scores.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def write_scores(
        self, stage: int, task: str, scores: Mapping[str, object], items: Mapping[str, Sequence[Mapping[str, object]]]
    ) -> None:
        write_evaluation(self.eval_folder(stage, task), scores, items)


def write_evaluation(
    folder: Path, scores: Mapping[str, object], items: Mapping[str, Sequence[Mapping[str, object]]]
) -> None:
    """Item lines first, ``scores.json`` last: where it stands, they are whole."""
    for name, rows in items.items():
        write_whole(folder / f"{name}.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    write_whole(folder / "scores.json", json.dumps(scores, indent=2) + "\n")


def _newest_first(stage: Path) -> list[Path]:
    """The checkpoints of a stage's folder, by number."""
    numbers = {p: int(found[1]) for p in stage.glob("step-*") if (found := _STEP.search(p.name))}
    return sorted(numbers, key=lambda p: numbers[p], reverse=True)


def _checkpoint(folder: Path) -> Checkpoint:
    done = json.loads((folder / "done.json").read_text())
    return Checkpoint(folder, done["stage"], done["task"], done["step"], done["stage_done"])


def newest(root: Path = RUNS) -> Path:
    """The run folder that was written to last."""
    runs = [p.parent for p in root.glob("*/recipe.json")]
    if not runs:
        raise UsageError(f"no run in {root}/", "run `sdft train` first, or name a run folder")
    return max(runs, key=lambda p: max(f.stat().st_mtime for f in p.iterdir()))


def fresh_name(recipe: Recipe, root: Path = RUNS) -> Path:
    """A folder name for a new run that says what it is and is not taken."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return root / f"{recipe.method}-{'-'.join(recipe.tasks)[:40]}-{stamp}"


def environment() -> dict[str, str]:
    """Versions and machine, as far as a reader needs them to reproduce a figure."""
    found = {"python": platform.python_version(), "machine": platform.machine(), "cores": str(os.cpu_count())}
    for package in ("sdft", "torch", "transformers", "peft", "datasets", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
