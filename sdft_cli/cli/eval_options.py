"""The flags of `sdft eval`: how harness and judge are asked, what is measured besides, and the gates for CI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdft_cli.errors import UsageError, choose

if TYPE_CHECKING:
    from sdft_cli.llm.types import TeacherOptions

Benchmarks = Annotated[
    Path | None, typer.Option("--benchmarks", help="Folder of local benchmark files for the suite prior, not the hub.")
]
HarnessTasks = Annotated[
    str | None, typer.Option("--harness", help="Tasks of the EleutherAI harness: gsm8k,arc_easy:acc_norm,…")
]
HarnessArgs = Annotated[
    list[str] | None,
    typer.Option("--harness-args", help="KEY=VALUE: num_fewshot=5, batch_size=64, max_length=4096, …; repeatable."),
]
AllowCode = Annotated[
    bool, typer.Option("--allow-code-execution", help="Run code that the model writes (HumanEval), in a sandbox.")
]
Judge = Annotated[
    str | None, typer.Option("--judge", help="A model at an endpoint, or local:PATH, that scores open answers.")
]
JudgeUrl = Annotated[str | None, typer.Option("--judge-base-url", help="The judge's endpoint; OpenAI's own if not.")]
JudgeKeyEnv = Annotated[
    str | None, typer.Option("--judge-key-env", help="The environment variable with its key; OPENAI_API_KEY if not.")
]
Also = Annotated[
    str | None,
    typer.Option("--also", help="kl: divergence from the base; oracle, ceiling: accuracy with article, demonstration."),
]
Base = Annotated[str | None, typer.Option("--base", help="The base model for --also kl; a run's own if not.")]
Samples = Annotated[
    int | None, typer.Option("--samples", min=1, help="Completions of each question for --pass-at; the largest k.")
]
MaxForgetting = Annotated[
    float | None, typer.Option(help="Exit with 3 if earlier tasks fell from their best by more, such as 0.02.")
]
MaxPriorDrop = Annotated[
    float | None, typer.Option(help="Exit with 3 if the prior suite fell by more since the base, such as 0.01.")
]
MinAccuracy = Annotated[
    list[str] | None, typer.Option(help="TASK=VALUE (or a suite): exit with 3 if below; repeatable.")
]
Gate = Annotated[
    str, typer.Option(help="point: the estimate decides; proven: breaks beyond noise; safe: passes beyond noise.")
]


def judge_options(judge: str | None, base_url: str | None, key_env: str | None) -> TeacherOptions | None:
    """Who judges; None without ``--judge``."""
    if judge is None:
        if base_url or key_env:
            raise UsageError("--judge-base-url and --judge-key-env are for a judge", "name one with --judge")
        return None
    from sdft_cli.llm.types import TeacherOptions

    options = TeacherOptions(judge, base_url, key_env or "OPENAI_API_KEY", samples=1, temperature=0.0)
    if options.local is not None and (base_url or key_env):
        raise UsageError("the judge is a local model: it has no endpoint and no key")
    return options


def kinds(also: str | None) -> tuple[str, ...]:
    """The contrasts that ``--also`` names."""
    if also is None:
        return ()
    from sdft_cli.evaluation.contrasts import KINDS

    names = tuple(dict.fromkeys(name.strip() for name in also.split(",") if name.strip()))
    for name in names:
        if name not in KINDS:
            raise choose("--also", name, KINDS)
    return names


def suite_of(suite: str | None, harness: str | None) -> str | None:
    """The suite that is asked for: ``--harness`` is one."""
    if harness is None:
        return suite
    if suite not in (None, "harness"):
        raise UsageError(f"--suite {suite} and --harness are two suites", "evaluate one after the other")
    return "harness"


def layer(
    benchmarks: Path | None, harness: str | None, arguments: list[str], allow_code: bool, sets: list[str]
) -> dict[str, Any]:
    """What the flags say as a layer of a recipe; only what decides how something is measured may be in it."""
    from sdft_cli.config.overrides import parse_sets
    from sdft_cli.config.tables import merge

    asked = _harness_layer(arguments)
    if benchmarks:
        asked["benchmarks"] = str(benchmarks.absolute())
    if harness is not None:
        asked["tasks"] = [name.strip() for name in harness.split(",") if name.strip()]
    if allow_code:
        asked["allow_code_execution"] = True
    said = parse_sets(sets)
    if other := set(said) - {"evaluation", "engine", "runtime"}:
        raise UsageError(f"--set {min(other)}: nothing is trained here", "set evaluation.*, engine.* or runtime.*")
    return merge(said, {"evaluation": {"harness": asked}} if asked else {})


def _harness_layer(arguments: list[str]) -> dict[str, Any]:
    """``--harness-args``: keys of the recipe's section, and anything that the harness itself takes."""
    from sdft_cli.config.overrides import as_layer, split_assignment, value_of
    from sdft_cli.config.recipe import Harness

    pairs = dict(split_assignment(text, "--harness-args") for text in arguments)
    own = {key: value_of(value) for key, value in pairs.items() if key in Harness.model_fields}
    more = as_layer({key: value_of(value) for key, value in pairs.items() if key not in own})
    return own | ({"args": more} if more else {})
