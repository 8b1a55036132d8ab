"""The options of `sdft eval`, `compare` and `grade`, and what follows from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdft_cli.errors import UsageError, choose
from sdft_cli.types import AUTO, Json, NewTokens

if TYPE_CHECKING:
    from sdft_cli.config.judge_section import JudgeSettings
    from sdft_cli.llm.types import TeacherOptions

Target = Annotated[
    str | None, typer.Argument(help="A run folder, a model folder or a hub id; by default the newest run.")
]
Suite = Annotated[str | None, typer.Option(help="Suite to score; 'new' means the tasks' own test splits.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Maximum rows per task, and per part of a suite.")]
MaxNewTokens = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto", help="Maximum new tokens per answer to a task's question; auto: as demonstrations suggest."
    ),
]
PassAt = Annotated[str | None, typer.Option(help="Report pass@k of the tasks for these k, such as 1,8,32.")]
Samples = Annotated[
    int | None,
    typer.Option("--samples", min=1, help="Completions per question for --pass-at; by default the largest k."),
]
Benchmarks = Annotated[
    Path | None,
    typer.Option("--benchmarks", help="Folder with local benchmark files for the suite 'prior', instead of the hub."),
]
HarnessTasks = Annotated[
    str | None, typer.Option("--harness", help="Tasks of the EleutherAI harness: gsm8k,arc_easy:acc_norm,…")
]
HarnessArgs = Annotated[
    list[str] | None,
    typer.Option(
        "--harness-args",
        help="KEY=VALUE for the harness: num_fewshot=5, batch_size=64, max_length=4096, …; repeatable.",
    ),
]
AllowCode = Annotated[
    bool, typer.Option("--allow-code-execution", help="Run code that the model writes (HumanEval), in a sandbox.")
]
Also = Annotated[
    str | None,
    typer.Option(
        "--also",
        help="Further measurements, separated by commas. kl: divergence from the base model; oracle, ceiling: accuracy "
        "with the article, or the demonstration, in the prompt.",
    ),
]
Base = Annotated[
    str | None,
    typer.Option(
        "--base", help="Base model for --also kl, or where an adapter's base is now; by default the run's own."
    ),
]
MaxForgetting = Annotated[
    float | None,
    typer.Option(help="Gate: exit with 3 if earlier tasks fell from their best by more than this, such as 0.02."),
]
MaxPriorDrop = Annotated[
    float | None,
    typer.Option(help="Gate: exit with 3 if the prior suite fell below the base by more than this, such as 0.01."),
]
MinAccuracy = Annotated[
    list[str] | None, typer.Option(help="Gate: TASK=VALUE or SUITE=VALUE; exit with 3 if below; repeatable.")
]
Rule = Annotated[
    str | None,
    typer.Option(
        "--gate",
        help="How gates treat noise. point (default): the estimate decides; proven: a gate fails only if the whole "
        "95 % interval is beyond its limit; safe: it passes only if the whole interval is within.",
    ),
]
Junit = Annotated[Path | None, typer.Option(help="Write the gates' outcome to this file as JUnit XML.")]
Markdown = Annotated[Path | None, typer.Option(help="Write the gates' outcome to this file, for a pull request.")]
Out = Annotated[Path | None, typer.Option(help="Write these scores, with all items, to this folder.")]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Measure everything again and keep nothing for later evaluations.")
]
Targets = Annotated[
    list[str],
    typer.Argument(help="Two checkpoints to compare: runs, evaluation folders or models. With --by: two or more runs."),
]
By = Annotated[
    str | None,
    typer.Option(help="Compare groups of runs over seeds: 'method', or a key of the recipe such as train.lr."),
]
AtAccuracy = Annotated[
    str | None,
    typer.Option(
        "--at-accuracy",
        help="Compare prior change where recipes reach these validation accuracies, such as 0.6,0.8; by default at "
        "shares of what they all gain.",
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Combine scores although they are not comparable; the output warns of it.")
]
GradedTask = Annotated[str, typer.Argument(help="The task whose grader and test rows to use.")]
Completions = Annotated[Path, typer.Option(help='JSONL file with one completion per line: {"id": …, "completion": …}.')]


def judge_options(judge: str | None, base_url: str | None, key_env: str | None) -> TeacherOptions | None:
    """The judge's model and endpoint; None without ``--judge``."""
    from sdft_cli.config.judge_section import JudgeSettings, check_judge
    from sdft_cli.evaluation.run_judging import options_of

    settings = JudgeSettings(model=judge, base_url=base_url, key_env=key_env)
    check_judge(settings)
    return options_of(settings)


def judge_layer(judge: str | None, base_url: str | None, key_env: str | None, of_run: JudgeSettings) -> dict[str, Json]:
    """The recipe layer of the judge's flags over the judge ``of_run``; a model that is named anew keeps none of the
    run's endpoint, key or limits."""
    from sdft_cli.config.judge_section import check_judge

    given = {key: v for key, v in (("model", judge), ("base_url", base_url), ("key_env", key_env)) if v is not None}
    if judge not in (None, of_run.model):
        of_run = type(of_run)()
    check_judge(of_run.model_copy(update=given))
    return {"judge": {**of_run.model_dump(mode="json"), **given}} if given else {}


