"""A measurement: the summaries, settings and item records of one unit, or of several laid together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

from sdft_cli.runs.records import FurtherScores, ItemRecord, SuiteSummary, Summary, TaskSummary, UnitSettings

#: Item records by unit, which is also their file's name.
Items = dict[str, list[ItemRecord]]


class Metric(TypedDict):
    """A continual-learning metric of a run with its 95 % interval."""

    value: float | None
    interval: tuple[float, float] | None


class EvalScores(TypedDict):
    """What `sdft eval` reports. ``run`` and ``stage``, or ``model``, name what was evaluated; ``settings`` are by unit.
    A run that was measured throughout under the same settings also has its metrics, the tasks that these are over, and
    their curves over stages; ``notes`` are what a reader must know of them."""

    tasks: dict[str, TaskSummary]
    suite: SuiteSummary | None
    settings: dict[str, UnitSettings]
    run: NotRequired[str]
    stage: NotRequired[int]
    model: NotRequired[str]
    metrics: NotRequired[dict[str, Metric]]
    metrics_over: NotRequired[list[str]]
    notes: NotRequired[list[str]]
    curves: NotRequired[Sequence[Mapping[str, object]]]
    gates: NotRequired[Mapping[str, object]]


@dataclass
class Measurement:
    """``tasks`` are the summaries of test splits, ``further`` what was measured of tasks beyond them."""

    tasks: dict[str, Summary] = field(default_factory=dict)
    suite: SuiteSummary | None = None
    settings: dict[str, UnitSettings] = field(default_factory=dict)
    items: Items = field(default_factory=dict)
    further: dict[str, FurtherScores] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, other: Measurement) -> None:
        """Lay another measurement over this one."""
        self.tasks |= other.tasks
        self.suite = other.suite or self.suite
        self.settings |= other.settings
        self.items |= other.items
        for task, scores in other.further.items():
            self.further[task] = {**self.further.get(task, FurtherScores()), **scores}
        self.seconds += other.seconds

    def summaries(self) -> dict[str, TaskSummary]:
        """Every task's summary, with its further scores inside."""
        return {name: {**task, **self.further.get(name, FurtherScores())} for name, task in self.tasks.items()}
