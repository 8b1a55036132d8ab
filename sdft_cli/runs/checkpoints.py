"""Checkpoints on disk: ``stages/NN-<task>/step-000400/{model/, state/, done.json}``, and the file ``latest``.

A checkpoint is written under another name and renamed once it is complete; then ``latest`` is pointed at it. So an
interrupted write leaves the previous checkpoint in force. Steps are compared as numbers, never as names.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from sdft_cli.config import json_files
from sdft_cli.errors import SdftError, UsageError, explained, shown
from sdft_cli.runs.files import write_whole
from sdft_cli.runs.records import StageId

_STEP = re.compile(r"step-(\d{6,12})$")
_CHECKPOINT = re.compile(r"stages/[^/\0]+/step-\d{6,12}")


class _Done(json_files.Record):
    """``done.json`` of a checkpoint."""

    stage: json_files.Count
    task: str
    step: json_files.Count
    stage_done: bool


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its stage, the steps trained in that stage, and whether the stage is done."""

    folder: Path
    stage: StageId
    step: int
    stage_done: bool

    @property
    def resumable(self) -> bool:
        """Whether training can go on from here: its state is there, or no longer needed."""
        return self.stage_done or self.state.is_dir()

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def state(self) -> Path:
        return self.folder / "state"


@dataclass(frozen=True)
class Checkpoints:
    """All checkpoints of the run in ``run``."""

    run: Path

    def of(self, stage: StageId) -> StageCheckpoints:
        return StageCheckpoints(self, stage)

    def latest(self) -> Checkpoint | None:
        """The newest complete checkpoint, or None before the first. Where somebody has removed it to go further back,
        the newest that is left of its stage."""
        pointer = self.run / "latest"
        if not json_files.exists(pointer):
            return None
        folder = self.run / self._named(pointer)
        for candidate in (folder, folder.with_name(folder.name + ".old"), *_newest_first(folder.parent)):
            if json_files.exists(candidate / "done.json") and (checkpoint := _read(candidate)).resumable:
                return checkpoint
        raise UsageError(f"{folder}: the checkpoint that `latest` names is missing", "restore it, or start a new run")

    def _named(self, pointer: Path) -> str:
        """The folder that ``latest`` names, which is one of this run's checkpoints."""
        hint = f"restore it, or write stages/NN-<task>/step-NNNNNN into {pointer}, the newest of them"
        name = json_files.content(pointer, hint).decode("utf-8", "replace").strip()
        if not (_CHECKPOINT.fullmatch(name) and name.isprintable()):
            raise UsageError(f"{pointer}: {shown(name)} is not the name of a checkpoint", hint)
        return name

    def point_to(self, checkpoint: Checkpoint) -> None:
        """Make it the ``latest``."""
        write_whole(self.run / "latest", str(checkpoint.folder.relative_to(self.run)) + "\n")

    def recover(self) -> None:
        """Undo what a kill between the two renames of a checkpoint left: put the one that was replaced back."""
        for replaced in self.run.glob("stages/*/step-*.old"):
            if not replaced.with_suffix("").exists():
                replaced.rename(replaced.with_suffix(""))


