"""The records of ``sweep.json``: what a sweep is to run, and, once it is done, its points and what it chose.

Like those of a run folder they are plain dictionaries; ``settings`` hold a grid's values by dotted recipe key.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, NotRequired

from pydantic import Field

from sdft_cli.config import json_files
from sdft_cli.config.json_files import Record
from sdft_cli.runs.files import write_whole
from sdft_cli.stats.continual import Metric
from sdft_cli.types import Json

FILE = "sweep.json"
#: The run metrics that a sweep tables.
TABLED: tuple[Metric, ...] = ("average_accuracy", "backward_transfer", "prior_change")
#: What points are compared by.
Criterion = Literal["accuracy", "loss"]
Settings = dict[str, Json]


class SweepArgumentsRecord(Record):
    """`sweep_grid.SweepArguments` as they are written."""

    file: str | None
    flags: Settings
    sets: list[str]
    plugins: list[str]
    grid: list[str]
    seeds: Annotated[list[int], Field(min_length=1)]
    all_seeds: bool


class SweepSpec(Record):
    """What a sweep is to run: the command's ``arguments``, the values of the ``grid`` by
    method and key, the ``base`` recipe that its settings are laid over, and the ``rule`` to choose by."""

    arguments: SweepArgumentsRecord
    grid: dict[str, dict[str, list[Json]]]
    base: Settings
    rule: str


class PointResult(Record):
    """A trained point: validation accuracy and the items behind it, validation loss in nats per token, the accuracy on
    each stage's own task after that stage, the side scores of the last task, the shares of its completions there that
    were cut and that are exact, and the run's metrics by name."""

    validation: float | None
    validation_n: int
    validation_loss: NotRequired[float | None]
    stages: list[float | None]
    side: dict[str, float | None]
    cut: NotRequired[float | None]
    exact: NotRequired[float | None]
    metrics: dict[Metric, float | None]
    steps: int
    seconds: float


class PointRow(Record):
    """One run of the sweep; ``result`` is missing where it failed."""

    name: str
    method: str
    settings: Settings
    seed: int
    chosen: bool
    result: NotRequired[PointResult]


class BestPoint(Record):
    """The point with the highest validation accuracy, whose standard error decides which others tie with it; by loss,
    the point with the lowest one, with which only equal ones tie."""

    settings: Settings
    validation: float | None
    validation_loss: NotRequired[float | None]
    standard_error: float | None


class SeedMean(Record):
    """``interval`` is the 95 % t-interval, None for a single seed."""

    mean: float
    interval: list[float] | None


class OverSeeds(Record):
    """The chosen point over its seeds, by metric and by side score."""

    seeds: list[int]
    metrics: dict[str, SeedMean]


class Choice(Record):
    """What was chosen for one method."""

    settings: Settings
    validation: float | None
    validation_loss: NotRequired[float | None]
    best: BestPoint
    over_seeds: OverSeeds


class SweepRecord(SweepSpec):
    """A finished sweep; ``chosen`` by method, all by one ``criterion``; ``failed`` has the reasons by the names of
    points."""

    criterion: NotRequired[Criterion]
    points: list[PointRow]
    chosen: dict[str, Choice]
    failed: dict[str, str]


def read_spec(folder: Path) -> SweepSpec | None:
    """The spec of the sweep in ``folder``; None where there is none."""
    path = folder / FILE
    if not json_files.exists(path):
        return None
    record: SweepSpec = json_files.read(path, SweepSpec, "restore the file, or name another folder with --out")
    return {"arguments": record["arguments"], "grid": record["grid"], "base": record["base"], "rule": record["rule"]}


def write(folder: Path, record: SweepSpec) -> None:
    write_whole(folder / FILE, json.dumps(record, indent=1) + "\n")
