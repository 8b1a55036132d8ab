"""Numbers as text, and text that cannot command what shows it."""

import io
import sys
import unicodedata

import pytest
from rich.console import Console

from sdft_cli import console
from sdft_cli.cli import streams

#: Clears the screen, renames the window, rings, hides what stands before it, turns words around.
HOSTILE = "a\x1b[2J\x1b]0;own\x07b\rc\x9b31m\u202ed\u2066e\x00\x7f"


def test_numbers():
    assert console.number(0.9166) == "0.917" and console.number(None) == "-"
    assert console.number(0.02, signed=True) == "+0.020" and console.number(-0.0001, signed=True) == "0.000"
    assert console.span((0.1, 0.25)) == "[0.100, 0.250]" and console.span(None) == ""
    assert console.span((-0.1, 0.25), signed=True) == "[-0.100, +0.250]"


def test_clock():
    assert [console.clock(s) for s in (0, 42.4, 723, 3909, -1)] == ["0:00", "0:42", "12:03", "1:05:09", "0:00"]


# --- text of others ------------------------------------------------------------------------------------------------


def commands_in(text: str) -> list[str]:
    """Characters that Unicode calls controls, or that change the direction of text; line ends and tabs apart."""
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return [
        c
        for c in text
        if unicodedata.bidirectional(c) in turning or (unicodedata.category(c) == "Cc" and c not in "\n\t")
    ]


def test_text_is_shown_and_commands_nothing():
    shown = console.visible(HOSTILE)
    assert commands_in(HOSTILE) and not commands_in(shown)
    assert shown == r"a\x1b[2J\x1b]0;own\x07b\rc\x9b31m\u202ed\u2066e\x00\x7f"
    assert console.visible("half \ud800 a character") == r"half \ud800 a character"


def test_what_only_looks_odd_is_left_as_it_is():
    for text in ("שלום مرحبا नमस्ते", "می\u200cخواهم", "👩\u200d🔬 e\u0301", "a\tb\nc\r\nd", "\xa0«»"):
        assert console.visible(text) == text


def test_no_control_character_is_left_out():
    every = "".join(map(chr, range(0x3000)))
    assert not commands_in(console.visible(every).replace("\r\n", "\n"))


def test_tables_and_lines_of_rich_show_it_too(monkeypatch: pytest.MonkeyPatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    console.out.print(console.plain_table(["name", "text"], [["x", HOSTILE]], width=200))
    console.out.print(HOSTILE, markup=False)
    assert not commands_in(stream.getvalue()) and r"\x1b[2J" in stream.getvalue()


def test_print_shows_it_and_rich_keeps_its_colours(monkeypatch: pytest.MonkeyPatch):
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with streams.tolerant():
        print(HOSTILE)
        print(HOSTILE, file=sys.stderr)
        Console(force_terminal=True, color_system="standard").print("[red]colour[/red]")
    first, colour = out.getvalue().splitlines()
    assert first == console.visible(HOSTILE) and colour.startswith("\x1b[31mcolour")
    assert commands_in(err.getvalue()) == ["\r"]  # which progress bars need
