"""`sdft compare`: did this checkpoint change, and is this method better? Two questions with two tests.

Two checkpoints (or runs, at their last evaluated stage) are compared on the items that both were scored on: which were
gained, which were lost, and whether chance alone could do that. Several runs are compared over seeds, grouped by method
or another key of the recipe, because the items of one seed say nothing about a method. Scores that are not comparable
are refused unless forced, and then the output lists the differences. Reads from disk only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal, TypedDict

from rich.text import Text

from sdft_cli import console
from sdft_cli.config import overrides
from sdft_cli.errors import UsageError
from sdft_cli.evaluation import cache, comparable
from sdft_cli.evaluation.cache import Evaluated
from sdft_cli.reporting import comparisons, terminal
from sdft_cli.reporting.checkpoint_changes import UnitChange, on_one_side, unit_changes
from sdft_cli.reporting.checkpoint_printing import show_units
from sdft_cli.reporting.comparisons import SeedComparison
from sdft_cli.reporting.equal_accuracy import EqualAccuracy, at_equal_accuracy
from sdft_cli.reporting.equal_accuracy_tables import equal_accuracy_group
from sdft_cli.reporting.estimates import Estimate, seed_mean
from sdft_cli.reporting.groups import Group, seed_of
from sdft_cli.runs.completeness import differs
from sdft_cli.runs.results import RunResult, load_run
from sdft_cli.stats import across_seeds
from sdft_cli.stats.continual import METRICS, Metric

# --- two checkpoints, on the same items ------------------------------------------------------------------------------


class CheckpointComparison(TypedDict):
    """Two checkpoints by name. ``metrics`` are the differences of two runs' metrics, and ``equal_accuracy`` compares
    their paths to the same accuracy; both are None for other checkpoints.
    ``uncompared`` says of which tasks, suites and parts nothing could be compared, and why."""

    a: str
    b: str
    units: list[UnitChange]
    metrics: dict[Metric, Estimate] | None
    equal_accuracy: EqualAccuracy | None
    uncompared: list[str]
    warnings: list[str]


def compare(a: str, b: str, forced: bool = False, levels: Sequence[float] = ()) -> CheckpointComparison:
    """What changed from ``a`` to ``b`` in every unit that both were measured on; of two runs also what each lost of
    prior skills when it reached the accuracies ``levels`` (by default those of `at_equal_accuracy`)."""
    sides = [cache.read(target) for target in (a, b)]
    warnings = comparable.check([(name, side.settings) for name, side in zip("AB", sides, strict=True)], forced)
    uncompared = on_one_side("only {} was measured on {}", *(side.items for side in sides))
    rows: list[UnitChange] = []
    for unit in (unit for unit in sides[0].items if unit in sides[1].items):
        changes, lacks = unit_changes(unit, *sides)
        rows += changes
        uncompared += lacks
    if not rows:
        raise UsageError(f"{a} and {b} share no scored item", f"{_units(sides[0])}; {_units(sides[1])}")
    runs = [load_run(t) for t in (a, b) if (Path(t) / "recipe.json").is_file()]
    if levels and len(runs) < 2:
        raise UsageError("--at-accuracy compares runs", "name two run folders")
    metrics = comparisons.difference(runs[1], runs[0]) if len(runs) == 2 else None
    if len(runs) == 2 and metrics is None:
        uncompared.append("the runs' metrics: they are not over the same items of the same task sequence")
    return {
        "a": sides[0].name,
        "b": sides[1].name,
        "units": rows,
        "metrics": metrics,
        "equal_accuracy": _as_groups(runs, levels) if len(runs) == 2 else None,
        "uncompared": uncompared,
        "warnings": warnings,
    }


def _as_groups(runs: Sequence[RunResult], levels: Sequence[float]) -> EqualAccuracy:
    """Runs A and B at equal accuracy, each a group of its own."""
    return at_equal_accuracy([Group(name, (run,)) for name, run in zip("AB", runs, strict=True)], levels)


def _units(side: Evaluated) -> str:
    return f"{side.name} has {', '.join(side.items)}"


# --- groups of runs, over seeds --------------------------------------------------------------------------------------


class SeedGroup(TypedDict):
    """The runs with one value of the key that they are grouped by: means over their seeds. ``cut`` and ``exact`` are
    shares of the completions after the last stage, over seeds and tasks; None where that was not recorded."""

    name: str
    seeds: list[str]
    metrics: dict[Metric, Estimate]
    cut: float | None
    exact: float | None


class GroupComparison(TypedDict):
    """Groups of runs by the key ``by``, and each pair of them."""

    by: str
    groups: list[SeedGroup]
    pairs: list[SeedComparison]
    equal_accuracy: EqualAccuracy
    warnings: list[str]


def compare_seeds(
    folders: Sequence[Path], by: str, forced: bool = False, levels: Sequence[float] = ()
) -> GroupComparison:
    """Means over the seeds of every group that ``by`` (``method``, or a key of the recipe) makes, paired tests, and the
    groups at equal accuracy (``levels``, by default those of `at_equal_accuracy`)."""
    runs = [load_run(folder) for folder in folders]
    settings = [(f"{run.name}, stage {k}", of_stage) for run in runs for k, of_stage in run.settings.items()]
    warnings = comparable.check(settings, forced) + _check_comparable(runs, by, forced)
    groups = _groups(runs, by)
    means: list[SeedGroup] = [
        {"name": g.name, "seeds": g.seeds, "metrics": _means(g), "cut": _ending(g, "cut"), "exact": _ending(g, "exact")}
        for g in groups
    ]
    pairs = [_pair(a, b) for a, b in combinations(groups, 2)]
    equal = at_equal_accuracy(groups, levels)
    return {"by": by, "groups": means, "pairs": pairs, "equal_accuracy": equal, "warnings": warnings}


def _check_comparable(runs: Sequence[RunResult], by: str, forced: bool) -> list[str]:
    """Refuse (`UsageError`) runs whose metrics measure different things: another task sequence or stage, other unscored
    tasks, another micro world, base model or suite. ``forced``: return the differences, for the output to list."""
    values = {"task sequences": [str(run.stages) for run in runs], "last stages": [str(run.last) for run in runs]}
    values["unscored tasks"] = [", ".join(run.unscored) or "none" for run in runs]
    values |= {
        f"{key}s": [str(run.recipe.get(key)) for run in runs] for key in ("world", "model", "suite") if key != by
    }
    differences = [
        f"the runs have different {kind}: {', '.join(dict.fromkeys(of_runs))}"
        for kind, of_runs in values.items()
        if len(set(of_runs)) > 1
    ]
    if differences and not forced:
        raise UsageError(f"not comparable: {differences[0]}", "compare runs of one setting, or add --force")
    return [f"Compared with --force although {text}" for text in differences]


def _groups(runs: Sequence[RunResult], by: str) -> list[Group]:
    """The runs by group; `UsageError` where two runs of a group have the same seed, or no group has two seeds."""
    by_name: dict[str, dict[str, RunResult]] = {}
    for run in runs:
        name, seed = _value(run, by), seed_of(run)
        group = by_name.setdefault(name, {})
        if seed in group:
            raise UsageError(
                f"{group[seed].folder} and {run.folder} are both {name} with seed {seed}",
                "group by the key in which they differ, such as --by train.lr, or leave one out",
            )
        group[seed] = run
    if max(map(len, by_name.values())) < 2:
        raise UsageError(
            f"no {by} has two seeds, and a single run says nothing about a {by}",
            "train again with --seed 1, 2, …; to compare two checkpoints on the same items, leave out --by",
        )
    return [Group(name, tuple(group.values())) for name, group in by_name.items()]


def _value(run: RunResult, by: str) -> str:
    if by == "method":
        return run.method
    value: object = run.recipe
    for key in overrides.path_of(by, "--by").split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return f"{by}={value}"


def _means(group: Group) -> dict[Metric, Estimate]:
    return {m: seed_mean([run.metrics[m] for run in group.runs]) for m in METRICS}


def _ending(group: Group, share: Literal["cut", "exact"]) -> float | None:
    """The mean of a share of the completions after the last stage, over tasks and seeds; None where one has none."""
    values = [(run.completeness[task][run.last] or {}).get(share) for run in group.runs for task in run.tasks]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _pair(a: Group, b: Group) -> SeedComparison:
    common = set(a.seeds) & set(b.seeds)
    if len(common) > across_seeds.MOST:
        raise UsageError(
            f"{len(common)} seeds: an exact sign-flip test takes at most {across_seeds.MOST}", "leave some out"
        )
    return comparisons.compare_groups(a, b)


# --- terminal output -------------------------------------------------------------------------------------------------


def show(comparison: CheckpointComparison) -> None:
    """Two checkpoints: a line per unit, then the ids of items gained and lost."""
    say = console.out.print
    say(Text(f"A  {comparison['a']}\nB  {comparison['b']}"), soft_wrap=True)
    _warn(comparison["warnings"])
    show_units(comparison["units"], comparison["uncompared"])
    if comparison["metrics"]:
        _show_metrics(comparison["metrics"])
    if (equal := comparison["equal_accuracy"]) and equal["stages"]:
        _show_equal(equal)
    say("This compares two checkpoints on these items, not two methods. To find out whether")
    say("a method is better, compare several seeds: sdft compare RUN... --by method")


def _show_metrics(metrics: Mapping[Metric, Estimate]) -> None:
    """How the metrics of two runs on the same task sequence and items differ, with paired intervals."""
    rows = [
        [name.replace("_", " "), console.number(estimate["value"], True), console.span(estimate["interval"], True)]
        for name, estimate in metrics.items()
        if estimate["value"] is not None
    ]
    console.out.print(console.plain_table(("metric", "B − A", "95 % interval"), rows, names=1))


def show_seeds(comparison: GroupComparison) -> None:
    """Groups over seeds: the means, then a table per pair."""
    say, groups, pairs = console.out.print, comparison["groups"], comparison["pairs"]
    _warn(comparison["warnings"])
    heads = ["", *(f"{g['name']}\n{len(g['seeds'])} seed{'s' if len(g['seeds']) > 1 else ''}" for g in groups)]
    rows = [
        [m.replace("_", " "), *(_mean_cell(g["metrics"][m], console.is_change(m)) for g in groups)] for m in METRICS
    ]
    say(console.plain_table(heads, rows, names=1))
    say("mean and 95 % interval over training seeds (Student's t)")
    for line in _ends_of(groups):
        say(Text(line), soft_wrap=True)
    for pair in pairs:
        _show_pair(pair)
    if len(pairs) > 1:
        say(f"{len(pairs)} pairs were tested: by chance alone, one p in twenty is below 0.05.")
    _show_equal(comparison["equal_accuracy"])


def _show_equal(equal: EqualAccuracy) -> None:
    """What each side lost of prior skills when it reached the same accuracy; all levels."""
    group = equal_accuracy_group(equal)
    if group.tables:
        console.out.print()
        console.out.print(Text(group.title, style="bold"), soft_wrap=True)
        terminal.show(group)
    else:
        terminal.prose(group.intro)


def _ends_of(groups: Sequence[SeedGroup]) -> list[str]:
    """How completions ended, as far as that tells more than the accuracies."""
    accuracies = [g["metrics"]["average_accuracy"]["value"] for g in groups]
    cut, exact = [g["cut"] for g in groups], [g["exact"] for g in groups]
    told = {"cut": cut} if any(cut) else {}
    told |= {"exact": exact} if any(map(differs, exact, accuracies)) else {}
    lines = []
    for name, values in told.items():
        listed = (f"{g['name']} {console.number(value)}" for g, value in zip(groups, values, strict=True))
        lines.append(f"{name}: {', '.join(listed)} of the completions after the last stage")
    return lines


def _mean_cell(mean: Estimate, signed: bool) -> str:
    return f"{console.number(mean['value'], signed)} {console.span(mean['interval'], signed)}".rstrip()


def _show_pair(pair: SeedComparison) -> None:
    say, n = console.out.print, len(pair["seeds"])
    if n < 2:
        say(Text(f"{pair['a']} − {pair['b']}: fewer than two seeds in common, so no paired test"))
        return
    heads = (f"{pair['a']} − {pair['b']}", "difference", "95 % interval", "p, paired t", "p, sign-flip")
    rows = []
    for metric, test in pair["tests"].items():
        if test["value"] is not None:
            difference = [console.number(test["value"], True), console.span(test["interval"], True)]
            p_values = [console.pvalue(test["t_p"]), console.pvalue(test["flip_p"])]
            rows.append([metric.replace("_", " "), *difference, *p_values])
    say(console.plain_table(heads, rows, names=1))
    say(f"With {n} common seeds the smallest possible sign-flip p is {console.pvalue(pair['smallest_p'])}.")


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        console.out.print(Text(f"WARNING: {warning}"), soft_wrap=True)
