"""The pages of the documentation, and what tests read out of them: tables, links, code blocks and commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (".", "docs", "recipes", "recipes/ci", "data")
#: Every page. The changelog tells of the past, so its commands and keys need not exist any more.
PAGES = tuple(sorted(path.relative_to(ROOT).as_posix() for f in FOLDERS for path in (ROOT / f).glob("*.md")))
CURRENT = tuple(page for page in PAGES if page != "CHANGELOG.md")

#: What stands for something that a reader fills in: such text is no command to be checked.
_PLACEHOLDER = re.compile(r"[…|\[<]")


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """What stands under ``## heading``, up to the next heading of that level."""
    (body,) = re.findall(rf"^## {re.escape(heading)}$\n(.*?)(?=^## |\Z)", text, re.S | re.M)
    return str(body)


def tables(text: str) -> list[list[list[str]]]:
    """The body rows of every table, as cells; a ``|`` that belongs to a cell is written with a backslash."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.M)
    return [[_cells(line) for line in block.splitlines()[2:]] for block in blocks]


def _cells(line: str) -> list[str]:
    return [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def fenced(text: str) -> list[tuple[str, str]]:
    """(language, code) of the blocks fenced by three backticks, in their order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.S | re.M)


def lines(text: str) -> Iterator[tuple[str, bool]]:
    """Every line, and whether it is code: fenced, or indented and no item of a list. Fences themselves are left out."""
    fenced_in = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced_in = not fenced_in
        else:
            yield line, fenced_in or (line.startswith("    ") and not line.lstrip().startswith(("* ", "- ")))


def prose(text: str) -> str:
    """The page without its code blocks."""
    return "\n".join("" if code else line for line, code in lines(text))


def spans(text: str) -> list[str]:
    """Inline code, also that which goes over the end of a line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(text))]


def links(text: str) -> list[str]:
    """Targets of links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(text))


def anchors(text: str) -> set[str]:
    """What a link can point to on a page: its headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command on a page: lines of code blocks, and inline code."""
    for line in [line.strip() for line, code in lines(text) if code] + spans(text):
        for part in line.split("&&"):
            if not _PLACEHOLDER.search(part.partition("  #")[0]):
                yield from _words(part)


def _words(line: str) -> Iterator[list[str]]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # prose in backticks, with an apostrophe
        return
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if words:
        yield words
