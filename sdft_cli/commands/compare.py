"""The verb `compare`: did this checkpoint change, and is this method better? Two questions with two tests.

Two checkpoints (or runs, at their last evaluated stage) are compared on the items that both were scored on: what was
gained, what was lost, and whether as much would come from chance. Several runs are compared over seeds, grouped by
method or another key of the recipe: items of one seed say nothing about a method. Numbers that were not measured alike
are refused unless forced, and then the output says so. Reads from disk only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.text import Text

from sdft_cli import console
from sdft_cli.config import overrides
from sdft_cli.errors import UsageError
from sdft_cli.evaluation import cache, comparable
from sdft_cli.evaluation.cache import Evaluated
from sdft_cli.reporting import comparisons
from sdft_cli.runs.records import ItemRecord
from sdft_cli.runs.results import RunResult, load_run
from sdft_cli.stats import paired
from sdft_cli.stats.continual import METRICS
from sdft_cli.stats.paired import Change

Row = dict[str, Any]
#: So many ids of each kind are printed; --json has them all.
LISTED = 10
#: What `continual.sign_flip` can enumerate.
MOST_SEEDS = 24


# --- two checkpoints, on the same items ------------------------------------------------------------------------------


def compare(a: str, b: str, forced: bool = False) -> Row:
    """What changed from ``a`` to ``b`` in every unit that both were measured on, as JSON."""
    sides = [cache.read(target) for target in (a, b)]
    warnings = comparable.check([(name, side.settings) for name, side in zip("AB", sides, strict=True)], forced)
    units = [unit for unit in sides[0].items if unit in sides[1].items]
    rows = [row for unit in units for row in _rows(unit, *sides)]
    if not rows:
        raise UsageError(f"{a} and {b} share no scored item", f"{_listed(sides[0])}; {_listed(sides[1])}")
    runs = [load_run(t) for t in (a, b) if (Path(t) / "recipe.json").is_file()]
    metrics = comparisons.difference(runs[1], runs[0]) if len(runs) == 2 else None
    return {"a": sides[0].name, "b": sides[1].name, "units": rows, "metrics": metrics, "warnings": warnings}


def _rows(unit: str, a: Evaluated, b: Evaluated) -> list[Row]:
    """One row a unit; of a suite also one a part, below it."""
    before, after = a.parts(unit), b.parts(unit)
    parts = {part: _sides(before[part], after[part]) for part in before if part in after}
    whole = paired.change_of_parts(list(parts.values()))
    if whole is None:
        return []
    below = [(part, paired.change(*sides)) for part, sides in parts.items()] if len(parts) > 1 else []
    return [_row(unit, None, whole), *(_row(unit, part, found) for part, found in below if found)]


def _sides(
    before: Sequence[ItemRecord], after: Sequence[ItemRecord]
) -> tuple[dict[str, float | None], dict[str, float | None], dict[str, str | None]]:
    documents = {row["id"]: row.get("document") for row in [*after, *before]}
    return {row["id"]: row["value"] for row in before}, {row["id"]: row["value"] for row in after}, documents


def _row(unit: str, part: str | None, found: Change) -> Row:
    return {
        "unit": unit,
        "part": part,
        "n": found.n,
        "documents": found.clusters,
        "a": found.before,
        "b": found.after,
        "difference": found.difference,
        "standard_error": found.standard_error,
        "interval": found.interval,
        "gained": found.gained,
        "lost": found.lost,
        "p": found.p,
        "test": found.test,
    }


def _listed(side: Evaluated) -> str:
    return f"{side.name} has {', '.join(side.items)}"


# --- groups of runs, over seeds --------------------------------------------------------------------------------------


def compare_seeds(folders: Sequence[Path], by: str, forced: bool = False) -> Row:
    """Means over seeds of the groups that ``by`` (``method``, or a key of the recipe) makes, and each pair's tests."""
    runs = [load_run(folder) for folder in folders]
    names = [f"{run.name}, stage {k}" for run in runs for k in run.settings]
    measured = [found for run in runs for found in run.settings.values()]
    warnings = comparable.check(list(zip(names, measured, strict=True)), forced)
    warnings += _unlike(runs, by, forced)
    groups = _groups(runs, by)
    pairs = [_pair(a, b, groups) for a, b in combinations(groups, 2)]
    rows = [{"name": name, "seeds": list(found), "metrics": _means(found)} for name, found in groups.items()]
    return {"by": by, "groups": rows, "pairs": pairs, "warnings": warnings}


