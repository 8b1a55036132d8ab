"""Settings as the user writes them (``--set train.lr=1e-5``, by path or short key), as a layer of a recipe."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping

from sdft_cli.config import renamed_keys
from sdft_cli.config.recipe import Recipe, build, hint, paths
from sdft_cli.config.toml_tables import Layer, parse_toml
from sdft_cli.errors import UsageError, choose, shown
from sdft_cli.types import Json


def parse_sets(assignments: list[str]) -> Layer:
    """``--set key=value`` as a layer. A key is a path (``train.lr``) or a leaf that is unique (``lr``)."""
    pairs = [split_assignment(text, "--set") for text in assignments]
    return as_layer({path_of(key, "--set"): value_of(value) for key, value in pairs})


def keys_of(assignments: list[str]) -> list[str]:
    """The dotted paths that ``--set`` assignments set."""
    return [path_of(split_assignment(text, "--set")[0], "--set") for text in assignments]


def split_assignment(text: str, flag: str) -> tuple[str, str]:
    """Key and value of ``key=value``."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{flag} {text}: no '='", f"write {flag} train.lr=1e-5")
    return key.strip(), value.strip()


def as_layer(settings: Mapping[str, Json]) -> Layer:
    """Settings by dotted path as a layer of tables."""
    for whole in settings:
        for key in settings:
            if key.startswith(whole + "."):
                raise UsageError(f"{whole} and {key} set the same thing", f"leave out {whole} or {key}")
    layer: Layer = {}
    for key, value in settings.items():
        *tables, leaf = key.split(".")
        table = layer
        for part in tables:
            table = table.setdefault(part, {})
        table[leaf] = value
    return layer


def value_of(text: str) -> Json:
    """A TOML value; whatever is not valid TOML is text, except none and null."""
    try:
        values = parse_toml(f"x = {text}")
        return values["x"] if len(values) == 1 else text  # a line break could begin another key
    except tomllib.TOMLDecodeError:
        return None if text in ("none", "null") else text
    except ValueError as error:
        raise UsageError(f"{shown(text)}: {error}", "write a smaller value") from error


#: A table whose keys are a token factor's, not the recipe's own; they are checked when the factor is known.
FREE = "objective.factor_settings."


def path_of(key: str, flag: str) -> str:
    """The dotted path that ``key`` stands for; `UsageError` names ``flag`` if it is unknown, old or ambiguous."""
    keys = paths()
    if key in keys or key.removeprefix("second_phase.").startswith(FREE):
        return key
    renamed_keys.refuse(key, flag)
    # a short key is the first phase's
    matches = [p for p in keys if p.endswith(f".{key}") and not p.startswith("second_phase.")]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(f"{flag} {key}: more than one key has that name", f"one of: {', '.join(matches)}")
    raise choose("key", key, [*keys, *(p.split(".")[-1] for p in keys)], hint(key, keys))


#: What --set may still change when a run is resumed, as beginnings of keys: nothing that chooses rows, decides how many
#: steps there are, or changes how accuracy is measured.
LATER = (
    *("guards.", "engine.", "runtime.device", "runtime.threads", "sampler.max_new_tokens", "objective.mask_truncated"),
    *("train.lr", "train.warmup_steps", "train.schedule", "train.weight_decay", "train.grad_norm"),
    *("train.micro_batch_tokens", "train.gradient_checkpointing", "train.checkpoint_every", "train.eval_"),
)


def change(recipe: Recipe, assignments: list[str]) -> Recipe:
    """The recipe of a started run with ``--set`` assignments; `UsageError` for a key that can no longer change."""
    changed = build([recipe.model_dump(mode="json"), parse_sets(assignments)], "--set")
    for key in differences(recipe, changed):
        if not key.removeprefix("second_phase.").startswith(LATER):
            keys = ", ".join(k + "*" if k[-1] in "._" else k for k in LATER)
            message = f"--set {key}: the run has started with another value"
            raise UsageError(message, f"start a new run, or set one of {keys}")
    return changed


def differences(old: Recipe, new: Recipe) -> dict[str, list[Json]]:
    """The keys in which two recipes differ, each with its old and its new value."""
    before, after = (dict(leaves(recipe.model_dump(mode="json"))) for recipe in (old, new))
    both = {**before, **after}
    return {k: [before.get(k), after.get(k)] for k in both if before.get(k) != after.get(k)}


def leaves(tree: Mapping[str, Json], prefix: str = "") -> Iterator[tuple[str, Json]]:
    """The settings of nested tables, each with its dotted path."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