def diagnostics_of(also: str | None) -> tuple[str, ...]:
    """The diagnostics that ``--also`` names."""
    if also is None:
        return ()
    from sdft_cli.evaluation.diagnostics import DIAGNOSTICS

    names = tuple(dict.fromkeys(name.strip() for name in also.split(",") if name.strip()))
    for name in names:
        if name not in DIAGNOSTICS:
            raise choose("--also", name, tuple(DIAGNOSTICS))
    return names


def levels_of(at_accuracy: str | None) -> list[float]:
    """The accuracies of ``--at-accuracy`` in order, each once; none without the flag."""
    if at_accuracy is None:
        return []
    try:
        levels = [float(text) for text in at_accuracy.split(",")]
    except ValueError:
        levels = []
    if not levels or not all(0 < level <= 1 for level in levels):
        hint = "give accuracies above 0 and up to 1, separated by commas, such as 0.6,0.8"
        raise UsageError(f"--at-accuracy {at_accuracy} is no list of accuracies", hint)
    return sorted(set(levels))


def ks_of(pass_at: str | None, samples: int | None) -> tuple[int, ...]:
    """The k of ``--pass-at``, all of which ``--samples`` must allow."""
    from sdft_cli.stats.pass_at_k import MOST

    if pass_at is None:
        if samples is not None:
            raise UsageError("--samples is only used for pass@k", "add --pass-at 1,8")
        return ()
    try:
        ks = tuple(sorted({int(part) for part in pass_at.split(",")}))
    except ValueError as error:
        raise UsageError(f"--pass-at {pass_at}: not whole numbers", "write --pass-at 1,8,32") from error
    if not 1 <= ks[0] <= ks[-1] <= MOST:
        raise UsageError(f"--pass-at {pass_at}: k must be between 1 and {MOST}", "write --pass-at 1,8,32")
    if samples is not None and samples < ks[-1]:
        raise UsageError(
            f"pass@{ks[-1]} needs at least {ks[-1]} samples, not {samples}", f"write --samples {ks[-1]} or more"
        )
    return ks


def new_tokens_of(text: str | None) -> NewTokens | None:
    """What ``--max-new-tokens`` asks for."""
    if text is None or text == AUTO:
        return None if text is None else AUTO
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--max-new-tokens {text}: not a number of tokens from 1", f"such as 64, or {AUTO}")
    return int(text)


def suite_of(suite: str | None, harness: str | None) -> str | None:
    """The suite that was chosen: ``--harness`` stands for one."""
    if harness is None:
        return suite
    if suite not in (None, "harness"):
        raise UsageError(f"--suite {suite} and --harness are two suites", "evaluate one after the other")
    return "harness"


def recipe_layer(
    benchmarks: Path | None,
    harness: str | None,
    arguments: list[str],
    allow_code: bool,
    sets: list[str],
    engine: str | None = None,
) -> dict[str, Json]:
    """A recipe layer made of these flags; it may only hold what decides how something is measured."""
    from sdft_cli.config.overrides import flag_layer, parse_sets
    from sdft_cli.config.toml_tables import merge

    section = _harness_section(arguments)
    if benchmarks:
        section["benchmarks"] = str(benchmarks.absolute())
    if harness is not None:
        section["tasks"] = [name.strip() for name in harness.split(",") if name.strip()]
    if allow_code:
        section["allow_code_execution"] = True
    layer = parse_sets(sets)
    layer = merge(flag_layer({"engine.name": engine}, layer), layer)
    if other := set(layer) - {"evaluation", "engine", "runtime", "judge"} - ({"lora"} if _sets_bits(layer) else set()):
        raise UsageError(
            f"--set {min(other)}: has no effect, as nothing is trained here",
            "set evaluation.*, engine.*, runtime.*, judge.* or lora.bits",
        )
    return merge(layer, {"evaluation": {"harness": section}} if section else {})


def _sets_bits(layer: dict[str, Json]) -> bool:
    """Whether all that is set of an adapter are the bits of its base."""
    section = layer.get("lora")
    return isinstance(section, dict) and set(section) == {"bits"}


def _harness_section(arguments: list[str]) -> dict[str, Json]:
    """``--harness-args``: keys of the recipe's section ``evaluation.harness``; others go to the harness itself."""
    from sdft_cli.config.overrides import as_layer, split_assignment, value_of
    from sdft_cli.config.recipe import Harness

    pairs = dict(split_assignment(text, "--harness-args") for text in arguments)
    section = {key: value_of(value) for key, value in pairs.items() if key in Harness.model_fields}
    passed_on = as_layer({key: value_of(value) for key, value in pairs.items() if key not in section})
    return section | ({"args": passed_on} if passed_on else {})
