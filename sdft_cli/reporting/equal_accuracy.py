"""What did it cost in prior skills to reach one accuracy on the new task? Groups of runs, compared at equal accuracy.

Two recipes at the same number of steps are not comparable where one learns faster. Each run's path through a stage
(`learning_paths`) is therefore read where its accuracy reaches a level that the others reach too (`crossings`). Where
no level is given, levels are shares of the gain that every seed of every group makes, so that none is met by standing
still: from the highest start to the lowest end of the runs' monotone curves. A group with a run that learned nothing,
up to two standard errors, does not lower the levels for the others; it is listed as not reaching them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from sdft_cli.errors import UsageError
from sdft_cli.reporting.estimates import Estimate, seed_mean
from sdft_cli.reporting.groups import Group
from sdft_cli.reporting.learning_paths import Path, stage_path, whole_path
from sdft_cli.stats.crossings import Crossing

#: The default levels, as shares of the gain that all groups make. At the whole gain a crossing is least certain.
SHARES = (0.5, 0.75, 0.9, 1.0)
#: The share whose level stands for the others where there is room for one.
HEADLINE = 0.9


class Change(TypedDict):
    """The change of the accuracy on the prior suite ``since_start`` of the stage, and ``since_base``, which is the
    prior change."""

    since_start: Estimate
    since_base: Estimate


#: The keys of a `Change`.
SINCE: tuple[Literal["since_start", "since_base"], ...] = ("since_start", "since_base")


class GroupAtLevel(TypedDict):
    """One group at one level: means over its ``seeds``, each read where its own path reaches the level.

    ``highest`` has the highest accuracy of each seed's monotone curve; where one of them is below the level, nothing is
    averaged (``reached`` counts the seeds that are not). ``at_end``: read at the stage's end (see `Path`).
    ``difference`` is the change minus that of group ``minus``, the first one that reaches the level, over the seeds
    that both have; None for that group itself.
    """

    group: str
    seeds: list[str]
    highest: list[float]
    reached: int
    at_end: bool
    step: Estimate
    change: Change
    minus: str | None
    difference: Change | None


class Level(TypedDict):
    """All groups at one accuracy; ``share`` of the common gain, None for a level that was asked for."""

    accuracy: float
    share: float | None
    groups: list[GroupAtLevel]


class StageAtLevels(TypedDict):
    """One stage, or the whole sequence of stages (``stage`` is None), at every level. ``n`` is the number of validation
    rows behind each accuracy, ``suite_n`` that of the suite's items."""

    stage: int | None
    name: str
    n: int
    suite_n: int
    levels: list[Level]


class EqualAccuracy(TypedDict):
    """Every stage that two groups can be compared in. ``notes`` tell where groups cannot be compared, and why, and
    where they were evaluated on different numbers of items."""

    stages: list[StageAtLevels]
    notes: list[str]


#: The paths of a group by seed.
Paths = Mapping[str, Path]


def at_equal_accuracy(groups: Sequence[Group], accuracies: Sequence[float] = ()) -> EqualAccuracy:
    """The groups at equal accuracy in every stage, and over the whole sequence where there are several stages.

    ``accuracies`` are the levels to compare at, instead of the default ones. `UsageError` where such levels are given
    and no two groups can be compared.
    """
    stages: list[StageAtLevels] = []
    notes: list[str] = []
    lacks: dict[str, list[str]] = {}
    for stage, name, members in blocks(groups):
        paths, why_not = paths_of(members, stage)
        for why in dict.fromkeys(why_not.values()):
            lacking = ", ".join(group for group, reason in why_not.items() if reason == why)
            lacks.setdefault(f"{why} ({lacking})", []).append(name)
        if len(paths) < 2:
            continue
        levels = [(level, None) for level in accuracies] or _levels(list(paths.values()))
        if levels:
            stages.append(_stage(stage, name, paths, levels))
            notes += _other_items(name, paths)
        else:
            lacks.setdefault("no two recipes gained accuracy beyond noise", []).append(name)
    notes += [f"{', '.join(names)}: not compared at equal accuracy: {why}" for why, names in lacks.items()]
    if accuracies and not stages:
        why = notes[0] if notes else "no two recipes trained the same task in the same stage"
        raise UsageError(f"--at-accuracy: {why}", "leave the flag out, or name other runs")
    return {"stages": stages, "notes": notes}


# --- which groups are compared in which stage ------------------------------------------------------------------------


def blocks(groups: Sequence[Group]) -> list[tuple[int | None, str, list[Group]]]:
    """The stages that at least two groups share, each with its name and groups, by number and task; last (None) whole
    sequences of several stages."""
    blocks: dict[tuple[int | None, str], list[Group]] = {}
    sequences = [group.runs[0].stages[: group.runs[0].last] for group in groups]
    for group, done in zip(groups, sequences, strict=True):
        for stage, task in enumerate(done, start=1):
            blocks.setdefault((stage, f"{stage} {task}"), []).append(group)
        if len(done) > 1:
            which = f" {' → '.join(done)}" if any(other != done for other in sequences) else ""
            blocks.setdefault((None, f"whole sequence{which}"), []).append(group)
    ordered = sorted(blocks.items(), key=lambda block: (block[0][0] is None, block[0][0] or 0))
    return [(stage, name, members) for (stage, name), members in ordered if len(members) > 1]


