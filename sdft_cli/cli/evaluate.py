"""`sdft eval`, `sdft compare` and `sdft grade`: flags to one function each. Parts of the command line with a file of
their own, for one of them has many flags."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from sdft_cli.cli import eval_options as flag
from sdft_cli.cli.options import Data, Json, Plugin, Sampling, Sets, Tasks, split, with_engine
from sdft_cli.errors import GateError, UsageError

Force = Annotated[
    bool, typer.Option("--force", help="Put numbers together that were not measured alike; the output says so.")
]


def evaluate(
    target: Annotated[str | None, typer.Argument(help="A run folder, a model folder or a hub id; newest run.")] = None,
    suite: Annotated[str | None, typer.Option(help="Suite to score; 'new' means the tasks' own test splits.")] = None,
    tasks: Tasks = None,
    data: Data = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many rows a task.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest completion of a task's question.")] = None,
    pass_at: Annotated[str | None, typer.Option(help="pass@k of the tasks for these k, such as 1,8,32.")] = None,
    samples: flag.Samples = None,
    benchmarks: flag.Benchmarks = None,
    harness: flag.HarnessTasks = None,
    harness_args: flag.HarnessArgs = None,
    allow_code_execution: flag.AllowCode = False,
    judge: flag.Judge = None,
    judge_base_url: flag.JudgeUrl = None,
    judge_key_env: flag.JudgeKeyEnv = None,
    also: flag.Also = None,
    base: flag.Base = None,
    engine: Sampling = None,
    sets: Sets = None,
    max_forgetting: flag.MaxForgetting = None,
    max_prior_drop: flag.MaxPriorDrop = None,
    min_accuracy: flag.MinAccuracy = None,
    gate: flag.Gate = "point",
    junit: Annotated[Path | None, typer.Option(help="Write the gates' verdict as JUnit XML.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the gates' verdict for a pull request.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for these scores and all items, together.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Measure all anew, and keep nothing.")] = False,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Score a run's final model, or any model, on tasks and suites; as a gate for CI, exit with 3 if it broke."""
    from sdft_cli import plugins
    from sdft_cli.evaluation import ci, gates

    for path in plugin or []:
        plugins.load_file(path)
    suite = flag.suite_of(suite, harness)
    if suite and suite != "new":
        plugins.SUITES.get(suite)
    settings = flag.layer(benchmarks, harness, harness_args or [], allow_code_execution, with_engine(sets, engine))
    wanted = ci.gates_of(max_forgetting, max_prior_drop, min_accuracy or [], gate)
    if (junit or markdown) and not wanted:
        raise UsageError("--junit and --markdown tell of gates, and none is set", "add --max-forgetting 0.02, …")
    ks = _ks(pass_at, samples)
    from sdft_cli.commands import evaluate as verb
    from sdft_cli.evaluation.printing import print_scores

    names = tuple(split(tasks) or ())
    asked = verb.Asked(
        *(target, suite, names, data, limit, max_new_tokens, ks, samples, out, not no_cache, settings),
        *(flag.judge_options(judge, judge_base_url, judge_key_env), flag.kinds(also), base),
    )
    evaluator = verb.Evaluator(asked)
    ci.check_stages(wanted, evaluator.whole_run)
    ci.check_names(wanted, evaluator.names)
    scores, run = evaluator.story()
    verdict = ci.verdict(evaluator.name, wanted, gate, scores, run) if wanted else None
    if verdict:
        ci.write(verdict, scores, junit, markdown)
        scores["gates"] = gates.as_json(verdict)
    if json:
        print(jsonlib.dumps(scores))
    else:
        print_scores(scores)
        ci.show(verdict)
    if verdict and verdict.broken:
        raise GateError("; ".join(map(str, verdict.broken)), "train again, or move the gate: see `sdft eval --help`")


def _ks(text: str | None, samples: int | None) -> tuple[int, ...]:
    """The k of ``--pass-at``, all of them within what ``--samples`` can tell."""
    from sdft_cli.stats.pass_at_k import MOST

    if text is None:
        if samples is not None:
            raise UsageError("--samples is for pass@k", "add --pass-at 1,8")
        return ()
    try:
        ks = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as error:
        raise UsageError(f"--pass-at {text}: not whole numbers", "write --pass-at 1,8,32") from error
    if not 1 <= ks[0] <= ks[-1] <= MOST:
        raise UsageError(f"--pass-at {text}: k is 1 to {MOST}", "write --pass-at 1,8,32")
    if samples is not None and samples < ks[-1]:
        raise UsageError(f"pass@{ks[-1]} takes {ks[-1]} samples, not {samples}", f"say --samples {ks[-1]} or more")
    return ks


def compare(
    targets: Annotated[
        list[str], typer.Argument(help="Two checkpoints: runs, evaluation folders or models; with --by any runs.")
    ],
    by: Annotated[
        str | None, typer.Option(help="Compare over seeds: 'method', or a key of the recipe such as train.lr.")
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Did a checkpoint change on the same items? With --by: is a method better, over seeds?"""
    from sdft_cli.commands import compare as verb

    if by is None and len(targets) != 2:
        raise UsageError(
            f"compare takes two checkpoints, not {len(targets)}", "add --by method to compare many runs over seeds"
        )
    facts = (
        verb.compare_seeds([Path(t) for t in targets], by, force) if by else verb.compare(targets[0], targets[1], force)
    )
    if json:
        print(jsonlib.dumps(facts))
    elif by:
        verb.show_seeds(facts)
    else:
        verb.show(facts)


def grade(
    task: Annotated[str, typer.Argument(help="The task whose scorer and test rows to use.")],
    completions: Annotated[Path, typer.Option(help='JSONL: {"id": …, "completion": …} a line.')],
    judge: flag.Judge = None,
    judge_base_url: flag.JudgeUrl = None,
    judge_key_env: flag.JudgeKeyEnv = None,
    data: Data = None,
    plugin: Plugin = None,
    json: Json = False,
) -> None:
    """Score completions that were made elsewhere; several lines of one id give pass@k."""
    from sdft_cli import plugins
    from sdft_cli.commands.grade import grade as run_grade
    from sdft_cli.commands.grade import show

    for path in plugin or []:
        plugins.load_file(path)
    facts = run_grade(task, completions, data or Path("data"), flag.judge_options(judge, judge_base_url, judge_key_env))
    if json:
        print(jsonlib.dumps(facts))
    else:
        show(facts)
