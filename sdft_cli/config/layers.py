"""Assemble a recipe from its layers: method, model, file, flags, ``--set``, a grid's point (later ones win)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdft_cli import plugins
from sdft_cli.config import locations
from sdft_cli.config.overrides import parse_sets
from sdft_cli.config.recipe import Method, Recipe, build, for_method, read_toml
from sdft_cli.errors import UsageError


def assemble(
    file: Path | None,
    flags: dict[str, Any],
    sets: list[str],
    plugin_files: list[Path] | None = None,
    point: dict[str, Any] | None = None,
) -> Recipe:
    """The recipe that ``file``, ``flags`` (None means not given) and ``sets`` describe; loads nothing heavy.

    ``point`` is a layer that a sweep lays over all others; without one (None) a file that holds a grid is refused.
    """
    said = {k: v for k, v in flags.items() if v is not None}
    written = _without_grid(read_toml(file), str(file), point is not None) if file else {}
    set_layer, point = parse_sets(sets), point or {}
    own = [*map(Path, written.get("plugins", ())), *(plugin_files or ())]
    for path in own:
        plugins.load_file(path)
    name = _last("method", "sdft", written, said, set_layer, point)
    _check_method_tables(written, str(file))
    method: Method = plugins.get("method", name)
    location = locations.locate(_last("model", "", written, said, set_layer, point))
    layers = [
        method.defaults(),
        for_method(locations.defaults(location), name),
        for_method(written, name),
        said,
        set_layer,
        point,
        {"method": name, "plugins": [str(p.resolve()) for p in own]},
    ]
    return build(layers, str(file or "recipe"))


def _without_grid(written: dict[str, Any], where: str, sweeping: bool) -> dict[str, Any]:
    """The file less its ``[grid]`` and ``[methods.NAME.grid]``, which are no settings of a run."""
    tables = {name: {k: v for k, v in t.items() if k != "grid"} for name, t in written.get("methods", {}).items()}
    shared = {k: v for k, v in written.items() if k != "grid"}
    found = {**shared, "methods": tables} if tables else shared
    if found != written and not sweeping:
        raise UsageError(f"{where} holds a [grid]: it is many runs, not one", f"use `sdft sweep {where}`")
    return found


def _last(key: str, default: str, *layers: dict[str, Any]) -> str:
    for layer in layers:
        default = layer.get(key, default)
    return default


def _check_method_tables(written: dict[str, Any], where: str) -> None:
    """A table for a method that does not exist would be left out in silence."""
    for name, table in written.get("methods", {}).items():
        if name not in plugins.names("method"):
            raise UsageError(
                f"{where}: [methods.{name}]: no such method", f"methods: {', '.join(plugins.names('method'))}"
            )
        build([{k: v for k, v in written.items() if k != "methods"}, {**table, "method": name}], where)
