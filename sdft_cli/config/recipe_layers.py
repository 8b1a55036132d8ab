"""Assemble a recipe from its layers; later ones win.

In order: the method's defaults (its file in ``methods/``), ``sdft.toml`` in the model's folder (what suits that model),
the adapter's own settings where the model is an adapter, the recipe file, flags, ``--set key=value``, and for a sweep
the settings of a grid point. Both files may hold ``[methods.NAME]`` tables, which apply to one method alone. Paths
become absolute, so that a run can be resumed from any folder. What may be laid over the recipe of a run that has
started is in `run_changes`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from sdft_cli import plugins
from sdft_cli.config import adapter_settings, model_locations
from sdft_cli.config.judge_section import LOCAL, JudgeSettings, check_judge
from sdft_cli.config.model_locations import is_adapter
from sdft_cli.config.overrides import flag_layer, parse_sets
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
    """The recipe that ``file``, ``flags`` (by dotted key; None means not given) and ``sets`` describe; loads nothing
    heavy.

    Plug-in files are loaded first, so that everything else may name what they bring. ``point`` is the layer of a sweep,
    over all others; without one (None) a file that holds a grid is refused.
    """
    where = str(file or "recipe")
    written = without_grid(read_toml(file), where, point is not None) if file else {}
    plugin_paths = [*plugin_files_of(written, where), *(plugin_files or ())]
    for path in plugin_paths:
        plugins.load_file(path)
    set_layer, point = parse_sets(sets), point or {}
    if "plugins" in set_layer:
        raise UsageError("--set plugins: plug-ins are loaded before settings are read", "use --plugin FILE.py")
    given = flag_layer(flags, set_layer)
    check_method_tables(written, where)
    method = METHODS.get(last("method", "sdft", written, given, set_layer, point))
    of_file = for_method(written, method.name, where)
    model = model_locations.locate(last("model", "", of_file, given, set_layer, point))
    adapter = _of_adapter(model) if is_adapter(model) else {}
    layers = [
        method.defaults(),
        for_method(_beside(model), method.name, model),
        {"lora": adapter},
        of_file,
        given,
        set_layer,
        point,
        {"method": method.name, "plugins": [str(path.resolve()) for path in plugin_paths]},
    ]
    build(layers[:1], f"method {method.name}")  # a mistake in a plug-in's method is not the recipe's
    recipe = absolute_paths(build(layers, where))
    if adapter:
        adapter_settings.check_same(recipe.lora, model)
    check_names(recipe)
    return recipe


def _of_adapter(model: str) -> Layer:
    """The ``lora`` section that an adapter brings: what it is, and the bits in which its base was held."""
    section: Layer = adapter_settings.lora_of(model).model_dump(exclude={"merge"})
    return {**section, "bits": adapter_settings.base_bits(model)}


def absolute_paths(recipe: Recipe) -> Recipe:
    """``recipe`` with every path in it absolute: relative ones are relative to the folder where they are given, which
    is not where a run is resumed from."""
    engine, harness = recipe.engine, recipe.evaluation.harness
    harness = harness.model_copy(update=_absolute(harness.model_dump(include={"benchmarks", "log"})))
    more = {
        **_absolute({"data": recipe.data, "general": recipe.general}),
        "model": model_locations.absolute(recipe.model),
        "engine": engine.model_copy(update=_absolute(engine.model_dump(include={"weights_folder"}))),
        "evaluation": recipe.evaluation.model_copy(update={"harness": harness}),
        "judge": _absolute_judge(recipe.judge),
    }
    return recipe.model_copy(update=more)


def _absolute_judge(judge: JudgeSettings) -> JudgeSettings:
    more = _absolute({"replies": judge.replies})
    if judge.local and judge.model:
        more["model"] = LOCAL + model_locations.absolute(judge.model.removeprefix(LOCAL))
    return judge.model_copy(update=more)


def _absolute(paths: Mapping[str, str | None]) -> dict[str, str]:
    """Those of ``paths`` that are set."""
    return {key: os.path.abspath(path) for key, path in paths.items() if path}


def check_names(recipe: Recipe) -> None:
    """Raise `UsageError`, with the choices, for a method, engine or suite that does not exist, importing none of them;
    and for a judge that contradicts itself."""
    METHODS.check(recipe.method)
    plugins.room("ENGINE").check(recipe.engine.name)
    if recipe.suite:
        plugins.SUITES.check(recipe.suite)
    check_judge(recipe.judge)


def plugin_files_of(written: Layer, where: str) -> list[Path]:
    """The plug-in files that a recipe file names."""
    files = written.get("plugins", [])
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise UsageError(
            f"{where}: 'plugins' must be a list of files, not {shown(files)}", 'write plugins = ["mine.py"]'
        )
    return [Path(name) for name in files]


def without_grid(written: Layer, where: str, sweeping: bool = False) -> Layer:
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


def last(key: str, default: str, *layers: Mapping[str, object]) -> str:
    """The value of the last layer that has ``key``."""
    value: object = default
    for layer in layers:
        value = layer.get(key, value)
    if not isinstance(value, str):
        raise UsageError(f"{key} must be text, not {shown(value)}", f'write {key} = "NAME"')
    return value


def check_method_tables(written: Layer, where: str) -> None:
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
