"""Checks of a recipe's names and combinations, before any data is read or a model loads."""

from __future__ import annotations

from importlib.util import find_spec

from sdft_cli import plugins
from sdft_cli.config.recipe import METHODS, Method, Phase, Recipe
from sdft_cli.errors import UsageError, choose
from sdft_cli.losses import factors as token_factors
from sdft_cli.models import pretrained
from sdft_cli.models.engine import ENGINES
from sdft_cli.models.views import VIEWS
from sdft_cli.training.model_checks import check_bits, check_merging
from sdft_cli.training.objective import factors_of, needs_of
from sdft_cli.types import AUTO, Battery, Suite


def check_recipe(recipe: Recipe) -> Method:
    """Check names and combinations without reading any data; raises `UsageError`."""
    method: Method = METHODS.get(recipe.method)
    if not recipe.tasks:
        raise UsageError("no task named", f"add --tasks; tasks: {', '.join(plugins.TASKS.names())}")
    for task in recipe.tasks:
        plugins.task(task, recipe.data)
    if recipe.suite and isinstance(suite := plugins.SUITES.get(recipe.suite), Battery):
        suite.settings(recipe.evaluation)  # raises where something it needs is missing
    device, _ = pretrained.placement(recipe.runtime)  # raises for a device that is not there
    if recipe.runtime.attention == "flex_attention" and device.type == "cpu":
        raise UsageError("runtime.attention=flex_attention has no backward pass on a CPU", "set runtime.attention=auto")
    engine = ENGINES.get(recipe.engine.name)
    if ready := getattr(engine, "check", None):
        ready(recipe.engine)  # raises where something it needs is missing
    if recipe.train.optimizer == "adamw8bit" and find_spec("bitsandbytes") is None:
        raise UsageError("train.optimizer=adamw8bit needs bitsandbytes", "pip install 'sdft-cli[memory]'")
    for phase in recipe.phases():
        _check_phase(phase)
    _check_auto_limits(recipe)
    if recipe.train.stop_if_prior_drops is not None and not (recipe.suite and recipe.train.eval_every):
        raise UsageError(
            "train.stop_if_prior_drops watches the prior suite", "name a suite with --suite, and set train.eval_every"
        )
    if recipe.second_phase:
        _check_general(recipe, recipe.second_phase)
    check_bits(recipe)
    check_merging(recipe)
    return method


def _check_auto_limits(recipe: Recipe) -> None:
    """Raise `UsageError` where completions are to be as long as demonstrations suggest, and none belong to them."""
    if recipe.sampler.source == "corpus" and recipe.sampler.max_new_tokens == AUTO:
        hint = "name the tokens of a block, such as sampler.max_new_tokens=1024"
        raise UsageError("sampler.max_new_tokens=auto follows from demonstrations, and raw text has none", hint)
    second = recipe.second_phase
    if second and second.prompts == "general" and second.sampler.max_new_tokens == AUTO:
        problem = "second_phase.sampler.max_new_tokens=auto follows from demonstrations, and general prompts have none"
        raise UsageError(problem, "name a number of tokens")


