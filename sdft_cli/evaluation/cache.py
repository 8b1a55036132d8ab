"""Evaluations on disk: read from wherever they are, and kept by digest so that nothing is measured twice.

    runs/<name>/evals/NN-<task>/         a stage of a run
    runs/evals/<unit>-<digest>/          one unit (a task, a suite, samples of a task) of any other model
    runs/evals/parts/<part>-<digest>/    a part of a suite that is measured part by part, or a diagnostic of a task
    <folder>/                            everything one `sdft eval --out <folder>` reported

Each holds ``scores.json``, written last, and one JSONL file per unit with one scored completion per line. The digest
covers everything that decides the numbers: weights, settings, test rows, the grader's code, the engine and this
version. So a changed model never gets old scores, and whatever is kept under a digest is never measured again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, Protocol

from sdft_cli import console
from sdft_cli.config import json_files
from sdft_cli.config.json_files import Amount, Record
from sdft_cli.config.model_locations import locate
from sdft_cli.errors import UsageError, explained
from sdft_cli.evaluation.measurement import Items, Measurement
from sdft_cli.evaluation.units import SAMPLES, SUITE, samples_unit, suite_unit, task_unit
from sdft_cli.models import digests
from sdft_cli.runs.evaluations import hint, item_rows, lost_items, stage_folders, write_evaluation
from sdft_cli.runs.folder import RUNS, Run
from sdft_cli.runs.format_version import check_run_folder
from sdft_cli.runs.records import (
    FurtherScores,
    ItemRecord,
    Scores,
    StageId,
    SuiteSummary,
    Summary,
    UnitSettings,
)
from sdft_cli.types import SPLITS

CACHE = RUNS / "evals"
PARTS = CACHE / "parts"


class Identity(Record):
    """Everything that decides the numbers of a unit. ``engine`` names the engine, the device and the dtype."""

    weights: str | None
    settings: dict[str, UnitSettings]
    grader: str
    engine: list[str]
    sdft: str


class CacheEntry(Record):
    """``scores.json`` of a unit kept by digest."""

    tasks: dict[str, Summary]
    further: dict[str, FurtherScores]
    suite: SuiteSummary | None
    settings: dict[str, UnitSettings]
    seconds: Amount
    identity: Identity


class _Weights(Record):
    weights: str | None


class AnyEvaluation(Record):
    """What is compared of any ``scores.json``: a stage's, a kept unit's, or that of `sdft eval --out`."""

    settings: NotRequired[dict[str, UnitSettings]]
    identity: NotRequired[_Weights]


# --- where a unit is kept --------------------------------------------------------------------------------------------


class Place(Protocol):
    """Where a unit's measurement is kept, and found again."""

    def find(self) -> Measurement | None: ...
    def keep(self, measurement: Measurement) -> None: ...


@contextmanager
def _where_possible(folder: Path) -> Iterator[None]:
    """What took long to measure is reported even where it cannot be kept: on a full disk, or a read-only one."""
    try:
        yield
    except OSError as error:
        told = explained(error, str(folder))
        if told is None:
            raise
        console.err.print(f"note: not kept for later: {told.message}", markup=False, soft_wrap=True)


@dataclass(frozen=True)
class InCache:
    """A unit below ``root``, by the digest of its ``identity``. Without a root, or for weights that have no digest,
    nothing is found and nothing kept."""

    root: Path | None
    unit: str
    identity: Identity

    @property
    def folder(self) -> Path | None:
        if self.root is None or self.identity["weights"] is None:
            return None
        return self.root / f"{self.unit}-{digests.of(self.identity)}"

    def find(self) -> Measurement | None:
        folder = self.folder
        if folder is None or not json_files.exists(folder / "scores.json"):
            return None
        entry: CacheEntry = json_files.read(folder / "scores.json", CacheEntry, hint(folder))
        items = {path.stem: item_rows(path, ItemRecord) for path in sorted(folder.glob("*.jsonl"))}
        _check(folder, items, entry["tasks"], entry["suite"])
        return Measurement(entry["tasks"], entry["suite"], entry["settings"], items, entry["further"])

    def keep(self, measurement: Measurement) -> None:
        entry: CacheEntry = {
            "tasks": measurement.tasks,
            "further": measurement.further,
            "suite": measurement.suite,
            "settings": measurement.settings,
            "seconds": measurement.seconds,
            "identity": self.identity,
        }
        if folder := self.folder:
            with _where_possible(folder):
                write_evaluation(folder, entry, measurement.items)


