"""Settings as the user writes them (``--set train.lr=1e-5``, by path or short key), as a layer of a recipe."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence

from sdft_cli.config import judge_section, renamed_keys
from sdft_cli.config.recipe import Recipe, build, hint, paths
from sdft_cli.config.toml_tables import Layer, parse_toml
from sdft_cli.errors import UsageError, choose, shown
from sdft_cli.types import Json


def parse_sets(assignments: list[str]) -> Layer:
    """``--set key=value`` as a layer. A key is a path (``train.lr``) or a leaf that is unique (``lr``)."""
    pairs = [split_assignment(text, "--set") for text in assignments]
    settings = {path_of(key, "--set"): value_of(value) for key, value in pairs}
    if "plugins" in settings:
        raise UsageError("--set plugins: plug-ins are loaded before settings are read", "use --plugin FILE.py")
    return as_layer(settings)


#: The flags that stand for a recipe key.
FLAGS = {
    "engine.name": "--engine",
    "train.on_bad_row": "--on-bad-row",
    "train.stop_if_prior_drops": "--stop-if-prior-drops",
    "judge.model": "--judge",
    "judge.base_url": "--judge-base-url",
    "judge.key_env": "--judge-key-env",
    **{key: f"--{key}" for key in ("tasks", "method", "model", "data", "suite", "seed")},
}


def flag_layer(flags: Mapping[str, object], set_layer: Layer) -> Layer:
    """``flags`` by dotted key (None: not given) as a layer; `UsageError` where ``--set`` gives one another value."""
    given = {key: value for key, value in flags.items() if value is not None}
    for key, value in leaves(set_layer):
        if key in given and _place(key, given[key]) != _place(key, value):
            raise UsageError(f"{FLAGS.get(key, key)} and --set {key} contradict each other", "leave out one of the two")
    return as_layer(given)


def _place(key: str, value: object) -> object:
    """``value``, where it is a path in its absolute form."""
    return os.path.abspath(str(value)) if key in PLACES and os.path.isdir(str(value)) else value


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


#: Where something is, not what it is: whoever has moved it may say so, and digests tell whether it is the same.
PLACES = ("model", "data")

#: What may change while a stage is under way, as beginnings of keys: nothing that chooses rows, decides how many steps
#: there are, or changes how accuracy is measured.
LATER = (
    *("guards.", "engine.", "runtime.device", "runtime.threads", "sampler.max_new_tokens", "objective.mask_truncated"),
    *("train.lr", "train.warmup_steps", "train.schedule", "train.weight_decay", "train.grad_norm"),
    *(
        "train.fit",
        "train.micro_batch_tokens",
        "train.gradient_checkpointing",
        "train.checkpoint_every",
        "train.keep_checkpoints",
    ),
    *("train.eval_", "train.on_bad_row"),
    *judge_section.FREE,
)
#: What ``train.fit`` decides, once, where it is left to ``auto``; the run's recipe then has the decision.
FITTED = ("train.optimizer", "train.master", "teacher.storage", "second_phase.teacher.storage")
#: Why anything else may not, by the beginning of the key; the first that fits.
_UNDER_WAY = (
    ("tasks", "its stages are planned"),
    ("method", "the steps so far were trained by it"),
    ("suite", "the rows of its accuracy matrix would be measured on different items"),
    ("evaluation.", "the rows of its accuracy matrix would be measured differently"),
    ("judge.model", "the answers so far were not judged by it"),
    ("world", "its tasks and its suite are of that world"),
    ("seed", "the order of the rows follows from it"),
    ("lora.", "its adapter was made with it"),
    ("runtime.dtype", "its stages are measured in that precision"),
    ("train.optimizer", "the optimizer's state was made with it"),
    ("train.master", "the optimizer's state was made with it"),
    ("teacher", "the teacher's state was made with it"),
    ("train.best", "the models that it would choose from have not been kept"),
    ("train.stop_if_prior_drops", "the models that it would go back to have not been kept"),
    ("", "the steps so far were trained under it"),
)


#: Why the rows of a mid-training evaluation may not change where they decide something.
FLOOR = "train.stop_if_prior_drops compares with the base model's accuracy on as many items"


#: What to do to have a run judged by another model, or by one at all.
JUDGE_ALL = "have every stage judged by it first: sdft eval RUN --judge MODEL; the run then goes on with that judge"


def change(recipe: Recipe, assignments: list[str]) -> Recipe:
    """The recipe of a run that is under way with ``--set`` assignments; `UsageError` for a key that can no longer
    change."""
    changed = build([recipe.model_dump(mode="json"), parse_sets(assignments)], "--set")
    check_later(recipe, changed, lambda key: f"--set {key}")
    return changed


def check_later(old: Recipe, new: Recipe, name_of: Callable[[str], str]) -> None:
    """Refuse (`UsageError`) what can no longer change while a stage is under way; ``name_of`` says how a key was
    given."""
    for key in differences(old, new):
        later = key.removeprefix("second_phase.").startswith(LATER)
        if key in PLACES or key == "plugins" or (later and not _sizes_blocks(key, old) and not moves_floor(key, new)):
            continue
        reason = FLOOR if moves_floor(key, new) else reason_of(key.removeprefix("second_phase."), _UNDER_WAY)
        keys = ", ".join(k + "*" if k[-1] in "._" else k for k in LATER)
        hint = f"start a new run, continue the finished one with it (--continue), or set one of {keys}"
        if key == "judge.model":
            hint = JUDGE_ALL
        raise UsageError(f"{name_of(key)}: the run has started with another value, and {reason}", hint)


def _sizes_blocks(key: str, recipe: Recipe) -> bool:
    """Whether ``key`` decides how raw text is cut into rows."""
    return key == "sampler.max_new_tokens" and recipe.sampler.source == "corpus"


def moves_floor(key: str, recipe: Recipe) -> bool:
    """Whether ``key`` decides on how many items the accuracy is measured that stops a stage."""
    return key == "train.eval_limit" and recipe.train.stop_if_prior_drops is not None


def reason_of(key: str, reasons: Sequence[tuple[str, str]]) -> str:
    """The reason of the first beginning that fits ``key``; empty where none does."""
    return next((reason for begin, reason in reasons if key.startswith(begin)), "")


def differences(old: Recipe, new: Recipe) -> dict[str, list[Json]]:
    """The keys in which two recipes differ, each with its old and its new value."""
    before, after = (dict(leaves(recipe.model_dump(mode="json"))) for recipe in (old, new))
    both = {**before, **after}
    return {k: [before.get(k), after.get(k)] for k in both if before.get(k) != after.get(k)}


def unlike(old: Recipe, new: Recipe) -> dict[str, list[Json]]:
    """`differences`, without what ``train.fit`` has decided in one of the two and is left open in the other."""
    changed = differences(old, new)
    return {key: values for key, values in changed.items() if key not in FITTED or "auto" not in values}


def leaves(tree: Mapping[str, Json], prefix: str = "") -> Iterator[tuple[str, Json]]:
    """The settings of nested tables, each with its dotted path."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
