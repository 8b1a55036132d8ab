"""The flags of `sdft prepare` that say who the teacher is and how it is asked; every one is None when not given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdft_cli.errors import UsageError

if TYPE_CHECKING:
    from sdft_cli.llm.types import TeacherOptions

Teacher = Annotated[
    str | None, typer.Option("--teacher", help="A model at an endpoint, or local:PATH, that writes what rows lack.")
]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="An OpenAI-compatible endpoint; OpenAI's own if not.")]
KeyEnv = Annotated[
    str | None, typer.Option("--api-key-env", help="The environment variable with the key; OPENAI_API_KEY if not.")
]
KeyFile = Annotated[Path | None, typer.Option("--api-key-file", help="A file outside the project with the key.")]
Samples = Annotated[
    int | None,
    typer.Option("--samples", min=1, help="At most so many samples a prompt (8); the first right one counts."),
]
AtOnce = Annotated[int | None, typer.Option("--at-once", min=1, help="Samples asked for in one request (1).")]
Temperature = Annotated[float | None, typer.Option("--temperature", min=0, help="Of the teacher's samples (1.0).")]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", min=1, help="Of a reply; the task's own, 8192 for questions, if not given."),
]
Send = Annotated[
    list[str] | None, typer.Option("--send", help="key=value for every request, such as top_p=0.95; repeatable.")
]
Questions = Annotated[
    int | None,
    typer.Option("--questions", min=1, help="Questions to write an article (100), in at most --samples requests."),
]
Resample = Annotated[bool | None, typer.Option("--resample", help="Ask for rows that have a demonstration, too.")]
Rpm = Annotated[int | None, typer.Option("--rpm", min=1, help="At most so many requests a minute.")]
Tpm = Annotated[int | None, typer.Option("--tpm", min=1, help="At most so many tokens a minute.")]
Concurrency = Annotated[
    int | None, typer.Option("--concurrency", min=1, help="At most so many requests open at once (64); less on 429s.")
]
MaxRequests = Annotated[int | None, typer.Option("--max-requests", min=1, help="Stop after so many requests.")]
MaxCost = Annotated[float | None, typer.Option("--max-cost", min=0, help="Stop before more is spent than this.")]
PriceIn = Annotated[float | None, typer.Option("--price-in", min=0, help="Price of a million prompt tokens.")]
PriceOut = Annotated[float | None, typer.Option("--price-out", min=0, help="Price of a million written tokens.")]
Timeout = Annotated[float | None, typer.Option("--timeout", min=0.1, help="Seconds to wait for a reply (600).")]
Batch = Annotated[
    str | None, typer.Option("--batch", help="submit or collect: by the endpoint's Batch API, later and cheaper.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what the teacher would be asked, send nothing, stop.")]


def teacher_options(flags: dict[str, Any]) -> TeacherOptions | None:
    """What the flags say together; None without ``--teacher``. Raises `UsageError` where they contradict each other.

    ``flags`` may hold others, too: those are taken that name a field of `TeacherOptions` and were given.
    """
    from dataclasses import fields

    from sdft_cli.llm.jobs import check
    from sdft_cli.llm.types import TeacherOptions

    model, send = flags["teacher"], flags["send"] or []
    names = [field.name for field in fields(TeacherOptions) if field.name not in ("model", "send")]
    given = {name: flags[name] for name in names if flags[name] is not None}
    if model is None:
        if stray := [*given, *(["send"] if send else []), *(["dry_run"] if flags["dry_run"] else [])]:
            flag = f"--{stray[0].replace('_', '-')}"
            raise UsageError(f"{flag} says how a teacher is asked, but there is no --teacher", "add --teacher MODEL")
        return None
    options = TeacherOptions(model, send=dict(map(_assignment, send)), **given)
    check(options)
    return options


def _assignment(text: str) -> tuple[str, Any]:
    """``top_p=0.95``: a key and a JSON value; what is no JSON is text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--send {text}: not of the form key=value", "write --send top_p=0.95")
    try:
        return key.strip(), json.loads(value)
    except ValueError:
        return key.strip(), value
