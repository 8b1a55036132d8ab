"""Runs beside each other: which differ in nothing but their seed, what the others differ in, and what to call them.

Only runs of one group may be averaged. Where and how fast a run ran does not tell it apart, nor does a setting that the
other has not recorded (an older recipe). A second run of one seed begins a group of its own: taken together they would
look like two seeds that agree.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdft_cli.config.overrides import leaves
from sdft_cli.runs.results import RunResult

#: Settings that say where and how fast a run ran, not what it did.
_ELSEWHERE = ("data", "plugins", "runtime.", "engine.")
#: So many settings may stand in a name; where more differ, the folder's name says it better.
_LONGEST = 2

Settings = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """One recipe's runs, each with another seed."""

    name: str
    runs: tuple[RunResult, ...]

    @property
    def seeds(self) -> list[str]:
        return [seed_of(run) for run in self.runs]


def seed_of(run: RunResult) -> str:
    return str(run.recipe.get("seed"))


def recipe_of(run: RunResult) -> Settings:
    """The run's settings by dotted path."""
    return dict(leaves(run.recipe))


def groups_of(runs: Sequence[RunResult]) -> list[Group]:
    """The runs by recipe, in the order in which recipes come first."""
    found: list[list[RunResult]] = []
    for run in runs:
        group = next((group for group in found if all(_belong(run, other) for other in group)), None)
        if group is None:
            found.append(group := [])
        group.append(run)
    return [Group(name, tuple(group)) for name, group in zip(_names(found), found, strict=True)]


def labels(groups: Sequence[Group]) -> list[str]:
    """A distinct label a run: its group's name, with the seed where there are several."""
    return [
        group.name if len(group.runs) == 1 else f"{group.name} seed {seed_of(run)}"
        for group in groups
        for run in group.runs
    ]


def differing(sides: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys in which ``sides`` differ, those included that some of them lack."""
    keys = dict.fromkeys(key for side in sides for key in side)
    return [key for key in keys if len({json.dumps(side.get(key, "not recorded")) for side in sides}) > 1]


def shown(value: Any) -> str:
    """A setting's value as a person would write it."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(shown, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _belong(a: RunResult, b: RunResult) -> bool:
    same = a.stages == b.stages and a.last == b.last and seed_of(a) != seed_of(b)
    return same and not _apart([recipe_of(a), recipe_of(b)])


def _apart(recipes: Sequence[Settings]) -> list[str]:
    """The settings that tell ``recipes`` apart, but for the seed: at least two have recorded them, and differ."""
    keys = [key for key in dict.fromkeys(key for recipe in recipes for key in recipe) if key != "seed"]
    values = {key: {shown(recipe[key]) for recipe in recipes if key in recipe} for key in keys}
    return [key for key in keys if len(values[key]) > 1 and not key.startswith(_ELSEWHERE)]


def _names(found: Sequence[Sequence[RunResult]]) -> list[str]:
    """The method, with what tells a group from others of the method; where that tells nothing, its first folder's
    name."""
    recipes = [recipe_of(group[0]) for group in found]
    methods = [group[0].method for group in found]
    names: list[str] = []
    for group, recipe, method in zip(found, recipes, methods, strict=True):
        of_method = [r for r, m in zip(recipes, methods, strict=True) if m == method]
        settings = _telling(recipe, of_method)
        name = f"{method} {' '.join(settings)}".rstrip()
        name = group[0].name if len(settings) > _LONGEST or name in names else name
        names.append(name if name not in names else f"{name} ({len(names) + 1})")
    return names


def _telling(recipe: Settings, others: Sequence[Settings]) -> list[str]:
    """``key=value`` of the settings that tell ``recipe`` from ``others``; of many keys only those that are unusual."""
    keys = [key for key in _apart(others) if key in recipe]
    if len(keys) > _LONGEST:
        usual = {key: Counter(shown(r[key]) for r in others if key in r).most_common(1)[0][0] for key in keys}
        keys = [key for key in keys if shown(recipe[key]) != usual[key]]
    return [f"{key.rpartition('.')[2]}={shown(recipe[key])}" for key in keys]