@dataclass(frozen=True)
class InRun:
    """A unit among those that a run holds of one stage, in that stage's own folder."""

    run: Run
    stage: StageId
    unit: str

    def find(self) -> Measurement | None:
        """The unit with its further splits and samples."""
        scores, names = self._scores(), self._files()
        tasks: dict[str, Summary] = {name: summary for name, summary in scores["tasks"].items() if name in names}
        suite = scores["suite"] if scores["suite"] and suite_unit(scores["suite"]["name"]) == self.unit else None
        settings = {name: unit for name, unit in scores.get("settings", {}).items() if name in names}
        folder = self.run.evaluation(self.stage).folder
        files = {name: folder / f"{name}.jsonl" for name in names}
        items = {n: item_rows(f, ItemRecord) for n, f in files.items() if json_files.exists(f)}
        _check(folder, items, tasks, suite)
        return Measurement(tasks, suite, settings, items) if tasks or suite else None

    def keep(self, measurement: Measurement) -> None:
        """Lay the unit over what is there; other units of the stage stay as they are."""
        scores = self._scores()
        tasks = scores["tasks"]
        for name, summary in measurement.summaries().items():
            tasks[name] = {**tasks[name], **summary} if name in tasks else summary
        for name in measurement.further.keys() & tasks.keys():
            tasks[name] = {**tasks[name], **measurement.further[name]}
        scores["suite"] = measurement.suite or scores["suite"]
        scores["settings"] = scores.get("settings", {}) | measurement.settings
        scores["seconds"] = scores.get("seconds", 0.0) + measurement.seconds
        with _where_possible(self.run.folder):
            self.run.evaluation(self.stage).write(scores, measurement.items)

    def _scores(self) -> Scores:
        """The stage's scores as they are on disk, or empty ones."""
        number, task = self.stage
        scores: Scores = {"stage": number, "task": task, "tasks": {}, "suite": None, "settings": {}, "seconds": 0.0}
        if stored := self.run.evaluation(self.stage).scores():
            scores["tasks"], scores["suite"] = stored["tasks"], stored.get("suite")
            scores["settings"], scores["seconds"] = stored.get("settings", {}), stored.get("seconds", 0.0)
        return scores

    def _files(self) -> tuple[str, ...]:
        """The names of the unit's item files: its own, that of samples, and those of a task's further splits."""
        return (self.unit, samples_unit(self.unit), *(task_unit(self.unit, split) for split in SPLITS))


def of_model(weights: str, root: Path = CACHE) -> Iterator[Path]:
    """The folders of all units below ``root`` that were measured with these weights."""
    for path in sorted(root.glob("*/scores.json")):
        identity = _recorded(path.parent).get("identity")
        if identity and identity["weights"] == weights:
            yield path.parent


def _recorded(folder: Path) -> AnyEvaluation:
    recorded: AnyEvaluation = json_files.read(folder / "scores.json", AnyEvaluation, hint(folder))
    return recorded


def _check(folder: Path, items: Items, tasks: Mapping[str, Summary], suite: SuiteSummary | None) -> None:
    """Raise `UsageError` where there are not as many items of a unit as were summarized."""
    for unit, rows in items.items():
        if lost := lost_items(unit, rows, tasks, suite):
            raise UsageError(f"{folder}: {lost}", hint(folder))


# --- read from wherever they are -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluated:
    """What was measured of one checkpoint: its items by unit, with their settings."""

    name: str
    settings: dict[str, UnitSettings]
    items: Items

    def parts(self, unit: str) -> dict[str, list[ItemRecord]]:
        """The items of a suite by part; all of them under "" for a task."""
        parts: dict[str, list[ItemRecord]] = {}
        for row in self.items[unit]:
            parts.setdefault(str(row.get("part", "")) if unit.startswith(SUITE) else "", []).append(row)
        return parts


def read(target: str, cache: Path = CACHE) -> Evaluated:
    """The evaluation that ``target`` names: a run (its last evaluated stage), a folder of one evaluation, or a model
    whose evaluations are kept below ``cache``."""
    folder = Path(target)
    if (folder / "recipe.json").is_file():
        return _of_run(folder)
    if (folder / "scores.json").is_file():
        return _of_folder(folder, str(target))
    return _of_model(target, cache)


def _of_run(run: Path) -> Evaluated:
    check_run_folder(run)
    stages = stage_folders(run)
    if not stages:
        raise UsageError(f"{run} has no evaluation yet", f"finish it with `sdft train --resume --out {run}`")
    last = stages[max(stages)]
    return _of_folder(last, f"{run} ({last.name})")


def _of_folder(folder: Path, name: str) -> Evaluated:
    files = [path for path in sorted(folder.glob("*.jsonl")) if not path.stem.endswith(SAMPLES)]
    if not files:
        raise UsageError(f"{folder} holds scores but no item files", "evaluate it again: items are what is compared")
    return Evaluated(name, _recorded(folder).get("settings", {}), {p.stem: item_rows(p) for p in files})


def _of_model(target: str, cache: Path) -> Evaluated:
    weights = digests.of_weights(locate(target))
    if weights is None:
        raise UsageError(
            f"{target} is neither a run, nor an evaluation, nor a model folder",
            f"evaluate it first with `sdft eval {target} --out FOLDER`, and compare FOLDER",
        )
    settings: dict[str, UnitSettings] = {}
    items: Items = {}
    for folder in of_model(weights, cache):
        if folder.name.rpartition("-")[0].endswith(SAMPLES):
            continue
        evaluated = _of_folder(folder, target)
        if twice := set(items) & set(evaluated.items):
            unit = min(twice)
            raise UsageError(
                f"{target}: {unit} was measured under several settings, in {cache}/{unit}-*",
                "name one of these folders, or run `sdft eval MODEL --out FOLDER` and compare FOLDER",
            )
        settings |= evaluated.settings
        items |= evaluated.items
    if not items:
        raise UsageError(f"no evaluation of {target} in {cache}", f"evaluate it first with `sdft eval {target}`")
    return Evaluated(target, settings, items)