def _check_phase(phase: Recipe) -> None:
    """Check one phase's names and combinations."""
    before_writing = [name for name, view in VIEWS.items() if not view.needs_attempts]
    for name, choices in ((phase.views.student, before_writing), (phase.views.teacher, list(VIEWS))):
        if name and name not in choices:
            raise choose("view", name, choices)
    goal, sampler = phase.objective, phase.sampler
    _check_factors(phase)
    _check_teacher(phase)
    tempered = sampler.temperature != goal.logits_temperature or sampler.top_p < 1 or sampler.top_k
    if goal.importance_cap and sampler.source == "student" and tempered:
        hint = "set objective.importance_cap=none, or sampler.temperature=1 top_p=1 top_k=0"
        raise UsageError("importance ratios need completions sampled from the full, untempered distribution", hint)
    if phase.train.batch < sampler.n:
        raise UsageError(f"train.batch={phase.train.batch} is below sampler.n={sampler.n}", "raise the batch")
    shows_attempts = phase.views.teacher is not None and VIEWS[phase.views.teacher].needs_attempts
    if shows_attempts and (phase.reward is None or sampler.source != "student"):
        raise UsageError(
            f"view {phase.views.teacher!r} shows graded completions", "set [reward] and sampler.source=student"
        )
    if goal.skip_first == "auto" and "teacher" not in needs_of(goal):
        raise UsageError(
            f"objective.skip_first=auto measures the KL to the teacher, and method {phase.method} asks none",
            "set objective.skip_first=0",
        )
    if goal.clip and not goal.factors:
        raise UsageError(
            "objective.clip bounds an advantage, and this objective has none", 'set factors=["group_advantage"]'
        )
    if phase.train.updates > 1 and sampler.source != "student":
        raise UsageError("train.updates reuses sampled completions", "set sampler.source=student, or train.updates=1")
    if phase.engine.prefetch and sampler.source == "student" and goal.importance_cap is None and goal.clip is None:
        hint = "set objective.importance_cap=2 (or a clip), or engine.prefetch=0"
        raise UsageError("prefetched completions are off-policy, and nothing in this recipe corrects for that", hint)


def _check_factors(phase: Recipe) -> None:
    """Every factor is there with sound settings, and has what it needs."""
    goal = phase.objective
    factors = factors_of(goal)
    token_factors.active(factors, goal.factor_settings, step=0)
    for name in goal.factor_settings:
        if name not in goal.factors:
            choices = list(goal.factors) or ["none"]
            raise UsageError(
                f"objective.factor_settings.{name}: this objective has no such factor",
                f"its factors: {', '.join(choices)}; name {name} in objective.factors, or leave its settings out",
            )
    if "reward" in needs_of(goal) and (phase.reward is None or phase.sampler.n < 2):
        raise UsageError(
            "advantages compare several graded completions of the same prompt", "set [reward] and sampler.n=8"
        )


def _check_teacher(phase: Recipe) -> None:
    goal, sampler = phase.objective, phase.sampler
    needs = "teacher" in needs_of(goal)
    if (needs or sampler.source == "teacher") and (phase.teacher is None or phase.views.teacher is None):
        raise UsageError("this objective needs a teacher", "set teacher = 'ema' and views.teacher")
    if goal.estimator != "analytic" and (goal.target, goal.divergence) != ("teacher", "reverse_kl"):
        raise UsageError(
            f"objective.estimator={goal.estimator!r} estimates the reverse KL to a teacher and nothing else",
            "set objective.target=teacher objective.divergence=reverse_kl, or estimator=analytic",
        )
    narrowed = goal.divergence_top_k or goal.entry_clip or goal.token_clip
    if goal.estimator != "analytic" and (narrowed or sampler.source != "student"):
        raise UsageError(
            f"objective.estimator={goal.estimator!r} needs the full vocabulary and the student's own completions",
            "drop divergence_top_k, entry_clip and token_clip, or set estimator=analytic",
        )
    if (
        sampler.source == "teacher"
        and phase.teacher
        and (phase.teacher.start, phase.teacher.update_rate) != ("student", 0)
    ):
        raise UsageError(
            "a teacher that writes once, before the stage, must be the frozen student", "set teacher = 'frozen'"
        )


def _check_general(recipe: Recipe, phase: Phase) -> None:
    if phase.prompts != "general" or recipe.general:
        return
    suite: Suite | Battery | None = plugins.SUITES.get(recipe.suite) if recipe.suite else None
    if suite is None or suite.general is None:
        raise UsageError(
            f"method {recipe.method}: the second phase needs general prompts, which belong to no task",
            "name a JSONL file of prompts with general = FILE (or --set general=FILE)",
        )
