"""Groups of runs that differ only in their seed, and short names for groups and runs.

Only the runs of one group may be averaged. Where and how fast a run ran does not set it apart, nor does a setting that
the other run did not record (an older recipe), nor ``auto`` beside the number that it came to. A run whose metrics are
over other tasks, because other tasks were scored, is of another group. A second run with the same seed starts a group
of its own: averaged with the first it would look like a second seed that agrees.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdft_cli.config.overrides import leaves
from sdft_cli.runs.results import RunResult
from sdft_cli.runs.stage_recipes import settled_key

#: Settings that say where and how fast a run ran, not what it did.
_MACHINE = ("data", "plugins", "runtime.", "engine.")
#: The most settings that a name may spell out; where more differ, the folder's name says it better.
_MOST_SETTINGS = 2

#: A recipe's settings by dotted path.
Settings = dict[str, object]


@dataclass(frozen=True)
class Group:
    """The runs of one recipe, each with another seed."""

    name: str
    runs: tuple[RunResult, ...]

    @property
    def seeds(self) -> list[str]:
        return [seed_of(run) for run in self.runs]

    @property
    def title(self) -> str:
        """The group's name, and how many seeds it has."""
        return self.name if len(self.runs) == 1 else f"{self.name} ({len(self.runs)} seeds)"


def seed_of(run: RunResult) -> str:
    return str(run.recipe.get("seed"))


def suites_of(runs: Sequence[RunResult]) -> str:
    """The names of the runs' prior suites."""
    return ", ".join(dict.fromkeys(run.suite for run in runs if run.suite))


def settings_of(run: RunResult) -> Settings:
    return dict(leaves(run.recipe))


def groups_of(runs: Sequence[RunResult]) -> list[Group]:
    """The runs by recipe, in the order of each recipe's first run."""
    grouped: list[list[RunResult]] = []
    for run in runs:
        group = next((group for group in grouped if all(_belong(run, other) for other in group)), None)
        if group is None:
            grouped.append(group := [])
        group.append(run)
    return [Group(name, tuple(group)) for name, group in zip(_names(grouped), grouped, strict=True)]


def labels(groups: Sequence[Group]) -> list[str]:
    """A distinct label for every run: its group's name, with the seed where the group has several."""
    return [
        group.name if len(group.runs) == 1 else f"{group.name} seed {seed_of(run)}"
        for group in groups
        for run in group.runs
    ]


def differing(sides: Sequence[Mapping[str, object]]) -> list[str]:
    """The keys whose values differ between ``sides``, including keys that some of them lack."""
    keys = dict.fromkeys(key for side in sides for key in side)
    return [key for key in keys if len({json.dumps(side.get(key, "not recorded")) for side in sides}) > 1]


def as_text(value: object) -> str:
    """A setting's value as a person would write it."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(as_text, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _belong(a: RunResult, b: RunResult) -> bool:
    """Whether two runs are seeds of one recipe, and equally far."""
    comparable = a.stages == b.stages and a.last == b.last and seed_of(a) != seed_of(b) and a.counted == b.counted
    stages = enumerate(zip(a.stage_recipes, b.stage_recipes, strict=True), 1)
    alike = all(not set(_distinguishing([*map(_flat, sides)])) - _both_chose(a, b, at) for at, sides in stages)
    return comparable and alike and _changes(a) == _changes(b)


def _flat(recipe: Mapping[str, object]) -> Settings:
    return dict(leaves(recipe))


def _both_chose(a: RunResult, b: RunResult, stage: int) -> set[str]:
    """The settings that both runs left to be chosen when ``stage`` began: one recipe, whatever the numbers are."""
    keys = [{settled_key(row) for row in run.chosen if row["stage"] == stage} for run in (a, b)]
    return keys[0] & keys[1]


def _changes(run: RunResult) -> list[tuple[int, int, str]]:
    """Which of a run's settings changed, after which step of which stage; their values are compared by stage."""
    return [
        (row["stage"], row["step"], key)
        for row in run.changes
        for key in row["changed"]
        if key != "seed" and not key.startswith((*_MACHINE, "inputs.", "environment."))
    ]


def _distinguishing(recipes: Sequence[Settings]) -> list[str]:
    """The settings, other than the seed, that at least two of ``recipes`` recorded with different values."""
    keys = [key for key in dict.fromkeys(key for recipe in recipes for key in recipe) if key != "seed"]
    values = {key: {as_text(recipe[key]) for recipe in recipes if key in recipe} for key in keys}
    return [key for key in keys if len(values[key]) > 1 and not key.startswith(_MACHINE)]


def _names(grouped: Sequence[Sequence[RunResult]]) -> list[str]:
    """The method, followed by the settings that distinguish a group from others of that method; where no few settings
    do, the name of the group's first folder."""
    recipes = [settings_of(group[0]) for group in grouped]
    methods = [group[0].method for group in grouped]
    names: list[str] = []
    for group, recipe, method in zip(grouped, recipes, methods, strict=True):
        same_method = [r for r, m in zip(recipes, methods, strict=True) if m == method]
        settings = _assignments(recipe, same_method)
        name = f"{method} {' '.join(settings)}".rstrip()
        name = group[0].name if len(settings) > _MOST_SETTINGS or name in names else name
        names.append(name if name not in names else f"{name} ({len(names) + 1})")
    return names


def _assignments(recipe: Settings, others: Sequence[Settings]) -> list[str]:
    """``key=value`` of the settings that distinguish ``recipe`` from ``others``; of many, only the unusual ones."""
    keys = [key for key in _distinguishing(others) if key in recipe]
    if len(keys) > _MOST_SETTINGS:
        usual = {key: Counter(as_text(r[key]) for r in others if key in r).most_common(1)[0][0] for key in keys}
        keys = [key for key in keys if as_text(recipe[key]) != usual[key]]
    return [f"{key.rpartition('.')[2]}={as_text(recipe[key])}" for key in keys]