@dataclass(frozen=True)
class StageCheckpoints:
    """The checkpoints of one stage."""

    checkpoints: Checkpoints
    stage: StageId

    @property
    def folder(self) -> Path:
        return self.checkpoints.run / "stages" / str(self.stage)

    def write(self, step: int, fill: Callable[[Path, Path], None], stage_done: bool = False) -> Checkpoint:
        """Let ``fill(model folder, state folder)`` write a checkpoint, then make it the latest."""
        folder = self._write(step, fill, stage_done)
        if stage_done:
            shutil.rmtree(folder / "state", ignore_errors=True)
        checkpoint = _read(folder)
        self.checkpoints.point_to(checkpoint)
        return checkpoint

    def write_model(self, step: int, save: Callable[[Path], None]) -> Checkpoint:
        """A checkpoint without state: a model worth going back to, but nothing to resume from."""

        def fill(model: Path, state: Path) -> None:
            save(model)
            state.rmdir()  # before the folder gets its name: with a state, even an empty one, it would be resumable

        return _read(self._write(step, fill, stage_done=False))

    def _write(self, step: int, fill: Callable[[Path, Path], None], stage_done: bool) -> Path:
        final = self.folder / f"step-{step:06d}"
        unfinished = final.with_name(final.name + ".tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            (unfinished / "model").mkdir(parents=True)
            (unfinished / "state").mkdir()
            fill(unfinished / "model", unfinished / "state")
            done = {"stage": self.stage.number, "task": self.stage.task, "step": step, "stage_done": stage_done}
            write_whole(unfinished / "done.json", json.dumps(done) + "\n")
            _share(unfinished)
            if final.exists():  # the stage's last step also had a regular checkpoint
                replaced = final.with_name(final.name + ".old")
                shutil.rmtree(replaced, ignore_errors=True)
                final.rename(replaced)
            unfinished.rename(final)
        except BaseException as error:
            shutil.rmtree(unfinished, ignore_errors=True)  # on a full disk, others need its space
            if told := explained(error, str(final)):
                hint = f"{told.hint}; the checkpoint before it stays in force"
                raise SdftError(f"cannot write the checkpoint {told.message}", hint) from error
            raise
        return final

    def all(self) -> list[Checkpoint]:
        """The complete checkpoints by step, models without state among them."""
        complete = [f for f in reversed(_newest_first(self.folder)) if json_files.exists(f / "done.json")]
        return [_read(folder) for folder in complete]

    def at(self, step: int) -> Checkpoint:
        """The complete checkpoint of ``step``, which must exist."""
        return _read(self.folder / f"step-{step:06d}")

    def finished(self) -> Checkpoint | None:
        """The final checkpoint of a stage that is done."""
        return next((checkpoint for checkpoint in reversed(self.all()) if checkpoint.stage_done), None)

    def settle(self, final: Checkpoint) -> None:
        """Make the stage's final checkpoint the latest, in case a kill came between its writing and that."""
        latest = self.checkpoints.latest()
        if latest is None or (latest.stage.number, latest.step) < (final.stage.number, final.step):
            self.checkpoints.point_to(final)

    def prune(self, models: Collection[int], states: Collection[int]) -> None:
        """Keep the models of the steps ``models``, models and states of the steps ``states``, and nothing else."""
        for folder in self.folder.iterdir():
            match = _STEP.search(folder.name)
            step = int(match[1]) if match else None  # half-written and replaced ones have no number
            if step not in {*models, *states}:
                (folder / "done.json").unlink(missing_ok=True)  # first: half a checkpoint must not look complete
                shutil.rmtree(folder, ignore_errors=True)
            elif step not in states and (folder / "state").is_dir():
                (folder / "state").rename(folder / "state.old")
                shutil.rmtree(folder / "state.old", ignore_errors=True)


def _share(checkpoint: Path) -> None:
    """Make all files as readable as their sibling ``done.json``: safetensors writes files that their owner alone can
    read, whatever the umask says."""
    mode = (checkpoint / "done.json").stat().st_mode
    for file in checkpoint.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(file.stat().st_mode | mode)


def _newest_first(stage: Path) -> list[Path]:
    """The checkpoints in a stage's folder, by number."""
    numbers = {path: int(match[1]) for path in stage.glob("step-*") if (match := _STEP.search(path.name))}
    return sorted(numbers, key=lambda path: numbers[path], reverse=True)


def _read(folder: Path) -> Checkpoint:
    hint = f"restore it, or delete {folder} to go on from the checkpoint before it"
    done: _Done = json_files.read(folder / "done.json", _Done, hint)
    stage = StageId(done["stage"], done["task"])
    if (str(stage), f"step-{done['step']:06d}") != (folder.parent.name, folder.name.removesuffix(".old")):
        raise UsageError(f"{folder / 'done.json'}: it is of stage {stage}, step {done['step']}", hint)
    return Checkpoint(folder, stage, done["step"], done["stage_done"])
