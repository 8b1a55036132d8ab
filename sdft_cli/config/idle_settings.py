"""Settings that have nothing to act on under the other settings: whoever gives one should hear that it changes nothing.

They are reported and not refused, because one recipe file serves several methods and engines. Only those are here whose
effect follows from the recipe alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from sdft_cli.config.model_locations import is_adapter, locate
from sdft_cli.config.recipe import Recipe


class _Idle(NamedTuple):
    """``keys`` (their beginnings) do nothing where ``when`` holds: ``because``."""

    keys: tuple[str, ...]
    when: Callable[[Recipe], bool]
    because: str


def _no_teacher(recipe: Recipe) -> bool:
    return recipe.objective.target == "token" and not recipe.objective.factors and recipe.sampler.source != "teacher"


_IDLE = (
    _Idle(
        ("lora.alpha", "lora.dropout", "lora.target_modules"),
        lambda r: r.lora.rank == 0 and not is_adapter(locate(r.model)),
        "lora.rank is 0",
    ),
    _Idle(("train.epochs",), lambda r: r.train.max_steps is not None, "train.max_steps overrides it"),
    _Idle(("train.eval_limit",), lambda r: r.train.eval_every == 0, "train.eval_every is 0"),
    _Idle(("objective.beta",), lambda r: r.objective.divergence != "jsd", "objective.divergence is not jsd"),
    _Idle(
        ("objective.support", "objective.tail"),
        lambda r: r.objective.divergence_top_k is None,
        "objective.divergence_top_k is not set",
    ),
    _Idle(
        ("objective.importance",), lambda r: r.objective.importance_cap is None, "objective.importance_cap is not set"
    ),
    _Idle(
        ("objective.divergence", "objective.logits_temperature", "objective.entry_clip", "objective.token_clip"),
        lambda r: r.objective.target == "token",
        "objective.target is token",
    ),
    _Idle(("teacher.", "views.teacher"), _no_teacher, "nothing in this recipe asks a teacher"),
    _Idle(
        ("sampler.temperature", "sampler.top_p", "sampler.top_k"),
        lambda r: r.sampler.source in ("dataset", "corpus"),
        "nothing is sampled for training",
    ),
    _Idle(("engine.prefetch",), lambda r: r.sampler.source != "student", "the student does not sample for training"),
    _Idle(
        ("engine.memory_share", "engine.sleep", "engine.base_url", "engine.weights_folder"),
        lambda r: r.engine.name == "transformers",
        "the engine transformers does not use it",
    ),
    _Idle(
        ("evaluation.harness.",), lambda r: r.suite in (None, "micro"), "no suite of the EleutherAI harness is watched"
    ),
    _Idle(("guards.",), lambda r: not r.guards.enabled, "guards.enabled is false"),
)


def idle(recipe: Recipe, given: Iterable[str]) -> Iterator[str]:
    """One line for each of the ``given`` keys that changes nothing under ``recipe``."""
    for key in given:
        for rule in _IDLE:
            if key != "guards.enabled" and _is_about(key, rule.keys) and rule.when(recipe):
                yield f"{key} changes nothing: {rule.because}"
                break


def _is_about(key: str, begins: Iterable[str]) -> bool:
    return any(key == begin or (begin.endswith(".") and key.startswith(begin)) for begin in begins)
