"""What may still change in a run that has started: while a stage is under way, and for the stages that are added to it.

``--resume`` and ``--continue`` lay what the command line gives over the run's recipe. A value that the run has anyway
changes nothing. Any other is taken or refused by its key, so that none is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sdft_cli import plugins
from sdft_cli.config import model_locations
from sdft_cli.config.overrides import (
    FLAGS,
    FLOOR,
    JUDGE_ALL,
    check_later,
    differences,
    flag_layer,
    leaves,
    moves_floor,
    parse_sets,
    reason_of,
)
from sdft_cli.config.recipe import METHODS, Method, Recipe, build
from sdft_cli.config.recipe_layers import (
    absolute_paths,
    check_method_tables,
    check_names,
    last,
    plugin_files_of,
    without_grid,
)
from sdft_cli.config.toml_tables import Layer, for_method, merge, read_toml
from sdft_cli.errors import UsageError

#: The sections that a method is made of. With another method all of them start from that method's defaults.
OF_METHOD = ("sampler", "views", "teacher", "reward", "objective", "second_phase")
#: Why a key may not be another one for added stages; any other key may.
_ADDED = (
    ("suite", "the rows of its accuracy matrix would be measured on different items"),
    ("evaluation.", "the rows of its accuracy matrix would be measured differently"),
    ("judge.model", "the rows of its accuracy matrix would be judged by different models"),
    ("views.student", "the rows of its accuracy matrix would be measured under different views"),
    ("world", "its tasks and its suite would be of different worlds"),
    ("lora.", "the stages could not go on with the adapter of the stage before them"),
    ("runtime.dtype", "the rows of its accuracy matrix would be measured in different precisions"),
)


@dataclass(frozen=True)
class Given:
    """What a command line gives: a recipe file, ``flags`` by dotted key (None: not given), ``--set``, plug-in files."""

    file: Path | None = None
    flags: Mapping[str, object] = field(default_factory=dict)
    sets: Sequence[str] = ()
    plugin_files: Sequence[Path] = ()

    def over(self, recipe: Recipe) -> Recipe:
        """``recipe``, a run's, with what is given laid over it. Plug-ins are loaded before any name is checked."""
        where, written = str(self.file or "--set"), self.written
        files = [*map(Path, recipe.plugins), *plugin_files_of(written, where), *self.plugin_files]
        for path in files:
            plugins.load_file(path)
        set_layer = parse_sets(list(self.sets))
        flags = flag_layer(self.flags, set_layer)
        check_method_tables(written, where)
        method = METHODS.get(last("method", recipe.method, written, flags, set_layer))
        tree: Layer = recipe.model_dump(mode="json")
        if method.name != recipe.method:
            tree = _with_method(tree, method)
        names = {"method": method.name, "plugins": list(dict.fromkeys(str(path.resolve()) for path in files))}
        changed = absolute_paths(build([tree, for_method(written, method.name, where), flags, set_layer, names], where))
        check_names(changed)
        return changed

    @property
    def written(self) -> Layer:
        """The recipe file's content."""
        return without_grid(read_toml(self.file), str(self.file)) if self.file else {}

    def name_of(self, key: str) -> str:
        """How the command line gave ``key``: with ``--set``, as a flag, in the file, or with another method."""
        if key == "plugins":
            return "--plugin"
        if key in dict(leaves(parse_sets(list(self.sets)))):
            return f"--set {key}"
        if self.flags.get(key) is not None:
            return FLAGS[key]
        if any(path == key or path.endswith(f".{key}") for path, _ in leaves(self.written)):
            return f"{self.file}: {key}"
        if self.flags.get("method") is not None:
            return f"--method {self.flags['method']}: {key}"
        return f"--set {key}"


def resumed(recipe: Recipe, given: Given) -> Recipe:
    """The recipe of a run that is resumed; `UsageError` for a key that can no longer change."""
    changed = given.over(recipe)
    check_later(absolute_paths(recipe), changed, given.name_of)
    return changed


def continued(recipe: Recipe, given: Given) -> Recipe:
    """The recipe of a run with added stages, whose settings may be others; `UsageError` for a key that may not
    change."""
    changed = given.over(recipe.model_copy(update={"tasks": ()}))
    if not changed.tasks:
        raise UsageError("--continue needs the tasks to add", "add --tasks NEW_TASK")
    changed = changed.model_copy(update={"tasks": (*recipe.tasks, *changed.tasks)})
    fresh_adapter = changed.lora.merge == "stage"
    for key, (before, _) in differences(absolute_paths(recipe), changed).items():
        reason = FLOOR if moves_floor(key, changed) else reason_of(key, _ADDED)
        if reason and not (fresh_adapter and key.startswith("lora.")):
            value = "none" if before is None else before
            hint = JUDGE_ALL if key == "judge.model" else _HINT_ADDED
            raise UsageError(f"{given.name_of(key)}: the run has {value}, and with another value {reason}", hint)
    return changed


_HINT_ADDED = "leave it out, or start a new run from the model that this one ended with (--model)"


def _with_method(recipe: Layer, method: Method) -> Layer:
    """The recipe with the sections of another method, as its file and the model's ``sdft.toml`` have them."""
    defaults = method.defaults()
    beside = for_method(model_locations.defaults(model_locations.locate(recipe["model"])), method.name)
    of_model = {key: value for key, value in beside.items() if key in OF_METHOD}
    return merge({**recipe, **{key: defaults[key] for key in OF_METHOD}}, of_model)
