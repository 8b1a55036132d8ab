"""The run folder: one run's recipe and environment, and where its metrics, checkpoints and evaluations are.

    runs/<name>/run.json (the folder's format version, see `runs.format_version`)
                base_model.json (the run's first model, see `models.base_models`)
                recipe.json environment.json inputs.json metrics.jsonl latest done.json
                recipes/NN-<task>.json (of stages with other settings, see `runs.stage_recipes`)
                rollouts/NN-<task>-<phase>.jsonl (what a teacher wrote once)
                stages/NN-<task>/step-000400/{model/, state/, done.json}
                evals/NN-<task>/{scores.json, <unit>.jsonl}

Every file is written atomically. ``latest`` names the newest complete checkpoint; ``done.json`` is there once every
stage is trained and measured. Stage 00-base is the untrained model: it has evaluations and no checkpoint.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path

import sdft_cli
from sdft_cli.config.overrides import FITTED
from sdft_cli.config.recipe import Recipe
from sdft_cli.errors import UsageError
from sdft_cli.runs.checkpoints import Checkpoints
from sdft_cli.runs.evaluations import StageEvaluation
from sdft_cli.runs.files import write_whole
from sdft_cli.runs.format_version import FILE, check_run_folder, write_format
from sdft_cli.runs.metrics import MetricsLog
from sdft_cli.runs.records import BASE, SettingsRow, StageId
from sdft_cli.runs.rollouts import StoredRollouts
from sdft_cli.runs.stage_recipes import StageRecipes, changed_settings, own_settings
from sdft_cli.types import Json

RUNS = Path("runs")
#: Which random numbers completions are sampled with: with others, the same seed gives other completions. Runs that do
#: not record it had one generator a batch (``by batch``).
RANDOM_NUMBERS = "by row"
#: What a run that was killed before it had a recipe leaves behind.
_WITHOUT_RECIPE = {FILE, f"{FILE}.tmp", "environment.json", "environment.json.tmp", "recipe.json.tmp"}


class Run:
    """One run folder. Use `create` or `open`, which check it; nothing is read before it is asked for."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.metrics = MetricsLog(self.folder / "metrics.jsonl")
        self.checkpoints = Checkpoints(self.folder)

    @classmethod
    def create(cls, folder: Path, recipe: Recipe) -> Run:
        """A new run; `UsageError` where the folder already holds something. The recipe is written last: with it, the
        folder is a run."""
        check_unused(folder)
        folder.mkdir(parents=True, exist_ok=True)
        run = cls(folder)
        write_format(folder)
        write_whole(folder / "environment.json", json.dumps(environment(), indent=2) + "\n")
        run.save_recipe(recipe)
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """An existing run; `UsageError` where there is none, or one of another format version."""
        check_run_folder(folder)
        return cls(folder)

    # recipe -------------------------------------------------------------------------------------------------

    @cached_property
    def recipe(self) -> Recipe:
        return Recipe.load(self.folder / "recipe.json")

    def save_recipe(self, recipe: Recipe) -> None:
        write_whole(self.folder / "recipe.json", json.dumps(recipe.model_dump(mode="json"), indent=2) + "\n")
        self.recipe = recipe

    def recipe_of(self, stage: StageId) -> Recipe:
        """The recipe that ``stage`` is trained with: `recipe`, unless that changed after the stage was finished."""
        return StageRecipes(self.folder).of(stage, self.recipe)

    def change_recipe(self, recipe: Recipe) -> dict[str, list[Json]]:
        """Go on under ``recipe``, perhaps with further tasks; returns the old and the new value of every other key that
        changed. The metrics record them, and from which step on. Finished stages keep the recipe that they were trained
        with."""
        changed = changed_settings(self.recipe, recipe)
        if self.checkpoints.latest() is None:  # a run that is only about to start: nothing has been trained otherwise
            changed = {key: values for key, values in changed.items() if key not in FITTED or values[0] != "auto"}
        if own_settings(changed):
            finished = [stage for stage in self.stages() if self.checkpoints.of(stage).finished()]
            StageRecipes(self.folder).keep(finished, self.recipe)
        record_change(self, changed)
        if recipe != self.recipe:
            self.save_recipe(recipe)
        return changed

    # stages -------------------------------------------------------------------------------------------------

    def stages(self) -> list[StageId]:
        """The stages of the recipe, without the untrained model."""
        return [StageId(number, task) for number, task in enumerate(self.recipe.tasks, 1)]

    def evaluation(self, stage: StageId) -> StageEvaluation:
        return StageEvaluation(self.folder, stage)

    def rollouts(self, stage: StageId, phase: int) -> StoredRollouts:
        return StoredRollouts(self.folder / "rollouts" / f"{stage}-{phase}.jsonl")

    # whose turn it is ---------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether every stage is trained and measured."""
        return (self.folder / "done.json").is_file()

    def finish(self, seconds: float) -> None:
        """Mark the run as done, after ``seconds`` of the process that finished it."""
        write_whole(self.folder / "done.json", json.dumps({"seconds": seconds}) + "\n")

    def reopen(self) -> None:
        """The run gets further stages: it is no longer done."""
        (self.folder / "done.json").unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for training; `UsageError` while another process does.

        The lock is the kernel's and leaves no file: it ends with its process, however that ends.
        """
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            self._lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        try:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            hint = "wait until it ends, or stop it and add --resume; for another run, name another folder with --out"
            raise UsageError(f"{self.folder} is being trained by another process", hint) from error
        except (ImportError, OSError):
            return  # Windows; or a file system without locks, as some network file systems are


def check_unused(folder: Path) -> None:
    """Raise `UsageError` where a new run cannot be created: the folder already holds something."""
    if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - _WITHOUT_RECIPE):
        hint = "add --resume to go on with it, or name another folder with --out"
        raise UsageError(f"{folder} already holds a run or other files", hint)


def record_change(run: Run, changed: dict[str, list[Json]]) -> None:
    """Let the metrics say that from the latest checkpoint on something is ``changed``, from an old to a new value."""
    if not changed:
        return
    latest = run.checkpoints.latest()
    stage, step = (latest.stage, latest.step) if latest else (BASE, 0)
    row: SettingsRow = {
        "kind": "settings",
        "stage": stage.number,
        "task": stage.task,
        "step": step,
        "changed": changed,
    }
    run.metrics.append(row)


def newest(root: Path = RUNS) -> Path:
    """The run folder that was written to last."""
    runs = [p.parent for p in root.glob("*/recipe.json")]
    if not runs:
        raise UsageError(f"no run in {root}/", "run `sdft train` first, or name a run folder")
    return max(runs, key=lambda run: max(f.stat().st_mtime for f in run.iterdir()))


def fresh_name(recipe: Recipe, root: Path = RUNS) -> Path:
    """An unused folder for a new run, named after its method and tasks."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return root / f"{recipe.method}-{'-'.join(recipe.tasks)[:40]}-{stamp}"


def environment() -> dict[str, str]:
    """Versions and machine: what a reader needs to reproduce a figure."""
    versions = {"python": platform.python_version(), "machine": platform.machine(), "cores": str(os.cpu_count())}
    versions["processor"] = processor()
    versions["sdft"] = sdft_cli.__version__
    versions["random_numbers"] = RANDOM_NUMBERS
    for package in ("torch", "transformers", "peft", "datasets", "numpy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def processor() -> str:
    """The processor's name. Figures depend on it: sums are rounded as its instructions do."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
