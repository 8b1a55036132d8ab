"""The grid of a sweep: its values, their product, and the name and recipe of every point.

Values come from a recipe file's ``[grid]`` table, one method's from ``[methods.NAME.grid]``, and from ``--grid``, which
wins. Values are tried in the order in which they are written; the last key varies fastest.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sdft_cli.config.overrides import as_layer, path_of, split_assignment, value_of
from sdft_cli.config.recipe import METHODS, Recipe, paths
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.config.toml_tables import for_method, parse_toml, read_toml
from sdft_cli.errors import UsageError
from sdft_cli.types import Json

#: Values by dotted key; ``None`` among them turns a setting off.
Grid = dict[str, list[Json]]
#: One value per dotted key.
Settings = dict[str, Json]

NO_GRID = ("no grid", "add --grid lr=5e-6,1e-5, or name a recipe file that has a [grid] table")
_MEASURE = "points must be measured in the same way to be comparable: make a sweep for each"
#: Keys that cannot be chosen by validation accuracy, with what to do instead.
_FIXED = {
    "seed": "seeds are not tuned: name them with --seeds 0,1,2",
    **dict.fromkeys(("tasks", "data", "suite", "world", "plugins"), _MEASURE),
    **dict.fromkeys(("train.eval_every", "train.eval_limit"), _MEASURE),
    **dict.fromkeys((key for key in paths() if key.split(".")[0] in ("evaluation", "judge")), _MEASURE),
}
_LONGEST_NAME = 120


@dataclass(frozen=True)
class SweepArguments:
    """What the caller asked for: the layers of a recipe, and the grid. Paths and texts, so that JSON can hold it.

    Every point is run with the first of ``seeds``; the others are run at the chosen points, or everywhere.
    """

    file: str | None
    flags: dict[str, Json]
    sets: list[str]
    plugins: list[str]
    grid: list[str]
    seeds: list[int]
    all_seeds: bool

    def recipe(self, settings: Mapping[str, Json], seed: int | None = None) -> Recipe:
        """The recipe with ``settings`` (by dotted path) laid over it; without any, the base of the sweep."""
        layer = as_layer({**settings, "seed": self.seeds[0] if seed is None else seed})
        file = Path(self.file) if self.file else None
        return assemble(file, self.flags, self.sets, [Path(p) for p in self.plugins], layer)


@dataclass(frozen=True)
class Point:
    """One run of the sweep; ``settings`` are the grid's, without the method."""

    method: str
    settings: Settings
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        return name_of(self.method, self.settings, self.seed)


def points(asked: SweepArguments, grids: Mapping[str, Grid], seeds: list[int]) -> list[Point]:
    """Every point of every method's grid, once per seed. A wrong value is an error here, before anything runs."""
    return [point(asked, m, s, seed) for m, grid in grids.items() for s in product(grid) for seed in seeds]


def point(asked: SweepArguments, method: str, settings: Settings, seed: int) -> Point:
    """The run of ``method`` with ``settings`` and ``seed``."""
    return Point(method, settings, seed, asked.recipe({**settings, "method": method}, seed))


def product(grid: Grid) -> list[Settings]:
    """Settings of every point in grid order."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def grids_of(asked: SweepArguments) -> dict[str, Grid]:
    """The grid of each method; one method, the base recipe's, if ``method`` is not swept."""
    base = asked.recipe({})  # loads plug-ins and checks the file
    written = read_toml(Path(asked.file)) if asked.file else {}
    shared, flags = _table(written.get("grid", {}), f"{asked.file}: [grid]"), _flags(asked.grid)
    methods = flags.pop("method", shared.get("method", [base.method]))
    grids: dict[str, Grid] = {}
    for method in methods:
        METHODS.check(method)
        table = for_method(written, method).get("grid", {})
        grid = {**_table(table, f"{asked.file}: [methods.{method}.grid]"), **flags}
        grid.pop("method", None)
        _check(grid, asked.recipe({"method": method}))
        grids[method] = grid
    if len(methods) < 2 and not any(grids.values()):
        raise UsageError(*NO_GRID)
    return grids


