"""What `make` would run: the demos as the pages describe them."""

import shlex
import shutil
import subprocess
from typing import Any

import pytest
from support.pages import ROOT
from typer.main import get_command

from sdft_cli.cli.app import app

DEMO: Any = get_command(app).commands["demo"]  # type: ignore[attr-defined]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("words", "model", "out"),
    [
        (("demo",), None, "runs/demo"),
        (("real",), "smollm2", "runs/real"),
        (("real", "MODEL=a folder/m.gguf", "REAL_OUT=o"), "a folder/m.gguf", "o"),
        (("real", "ARGS=--quick"), "smollm2", "runs/real"),
    ],
)
def test_a_demo_is_one_command(words: tuple[str, ...], model: str | None, out: str) -> None:
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    program, command, *flags = shlex.split(done.stdout.splitlines()[-1])
    assert program.endswith("/sdft") and command == "demo"
    given = DEMO.make_context("demo", flags).params
    assert (given["model"], str(given["out"])) == (model, out)
    assert given["quick"] == ("ARGS=--quick" in words)
