"""The flags of `sdft prepare` about the teacher: which model, how it is sampled, limits and prices."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdft_cli.errors import UsageError
from sdft_cli.types import Json

if TYPE_CHECKING:
    from sdft_cli.llm.types import TeacherOptions

Teacher = Annotated[
    str | None,
    typer.Option(
        "--teacher", help="Model at an endpoint, or local:PATH, that writes missing demonstrations or questions."
    ),
]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", help="OpenAI-compatible endpoint; OpenAI's own if not given.")
]
KeyEnv = Annotated[
    str | None,
    typer.Option(
        "--api-key-env",
        help="Environment variable with the key; if not given, OPENAI_API_KEY at OpenAI's own host and none elsewhere.",
    ),
]
KeyFile = Annotated[
    Path | None, typer.Option("--api-key-file", help="File with the key; it must lie outside the project.")
]
Samples = Annotated[
    int | None,
    typer.Option("--samples", min=1, help="Maximum samples per prompt (8); the first right one is kept."),
]
AtOnce = Annotated[int | None, typer.Option("--at-once", min=1, help="Samples per request (1), the API's n.")]
Temperature = Annotated[float | None, typer.Option("--temperature", min=0, help="Sampling temperature (1.0).")]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens", min=1, help="Maximum tokens per reply; by default the task's limit, 8192 for questions."
    ),
]
Send = Annotated[
    list[str] | None,
    typer.Option("--send", help="key=value to add to every request, such as top_p=0.95; repeatable."),
]
Questions = Annotated[
    int | None,
    typer.Option("--questions", min=1, help="Questions per article (100), from at most --samples requests."),
]
Resample = Annotated[
    bool | None, typer.Option("--resample", help="Also request demonstrations for rows that have one.")
]
Rpm = Annotated[int | None, typer.Option("--rpm", min=1, help="Maximum requests per minute.")]
Tpm = Annotated[int | None, typer.Option("--tpm", min=1, help="Maximum tokens per minute.")]
Concurrency = Annotated[
    int | None,
    typer.Option("--concurrency", min=1, help="Maximum requests open at once (64); fewer after a 429."),
]
MaxRequests = Annotated[int | None, typer.Option("--max-requests", min=1, help="Stop after this many requests.")]
MaxCost = Annotated[float | None, typer.Option("--max-cost", min=0, help="Stop before more than this is spent.")]
PriceIn = Annotated[float | None, typer.Option("--price-in", min=0, help="Price per million prompt tokens.")]
PriceOut = Annotated[float | None, typer.Option("--price-out", min=0, help="Price per million completion tokens.")]
Timeout = Annotated[float | None, typer.Option("--timeout", min=0.1, help="Seconds to wait for a response (600).")]
Batch = Annotated[
    str | None,
    typer.Option("--batch", help="submit or collect: use the endpoint's Batch API, which is slower and cheaper."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what the teacher would be asked and what it may cost; send nothing.")
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Ask about this many rows (or articles) per task and leave out the others."),
]
Show = Annotated[
    bool,
    typer.Option(
        "--show",
        help="Try the teacher: print prompts, replies and verdicts of --limit rows (5) per task; write no dataset.",
    ),
]
#: The rows that ``--show`` tries unless ``--limit`` is given.
TRIED = 5


def teacher_options(flags: Mapping[str, Any]) -> TeacherOptions | None:
    """The settings of the teacher; None without ``--teacher``. Raises `UsageError` if flags contradict each other.

    ``flags`` are all flags of the command by name, None if not given; those with the name of a field of
    `TeacherOptions` are used.
    """
    from dataclasses import fields

    from sdft_cli.llm.types import TeacherOptions

    model, send = flags["teacher"], flags["send"] or []
    names = [field.name for field in fields(TeacherOptions) if field.name not in ("model", "send", "ledger")]
    given = {name: flags[name] for name in names if flags[name] is not None}
    if model is None:
        if stray := [*given, *(name for name in ("send", "dry_run", "show") if flags[name])]:
            raise UsageError(f"{_flag(stray[0])} is about a teacher, but there is no --teacher", "add --teacher MODEL")
        return None
    if flags["demonstrations"] == "answer":
        raise UsageError("--demonstrations answer leaves nothing for a teacher to write", "leave out one of the two")
    if flags["show"]:
        _check_trial(flags)
        given.setdefault("limit", TRIED)
    options = TeacherOptions(model, send=dict(map(_assignment, send)), **given)
    options.check()
    _check_used(options, given)
    return options


def _check_used(options: TeacherOptions, given: Mapping[str, object]) -> None:
    """Refuse flags that are about another way to ask a teacher than the one that was chosen."""
    for name in ("api_key_env", "timeout"):
        if options.local is not None and name in given:
            raise UsageError(f"{_flag(name)} is for an endpoint, but the teacher is a local model", "leave it out")
    for name in ("rpm", "tpm", "concurrency"):
        if options.batch is not None and name in given:
            raise UsageError(f"{_flag(name)} paces single requests, and --batch sends files of them", "leave it out")


def _check_trial(flags: Mapping[str, Any]) -> None:
    """Refuse what contradicts ``--show``, which asks now."""
    if flags["dry_run"]:
        raise UsageError("--show asks the teacher, and --dry-run sends nothing", "leave out one of the two")
    if flags["batch"] is not None:
        raise UsageError("--show asks now, and --batch gets its replies hours later", "leave out one of the two")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _assignment(text: str) -> tuple[str, Json]:
    """``top_p=0.95``: a key and a JSON value; a value that is not JSON is text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--send {text}: not of the form key=value", "write --send top_p=0.95")
    try:
        return key.strip(), json.loads(value)
    except ValueError:
        return key.strip(), value