def _unlike(runs: Sequence[RunResult], by: str, forced: bool) -> list[str]:
    """What else must be equal for metrics to be of the same thing: the sequence of tasks, how far it has come, the
    world of the micro tasks, and the model that it began with."""
    found = []
    kinds = {"sequences of tasks": [str(run.stages) for run in runs], "last stages": [str(run.last) for run in runs]}
    kinds |= {f"{key}s": [str(run.recipe.get(key)) for run in runs] for key in ("world", "model", "suite") if key != by}
    for what, values in kinds.items():
        if len(set(values)) > 1:
            found.append(f"the runs have different {what}: {', '.join(dict.fromkeys(values))}")
    if found and not forced:
        raise UsageError(f"not for one table: {found[0]}", "compare runs of one setting, or add --force")
    return [f"Forced together: {text}" for text in found]


def _groups(runs: Sequence[RunResult], by: str) -> dict[str, dict[str, RunResult]]:
    """The runs by group and seed; `UsageError` where two of a group have one seed, or there is nothing to compare."""
    groups: dict[str, dict[str, RunResult]] = {}
    for run in runs:
        name, seed = _value(run, by), str(run.recipe.get("seed"))
        group = groups.setdefault(name, {})
        if seed in group:
            raise UsageError(
                f"{group[seed].folder} and {run.folder} both are {by} {name}, seed {seed}",
                "group by the key in which they differ, such as --by train.lr, or leave one out",
            )
        group[seed] = run
    if max(map(len, groups.values())) < 2:
        raise UsageError(
            f"no {by} has two seeds: one run says nothing about a {by}",
            "train it again with --seed 1, 2, …; for two checkpoints on the same items leave out --by",
        )
    return groups


def _value(run: RunResult, by: str) -> str:
    if by == "method":
        return run.method
    found: Any = run.recipe
    for key in overrides.path_of(by, "--by").split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return f"{by}={found}"


def _means(group: Mapping[str, RunResult]) -> dict[str, Row]:
    return {m: comparisons.seed_cell([run.metrics[m] for run in group.values()]) for m in METRICS}


def _pair(a: str, b: str, groups: Mapping[str, Mapping[str, RunResult]]) -> Row:
    """The paired tests of ``a`` minus ``b`` on the seeds that both have."""
    common = [seed for seed in groups[a] if seed in groups[b]]
    if len(common) > MOST_SEEDS:
        raise UsageError(f"{len(common)} seeds: an exact sign-flip test takes {MOST_SEEDS} at most", "leave some out")
    tests = {}
    for metric in METRICS if len(common) > 1 else ():
        x, y = ([groups[name][seed].metrics[metric] for seed in common] for name in (a, b))
        tests[metric] = comparisons.seed_test(x, y)
    return {"a": a, "b": b, "seeds": common, "smallest_p": 2.0 ** (1 - len(common)) if common else None, "tests": tests}


# --- on the terminal -------------------------------------------------------------------------------------------------


