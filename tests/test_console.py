"""Numbers as text, and training progress on and off a terminal."""

from __future__ import annotations

import io
import re

from rich.console import Console

from sdft_cli import console


def test_numbers():
    assert console.number(0.9166) == "0.917" and console.number(None) == "-"
    assert console.number(0.02, signed=True) == "+0.020" and console.number(-0.0001, signed=True) == "0.000"
    assert console.span((0.1, 0.25)) == "[0.100, 0.250]" and console.span(None) == ""
    assert console.span((-0.1, 0.25), signed=True) == "[-0.100, +0.250]"


def row(step, **more):
    return {
        "step": step,
        "loss": 0.5,
        "kl": 0.25,
        "entropy": 1.5,
        "completion_tokens": 12.0,
        "tokens_per_second": 3000,
    } | more


def display(terminal=False, quiet=False):
    text = io.StringIO()
    target = Console(file=text, force_terminal=terminal, width=80, no_color=True)
    return console.TrainingDisplay(quiet=quiet, console=target), text


def test_plain_lines_when_not_a_terminal():
    shown, text = display()
    with shown:
        shown.start_stage(2, 3, "micro-science", 200)
        for step in range(1, 201):
            shown.step(row(step, kl=None if step > 100 else 0.25))
        shown.note("checkpoint [bold]saved[/bold]")
    lines = text.getvalue().splitlines()
    assert lines[0] == "stage 2/3 micro-science  200 steps" and "\x1b" not in text.getvalue()
    assert lines[1].startswith(
        "stage 2/3 micro-science  step 1/200  loss 0.5000  KL 0.2500  entropy 1.500  length 12.0"
    )
    assert "tokens/s 3,000" in lines[1] and "left" in lines[1]
    assert [int(m[1]) for line in lines if (m := re.search(r"step (\d+)/", line))] == [1, *range(20, 201, 20)]
    assert "KL" not in lines[-2]
    assert lines[-1] == "checkpoint [bold]saved[/bold]"


def test_long_stages_speak_at_least_every_50_steps_and_resumed_ones_start_anywhere():
    shown, text = display()
    shown.start_stage(1, 1, "t", 2000)
    for step in range(901, 1101, 10):
        shown.step(row(step))
    steps = [int(m[1]) for m in re.finditer(r"step (\d+)/2000", text.getvalue())]
    assert steps == [901, 951, 1001, 1051]


def test_probe_lines():
    shown, text = display()
    scores = {"a": {"accuracy": 0.5, "n": 60}, "b": {"accuracy": None, "n": 0}}
    shown.probe({"step": 50, "scores": scores, "suite": {"accuracy": 0.9, "n": 80}})
    shown.probe({"step": 60, "scores": scores, "suite": None})
    assert text.getvalue().splitlines() == [
        "  probe at step 50  a 0.500 (n 60)  prior 0.900 (n 80)",
        "  probe at step 60  a 0.500 (n 60)",
    ]


def test_a_terminal_gets_a_live_display_that_ends_with_the_stage():
    shown, text = display(terminal=True)
    shown.start_stage(1, 2, "micro-tooluse", 4)
    assert shown.live is not None
    for step in range(1, 5):
        shown.step(row(step))
    assert shown.live is None
    shown.start_stage(2, 2, "micro-science", 4)
    shown.step(row(1))
    shown.note("a note")
    shown.close()
    shown.close()
    out = text.getvalue()
    for piece in ("stage 1/2 micro-tooluse", "4/4", "loss 0.5000", "KL 0.2500", "stage 2/2", "a note", "left"):
        assert piece in out
    assert out.count("\x1b[?25l") == out.count("\x1b[?25h")  # the cursor is back


def test_quiet_says_nothing(capsys):
    shown = console.TrainingDisplay(quiet=True)
    shown.start_stage(1, 1, "t", 2)
    shown.step(row(1))
    shown.probe({"step": 1, "scores": {}})
    shown.note("x")
    shown.close()
    assert capsys.readouterr() == ("", "")


def test_progress_goes_to_stderr(capsys):
    shown = console.TrainingDisplay()
    shown.start_stage(1, 1, "t", 2)
    shown.step(row(1))
    shown.close()
    captured = capsys.readouterr()
    assert captured.out == "" and "step 1/2" in captured.err


def test_clock():
    assert [console.clock(s) for s in (0, 42.4, 723, 3909, -1)] == ["0:00", "0:42", "12:03", "1:05:09", "0:00"]