def _flags(texts: list[str]) -> Grid:
    """``--grid key=v1,v2`` as values by path."""
    grid: Grid = {}
    for key, text in (split_assignment(t, "--grid") for t in texts):
        path = path_of(key, "--grid")
        if path in grid:
            raise UsageError(f"--grid {key}: given twice", f"write all its values in one: --grid {key}=A,B")
        grid[path] = _distinct(_values(text), f"--grid {key}")
    return grid


def _values(text: str) -> list[Json]:
    """The values of a TOML array's inside; if it is not one (bare words), each part between commas as for ``--set``."""
    try:
        return list(parse_toml(f"x = [{text}]")["x"])
    except ValueError:  # whatever is wrong with a value is said of that value
        return [value_of(part.strip()) for part in text.split(",")]


def _table(table: Json, where: str) -> Grid:
    """A ``[grid]`` table as values by path; its keys may be short, dotted or nested."""
    if not isinstance(table, dict):
        raise UsageError(f"{where}: not a table", "write [grid], then a line such as lr = [5e-6, 1e-5]")
    grid: Grid = {}
    for key, values in table.items():
        if isinstance(values, dict):
            grid |= _table({f"{key}.{k}": v for k, v in values.items()}, where)
        elif isinstance(values, list):
            grid[path_of(key, where)] = _distinct(values, f"{where} {key}")
        else:
            raise UsageError(f"{where} {key}: not a list of values", f"write {key} = [A, B]")
    return grid


def _distinct(values: list[Json], where: str) -> list[Json]:
    """The values without repeats, in order."""
    distinct: list[Json] = []
    for value in values:
        if value == "":
            raise UsageError(f"{where}: an empty value", "write values between commas: lr=5e-6,1e-5")
        if value not in distinct:
            distinct.append(value)
    if not distinct:
        raise UsageError(f"{where}: no value", "write values between commas: lr=5e-6,1e-5")
    return distinct


def _check(grid: Grid, base: Recipe) -> None:
    """Refuse keys that cannot be chosen, and those of sections that ``base``'s method does not have."""
    for key in grid:
        if key in _FIXED:
            raise UsageError(f"{key} cannot be in a grid", _FIXED[key])
        part = key.split(".")[0]
        if part in ("teacher", "reward", "second_phase") and getattr(base, part) is None:
            hint = f"put {key} into [methods.NAME.grid] of a recipe file, for the methods that have one"
            raise UsageError(f"grid key {key}: method {base.method} has no {part}", hint)
    if "train.epochs" in grid and base.train.max_steps and "train.max_steps" not in grid:
        raise UsageError(f"train.max_steps={base.train.max_steps} overrides epochs", "add --set max_steps=none")


def name_of(method: str, settings: Mapping[str, Json], seed: int) -> str:
    """A folder name for a point, with the keys in the recipe's order: ``sdft-lr=1e-05-batch=16-seed=0``.

    Characters that a file name cannot have are replaced and long names cut; a digest then keeps them distinct.
    """
    ordered = sorted(settings, key=paths().index)
    whole = "-".join([method, *(f"{leaf(k)}={text_of(settings[k])}" for k in ordered), f"seed={seed}"])
    safe = re.sub(r"[^A-Za-z0-9._+=-]", "_", whole)
    if safe == whole and len(whole) <= _LONGEST_NAME:
        return whole
    return f"{safe[: _LONGEST_NAME - 9]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def leaf(key: str) -> str:
    """The shortest text that still means ``key``."""
    short = key.rpartition(".")[2]
    try:
        return short if path_of(short, "") == key else key
    except UsageError:
        return key


def text_of(value: Json) -> str:
    """A value as names and tables show it."""
    return "none" if value is None else str(value)


def check_grown(old: Mapping[str, Grid], new: Mapping[str, Grid], out: Path) -> None:
    """Refuse a grid that lacks values of ``old`` or has other keys: one table would then answer two questions."""
    hint = "name another folder with --out, or use the same keys with at least the same values"
    for method, grid in old.items():
        if method not in new or set(new[method]) != set(grid):
            raise UsageError(f"{out} holds a sweep over other settings: {method} {', '.join(grid)}", hint)
        for key, values in grid.items():
            if missing := [text_of(v) for v in values if v not in new[method][key]]:
                raise UsageError(f"{out} holds a sweep that also has {leaf(key)}={','.join(missing)}", hint)
