"""Assemble a recipe from its layers; later ones win.

In order: the method's defaults (its file in ``methods/``), ``sdft.toml`` in the model's folder (what suits that model),
the recipe file, flags, ``--set key=value``, and for a sweep the settings of a grid point. Both files may hold
``[methods.NAME]`` tables, which apply to one method alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sdft_cli import plugins
from sdft_cli.config import model_locations
from sdft_cli.config.overrides import parse_sets
from sdft_cli.config.recipe import METHODS, Recipe, build
from sdft_cli.config.toml_tables import Layer, for_method, method_tables, read_toml
from sdft_cli.errors import UsageError, shown


def assemble(
    file: Path | None,
    flags: Mapping[str, object],
    sets: list[str],
    plugin_files: Sequence[Path] | None = None,
    point: Layer | None = None,
) -> Recipe:
    """The recipe that ``file``, ``flags`` (None means not given) and ``sets`` describe; loads nothing heavy.

    Plug-in files are loaded first, so that everything else may name what they bring. ``point`` is the layer of a sweep,
    over all others; without one (None) a file that holds a grid is refused.
    """
    where = str(file or "recipe")
    given = {k: v for k, v in flags.items() if v is not None}
    written = _without_grid(read_toml(file), where, point is not None) if file else {}
    plugin_paths = [*plugin_files_of(written, where), *(plugin_files or ())]
    for path in plugin_paths:
        plugins.load_file(path)
    set_layer, point = parse_sets(sets), point or {}
    if "plugins" in set_layer:
        raise UsageError("--set plugins: plug-ins are loaded before settings are read", "use --plugin FILE.py")
    _check_method_tables(written, where)
    method = METHODS.get(_last("method", "sdft", written, given, set_layer, point))
    model = model_locations.locate(_last("model", "", written, given, set_layer, point))
    beside = _beside(model)
    layers = [
        method.defaults(),
        for_method(beside, method.name, model),
        for_method(written, method.name, where),
        given,
        set_layer,
        point,
        {"method": method.name, "plugins": [str(path.resolve()) for path in plugin_paths]},
    ]
    build(layers[:1], f"method {method.name}")  # a mistake in a plug-in's method is not the recipe's
    recipe = build(layers, where)
    check_names(recipe)
    return recipe


def check_names(recipe: Recipe) -> None:
    """Raise `UsageError`, with the choices, for a method, engine or suite that does not exist; imports none of them."""
    METHODS.check(recipe.method)
    plugins.room("ENGINE").check(recipe.engine.name)
    if recipe.suite:
        plugins.SUITES.check(recipe.suite)


def plugin_files_of(written: Layer, where: str) -> list[Path]:
    """The plug-in files that a recipe file names."""
    files = written.get("plugins", [])
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise UsageError(
            f"{where}: 'plugins' must be a list of files, not {shown(files)}", 'write plugins = ["mine.py"]'
        )
    return [Path(name) for name in files]


def _without_grid(written: Layer, where: str, sweeping: bool) -> Layer:
    """The file without its ``[grid]`` and ``[methods.NAME.grid]``, which are no settings of a single run."""
    tables = {n: {k: v for k, v in t.items() if k != "grid"} for n, t in method_tables(written, where).items()}
    shared = {k: v for k, v in written.items() if k != "grid"}
    without = {**shared, "methods": tables} if tables else shared
    if without != written and not sweeping:
        raise UsageError(f"{where} holds a [grid], which describes many runs", f"use `sdft sweep {where}`")
    return without


def _beside(model: str) -> Layer:
    """What the model's folder suggests; loading code is not up to a model."""
    layer = model_locations.defaults(model)
    if "plugins" in layer:
        raise UsageError(f"{model}/sdft.toml: a model's settings cannot name plug-ins", "use --plugin FILE.py")
    return layer


def _last(key: str, default: str, *layers: Mapping[str, object]) -> str:
    """The value of the last layer that has ``key``."""
    value: object = default
    for layer in layers:
        value = layer.get(key, value)
    if not isinstance(value, str):
        raise UsageError(f"{key} must be text, not {shown(value)}", f'write {key} = "NAME"')
    return value


def _check_method_tables(written: Layer, where: str) -> None:
    """A table for a method that does not exist would be ignored silently, and so would a mistake in another's."""
    tables = method_tables(written, where)
    shared = {k: v for k, v in written.items() if k != "methods"}
    for name, table in tables.items():
        if name not in METHODS.names():
            raise UsageError(f"{where}: [methods.{name}]: no such method", f"methods: {', '.join(METHODS.names())}")
        for key in ("method", "plugins"):
            if key in table:
                raise UsageError(
                    f"{where}: [methods.{name}]: {key!r} is not one method's", "put it at the top of the file"
                )
        build([shared, {**table, "method": name}], where)