def paths_of(groups: Sequence[Group], stage: int | None) -> tuple[dict[str, Paths], dict[str, str]]:
    """The paths of every group that has one for each seed, and why the others have none."""
    paths: dict[str, Paths] = {}
    lacks: dict[str, str] = {}
    for group in groups:
        of_runs = [stage_path(run, stage) if stage else whole_path(run) for run in group.runs]
        missing = [why for why in of_runs if isinstance(why, str)]
        if missing:
            lacks[group.name] = missing[0]
        else:
            found = [path for path in of_runs if isinstance(path, Path)]
            paths[group.name] = dict(zip(group.seeds, found, strict=True))
    return paths, lacks


def _other_items(name: str, paths: Mapping[str, Paths]) -> list[str]:
    """A note where the paths are over different numbers of items."""
    last = [(path.points[-1].n, path.suite_n) for of_group in paths.values() for path in of_group.values()]
    rows, items = (", ".join(map(str, dict.fromkeys(sizes))) for sizes in zip(*last, strict=True))
    different = len(set(last)) > 1
    return (
        [f"{name}: compared over different numbers of items ({rows} rows, {items} of the suite)"] if different else []
    )


def _levels(groups: Sequence[Paths]) -> list[tuple[float, float | None]]:
    """The default levels with their shares, rounded down to what is printed; none without two groups that learned."""
    start = max(path.curve[0] for paths in groups for path in paths.values())
    tops = [min(path.curve[-1] for path in paths.values()) for paths in groups if all(map(_learned, paths.values()))]
    tops = [top for top in tops if top > start]
    if len(tops) < 2:
        return []
    exact = ((start + share * (min(tops) - start), share) for share in SHARES)
    levels: dict[float, float | None] = {math.floor(level * 1000 + 1e-6) / 1000: share for level, share in exact}
    return [(level, share) for level, share in levels.items() if level > start]


def _learned(path: Path) -> bool:
    """Whether accuracy rose by more than two binomial standard errors of a difference."""
    low, high = path.curve[0], path.curve[-1]
    variance = low * (1 - low) / path.points[0].n + high * (1 - high) / path.points[-1].n
    return high - low > 2 * math.sqrt(variance)


# --- groups at a level -----------------------------------------------------------------------------------------------


class _Read(TypedDict):
    """One seed at a level."""

    step: float
    since_start: float
    since_base: float | None


def _stage(
    stage: int | None, name: str, paths: Mapping[str, Paths], levels: Sequence[tuple[float, float | None]]
) -> StageAtLevels:
    path = next(path for of_group in paths.values() for path in of_group.values())
    return {
        "stage": stage,
        "name": name,
        "n": path.points[-1].n,
        "suite_n": path.suite_n,
        "levels": [{"accuracy": level, "share": share, "groups": _at(level, paths)} for level, share in levels],
    }


def _at(level: float, paths: Mapping[str, Paths]) -> list[GroupAtLevel]:
    """Every group at one level, and its difference from the first one that reaches it."""
    read = {
        group: {seed: _read(path, at) for seed, path in of_group.items() if (at := path.reaches(level))}
        for group, of_group in paths.items()
    }
    whole = [group for group, of_group in paths.items() if len(read[group]) == len(of_group)]
    return [_group(group, paths[group], read[group], *_reference(group, whole, read)) for group in paths]


def _reference(
    group: str, whole: Sequence[str], read: Mapping[str, Mapping[str, _Read]]
) -> tuple[str | None, Change | None]:
    """The group whose change is subtracted from that of ``group``, and the difference; None for the first itself."""
    if not whole or group == whole[0]:
        return None, None
    there = read[group] if group in whole else {}
    return whole[0], _difference(there, read[whole[0]])


def _read(path: Path, at: Crossing) -> _Read:
    return {"step": path.step(at), "since_start": path.since_start(at), "since_base": path.since_base(at)}


def _group(
    group: str, paths: Paths, read: Mapping[str, _Read], minus: str | None, difference: Change | None
) -> GroupAtLevel:
    seeds = [read.get(seed) for seed in paths]
    return {
        "group": group,
        "seeds": list(paths),
        "highest": [path.curve[-1] for path in paths.values()],
        "reached": len(read),
        "at_end": any(path.at_end for path in paths.values()),
        "step": seed_mean([seed["step"] if seed else None for seed in seeds]),
        "change": {
            "since_start": seed_mean([seed["since_start"] if seed else None for seed in seeds]),
            "since_base": seed_mean([seed["since_base"] if seed else None for seed in seeds]),
        },
        "minus": minus,
        "difference": difference,
    }


def _difference(a: Mapping[str, _Read], b: Mapping[str, _Read]) -> Change:
    """``a`` minus ``b`` over the seeds that both have; no value where there is none."""
    pairs = [(a[seed], b[seed]) for seed in a if seed in b]
    bases = [(x["since_base"], y["since_base"]) for x, y in pairs]
    return {
        "since_start": seed_mean([x["since_start"] - y["since_start"] for x, y in pairs]),
        "since_base": seed_mean([None if x is None or y is None else x - y for x, y in bases]),
    }
