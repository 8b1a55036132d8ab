"""Every command, flag and recipe key that the pages print exists. Commands are parsed here, not run."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from support.pages import CURRENT, ROOT, commands, read, spans
from typer.main import get_command

from sdft_cli import plugins
from sdft_cli.cli.app import app
from sdft_cli.config.overrides import parse_sets, path_of
from sdft_cli.config.recipe import build, paths

SDFT: Any = get_command(app)
RECIPES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "recipes").glob("*.toml"))
KEYS = set(paths())
SECTIONS = {key.split(".")[0] for key in KEYS if "." in key}
MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


def text_of(page: str) -> str:
    """A page; of a recipe, the commands in its comments."""
    if page.endswith(".md"):
        return read(page)
    comments = re.findall(r"^#\s+(sdft .*?)(?:  .*)?$", read(page), re.M)  # what follows two spaces explains it
    return "\n".join(f"    {comment}" for comment in comments)


def options(group: Any) -> Iterator[str]:
    """All flags of a command and of those below it."""
    for parameter in group.params:
        yield from (name for name in parameter.opts if name.startswith("--"))
    for command in getattr(group, "commands", {}).values():
        yield from options(command)


def switches(command: Any) -> Iterator[str]:
    """The flags of a command that take no value."""
    for parameter in command.params:
        yield from parameter.opts if getattr(parameter, "is_flag", False) else ()


OPTIONS = {*options(SDFT), "--help"}


def parse(words: list[str], group: Any = SDFT) -> dict[str, Any]:
    """The values of a command's parameters. Raises what typer raises.

    Text may mention a command without its arguments, or end with a flag whose value does not matter there.
    """
    if not words or words[0].startswith("--"):
        assert set(words) <= OPTIONS, f"no such option of sdft: {words}"
        return {}
    name, *rest = words
    assert name in group.commands, f"no such command: {name}"
    command = group.commands[name]
    if hasattr(command, "commands"):
        return parse(rest, command)
    rest = [word for word in rest if word != "--help"]
    if rest and rest[-1].startswith("--") and rest[-1] in set(options(command)) - {*switches(command)}:
        rest = rest[:-1]
    return dict(command.make_context(name, rest).params) if rest else {}


def check_values(values: dict[str, Any]) -> None:
    """Names and keys that a command line mentions."""
    build([parse_sets(list(values.get("sets") or ()))])
    for assignment in values.get("grid") or ():
        path_of(assignment.partition("=")[0], "--grid")
    for kind in ("method", "engine", "suite"):
        name = values.get(kind)
        if name and not values.get("plugin") and name != "new":
            assert name in plugins.room(kind.upper()).names(), f"no such {kind}: {name}"
    recipe = str(values.get("recipe") or "")
    assert not recipe.startswith("recipes/") or (ROOT / recipe).is_file(), f"no such recipe: {recipe}"


@pytest.mark.parametrize("page", [*CURRENT, *RECIPES])
def test_sdft_commands_parse(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "load_file", lambda path: [])  # the page shows the file, it is not here
    for words in commands(text_of(page)):
        if words[0] == "sdft":
            try:
                check_values(parse(words[1:]))
            except Exception as error:
                pytest.fail(f"{page}: {' '.join(words)}: {getattr(error, 'message', error)}")


@pytest.mark.parametrize("page", CURRENT)
def test_make_targets_and_scripts_exist(page: str) -> None:
    for words in commands(text_of(page)):
        if words[0] == "make":
            targets = {word for word in words[1:] if "=" not in word}
            assert targets <= MAKE_TARGETS, f"{page}: {' '.join(words)}"
        if words[0] in ("python", "sh", "bash") and len(words) > 1:
            assert (ROOT / words[1]).is_file(), f"{page}: {' '.join(words)}"


@pytest.mark.parametrize("page", CURRENT)
def test_flags_and_keys_in_the_text_exist(page: str) -> None:
    for span in spans(text_of(page)):
        words = span.split()
        if words and words[0].startswith("--"):
            flags = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert flags <= OPTIONS, f"{page}: `{span}`"
            assignments = [value for flag, value in pairwise(words) if flag == "--set"]
        else:
            assignments = [span] if re.fullmatch(r"[a-z_]+(\.[a-z_]+)*=[^=\s(\[]+", span) else []
        try:
            build([parse_sets(assignments)])
        except Exception as error:
            pytest.fail(f"{page}: `{span}`: {getattr(error, 'message', error)}")
        if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+(?<!\.py|\.sh|\.md)", span) and span.split(".")[0] in SECTIONS:
            assert span in KEYS, f"{page}: no key {span} in a recipe"


def test_commands_are_found_in_blocks_and_in_the_text() -> None:
    page = "Use `sdft eval\nRUN` or `sdft data list|stats`:\n\n    A=1 sdft train x.toml --set lr=1  # why\n\n"
    page += "1. item\n\n       sdft prepare && sdft report\n\n```sh\nmake demo\n```\n\n    sdft data show [--row ID]\n"
    words = sorted(" ".join(words) for words in commands(page))
    assert words == ["make demo", "sdft eval RUN", "sdft prepare", "sdft report", "sdft train x.toml --set lr=1"]


WRONG = ["trian", "train --taks a", "data lsit", "train --set learning=1", "train --method sdtf", "eval RUN --limit x"]


@pytest.mark.parametrize("line", WRONG)
def test_a_command_that_does_not_exist_is_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|unknown|valid integer"):
        check_values(parse(line.split()))


@pytest.mark.parametrize("line", ["", "--version", "data", "train --help", "eval --judge", "train --resume --out RUN"])
def test_a_mention_of_a_command_is_enough(line: str) -> None:
    check_values(parse(line.split()))