def show(facts: Row) -> None:
    """Two checkpoints: a line a unit, then the ids."""
    say = console.out.print
    say(Text(f"A  {facts['a']}\nB  {facts['b']}"), soft_wrap=True)
    _warn(facts["warnings"])
    heads = ("", "n", "A", "B", "B − A", "95 % interval", "+", "−", "p")
    say(console.plain_table(heads, [_cells(row) for row in facts["units"]], names=1))
    say("+ and −: items gained and lost in B")
    for test in dict.fromkeys(row["test"] for row in facts["units"]):
        say(Text(f"p: {test} ({', '.join(_name(r) for r in facts['units'] if r['test'] == test)})"), soft_wrap=True)
    for row in facts["units"]:
        if row["part"] is None:
            _show_ids(row)
    if facts["metrics"]:
        _show_metrics(facts["metrics"])
    say("Two checkpoints on these items: that is what was compared. To tell whether a")
    say("method is better takes seeds: sdft compare RUN... --by method")


def _cells(row: Row) -> list[str]:
    name = row["unit"] if row["part"] is None else f"  {row['part']}"
    figures = [console.number(row["a"]), console.number(row["b"]), console.number(row["difference"], signed=True)]
    return [
        name,
        str(row["n"]),
        *figures,
        console.span(row["interval"], signed=True),
        str(len(row["gained"])),
        str(len(row["lost"])),
        console.pvalue(row["p"]),
    ]


def _name(row: Row) -> str:
    return row["unit"] if row["part"] is None else str(row["part"])


def _show_ids(row: Row) -> None:
    for kind in ("gained", "lost"):
        ids = row[kind]
        if ids:
            more = f" … and {len(ids) - LISTED} more (--json lists all)" if len(ids) > LISTED else ""
            text = f"{row['unit']}, {kind} in B: {', '.join(ids[:LISTED])}{more}"
            console.out.print(Text(text), soft_wrap=True)


def _show_metrics(metrics: Mapping[str, Row]) -> None:
    """What two runs on the same sequence and items differ in, with paired intervals."""
    known = {name: found for name, found in metrics.items() if found["value"] is not None}
    rows = [
        [name.replace("_", " "), console.number(found["value"], True), console.span(found["interval"], True)]
        for name, found in known.items()
    ]
    console.out.print(console.plain_table(("metric", "B − A", "95 % interval"), rows, names=1))


def show_seeds(facts: Row) -> None:
    """Groups over seeds: the means, then a table a pair."""
    say = console.out.print
    _warn(facts["warnings"])
    heads = ["", *(f"{g['name']}\n{len(g['seeds'])} seed{'s' if len(g['seeds']) > 1 else ''}" for g in facts["groups"])]
    say(console.plain_table(heads, [[m.replace("_", " "), *_group_cells(facts, m)] for m in METRICS], names=1))
    say("mean and 95 % interval over training seeds (Student's t)")
    for pair in facts["pairs"]:
        _show_pair(pair)
    if len(facts["pairs"]) > 1:
        say(f"{len(facts['pairs'])} pairs were tested: one p in twenty is below 0.05 by chance alone.")


def _group_cells(facts: Row, metric: str) -> list[str]:
    signed = console.is_change(metric)
    cells = [group["metrics"][metric] for group in facts["groups"]]
    return [f"{console.number(c['value'], signed)} {console.span(c['interval'], signed)}".rstrip() for c in cells]


def _show_pair(pair: Row) -> None:
    say, n = console.out.print, len(pair["seeds"])
    if n < 2:
        say(Text(f"{pair['a']} − {pair['b']}: no two seeds in common, so no paired test"))
        return
    heads = (f"{pair['a']} − {pair['b']}", "difference", "95 % interval", "p, paired t", "p, sign-flip")
    rows = []
    for metric, test in pair["tests"].items():
        if test["value"] is not None:
            difference = [console.number(test["value"], True), console.span(test["interval"], True)]
            rows.append(
                [metric.replace("_", " "), *difference, console.pvalue(test["t_p"]), console.pvalue(test["flip_p"])]
            )
    say(console.plain_table(heads, rows, names=1))
    say(f"{n} common seeds allow a sign-flip p of {console.pvalue(pair['smallest_p'])} at best")


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        console.out.print(Text(f"WARNING: {warning}"), soft_wrap=True)
