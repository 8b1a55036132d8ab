"""`sdft eval`, `sdft compare` and `sdft grade`: options to one function each."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING

from sdft_cli.cli import eval_options as option
from sdft_cli.cli.eval_options import Force
from sdft_cli.cli.options import Data, Json, Judge, JudgeKeyEnv, JudgeUrl, Plugin, Sampling, Sets, Tasks, split
from sdft_cli.errors import GateError, UsageError

if TYPE_CHECKING:
    from sdft_cli.evaluation.gate_reports import GateSet
    from sdft_cli.evaluation.request import EvalRequest


def evaluate(
    target: option.Target = None,
    suite: option.Suite = None,
    tasks: Tasks = None,
    data: Data = None,
    limit: option.Limit = None,
    max_new_tokens: option.MaxNewTokens = None,
    pass_at: option.PassAt = None,
    samples: option.Samples = None,
    benchmarks: option.Benchmarks = None,
    harness: option.HarnessTasks = None,
    harness_args: option.HarnessArgs = None,
    allow_code_execution: option.AllowCode = False,
    judge: Judge = None,
    judge_base_url: JudgeUrl = None,
    judge_key_env: JudgeKeyEnv = None,
    also: option.Also = None,
    base: option.Base = None,
    engine: Sampling = None,
    sets: Sets = None,
    max_forgetting: option.MaxForgetting = None,
    max_prior_drop: option.MaxPriorDrop = None,
    min_accuracy: option.MinAccuracy = None,
    gate: option.Rule = None,
    junit: option.Junit = None,
    markdown: option.Markdown = None,
    out: option.Out = None,
    no_cache: option.NoCache = False,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Score a run's final model, or any model, on tasks and suites. With gates: exit with 3 if one of them fails."""
    from sdft_cli.config.toml_tables import merge
    from sdft_cli.evaluation.gate_reports import gates_of
    from sdft_cli.evaluation.request import EvalRequest
    from sdft_cli.evaluation.target import Target

    gates = gates_of(max_forgetting, max_prior_drop, min_accuracy or [], gate, junit, markdown)
    named = Target.named(target)  # first: a run's plug-ins are loaded with it, before names are checked
    settings = option.recipe_layer(benchmarks, harness, harness_args or [], allow_code_execution, sets or [], engine)
    request = EvalRequest(
        target=named,
        suite=option.suite_of(suite, harness),
        tasks=tuple(split(tasks) or ()),
        data=data,
        limit=limit,
        max_new_tokens=option.new_tokens_of(max_new_tokens),
        pass_at=option.ks_of(pass_at, samples),
        samples=samples,
        out=out,
        cache=not no_cache,
        settings=merge(option.judge_layer(judge, judge_base_url, judge_key_env, named.recipe.judge), settings),
        also=option.diagnostics_of(also),
        base=base,
    )
    _evaluate(request, gates, json)


def _evaluate(request: EvalRequest, gates: GateSet, json: bool) -> None:
    from sdft_cli.commands.evaluate import evaluate as run_evaluate
    from sdft_cli.evaluation.gate_reports import Undecided, show
    from sdft_cli.evaluation.printing import print_scores

    try:
        scores, report = run_evaluate(request, gates)
    except Undecided as undecided:
        print(jsonlib.dumps(undecided.scores)) if json else print_scores(undecided.scores)
        raise
    if json:
        print(jsonlib.dumps(scores))
    else:
        print_scores(scores)
        if report:
            show(report)
    if report and report.failed:
        raise GateError("; ".join(map(str, report.failed)), "train again, or change the limit: see `sdft eval --help`")


def compare(
    targets: option.Targets,
    by: option.By = None,
    at_accuracy: option.AtAccuracy = None,
    force: Force = False,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Did a checkpoint change, on the same items? With --by: is a method better, over seeds?"""
    from sdft_cli.commands import compare as command

    if by is None and len(targets) != 2:
        raise UsageError(
            f"compare takes two checkpoints, not {len(targets)}", "add --by method to compare many runs over seeds"
        )
    levels = option.levels_of(at_accuracy)
    if by:
        groups = command.compare_seeds([Path(t) for t in targets], by, force, levels)
        print(jsonlib.dumps(groups)) if json else command.show_seeds(groups)
    else:
        checkpoints = command.compare(targets[0], targets[1], force, levels)
        print(jsonlib.dumps(checkpoints)) if json else command.show(checkpoints)


def grade(
    task: option.GradedTask,
    completions: option.Completions,
    judge: Judge = None,
    judge_base_url: JudgeUrl = None,
    judge_key_env: JudgeKeyEnv = None,
    data: Data = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Grade completions that were made elsewhere; several lines with one id also give pass@k."""
    from sdft_cli.commands.grade import grade as run_grade
    from sdft_cli.commands.grade import show

    judge_with = option.judge_options(judge, judge_base_url, judge_key_env)
    report = run_grade(task, completions, data or Path("data"), judge_with)
    if json:
        print(jsonlib.dumps(report))
    else:
        show(report)
