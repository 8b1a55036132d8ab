"""The command line: one file per command (or group), put together here. Nothing heavy is imported before flags are
checked, so `sdft --help` is quick."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sdft_cli.cli import endings, ranks, streams
from sdft_cli.cli.datasets import data
from sdft_cli.cli.demo import demo
from sdft_cli.cli.evaluate import compare, evaluate, grade
from sdft_cli.cli.lists import graders, methods, tasks
from sdft_cli.cli.prepare import prepare
from sdft_cli.cli.probe import probe
from sdft_cli.cli.report import report
from sdft_cli.cli.sweep import sweep
from sdft_cli.cli.train import train
from sdft_cli.runs import signals

app = typer.Typer(
    name="sdft",
    cls=endings.Commands,
    help="Teach a language model new skills by self-distillation, and measure that it keeps the old ones.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(demo)
app.command()(prepare)
app.add_typer(data)
app.command()(probe)
app.command()(train)
app.command()(sweep)
app.command(name="eval")(evaluate)
app.command()(compare)
app.command()(grade)
app.command()(report)
app.command()(methods)
app.command()(tasks)
app.command()(graders)


def _version(value: bool) -> None:
    if value:
        from sdft_cli import __version__

        print(f"sdft {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """Entry point; exits with the code of `endings.run`."""
    with streams.tolerant(), signals.as_interrupts():
        signals.follow_parent()
        code = ranks.run(app) if ranks.several() else endings.run(app)
    sys.exit(code)


if __name__ == "__main__":
    main()
