"""Evaluations on disk: read from wherever they lie, and kept by digest so that nothing is measured twice.

    runs/<name>/evals/NN-<task>/         a stage of a run
    runs/evals/<unit>-<digest>/          one unit (a task, a suite, samples of a task) of any other model
    runs/evals/parts/<part>-<digest>/    a part of a suite that is measured part by part, until the suite is whole
    <folder>/                            what `sdft eval --out <folder>` was asked for, together

Each holds ``scores.json``, written last, and a JSONL file a unit with one scored completion a line. The digest is that
of everything that decides the numbers: weights, settings, test rows, the grader's code, the engine and this version.
So a changed model never gets old scores, and whatever stands under a digest is never measured again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sdft_cli.config.locations import locate
from sdft_cli.errors import UsageError
from sdft_cli.evaluation.comparable import SUITE, Settings
from sdft_cli.models import digests
from sdft_cli.runs.folder import RUNS, Run, write_evaluation
from sdft_cli.runs.records import ItemRecord
from sdft_cli.runs.scores import item_rows, json_object, settings_of
from sdft_cli.types import SPLITS, Json

Row = dict[str, Any]
Items = dict[str, list[Json]]
CACHE = RUNS / "evals"
PARTS = CACHE / "parts"
SAMPLES = "-samples"


# --- where a unit is kept --------------------------------------------------------------------------------------------


class Place(Protocol):
    """Where a unit's scores and items are kept, and found again."""

    def find(self) -> tuple[Row, Items] | None: ...
    def keep(self, scores: Row, items: Items) -> None: ...


@dataclass(frozen=True)
class InCache:
    """A unit below ``root``, by the digest of ``identity``: all that decides its numbers, by name. Without a root, or
    for weights that have no digest, nothing is found and nothing kept."""

    root: Path | None
    unit: str
    identity: Row

    @property
    def folder(self) -> Path | None:
        if self.root is None or self.identity["weights"] is None:
            return None
        return self.root / f"{self.unit}-{digests.of(self.identity)}"

    def find(self) -> tuple[Row, Items] | None:
        folder = self.folder
        if folder is None or not (folder / "scores.json").is_file():
            return None
        scores = json_object(folder / "scores.json")
        return scores, {path.stem: item_rows(path) for path in sorted(folder.glob("*.jsonl"))}

    def keep(self, scores: Row, items: Items) -> None:
        if folder := self.folder:
            write_evaluation(folder, {**scores, "identity": self.identity}, items)


@dataclass(frozen=True)
class InRun:
    """``unit`` among what a run holds of its stage ``number``, in that stage's own folder."""

    run: Run
    number: int
    task: str
    unit: str

    def find(self) -> tuple[Row, Items] | None:
        known, own = self._scores(), self._files()
        tasks = {name: found for name, found in known["tasks"].items() if name in own}
        suite = known["suite"] if known["suite"] and SUITE + known["suite"]["name"] == self.unit else None
        settings = {name: found for name, found in settings_of(known).items() if name in own}
        folder = self.run.eval_folder(self.number, self.task)
        items = {n: item_rows(folder / f"{n}.jsonl") for n in own if (folder / f"{n}.jsonl").is_file()}
        return ({"tasks": tasks, "suite": suite, "settings": settings}, items) if tasks or suite else None

    def keep(self, scores: Row, items: Items) -> None:
        """Lay the unit over what is there; other units of the stage stay as they are."""
        known = self._scores()
        for name, found in scores["tasks"].items():
            known["tasks"][name] = {**known["tasks"].get(name, {}), **found}
        known["suite"] = scores["suite"] or known["suite"]
        known["settings"] = settings_of(known) | scores["settings"]
        known["seconds"] = known.get("seconds", 0.0) + scores.get("seconds", 0.0)
        self.run.write_scores(self.number, self.task, known, items)

    def _scores(self) -> Row:
        empty: Row = {"stage": self.number, "task": self.task, "tasks": {}, "suite": None, "settings": {}}
        return {**empty, **(self.run.read_scores(self.number, self.task) or {})}

    def _files(self) -> tuple[str, ...]:
        """The names of the unit's item files: its own, that of samples, and those of a task's further splits."""
        return (self.unit, self.unit + SAMPLES, *(f"{self.unit}-{split}" for split in SPLITS))


def of_model(weights: str, root: Path = CACHE) -> Iterator[Path]:
    """The folders of all units below ``root`` that were measured with these weights."""
    for path in sorted(root.glob("*/scores.json")):
        if json_object(path).get("identity", {}).get("weights") == weights:
            yield path.parent


# --- read from wherever they lie -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluated:
    """What was measured of one checkpoint: its items by unit, with their settings."""

    name: str
    settings: Settings
    items: Items

    def parts(self, unit: str) -> dict[str, list[ItemRecord]]:
        """The items of a suite by part; all of them under "" for a task."""
        found: dict[str, list[ItemRecord]] = {}
        for row in self.items[unit]:
            found.setdefault(str(row.get("part", "")) if unit.startswith(SUITE) else "", []).append(row)
        return found


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
    stages = sorted((run / "evals").glob("[0-9]*-*/scores.json"), key=lambda path: int(path.parent.name.split("-")[0]))
    if not stages:
        raise UsageError(f"{run} has no evaluation yet", "let it go on with `sdft train --resume`")
    return _of_folder(stages[-1].parent, f"{run} ({stages[-1].parent.name})")


def _of_folder(folder: Path, name: str) -> Evaluated:
    files = [path for path in sorted(folder.glob("*.jsonl")) if not path.stem.endswith(SAMPLES)]
    if not files:
        raise UsageError(f"{folder} holds no item files, only scores", "evaluate it again: items are what is compared")
    return Evaluated(name, settings_of(json_object(folder / "scores.json")), {p.stem: item_rows(p) for p in files})


def _of_model(target: str, cache: Path) -> Evaluated:
    weights = digests.of_weights(locate(target))
    if weights is None:
        raise UsageError(
            f"{target} is no run, no evaluation and no model folder", f"write `sdft eval {target} --out FOLDER` first"
        )
    settings: dict[str, Mapping[str, Any]] = {}
    items: Items = {}
    for folder in of_model(weights, cache):
        found = _of_folder(folder, target) if not folder.name.rpartition("-")[0].endswith(SAMPLES) else None
        if twice := set(items) & set(found.items if found else ()):
            unit = min(twice)
            raise UsageError(
                f"{target}: {unit} was measured under several settings, in {cache}/{unit}-*",
                "name one of these folders, or write `sdft eval MODEL --out FOLDER` and compare that",
            )
        if found:
            settings |= found.settings
            items |= found.items
    if not items:
        raise UsageError(f"no evaluation of {target} in {cache}", f"measure it first: sdft eval {target}")
    return Evaluated(target, settings, items)
