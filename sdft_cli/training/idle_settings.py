"""Settings that do nothing in a run, because another setting switches off what they set.

Only what is certain is listed: a key that is not here may have no effect either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sdft_cli.config.recipe import Recipe
from sdft_cli.training.objective import needs_of

#: Whether a recipe leaves a key without effect.
Idle = Callable[[Recipe], bool]


def _given_texts(r: Recipe) -> bool:
    return r.sampler.source in ("dataset", "corpus")


def _no_teacher(r: Recipe) -> bool:
    return r.sampler.source != "teacher" and not any("teacher" in needs_of(p.objective) for p in r.phases())


def _no_divergence(r: Recipe) -> bool:
    return r.objective.target == "token"


#: Beginnings of keys, when they have no effect, and why.
_IDLE: tuple[tuple[tuple[str, ...], Idle, str], ...] = (
    (("train.epochs",), lambda r: r.train.max_steps is not None, "train.max_steps={max_steps} decides"),
    (
        ("sampler.temperature", "sampler.top_p", "sampler.top_k"),
        _given_texts,
        "completions are not sampled: sampler.source is {source}",
    ),
    (("engine.prefetch",), lambda r: r.sampler.source != "student", "sampler.source is {source}"),
    (("lora.alpha", "lora.dropout", "lora.target_modules"), lambda r: r.lora.rank == 0, "lora.rank is 0"),
    (("teacher",), _no_teacher, "method {method} asks no teacher"),
    (("train.eval_limit", "train.best"), lambda r: r.train.eval_every == 0, "train.eval_every is 0"),
    (("train.keep_checkpoints",), lambda r: r.train.checkpoint_every == 0, "train.checkpoint_every is 0"),
    (
        ("objective.divergence", "objective.beta", "objective.entry_clip", "objective.token_clip"),
        _no_divergence,
        "the target of objective is the token",
    ),
    (("objective.beta",), lambda r: r.objective.divergence != "jsd", "objective.divergence is {divergence}"),
    (
        ("objective.support", "objective.tail"),
        lambda r: r.objective.divergence_top_k is None,
        "objective.divergence_top_k is not set",
    ),
    (("objective.importance",), lambda r: r.objective.importance_cap is None, "objective.importance_cap is not set"),
    (("guards.",), lambda r: not r.guards.enabled, "guards.enabled is false"),
)


def without_effect(recipe: Recipe, given: Iterable[str]) -> list[str]:
    """A line for each key of ``given``, by its dotted path, that has no effect in a run of ``recipe``."""
    facts = {
        "max_steps": recipe.train.max_steps,
        "source": recipe.sampler.source,
        "method": recipe.method,
        "divergence": recipe.objective.divergence,
    }
    lines = {}
    for key in given:
        for keys, idle, why in _IDLE:
            named = any(key == k or (key.startswith(k) and k.endswith(".")) or key.startswith(k + ".") for k in keys)
            if named and key != "guards.enabled" and key not in lines and idle(recipe):
                lines[key] = f"{key} has no effect here: {why.format(**facts)}"
    return list(lines.values())
